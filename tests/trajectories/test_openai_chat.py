"""Reading OpenAI chat messages; candidates; the split."""

import json

import pytest

from pivotrl_jax.records import InputError, Trajectory
from pivotrl_jax.trajectories.extract import extract, limit_prompts
from pivotrl_jax.trajectories.readers import openai_chat
from pivotrl_jax.trajectories.split import split

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


def read_one(tmp_path, *messages, **more):
    (trajectory,), _ = openai_chat.read(
        write(tmp_path, {"messages": list(messages), **more}), "tool_call", "stop"
    )
    return trajectory


def test_a_row_becomes_a_trajectory(tmp_path):
    path = write(tmp_path, {**GOOD, "id": "t", "scenario": 7}, "", GOOD)
    trajectories, skipped = openai_chat.read(path, "tool_call", "stop")
    first, second = trajectories
    assert skipped.count == 0
    assert (first.id, first.scenario, first.source, first.verifier) == ("t", "7", "openai", "tool_call")
    assert first.origin == f"{path}:1" and first.tools == [{"name": "ls"}]
    assert (second.id, second.scenario) == ("data:3", "data:3")
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
    "result of another call": ({"messages": [USER, calls(call()), result("c2")]}, "'c2' without a matching"),
    "result given twice": (
        {"messages": [USER, calls(call()), result(), result()]},
        r"messages\[3\].*without",
    ),
    "arguments are no JSON": (
        {"messages": [USER, calls(call(arguments="{a}"))]},
        '"arguments" are not valid JSON',
    ),
    "arguments go on": ({"messages": [USER, calls(call(arguments="{} {}"))]}, "go on after"),
    "arguments are NaN": ({"messages": [USER, calls(call(arguments='{"a": NaN}'))]}, "NaN is not JSON"),
    "arguments are a list": ({"messages": [USER, calls(call(arguments="[]"))]}, "are a list, want an object"),
    "arguments are missing": ({"messages": [USER, calls({"function": {"name": "f"}})]}, "are missing"),
    "a call without a name": ({"messages": [USER, calls({"function": {}})]}, 'no "function" with a "name"'),
    "ids shared": ({"messages": [USER, calls(call(), call())]}, "share an id"),
    "a user who calls": ({"messages": [{**USER, "tool_calls": [call()]}, DONE]}, "only an assistant can"),
    "content is a number": ({"messages": [{"role": "user", "content": 3}, DONE]}, '"content" is a int'),
    "content is missing": ({"messages": [{"role": "user"}, DONE]}, '"content" is missing'),
    "an image": ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}, DONE]}, "not text"),
    "reasoning is a list": (
        {"messages": [USER, {**DONE, "reasoning_content": []}]},
        '"reasoning_content" is a list',
    ),
    "tools are an object": ({**GOOD, "tools": {}}, '"tools" is a dict'),
    "a tool without a name": ({**GOOD, "tools": [{}]}, r"tools\[0\] is no function doc"),
    "parameters are a list": ({**GOOD, "tools": [{"name": "f", "parameters": []}]}, '"parameters" is a list'),
    "the id is a list": ({**GOOD, "id": []}, '"id" is a list'),
    "half a surrogate pair": ({"messages": [{"role": "user", "content": "\ud800"}, DONE]}, "surrogate"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_skipped_and_named_or_stops(name, tmp_path):
    row, words = BAD[name]
    path = write(tmp_path, GOOD, row, GOOD)
    trajectories, skipped = openai_chat.read(path, "tool_call", "skip")
    assert [t.id for t in trajectories] == ["data:1", "data:3"]
    assert skipped.count == 1 and skipped.sentences[0].startswith(f"{path}:2: ")
    with pytest.raises(InputError, match=words) as stopped:
        openai_chat.read(path, "tool_call", "stop")
    assert str(stopped.value) == skipped.sentences[0]
    assert "\n" not in skipped.sentences[0]


def test_an_id_used_twice_names_the_first_place(tmp_path):
    path = write(tmp_path, {**GOOD, "id": "t"}, {**GOOD, "id": "t"})
    with pytest.raises(InputError, match=r"data\.jsonl:2: the id .t. is taken by .*data\.jsonl:1"):
        openai_chat.read(path, "tool_call", "stop")


def test_bytes_that_are_no_text_are_a_bad_row(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n\xff\xfe{}\n")
    _, skipped = openai_chat.read(path, "tool_call", "skip")
    assert skipped.count == 1 and "data.jsonl:2: not valid JSON" in skipped.sentences[0]


def test_what_always_stops(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        openai_chat.read(tmp_path / "none.jsonl", "tool_call", "skip")
    with pytest.raises(InputError, match='want "skip" or "stop"'):
        openai_chat.read(write(tmp_path, GOOD), "tool_call", "ignore")
    with pytest.raises(InputError, match=r"no usable row among 1; .*data\.jsonl:1"):
        openai_chat.read(write(tmp_path, "{"), "tool_call", "skip")
    with pytest.raises(InputError, match="no usable row"):
        openai_chat.read(write(tmp_path), "tool_call", "skip")


# ---- candidates


def test_every_assistant_turn_is_a_candidate(tmp_path):
    (trajectory,), _ = openai_chat.read(write(tmp_path, {**GOOD, "id": "t"}), "tool_call", "stop")
    first, second = extract([trajectory])
    assert (first.id, first.turn, first.is_call) == ("t@1", 0, True)
    assert first.messages == trajectory.messages[:1] and first.demonstration == trajectory.messages[1]
    assert (second.id, second.turn, second.is_call) == ("t@3", 1, False)
    assert second.messages == trajectory.messages[:3]
    assert (second.trajectory_id, second.scenario, second.verifier) == ("t", "t", "tool_call")


def test_cases_go_to_their_turns_and_a_greeting_gives_no_candidate():
    messages = [DONE, USER, DONE, USER, DONE]
    trajectory = Trajectory("t", messages, [], "bfcl", "s", "bfcl_multi_turn", {4: {"k": 1}})
    assert [(c.id, c.turn, c.case) for c in extract([trajectory])] == [("t@2", 1, {}), ("t@4", 2, {"k": 1})]


def test_a_long_prompt_is_left_out_with_its_length():
    trajectory = Trajectory("t", [USER, DONE, USER, DONE], [], "openai", "s", "tool_call")
    candidates = extract([trajectory])
    kept, skipped = limit_prompts(candidates, lambda c: 10 * len(c.messages), 10)
    assert [c.id for c in kept] == ["t@1"]
    assert list(skipped) == ["t@3"] and "30 tokens, more than the limit of 10" in skipped["t@3"]


# ---- split


def many(count, per_scenario=3):
    return [
        Trajectory(f"t{i}", [USER, DONE], [], "openai", f"s{i // per_scenario}", "tool_call")
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
