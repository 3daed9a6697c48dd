"""What cannot be read of an episode ends it there: the turns before stay, and the fault is named."""

import pytest

from pivotrl_jax.records import InputError
from pivotrl_jax.trajectories.readers import anthropic, atif, inspect_log, langchain, openhands

CALL = {"tool_call_id": "a", "function_name": "ls", "arguments": {}}
STEPS = [{"source": "user", "message": "list"}, {"source": "agent", "message": "", "tool_calls": [CALL]}]
EVENTS = [
    {"id": 0, "source": "user", "action": "message", "args": {"content": "list"}},
    {"id": 1, "source": "agent", "action": "ls", "args": {}},
]
BLOCKS = [
    {"role": "user", "content": "list"},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "ls", "input": {}}]},
]
CHAIN = [
    {"type": "human", "content": "list"},
    {"type": "ai", "content": "", "tool_calls": [{"name": "ls", "args": {}, "id": "a"}]},
]
READERS = {
    "atif": (atif, lambda items: {"schema_version": "ATIF-v1.7", "steps": items}, STEPS, {"source": "moon"}),
    "openhands": (openhands, lambda items: {"history": items}, EVENTS, {"id": 2}),
    "anthropic": (anthropic, lambda items: {"messages": items}, BLOCKS, "hello"),
    "langchain": (langchain, lambda items: {"messages": items}, CHAIN, {"type": "moon"}),
}


@pytest.mark.parametrize("name", READERS)
def test_the_turns_before_an_odd_item_stay(name):
    reader, document, items, odd = READERS[name]
    t = reader.trajectory(document([*items, odd, *items]), "x.json")
    assert [m["role"] for m in t.messages] == ["user", "assistant"] and t.skip == {}
    assert t.messages[1]["tool_calls"][0]["function"]["name"] == "ls"
    (unread,) = t.unused
    assert " from 2 on (" in unread


@pytest.mark.parametrize("name", READERS)
def test_without_a_turn_before_it_nothing_is_left(name):
    reader, document, items, odd = READERS[name]
    with pytest.raises(InputError, match=r"\[1\]: "):
        reader.trajectory(document([items[0], odd, *items]), "x.json")


TEXT = '<tool_call>\n{"name": "ls", "arguments": {"path": "src"}}\n</tool_call>'
TWO = "<tool_response>a.py</tool_response><tool_response>b.py</tool_response>"
WRITTEN = {
    "anthropic": (anthropic, lambda said: {"messages": [{"role": r, "content": t} for r, t in said]}),
    "langchain": (
        langchain,
        lambda said: {"messages": [{"type": KINDS[r], "content": t} for r, t in said]},
    ),
    "inspect_log": (
        inspect_log,
        lambda said: {"id": 1, "eval": {}, "messages": [{"role": r, "content": t} for r, t in said]},
    ),
}
WRITTEN["atif"] = (
    atif,
    lambda said: {
        "schema_version": "ATIF-v1.7",
        "steps": [{"source": SOURCES[r], "message": t} for r, t in said],
    },
)
KINDS = {"user": "human", "assistant": "ai"}
SOURCES = {"user": "user", "assistant": "agent"}


@pytest.mark.parametrize("name", WRITTEN)
def test_calls_written_in_the_text_are_calls(name):
    reader, document = WRITTEN[name]
    said = [("user", "list"), ("assistant", TEXT + "\n" + TEXT), ("user", TWO), ("assistant", TEXT)]
    t = reader.trajectory(document([*said, ("user", "ok"), ("assistant", "<tool_call>{")]), "x.json")
    assert t.dialect == "hermes"
    turns = [m for m in t.messages if m["role"] == "assistant"]
    assert [len(m.get("tool_calls") or ()) for m in turns] == [2, 1, 0]
    assert [m["content"] for m in t.messages if m["role"] == "tool"][:2] == ["a.py", "b.py"]
    assert t.skip == {len(t.messages) - 1: "unparseable_call"}


@pytest.mark.parametrize("name", READERS)
def test_calls_of_an_api_are_native(name):
    reader, document, items, _ = READERS[name]
    assert reader.trajectory(document(items), "x.json").dialect == "native"
