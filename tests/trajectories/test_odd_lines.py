"""A line of a session that cannot be read costs the turns from there on, and no turn loses its calls."""

import json

import pytest

from pivotrl_jax.trajectories import reading


def _claude(kind, number, content, **message):
    role = {"role": kind, "content": content, **message}
    parent = f"u{number - 1}" if number else None
    return {"type": kind, "uuid": f"u{number}", "parentUuid": parent, "sessionId": "s", "message": role}


def _use(id):
    return {"type": "tool_use", "id": id, "name": "ls", "input": {}}


CLAUDE = [
    _claude("user", 0, "list"),
    _claude("assistant", 1, [_use("t1")], id="m1"),
    _claude("user", 2, [{"type": "tool_result", "tool_use_id": "t1", "content": "a.py"}]),
    _claude("assistant", 3, [{"type": "text", "text": "Now b."}], id="m2"),
    _claude("assistant", 4, [_use("t2")], id="m2"),
]


def _item(**payload):
    return {"type": "response_item", "payload": payload}


CODEX = [
    {"type": "session_meta", "payload": {"id": "s"}},
    _item(type="message", role="user", content=[{"type": "input_text", "text": "list"}]),
    _item(type="function_call", name="ls", arguments="{}", call_id="t1"),
    _item(type="function_call_output", call_id="t1", output="a.py"),
    _item(type="message", role="assistant", content=[{"type": "output_text", "text": "Now b."}]),
    _item(type="function_call", name="ls", arguments="{}", call_id="t2"),
]


def _event(kind, **more):
    return {"source": "agent", "kind": kind, **more}


def _action(id, response):
    call = {"id": id, "name": "ls", "arguments": "{}"}
    thought = [{"type": "text", "text": "Now b."}]
    return _event(
        "ActionEvent",
        tool_name="ls",
        tool_call_id=id,
        tool_call=call,
        llm_response_id=response,
        thought=thought,
    )


EVENTS = [
    {"source": "user", "kind": "MessageEvent", "llm_message": {"role": "user", "content": "list"}},
    _action("t1", "r1"),
    _event("ObservationEvent", tool_call_id="t1", observation={"content": "a.py"}),
    _action("t2", "r2"),
    _action("t3", "r2"),
]
# sessions that end in a turn of two lines; the odd line of each that its reader cannot take
SESSIONS = {
    "claude_code": (CLAUDE, _claude("assistant", 4, 5, id="m3")),
    "codex": (CODEX, {"type": "response_item", "payload": 5}),
    "openhands_v1": (EVENTS, _event("MessageEvent", llm_message=5)),
}
ODD = {"a list": "[]", "a text": '"x"', "null": "null", "not JSON": '{"type": "assis'}


def read(tmp_path, *lines):
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines), encoding="utf-8")
    return reading.read(path)


@pytest.mark.parametrize("name", SESSIONS)
def test_the_session_itself_is_read_whole(tmp_path, name):
    (t,), named = read(tmp_path, *SESSIONS[name][0])
    assert named == {} and t.skip == {} and t.unused == () and t.source == name
    assert [m["role"] for m in t.messages] == ["user", "assistant", "tool", "assistant"]
    assert len(t.messages[3]["tool_calls"]) == (2 if name == "openhands_v1" else 1)


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", SESSIONS)
def test_a_turn_that_an_odd_line_cuts_is_skipped_and_the_turns_before_stay(tmp_path, name, odd):
    lines = SESSIONS[name][0]
    (t,), named = read(tmp_path, *lines[:-1], ODD[odd], lines[-1])
    assert [m["role"] for m in t.messages] == ["user", "assistant", "tool", "assistant"]
    assert t.skip == {3: "unparseable_call"}  # without its second line it would only talk
    (why,) = named.values()
    assert why.endswith("the session is read up to here")


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", SESSIONS)
def test_a_turn_that_was_answered_before_an_odd_line_stays(tmp_path, name, odd):
    lines = SESSIONS[name][0]
    (t,), named = read(tmp_path, *lines[:-2], ODD[odd], *lines[-2:])
    assert [m["role"] for m in t.messages] == ["user", "assistant", "tool"]
    assert t.skip == {} and len(named) == 1


@pytest.mark.parametrize("name", SESSIONS)
def test_a_line_whose_content_is_odd_ends_the_session_there(tmp_path, name):
    lines, odd = SESSIONS[name]
    (t,), named = read(tmp_path, *lines[:-2], odd, *lines[-2:])
    assert [m["role"] for m in t.messages][:3] == ["user", "assistant", "tool"] and named == {}
    assert all(why for i, why in t.skip.items() if i > 1) and 1 not in t.skip
    assert len(t.messages) == 3 or t.skip


def test_a_call_in_a_line_that_says_user_is_not_lost_to_talk(tmp_path):
    odd = {**CLAUDE[4], "type": "user"}
    odd["message"] = {**odd["message"], "role": "user"}
    (t,), named = read(tmp_path, *CLAUDE[:4], odd)
    assert named == {} and t.messages[3]["content"] == "Now b." and t.skip == {3: "unparseable_call"}
    assert t.unused[0].startswith("lines from 4 on (")


def test_what_the_client_writes_for_itself_is_not_named(tmp_path):
    progress = {"type": "progress", "sessionId": "s", "data": {"hook": "x"}}
    state = {
        "source": "environment",
        "kind": "ConversationStateUpdateEvent",
        "key": "stats",
        "value": {"a": 1},
    }
    snapshot = _item(type="ghost_snapshot", ghost_commit={"id": "c"})
    for lines, own in ((CLAUDE, progress), (CODEX, snapshot), (EVENTS, state)):
        (t,), _ = read(tmp_path, *lines, own)
        assert t.unused == ()


def test_an_item_that_cannot_be_read_costs_the_turn_it_belongs_to(tmp_path):
    shell = _item(type="local_shell_call", call_id="t2", action=5)
    (t,), named = read(tmp_path, *CODEX[:-1], shell, *CODEX[-1:])
    assert named == {} and t.messages[3]["content"] == "Now b." and t.skip == {3: "unparseable_call"}
    (unread,) = t.unused
    assert unread.startswith("items from 4 on (")


def test_a_sidechain_that_ended_before_an_odd_line_keeps_its_last_turn(tmp_path):
    side = [
        {**_claude("user", 10, "look"), "parentUuid": None, "isSidechain": True},
        {**_claude("assistant", 11, "Found it.", id="n1"), "isSidechain": True},
    ]
    (main, other), _ = read(tmp_path, *CLAUDE[:2], *side, *CLAUDE[2:4], "[]")
    assert other.skip == {} and other.messages[-1]["content"] == "Found it."
    assert main.skip == {3: "unparseable_call"}


@pytest.mark.parametrize("odd", [5, "x", [], None, {"role": "user", "content": 5}])
def test_an_odd_item_in_the_history_that_a_compaction_leaves_costs_the_next_part_only(tmp_path, odd):
    history = [odd, {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "go"}]}]
    compacted = {"type": "compacted", "payload": {"message": "s", "replacement_history": history}}
    (t, *rest), named = read(tmp_path, *CODEX, compacted, *CODEX[1:])
    assert t.skip == {} and len(t.messages) == 4
    assert bool(named) != bool(rest)
