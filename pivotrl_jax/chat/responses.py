"""Chat messages <-> items of OpenAI's Responses API, as NeMo Gym's rows hold them.

    assistant message  ->  reasoning, message, function_call, function_call, ... in this order
    tool result        ->  function_call_output
    any other message  ->  message, with plain text

In the other direction, the items of one model call become one assistant message. A model call ends at a tool
result or at a second message; reasoning between two calls does not end it, since NeMo Gym's rollouts record
it there. `action_of_items` reads a model's output items as `parse_action` reads a completion.
"""

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

from pivotrl_jax.chat.json_text import strict_json
from pivotrl_jax.chat.messages import UNPARSEABLE, content_text, lenient_tool_calls, require, tool_call
from pivotrl_jax.records import Action, Call, InputError, Message

SPOKEN = ("system", "developer", "user")


def argument_text(arguments: dict) -> str:
    """Arguments as JSON text; arguments that could not be parsed are returned as their original text."""
    if set(arguments) == {UNPARSEABLE} and isinstance(arguments[UNPARSEABLE], str):
        return arguments[UNPARSEABLE]
    return json.dumps(arguments, ensure_ascii=False)


# ---- messages -> items


def output_items(message: Message, tag: str) -> list[dict]:
    """The items of one assistant message. Their ids end in `tag`."""
    items: list[dict] = []
    calls = message.get("tool_calls") or []
    if message.get("reasoning_content"):
        summary = [{"type": "summary_text", "text": message["reasoning_content"]}]
        # a reasoning item that is replayed as input needs an id
        items.append({"type": "reasoning", "id": f"rs_{tag}", "summary": summary, "status": "completed"})
    if message.get("content") or not calls:
        part = {"type": "output_text", "text": message.get("content") or "", "annotations": []}
        item = {"type": "message", "id": f"msg_{tag}", "role": "assistant", "content": [part]}
        items.append({**item, "status": "completed"})
    for call in calls:
        item = {"type": "function_call", "name": call["function"]["name"]}
        item["arguments"] = argument_text(call["function"]["arguments"])
        items.append({**item, "call_id": call["id"], "id": call["id"], "status": "completed"})
    return items


def items_of(messages: Iterable[Message]) -> list[dict]:
    """The `input` of a row: the items of a history."""
    items: list[dict] = []
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            items += output_items(message, str(i))
        elif message["role"] == "tool":
            call_id = message.get("tool_call_id") or ""
            items.append({"type": "function_call_output", "call_id": call_id, "output": message["content"]})
        else:
            items.append({"type": "message", "role": message["role"], "content": message["content"]})
    return items


def expected_action(message: Message) -> dict:
    """The `expected_action` of an assistant message: its calls if it makes any, else its text."""
    calls = [
        {
            "type": "function_call",
            "name": call["function"]["name"],
            "arguments": argument_text(call["function"]["arguments"]),
        }
        for call in message.get("tool_calls") or []
    ]
    if len(calls) > 1:
        return {"type": "function_call_batch", "calls": calls}
    return calls[0] if calls else {"type": "message", "content": message.get("content") or ""}


# ---- items -> messages


@dataclasses.dataclass
class _History:
    """The messages read so far, and the model call that is still open."""

    messages: list[Message] = dataclasses.field(default_factory=list)
    names: dict[str, str] = dataclasses.field(default_factory=dict)  # call id -> function name
    turn: Message | None = None  # the assistant message of the open model call
    has_message: bool = False  # whether the open turn has a message item
    thoughts: list[str] = dataclasses.field(default_factory=list)  # not yet part of a turn

    def begin(self) -> Message:
        self.turn, self.has_message = {"role": "assistant", "content": ""}, False
        self.messages.append(self.turn)
        return self.turn

    def think(self) -> None:
        """Put the waiting thoughts into the open turn, or into a new one."""
        if self.thoughts:
            turn = self.turn or self.begin()
            before = [turn["reasoning_content"]] if "reasoning_content" in turn else []
            turn["reasoning_content"] = "\n\n".join(before + self.thoughts)
            self.thoughts = []

    def close(self) -> None:
        self.think()
        self.turn = None

    def say(self, text: str) -> None:
        if self.turn is None or self.has_message or self.turn.get("tool_calls"):
            self.begin()
        self.turn["content"], self.has_message = text, True
        self.think()

    def call(self, name: Any, arguments: Any, id: Any) -> None:
        if not isinstance(name, str):
            raise InputError('a function_call without a "name"; add it')
        turn = self.turn or self.begin()
        self.think()
        calls = turn.setdefault("tool_calls", [])
        id = id if isinstance(id, str) else f"call_{len(calls)}"
        self.names[id] = name
        calls.append(tool_call(name, arguments, id))

    def result(self, output: Any, id: Any) -> None:
        self.close()
        id = id if isinstance(id, str) else None  # then it answers the oldest call
        message = {"role": "tool", "tool_call_id": id, "name": self.names.get(id)}
        message["content"] = content_text(output)
        self.messages.append({k: v for k, v in message.items() if v is not None})


def messages_of(items: Any) -> list[Message]:
    """The messages of a request's `input`: a list of items, or a text, which is a user message.

    Chat messages among the items (with `tool_calls`, or of the role "tool") are read too. Raises InputError.
    """
    if isinstance(items, str):
        return [{"role": "user", "content": items}]
    history = _History()
    for i, item in enumerate(require(items, list, '"input"')):
        try:
            _read(history, require(item, dict, "an item"))
        except InputError as e:
            raise InputError(f"input[{i}]: {e}") from None
    history.close()
    return history.messages


def _read(history: _History, item: dict) -> None:
    kind, role = item.get("type") or "message", item.get("role")
    if kind == "reasoning":
        history.thoughts += [text] if (text := _thought(item)) else []
    elif kind == "function_call":
        history.call(item.get("name"), item.get("arguments"), item.get("call_id") or item.get("id"))
    elif kind == "function_call_output":
        history.result(item.get("output"), item.get("call_id"))
    elif kind != "message":
        raise InputError(f"the type is {kind!r}; want message, reasoning, function_call or its output")
    elif role == "tool":
        history.result(item.get("content"), item.get("tool_call_id"))
    elif role == "assistant":
        history.thoughts += [text] if (text := content_text(item.get("reasoning_content"))) else []
        calls = lenient_tool_calls(item.get("tool_calls"))
        text = content_text(item.get("content"))
        if text or not calls:
            history.say(text)
        for call in calls:
            history.call(call["function"]["name"], call["function"]["arguments"], call["id"])
    elif role in SPOKEN:
        history.close()
        history.messages.append({"role": role, "content": content_text(item.get("content"))})
    else:
        raise InputError(f"the role is {role!r}; want one of {', '.join((*SPOKEN, 'assistant', 'tool'))}")


def _thought(item: dict) -> str:
    """The text of a reasoning item: its summary, or else its content. Encrypted reasoning is not read."""
    return content_text(item.get("summary")) or content_text(item.get("content"))


# ---- output items -> action


def action_of_items(items: list) -> Action:
    """The action of a model's output items. Never raises: a mistake of the model makes it malformed."""
    calls, texts, malformed = [], [], ""
    for item in items:
        if not isinstance(item, dict):
            malformed = malformed or f"an output item is a {type(item).__name__}, want an object"
        elif item.get("type") == "function_call":
            try:
                calls.append(Call(item.get("name"), _strict_arguments(item.get("arguments"))))
            except ValueError as e:
                malformed = malformed or f"arguments are not valid JSON ({str(e)[:120]})"
        elif item.get("type") == "message":
            texts.append(output_text(item))
    content = "\n".join(texts)
    if "<tool_call>" in content:
        malformed = malformed or "a tool call that could not be parsed was left in the text"
    return Action(content.strip(), "", tuple(calls), malformed, content)


def _strict_arguments(arguments: Any) -> Any:
    """Arguments, decoded if they are a string. Raises ValueError."""
    if not isinstance(arguments, str):
        return arguments
    value, end = strict_json(arguments)
    if arguments[end:].strip():
        raise ValueError("text after the JSON")
    return value


def output_text(message: dict) -> str:
    """All text of a message item; "" where there is none."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(p["text"] for p in content if isinstance(p, dict) and isinstance(p.get("text"), str))
    return content if isinstance(content, str) else ""


def output_texts(message: dict) -> list:
    """The texts of a message item, unchecked: its content, or the texts of its `output_text` parts."""
    content = message.get("content")
    if not isinstance(content, list):
        return [content]
    return [p.get("text") for p in content if isinstance(p, dict) and p.get("type") == "output_text"]
