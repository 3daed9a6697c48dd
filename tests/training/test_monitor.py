"""When to profile again, as tables of metrics: what each rule answers, and what a profile resets."""

import dataclasses
from types import SimpleNamespace

import pytest

from pivotrl_jax.training import monitor
from pivotrl_jax.training.batches import group_metrics
from pivotrl_jax.training.monitor import Rule, why

OFF = Rule(std_fraction=0.0, std_window=2, patience=0, min_gain=0.0, most=9)
STD = dataclasses.replace(OFF, std_fraction=0.5)
WAIT = dataclasses.replace(OFF, patience=2)


def stds(*values):
    return [{"step": i, "group_reward_std": v} for i, v in enumerate(values)]


def passes(*values):
    """One line a step; a step without a validation has no number."""
    line = [{} if v == "-" else {"validation/turn_pass": v} for v in values]
    return [{"step": i, "group_reward_std": 0.4, **x} for i, x in enumerate(line)]


def profiled(lines, *at, pivots=5.0):
    """The same lines, some of whose steps began with a profile."""
    return [
        {**x, "reprofiled": 1.0, "pivots": pivots, "profiling_rollout_turns": 8.0} if x["step"] in at else x
        for x in lines
    ]


@pytest.mark.parametrize(
    "lines, fires",
    [
        ([], False),
        (stds(0.4), False),
        (stds(0.4, 0.0), False),  # one window, which is the start itself
        (stds(0.4, 0.4, 0.0), False),  # 0.2 is not under half of 0.4
        (stds(0.4, 0.4, 0.0, 0.0), True),
        (stds(0.4, 0.4, 0.1, 0.2), True),
        (stds(0.4, 0.4, 0.2, 0.2), False),
        (stds(0.4, 0.4, 0.1, 0.1, 0.4), False),  # the latest window alone counts
        (stds(0.0, 0.0, 0.0, 0.0), True),  # nothing to fall from, and nothing that teaches
        (stds(0.0, 0.0), True),
        (stds(0.0, 0.0, 0.0, 0.1), False),
        (stds(None, 0.4, None, 0.4, 0.1, None, 0.1), True),  # undecided steps are passed over
        (stds(None, None, None), False),
    ],
)
def test_a_std_under_its_share_of_the_first_window(lines, fires):
    assert bool(why(lines, STD)) is fires
    assert not why(lines, OFF)


def group(*rewards):
    return [SimpleNamespace(reward=r, token_ids=[1], finished=True, reason="ok") for r in rewards]


def test_half_of_the_groups_all_pass_and_half_all_fail_is_a_collapse():
    """Nothing is left to learn there, though rewards of the whole batch could not spread more widely."""
    mixed, equal = [group(0.0, 1.0)] * 4, [group(1.0, 1.0), group(0.0, 0.0)] * 2
    lines = [{"step": i, **group_metrics(b)} for i, b in enumerate([mixed, mixed, equal, equal])]
    assert [line["reward_std"] for line in lines] == [0.5] * 4
    assert why(lines, STD) == "the reward std within groups fell from 0.500 to 0.000, under 0.5 of it"
    assert not why([lines[0]] * 4, STD)


def test_a_window_of_one_step_is_that_step():
    rule = dataclasses.replace(STD, std_window=1)
    assert [bool(why(stds(*x), rule)) for x in ((0.4,), (0.4, 0.2), (0.4, 0.19))] == [False, False, True]


@pytest.mark.parametrize(
    "lines, min_gain, fires",
    [
        (passes(0.5), 0.0, False),
        (passes(0.5, 0.5), 0.0, False),
        (passes(0.5, 0.5, 0.5), 0.0, True),
        (passes(0.5, "-", "-", 0.5, "-"), 0.0, False),  # steps without a validation do not count
        (passes(0.5, "-", 0.5, "-", 0.5), 0.0, True),
        (passes(0.5, 0.4, 0.51), 0.0, False),  # a new best starts the count again
        (passes(0.5, 0.4, 0.51, 0.5, 0.5), 0.0, True),
        (passes(0.5, 0.75, 0.7, 0.74), 0.0, True),  # better than the start is not better than the best
        (passes(0.5, 0.53, 0.55), 0.1, True),  # gains of 0.03 and 0.05 are none
        (passes(0.5, 0.53, 0.65), 0.1, False),
        (passes(0.25, 0.5, 0.5), 0.25, True),  # a gain must exceed min_gain
        (passes(0.25, 0.5, 0.75), 0.25, False),
        (passes(0.5, None, None), 0.0, False),  # nobody could decide a turn: no validation
        (passes("-", "-", "-"), 0.0, False),
    ],
)
def test_validations_without_a_gain(lines, min_gain, fires):
    assert bool(why(lines, dataclasses.replace(WAIT, min_gain=min_gain))) is fires
    assert not why(lines, OFF)


def test_small_gains_add_up():
    """0.04 at a time: the third is 0.12 over what counted as the best, within a patience of 3."""
    rule = dataclasses.replace(WAIT, patience=3, min_gain=0.1)
    lines = passes(0.5, 0.54, 0.58, 0.62, 0.63)
    assert not any(why(lines[:n], rule) for n in range(6))


def test_a_profile_starts_the_std_anew():
    fell = stds(0.4, 0.4, 0.1, 0.1)
    assert why(fell, STD)
    after = profiled(stds(0.4, 0.4, 0.1, 0.1, 0.1, 0.1, 0.06, 0.06, 0.04, 0.04), 4)
    assert [n for n in range(5, 11) if why(after[:n], STD)] == [10], "0.04 is under half of 0.1, not of 0.4"


def test_a_profile_starts_the_patience_anew_but_keeps_the_best():
    after = profiled(passes(0.5, 0.5, 0.5, 0.4, 0.45, 0.5), 3)
    assert [n for n in range(1, 7) if why(after[:n], WAIT)] == [3, 5, 6]
    rose = profiled(passes(0.5, 0.5, 0.5, 0.4, 0.6, 0.5, 0.5), 3)
    assert [n for n in range(4, 8) if why(rose[:n], WAIT)] == [7]


@pytest.mark.parametrize("most, fires", [(0, False), (1, False), (2, False), (3, True)])
def test_at_most_so_many_times(most, fires):
    lines = profiled(passes(*[0.5] * 9), 3, 6)
    assert bool(why(lines, dataclasses.replace(WAIT, most=most))) is fires


def test_after_a_profile_without_pivots_there_is_no_other():
    lines = passes(*[0.5] * 9)
    assert why(profiled(lines, 3), WAIT)
    assert not why(profiled(lines, 3, pivots=0.0), WAIT)
    assert not why(profiled(profiled(lines, 3, pivots=0.0), 6), WAIT)


def test_either_reason_is_enough_and_says_its_numbers():
    both = dataclasses.replace(STD, patience=2)
    assert why(stds(0.4, 0.4, 0.0, 0.0), both) == (
        "the reward std within groups fell from 0.400 to 0.000, under 0.5 of it"
    )
    assert why(passes(0.5, 0.5, 0.5), both) == (
        "no gain of more than 0 on a validation of 0.500, 2 times in a row"
    )
    assert [rule.on for rule in (OFF, STD, WAIT, both)] == [False, True, True, True]
    assert not dataclasses.replace(both, most=0).on


def test_the_story_of_a_run():
    lines = profiled(profiled(passes(*[0.5] * 9), 3, pivots=41.0), 6, pivots=0.0)
    reason = "no gain of more than 0 on a validation of 0.500, {} times in a row"
    assert monitor.story(lines, WAIT, 60) == [
        f"after step 3: 60 -> 41 pivots ({reason.format(2)})",
        f"after step 6: no pivot any more, the 41 old ones stay ({reason.format(3)})",
    ]
    assert monitor.story(passes(0.5, 0.5), WAIT, 60) == []
    assert monitor.total(lines, monitor.ROLLOUTS) == 16 and monitor.total(lines, "nothing") == 0
