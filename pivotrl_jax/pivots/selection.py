"""Profiles -> pivots: the outcome of every candidate, and the filter.

A pivot is a candidate whose rewards under the frozen reference policy vary (a group of equal rewards has zero
advantage and no gradient: PivotRL, arXiv 2603.21383, Proposition 3.1) and whose mean is below `lambda_diff`.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence

from pivotrl_jax.pivots import adaptive
from pivotrl_jax.records import Candidate, InputError, Pivot, Profile

USUAL = "3 to 15 %"  # share of candidates that are pivots, in public sets
OUTCOMES = {  # outcome of a candidate -> its name in tables and plots
    "pivot": "pivots",
    "all_fail": "all fail",
    "all_pass": "all pass",
    "too_easy": "too easy",
    "undecided": "undecided",
    "screened": "screened",  # plainly easy by the log-prob of the demonstration, so not sampled
}
RARE = ("undecided", "screened")  # left out of tables where there is none


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
    its label; `early` is the outcome where not all G were sampled. Raises ValueError for no rewards at all
    without such an outcome, and for one that is not finite.
    """
    decided = [r for r in rewards if r is not None]
    if not (rewards or early) or not all(math.isfinite(r) for r in decided):
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
    """The outcome of every profiled candidate.

    Where adaptive profiling ended a group early, its rewards are no sample of a full profile's: sampling goes
    on where they vary. So shares and means are those that a full profile is expected to have, given all
    rewards.
    """

    profiles: list[Profile]
    lambda_diff: float
    outcomes: dict[str, str]  # candidate id -> one of OUTCOMES
    # id of a candidate whose group ended early -> what a full profile would find (adaptive.expected)
    chances: dict[str, dict[str, float]]
    keep_all_fail: bool = False  # candidates whose rewards are all 0 are trained on, too

    @property
    def kept(self) -> list[Profile]:
        """The profiles of the candidates that are trained on."""
        outcomes = ("pivot", "all_fail") if self.keep_all_fail else ("pivot",)
        return [p for p in self.profiles if self.outcomes[p.candidate_id] in outcomes]

    @property
    def rollouts(self) -> int:
        """How many rollouts the profiles are made of."""
        return sum(len(p.rewards) + p.abstained for p in self.profiles)

    def _of(self, is_call: bool | None) -> list[Profile]:
        return [p for p in self.profiles if is_call is None or p.is_call == is_call]

    def counts(self, is_call: bool | None = None) -> dict[str, int]:
        """Outcome -> number of candidates for which it was decided, of call turns (True), text turns (False)
        or all (None)."""
        found = Counter(self.outcomes[p.candidate_id] for p in self._of(is_call))
        return {name: found[name] for name in OUTCOMES}

    def expected_counts(self, is_call: bool | None = None) -> dict[str, float]:
        """Outcome -> number of candidates that a full profile is expected to find; `counts` if no group ended
        early."""
        expected = dict.fromkeys(OUTCOMES, 0)
        for p in self._of(is_call):
            for name, chance in self._chances(p).items():
                expected[name] += chance
        return expected

    def counts_of_full_profile(self) -> dict[str, float]:
        """For run.json: `expected_counts`, and how many groups ended early; nothing if none did."""
        if not self.chances:
            return {}
        expected = {f"expected_{name}": round(x, 2) for name, x in self.expected_counts().items()}
        return {"ended_early": len(self.chances), **expected}

    def _chances(self, profile: Profile) -> dict[str, float]:
        """Outcome -> its chance in a full profile."""
        found = self.chances.get(profile.candidate_id, {self.outcomes[profile.candidate_id]: 1})
        return {name: chance for name, chance in found.items() if name in OUTCOMES}

    def _decided(self, is_call: bool | None) -> list[Profile]:
        return [p for p in self._of(is_call) if p.rewards]

    def uninformative(self, is_call: bool | None = None) -> float:
        """Share of decided candidates whose rewards are all equal; NaN when there are none."""
        group = self._decided(is_call)
        return math.fsum(map(self._equal, group)) / len(group) if group else math.nan

    def _equal(self, profile: Profile) -> float:
        """The chance that all rewards of a full profile are equal."""
        chances = self.chances.get(profile.candidate_id)
        return chances["all_fail"] + chances["all_pass"] if chances else float(profile.variance == 0)

    def mean(self, is_call: bool | None = None) -> float:
        """Mean reward of the reference policy; NaN when there are no decided candidates."""
        group = self._decided(is_call)
        means = (self.chances.get(p.candidate_id, {"mean": p.mean})["mean"] for p in group)
        return math.fsum(means) / len(group) if group else math.nan

    def missed(self) -> float:
        """The expected share of a full profile's pivots that were decided to be none; NaN without any."""
        pivots = self.expected_counts()["pivot"]
        missed = (c["pivot"] for id, c in self.chances.items() if self.outcomes[id] != "pivot")
        return math.fsum(missed) / pivots if pivots else math.nan

    def pivots(self, candidates: Sequence[Candidate]) -> list[Pivot]:
        """The pivots, with `keep_all_fail` the other kept candidates too, in the order of `candidates`.
        Raises ValueError when one is not among these."""
        chosen = {p.candidate_id: p for p in self.kept}
        pivots = [Pivot(c, chosen[c.id]) for c in candidates if c.id in chosen]
        if len(pivots) != len(chosen):
            raise ValueError(f"{len(chosen)} pivots, but {len(pivots)} of their candidates were given")
        return pivots

    def table(self) -> list[str]:
        """Lines for the terminal: the outcomes of call turns, text turns and all turns."""
        every = self.counts()
        names = {key: name for key, name in OUTCOMES.items() if key not in RARE or every[key]}
        kept = ["pivots kept"] if self.chances else []
        head = ["turns", "candidates", *kept, *names.values(), "uninformative", "mean reward"]
        rows = [head]
        for label, is_call in (("call", True), ("text", False), ("all", None)):
            counts, expected = self.counts(is_call), self.expected_counts(is_call)
            total = sum(counts.values())
            decided = total - sum(counts[key] for key in RARE)
            shares = [
                f"{100 * self.uninformative(is_call):.0f} %" if decided else "-",
                f"{self.mean(is_call):.3f}" if decided else "-",
            ]
            shown = [str(counts["pivot"])] if self.chances else []
            shown += [f"{expected[name]:{'.1f' if self.chances else 'd'}}" for name in names]
            rows.append([label, str(total), *shown, *shares])
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))])
            for row in rows
        ]
        lines.append(f"too easy: mixed rewards, mean at or above lambda_diff = {self.lambda_diff:g}")
        if self.keep_all_fail:
            lines.append(f"candidates that all fail are kept, too: {len(self.kept)} are trained on")
        if self.chances:
            lines.append(self.expectation())
        return [*lines, self.survival()]

    def expectation(self) -> str:
        """What the numbers are where adaptive profiling ended groups early."""
        line = (
            f"{len(self.chances)} of {len(self.profiles)} groups ended early: all numbers but the pivots "
            "kept are what a full profile is expected to find"
        )
        return line if math.isnan(self.missed()) else f"{line}; {self.missed():.1%} of its pivots are missed"

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
        """Raises InputError when no candidate is a pivot. Whoever selects prints the table before, which says
        what became of them."""
        if not self.kept:
            raise InputError(
                f"no pivot among {len(self.profiles)} candidates, so there is nothing to train on; "
                "the table above says what became of them; give other data, another reference policy or "
                "another lambda_diff"
            )


def select(
    profiles: Sequence[Profile],
    lambda_diff: float,
    group_size: int | None = None,
    keep_all_fail: bool = False,
) -> Selection:
    """Keep `variance > 0 and mean < lambda_diff`, and what all fails if `keep_all_fail`. `group_size`, that
    of a full profile, is needed where adaptive profiling ended groups early. Raises InputError for
    lambda_diff outside (0, 1]."""
    if not 0 < lambda_diff <= 1:
        raise InputError(f"lambda_diff is {lambda_diff}; want a mean reward in (0, 1]")
    chances, early = {}, [p for p in profiles if p.early and p.early not in RARE]
    if early:
        if group_size is None:
            raise ValueError(f"{len(early)} groups ended early, and group_size is not given")
        rates = {  # of call turns and of text turns, whose pass rates differ widely
            is_call: adaptive.pass_rates([p.rewards for p in profiles if p.is_call == is_call])
            for is_call in (True, False)
        }
        chances = {
            p.candidate_id: adaptive.expected(p.rewards, group_size, lambda_diff, rates[p.is_call])
            for p in early
        }
    outcomes = {p.candidate_id: outcome(p, lambda_diff) for p in profiles}
    return Selection(list(profiles), lambda_diff, outcomes, chances, keep_all_fail)
