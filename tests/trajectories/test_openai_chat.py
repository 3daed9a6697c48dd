"""Rows of OpenAI chat messages: what they become, and what is wrong with a bad one."""

import json

import pytest

from pivotrl_jax.records import InputError
from pivotrl_jax.trajectories import reading

USER = {"role": "user", "content": "what is here?"}
DONE = {"role": "assistant", "content": "Only a."}


def call(name="ls", arguments="{}", id="c1"):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def calls(*made, **more):
    return {"role": "assistant", "content": None, "tool_calls": list(made), **more}


def result(id="c1", content="[]"):
    return {"role": "tool", "tool_call_id": id, "content": content}


GOOD = {
    "messages": [USER, calls(call(), reasoning_content="look"), result(), DONE],
    "tools": [{"name": "ls"}],
}


def write(tmp_path, *rows):
    path = tmp_path / "data.jsonl"
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return path


def read(path, **options):
    return reading.read(path, "openai_chat", **options)


def read_one(tmp_path, *messages, **more):
    (trajectory,), _ = read(write(tmp_path, {"messages": list(messages), **more}), on_bad_row="stop")
    return trajectory


def test_a_row_becomes_a_trajectory(tmp_path):
    path = write(tmp_path, {**GOOD, "id": "t", "scenario": 7}, "", GOOD)
    (first, second), left_out = read(path)
    assert left_out == {}
    assert (first.id, first.scenario, first.source, first.verifier) == ("t", "7", "openai", "tool_call")
    assert first.origin == f"{path}:1" and first.tools == [{"name": "ls"}]
    assert second.id == "data:3" and second.scenario.startswith("opening:")
    assert first.messages[1] == {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "ls", "arguments": {}}}],
        "reasoning_content": "look",
    }
    assert first.messages[2] == {"role": "tool", "tool_call_id": "c1", "name": "ls", "content": "[]"}


def test_arguments_may_be_objects_or_strings(tmp_path):
    as_string = read_one(tmp_path, USER, calls(call(arguments='{"a": [1]}')))
    as_object = read_one(tmp_path, USER, calls(call(arguments={"a": [1]})))
    assert as_string.messages == as_object.messages
    assert as_string.messages[1]["tool_calls"][0]["function"]["arguments"] == {"a": [1]}


def test_a_think_block_in_the_content_is_reasoning(tmp_path):
    thinks = read_one(tmp_path, USER, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHi"})
    assert thinks.messages[1] == {"role": "assistant", "content": "Hi", "reasoning_content": "hm"}


def test_results_are_matched_by_id_or_else_in_order(tmp_path):
    two = calls(call("ls", id="x"), call("cd", id="y"))
    by_id = read_one(tmp_path, USER, two, result("y"), result("x"))
    assert [m["name"] for m in by_id.messages[2:]] == ["cd", "ls"]
    in_order = read_one(tmp_path, USER, two, *[{"role": "tool", "content": "[]"}] * 2)
    assert [m["name"] for m in in_order.messages[2:]] == ["ls", "cd"]


def test_text_parts_and_developer_messages(tmp_path):
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    row = read_one(tmp_path, {"role": "developer", "content": parts}, USER, DONE)
    assert row.messages[0] == {"role": "system", "content": "ab"}


BAD = {
    "malformed JSON": ("{", "not valid JSON"),
    "bottomless JSON": ("[" * 100_000, "not valid JSON"),
    "no object": ("[1]", "a JSON list, want an object"),
    "no messages": ({"tools": []}, '"messages" is missing'),
    "messages of the wrong type": ({"messages": "hi"}, '"messages" is a str'),
    "no assistant turn": ({"messages": [USER]}, "no assistant turn"),
    "empty": ({"messages": []}, "no assistant turn"),
    "a message that is text": ({"messages": ["hi"]}, r"messages\[0\]: a str, want an object"),
    "unknown role": (
        {"messages": [USER, {"role": "robot", "content": ""}]},
        r"messages\[1\]: unknown role 'robot'",
    ),
    "no role": ({"messages": [{"content": ""}]}, "unknown role None"),
    "result without a call": (
        {"messages": [USER, result(), DONE]},
        r"messages\[1\]: a tool result .*without",
    ),
    "arguments are no JSON": (
        {"messages": [USER, calls(call(arguments="{a}"))]},
        '"arguments" are not valid JSON',
    ),
    "arguments go on": ({"messages": [USER, calls(call(arguments="{} {}"))]}, "go on after"),
    "arguments are NaN": ({"messages": [USER, calls(call(arguments='{"a": NaN}'))]}, "NaN is not JSON"),
    "arguments are a list": ({"messages": [USER, calls(call(arguments="[]"))]}, "are a list, want an object"),
    "a call without a name": ({"messages": [USER, calls({"function": {}})]}, 'no "function" with a "name"'),
    "a user who calls": ({"messages": [{**USER, "tool_calls": [call()]}, DONE]}, "only an assistant can"),
    "content is a number": ({"messages": [{"role": "user", "content": 3}, DONE]}, '"content" is a int'),
    "content is missing": ({"messages": [{"role": "user"}, DONE]}, '"content" is missing'),
    "an image": ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}, DONE]}, "not text"),
    "tools are an object": ({**GOOD, "tools": {}}, '"tools" is a dict'),
    "a tool without a name": ({**GOOD, "tools": [{}]}, r"tools\[0\] is not a function doc"),
    "parameters are a list": ({**GOOD, "tools": [{"name": "f", "parameters": []}]}, '"parameters" is a list'),
    "half a surrogate pair": ({"messages": [{"role": "user", "content": "\ud800"}, DONE]}, "surrogate"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_left_out_and_named_or_stops(name, tmp_path):
    row, words = BAD[name]
    path = write(tmp_path, GOOD, row, GOOD)
    trajectories, left_out = read(path)
    assert [t.id for t in trajectories] == ["data:1", "data:3"]
    ((where, sentence),) = left_out.items()
    assert where == f"{path}:2" and "\n" not in sentence
    with pytest.raises(InputError, match=words) as stopped:
        read(path, on_bad_row="stop")
    assert str(stopped.value) == f"{where}: {sentence}"


def test_bytes_that_are_no_text_are_a_bad_row(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n\xff\xfe{}\n")
    _, left_out = read(path)
    assert left_out.keys() == {f"{path}:2"} and "not text in UTF-8 (byte 1 is" in left_out[f"{path}:2"]
