"""Adaptive profiling: stop sampling a candidate as soon as its outcome is plain, at a stated share of missed
pivots.

A full profile draws G rewards and asks two questions: do they vary, and is their mean below lambda_diff? Most
candidates answer early: one success and so many failures that the mean cannot reach lambda_diff any more, or
so many equal rewards that mixed ones have become unlikely. How unlikely is estimated from the candidates
themselves: the rewards so far give the distribution of pass rates (its nonparametric maximum likelihood, by
EM on a grid; Laird 1978), and given its pass rate, a candidate's remaining rewards are binomial.

That distribution is one of all candidates only if those sampled first are a random sample of them, so an
adaptive profile shuffles trajectories (profiling.shards_of).

Rewards are 0 or 1 here; a candidate with any other reward is profiled in full.
"""

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

GRID = np.concatenate([[0.0], np.linspace(0.005, 0.995, 100), [1.0]])  # pass rates
EM_STEPS = 200
PRICES = 1e-2, 1e12  # rollouts per wrong outcome; at the highest, rounding alone is let pass
SEARCH_STEPS = 60


@functools.cache
def _choose(n: int) -> np.ndarray:
    return np.array([math.comb(n, k) for k in range(n + 1)], np.float64)


@functools.cache
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
    return _pass_rates(_kinds(groups))


def _kinds(groups: Iterable[Sequence[float | None]]) -> Counter[tuple[int, int]]:
    """(successes, draws) -> number of candidates; all that an estimate needs to know of them."""
    return Counter((int(sum(group)), len(group)) for group in groups if _plain(group))


def _pass_rates(kinds: Counter[tuple[int, int]]) -> np.ndarray:
    even = np.full(len(GRID), 1 / len(GRID))
    if not kinds:
        return even
    pairs = sorted(kinds)
    times = np.array([kinds[pair] for pair in pairs])
    likelihood = np.stack([_binomial(n)[:, k] for k, n in pairs])
    weight = even
    for _ in range(EM_STEPS):
        joint = likelihood * weight
        posterior = joint / joint.sum(axis=1, keepdims=True)
        weight = (times @ posterior + even) / (times.sum() + 1)
    return weight


def _plain(rewards: Sequence[float | None]) -> bool:
    """Whether there are rewards, and all are 0 or 1."""
    return bool(rewards) and all(r in (0, 1) for r in rewards)


def _is_pivot(k: np.ndarray, group_size: int, lambda_diff: float) -> np.ndarray:
    """Whether k successes of G are a pivot's."""
    return (k > 0) & (k < group_size) & (k / group_size < lambda_diff)


def expected(
    rewards: Sequence[float], group_size: int, lambda_diff: float, rates: np.ndarray
) -> dict[str, float]:
    """What a full profile would find after these rewards, all 0 or 1: the chance of every outcome
    (`selection.OUTCOMES`), and under "mean" the expected mean reward."""
    k, n = int(sum(rewards)), len(rewards)
    posterior = rates * _binomial(n)[:, k]
    chance = posterior @ _binomial(group_size - n) / posterior.sum()
    final = k + np.arange(group_size - n + 1)
    pivot = float(chance @ _is_pivot(final, group_size, lambda_diff))
    fail, passed = (float(chance[final == end].sum()) for end in (0, group_size))
    return {
        "pivot": pivot,
        "all_fail": fail,
        "all_pass": passed,
        "too_easy": max(0.0, 1 - pivot - fail - passed),
        "mean": float(chance @ final) / group_size,
    }


@dataclasses.dataclass(frozen=True)
class StoppingRule:
    """How to spend rollouts: `round` more per undecided candidate and round.

    Of the pivots that a full profile would find, at most the share `max_missed` is missed in expectation, and
    at most as many other candidates are taken for pivots. With 0, sampling stops only where the outcome is
    certain.
    """

    group_size: int
    lambda_diff: float
    round: int
    max_missed: float

    def plan(self, rates: np.ndarray) -> "Plan":
        """Where to stop, given the distribution of pass rates: the plan that draws least among those that
        keep the bound and stop wherever a rollout saved is worth the chance of a wrong outcome. The price of
        a wrong outcome is the lowest that keeps the bound."""
        ladder = _Ladder(self, rates)
        low, high = PRICES
        for _ in range(SEARCH_STEPS):
            middle = math.sqrt(low * high)
            if max(ladder.wrong(ladder.stops(middle))) <= self.max_missed * ladder.chance[0][0]:
                high = middle
            else:
                low = middle
        return Plan(self, ladder.chance, ladder.stops(high))


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which candidates need no more rollouts, and what they are."""

    rule: StoppingRule
    chance: dict[int, np.ndarray]  # draws -> chance of a pivot, float64 [successes]
    stop: dict[int, np.ndarray]  # draws -> whether to stop, bool [successes]

    def decided(self, rewards: Sequence[float | None]) -> bool:
        """Whether a candidate with these rewards needs no more."""
        if len(rewards) >= self.rule.group_size:
            return True
        return _plain(rewards) and bool(self.stop[len(rewards)][int(sum(rewards))])

    def outcome(self, rewards: Sequence[float]) -> str:
        """The likeliest outcome, one of `selection.OUTCOMES`, of a candidate whose sampling stopped early."""
        if self.chance[len(rewards)][int(sum(rewards))] > 0.5:
            return "pivot"
        if min(rewards) == max(rewards):
            return "all_pass" if rewards[0] else "all_fail"
        return "too_easy"  # mixed, but not a pivot


class _Ladder:
    """The numbers of successes that a candidate can have after each round, as a Markov chain: what follows
    depends on successes and draws alone."""

    def __init__(self, rule: StoppingRule, rates: np.ndarray):
        G = rule.group_size
        self.draws = [*range(0, G, rule.round), G]
        self.steps = [self._step(rates, n, then) for n, then in zip(self.draws, self.draws[1:])]
        self.chance = {G: _is_pivot(np.arange(G + 1), G, rule.lambda_diff).astype(float)}
        for n, then, step in self._backwards():
            self.chance[n] = step @ self.chance[then]

    def _backwards(self):
        return list(zip(self.draws, self.draws[1:], self.steps))[::-1]

    @staticmethod
    def _step(rates: np.ndarray, n: int, then: int) -> np.ndarray:
        """P(successes after `then` draws | successes after n): [n + 1, then + 1]."""
        joint = np.zeros((n + 1, then + 1))
        for k in range(n + 1):
            posterior = rates * _binomial(n)[:, k]
            joint[k, k : k + then - n + 1] = posterior @ _binomial(then - n) / posterior.sum()
        return joint

    def stops(self, price: float) -> dict[int, np.ndarray]:
        """Where stopping, with `price` per wrong outcome, costs at most what the best way of going on costs
        in rollouts and wrong outcomes: backward induction."""
        stop, cost = {}, np.zeros(len(self.chance[self.draws[-1]]))
        for n, then, step in self._backwards():
            go_on = then - n + step @ cost
            wrong = price * np.minimum(self.chance[n], 1 - self.chance[n])
            stop[n] = (wrong <= go_on) & (n > 0)
            cost = np.where(stop[n], wrong, go_on)
        return stop

    def wrong(self, stop: dict[int, np.ndarray]) -> tuple[float, float]:
        """Expected shares of all candidates: (pivots that are missed, others that are taken for pivots)."""
        here, missed, taken = np.ones(1), 0.0, 0.0
        for n, step in zip(self.draws, self.steps):
            ended, chance = here * stop[n], self.chance[n]
            missed += float(ended @ np.where(chance > 0.5, 0, chance))
            taken += float(ended @ np.where(chance > 0.5, 1 - chance, 0))
            here = (here - ended) @ step
        return missed, taken


def groups(
    draw: Callable, count: int, rule: StoppingRule, earlier: Sequence[Sequence[float | None]]
) -> list[list]:
    """Rollouts of `count` candidates, sampled in rounds; `draw(indices, first, number)` samples `number` more
    of each, beginning with sample `first`. `earlier` are the rewards of other candidates, from which pass
    rates are estimated, too."""
    found: list[list] = [[] for _ in range(count)]
    before, live, first = _kinds(earlier), list(range(count)), 0
    while live:
        number = min(rule.round, rule.group_size - first)
        for i, more in zip(live, draw(live, first, number)):
            found[i] += more
        first += number
        rewards = [[rollout.reward for rollout in group] for group in found]
        plan = rule.plan(_pass_rates(before + _kinds(rewards)))
        live = [i for i in live if not plan.decided(rewards[i])]
    return found
