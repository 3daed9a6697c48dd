"""Candidates -> pivots: the self-check before compute is spent, profiles, and the filter.

A pivot is a candidate whose rewards under the frozen reference policy vary (a group of equal rewards has zero
advantage and no gradient: PivotRL, arXiv 2603.21383, Proposition 3.1) and whose mean is below `lambda_diff`.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence

from pivotrl_jax.records import Candidate, InputError, Pivot, Profile
from pivotrl_jax.verifiers.base import Verifier

OUTCOMES = ("pivot", "all_fail", "all_pass", "too_easy", "undecided")


# ---- profile and filter


def make_profile(
    candidate: Candidate,
    rewards: Sequence[float | None],
    policy: str,
    verifier: Verifier,
    temperature: float,
    seed: int,
    early: str = "",
) -> Profile:
    """Mean, population variance of one candidate's G rewards; of equal rewards the variance is exactly 0.

    Rewards that nobody could decide (None) are counted, and left out of both. `early` is the outcome on which
    adaptive profiling settled before all G were drawn.
    """
    sampled, rewards = len(rewards), [r for r in rewards if r is not None]
    if not sampled or not all(math.isfinite(r) for r in rewards):
        raise ValueError(f"{candidate.id}: rewards {list(rewards)}, want at least one and all finite")
    if not rewards:
        mean, variance = 0.0, 0.0
    elif all(r == rewards[0] for r in rewards):
        mean, variance = float(rewards[0]), 0.0
    else:
        mean = math.fsum(rewards) / len(rewards)
        variance = math.fsum((r - mean) ** 2 for r in rewards) / len(rewards)
    return Profile(
        candidate_id=candidate.id,
        rewards=[float(r) for r in rewards],
        mean=mean,
        variance=variance,
        is_call=candidate.is_call,
        policy=policy,
        verifier=verifier.label,
        temperature=temperature,
        seed=seed,
        abstained=sampled - len(rewards),
        early=early,
    )


def outcome(profile: Profile, lambda_diff: float) -> str:
    """One of OUTCOMES: equal rewards are all_fail (all 0) or all_pass (above 0); the rest by the mean. A group
    without a single decided reward is undecided. What adaptive profiling settled on stands."""
    if profile.early:
        return profile.early
    if not profile.rewards:
        return "undecided"
    if profile.variance == 0:
        return "all_pass" if profile.mean > 0 else "all_fail"
    return "pivot" if profile.mean < lambda_diff else "too_easy"


@dataclasses.dataclass(frozen=True)
class Selection:
    """What became of every profiled candidate."""

    profiles: list[Profile]
    lambda_diff: float
    outcomes: dict[str, str]  # candidate id -> one of OUTCOMES

    def _of(self, is_call: bool | None) -> list[Profile]:
        return [p for p in self.profiles if is_call is None or p.is_call == is_call]

    def counts(self, is_call: bool | None = None) -> dict[str, int]:
        """Fate -> number of candidates; of call turns (True), text turns (False) or all (None)."""
        found = Counter(self.outcomes[p.candidate_id] for p in self._of(is_call))
        return {name: found[name] for name in OUTCOMES}

    def _decided(self, is_call: bool | None) -> list[Profile]:
        return [p for p in self._of(is_call) if p.rewards]

    def uninformative(self, is_call: bool | None = None) -> float:
        """Share of decided candidates whose group is all equal; NaN when there are none."""
        group = self._decided(is_call)
        return sum(p.variance == 0 for p in group) / len(group) if group else math.nan

    def mean(self, is_call: bool | None = None) -> float:
        """Mean reward of the reference policy; NaN when there are no decided candidates."""
        group = self._decided(is_call)
        return math.fsum(p.mean for p in group) / len(group) if group else math.nan

    def pivots(self, candidates: Sequence[Candidate]) -> list[Pivot]:
        """The pivots, in the order of `candidates`. Raises ValueError when one's candidate is not given."""
        chosen = {p.candidate_id: p for p in self.profiles if self.outcomes[p.candidate_id] == "pivot"}
        pivots = [Pivot(c, chosen[c.id]) for c in candidates if c.id in chosen]
        if len(pivots) != len(chosen):
            raise ValueError(f"{len(chosen)} pivots, but {len(pivots)} of their candidates were given")
        return pivots

    def table(self) -> list[str]:
        """Lines for the terminal: call turns, text turns and all, and what became of them."""
        names = {"pivot": "pivots", "all_fail": "all fail", "all_pass": "all pass", "too_easy": "too easy"}
        if self.counts()["undecided"]:  # there was a judge, and it abstained
            names["undecided"] = "undecided"
        head = ["turns", "candidates", *names.values(), "uninformative", "mean reward"]
        rows = [head]
        for label, is_call in (("call", True), ("text", False), ("all", None)):
            counts = self.counts(is_call)
            total = sum(counts.values())
            shares = [
                f"{100 * self.uninformative(is_call):.0f} %" if total > counts["undecided"] else "-",
                f"{self.mean(is_call):.3f}" if total > counts["undecided"] else "-",
            ]
            rows.append([label, str(total), *(str(counts[name]) for name in names), *shares])
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))])
            for row in rows
        ]
        return [*lines, f"too easy: mixed rewards, mean at or above lambda_diff = {self.lambda_diff:g}"]

    def require_pivots(self) -> None:
        """Raises InputError with the table when no candidate is a pivot."""
        if not self.counts()["pivot"]:
            raise InputError(
                f"no pivot among {len(self.profiles)} candidates, so there is nothing to train on; "
                "see what became of them, and give other data, another reference policy or another "
                "lambda_diff:\n" + "\n".join(self.table())
            )


def select(profiles: Sequence[Profile], lambda_diff: float) -> Selection:
    """Keep `variance > 0 and mean < lambda_diff`. Raises InputError for lambda_diff outside (0, 1]."""
    if not 0 < lambda_diff <= 1:
        raise InputError(f"lambda_diff is {lambda_diff}; want a mean reward in (0, 1]")
    return Selection(list(profiles), lambda_diff, {p.candidate_id: outcome(p, lambda_diff) for p in profiles})
