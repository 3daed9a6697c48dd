"""Calls under other names than `tool_calls` are calls, or their turn is skipped: they never become talk."""

import json

import pytest

from pivotrl_jax.chat.actions import message_to_action
from pivotrl_jax.records import Call
from pivotrl_jax.trajectories.readers import openai_chat

USER = {"role": "user", "content": "list"}
DONE = {"role": "assistant", "content": "Done."}
LS = {"name": "ls", "arguments": {"path": "."}}
INVOKED = {"toolCallId": "c1", "toolName": "ls", "args": {"path": "."}}


def read(*messages, **row):
    return openai_chat.trajectory({"messages": [USER, *messages], **row}, "rows.jsonl:1")


def calls_of(trajectory):
    return [message_to_action(m).calls for m in trajectory.messages if m["role"] == "assistant"]


@pytest.mark.parametrize(
    "fields",
    [
        {"toolCalls": [LS]},
        {"toolCalls": [INVOKED]},
        {"tool_call": LS},
        {"tool_call": json.dumps(LS)},
        {"functionCall": {"name": "ls", "args": {"path": "."}}},
        {"tool_use": [{"name": "ls", "input": {"path": "."}}]},
        {"tool_uses": [{"tool_name": "ls", "tool_input": {"path": "."}}]},
        {"actions": [LS]},
        {"additional_kwargs": {"tool_calls": [{"id": "c1", "type": "function", "function": LS}]}},
        {"additional_kwargs": {"function_call": LS}},
    ],
)
def test_calls_under_another_name(fields):
    t = read({"role": "assistant", "content": "I look.", **fields}, USER, DONE)
    assert (calls_of(t), t.skip, t.unused) == ([(Call("ls", {"path": "."}),), ()], {}, ())


@pytest.mark.parametrize("fields", [{"api_call": "ls()"}, {"actions": ["look"]}, {"tool_call": {"x": 1}}])
def test_one_that_cannot_be_read_costs_its_turn(fields):
    assert read({"role": "assistant", "content": "I look.", **fields}, USER, DONE).skip == {
        1: "unparseable_call"
    }


def test_flags_are_no_calls_and_a_call_that_the_text_holds_is_read_there():
    assert read({**DONE, "tool_use": True}).skip == {}
    text = f"<tool_call>\n{json.dumps(LS)}\n</tool_call>"
    t = read({"role": "assistant", "content": text, "actions": ["look"]})
    assert (t.dialect, calls_of(t)) == ("hermes", [(Call("ls", {"path": "."}),)])


def test_the_ai_sdk_keeps_results_with_calls_and_the_text_after_them():
    t = read({**DONE, "toolInvocations": [{**INVOKED, "state": "result", "result": {"ok": True}}]})
    assert [m["role"] for m in t.messages] == ["user", "assistant", "tool", "assistant"]
    assert calls_of(t) == [(Call("ls", {"path": "."}),), ()] and t.messages[2]["content"] == '{"ok": true}'
    open_call = read({**DONE, "toolInvocations": [{**INVOKED, "state": "call"}]})
    assert [m["content"] for m in open_call.messages] == ["list", "Done."]
    assert calls_of(open_call) == [(Call("ls", {"path": "."}),)]


def test_a_refusal_is_what_was_said():
    t = read({"role": "assistant", "content": None, "refusal": "I can't."})
    assert t.messages[1] == {"role": "assistant", "content": "I can't."} and t.skip == {}


TOOL = {"name": "ls", "parameters": {"type": "object", "properties": {"path": {"type": "string"}}}}


@pytest.mark.parametrize("text", ["{}", "```json\n{}\n```"])
def test_json_with_an_undocumented_name_is_no_call(text):
    answer = {"role": "assistant", "content": text.replace("{}", '{"name": "Bob", "parameters": {"age": 3}}')}
    assert calls_of(read(answer, tools=[TOOL])) == [()]
    real = {"role": "assistant", "content": text.replace("{}", json.dumps(LS))}
    t = read(real, USER, answer, tools=[TOOL])
    assert calls_of(t) == [(Call("ls", {"path": "."}),), ()]


def test_docs_whose_properties_are_no_object_do_not_stop_the_reading():
    assert read(DONE, tools=[{"name": "ls", "parameters": {"properties": True}}]).skip == {}
