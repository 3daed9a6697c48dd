"""Chat messages <-> items of OpenAI's Responses API, in the form that NeMo Gym's rows hold them.

    assistant message  ->  reasoning, message, function_call, function_call, ... in this order
    tool result        ->  function_call_output
    the others         ->  message, with a plain text

Back, the items of one model call are one assistant message. Only a tool result or a second message ends a
model call: reasoning between two calls of one response does not (NeMo Gym's rollouts record it so).
"""

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

from pivotrl_jax.chat import messages as messages_lib
from pivotrl_jax.chat.messages import UNPARSEABLE
from pivotrl_jax.records import InputError, Message

SPOKEN = ("system", "developer", "user")


def argument_text(arguments: dict) -> str:
    """Arguments as JSON text; those that no reader could parse are the text they were."""
    if set(arguments) == {UNPARSEABLE} and isinstance(arguments[UNPARSEABLE], str):
        return arguments[UNPARSEABLE]
    return json.dumps(arguments, ensure_ascii=False)


def same(a: Any, b: Any) -> bool:
    """Whether two values are the same JSON. The order of keys counts: prompts are rendered in it."""
    return json.dumps(a) == json.dumps(b)


# ---- messages -> items


def output_items(message: Message, tag: str) -> list[dict]:
    """The items of one assistant message; their ids end in `tag`."""
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
    """The label of a whole model call: its calls where it makes any, else its text."""
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
class _Reading:
    """The messages so far, and the model call that is still open."""

    messages: list[Message] = dataclasses.field(default_factory=list)
    names: dict[str, str] = dataclasses.field(default_factory=dict)  # call id -> function name
    turn: Message | None = None
    spoken: bool = False  # whether the open turn has a message item
    thoughts: list[str] = dataclasses.field(default_factory=list)  # not yet given to a turn

    def begin(self) -> Message:
        self.turn, self.spoken = {"role": "assistant", "content": ""}, False
        self.messages.append(self.turn)
        return self.turn

    def think(self) -> None:
        """Give the waiting thoughts to the open turn, or to one of their own."""
        if self.thoughts:
            turn = self.turn or self.begin()
            before = [turn["reasoning_content"]] if "reasoning_content" in turn else []
            turn["reasoning_content"] = "\n\n".join(before + self.thoughts)
            self.thoughts = []

    def close(self) -> None:
        self.think()
        self.turn = None

    def say(self, text: str) -> None:
        if self.turn is None or self.spoken or self.turn.get("tool_calls"):
            self.begin()
        self.turn["content"], self.spoken = text, True
        self.think()

    def call(self, name: Any, arguments: Any, id: Any) -> None:
        if not isinstance(name, str):
            raise InputError('a function_call without a "name"; add it')
        turn = self.turn or self.begin()
        self.think()
        calls = turn.setdefault("tool_calls", [])
        id = id if isinstance(id, str) else f"call_{len(calls)}"
        self.names[id] = name
        calls.append(messages_lib.call(name, arguments, id))

    def result(self, output: Any, id: Any) -> None:
        self.close()
        message = {"role": "tool", "tool_call_id": id, "name": self.names.get(id)}
        message["content"] = messages_lib.text(output)
        self.messages.append({k: v for k, v in message.items() if v is not None})


def messages_of(items: Any) -> list[Message]:
    """The history that `input` holds: items, or a text, which is the user's. Raises InputError.

    Chat messages among the items (`tool_calls`, the role "tool") are read too.
    """
    if isinstance(items, str):
        return [{"role": "user", "content": items}]
    reading = _Reading()
    for i, item in enumerate(messages_lib.want(items, list, '"input"')):
        try:
            _read(reading, messages_lib.want(item, dict, "an item"))
        except InputError as e:
            raise InputError(f"input[{i}]: {e}") from None
    reading.close()
    return reading.messages


def _read(reading: _Reading, item: dict) -> None:
    kind, role = item.get("type") or "message", item.get("role")
    if kind == "reasoning":
        reading.thoughts += [text] if (text := _thought(item)) else []
    elif kind == "function_call":
        reading.call(item.get("name"), item.get("arguments"), item.get("call_id") or item.get("id"))
    elif kind == "function_call_output":
        reading.result(item.get("output"), item.get("call_id"))
    elif kind != "message":
        raise InputError(f"the type is {kind!r}; want message, reasoning, function_call or its output")
    elif role == "tool":
        reading.result(item.get("content"), item.get("tool_call_id"))
    elif role == "assistant":
        reading.thoughts += [text] if (text := messages_lib.text(item.get("reasoning_content"))) else []
        made = messages_lib.lenient_calls(item.get("tool_calls"))
        text = messages_lib.text(item.get("content"))
        if text or not made:
            reading.say(text)
        for call in made:
            reading.call(call["function"]["name"], call["function"]["arguments"], call["id"])
    elif role in SPOKEN:
        reading.close()
        reading.messages.append({"role": role, "content": messages_lib.text(item.get("content"))})
    else:
        raise InputError(f"the role is {role!r}; want one of {', '.join((*SPOKEN, 'assistant', 'tool'))}")


def _thought(item: dict) -> str:
    """The text of a reasoning item: its summary, else its content; what is encrypted stays unread."""
    return messages_lib.text(item.get("summary")) or messages_lib.text(item.get("content"))


# ---- tools


def flat_tool(tool: dict) -> dict:
    """A tool in the Responses form, with OpenAI's chat wrapper taken off."""
    doc = tool["function"] if isinstance(tool.get("function"), dict) else tool
    flat = {"type": "function", **{k: v for k, v in doc.items() if k != "type"}}
    flat.setdefault("parameters", {"type": "object", "properties": {}})
    flat.setdefault("strict", False)  # the request wants the field; nothing here was declared strict
    return flat


def chat_tool(tool: Any) -> Any:
    """A row's tool in the chat form. `strict` stays: NeMo Gym's own server shows it to the template too."""
    if not isinstance(tool, dict):
        return tool
    doc = tool["function"] if isinstance(tool.get("function"), dict) else tool
    return {"type": "function", "function": {k: v for k, v in doc.items() if k != "type" and v is not None}}


_FORMS = {
    "wrapped": lambda doc: {"type": "function", "function": doc},
    "bare": lambda doc: doc,
    "flat": lambda doc: {"type": "function", **doc},
}


def tool_shape(tools: list[dict]) -> dict | list[dict]:
    """What turns `flat_tool`'s results back into `tools`: their form in two words, else the tools."""
    for form in _FORMS:
        for added in ([], ["strict"], ["parameters", "strict"]):
            shape = {"form": form, "added": added}
            if same(shaped([flat_tool(t) for t in tools], shape), tools):
                return shape
    return tools


def shaped(flat: list[dict], shape: dict | list[dict]) -> list[dict]:
    """The tools that `tool_shape` saw. Raises InputError for what is no shape."""
    if isinstance(shape, list):
        return shape
    if not isinstance(shape, dict) or shape.get("form") not in _FORMS:
        raise InputError(f'"tools" under "pivotrl" is {shape!r}; want a list or a form')
    drop = {"type", *shape.get("added", [])}
    return [_FORMS[shape["form"]]({k: v for k, v in t.items() if k not in drop}) for t in flat]
