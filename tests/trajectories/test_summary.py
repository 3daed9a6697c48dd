"""What a user is told of a set before any rollout."""

import dataclasses

from pivotrl_jax.records import Trajectory
from pivotrl_jax.trajectories import extract, summary

CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": {}}}
USER = {"role": "user", "content": "go"}
TALK = {"role": "assistant", "content": "Well."}
CALLS = {"role": "assistant", "content": "", "tool_calls": [CALL]}


def trajectory(*turns, **fields) -> Trajectory:
    messages = [m for turn in turns for m in (USER, turn)]
    return Trajectory("t", messages, [{"name": "f"}], "openai", "s", "tool_call", **fields)


def described(*trajectories):
    named = [dataclasses.replace(t, id=f"t{i}") for i, t in enumerate(trajectories)]
    return summary.describe(named, extract.extract(named))


def test_call_turns_talk_turns_and_dialects_are_counted():
    lines = described(trajectory(CALLS, TALK, dialect="native"), trajectory(CALLS, dialect="hermes"))
    assert lines == ["3 candidates: 2 call turns, 1 talk turns; calls in hermes, native"]


def test_a_set_with_tools_that_hardly_calls_is_a_warning():
    lines = described(*[trajectory(TALK, TALK)] * 6, trajectory(CALLS))
    assert "warning: only 1 of 13 turns with tool docs call a tool" in lines[1]
    assert len(described(*[trajectory(TALK)] * 8, trajectory(CALLS))) == 1


def test_fields_that_were_not_read_are_named_once():
    lines = described(trajectory(CALLS, unused=("notes", "score")), trajectory(CALLS, unused=("notes",)))
    assert lines[1] == "fields that were not read: notes 2, score 1"


def test_tools_that_the_verifier_does_not_know_are_named():
    (_, line) = described(dataclasses.replace(trajectory(CALLS, CALLS), verifier="swe"))
    assert line == "tools that swe does not know, so that all their arguments must match: f 2"


def test_called_tools_without_a_doc_are_named():
    (_, line) = described(dataclasses.replace(trajectory(CALLS), tools=[{"name": "g"}]))
    assert line == "tools that are called and have no doc: f 1"
