"""Fields with content that a reader does not read are named, in the document and in its messages."""

import json

import pytest
from support.format_examples import EXAMPLES

from pivotrl_jax.trajectories import reading, summary
from pivotrl_jax.trajectories.readers.unread import unread

# what a field of the messages, steps or events of each format is named under
ITEMS = {
    "atif": "steps",
    "tau_bench": "messages",
    "openhands": "history",
    "openhands_v1": "history",
    "inspect_log": "messages",
    "claude_code": "lines",
    "codex": "items",
    "mini_swe_agent": "messages",
    "swe_agent": "history",
    "anthropic": "messages",
    "langchain": "messages",
    "terminus": "messages",
    "openai_chat": "messages",
}
EVENT = {"source": "user", "action": "message", "args": {"content": "list"}}
ANSWER = {"source": "agent", "action": "ls", "args": {}}
LISTS = ("messages", "steps", "history", "traj", "trajectory", "samples", "simulations")
ENVELOPES = ("payload", "kwargs", "data")


def marked(value):
    """`value` with the field "surprise" in each document, message, step and event."""
    if isinstance(value, list):
        return [marked(v) for v in value]
    if not isinstance(value, dict):
        return value
    value = {**value, "surprise": "x"}
    value |= {k: marked(value[k]) for k in LISTS if isinstance(value.get(k), list)}
    return value | {k: marked(value[k]) for k in ENVELOPES if isinstance(value.get(k), dict)}


@pytest.mark.parametrize("name, text", [(n, t) for n, t in EXAMPLES if n in ITEMS])
def test_a_field_that_no_reader_knows_is_named(tmp_path, name, text):
    path = tmp_path / "example"
    path.write_text(text, encoding="utf-8")
    (plain,), _ = reading.read(path)
    assert set(plain.unused) <= {"rejected"}, "what a preference row's other answer is"
    try:
        documents = [json.loads(text)]
    except ValueError:  # JSONL
        documents = [json.loads(line) for line in text.splitlines()]
    path.write_text("\n".join(json.dumps(marked(document)) for document in documents), encoding="utf-8")
    (trajectory,), _ = reading.read(path)
    assert trajectory.messages == plain.messages
    named = set(trajectory.unused) - {"rejected"}
    assert named and {n.rpartition(".")[2] for n in named} == {"surprise"}
    rows = [d for d in documents if isinstance(d, dict)]
    lists = [row[key] for row in rows for key in LISTS if isinstance(row.get(key), list)]
    has_items = any(isinstance(items[0], dict) for items in lists)
    assert not has_items or f"{ITEMS[name]}.surprise" in named


def test_what_a_file_says_beside_its_episodes_is_named(tmp_path):
    path = tmp_path / "x.json"
    for name, of in (("inspect_log", "log"), ("tau_bench", "file")):
        document = json.loads([text for n, text in EXAMPLES if n == name][-1])
        path.write_text(json.dumps({**document, "remarks": ["r"], "version": 2}), encoding="utf-8")
        (trajectory,), _ = reading.read(path)
        assert trajectory.unused == (f"{of}.remarks",)


def test_many_long_names_are_one_short_line(tmp_path):
    row = {"history": [EVENT, ANSWER], **{f"x{i}{'y' * 500}": 1 for i in range(300)}}
    path = tmp_path / "x.json"
    path.write_text(json.dumps(row), encoding="utf-8")
    line = summary.warnings(reading.read(path, "openhands")[0], [])[0]
    assert len(line) < 1200 and line.endswith("and 288 more")


def test_bookkeeping_empty_and_known_fields_are_not_named():
    values = [{"id": "a", "timestamp": 3, "read": "x", "flag": False, "empty": [], "zero": 0}, "text"]
    assert unread(values, "read more") == ("zero",)
    assert unread(values, "read zero", "steps") == ()
    assert unread([{"b": 1}, {"a": 1, "b": 2}], "", "steps") == ("steps.a", "steps.b")
