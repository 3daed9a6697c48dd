"""The skip list of online pivots: candidates that will hardly give a mixed group are not sampled.

Every group that training draws says something about its candidate's pass rate. The chance of a mixed group is

    sum over rates p of P(p | rewards so far) (1 - p^G - (1 - p)^G)

where the last term is left out if demonstrations make all-fail groups teach, too (demonstrations.py), with a
prior over rates from all candidates' latest groups (`adaptive.pass_rates`). Candidates whose chance is
below a share of an unseen candidate's are skipped. This is a plain threshold, not a Thompson sample: what a
random draw would spend on finding out whether a candidate has changed, forgetting spends at a pace that one
can read, and the choice needs no stream of random numbers. Rewards lose half their weight every half-life
(their likelihood is taken to the power of the weight), so a candidate that was hopeless comes back.

Rewards are 0 or 1 here; a candidate with any other reward is never skipped.

The rewards are in trained_rewards.jsonl, a line per step. A killed run drops the lines past its checkpoint
and decides as one that was never killed.
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pivotrl_jax.pivots import adaptive
from pivotrl_jax.records import InputError, Rollout

FILE = "trained_rewards.jsonl"
Rewards = list[float | None]


@dataclasses.dataclass(frozen=True)
class SkipRule:
    """When a candidate is skipped."""

    below: float  # share of an unseen candidate's chance of a mixed group
    half_life: float  # steps after which a reward counts half
    group_size: int
    failures_teach: bool = False  # a demonstration is put into all-fail groups

    def chances(self, k: np.ndarray, n: np.ndarray, prior: np.ndarray) -> np.ndarray:
        """The chance that a group teaches: float64 [N]. `k` and `n`, [N], are weighted counts of successes
        and rewards seen; `prior` is a distribution over `adaptive.GRID`."""
        p = adaptive.GRID
        posterior = prior * p ** k[:, None] * (1 - p) ** (n - k)[:, None]
        teaches = 1 - p**self.group_size - (not self.failures_teach) * (1 - p) ** self.group_size
        return posterior @ teaches / posterior.sum(axis=1)


class SkipList:
    """The rewards that training has drawn, and who is skipped because of them."""

    def __init__(self, rule: SkipRule, workdir: Path):
        self._rule, self._file = rule, workdir / FILE
        self._steps: list[list[tuple[str, Rewards]]] | None = None  # of each step: (candidate id, rewards)

    def skipped(self, step: int, candidate_ids: Sequence[str]) -> set[int]:
        """Indices of the candidates that this step skips. Raises InputError when rewards of earlier steps
        are not on disk."""
        steps = self._before(step)
        latest = {id: rewards for groups in steps for id, rewards in groups}
        counts = {id: np.zeros(2) for id in latest}
        for at, groups in enumerate(steps):
            weight = 0.5 ** ((step - at) / self._rule.half_life)
            for id, rewards in groups:
                decided = [r for r in rewards if r is not None]
                counts[id] += weight * np.array([sum(decided), len(decided)])
        partial = {id for groups in steps for id, rewards in groups if not {*rewards} <= {0, 1, None}}
        seen = [i for i, id in enumerate(candidate_ids) if id in counts and id not in partial]
        if not seen:
            return set()
        prior = adaptive.pass_rates(list(latest.values()))
        k, n = np.array([np.zeros(2), *(counts[candidate_ids[i]] for i in seen)]).T
        unseen, *known = self._rule.chances(k, n, prior)
        return {i for i, chance in zip(seen, known) if chance < self._rule.below * unseen}

    def add(self, step: int, groups: Sequence[Sequence[Rollout]]) -> None:
        """Write down the rewards that a step drew. Call `skipped` for the step first."""
        drawn = [(group[0].candidate_id, [rollout.reward for rollout in group]) for group in groups]
        self._steps.append(drawn)
        with self._file.open("a", encoding="utf-8") as f:
            f.write(json.dumps({"step": step, "groups": drawn}) + "\n")

    def _before(self, step: int) -> list[list[tuple[str, Rewards]]]:
        """The groups of the steps before this one; what the file has of later ones is dropped."""
        if self._steps is None or len(self._steps) != step:
            self._steps = self._read(step)
        return self._steps

    def _read(self, step: int) -> list[list[tuple[str, Rewards]]]:
        raw = self._file.read_bytes() if self._file.is_file() else b""
        lines, found = raw[: raw.rfind(b"\n") + 1].splitlines()[:step], []  # a kill tears the last line
        for number, text in enumerate(lines):
            try:
                line = json.loads(text)
                if line["step"] != number:
                    raise ValueError(f"step {line['step']} stands where step {number} should")
                found.append([(str(id), list(rewards)) for id, rewards in line["groups"]])
            except (ValueError, KeyError, TypeError) as e:
                raise InputError(
                    f"{self._file}:{number + 1}: not the rewards of a step ({e}); put back what the run "
                    "wrote, or start over with --config.resume=False"
                ) from None
        if len(found) < step:
            raise InputError(
                f"{self._file}: holds {len(found)} of the {step} steps before the checkpoint, and all of "
                "them decide which candidates are skipped; put the file back, or start over with "
                "--config.resume=False"
            )
        temporary = self._file.with_name(f"{FILE}.tmp")
        temporary.write_bytes(b"".join(line + b"\n" for line in lines))
        os.replace(temporary, self._file)
        return found
