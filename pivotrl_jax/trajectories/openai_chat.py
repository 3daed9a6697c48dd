"""Trajectories from OpenAI chat messages, one per line of JSONL.

    {"messages": [...], "tools": [...], "id": "optional", "scenario": "optional"}

Messages hold `role`, `content` (text, or text parts), and where they apply `tool_calls`, `tool_call_id` and
`reasoning_content`. `arguments` may be a JSON string or an object; inside the project they are objects. A
think block at the start of an assistant's content moves to `reasoning_content`; developer becomes system.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from pivotrl_jax.chat import strict_json
from pivotrl_jax.records import InputError, Message, Trajectory

ROLES = ("system", "user", "assistant", "tool")


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
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    trajectories: dict[str, Trajectory] = {}
    sentences: list[str] = []
    with path.open("rb") as f:
        for number, raw in enumerate(f, 1):
            if not raw.strip():
                continue
            origin = f"{path}:{number}"
            try:
                trajectory = _trajectory(read_row(raw), f"{path.stem}:{number}", verifier, origin)
                if trajectory.id in trajectories:
                    first = trajectories[trajectory.id].origin
                    raise InputError(f"the id {trajectory.id!r} is taken by {first}; make ids unique")
            except InputError as e:
                sentences.append(f"{origin}: {e}")
                if on_bad_row == "stop":
                    raise InputError(sentences[-1]) from None
                continue
            trajectories[trajectory.id] = trajectory
    if not trajectories:
        why = f"; the first bad row: {sentences[0]}" if sentences else ""
        raise InputError(f"{path}: no usable row among {len(sentences)}; give at least one{why}")
    return list(trajectories.values()), Skipped(tuple(sentences))


def read_row(raw: bytes) -> dict:
    """The JSON object of one line. Raises InputError, without the line's number."""
    try:
        row = json.loads(raw.decode("utf-8"))
        json.dumps(row, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise InputError("a text holds half of a surrogate pair; repair the text") from None
    except (ValueError, RecursionError) as e:
        raise InputError(f"not valid JSON ({e}); fix or remove the line") from None
    if not isinstance(row, dict):
        raise InputError(f"a JSON {type(row).__name__}, want an object; fix or remove the line")
    return row


def _trajectory(row: dict, default_id: str, verifier: str, origin: str) -> Trajectory:
    id = _name(row, "id", default_id)
    messages = read_messages(row.get("messages"))
    if not any(m["role"] == "assistant" for m in messages):
        raise InputError("no assistant turn, so nothing is demonstrated; remove the row")
    tools = read_tools(row.get("tools"))
    return Trajectory(id, messages, tools, "openai", _name(row, "scenario", id), verifier, {}, origin)


def _name(row: dict, field: str, default: str) -> str:
    value = row.get(field)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise InputError(f'"{field}" is a {type(value).__name__}, want a string')
    return str(value)


def read_tools(tools: Any) -> list[dict]:
    """Function docs, checked. Raises InputError."""
    if tools is None:
        return []
    if not isinstance(tools, list):
        raise InputError(f'"tools" is a {type(tools).__name__}, want a list of function docs')
    for i, tool in enumerate(tools):
        doc = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(doc, dict) or not isinstance(doc.get("name"), str):
            raise InputError(f'tools[{i}] is no function doc; want an object with "name" and "parameters"')
        if not isinstance(doc.get("parameters", {}), dict):
            kind = type(doc["parameters"]).__name__
            raise InputError(f'tools[{i}]: "parameters" is a {kind}, want an object (a JSON schema)')
    return tools


def read_messages(messages: Any) -> list[Message]:
    """Chat messages, checked and in our form (arguments as objects). Raises InputError."""
    if not isinstance(messages, list):
        found = "missing" if messages is None else f"a {type(messages).__name__}"
        raise InputError(f'"messages" is {found}, want a list of chat messages')
    read_so_far: list[Message] = []
    waiting: dict[str, str] = {}  # id of a call that has no result yet -> function name
    for i, message in enumerate(messages):
        try:
            message = _message(message)
            if message["role"] == "tool":
                _match_result(message, waiting)
            elif message["role"] == "assistant":
                waiting = {c["id"]: c["function"]["name"] for c in message.get("tool_calls", [])}
                if len(waiting) != len(message.get("tool_calls", [])):
                    raise InputError("two tool calls share an id; make ids unique")
        except InputError as e:
            raise InputError(f"messages[{i}]: {e}") from None
        read_so_far.append(message)
    return read_so_far


def _message(message: Any) -> Message:
    if not isinstance(message, dict):
        raise InputError(f"a {type(message).__name__}, want an object")
    role = "system" if message.get("role") == "developer" else message.get("role")
    if role not in ROLES:
        raise InputError(f"unknown role {message.get('role')!r}; want one of {', '.join(ROLES)}")
    clean: Message = {"role": role, "content": _text(message.get("content"), role)}
    if role == "tool":
        for key in ("tool_call_id", "name"):
            if isinstance(message.get(key), str):
                clean[key] = message[key]
    if role != "assistant":
        if message.get("tool_calls"):
            raise InputError(f"the role {role} makes tool calls; only an assistant can")
        return clean
    calls = _tool_calls(message.get("tool_calls"))
    if calls:
        clean["tool_calls"] = calls
    reasoning = message.get("reasoning_content")
    if reasoning is not None and not isinstance(reasoning, str):
        raise InputError(f'"reasoning_content" is a {type(reasoning).__name__}, want a string')
    if not reasoning and clean["content"].lstrip().startswith("<think>"):
        thought, closed, spoken = clean["content"].partition("</think>")
        if closed:
            reasoning, clean["content"] = thought.lstrip().removeprefix("<think>"), spoken.strip("\n")
    if reasoning and reasoning.strip():
        clean["reasoning_content"] = reasoning.strip("\n")
    return clean


def _text(content: Any, role: str) -> str:
    if content is None and role in ("assistant", "tool"):
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = [part.get("text") if isinstance(part, dict) else None for part in content]
        if all(isinstance(text, str) for text in texts):
            return "".join(texts)
        raise InputError('"content" holds parts that are not text; only text is supported')
    found = "missing" if content is None else f"a {type(content).__name__}"
    raise InputError(f'"content" is {found}, want a string')


def _tool_calls(calls: Any) -> list[dict]:
    if calls is None:
        return []
    if not isinstance(calls, list):
        raise InputError(f'"tool_calls" is a {type(calls).__name__}, want a list')
    clean = []
    for i, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise InputError(f'tool_calls[{i}] has no "function" with a "name"; add it')
        id = call.get("id") if call.get("id") is not None else f"call_{i}"
        if not isinstance(id, str):
            raise InputError(f'tool_calls[{i}]: "id" is a {type(id).__name__}, want a string')
        try:
            arguments = _arguments(function.get("arguments"))
        except ValueError as e:
            raise InputError(f"tool_calls[{i}] ({function['name']}): {e}") from None
        clean.append(
            {"id": id, "type": "function", "function": {"name": function["name"], "arguments": arguments}}
        )
    return clean


def _arguments(arguments: Any) -> dict:
    if isinstance(arguments, str):
        try:
            value, end = strict_json(arguments)
        except ValueError as e:
            raise InputError(f'"arguments" are not valid JSON ({e}); fix them') from None
        if arguments[end:].strip():
            raise InputError('"arguments" go on after the JSON; fix them')
        arguments = value
    if not isinstance(arguments, dict):
        found = "missing" if arguments is None else f"a {type(arguments).__name__}"
        raise InputError(f'"arguments" are {found}, want an object')
    return arguments


def _match_result(message: Message, waiting: dict[str, str]) -> None:
    """Take the call that a result answers off `waiting`; a result without an id answers the oldest."""
    id = message.get("tool_call_id") or next(iter(waiting), None)
    if id not in waiting:
        named = f"for the call {id!r} " if id else ""
        raise InputError(f"a tool result {named}without a matching tool call before it; add the call")
    message["tool_call_id"] = id
    message["name"] = waiting.pop(id)
