"""Trajectories from OpenAI chat messages: one row per line of JSONL or row of parquet, or a JSON file that
holds one row, a list of rows, or the messages of one conversation.

    {"messages": [...], "tools": [...], "id": "optional", "scenario": "optional", "reward": 1.0}

Messages hold `role`, `content` (text, or text parts), and where they apply `tool_calls`, `tool_call_id` and
`reasoning_content`. `arguments` may be a JSON string or an object; inside the project they are objects. A
think block at the start of an assistant's content moves to `reasoning_content`; developer becomes system.
Also read: "conversations" for "messages", with `from` and `value` (human, gpt) for `role` and `content`;
messages or tools as JSON text; "weight": 0 on an assistant message, which makes it context.
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pivotrl_jax.chat.messages import read_messages, read_tools
from pivotrl_jax.records import InputError, Message, Trajectory
from pivotrl_jax.trajectories.readers import base, files

MESSAGE_FIELDS = ("messages", "conversations")


@dataclasses.dataclass(frozen=True)
class Skipped:
    """The rows that were left out: one sentence each, beginning with file and line."""

    sentences: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many rows were left out."""
        return len(self.sentences)


def read(path: str | Path, verifier: str, on_bad_row: str) -> tuple[list[Trajectory], Skipped]:
    """All trajectories of a file; their turns are to be scored by `verifier`.

    A bad row is skipped and named (on_bad_row "skip"), or raises InputError ("stop"). A missing file, an
    unknown `on_bad_row`, and a file without any usable row raise InputError in either case.
    """
    path = Path(path)
    if on_bad_row not in ("skip", "stop"):
        raise InputError(f'on_bad_row is {on_bad_row!r}; want "skip" or "stop"')
    trajectories: dict[str, Trajectory] = {}
    sentences: list[str] = []
    for origin, row in rows(files.documents(path)):
        try:
            if isinstance(row, InputError):
                raise row
            made = trajectory(row, origin, f"{path.stem}:{origin.rpartition(':')[2]}", verifier)
            if made.id in trajectories:
                first = trajectories[made.id].origin
                raise InputError(f"the id {made.id!r} is taken by {first}; make ids unique")
        except InputError as e:
            sentences.append(f"{origin}: {e}")
            if on_bad_row == "stop":
                raise InputError(sentences[-1]) from None
            continue
        trajectories[made.id] = made
    if not trajectories:
        why = f"; the first bad row: {sentences[0]}" if sentences else ""
        raise InputError(f"{path}: no usable row among {len(sentences)}; give at least one{why}")
    return list(trajectories.values()), Skipped(tuple(sentences))


def recognise(sample: Any, path: Path) -> bool:
    """Whether a document looks like a row, rows, or the messages of one conversation."""
    if isinstance(sample, list):
        if sample and _is_message(sample[0]):
            return True
        sample = sample[0] if sample else None
    return isinstance(sample, dict) and any(isinstance(sample.get(k), (list, str)) for k in MESSAGE_FIELDS)


def rows(documents: Iterable[files.Document]) -> Iterator[files.Document]:
    """The rows of documents, each at "file:number", counted from 1."""
    for where, document in documents:
        numbered = where.rpartition(":")[2].isdigit()
        if isinstance(document, list) and document and not numbered and not _is_message(document[0]):
            yield from ((f"{where}:{i}", row) for i, row in enumerate(document, 1))
        else:
            yield where if numbered else f"{where}:1", document


def episodes(document: Any, where: str) -> Iterable[files.Document]:
    """The rows of one document."""
    return rows([(where, document)])


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and ("role" in value or "from" in value) and "messages" not in value


def messages_of(row: dict) -> Any:
    """The messages of a row, under whichever name, decoded where they are JSON text; None: there are none."""
    for key in MESSAGE_FIELDS:
        value = row.get(key)
        if isinstance(value, str) and value.lstrip().startswith("["):
            value = _decoded(value, key)
        if isinstance(value, list):
            return [_renamed(m) for m in value]
        if value is not None:
            return value
    return None


def _decoded(value: str, key: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as e:
        raise InputError(f'"{key}" is text but not valid JSON ({e}); fix it') from None


def _renamed(message: Any) -> Any:
    """A message of ShareGPT's form (`from`, `value`) in OpenAI's."""
    if not isinstance(message, dict) or "role" in message or "from" not in message:
        return message
    role = {"human": "user", "gpt": "assistant", "observation": "tool"}.get(str(message["from"]))
    return {"role": role or message["from"], "content": message.get("value")}


SEARCH_TOOLS = ("search", "open", "fetch", "browse", "visit", "find", "click", "crawl", "scroll", "google")


def verifier_for(messages: list[Message], tools: list[dict]) -> str:
    """ "search" where all tools are those of somebody who looks things up on the web, else "tool_call"."""
    names = {t.get("function", t)["name"].lower() for t in tools}
    names |= {c["function"]["name"].lower() for m in messages for c in m.get("tool_calls", ())}
    words = [set(re.split(r"[^a-z]+", name)) for name in names]
    looks = all(any(w.startswith(t) for w in ws for t in SEARCH_TOOLS) for ws in words)
    searches = any("search" in name or "browse" in name or "visit" in name for name in names)
    return "search" if looks and searches else "tool_call"


def trajectory(row: Any, origin: str, default_id: str = "", verifier: str = "") -> Trajectory:
    """One row, checked. `verifier` "" chooses "search" or "tool_call" by the tools. Raises InputError."""
    if isinstance(row, list) and row and _is_message(row[0]):
        row = {"messages": row}
    if not isinstance(row, dict):
        raise InputError(f"a JSON {type(row).__name__}, want an object; fix or remove the line")
    id = _name(row, "id", default_id or base.stem(origin))
    raw = messages_of(row)
    messages = read_messages(raw)
    turns = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    if not turns:
        raise InputError("no assistant turn, so nothing is demonstrated; remove the row")
    tools = row.get("tools")
    tools = read_tools(_decoded(tools, "tools") if isinstance(tools, str) else tools)
    skip = base.plain_skips(messages, turns) | {i: base.CONTEXT for i in turns if raw[i].get("weight") == 0}
    return Trajectory(
        id,
        messages,
        tools,
        "openai",
        _name(row, "scenario", id),
        verifier or verifier_for(messages, tools),
        {},
        origin,
        _reward(row),
        skip,
    )


def _reward(row: dict) -> float | None:
    values = [row[k] for k in ("reward", "resolved", "success") if isinstance(row.get(k), (bool, int, float))]
    return float(values[0]) if values else None


def _name(row: dict, field: str, default: str) -> str:
    value = row.get(field)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise InputError(f'"{field}" is a {type(value).__name__}, want a string')
    return str(value)


def read_tools_file(path: str) -> list[dict]:
    """Function docs for episodes that bring none: a JSON list; "" for no file. Raises InputError."""
    if not path:
        return []
    try:
        return read_tools(json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as e:  # InputError is a ValueError
        raise InputError(f"{path}: {e}") from None
