"""What stands beside a row's messages: the answer, system messages, an earlier history."""

import pytest
from support.reader_samples import only

from pivotrl_jax.trajectories.readers import openai_chat

USER = {"role": "user", "content": "list"}
CALL = {"id": "c1", "type": "function", "function": {"name": "ls", "arguments": '{"path": "."}'}}
CALLS = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "a"}
TALK = {"role": "assistant", "content": "It is a."}


def read(row):
    return openai_chat.trajectory(row, "rows.jsonl:1")


@pytest.mark.parametrize(
    "messages, beside",
    [
        ([USER, TALK], {"response": "It is a."}),
        ([USER, TALK], {"response": {"choices": [{"message": TALK}]}}),
        ([USER, TALK], {"completion": [TALK]}),
        ([USER, CALLS], {"choices": [{"finish_reason": "tool_calls", "message": CALLS}]}),
        ([USER, CALLS, RESULT, TALK], {"response": [CALLS, RESULT, TALK]}),
    ],
)
def test_an_answer_that_the_messages_hold_is_told_once(messages, beside):
    t = read({"messages": messages, **beside})
    assert (t.messages, t.unused) == (read({"messages": messages}).messages, ())


@pytest.mark.parametrize(
    "beside", [{"response": "No."}, {"choices": [{"message": CALLS}]}, {"output": "No."}]
)
def test_another_answer_is_named(beside):
    t = read({"messages": [USER, TALK], **beside})
    assert (t.messages, t.unused) == ([USER, TALK], tuple(beside))


@pytest.mark.parametrize("field", ["system", "system_prompt", "instructions"])
@pytest.mark.parametrize("role", ["system", "developer"])
def test_both_system_messages_are_kept(field, role):
    def opening(given, own):
        row = {field: given, "messages": [{"role": role, "content": own}, USER, TALK]}
        return [m["content"] for m in read(row).messages if m["role"] == "system"]

    assert opening("Never refund.", "You are Bob.") == ["Never refund.\n\nYou are Bob."]
    assert opening([{"type": "text", "text": "Never refund."}], "Be Bob.") == ["Never refund.\n\nBe Bob."]
    assert opening("You are Bob.", "You are Bob. Never refund.") == ["You are Bob. Never refund."]
    assert opening("You are Bob. Never refund.\n", "You are Bob.") == ["You are Bob. Never refund.\n"]
    assert opening("You are Bob.", "You are Bob.") == ["You are Bob."]


def test_system_messages_of_several_fields_are_one():
    t = read({"system_prompt": "A", "system": "B", "instructions": " ", "messages": [USER, TALK]})
    assert t.messages[0] == {"role": "system", "content": "B\n\nA"}


PAIRS = {
    "pairs": [["q", "a"]],
    "pairs as text": '[["q", "a"]]',
    "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
    "exchanges": [{"user": "q", "assistant": "a"}],
}


@pytest.mark.parametrize("history", PAIRS)
@pytest.mark.parametrize("names", [("query", "response"), ("prompt", "completion"), ("question", "answer")])
def test_the_history_of_a_query_comes_before_it(tmp_path, names, history):
    row = {names[0]: "list", names[1]: "It is a.", "history": PAIRS[history], "system": "s"}
    t = only(tmp_path, row, name="x.json")
    assert (t.source, t.unused, t.skip) == ("openai", (), {})
    assert [m["content"] for m in t.messages] == ["s", "q", "a", "list", "It is a."]


def test_a_history_beside_messages_is_named(tmp_path):
    t = only(tmp_path, {"history": PAIRS["messages"], "messages": [USER, TALK]}, name="x.json")
    assert (t.source, t.messages, t.unused) == ("openai", [USER, TALK], ("history",))
