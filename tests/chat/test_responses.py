"""Items of the Responses API, and tools in its form."""

import pytest

from pivotrl_jax.chat import responses, tools
from pivotrl_jax.records import Call

F = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}


def test_thinking_between_calls_does_not_end_a_model_call():
    think = {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "hm"}]}
    one = {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "a"}
    two = {**one, "call_id": "b"}
    result = {"type": "function_call_output", "call_id": "b", "output": [{"type": "text", "text": "ok"}]}
    made = responses.messages_of([think, one, think, two, result])
    assert [m["role"] for m in made] == ["assistant", "tool"]
    assert made[0]["reasoning_content"] == "hm\n\nhm" and len(made[0]["tool_calls"]) == 2
    assert made[1] == {"role": "tool", "tool_call_id": "b", "name": "f", "content": "ok"}


def test_output_items_are_an_action():
    call = {"type": "function_call", "name": "f", "arguments": '{"a": 1}'}
    parts = [
        {"type": "output_text", "text": "so "},
        {"type": "refusal"},
        {"type": "output_text", "text": "be it"},
    ]
    action = responses.action_of_items([{"type": "message", "content": parts}, call])
    assert (action.content, action.calls, action.malformed) == ("so be it", (Call("f", {"a": 1}),), "")


@pytest.mark.parametrize(
    "item, says",
    [
        ("f", "an output item is a str, want an object"),
        ({"type": "function_call", "name": "f", "arguments": "{"}, "arguments are not valid JSON"),
        ({"type": "function_call", "name": "f", "arguments": "{} {}"}, "text after the JSON"),
        ({"type": "message", "content": "<tool_call>"}, "could not be parsed"),
    ],
)
def test_what_a_model_got_wrong_makes_the_action_malformed(item, says):
    assert says in responses.action_of_items([item]).malformed


@pytest.mark.parametrize(
    "given",
    [
        [],
        [F],
        [{"type": "function", **F}],
        [{"type": "function", "function": F}],
        [{"name": "f"}],
        [F, {"type": "function", "function": F}],  # no one form: kept as they are
    ],
)
def test_tools_come_back_from_the_responses_form_as_they_were(given):
    flat = [tools.flat_tool(tool) for tool in given]
    assert all(tool["type"] == "function" and "parameters" in tool for tool in flat)
    assert tools.shaped(flat, tools.tool_shape(given)) == given
