"""What usually goes wrong in training, read from the metrics logged so far, and what to do about each. A pure
function: no jax, no files.

A symptom is looked for in the mean of a metric over the last `WINDOW` lines of metrics.jsonl, so that one odd
step says nothing.
"""

import dataclasses
import statistics
from collections import deque
from collections.abc import Callable, Sequence

from pivotrl_jax.training.monitor import Line

WINDOW = 5  # steps


@dataclasses.dataclass(frozen=True)
class Symptom:
    """`shows(now, start)` decides on the metric's means over the last and the first window. `text` says what
    is wrong and what to do, with the two means as {now} and {start}."""

    metric: str
    shows: Callable[[float, float], bool]
    text: str


SYMPTOMS = {
    "no reward": Symptom(
        "reward_mean",
        lambda now, start: now == 0,
        "no rollout was rewarded: check the verifier with find_pivots --self_check, and read rollouts",
    ),
    "few mixed groups": Symptom(
        "mixed_groups",
        lambda now, start: now < 0.2,
        "only {now:.0%} of the groups have mixed rewards, so most rollouts teach nothing: train fewer steps, "
        "find new pivots (config.reprofile), or draw others in their place (config.grpo.dynamic_rounds)",
    ),
    "entropy collapse": Symptom(
        "entropy",
        lambda now, start: now < 0.1 * start,
        "the entropy per token fell from {start:.3g} to {now:.3g} nats, so all samples of a group become "
        "alike: lower the learning rate, or hold the policy with config.grpo.kl_coefficient",
    ),
    "truncation": Symptom(
        "unfinished",
        lambda now, start: now > 0.1,
        "{now:.0%} of the rollouts were cut at the token limit and got no reward: raise "
        "config.sampling.max_tokens, or see in rollouts/ why they do not end",
    ),
    "prompts too long": Symptom(
        "too_long",
        lambda now, start: now > 0.1,
        "{now:.0%} of the episodes ended without a reward because their next prompt was too long: raise "
        "config.data.max_prompt_tokens and config.compute.row_lengths, or lower config.e2e.max_steps",
    ),
    "drift": Symptom(
        "log_prob_drift",
        lambda now, start: now > 0.02,
        "sampler and learner differ by {now:.3g} nats per token, a tenth of the usual clip or more: compute "
        "in float32 (config.model.dtype), replay the router of a mixture (config.grpo.router), or correct "
        "the ratio (config.grpo.importance)",
    ),
}


def found(first: Sequence[Line], last: Sequence[Line]) -> dict[str, str]:
    """Name of each symptom that the `last` window of lines shows, compared with the `first` -> what is wrong
    and what to do."""
    sentences = {}
    if not any("reward_mean" in line for line in last):
        return sentences  # of imitation, where there are no groups and a low entropy is the aim
    for name, symptom in SYMPTOMS.items():
        windows = [[line.get(symptom.metric) for line in lines] for lines in (last, first)]
        if len(last) < WINDOW or None in windows[0] + windows[1]:
            continue  # a metric that the method does not have, or a step without a decided reward
        now, start = map(statistics.fmean, windows)
        if symptom.shows(now, start):
            sentences[name] = symptom.text.format(now=now, start=start)
    return sentences


class Watch:
    """Says each symptom once, at the step where it shows first."""

    def __init__(self, lines: Sequence[Line]):
        """`lines`: those logged before."""
        self._first, self._last = list(lines[:WINDOW]), deque(lines[-WINDOW:], WINDOW)
        self._said: set[str] = set()

    def see(self, line: Line) -> list[str]:
        """The sentences to say after one more line."""
        self._last.append(line)
        if len(self._first) < WINDOW:
            self._first.append(line)
        sentences = found(self._first, self._last)
        new = [text for name, text in sentences.items() if name not in self._said]
        self._said |= set(sentences)
        return new


def story(lines: Sequence[Line]) -> list[str]:
    """One sentence per symptom that a run showed: how often, and how it was the last time."""
    shown: dict[str, list[tuple[int, str]]] = {}
    for end in range(WINDOW, len(lines) + 1):
        for name, text in found(lines[:WINDOW], lines[end - WINDOW : end]).items():
            shown.setdefault(name, []).append((end, text))
    return [
        f"after step {times[0][0]}: {times[0][1]}"
        if len(times) == 1
        else f"{len(times)} times from step {times[0][0]} to {times[-1][0]}, at last: {times[-1][1]}"
        for times in shown.values()
    ]
