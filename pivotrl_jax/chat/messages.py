"""Loosely typed chat messages of any source -> checked messages in the form of records.py."""

from typing import Any

from pivotrl_jax.chat.json_text import MAX_NESTING, nesting, strict_json
from pivotrl_jax.records import InputError, Message


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


ROLES = ("system", "user", "assistant", "tool")


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


# A call whose arguments are no JSON object keeps its text under this key, and its turn is skipped.
UNPARSEABLE = "unparseable"
