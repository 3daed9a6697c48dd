"""Codex rollouts -> trajectories: the items of the Responses API, a line each, in the new and the old layout.

    {"timestamp": "...", "type": "session_meta", "payload": {"id": "s", "base_instructions": {"text": "..."}}}
    {"timestamp": "...", "type": "response_item", "payload": {"type": "function_call", "name": "shell",
     "arguments": "{\\"command\\": [\\"ls\\"]}", "call_id": "c1"}}

In the old layout a line is the item itself; the oldest files are one object with `session` and `items`. A
model's reasoning, text and calls up to their results are one turn. `local_shell_call` becomes a call of
local_shell, `custom_tool_call` a call with {"input": ...}. A compaction begins a new trajectory, with the
history that replaces the old one. Searches of the API itself have no recorded result: turns after one are
skipped (not_text). The client's events (event_msg) repeat the items and are not read.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pivotrl_jax.chat.messages import require
from pivotrl_jax.records import InputError, Trajectory
from pivotrl_jax.trajectories.readers import base, building, files
from pivotrl_jax.trajectories.readers.files import Document
from pivotrl_jax.trajectories.readers.turns import Parts, Turns, call_of, function_docs, read_parts, thought
from pivotrl_jax.trajectories.readers.unread import MESSAGE, unread

LINES = ("session_meta", "response_item", "event_msg", "turn_context", "compacted")
CALLS = ("function_call", "custom_tool_call", "local_shell_call")
OUTPUTS = ("function_call_output", "custom_tool_call_output", "local_shell_call_output")
SILENT = ("ghost_snapshot", "compaction", "compaction_summary")
SPEAKS = {"payload", "role", "content", "call_id", "name", "action"}  # what a header lacks
ITEMS = ("message", "reasoning", *CALLS, *OUTPUTS)

META_READ = """
    base_instructions instructions dynamic_tools cwd originator cli_version source git forked_from_id
    agent_nickname agent_role record_type type payload """
ITEM_READ = MESSAGE + " call_id arguments input output action summary encrypted_content phase"


def recognise(sample: Any, path: Path) -> bool:
    """Whether it is a line of a rollout, a list of lines, or an object with `session` and `items`."""
    line = sample[0] if isinstance(sample, list) and sample else sample
    if not isinstance(line, dict):
        return False
    if isinstance(line.get("session"), dict) and isinstance(line.get("items"), list):
        return True
    if line.get("type") in LINES:
        return isinstance(line.get("payload"), dict)
    content = line.get("content")
    part = (
        content[0].get("type")
        if isinstance(content, list) and content and isinstance(content[0], dict)
        else None
    )
    header = {"id", "timestamp"} <= line.keys() and ("instructions" in line or "git" in line)
    item = line.get("type") in ITEMS and (part in ("input_text", "output_text") or "call_id" in line)
    return header or item or line.get("record_type") == "state"


def documents(path: Path) -> Iterable[Document]:
    """The sessions of a file: one, with an item per line."""
    return files.sessions(path, lambda line: isinstance(line, dict) and "items" not in line)


def episodes(document: Any, where: str) -> Iterable[Document]:
    """The session, cut where it was compacted; each part with the history that the model saw."""
    for place, lines in base.unrolled(document, where, recognise):
        if isinstance(lines, dict) and "session" in lines:
            lines = [lines["session"], *require(lines.get("items"), list, '"items"')]
        meta: dict = {}
        items: list[dict] = []
        known, part = 0, 1  # how many items an earlier part demonstrated
        lines, cut, fault = files.objects(require(lines, list, "a session"), place)
        yield from fault
        for line in lines:
            kind, payload = line.get("type"), line.get("payload", line)
            if not isinstance(payload, dict) and kind not in ("event_msg", "turn_context"):
                items.append(payload)  # the session is read up to here
            elif kind == "session_meta" or (kind is None and not SPEAKS & line.keys()):
                meta = meta or payload
            elif kind == "compacted":
                if any(_acts(item) for item in items[known:]):
                    yield (
                        _place(place, part),
                        {"items": items, "known": known, "meta": meta, "place": place, "cut": False},
                    )
                    part += 1
                items = _compacted(items, payload)
                known = len(items)
            elif (
                kind == "event_msg"
                and isinstance(payload, dict)
                and payload.get("type") == "thread_rolled_back"
            ):
                items = _rolled_back(items, payload.get("num_turns"))
                known = min(known, len(items))
            elif kind not in LINES or kind == "response_item":
                items.append(payload)
        if part == 1 or any(_acts(item) for item in items[known:]):
            last = {"items": items, "known": known, "meta": meta, "place": place, "cut": cut}
            yield _place(place, part), last


def _place(place: str, part: int) -> str:
    return place if part == 1 else f"{place}/part {part}"


def _acts(item: Any) -> bool:
    return not isinstance(item, dict) or item.get("type") in CALLS or item.get("role") == "assistant"


def _compacted(items: list[dict], payload: dict) -> list[dict]:
    """What a compaction leaves: the history that it records, else what was said, and the summary."""
    if isinstance(payload.get("replacement_history"), list) and payload["replacement_history"]:
        return payload["replacement_history"]
    said = [
        i
        for i in items
        if isinstance(i, dict) and i.get("type") == "message" and i.get("role") != "assistant"
    ]
    return [*said, {"type": "message", "role": "user", "content": payload.get("message")}]


def _rolled_back(items: list[dict], count: Any) -> list[dict]:
    """The items before the last `count` things that the user said; the client's own begin with a tag."""
    said = [i for i, item in enumerate(items) if _is_said(item)]
    count = count if isinstance(count, int) and 0 < count <= len(said) else 0
    return items[: said[-count]] if count else items


def _is_said(item: Any) -> bool:
    """Whether a person said it, and not the client in the person's place."""
    if not isinstance(item, dict) or item.get("role") != "user":
        return False
    try:
        return not read_parts(item.get("content")).text.startswith(("<", "# AGENTS.md"))
    except InputError:  # what cannot be read ends the session anyway
        return True


class _Items:
    """The turns so far, and the one of the model's call that is still open."""

    def __init__(self, known: int) -> None:
        self.turns = Turns()
        self.open: Parts | None = None
        self.shown = False  # whether an earlier part demonstrated it
        self.left = known  # items that an earlier part demonstrated and that are still to come

    def add(self, item: Any) -> None:
        """Take one item. Raises InputError."""
        kind, role = require(item, dict, "an item").get("type"), item.get("role")
        known, self.left = self.left > 0, self.left - 1
        says = kind == "message" and role == "assistant"
        ends = kind in OUTPUTS or (kind == "message" and role != "assistant")
        if ends or (says and self.open and (self.open.text or self.open.calls)):
            self.close()
        if says or kind in CALLS or kind == "reasoning":
            self.open, self.shown = self.open or Parts(), known
        if kind == "reasoning":
            self.open.reasoning = "\n".join(t for t in (self.open.reasoning, thought(item)) if t)
        elif says:
            parts = read_parts(item.get("content"))
            self.open.text, self.open.other = parts.text, self.open.other + parts.other
        elif kind in CALLS:
            self.open.calls.append(_call(item))
        elif kind in OUTPUTS:
            self.turns.result(item.get("call_id"), _output(item.get("output")))
        elif kind == "message":
            speaker = "system" if role in ("developer", "system") else "user"
            self.turns.say(speaker, read_parts(item.get("content"), "\n"))
        elif kind not in SILENT:  # searches of the API, and what is not known
            self.turns.blind = True

    def close(self) -> None:
        """End the turn that is open."""
        if self.open:
            self.turns.answer(self.open, self.shown)
            self.open = None


def trajectory(episode: Any, where: str) -> Trajectory:
    """One part of a session. Raises InputError."""
    meta, session = episode["meta"], _Items(episode["known"])
    turns, items = session.turns, episode["items"]
    turns.say("system", read_parts(meta.get("base_instructions")))
    faults = building.until_fault(items, session.add, "items", turns.messages)
    open_at_end = session.open is not None
    session.close()
    if open_at_end and (faults or episode["cut"]):
        building.skip_last(turns.messages, turns.skip)
    said = [item for item in items if isinstance(item, dict) and item.get("type") in ITEMS]
    name = building.named(meta, ("id", "session_id"), building.stem(episode["place"]))
    tools = function_docs(meta.get("dynamic_tools"))
    dialect, tools = turns.read_text_calls(tools)
    return building.checked(
        Trajectory(
            messages=turns.messages,
            id=name,
            origin=where,
            source="codex",
            scenario=name,
            verifier=turns.verifier(tools),
            tools=tools,
            skip=turns.skip,
            dialect=dialect,
            unused=faults + unread([meta], META_READ, "session_meta") + unread(said, ITEM_READ, "items"),
        )
    )


def _call(item: dict) -> dict:
    if item["type"] == "local_shell_call":
        action = require(item.get("action"), dict, "the action of a local_shell_call")
        given = {k: v for k, v in action.items() if k != "type" and v is not None}
        return call_of(
            {"name": "local_shell", "arguments": given, "id": item.get("call_id") or item.get("id")}
        )
    if item["type"] == "custom_tool_call":
        return call_of({**item, "input": {"input": item.get("input")}})
    return call_of(item)


def _output(output: Any) -> Parts:
    """An output: a text, parts, or (in old files of failed calls) {"content", "success"}."""
    if isinstance(output, dict) and "content" in output:
        output = output["content"]
    return read_parts(output)
