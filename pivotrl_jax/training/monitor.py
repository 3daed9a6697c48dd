"""When to profile again: a pure function of the metrics logged so far. No jax, no files.

A run's lines of metrics.jsonl, one a step, say everything: how far the rewards of its batches still spread,
how the policy does on validation items, and at which steps it was profiled before. So a run that is killed
and goes on decides as one that was not.

The line of the first step after a profile has `reprofiled` 1 and the number of `pivots` found, 0 where there
were none: then the old ones are trained on, and nothing is profiled any more.
"""

import dataclasses
from collections.abc import Sequence

Line = dict[str, float | None]  # metric -> value, None where it was not a number


STD, VALIDATION = "reward_std", "validation/turn_pass"


REPROFILED, PIVOTS, ROLLOUTS = "reprofiled", "pivots", "profiling_rollout_turns"


@dataclasses.dataclass(frozen=True)
class Rule:
    """When the pivots have taught what they can."""

    std_fraction: float  # a batch's reward std under this share of its start is too small; 0: off
    std_window: int  # steps that both are means over
    patience: int  # validations without improvement; 0: off
    min_gain: float  # what an improvement must exceed
    most: int  # times, in a run

    @property
    def on(self) -> bool:
        return bool(self.most and (self.std_fraction or self.patience))


def why(lines: Sequence[Line], rule: Rule) -> str:
    """Why to profile again before the next step, after those of `lines`; "" where there is no reason to."""
    profiled = events(lines)
    if len(profiled) >= rule.most or not all(lines[i][PIVOTS] for i in profiled):
        return ""
    last = profiled[-1] if profiled else 0
    return _collapsed(lines[last:], rule) or _saturated(lines, last, rule)


def events(lines: Sequence[Line]) -> list[int]:
    """Indices of the lines before whose step the policy was profiled again."""
    return [i for i, line in enumerate(lines) if line.get(REPROFILED)]


def _collapsed(lines: Sequence[Line], rule: Rule) -> str:
    """Of the lines since the last profile: the mean std of the latest window against that of the first. Steps
    whose rewards nobody could decide are passed over."""
    stds = [line[STD] for line in lines if line.get(STD) is not None]
    if not rule.std_fraction or len(stds) < rule.std_window:
        return ""
    start, now = (sum(part) / rule.std_window for part in (stds[: rule.std_window], stds[-rule.std_window :]))
    if now >= rule.std_fraction * start:
        return ""
    return f"the batch's reward std fell from {start:.3f} to {now:.3f}, under {rule.std_fraction:g} of it"


def _saturated(lines: Sequence[Line], last: int, rule: Rule) -> str:
    """The best is of the whole run, a small gain does not move it, and so small gains add up; what is counted
    are validations since the last improvement or, if that was later, the last profile (line `last`)."""
    best, without = None, 0
    for i, line in enumerate(lines):
        without = 0 if i == last else without
        value = line.get(VALIDATION)
        if value is None:
            continue
        if best is None or value > best + rule.min_gain:
            best, without = value, 0
        else:
            without += 1
    if not rule.patience or without < rule.patience:
        return ""
    return f"no gain of more than {rule.min_gain:g} on a validation of {best:.3f}, {without} times in a row"


def story(lines: Sequence[Line], rule: Rule, pivots: int) -> list[str]:
    """A sentence for every profile while training; `pivots` is how many the run began with."""
    told = []
    for i in events(lines):
        line = lines[i]
        found = int(line[PIVOTS])
        became = f"{pivots} -> {found} pivots" if found else f"no pivot any more, the {pivots} old ones stay"
        told.append(f"after step {line['step']}: {became} ({why(lines[:i], rule)})")
        pivots = found or pivots
    return told


def total(lines: Sequence[Line], name: str) -> int:
    """The sum of a metric that counts, over the lines that have it."""
    return sum(int(line.get(name) or 0) for line in lines)
