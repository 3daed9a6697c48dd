"""Profiles -> pivots: the outcome of every candidate, and the filter.

A pivot is a candidate whose rewards under the frozen reference policy vary (a group of equal rewards has zero
advantage and no gradient: PivotRL, arXiv 2603.21383, Proposition 3.1) and whose mean is below `lambda_diff`.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence

from pivotrl_jax.records import Candidate, InputError, Pivot, Profile

USUAL = "3 to 15 %"  # share of candidates that are pivots, in public sets
OUTCOMES = {  # outcome of a candidate -> its name in tables and plots
    "pivot": "pivots",
    "all_fail": "all fail",
    "all_pass": "all pass",
    "too_easy": "too easy",
    "undecided": "undecided",
}


def mean_and_variance(rewards: Sequence[float]) -> tuple[float, float]:
    """Mean and population variance. Equal rewards have variance exactly 0; without rewards both are 0."""
    if not rewards:
        return 0.0, 0.0
    if all(r == rewards[0] for r in rewards):
        return float(rewards[0]), 0.0
    mean = math.fsum(rewards) / len(rewards)
    return mean, math.fsum((r - mean) ** 2 for r in rewards) / len(rewards)


def make_profile(
    candidate: Candidate,
    rewards: Sequence[float | None],
    policy: str,
    verifier: str,
    temperature: float,
    seed: int,
    early: str = "",
) -> Profile:
    """The profile of one candidate's G rewards.

    Rewards that nobody could decide (None) are counted in `abstained` and otherwise left out. `verifier` is
    its label; `early` is the outcome where adaptive profiling did not sample all G. Raises ValueError for no
    rewards at all and for one that is not finite.
    """
    decided = [r for r in rewards if r is not None]
    if not rewards or not all(math.isfinite(r) for r in decided):
        raise ValueError(f"{candidate.id}: rewards {list(rewards)}, want at least one and all finite")
    mean, variance = mean_and_variance(decided)
    return Profile(
        candidate_id=candidate.id,
        rewards=[float(r) for r in decided],
        mean=mean,
        variance=variance,
        is_call=candidate.is_call,
        policy=policy,
        verifier=verifier,
        temperature=temperature,
        seed=seed,
        abstained=len(rewards) - len(decided),
        early=early,
    )


def outcome_of(rewards: Sequence[float], lambda_diff: float) -> str:
    """One of OUTCOMES, for a full group of decided rewards.

    Equal rewards are `all_fail` when they are 0 and `all_pass` when they are above 0, so partial rewards that
    are all equal count as passed. Mixed rewards are a `pivot` when their mean is below lambda_diff and
    `too_easy` otherwise. A group without a single decided reward is `undecided`.
    """
    if not rewards:
        return "undecided"
    mean, variance = mean_and_variance(rewards)
    if variance == 0:
        return "all_pass" if mean > 0 else "all_fail"
    return "pivot" if mean < lambda_diff else "too_easy"


def outcome(profile: Profile, lambda_diff: float) -> str:
    """The outcome of a candidate, one of OUTCOMES. If adaptive profiling stopped early, its decision is
    final."""
    return profile.early or outcome_of(profile.rewards, lambda_diff)


@dataclasses.dataclass(frozen=True)
class Selection:
    """The outcome of every profiled candidate."""

    profiles: list[Profile]
    lambda_diff: float
    outcomes: dict[str, str]  # candidate id -> one of OUTCOMES

    def _of(self, is_call: bool | None) -> list[Profile]:
        return [p for p in self.profiles if is_call is None or p.is_call == is_call]

    def counts(self, is_call: bool | None = None) -> dict[str, int]:
        """Outcome -> number of candidates, of call turns (True), text turns (False) or all (None)."""
        found = Counter(self.outcomes[p.candidate_id] for p in self._of(is_call))
        return {name: found[name] for name in OUTCOMES}

    def _decided(self, is_call: bool | None) -> list[Profile]:
        return [p for p in self._of(is_call) if p.rewards]

    def uninformative(self, is_call: bool | None = None) -> float:
        """Share of decided candidates whose rewards are all equal; NaN when there are none."""
        group = self._decided(is_call)
        return sum(p.variance == 0 for p in group) / len(group) if group else math.nan

    def mean(self, is_call: bool | None = None) -> float:
        """Mean reward of the reference policy; NaN when there are no decided candidates."""
        group = self._decided(is_call)
        return math.fsum(p.mean for p in group) / len(group) if group else math.nan

    def pivots(self, candidates: Sequence[Candidate]) -> list[Pivot]:
        """The pivots, in the order of `candidates`. Raises ValueError when a pivot is not among these."""
        chosen = {p.candidate_id: p for p in self.profiles if self.outcomes[p.candidate_id] == "pivot"}
        pivots = [Pivot(c, chosen[c.id]) for c in candidates if c.id in chosen]
        if len(pivots) != len(chosen):
            raise ValueError(f"{len(chosen)} pivots, but {len(pivots)} of their candidates were given")
        return pivots

    def table(self) -> list[str]:
        """Lines for the terminal: the outcomes of call turns, text turns and all turns."""
        names = dict(OUTCOMES)
        if not self.counts()["undecided"]:  # no judge abstained on a whole group
            del names["undecided"]
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
        lines.append(f"too easy: mixed rewards, mean at or above lambda_diff = {self.lambda_diff:g}")
        return [*lines, self.survival()]

    def survival(self) -> str:
        """How many candidates survive as pivots, against what is usual, and what may be wrong if none or most
        do."""
        counts = self.counts()
        total = sum(counts.values())
        share = counts["pivot"] / total if total else 0.0
        line = f"{share:.0%} of the candidates are pivots; {USUAL} is usual."
        if share > 0.5:
            return (
                f"{line} More than half are: read ten rollouts, since the verifier may decide by chance, "
                "or the policy may be too weak for these turns"
            )
        if counts["pivot"] or not total:
            return line
        if counts["all_pass"] > counts["all_fail"]:
            return f"{line} Most groups pass: the policy knows these turns, or the verifier accepts too much"
        return (
            f"{line} Most groups fail: see whether rollouts finish, whether their calls can be read, and "
            "whether the verifier knows the tools (find_pivots --self_check)"
        )

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
