"""The same pivots before and after training: their profiles under pi_0 and under the final policy."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from markupsafe import Markup

from pivotrl_jax.pivots.selection import outcome_of
from pivotrl_jax.records import Profile, Rollout
from pivotrl_jax.report import page
from pivotrl_jax.report.inputs import Inputs

FOLDER = "resampled"
CHANGES = {
    "rose": "mean rose",
    "fell": "mean fell",
    "same": "mean unchanged",
    "all_pass": "all pass now",
    "all_fail": "all fail now",
    "undecided": "undecided",
}
RARE = ("same", "undecided")  # left out of the table where there is none
TRAINED_ON = {  # by method
    "pivotrl": "these turns were trained on",
    "random_turns": "training drew its turns from all candidates, these among them",
    "sft": "the demonstrations of these turns were trained on",
    "e2e_rl": "the tasks of these turns were trained on",
}
MOST_REASONS = 12  # in the table

Pair = tuple[Profile, Profile]  # of one pivot, before and after training


def pairs_of(before: Iterable[Profile], after: Iterable[Profile]) -> list[Pair]:
    """Profiles of the same candidates, in the order of `after`; those without a partner are left out."""
    known = {profile.candidate_id: profile for profile in before}
    return [(known[p.candidate_id], p) for p in after if p.candidate_id in known]


def changes_of(pair: Pair) -> list[str]:
    """Keys of CHANGES that hold for a pivot: how its mean moved, and whether its rewards are equal now."""
    before, after = pair
    if not (before.rewards and after.rewards):
        return ["undecided"]
    moved = "rose" if after.mean > before.mean else "fell" if after.mean < before.mean else "same"
    ended = outcome_of(after.rewards, 1.0)
    return [moved, ended] if ended in CHANGES else [moved]


def means(pairs: Sequence[Pair]) -> list[float]:
    """[before, after]: the mean over pivots of their mean rewards, where they are decided; [] without any."""
    decided = [pair for pair in pairs if changes_of(pair) != ["undecided"]]
    return [math.fsum(p.mean for p in side) / len(decided) for side in zip(*decided)]


def summary(pairs: Sequence[Pair]) -> dict:
    """For run.json: number of pivots and of the final policy's rollouts, means, and counts by change."""
    counts = Counter(change for pair in pairs for change in changes_of(pair))
    return {
        "pivots": len(pairs),
        "rollouts": sum(len(after.rewards) + after.abstained for _, after in pairs),
        **dict(zip(("mean_before", "mean_after"), means(pairs))),
        **{change: counts[change] for change in CHANGES},
    }


class Reasons:
    """The verifier's reasons of the pivots' samples before and after, added pivot by pivot."""

    def __init__(self):
        self._counts = Counter(), Counter()

    def add(self, before: Iterable[Rollout], after: Iterable[Rollout]) -> None:
        for counts, rollouts in zip(self._counts, (before, after)):
            counts.update(rollout.reason for rollout in rollouts)

    def rows(self) -> list[tuple[str, str, str]]:
        """(reason, samples before, samples after), the commonest first; the rest is one row."""
        before, after = self._counts
        names = [name for name, _ in (before + after).most_common()]
        rows = [(name, before[name], after[name]) for name in names[:MOST_REASONS]]
        if rest := names[MOST_REASONS:]:
            rows.append((f"{len(rest)} others", *(sum(c[name] for name in rest) for c in self._counts)))
        return [(name, f"{b:,}", f"{a:,}") for name, b, a in rows]


def section(inputs: Inputs, pairs: Sequence[Pair], reasons: Reasons) -> Markup:
    """How many pivots rose and fell, and what that does not mean; nothing where none was sampled again."""
    if not pairs:
        return Markup("")
    tables = [
        page.titled(
            "By change", page.table(("pivots", "number", "mean before", "mean after"), _by_change(pairs))
        )
    ]
    if rows := reasons.rows():
        named = page.table(("reason", "samples before", "samples after"), rows)
        tables.append(page.titled("By the verifier's reason", named))
    body = Markup('<div class="pair">{}</div>').format(page.join(tables))
    caveat = page.lead(" ".join(_caveats(inputs, pairs)))
    return page.section("The same pivots before and after", page.join([caveat, body]), _words(inputs, pairs))


def _by_change(pairs: Sequence[Pair]) -> Iterator[tuple[str, ...]]:
    yield "all", f"{len(pairs):,}", *_shown(pairs)
    for change, words in CHANGES.items():
        found = [pair for pair in pairs if change in changes_of(pair)]
        if found or change not in RARE:
            yield words, f"{len(found):,}", *_shown(found)


def _shown(pairs: Sequence[Pair]) -> list[str]:
    return [f"{mean:.3f}" for mean in means(pairs)] or ["–", "–"]


def _words(inputs: Inputs, pairs: Sequence[Pair]) -> str:
    size = max(len(after.rewards) + after.abstained for _, after in pairs)
    total = max(len(inputs.pivots or ()), len(pairs))
    which = f"{len(pairs):,} of the {total:,} pivots, drawn at random, were"
    if total == len(pairs):
        which = "The pivots were"
    return (
        f"{which} sampled again by the final policy, the one in hf/: {size} actions each, with the sampling "
        "and the reward of their profile. The samples of both stand side by side below, where candidates can "
        "be filtered and sorted by this change."
    )


def _caveats(inputs: Inputs, pairs: Sequence[Pair]) -> Iterator[str]:
    trained = TRAINED_ON.get(inputs.method, TRAINED_ON["pivotrl"])
    yield (
        f"This does not say what the policy can do elsewhere: {trained}. Nor is all of the change due to "
        "training: pivots are chosen by the rewards that stand here as before, so another sample of the same "
        "policy would differ from them, too (regression to the mean). Held-out turns say what was learnt."
    )
    if early := sum(bool(before.early) for before, _ in pairs):
        yield (
            f"Adaptive profiling ended {early:,} of these groups early, so their means before are of fewer "
            "actions, and lie further apart."
        )
