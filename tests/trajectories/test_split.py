"""Training and held-out trajectories share no scenario."""

import dataclasses

import pytest

from pivotrl_jax.records import InputError, Trajectory
from pivotrl_jax.trajectories.split import split, split_turns

MESSAGES = [{"role": "user", "content": "what is here?"}, {"role": "assistant", "content": "Only a."}]


def many(count, per_scenario=3):
    return [
        Trajectory(f"t{i}", MESSAGES, [], "openai", f"s{i // per_scenario}", "tool_call")
        for i in range(count)
    ]


def test_no_scenario_is_on_both_sides():
    trajectories = many(60)
    train, held_out = split(trajectories, 0.25, seed=0)
    assert {t.scenario for t in train}.isdisjoint(t.scenario for t in held_out)
    assert len({t.scenario for t in held_out}) == 5 and len(train) + len(held_out) == 60
    assert train == [t for t in trajectories if t in train]


def test_the_split_depends_on_the_seed_and_on_nothing_else():
    trajectories = many(60)
    held_out = {t.id for t in split(trajectories, 0.25, seed=0)[1]}
    assert held_out == {t.id for t in split(trajectories[::-1], 0.25, seed=0)[1]}
    assert held_out != {t.id for t in split(trajectories, 0.25, seed=1)[1]}
    assert {t.scenario for t in split(many(12), 0.25, 0)[1]} == {"s1"}  # the same on every machine


def test_shares_at_the_edges():
    assert split(many(6), 0, seed=0) == (many(6), [])
    assert [len(side) for side in split(many(6), 0.01, seed=0)] == [3, 3]
    assert [len(side) for side in split(many(6), 0.99, seed=0)] == [3, 3]
    with pytest.raises(InputError, match="cannot be split"):
        split(many(3), 0.5, seed=0)
    with pytest.raises(InputError, match="held_out_share is 1"):
        split(many(6), 1, seed=0)


def test_scenarios_are_set_aside_until_they_hold_the_turns():
    trajectories = many(60, 5)  # 12 scenarios of 5 turns
    for turns in (1, 5, 6, 55):
        train, held_out = split_turns(trajectories, turns, seed=0)
        scenarios = {t.scenario for t in held_out}
        assert scenarios.isdisjoint(t.scenario for t in train) and len(train) + len(held_out) == 60
        assert len(scenarios) == -(-turns // 5), "as few as hold them"
        assert scenarios == {t.scenario for t in split_turns(trajectories[::-1], turns, seed=0)[1]}
        assert scenarios == {t.scenario for t in split(trajectories, len(scenarios) / 12, seed=0)[1]}
    for turns in (56, 10_000):
        with pytest.raises(InputError, match=rf"config\.validation\.turns is {turns}, but the 12 training"):
            split_turns(trajectories, turns, seed=0)


def test_skipped_turns_do_not_count():
    trajectories = many(4, 1)
    trajectories[:2] = [dataclasses.replace(t, skip={1: "context"}) for t in trajectories[:2]]
    with pytest.raises(InputError, match="4 training scenarios hold 2 turns"):
        split_turns(trajectories, 3, seed=0)
