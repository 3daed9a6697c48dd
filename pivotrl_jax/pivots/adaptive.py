"""Adaptive profiling: stop sampling a candidate as soon as its outcome is decided at a stated error rate.

A full profile draws G rewards and asks two questions: do they vary, and is their mean below lambda_diff? Most
candidates answer early: one success and so many failures that the mean cannot reach lambda_diff any more, or
so many equal rewards that mixed ones have become unlikely. How unlikely is estimated from the candidates
themselves: the rewards so far give the distribution of pass rates (its nonparametric maximum likelihood, by
EM on a grid; Laird 1978), and given its pass rate, a candidate's remaining rewards are binomial.

Rewards are 0 or 1 here; a candidate with any other reward is profiled in full.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import numpy as np

from pivotrl_jax.pivots import selection

GRID = np.concatenate([[0.0], np.linspace(0.005, 0.995, 100), [1.0]])  # pass rates
EM_STEPS = 200


@functools.cache
def _choose(n: int) -> np.ndarray:
    return np.array([math.comb(n, k) for k in range(n + 1)], np.float64)


def _binomial(n: int) -> np.ndarray:
    """P(k successes of n) for every rate of the grid: [rates, n + 1]."""
    k = np.arange(n + 1)
    return _choose(n) * GRID[:, None] ** k * (1 - GRID[:, None]) ** (n - k)


def pass_rates(groups: Sequence[Sequence[float | None]]) -> np.ndarray:
    """The distribution of pass rates over GRID that makes the candidates' rewards most likely. Candidates
    with a reward other than 0 and 1 are ignored.

    One imaginary candidate spread evenly over the grid is added, so that no rate is ever ruled out. Without
    rewards the result is that even distribution.
    """
    even = np.full(len(GRID), 1 / len(GRID))
    counts = [(int(sum(g)), len(g)) for g in groups if g and all(r in (0, 1) for r in g)]
    if not counts:
        return even
    kinds, times = np.unique(counts, axis=0, return_counts=True)
    likelihood = np.stack([_binomial(int(n))[:, int(k)] for k, n in kinds])
    weight = even
    for _ in range(EM_STEPS):
        joint = likelihood * weight
        posterior = joint / joint.sum(axis=1, keepdims=True)
        weight = (times @ posterior + even) / (times.sum() + 1)
    return weight


def chance_of_pivot(k: int, n: int, group_size: int, lambda_diff: float, rates: np.ndarray) -> float:
    """The chance that G rewards will vary with a mean below lambda_diff, after k successes in n draws."""
    posterior = rates * _binomial(n)[:, k]
    final = k + np.arange(group_size - n + 1)
    pivot = (final > 0) & (final < group_size) & (final / group_size < lambda_diff)
    return float(posterior @ _binomial(group_size - n) @ pivot / posterior.sum())


@dataclasses.dataclass(frozen=True)
class StoppingRule:
    """How to spend rollouts: `round` more per undecided candidate and round, until the chance that a full
    profile would decide otherwise is at most `error`. With error 0, sampling stops only when that chance is
    0."""

    group_size: int
    lambda_diff: float
    round: int
    error: float

    def _chance(self, rewards: Sequence[float], rates: np.ndarray) -> float:
        return chance_of_pivot(int(sum(rewards)), len(rewards), self.group_size, self.lambda_diff, rates)

    def decided(self, rewards: Sequence[float | None], rates: np.ndarray) -> bool:
        """Whether a candidate with these rewards needs no more."""
        if len(rewards) >= self.group_size:
            return True
        if not rewards or any(r not in (0, 1) for r in rewards):
            return False
        chance = self._chance(rewards, rates)
        return min(chance, 1 - chance) <= max(self.error, 1e-9)  # 1e-9: sums over the grid round

    def outcome(self, rewards: Sequence[float], rates: np.ndarray) -> str:
        """The likeliest outcome of a candidate whose sampling stopped early, one of `selection.OUTCOMES`."""
        if self._chance(rewards, rates) > 0.5:
            return "pivot"
        return selection.outcome_of(rewards, lambda_diff=0)  # not a pivot, so mixed rewards are too easy


def groups(
    draw: Callable, count: int, rule: StoppingRule, earlier: Sequence[Sequence[float | None]]
) -> list[list]:
    """Rollouts of `count` candidates, sampled in rounds; `draw(indices, first, number)` samples `number` more
    of each, beginning with sample `first`. `earlier` are the rewards of other candidates, from which pass
    rates are estimated, too."""
    found: list[list] = [[] for _ in range(count)]
    live, first = list(range(count)), 0
    while live:
        number = min(rule.round, rule.group_size - first)
        for i, more in zip(live, draw(live, first, number)):
            found[i] += more
        first += number
        rewards = [[rollout.reward for rollout in group] for group in found]
        rates = pass_rates([*earlier, *rewards])
        live = [i for i in live if not rule.decided(rewards[i], rates)]
    return found
