"""The screen: candidates that are plainly easy are sorted out before anything is sampled.

    demonstration -> p = exp(its log-prob under the policy) -> screened, if p is at least `probability`

p is the chance that the policy samples the very tokens of the demonstration, at the sampler's temperature.
The verifier accepts them, so the pass rate is at least p. That costs one prefill of every trajectory and no
rollout. What p says is one-sided: a low p may belong to a turn that passes in many other words. So most turns
that only talk are kept, unless `text_turns` sorts them all out.

Verdict and log-prob of every candidate are in rollouts/00000.screen.json, beside the file of rollouts, in
which screened candidates have none. Their outcome is "screened".
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

from pivotrl_jax.models import decoder, forest
from pivotrl_jax.records import Candidate, InputError, Prompt, write_json
from pivotrl_jax.rollouts import demonstrations
from pivotrl_jax.rollouts.rollout import Rollouts
from pivotrl_jax.rollouts.scoring import Scorer

SUFFIX = ".screen.json"


@dataclasses.dataclass(frozen=True)
class Rule:
    """Which candidates are screened."""

    probability: float  # those with p of at least this; 0: none
    text_turns: bool  # those whose demonstration only talks

    @property
    def on(self) -> bool:
        return bool(self.probability or self.text_turns)


@dataclasses.dataclass(frozen=True)
class Decision:
    """What the screen says about a candidate."""

    candidate_id: str
    screened: bool
    log_prob: float | None  # of the demonstration; None where it was not scored


def accepts(rollouts: Rollouts, candidate: Candidate) -> bool:
    """Whether the verifier's rules accept the demonstration as the policy would write it. Where they leave it
    to a judge, they do not."""
    ids = demonstrations.ids_of(rollouts, candidate)
    return demonstrations.verdict_on(rollouts, candidate, ids).reward == 1


@dataclasses.dataclass(frozen=True)
class Screen:
    """The screen of one profile."""

    rule: Rule
    rollouts: Rollouts
    scorer: Scorer | None  # at the sampler's temperature; None where nothing is scored
    params: decoder.Params | None  # sharded as in the learner

    def decide(self, prompts: Sequence[Prompt], file: Path) -> list[Decision]:
        """The decisions on the candidates of a file of rollouts, in order; read back if they are on disk."""
        where = path_of(file)
        if where.is_file():
            return read(file, [prompt.candidate for prompt in prompts])
        log_probs = self._log_probs(prompts)
        decisions = [
            Decision(p.candidate.id, self._screened(p.candidate, log_probs.get(i)), log_probs.get(i))
            for i, p in enumerate(prompts)
        ]
        write(file, decisions)
        return decisions

    def _log_probs(self, prompts: Sequence[Prompt]) -> dict[int, float]:
        """Index of a prompt -> log-prob of the demonstration there, for those that are scored."""
        trees: dict[str, list[forest.Piece]] = {}
        scored: list[int] = []
        for i, prompt in enumerate(prompts):
            c = prompt.candidate
            wanted = self.rule.probability and (c.is_call or not self.rule.text_turns)
            ids = demonstrations.ids_of(self.rollouts, c) if wanted else []
            if 0 < len(ids) <= self.rollouts.actor.sampling.max_tokens:  # else it cannot be sampled
                piece = forest.Piece(len(scored), prompt.ids, [ids], merge=True)
                trees.setdefault(c.trajectory_id, []).append(piece)
                scored.append(i)
        if not scored:
            return {}
        found = self.scorer(self.params, list(trees.values()))
        return {i: log_prob for i, (log_prob,) in zip(scored, found)}

    def _screened(self, candidate: Candidate, log_prob: float | None) -> bool:
        if self.rule.text_turns and not candidate.is_call:
            return True
        likely = log_prob is not None and log_prob >= math.log(self.rule.probability)
        return likely and accepts(self.rollouts, candidate)


# ---- on disk


def path_of(file: Path) -> Path:
    """The screen's decisions on the candidates of a file of rollouts."""
    return file.with_suffix(SUFFIX)


def write(file: Path, decisions: Sequence[Decision]) -> None:
    """Write the decisions that belong to a file of rollouts."""
    write_json(path_of(file), [dataclasses.asdict(decision) for decision in decisions])


def read(file: Path, candidates: Sequence[Candidate]) -> list[Decision]:
    """What `write` wrote. Raises InputError if it is not about these candidates."""
    where = path_of(file)
    try:
        decisions = [Decision(**value) for value in json.loads(where.read_text("utf-8"))]
    except (OSError, ValueError, TypeError) as e:
        raise InputError(
            f"{where}: not the screen's decisions ({e}); put back what the run wrote, or remove it and "
            f"{file.name} and start the program again"
        ) from None
    if [d.candidate_id for d in decisions] != [c.id for c in candidates]:
        raise InputError(
            f"{where}: decides on other candidates than those of {file.name}; put back what the run wrote, "
            "or remove both and start the program again"
        )
    return decisions


def kept(decisions: Sequence[Decision], members: Sequence[int]) -> list[int]:
    """Those of the `members` that are sampled; `decisions` are on them, in order."""
    return [i for i, decision in zip(members, decisions, strict=True) if not decision.screened]
