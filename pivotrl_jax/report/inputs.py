"""What a run left in its working directory, read for the report; None stands for what is not there."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pivotrl_jax.pivots import rollout_files
from pivotrl_jax.records import (
    InputError,
    Pivot,
    Profile,
    Rollout,
    count_candidates,
    read_records,
)
from pivotrl_jax.run import metrics

Estimate = tuple[float, float, float]  # value, low, high


def _read_object(path: Path) -> dict:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as e:
        raise InputError(f"{path}: not valid JSON ({e}); write it again by running its stage") from None
    if not isinstance(value, dict):
        raise InputError(
            f"{path}: a JSON {type(value).__name__}, want an object; write it again by running its stage"
        )
    return value


class Samples:
    """The samples behind each pivot's profile. They are read when they are asked for, so that memory does not
    grow with them."""

    def __init__(self, folder: Path, pivots: Sequence[Pivot]):
        self._profiles = {p.candidate.id: p.profile for p in pivots}
        self._index = rollout_files.Index(folder, self._profiles)

    def of(self, candidate_id: str) -> list[Rollout]:
        """Those of a pivot, in order. A rollout whose reward is not the one in the profile belongs to another
        stage and is left out. Raises InputError."""
        by_sample: dict[int, Rollout] = {}
        for rollout in self._index.read(candidate_id):
            if belongs(rollout, self._profiles[candidate_id]):
                by_sample.setdefault(rollout.sample, rollout)
        return [by_sample[k] for k in sorted(by_sample)]


def belongs(rollout: Rollout, profile: Profile) -> bool:
    """Whether a rollout can be one of those behind a profile of its candidate."""
    rewards, sample = profile.rewards, rollout.sample
    if not 0 <= sample < len(rewards) + profile.abstained:
        return False
    if profile.abstained:  # abstentions are not in the rewards, so a reward's index is not its sample
        return rollout.reward is None or rollout.reward in rewards
    return rollout.reward == rewards[sample]


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What the stages left behind; None where the file is missing."""

    run: dict
    candidates: int | None
    profiles: list[Profile] | None
    pivots: list[Pivot] | None
    samples: Samples  # of the pivots
    metrics: list[dict] | None  # one per train step, in order
    evaluation: dict | None


def read_inputs(workdir: Path) -> Inputs:
    """Read a working directory.

    Raises InputError for a missing directory or run.json, and for a malformed file (with its line).
    """
    if not workdir.is_dir():
        raise InputError(f"{workdir}: no such directory; give --workdir the directory a run wrote to")
    if not (workdir / "run.json").is_file():
        raise InputError(f"{workdir}/run.json: no such file; run pivotrl_jax.train with this workdir first")

    def optional(name, read):
        return read(workdir / name) if (workdir / name).is_file() else None

    pivots = optional("pivots.jsonl", lambda p: read_records(p, Pivot))
    return Inputs(
        run=_read_object(workdir / "run.json"),
        candidates=optional("candidates.jsonl", count_candidates),
        profiles=optional("profiles.jsonl", lambda p: read_records(p, Profile)),
        pivots=pivots,
        samples=Samples(workdir / "rollouts", pivots or []),
        metrics=optional(metrics.FILE, lambda p: metrics.read_metrics(p.parent)),
        evaluation=optional("evaluation.json", _read_object),
    )


def number(value: Any) -> float | None:
    """`value` if it is a finite number, else None."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def part(value: Any, key: str) -> dict:
    """`value[key]` if both are objects, else {}."""
    inner = value.get(key) if isinstance(value, dict) else None
    return inner if isinstance(inner, dict) else {}


def estimate(values: Any, name: str) -> Estimate | None:
    """(value, low, high) of one measured quantity; the bounds fall back to the value."""
    entry = part(values, name)
    value, low, high = (number(entry.get(k)) for k in ("value", "low", "high"))
    if value is None:
        return None
    return value, value if low is None else low, value if high is None else high
