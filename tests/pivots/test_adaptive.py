"""Adaptive profiling: the chances against enumeration, no decision changed at error 0, rollouts saved."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from pivotrl_jax.pivots import adaptive
from pivotrl_jax.pivots.adaptive import GRID, StoppingRule

G, LAMBDA = 8, 0.6


def full_decision(rewards):
    return len(set(rewards)) > 1 and np.mean(rewards) < LAMBDA


def drawer(table):
    """`draw` of a table of rewards [candidates, G], and what it was asked."""
    asked = []

    def draw(indices, first, number):
        asked.append((list(indices), first, number))
        return [[SimpleNamespace(reward=r) for r in table[i][first : first + number]] for i in indices]

    return draw, asked


def decisions(table, plan, groups):
    rewards = [[rollout.reward for rollout in group] for group in groups]
    rates = adaptive.pass_rates(rewards)
    return [
        plan.outcome(r, rates) == "pivot" if len(r) < plan.group_size else full_decision(r) for r in rewards
    ]


@pytest.mark.parametrize("k, n", [(0, 1), (0, 4), (1, 3), (3, 5), (6, 6), (4, 7)])
def test_the_chance_of_a_pivot_is_that_of_enumerating_what_may_follow(k, n):
    rates = np.random.default_rng(k + 10 * n).dirichlet(np.ones(len(GRID)))
    top = bottom = 0.0
    for p, weight in zip(GRID, rates):
        here = weight * p**k * (1 - p) ** (n - k)
        bottom += here
        for rest in itertools.product((0, 1), repeat=G - n):
            chance = np.prod([p if r else 1 - p for r in rest])
            if full_decision([1] * k + [0] * (n - k) + list(rest)):
                top += here * chance
    assert adaptive.chance_of_pivot(k, n, G, LAMBDA, rates) == pytest.approx(top / bottom, abs=1e-12)


def test_error_zero_saves_rollouts_and_decides_as_a_full_profile_for_every_possible_group():
    table = [list(map(float, rewards)) for rewards in itertools.product((0, 1), repeat=G)]
    plan = StoppingRule(G, LAMBDA, 1, 0.0)
    groups = adaptive.groups(drawer(table)[0], len(table), plan, [])
    assert decisions(table, plan, groups) == [full_decision(rewards) for rewards in table]
    assert sum(map(len, groups)) < 0.9 * G * len(table)
    for group, rewards in zip(groups, table):  # the first of the full profile's, never others
        assert [rollout.reward for rollout in group] == rewards[: len(group)]


def test_half_the_rollouts_find_nearly_the_same_pivots_where_most_candidates_are_easy_or_hopeless():
    rng = np.random.default_rng(0)
    rate = rng.choice([0.0, 0.02, 0.3, 0.5, 0.97, 1.0], 2000, p=[0.2, 0.05, 0.05, 0.05, 0.15, 0.5])
    table = (rng.random((2000, G)) < rate[:, None]).astype(float).tolist()
    plan = StoppingRule(G, LAMBDA, 1, 0.02)
    groups = adaptive.groups(drawer(table)[0], len(table), plan, [])
    found, want = np.array(decisions(table, plan, groups)), np.array([full_decision(r) for r in table])
    f1 = 2 * (found & want).sum() / (found.sum() + want.sum())
    assert sum(map(len, groups)) <= 0.5 * G * len(table) and f1 >= 0.9
    assert (found != want).mean() <= 0.02, "the stated error rate"


def test_rounds_ask_for_the_undecided_alone():
    table = [[0.0] * G, [1.0, 0.0] * (G // 2)]
    draw, asked = drawer(table)
    seen = [[1.0] * G] * 30 + [[0.0] * G] * 30  # nothing in between has been met
    groups = adaptive.groups(draw, 2, StoppingRule(G, LAMBDA, 3, 0.05), seen)
    assert asked[0] == ([0, 1], 0, 3) and asked[1] == ([1], 3, 3)
    assert len(groups[0]) == 3


def test_other_rewards_than_zero_and_one_are_profiled_in_full():
    table = [[0.5] + [0.0] * (G - 1), [None] + [0.0] * (G - 1)]
    groups = adaptive.groups(drawer(table)[0], 2, StoppingRule(G, LAMBDA, 2, 0.1), [])
    assert [len(group) for group in groups] == [G, G]
    assert adaptive.pass_rates(table) == pytest.approx(np.full(len(GRID), 1 / len(GRID)))


def test_pass_rates_find_a_mixture_and_climb_in_likelihood():
    rng = np.random.default_rng(1)
    rate = rng.choice([0.1, 0.9], 4000, p=[0.25, 0.75])
    groups = (rng.random((4000, 8)) < rate[:, None]).astype(float).tolist()
    weight = adaptive.pass_rates(groups)
    assert weight.sum() == pytest.approx(1) and (weight > 0).all()
    assert weight[(GRID > 0.02) & (GRID < 0.3)].sum() == pytest.approx(0.25, abs=0.04)
    assert weight[(GRID > 0.7) & (GRID < 0.98)].sum() == pytest.approx(0.75, abs=0.04)


@pytest.mark.parametrize(
    "rewards, outcome", [([0.0] * 5, "all_fail"), ([1.0] * 5, "all_pass"), ([1, 1, 1, 1, 1, 0], "too_easy")]
)
def test_an_early_fate_has_the_name_of_a_full_one(rewards, outcome):
    rates = adaptive.pass_rates([[1.0] * 8] * 50 + [[0.0] * 8] * 50)
    assert StoppingRule(G, LAMBDA, 1, 0.05).outcome(rewards, rates) == outcome


def test_one_success_among_many_failures_is_a_pivot_before_the_end():
    rates = adaptive.pass_rates([])
    plan = StoppingRule(G, LAMBDA, 1, 0.0)
    assert plan.decided([1.0, 0, 0, 0, 0], rates) and plan.outcome([1.0, 0, 0, 0, 0], rates) == "pivot"
    assert not plan.decided([1.0, 0, 0, 0], rates)  # four more successes would make 5 of 8
