"""Loosely typed chat messages of any source -> checked messages in the form of records.py."""

from typing import Any

from pivotrl_jax.chat.json_text import MAX_NESTING, nesting, strict_json
from pivotrl_jax.records import InputError, Message

ROLES = ("system", "user", "assistant", "tool")

# A call whose arguments are not a JSON object keeps their text under this key, and its turn is skipped.
UNPARSEABLE = "unparseable"

_TYPE_NAMES = {dict: "an object", list: "a list", str: "a string"}


def require(value: Any, kind: type, what: str) -> Any:
    """`value` if it is a `kind`. Raises InputError that calls it `what`."""
    if not isinstance(value, kind):
        raise InputError(f"{what} is {found(value)}, want {_TYPE_NAMES[kind]}")
    return value


def found(value: Any) -> str:
    """What a value is, for an error sentence: "missing", or its type."""
    return "missing" if value is None else f"a {type(value).__name__}"


# ---- lenient: what a reader builds messages from


def tool_call(name: str, arguments: Any, id: Any = None) -> dict:
    """A tool call in the form of records.py; see `parse_arguments`."""
    return {"id": id, "type": "function", "function": {"name": name, "arguments": parse_arguments(arguments)}}


def parse_arguments(arguments: Any) -> dict:
    """Arguments, which may be JSON text, as an object; {UNPARSEABLE: their text} for anything else.

    An empty text is {}: some APIs send it for functions without parameters.
    """
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


def lenient_tool_calls(calls: Any) -> list[dict]:
    """OpenAI tool calls; unreadable arguments are kept (see `parse_arguments`).

    Raises InputError for anything that is not a list of calls.
    """
    return [
        tool_call(function["name"], function.get("arguments"), call.get("id"))
        for call, function in _functions(calls)
    ]


def content_text(content: Any) -> str:
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


# ---- strict: what every trajectory goes through


def read_messages(messages: Any) -> list[Message]:
    """Chat messages, checked and in the form of records.py: arguments parsed, thinking in
    `reasoning_content`, every tool result with the id and name of the call it answers. Raises InputError.
    """
    if not isinstance(messages, list):
        raise InputError(f'"messages" is {found(messages)}, want a list of chat messages')
    checked: list[Message] = []
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
        checked.append(message)
    return checked


def _message(message: Any) -> Message:
    if not isinstance(message, dict):
        raise InputError(f"a {type(message).__name__}, want an object")
    role = "system" if message.get("role") == "developer" else message.get("role")
    if role not in ROLES:
        raise InputError(f"unknown role {message.get('role')!r}; want one of {', '.join(ROLES)}")
    clean: Message = {"role": role, "content": _content(message.get("content"), role)}
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
        thought, closed, reply = clean["content"].partition("</think>")
        if closed:
            reasoning, clean["content"] = thought.lstrip().removeprefix("<think>"), reply.strip("\n")
    if reasoning and reasoning.strip():
        clean["reasoning_content"] = reasoning.strip("\n")
    return clean


def _content(content: Any, role: str) -> str:
    if content is None and role in ("assistant", "tool"):
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = [part.get("text") if isinstance(part, dict) else None for part in content]
        if all(isinstance(text, str) for text in texts):
            return "".join(texts)
        raise InputError('"content" holds parts that are not text; only text is supported')
    raise InputError(f'"content" is {found(content)}, want a string')


def _tool_calls(calls: Any) -> list[dict]:
    clean = []
    for i, (call, function) in enumerate(_functions(calls)):
        id = call.get("id") if call.get("id") is not None else f"call_{i}"
        if not isinstance(id, str):
            raise InputError(f'tool_calls[{i}]: "id" is a {type(id).__name__}, want a string')
        try:
            arguments = _arguments(function.get("arguments"))
        except InputError as e:
            raise InputError(f"tool_calls[{i}] ({function['name']}): {e}") from None
        clean.append(
            {"id": id, "type": "function", "function": {"name": function["name"], "arguments": arguments}}
        )
    return clean


def _functions(calls: Any) -> list[tuple[dict, dict]]:
    """(call, its "function") for every one of OpenAI's tool calls. Raises InputError."""
    if calls is None:
        return []
    if not isinstance(calls, list):
        raise InputError(f'"tool_calls" is a {type(calls).__name__}, want a list')
    functions = []
    for i, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise InputError(f'tool_calls[{i}] has no "function" with a "name"; add it')
        functions.append((call, function))
    return functions


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
        raise InputError(f'"arguments" are {found(arguments)}, want an object')
    return arguments


def _match_result(message: Message, waiting: dict[str, str]) -> None:
    """Remove the call that a result answers from `waiting`; without an id, that is the oldest."""
    id = message.get("tool_call_id") or next(iter(waiting), None)
    if id not in waiting:
        named = f"for the call {id!r} " if id else ""
        raise InputError(f"a tool result {named}without a matching tool call before it; add the call")
    message["tool_call_id"] = id
    message["name"] = waiting.pop(id)
