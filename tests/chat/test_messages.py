"""Loosely typed messages: what is read of them, and what the odd ones cost."""

import pytest

from pivotrl_jax.chat.messages import NOT_TEXT, UNPARSEABLE, read_conversation, read_messages
from pivotrl_jax.chat.reasoning import reasoning_of, split_thinking
from pivotrl_jax.records import InputError

USER = {"role": "user", "content": "go"}


def turn(*calls, **more):
    return {"role": "assistant", "content": "", "tool_calls": list(calls), **more}


def result(id=None, content="ok", **more):
    return {"role": "tool", "content": content, **({"tool_call_id": id} if id is not None else {}), **more}


CALLS = {
    "OpenAI": {"id": "a", "function": {"name": "f", "arguments": '{"x": 1}'}},
    "arguments as an object": {"id": "a", "function": {"name": "f", "arguments": {"x": 1}}},
    "flat": {"id": "a", "name": "f", "arguments": {"x": 1}},
    "LangChain": {"id": "a", "name": "f", "args": {"x": 1}, "type": "tool_call"},
    "Anthropic": {"id": "a", "type": "tool_use", "name": "f", "input": {"x": 1}},
    "inspect": {"id": "a", "function": "f", "arguments": {"x": 1}},
    "a number as id": {"id": 7, "function": {"name": "f", "arguments": {"x": 1}}},
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_of_every_public_form(name):
    messages = read_messages([USER, turn(CALLS[name]), result(CALLS[name]["id"])])
    assert messages[1]["tool_calls"][0]["function"] == {"name": "f", "arguments": {"x": 1}}
    assert messages[2]["name"] == "f"


@pytest.mark.parametrize("arguments", ["", "  ", None, "{}", {}])
def test_no_arguments_are_an_empty_object(arguments):
    (_, message) = read_messages([USER, turn({"id": "a", "function": {"name": "f", "arguments": arguments}})])
    assert message["tool_calls"][0]["function"]["arguments"] == {}


def test_a_custom_tool_has_its_text_as_input():
    call = {"id": "a", "type": "custom", "custom": {"name": "apply_patch", "input": "*** Begin"}}
    (_, message) = read_messages([USER, turn(call)])
    assert message["tool_calls"][0]["function"] == {
        "name": "apply_patch",
        "arguments": {"input": "*** Begin"},
    }


@pytest.mark.parametrize("ids", [("x", "x"), ("", ""), (None, None), (1, 2), ("x", "")])
def test_results_answer_calls_in_order_where_ids_do_not_tell(ids):
    calls = [{"id": id, "function": {"name": n, "arguments": {}}} for id, n in zip(ids, "fg")]
    messages = read_messages([USER, turn(*calls), result(ids[0], "1"), result(ids[1], "2")])
    assert [(m["name"], m["content"]) for m in messages[2:]] == [("f", "1"), ("g", "2")]
    made = [c["id"] for c in messages[1]["tool_calls"]]
    assert len(set(made)) == 2 and [m["tool_call_id"] for m in messages[2:]] == made


def test_a_result_without_an_id_goes_to_the_call_of_its_name():
    calls = [{"function": {"name": n, "arguments": {}}} for n in "fg"]
    messages = read_messages([USER, turn(*calls), result(name="g"), result(name="f")])
    assert [m["name"] for m in messages[2:]] == ["g", "f"]


def test_structured_results_become_json():
    messages = read_messages([USER, turn(CALLS["OpenAI"]), result("a", {"temp": 3})])
    assert messages[2]["content"] == '{"temp": 3}'


ODD = {
    "bad arguments": (turn({"id": "a", "function": {"name": "f", "arguments": "{"}}), False),
    "arguments of a list": (turn({"id": "a", "function": {"name": "f", "arguments": []}}), False),
    "no name": (turn({"id": "a", "function": {}}), False),
    "calls that are no list": ({**turn(), "tool_calls": "f()"}, False),
    "an unknown role": ({"role": "robot", "content": "hi"}, True),
    "no object": ("hi", True),
    "an image": ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, True),
    "a user who calls": ({**USER, "tool_calls": [CALLS["flat"]]}, True),
    "a number": ({"role": "user", "content": 3}, True),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_message_is_named_and_the_rest_is_read(name):
    odd, onward = ODD[name]
    messages, (fault,) = read_conversation([USER, {"role": "assistant", "content": "a"}, odd, USER])
    assert len(messages) == 4 and messages[1]["content"] == "a"
    assert (fault.index, fault.onward) == (2, onward) and fault.slug and fault.sentence
    with pytest.raises(InputError, match=r"messages\[1\]: "):
        read_messages([USER, odd, odd])


def test_an_unreadable_call_keeps_its_text_and_the_text_of_an_image_stays():
    messages, _ = read_conversation([USER, turn({"function": {"name": "f", "arguments": '{"x'}})])
    assert messages[1]["tool_calls"][0]["function"]["arguments"] == {UNPARSEABLE: '{"x'}
    parts = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {}}]
    messages, (fault,) = read_conversation([{"role": "user", "content": parts}])
    assert messages[0]["content"] == "see" and fault.slug == NOT_TEXT


# ---- thinking

THOUGHTS = {
    "reasoning_content": {"reasoning_content": "hm"},
    "reasoning": {"reasoning": "hm"},
    "thinking": {"thinking": "hm"},
    "details": {
        "reasoning_details": [{"type": "reasoning.text", "text": "hm"}, {"type": "reasoning.encrypted"}]
    },
    "blocks": {"thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "s"}]},
    "summaries": {"reasoning": {"summary": [{"type": "summary_text", "text": "hm"}]}},
    "parts": {"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "hi"}]},
    "reasoning parts": {
        "content": [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "hi"}]
    },
    "think tags": {"content": "<think>\nhm\n</think>\n\nhi"},
    "no opening tag": {"content": "hm\n</think>\n\nhi"},
    "thinking tags": {"content": "<thinking>hm</thinking>\nhi"},
    "brackets": {"content": "[THINK]hm[/THINK]hi"},
    "harmony": {"content": "<|channel|>analysis<|message|>hm<|end|>hi"},
    "a tag and a field": {"content": "<think>hm</think>hi", "reasoning": "hm"},
}


@pytest.mark.parametrize("name", THOUGHTS)
def test_thinking_is_found_under_every_public_name(name):
    (_, message) = read_messages([USER, {"role": "assistant", "content": "hi", **THOUGHTS[name]}])
    assert message == {"role": "assistant", "content": "hi", "reasoning_content": "hm"}


def test_encrypted_thinking_is_not_read():
    assert reasoning_of({"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]}) == ""


@pytest.mark.parametrize(
    "content",
    [
        "Cut at '</think>'.",
        "The tag `</think>` ends it.",
        "<think> is never closed",
        "a </think> b in a line",
    ],
)
def test_a_tag_that_is_only_mentioned_closes_nothing(content):
    assert split_thinking(content) == ("", content)


def test_a_talk_turn_that_a_result_answers_called_in_a_form_that_was_not_read():
    turns = [USER, {"role": "assistant", "content": "f 5"}, result("a"), result("b"), {**USER}]
    messages, faults = read_conversation(turns)
    assert [(f.index, f.slug, f.onward) for f in faults] == [(1, "unparseable_call", False)] * 2
    assert [m["role"] for m in messages] == ["user", "assistant", "user", "user", "user"]


def test_a_result_that_nobody_asked_for_makes_the_rest_another_history():
    _, (fault,) = read_conversation([USER, result("a"), {"role": "assistant", "content": "x"}])
    assert (fault.index, fault.slug, fault.onward) == (1, "result_without_call", True)


@pytest.mark.parametrize("call", [{"name": "f", "kwarg": {"x": 1}}, {"function": "{oops"}])
def test_what_stands_under_a_name_that_is_not_known_is_not_nothing(call):
    _, (fault,) = read_conversation([USER, turn(call)])
    assert (fault.slug, fault.onward) == ("unparseable_call", False)


def test_data_in_a_list_is_a_result_too():
    messages = read_messages([USER, turn(CALLS["OpenAI"]), result("a", [{"temp": 3}])])
    assert messages[2]["content"] == '[{"temp": 3}]'
