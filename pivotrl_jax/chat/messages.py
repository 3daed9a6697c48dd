"""Loosely typed chat messages of any source -> checked messages in the form of records.py."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

from pivotrl_jax.chat.json_text import MAX_NESTING, loads, nesting, strict_json
from pivotrl_jax.chat.reasoning import PART_TYPES, reasoning_of, split_thinking
from pivotrl_jax.records import InputError, Message

ROLES = ("system", "user", "assistant", "tool")

# A call whose arguments are not a JSON object keeps their text under this key, and its turn is skipped.
UNPARSEABLE = "unparseable"

# Slugs of what cannot be read: see `Fault`.
BAD_CALL, BAD_MESSAGE, BAD_RESULT = "unparseable_call", "unreadable_message", "result_without_call"
NOT_TEXT = "not_text"  # an image, a sound or a file

_TYPE_NAMES = {dict: "an object", list: "a list", str: "a string"}


def require(value: Any, kind: type, what: str) -> Any:
    """`value` if it is a `kind`. Raises InputError that calls it `what`."""
    if not isinstance(value, kind):
        raise InputError(f"{what} is {found(value)}, want {_TYPE_NAMES[kind]}")
    return value


def found(value: Any) -> str:
    """What a value is, for an error sentence: "missing", or its type."""
    return "missing" if value is None else f"a {type(value).__name__}"


# ---- calls


def tool_call(name: str, arguments: Any, id: Any = None) -> dict:
    """A tool call in the form of records.py; see `parse_arguments`."""
    return {"id": id, "type": "function", "function": {"name": name, "arguments": parse_arguments(arguments)}}


def parse_arguments(arguments: Any) -> dict:
    """Arguments, which may be JSON text, as an object; {UNPARSEABLE: their text} for anything else.

    Nothing, null and an empty text are {}: some APIs send them for functions without parameters.
    """
    try:
        return read_arguments(arguments)
    except InputError:
        return {UNPARSEABLE: arguments if isinstance(arguments, str) else repr(arguments)[:2000]}


def read_arguments(arguments: Any) -> dict:
    """`parse_arguments` that raises InputError for what is no object."""
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        return {}
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
    if nesting(arguments) > MAX_NESTING:
        raise InputError(f'"arguments" are nested deeper than {MAX_NESTING} levels')
    return arguments


def lenient_tool_calls(calls: Any) -> list[dict]:
    """OpenAI tool calls; what cannot be read of one is kept as `parse_arguments` keeps it.

    Raises InputError for anything that is not a list.
    """
    if calls is None:
        return []
    if not isinstance(calls, list):
        raise InputError(f'"tool_calls" is a {type(calls).__name__}, want a list')
    return [_lenient_call(call) for call in calls]


def _lenient_call(call: Any) -> dict:
    named = named_call(call)
    if named is None:
        return tool_call("unreadable", repr(call)[:2000])
    return tool_call(*named, call.get("id"))


def named_call(call: Any) -> tuple[str, Any] | None:
    """(name, arguments as they are) of a call in one of the public forms; None if it has no name.

    {"function": {"name", "arguments"}}, {"name", "arguments"}, {"name", "args"}, {"name", "input"},
    {"function": name, "arguments"}, and OpenAI's custom tools, whose one argument is the text "input".
    """
    if not isinstance(call, dict):
        return None
    if isinstance(call.get("function"), str) and call["function"].lstrip().startswith("{"):
        try:
            return named_call(loads(call["function"]))
        except ValueError:
            return None
    function = call.get("function") if isinstance(call.get("function"), dict) else call
    name = function.get("name")
    if isinstance(call.get("custom"), dict):
        name, function = call["custom"].get("name"), {"arguments": {"input": call["custom"].get("input")}}
    elif function is call and not isinstance(name, str):
        name = call.get("function")
    if not isinstance(name, str) or not name:
        return None
    keys = ("arguments", "args", "parameters", "input", "kwargs")
    value = next((function[key] for key in keys if function.get(key) is not None), None)
    if value is None:  # what stands under another key is not nothing
        rest = {
            k: v for k, v in function.items() if k not in (*keys, *_CALL_KEYS) and v not in (None, "", {}, [])
        }
        value = repr(rest)[:2000] if rest else None
    return name, value


_CALL_KEYS = ("name", "id", "type", "index", "function", "description", "call_id", "custom", "tool_call_type")


# ---- texts


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


@dataclasses.dataclass(frozen=True)
class Fault:
    """What could not be read of a message. Unless only that assistant turn is concerned (`onward` False), the
    state of every later turn is not what the agent saw."""

    index: int
    slug: str
    sentence: str
    onward: bool = True


class _Odd(Exception):
    """A fault of the message that is being read, and the text that is left of it."""

    def __init__(self, slug: str, sentence: str, text: str = ""):
        super().__init__(sentence)
        self.slug, self.text = slug, text


def _content(content: Any, role: str) -> str:
    if content is None and role in ("assistant", "tool"):
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, dict) and isinstance(content.get("text"), str):
        return content["text"]
    if isinstance(content, list) and role == "tool" and content and _is_data(content):
        return json.dumps(content, ensure_ascii=False)
    if isinstance(content, list):
        kinds = [part.get("type") if isinstance(part, dict) else None for part in content]
        texts = [_part(part) for part, kind in zip(content, kinds) if kind not in PART_TYPES]
        text = "".join(t for t in texts if t is not None)
        if None in texts:
            odd = [k for k, part in zip(kinds, content) if k not in PART_TYPES and _part(part) is None]
            sentence = f'"content" holds parts that are not text ({odd[0]}); only text is supported'
            raise _Odd(NOT_TEXT, sentence, text)
        return text
    if role == "tool" and isinstance(content, (dict, bool, int, float)):
        return json.dumps(content, ensure_ascii=False)
    raise _Odd(BAD_MESSAGE, f'"content" is {found(content)}, want a string')


def _is_data(parts: list) -> bool:
    """Whether a list holds a tool's data, and no parts of a content."""
    return all(
        isinstance(p, (dict, int, float)) and not (isinstance(p, dict) and ("type" in p or "text" in p))
        for p in parts
    )


def _part(part: Any) -> str | None:
    """The text of a part of a content; None if it is something else."""
    if isinstance(part, str):
        return part
    keys = ("text", "refusal", "output_text", "input_text")
    values = [part[key] for key in keys if isinstance(part.get(key), str)] if isinstance(part, dict) else []
    return values[0] if values else None


# ---- conversations


Split = Callable[[str], tuple[str, str]]  # content of an assistant -> (thinking, the rest)


def read_messages(messages: Any, split: Split = split_thinking) -> list[Message]:
    """Chat messages, checked and in the form of records.py: arguments parsed, thinking in
    `reasoning_content`, every tool result with the id and name of the call it answers.

    `split` finds the thinking in a content. Raises InputError for the first thing that cannot be read.
    """
    checked, faults = read_conversation(messages, split)
    if faults:
        raise InputError(f"messages[{faults[0].index}]: {faults[0].sentence}")
    return checked


def read_conversation(messages: Any, split: Split = split_thinking) -> tuple[list[Message], list[Fault]]:
    """(the messages as `read_messages` returns them, what of them could not be read).

    Number and order of the messages stay: of an odd message, what can be read of it. Raises InputError only
    for something that is no list.
    """
    if not isinstance(messages, list):
        raise InputError(f'"messages" is {found(messages)}, want a list of chat messages')
    conversation = _Conversation(split)
    for i, message in enumerate(messages):
        conversation.add(i, message)
    return conversation.messages, conversation.faults


@dataclasses.dataclass
class _Conversation:
    split: Split
    messages: list[Message] = dataclasses.field(default_factory=list)
    faults: list[Fault] = dataclasses.field(default_factory=list)
    # (id in the source, id, function name) of the calls that have no result yet
    waiting: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)
    answers: set[int] = dataclasses.field(default_factory=set)  # results of calls that were not read

    def add(self, i: int, message: Any) -> None:
        if not isinstance(message, dict):
            sentence = f"a {type(message).__name__}, want an object"
            self._fault(i, BAD_MESSAGE, sentence, {"role": "user", "content": ""})
            return
        role = "system" if message.get("role") == "developer" else message.get("role")
        if role not in ROLES:
            sentence = f"unknown role {message.get('role')!r}; want one of {', '.join(ROLES)}"
            self._fault(i, BAD_MESSAGE, sentence, {"role": "user", "content": ""})
            return
        clean: Message = {"role": role}
        try:
            clean["content"] = _content(message.get("content"), role)
        except _Odd as e:
            clean["content"] = e.text
            self.faults.append(Fault(i, e.slug, str(e)))
        self.messages.append(clean)
        if role == "assistant":
            self._assistant(i, message, clean)
        elif role == "tool":
            self._result(i, message, clean)
        elif message.get("tool_calls"):
            sentence = f"the role {role} makes tool calls; only an assistant can"
            self.faults.append(Fault(i, BAD_MESSAGE, sentence))

    def _fault(self, i: int, slug: str, sentence: str, stand_in: Message) -> None:
        self.messages.append(stand_in)
        self.faults.append(Fault(i, slug, sentence))

    def _assistant(self, i: int, message: Message, clean: Message) -> None:
        calls = self._calls(i, message.get("tool_calls"))
        if calls:
            clean["tool_calls"] = calls
        given, (thought, rest) = reasoning_of(message), self.split(clean["content"])
        if thought or rest != clean["content"]:
            clean["content"] = rest
        both = [given] if given == thought else [given, thought]
        if reasoning := "\n".join(t.strip("\n") for t in both if t.strip()):
            clean["reasoning_content"] = reasoning
        if self.messages[-2:-1] and self.messages[-2]["role"] != "assistant":
            self.waiting = []  # calls without a result that are not part of the same response
        self.waiting += [(c.pop("source_id"), c["id"], c["function"]["name"]) for c in calls]

    def _calls(self, i: int, calls: Any) -> list[dict]:
        if calls is None:
            return []
        if not isinstance(calls, list):
            sentence = f'"tool_calls" is a {type(calls).__name__}, want a list'
            self.faults.append(Fault(i, BAD_CALL, sentence, onward=False))
            return [{**tool_call("unreadable", {UNPARSEABLE: repr(calls)[:2000]}, "call_0"), "source_id": ""}]
        clean, ids = [], {id for _, id, _ in self.waiting}
        for n, call in enumerate(calls):
            named = named_call(call)
            if named is None:
                sentence = f'tool_calls[{n}] has no "function" with a "name"; add it'
                self.faults.append(Fault(i, BAD_CALL, sentence, onward=False))
                named = "unreadable", repr(call)[:2000]
            else:
                try:
                    read_arguments(named[1])
                except InputError as e:
                    sentence = f"tool_calls[{n}] ({named[0]}): {e}"
                    self.faults.append(Fault(i, BAD_CALL, sentence, onward=False))
            given = _id(call)
            id = given if given and given not in ids else f"{given or 'call'}_{n}"
            while id in ids:
                id += "_"
            ids.add(id)
            clean.append({**tool_call(*named, id), "source_id": given})
        return clean

    def _talk_before(self, i: int) -> int | None:
        """Index of a turn without calls, if nothing but results came since: it called in a form that was not
        read. The result becomes a user's message."""
        self.messages[i] = {"role": "user", "content": self.messages[i]["content"]}
        at = i - 1
        while at in self.answers:
            at -= 1
        before = self.messages[at] if at >= 0 else {"role": ""}
        if before["role"] != "assistant" or before.get("tool_calls"):
            return None
        self.answers.add(i)
        return at

    def _result(self, i: int, message: Message, clean: Message) -> None:
        """Match a result with the call it answers: without an id, the oldest of its name, or of all."""
        given, name = _id({"id": message.get("tool_call_id")}), message.get("name")
        open_calls = [w for w in self.waiting if w[0] == given or not given]
        match = next((w for w in open_calls if w[2] == name), open_calls[0] if open_calls else None)
        if match is None:
            talk = self._talk_before(i)
            if talk is not None:
                sentence = "it calls nothing, but a tool result answers it"
                self.faults.append(Fault(talk, BAD_CALL, sentence, onward=False))
                return
            named = f"for the call {given!r} " if given else ""
            sentence = f"a tool result {named}without a matching tool call before it; add the call"
            self.faults.append(Fault(i, BAD_RESULT, sentence))
            return
        self.waiting.remove(match)
        clean["tool_call_id"], clean["name"] = match[1], match[2]


def _id(call: Any) -> str:
    """The id of a call as text; "" if it has none."""
    id = call.get("id") if isinstance(call, dict) else None
    return str(id) if isinstance(id, (str, int)) and not isinstance(id, bool) else ""
