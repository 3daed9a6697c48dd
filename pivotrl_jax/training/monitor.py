"""When to profile again: a pure function of the metrics logged so far. No jax, no files.

Everything it needs is in metrics.jsonl, which has one line per step: how widely rewards spread within a
group, how well the policy does on validation items, and before which steps it was profiled. A run that is
killed and resumed therefore decides exactly as an uninterrupted one.

The first line after a profile has `reprofiled` 1 and the number of `pivots` that were found. If that is 0,
training goes on with the old pivots and the policy is not profiled again.
"""

import dataclasses
from collections.abc import Sequence

Line = dict[str, float | None]  # metric -> value, None where it was not a number
# the mean over groups, which is 0 when no group teaches; the std of the whole batch is highest when half of
# the groups pass and half fail
STD, VALIDATION = "group_reward_std", "validation/turn_pass"
REPROFILED, PIVOTS, ROLLOUTS = "reprofiled", "pivots", "profiling_rollout_turns"


@dataclasses.dataclass(frozen=True)
class Rule:
    """When the current pivots have nothing left to teach."""

    std_fraction: float  # profile when the groups' std falls below this share of its first value; 0: never
    std_window: int  # both values are means over this many steps
    patience: int  # profile after this many validations without an improvement; 0: never
    min_gain: float  # an improvement must exceed the best score by more than this
    most: int  # the most profiles in a run

    @property
    def on(self) -> bool:
        return bool(self.most and (self.std_fraction or self.patience))


def why(lines: Sequence[Line], rule: Rule) -> str:
    """Why the policy should be profiled before the step that follows `lines`; "" if it should not."""
    profiled = events(lines)
    if len(profiled) >= rule.most or not all(lines[i][PIVOTS] for i in profiled):
        return ""
    last = profiled[-1] if profiled else 0
    return _collapsed(lines[last:], rule) or _saturated(lines, last, rule)


def events(lines: Sequence[Line]) -> list[int]:
    """Indices of the lines before whose step the policy was profiled again."""
    return [i for i, line in enumerate(lines) if line.get(REPROFILED)]


def _collapsed(lines: Sequence[Line], rule: Rule) -> str:
    """Compare the std within groups, averaged over the latest window, with that of the first window since the
    last profile. A std of 0 is low enough in any case. Steps without a decided reward are skipped."""
    stds = [line[STD] for line in lines if line.get(STD) is not None]
    if not rule.std_fraction or len(stds) < rule.std_window:
        return ""
    start, now = (sum(part) / rule.std_window for part in (stds[: rule.std_window], stds[-rule.std_window :]))
    if not start:
        return "" if now else f"the reward std within groups is 0 for {rule.std_window} steps"
    if now >= rule.std_fraction * start:
        return ""
    return (
        f"the reward std within groups fell from {start:.3f} to {now:.3f}, under {rule.std_fraction:g} of it"
    )


def _saturated(lines: Sequence[Line], last: int, rule: Rule) -> str:
    """Count the validations since the last improvement or the last profile (line `last`), whichever is later.

    `best` is the best score of the whole run; it moves only when beaten by more than `min_gain`, so that
    small gains add up.
    """
    best, misses = None, 0
    for i, line in enumerate(lines):
        misses = 0 if i == last else misses
        value = line.get(VALIDATION)
        if value is None:
            continue
        if best is None or value > best + rule.min_gain:
            best, misses = value, 0
        else:
            misses += 1
    if not rule.patience or misses < rule.patience:
        return ""
    return f"no gain of more than {rule.min_gain:g} on a validation of {best:.3f}, {misses} times in a row"


def story(lines: Sequence[Line], rule: Rule, pivots: int) -> list[str]:
    """One sentence per profile during training; `pivots` is the number that the run began with."""
    sentences = []
    for i in events(lines):
        line = lines[i]
        found = int(line[PIVOTS])
        change = f"{pivots} -> {found} pivots" if found else f"no pivot any more, the {pivots} old ones stay"
        sentences.append(f"after step {line['step']}: {change} ({why(lines[:i], rule)})")
        pivots = found or pivots
    return sentences


def total(lines: Sequence[Line], name: str) -> int:
    """The sum of a counting metric over the lines that have it."""
    return sum(int(line.get(name) or 0) for line in lines)
