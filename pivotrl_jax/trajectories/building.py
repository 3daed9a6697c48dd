"""What all readers share: from loosely typed messages to a checked Trajectory."""

import json
from collections.abc import Mapping
from typing import Any

from pivotrl_jax.chat import MAX_NESTING, nesting, strict_json
from pivotrl_jax.records import InputError, Message, Trajectory
from pivotrl_jax.trajectories import openai_chat
from pivotrl_jax.trajectories.skips import UNPARSEABLE, plain_skips

BASH_TOOL = {
    "type": "function",
    "function": {
        "name": "bash",
        "description": "Run a command in the shell of the environment.",
        "parameters": {
            "type": "object",
            "properties": {"command": {"type": "string", "description": "The command to run."}},
            "required": ["command"],
        },
    },
}


def call(name: str, arguments: Any, id: Any = None) -> dict:
    """A tool call in our form. Arguments may be JSON text; what is no object is kept as UNPARSEABLE."""
    return {"id": id, "type": "function", "function": {"name": name, "arguments": parsed(arguments)}}


def parsed(arguments: Any) -> dict:
    """Arguments as an object. An empty text is {}: some APIs send it for functions without parameters."""
    value = arguments
    if isinstance(arguments, str):
        if not arguments.strip():
            return {}
        try:
            value, end = strict_json(arguments)
            if arguments[end:].strip():
                value = None
        except ValueError:
            value = None
    if not isinstance(value, dict) or nesting(value) > MAX_NESTING:
        return {UNPARSEABLE: arguments if isinstance(arguments, str) else repr(arguments)[:2000]}
    return value


def lenient_calls(calls: Any) -> list[dict]:
    """OpenAI tool calls with unreadable arguments kept (see `call`). Raises InputError when they are none."""
    if calls is None:
        return []
    if not isinstance(calls, list):
        raise InputError(f'"tool_calls" is a {type(calls).__name__}, want a list')
    out = []
    for i, one in enumerate(calls):
        function = one.get("function") if isinstance(one, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise InputError(f'tool_calls[{i}] has no "function" with a "name"; add it')
        out.append(call(function["name"], function.get("arguments"), one.get("id")))
    return out


def text(content: Any) -> str:
    """The text of a content field: a string, text parts, or nothing. Raises InputError for anything else."""
    if content is None:
        return ""
    if isinstance(content, list):
        parts = [p.get("text") if isinstance(p, dict) else p for p in content]
        if all(isinstance(p, str) for p in parts):
            return "".join(parts)
        raise InputError("a content holds parts that are not text; only text is supported")
    if not isinstance(content, str):
        raise InputError(f"a content is a {type(content).__name__}, want text")
    return content


def want(value: Any, kind: type, what: str) -> Any:
    """`value` if it is a `kind`. Raises InputError."""
    if not isinstance(value, kind):
        found = "missing" if value is None else f"a {type(value).__name__}"
        raise InputError(f"{what} is {found}, want {_KINDS[kind]}")
    return value


_KINDS = {dict: "an object", list: "a list", str: "a string"}


def number(value: Any) -> float | None:
    """A reward as recorded: a number, or a yes or no; None for anything else."""
    return float(value) if isinstance(value, (bool, int, float)) and abs(value) < 1e9 else None


def trajectory(
    raw: list[Message],
    *,
    id: str,
    origin: str,
    source: str,
    scenario: str,
    verifier: str,
    tools: Any = None,
    reward: float | None = None,
    skip: Mapping[int, str] | None = None,
    case: dict | None = None,
) -> Trajectory:
    """Check `raw` messages and build the Trajectory. Raises InputError.

    A result message may carry "error": True, which stays: the source itself says that the call failed. `skip`
    counts in `raw`; turns that answer nothing, say nothing, or hold an unreadable call are added to it.
    `case` goes to every assistant turn.
    """
    if any(isinstance(m, dict) and m.get("role") == "tool" for m in raw[:1]):
        raise InputError("the first message is a tool result; the call before it is missing")
    messages = openai_chat.read_messages(raw)
    for message, loose in zip(messages, raw):
        if message["role"] == "tool" and loose.get("error") is True:
            message["error"] = True
    turns = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    if not turns:
        raise InputError("no assistant turn, so nothing is demonstrated")
    try:
        json.dumps(messages, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (ValueError, RecursionError) as e:  # UnicodeEncodeError is a ValueError
        raise InputError(f"the messages cannot be written as JSON ({type(e).__name__})") from None
    return Trajectory(
        id,
        messages,
        openai_chat.read_tools(tools),
        source,
        scenario,
        verifier,
        {i: case for i in turns} if case else {},
        origin,
        reward,
        plain_skips(messages, turns) | dict(skip or {}),
    )
