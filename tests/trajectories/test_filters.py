"""Filters: successes, turns without errors, actions not repeated too often."""

import pytest
from support.reader_samples import call, typed

from pivotrl_jax.records import Trajectory
from pivotrl_jax.trajectories import filters


def talk(id, *turns, reward=None):
    """A trajectory of calls with their results."""
    messages = [{"role": "user", "content": "go"}]
    for command, result in turns:
        messages.append(
            {"role": "assistant", "content": "", "tool_calls": [call("bash", {"command": command}, "c")]}
        )
        messages.append({"role": "tool", "content": result, "tool_call_id": "c", "name": "bash"})
    return Trajectory(id, messages, [], "openai", id, "tool_call", reward=reward)


def test_successes_are_kept_and_unknown_rewards_counted():
    good, bad, unknown = talk("g", reward=1.0), talk("b", reward=0.4), talk("u")
    assert filters.successes([good, bad, unknown], 0.5) == ([good, unknown], [bad], 1)
    assert filters.successes([good, bad, unknown], None)[0] == [good, bad, unknown]


@pytest.mark.parametrize(
    "result, error",
    [
        ({"content": "Error: no"}, True),
        ({"content": "  error: no"}, True),
        ({"content": "Errors: 0"}, False),
        ({"content": "error.log\nmain.py"}, False),
        ({"content": "error-handling.md: 3"}, False),
        ({"content": "0 errors"}, False),
        ({"content": "Traceback (most recent call last)"}, False),
        ({"content": "fine", "error": True}, True),
        ({"content": ""}, False),
    ],
)
def test_errors_are_recognised_conservatively(result, error):
    assert filters.is_error(result) is error


def test_a_turn_answered_by_an_error_is_skipped_and_stays_history():
    trajectory = talk("t", ("ls", "Error: no"), ("pwd", "/"))
    (filtered,) = filters.skip_errors([trajectory])
    assert filtered.skip == {1: "call_error"} and filtered.messages == trajectory.messages


def test_identical_actions_are_capped_over_the_whole_set():
    pair = [talk("a", ("ls", "x"), ("ls", "y"), ("pwd", "/")), talk("b", ("ls", "z"), ("pwd", "/"))]
    assert [t.skip for t in filters.cap_repeats(pair, 2)] == [{}, {1: "repeated"}]
    assert [t.skip for t in filters.cap_repeats(pair, 1)] == [{3: "repeated"}, {1: "repeated", 3: "repeated"}]
    assert [t.skip for t in filters.cap_repeats(pair, 0)] == [{}, {}]
    assert filters.MAX_REPEATS == 50


def test_equal_keystrokes_are_one_action_whatever_is_planned():
    plans = [{"role": "assistant", "content": typed("ls\n").replace('"p"', p)} for p in ('"one"', '"two"')]
    keys = {filters.action_key(m, "terminal") for m in plans}
    assert len(keys) == 1 and filters.action_key(plans[0], "exact") not in keys
