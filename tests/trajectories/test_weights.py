"""What a source says of learning: weights, masks, labels, and answers that were cut."""

import json

import pytest
from support.reader_samples import only

from pivotrl_jax.trajectories.readers import openai_chat
from pivotrl_jax.trajectories.readers.unread import unread
from pivotrl_jax.trajectories.readers.weights import is_no

USER = {"role": "user", "content": "list"}
TALK = {"role": "assistant", "content": "It is a."}
USE = {"type": "tool_use", "id": "t1", "name": "ls", "input": {}}
RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "a"}]}


def read(row):
    return openai_chat.trajectory(row, "rows.jsonl:1")


@pytest.mark.parametrize("value", [False, 0, 0.0, -1, "0", "-1.0", "False", "false"])
def test_a_no_in_every_writing(value):
    assert is_no(value)
    assert read({"messages": [USER, {**TALK, "weight": value}, USER, TALK]}).skip == {1: "context"}
    assert read({"messages": [USER, TALK, USER, TALK], "label": value}).skip == {3: "context"}
    assert read({"messages": [USER, TALK, USER, TALK], "weight": value}).skip == dict.fromkeys(
        (1, 3), "context"
    )


@pytest.mark.parametrize("value", [True, 1, "1.0", "true", None, "", [0], {}, "bad"])
def test_no_other_value_is_a_no(value):
    assert not is_no(value) and read({"messages": [USER, {**TALK, "weight": value}]}).skip == {}


@pytest.mark.parametrize(
    "mask",
    [
        {"loss_mask": 0},
        {"step_loss_mask": 0},
        {"train_detail": [{"begin_offset": 0, "end_offset": 7, "train": False}]},
        {"training_detail": [{"begin_offset": 0, "end_offset": 7, "train": False}]},
        {"content": [{"type": "text", "text": "It is a.", "train": False}]},
        {"content": [{"type": "text", "text": "It is a.", "weight": 0}]},
    ],
)
def test_a_turn_that_is_masked_is_context(mask):
    t = read({"messages": [USER, {**TALK, **mask}, USER, TALK]})
    assert (t.skip, t.unused, t.messages[1]) == ({1: "context"}, (), TALK)


@pytest.mark.parametrize(
    "row, name",
    [
        ({"messages": [USER, {**TALK, "weight": 0.5}]}, "messages.weight (neither 0 nor 1)"),
        ({"messages": [USER, {**TALK, "weight": 2}]}, "messages.weight (neither 0 nor 1)"),
        ({"messages": [USER, TALK], "weight": 0.5}, "weight (neither 0 nor 1)"),
        ({"messages": [USER, TALK], "label": "bad"}, "label (neither 0 nor 1)"),
        (
            {"messages": [USER, {**TALK, "train_detail": [{"train": False}, {"train": True}]}]},
            "messages.weights of parts of a turn",
        ),
    ],
)
def test_a_weight_that_is_not_obeyed_is_named(row, name):
    t = read(row)
    assert (t.skip, t.unused) == ({}, (name,))


ROWS = {
    "anthropic": lambda bad: {
        "messages": [USER, {"role": "assistant", "content": [USE], **bad}, RESULT, {**TALK, "weight": 1}]
    },
    "langchain": lambda bad: {
        "messages": [
            {"type": "human", "content": "list"},
            {"type": "ai", "content": "no", **bad},
            {"type": "human", "content": "?"},
            {"type": "ai", "content": "a", "weight": 1},
        ]
    },
    "tau_bench": lambda bad: {
        "task_id": 1,
        "info": {"task": {"user_id": "u", "actions": []}},
        "traj": [USER, {**TALK, **bad}, USER, {**TALK, "weight": 1}],
    },
    "tau2": lambda bad: {
        "tasks": [{"id": "1"}],
        "simulations": [{"task_id": "1", "messages": [USER, {**TALK, **bad}, USER, {**TALK, "weight": 1}]}],
    },
}


@pytest.mark.parametrize("format", ROWS)
def test_weights_count_in_every_reader_of_messages(tmp_path, format):
    for bad in ({"weight": 0}, {"train": False}, {"loss": "false"}):
        t = only(tmp_path, ROWS[format](bad), name="x.json")
        assert (t.skip, t.unused) == ({1: "context"}, ())
    half = only(tmp_path, ROWS[format]({"weight": 0.5}), name="y.json")
    assert (half.skip, half.unused) == ({}, ("messages.weight (neither 0 nor 1)",))


@pytest.mark.parametrize("format", ["anthropic", "langchain"])
def test_labels_count_there_too(tmp_path, format):
    t = only(tmp_path, {**ROWS[format]({}), "label": False, "passed": False}, name="x.json")
    assert (t.skip, t.unused) == ({3: "context"}, ("passed",))


def test_a_false_that_says_something_is_named():
    values = [{"train": False, "loss": False, "passed": False, "label": False, "flag": False}]
    assert unread(values, "") == ("label", "loss", "passed", "train")


CUTS = {
    "a log": {"messages": [USER], "choices": [{"finish_reason": "length", "message": TALK}]},
    "a message": {"messages": [USER, {**TALK, "finish_reason": "length"}]},
    "Anthropic's log": {
        "request": {"messages": [USER]},
        "response": {**TALK, "type": "message", "stop_reason": "max_tokens"},
    },
    "LangChain": {
        "messages": [
            {"type": "human", "content": "list"},
            {"type": "ai", "content": "It is a.", "response_metadata": {"finish_reason": "length"}},
        ]
    },
    "Responses": {
        "input": [USER],
        "output": [
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "It"}]}
        ],
        "status": "incomplete",
    },
    "an item": {
        "input": [USER],
        "output": [
            {"type": "function_call", "call_id": "c", "name": "ls", "arguments": "{", "status": "incomplete"}
        ],
    },
    "a response in a log": {
        "request": {"input": [USER]},
        "response": {
            "status": "incomplete",
            "output": [{"type": "message", "role": "assistant", "content": "It"}],
        },
    },
}


@pytest.mark.parametrize("name", CUTS)
def test_an_answer_that_was_cut_is_not_demonstrated(tmp_path, name):
    t = only(tmp_path, CUTS[name], name="x.json")
    assert (t.skip, t.unused) == ({1: "cut"}, ())


def test_a_turn_of_a_session_that_was_cut(tmp_path):
    said = {"type": "user", "uuid": "a", "parentUuid": None, "sessionId": "s", "message": USER}
    spoke = {**said, "type": "assistant", "uuid": "b", "parentUuid": "a"}
    blocks = [{"type": "thinking", "thinking": "hm", "signature": "x"}, {"type": "text", "text": "It is"}]
    lines = [said] + [
        {**spoke, "message": {"id": "m", "role": "assistant", "content": [b], "stop_reason": why}}
        for b, why in zip(blocks, (None, "max_tokens"))
    ]
    t = only(tmp_path, "".join(json.dumps(line) + "\n" for line in lines), name="s.jsonl")
    assert t.skip == {1: "cut"}
