"""What a run left in its working directory, read for the report; None stands for what is not there."""

import dataclasses
import math
from pathlib import Path
from typing import Any, NamedTuple

from pivotrl_jax.records import InputError, Pivot, Profile, Rollout, count_candidates, read_records
from pivotrl_jax.run import metrics
from pivotrl_jax.run.stored import read_object

FEW = 10  # of fewer clusters no interval is shown: a bootstrap of them is far too narrow


class Estimate(NamedTuple):
    """One measured quantity. Values of a cluster (a scenario, a task) succeed and fail together; n and
    clusters are None where the evaluation does not say of how many values in how many clusters it is."""

    value: float
    low: float
    high: float
    n: int | None = None
    clusters: int | None = None

    @property
    def too_few(self) -> bool:
        """Whether it is of so few clusters that an interval would pretend to knowledge."""
        count = self.n if self.clusters is None else self.clusters
        return count is not None and count < FEW

    @property
    def size(self) -> str:
        """'n = 20', or 'n = 20 in 3 clusters' where several values share one."""
        shared = self.clusters not in (None, self.n)
        return f"n = {self.n}" + shared * f" in {self.clusters} cluster{'s' * (self.clusters != 1)}"

    @property
    def why_no_interval(self) -> str:
        """Why an interval would say nothing; "" where it says something. A bootstrap of equal values has no
        width."""
        if self.too_few:
            return f"{self.size}, no interval".replace(" = ", "\u00a0=\u00a0")
        return "all alike" if self.low == self.high else ""

    def text(self, sign: str = "") -> str:
        """'0.412 [0.350, 0.470]', or '0.500 (n = 6, no interval)'; with the sign "+" also of what rose."""
        value, low, high = (f"{number:{sign}.3f}" for number in self[:3])
        why = self.why_no_interval.replace("\u00a0", " ")
        return f"{value} ({why})" if why else f"{value} [{low}, {high}]"


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
    metrics: list[dict] | None  # one per train step, in order
    evaluation: dict | None
    resampled: list[Profile] | None = None  # pivots under the final policy, if the run has finished

    @property
    def config(self) -> dict:
        return part(self.run, "config")

    @property
    def method(self) -> str:
        """What the config calls the method; "" if it does not."""
        found = self.config.get("method")
        return found if isinstance(found, str) else ""


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

    run = read_object(workdir / "run.json")
    again = optional("resampled/profiles.jsonl", lambda p: read_records(p, Profile))
    return Inputs(
        run=run,
        candidates=optional("candidates.jsonl", count_candidates),
        profiles=optional("profiles.jsonl", lambda p: read_records(p, Profile)),
        pivots=optional("pivots.jsonl", lambda p: read_records(p, Pivot)),
        metrics=optional(metrics.FILE, lambda p: metrics.read_metrics(p.parent)),
        evaluation=optional("evaluation.json", read_object),
        resampled=again if part(run, "resampled") else None,
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
    """One measured quantity; bounds that are not there fall back to the value."""
    entry = part(values, name)
    value, low, high, *counts = (number(entry.get(field)) for field in Estimate._fields)
    if value is None:
        return None
    n, clusters = (None if count is None else round(count) for count in counts)
    return Estimate(value, value if low is None else low, value if high is None else high, n, clusters)


def change_of(evaluation: Any, name: str, group: str = "") -> list[Estimate | None]:
    """[before, after, difference] of a measure; in a `group` ("families") of each if one is named. Where an
    older evaluation does not say of how many values the difference is, it has those of the smaller side."""
    sides = [part(evaluation, side) for side in ("before", "after", "difference")]
    if group:
        sides = [part(side, group) for side in sides]
    before, after, change = (estimate(side, name) for side in sides)
    counts = [e.n for e in (before, after) if e and e.n is not None]
    if change and change.n is None and counts:
        change = change._replace(n=min(counts))
    return [before, after, change]
