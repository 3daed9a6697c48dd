"""Trajectories from OpenAI chat messages: one row per line of JSONL or row of parquet, or a JSON file that
holds one row, a list of rows, or the messages of one conversation.

    {"messages": [...], "tools": [...], "id": "optional", "scenario": "optional", "reward": 1.0}

Messages hold `role`, `content` (text, or text parts), and, where they apply, `tool_calls`, `tool_call_id` and
`reasoning_content`. `arguments` may be a JSON string or an object; in this project they are objects. A
think block at the start of an assistant's content moves to `reasoning_content`; developer becomes system.
Also accepted: "conversations" for "messages", with `from` and `value` (human, gpt) for `role` and `content`;
messages or tools as JSON text; "weight": 0 on an assistant message, which makes it context.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pivotrl_jax.chat.json_text import loads
from pivotrl_jax.chat.messages import read_messages
from pivotrl_jax.chat.tools import read_tools
from pivotrl_jax.records import InputError, Message, Trajectory
from pivotrl_jax.trajectories.readers import building
from pivotrl_jax.trajectories.readers.files import Document

MESSAGE_FIELDS = ("messages", "conversations")


def recognise(sample: Any, path: Path) -> bool:
    """Whether a document looks like a row, rows, or the messages of one conversation."""
    if _is_conversation(sample):
        return True
    if isinstance(sample, list):
        sample = sample[0] if sample else None
    return isinstance(sample, dict) and any(isinstance(sample.get(k), (list, str)) for k in MESSAGE_FIELDS)


def episodes(document: Any, where: str) -> Iterator[Document]:
    """The rows of one document, each at "file:number", counted from 1."""
    numbered = where.rpartition(":")[2].isdigit()
    if isinstance(document, list) and document and not numbered and not _is_conversation(document):
        yield from ((f"{where}:{i}", row) for i, row in enumerate(document, 1))
    else:
        yield where if numbered else f"{where}:1", document


def _is_conversation(value: Any) -> bool:
    """Whether a value is a list of messages (judged by its first), not a list of rows."""
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, dict) and ("role" in first or "from" in first) and "messages" not in first


def trajectory(document: Any, where: str) -> Trajectory:
    """One row, or the messages of one conversation. Raises InputError."""
    row = {"messages": document} if _is_conversation(document) else document
    if not isinstance(row, dict):
        raise InputError(f"a JSON {type(row).__name__}, want an object; fix or remove the line")
    id = _name(row, "id", building.stem(where))
    raw = messages_of(row)
    messages = read_messages(raw)
    turns = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    if not turns:
        raise InputError("no assistant turn, so nothing is demonstrated; remove the row")
    tools = row.get("tools")
    tools = read_tools(_decoded(tools, "tools") if isinstance(tools, str) else tools)
    context = {i: building.CONTEXT for i in turns if raw[i].get("weight") == 0}
    return Trajectory(
        id=id,
        messages=messages,
        tools=tools,
        source="openai",
        scenario=_name(row, "scenario", building.opening(messages)),
        verifier=verifier_for(messages, tools),
        origin=where,
        reward=_reward(row),
        skip=building.plain_skips(messages, turns) | context,
    )


def messages_of(row: dict) -> Any:
    """The messages of a row, under either name, decoded if they are JSON text; None if there are none."""
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
        return loads(value)
    except ValueError as e:
        raise InputError(f'"{key}" is text but not valid JSON ({e}); fix it') from None


def _renamed(message: Any) -> Any:
    """A message in ShareGPT's form (`from`, `value`), turned into OpenAI's."""
    if not isinstance(message, dict) or "role" in message or "from" not in message:
        return message
    role = {"human": "user", "gpt": "assistant", "observation": "tool"}.get(str(message["from"]))
    return {"role": role or message["from"], "content": message.get("value")}


SEARCH_TOOLS = ("search", "open", "fetch", "browse", "visit", "find", "click", "crawl", "scroll", "google")


def verifier_for(messages: list[Message], tools: list[dict]) -> str:
    """ "search" if every tool looks things up on the web, else "tool_call"."""
    names = {t.get("function", t)["name"].lower() for t in tools}
    names |= {c["function"]["name"].lower() for m in messages for c in m.get("tool_calls", ())}
    words = [set(re.split(r"[^a-z]+", name)) for name in names]
    looks = all(any(w.startswith(t) for w in ws for t in SEARCH_TOOLS) for ws in words)
    searches = any("search" in name or "browse" in name or "visit" in name for name in names)
    return "search" if looks and searches else "tool_call"


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
