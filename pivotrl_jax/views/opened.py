"""A run's directory, read: `OpenedRun`, its turns and its selection. Needs neither jax nor a model.

Files are read when they are first asked for and kept; open the run again to see what it has written since.
"""

import dataclasses
import functools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pivotrl_jax.pivots import rollout_files
from pivotrl_jax.pivots import selection as selection_lib
from pivotrl_jax.records import Candidate, InputError, Pivot, Profile, Rollout, read_records
from pivotrl_jax.report.inputs import Estimate, estimate
from pivotrl_jax.run import metrics
from pivotrl_jax.run.stored import read_object
from pivotrl_jax.views import pages


@dataclasses.dataclass(frozen=True)
class Turn:
    """A candidate with what was sampled and decided there."""

    candidate: Candidate
    profile: Profile | None  # None: not profiled
    outcome: str  # one of selection.OUTCOMES; "" if it was not profiled
    rollouts: list[Rollout]  # of the profile, in the order of their samples, without token ids and log-probs

    @property
    def id(self) -> str:
        return self.candidate.id

    def __repr__(self) -> str:
        rewards = self.profile.rewards if self.profile else []
        return f"Turn({self.id!r}, {self.outcome or 'not profiled'}, rewards={rewards})"

    def _repr_html_(self) -> str:
        return pages.turn(self)


class Turns(list[Turn]):
    """Turns that a notebook shows as a list to open one by one."""

    def __repr__(self) -> str:
        return f"<{len(self)} turns>"

    def _repr_html_(self) -> str:
        return pages.turns(self)


class Selection(selection_lib.Selection):
    """What became of every candidate; `pivots.selection.Selection` with a picture."""

    @classmethod
    def of(cls, selection: selection_lib.Selection) -> "Selection":
        return cls(**{f.name: getattr(selection, f.name) for f in dataclasses.fields(selection)})

    def __str__(self) -> str:
        return "\n".join(self.table())

    def __repr__(self) -> str:
        return f"<Selection: {len(self.kept)} pivots kept of {len(self.profiles)} candidates>"

    def _repr_html_(self) -> str:
        return pages.selection(self)


class OpenedRun:
    """What a run left in its directory. A part whose file is not there (yet) is None, or empty."""

    def __init__(self, path: str | Path, selection: selection_lib.Selection | None = None):
        """`selection` spares reading profiles.jsonl. Raises InputError if there is no run in `path`."""
        self.path = Path(path)
        self.facts = read_object(self.path / "run.json")
        if selection is not None:
            self.selection = Selection.of(selection)

    # ---- what the files say

    @property
    def config(self) -> dict:
        """The run's config, as nested dicts."""
        return self.facts.get("config") or {}

    @property
    def table(self) -> list[tuple[str, str]]:
        """The table that a whole run ends with, as (name, text); [] before its end."""
        rows = self.facts.get("table") or []
        return [(str(row[0]), str(row[1])) for row in rows if isinstance(row, list) and len(row) == 2]

    @property
    def counts(self) -> dict[str, float]:
        """Counts of candidates, outcomes, rollout turns and tokens; {} before the run's end."""
        return self.facts.get("counts") or {}

    @functools.cached_property
    def metrics(self) -> list[dict]:
        """A dict per train step, as in metrics.jsonl."""
        return metrics.read_metrics(self.path)

    @functools.cached_property
    def evaluation(self) -> dict | None:
        """{"before", "after", "difference"}: measure -> {"value", "low", "high", "n", "clusters"}, 95 %
        intervals."""
        file = self.path / "evaluation.json"
        return read_object(file) if file.is_file() else None

    @functools.cached_property
    def candidates(self) -> list[Candidate]:
        """The self-checked candidates."""
        return self._records("candidates.jsonl", Candidate)

    @functools.cached_property
    def profiles(self) -> list[Profile]:
        return self._records("profiles.jsonl", Profile)

    @functools.cached_property
    def pivots(self) -> list[Pivot]:
        return self._records("pivots.jsonl", Pivot)

    @functools.cached_property
    def skipped(self) -> dict[str, str]:
        """What was left out of the data, place -> why."""
        file = self.path / "skipped.jsonl"
        lines = file.read_text("utf-8").splitlines() if file.is_file() else []
        return {line["where"]: line["why"] for line in map(json.loads, lines)}

    @functools.cached_property
    def selection(self) -> Selection | None:
        """The outcome of every profiled candidate; None without a profile."""
        profile = self.config.get("profile") or {}
        if not self.profiles or "lambda_diff" not in profile:
            return None
        group = max(profile.get("group_size") or 0, *(len(p.rewards) + p.abstained for p in self.profiles))
        all_fail = bool(profile.get("keep_all_fail"))
        return Selection.of(selection_lib.select(self.profiles, profile["lambda_diff"], group, all_fail))

    # ---- turns

    def turn(self, id: str) -> Turn:
        """The turn of one candidate. Raises InputError for an id that is not there."""
        candidate = next((c for c in self.candidates if c.id == id), None)
        if candidate is None:
            raise InputError(f"{self.path}: no candidate has the id {id!r}; the ids are in run.candidates")
        return self._turns([candidate])[0]

    def turns(self, outcome: str = "", limit: int = 20) -> Turns:
        """The first `limit` candidates (0: all) with their samples; with `outcome` ("pivot", "all_fail",
        "all_pass", "too_easy", ...) only those. Raises InputError for another outcome or a limit below 0."""
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
            raise InputError(f"limit is {limit!r}; want a number of turns, or 0 for all")
        chosen, known = self.candidates, selection_lib.OUTCOMES
        if outcome:
            if outcome not in known:
                raise InputError(f"outcome is {outcome!r}; want one of {', '.join(known)}")
            outcomes = self.selection.outcomes if self.selection else {}
            chosen = [c for c in chosen if outcomes.get(c.id) == outcome]
        return self._turns(chosen[: limit or None])

    def _turns(self, candidates: Sequence[Candidate]) -> Turns:
        wanted = {c.id for c in candidates}
        profiles = {p.candidate_id: p for p in self.profiles if p.candidate_id in wanted}
        outcomes = self.selection.outcomes if self.selection else {}
        sampled: dict[str, list[Rollout]] = {id: [] for id in wanted}
        for rollout in rollout_files.rollouts_of(self.path / "rollouts", wanted):
            sampled[rollout.candidate_id].append(rollout)
        return Turns(
            Turn(c, profiles.get(c.id), outcomes.get(c.id, ""), sorted(sampled[c.id], key=lambda r: r.sample))
            for c in candidates
        )

    def _records(self, name: str, kind: type) -> list:
        return read_records(self.path / name, kind) if (self.path / name).is_file() else []

    # ---- how it shows itself

    def __repr__(self) -> str:
        return f"OpenedRun({str(self.path)!r})"

    def _repr_html_(self) -> str:
        return pages.run(self)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What one checkpoint scored."""

    checkpoint: str
    policy: str  # its fingerprint
    file: Path  # with every episode, turn and answer
    measures: dict[str, Any]  # measure -> {"value", "low", "high", "n", "clusters"}, 95 % intervals
    abstained: int  # samples at held-out turns that the judge could not decide

    def rows(self) -> list[tuple[str, dict[str, float]]]:
        """(measure, its estimate), with those of the parts indented below."""
        parts = {**self.measures.get("verifiers", {}), **self.measures.get("families", {})}
        whole = {k: v for k, v in self.measures.items() if k not in ("verifiers", "families")}
        return [*whole.items(), *((f"  {part}", value) for part, value in parts.items())]

    def estimates(self) -> list[tuple[str, Estimate]]:
        """The rows, with what is known of each measure's size and whether it has an interval."""
        return [(name, estimate({name: value}, name)) for name, value in self.rows()]

    def __str__(self) -> str:
        lines = [
            f"{name:20s} {found.text()}" + f"  {found.size}" * (not found.too_few)
            for name, found in self.estimates()
        ]
        if self.abstained:
            lines.append(
                f"left out: {self.abstained} samples at held-out turns that the judge could not decide"
            )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return pages.evaluation(self)


class Trajectories(list):
    """Trajectories that were read, and `left_out`, place -> why a row or a file was not."""

    def __init__(self, trajectories: Iterable[Any], left_out: dict[str, str]):
        super().__init__(trajectories)
        self.left_out = left_out

    def __repr__(self) -> str:
        return f"<{len(self)} trajectories, {len(self.left_out)} left out>"

    def _repr_html_(self) -> str:
        return pages.trajectories(self)
