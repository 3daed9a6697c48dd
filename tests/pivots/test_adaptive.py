"""Adaptive profiling: chances against enumeration, certain outcomes at bound 0, the share of pivots that is
missed over many candidates, and what a full profile is expected to find."""

import dataclasses
import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from pivotrl_jax.pivots import adaptive, profiling
from pivotrl_jax.pivots.adaptive import GRID, StoppingRule
from pivotrl_jax.pivots.selection import OUTCOMES, RARE, make_profile, outcome_of, select
from pivotrl_jax.records import Candidate

G, LAMBDA = 8, 0.6
SHARD = 250  # trajectories, of one turn each


def full_decision(rewards):
    return len(set(rewards)) > 1 and np.mean(rewards) < LAMBDA


def drawer(table):
    """`draw` of a table of rewards [candidates, G], and what it was asked."""
    asked = []

    def draw(indices, first, number):
        asked.append((list(indices), first, number))
        return [[SimpleNamespace(reward=r) for r in table[i][first : first + number]] for i in indices]

    return draw, asked


def turn(i):
    return Candidate(f"{i}@0", str(i), "s", 0, [], {"role": "assistant", "content": "x"}, [], "v", {})


def rewards_drawn(table, rule, shuffle=0, shard_size=SHARD):
    """What adaptive profiling sees of each candidate, shard by shard as profiling cuts them."""
    seen, earlier = {}, []
    for shard in profiling.shards_of([turn(i) for i in range(len(table))], shard_size, shuffle):
        groups = adaptive.groups(drawer([table[i] for i in shard])[0], len(shard), rule, earlier)
        seen |= zip(shard, ([rollout.reward for rollout in group] for group in groups))
        earlier += [seen[i] for i in shard]
    return [seen[i] for i in range(len(table))]


def is_pivot(rewards, rule):
    """Whether each candidate counts as a pivot."""
    plan = rule.plan(adaptive.pass_rates(rewards))
    return np.array(
        [plan.outcome(r) == "pivot" if len(r) < rule.group_size else full_decision(r) for r in rewards]
    )


@pytest.mark.parametrize("k, n", [(0, 1), (0, 4), (1, 3), (3, 5), (6, 6), (4, 7)])
def test_what_a_full_profile_would_find_is_that_of_enumerating_what_may_follow(k, n):
    rates = np.random.default_rng(k + 10 * n).dirichlet(np.ones(len(GRID)))
    found, bottom = dict.fromkeys([*OUTCOMES, "mean"], 0.0), 0.0
    for p, weight in zip(GRID, rates):
        here = weight * p**k * (1 - p) ** (n - k)
        bottom += here
        for rest in itertools.product((0, 1), repeat=G - n):
            chance = here * np.prod([p if r else 1 - p for r in rest])
            rewards = [1] * k + [0] * (n - k) + list(rest)
            found[outcome_of(rewards, LAMBDA)] += chance
            found["mean"] += chance * np.mean(rewards)
    want = {name: x / bottom for name, x in found.items() if name not in RARE}
    got = adaptive.expected([1.0] * k + [0.0] * (n - k), G, LAMBDA, rates)
    assert got == pytest.approx(want, abs=1e-12)
    plan = StoppingRule(G, LAMBDA, 1, 0.02).plan(rates)
    assert plan.chance[n][k] == pytest.approx(want["pivot"], abs=1e-12)


def test_a_plan_keeps_the_bound_by_enumerating_every_order_of_rewards():
    rates = adaptive.pass_rates([[1.0] * 8] * 60 + [[0.0] * 8] * 25 + [[1.0, 0, 0, 0, 0, 1, 0, 0]] * 15)
    for round_, bound in itertools.product((1, 2, 3), (0.02, 0.1)):
        plan = StoppingRule(G, LAMBDA, round_, bound).plan(rates)
        pivots = missed = taken = drawn = 0.0
        for rewards in itertools.product((0.0, 1.0), repeat=G):
            chance = rates @ (GRID ** sum(rewards) * (1 - GRID) ** (G - sum(rewards)))
            n = next(n for n in [*range(round_, G, round_), G] if plan.decided(rewards[:n]))
            taken_for = plan.outcome(rewards[:n]) == "pivot" if n < G else full_decision(rewards)
            pivots += chance * full_decision(rewards)
            missed += chance * (full_decision(rewards) and not taken_for)
            taken += chance * (taken_for and not full_decision(rewards))
            drawn += chance * n
        assert missed <= bound * pivots + 1e-9 and taken <= bound * pivots + 1e-9
        assert drawn < 0.9 * G


def test_with_bound_zero_it_saves_rollouts_and_decides_as_a_full_profile_for_every_possible_group():
    table = [list(map(float, rewards)) for rewards in itertools.product((0, 1), repeat=G)]
    rule = StoppingRule(G, LAMBDA, 1, 0.0)
    groups = adaptive.groups(drawer(table)[0], len(table), rule, [])
    found = [[rollout.reward for rollout in group] for group in groups]
    assert is_pivot(found, rule).tolist() == [full_decision(rewards) for rewards in table]
    assert sum(map(len, groups)) < 0.9 * G * len(table)
    for group, rewards in zip(found, table):  # the first of the full profile's, never others
        assert group == rewards[: len(group)]


POPULATIONS = {  # pass rates, chances: many easy and hopeless turns; turns of every kind
    "two ends": ([0.0, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 1.0], [14, 4, 4, 4, 4, 6, 10, 14, 40]),
    "spread": ([0.0, 0.05, 0.2, 0.5, 0.8, 0.9, 0.95, 1.0], [20, 15, 10, 5, 10, 10, 10, 20]),
}


def rewards_of(population, seed, candidates=2000):
    """A table of rewards [candidates, G], hopeless candidates first, as in a file sorted by difficulty."""
    rates, chances = POPULATIONS[population]
    rng = np.random.default_rng(seed)
    rate = np.sort(rng.choice(rates, candidates, p=np.array(chances) / sum(chances)))
    return (rng.random((candidates, G)) < rate[:, None]).astype(float).tolist()


@pytest.mark.parametrize("population", POPULATIONS)
@pytest.mark.parametrize("bound, most", [(0.02, 0.82), (0.1, 0.7)])
def test_the_share_of_pivots_that_is_missed_stays_within_the_bound(bound, most, population):
    missed = taken = pivots = drawn = 0
    for seed in range(3):
        table, rule = rewards_of(population, seed), StoppingRule(G, LAMBDA, 1, bound)
        seen = rewards_drawn(table, rule)
        found, want = is_pivot(seen, rule), np.array([full_decision(r) for r in table])
        missed, taken = missed + (want & ~found).sum(), taken + (found & ~want).sum()
        pivots, drawn = pivots + want.sum(), drawn + sum(map(len, seen))
    noise = 3 * (bound / pivots) ** 0.5  # three standard errors of a share of so many pivots
    assert missed / pivots <= bound + noise and taken / pivots <= bound + noise
    assert drawn <= most * G * 6000


def test_unshuffled_a_sorted_file_would_break_the_bound():
    """The first shards would say that every candidate is hopeless."""
    table, rule = rewards_of("spread", 0), StoppingRule(G, LAMBDA, 1, 0.02)
    want = np.array([full_decision(r) for r in table])
    shares = []
    for shuffle in (None, 0):
        found = is_pivot(rewards_drawn(table, rule, shuffle, 125), rule)
        shares.append((want & ~found).sum() / want.sum())
    assert shares[0] > 0.1 and shares[1] < 0.04


def test_shares_are_those_that_a_full_profile_has_not_those_of_the_rewards_that_were_drawn():
    table, rule = rewards_of("two ends", 0, 4000), StoppingRule(G, LAMBDA, 1, 0.1)
    seen = rewards_drawn(table, rule)
    plan = rule.plan(adaptive.pass_rates(seen))

    def profile(i, rewards):
        early = plan.outcome(rewards) if len(rewards) < G else ""
        return make_profile(turn(i), rewards, "pi", "v/1", 1.0, 0, early)

    found = select([profile(i, rewards) for i, rewards in enumerate(seen)], LAMBDA, G)
    full = select([profile(i, rewards) for i, rewards in enumerate(table)], LAMBDA)
    naive = np.mean([len(set(rewards)) == 1 for rewards in seen])
    assert naive > full.uninformative() + 0.03, "or this tests nothing"
    assert found.uninformative() == pytest.approx(full.uninformative(), abs=0.01)
    assert found.mean() == pytest.approx(full.mean(), abs=0.005)
    for name, count in full.counts().items():
        assert found.expected_counts()[name] == pytest.approx(count, abs=80), name
    kept = [id for id, outcome in found.outcomes.items() if outcome == "pivot"]
    missed = sum(outcome == "pivot" and id not in kept for id, outcome in full.outcomes.items())
    assert (
        found.missed() == pytest.approx(missed / full.counts()["pivot"], abs=0.03) and found.missed() <= 0.1
    )
    head, *rows = found.table()
    assert head.split()[:4] == ["turns", "candidates", "pivots", "kept"]
    assert rows[2].split()[2] == str(len(kept)) and "." in rows[2].split()[3]
    ended = sum(len(rewards) < G for rewards in seen)
    assert any(line.startswith(f"{ended} of 4000 groups ended early: all numbers but") for line in rows)
    assert found.counts_of_full_profile()["ended_early"] == ended
    assert full.counts_of_full_profile() == {} and full.expected_counts() == full.counts()
    with pytest.raises(ValueError, match="group_size is not given"):
        select(found.profiles, LAMBDA)


def test_call_turns_say_nothing_of_what_text_turns_would_be():
    """Nearly all text turns pass, and end as soon as a call turn of which little is known would."""
    rng = np.random.default_rng(0)
    is_call = np.arange(2000) % 2 == 0
    rate = np.where(
        is_call, rng.choice([0.0, 0.5, 0.9, 1.0], 2000), rng.choice([1.0, 0.5], 2000, p=[0.98, 0.02])
    )
    table = (rng.random((2000, G)) < rate[:, None]).astype(float).tolist()
    rule = StoppingRule(G, LAMBDA, 1, 0.1)
    seen = rewards_drawn(table, rule)
    plan = rule.plan(adaptive.pass_rates(seen))

    def profile(i, rewards):
        early = plan.outcome(rewards) if len(rewards) < G else ""
        made = make_profile(turn(i), rewards, "pi", "v/1", 1.0, 0, early)
        return dataclasses.replace(made, is_call=bool(is_call[i]))

    found = select([profile(i, rewards) for i, rewards in enumerate(seen)], LAMBDA, G)
    full = select([profile(i, rewards) for i, rewards in enumerate(table)], LAMBDA)
    for kind in (True, False):
        assert found.uninformative(kind) == pytest.approx(full.uninformative(kind), abs=0.02)
        assert found.mean(kind) == pytest.approx(full.mean(kind), abs=0.01)


def test_rounds_ask_for_the_undecided_alone():
    table = [[0.0] * G, [1.0, 0.0] * (G // 2)]
    draw, asked = drawer(table)
    # nothing but the even and the hopeless has been met
    seen = [[1.0, 0.0] * (G // 2)] * 30 + [[0.0] * G] * 30
    groups = adaptive.groups(draw, 2, StoppingRule(G, LAMBDA, 3, 0.2), seen)
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
def test_an_early_outcome_has_the_name_of_a_full_one(rewards, outcome):
    rates = adaptive.pass_rates([[1.0] * 8] * 50 + [[0.0] * 8] * 50)
    assert StoppingRule(G, LAMBDA, 1, 0.05).plan(rates).outcome(rewards) == outcome


def test_one_success_among_many_failures_is_a_pivot_before_the_end():
    plan = StoppingRule(G, LAMBDA, 1, 0.0).plan(adaptive.pass_rates([]))
    assert plan.decided([1.0, 0, 0, 0, 0]) and plan.outcome([1.0, 0, 0, 0, 0]) == "pivot"
    assert not plan.decided([1.0, 0, 0, 0])  # four more successes would make 5 of 8
