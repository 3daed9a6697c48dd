"""The answer that stands beside a row's messages: in a log of requests, or where the last turn was cut out.

| form | example |
|---|---|
| logs | {"messages", "response": {"choices": [{"message"}]}}; "response": a text, message or messages |
| cut rows | {"messages" that end with a user or a tool, "completion" or "output": the same forms} |
"""

from typing import Any

from pivotrl_jax.chat.json_text import loads
from pivotrl_jax.records import Message
from pivotrl_jax.trajectories.readers import response_items
from pivotrl_jax.trajectories.readers.row_forms import MESSAGE_FIELDS, as_messages

LOGS = ("response", "choices")
CUT = ("completion", "output")
NOT_READ = ("answer", "ground_truth", "target")  # may be right, but nobody said it in this conversation
FIELDS = (*LOGS, *CUT, *NOT_READ)


def answer(row: dict, messages: list) -> tuple[str, list[Message]]:
    """(the field, its messages) of the answer to a row's messages; ("", []) if there is none."""
    last = messages[-1] if messages and isinstance(messages[-1], dict) else {}
    for key in (*LOGS, *(CUT if last.get("role") in ("user", "tool") else ())):
        value = {"choices": row[key]} if key == "choices" and row.get(key) else row.get(key)
        if found := _messages(value):
            return key, found
    return "", []


def unread(row: dict, messages: list) -> list[str]:
    """The fields that hold an answer which was not read, of a row that has messages."""
    if not any(row.get(key) for key in MESSAGE_FIELDS):
        return []
    read = answer(row, messages)[0]
    return [key for key in FIELDS if key != read and row.get(key)]


def _messages(value: Any) -> list[Message]:
    """The messages of an answer in any of its forms; [] if it has none of them."""
    if isinstance(value, str):
        if value.lstrip().startswith("{"):
            try:
                if found := _messages(loads(value)):
                    return found
            except ValueError:
                pass  # it is the answer itself
        return as_messages(value, "assistant") or [] if value.strip() else []
    if isinstance(value, list):
        return as_messages(value, "assistant") or _items(value)
    if not isinstance(value, dict):
        return []
    choices = value.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    for message in (choice.get("message"), choice.get("delta"), value.get("message"), value):
        if isinstance(message, dict) and any(k in message for k in ("role", "content", "tool_calls")):
            return [{"role": "assistant", **message}]
    for text in (choice.get("text"), value.get("text")):
        if isinstance(text, str) and text.strip():
            return [{"role": "assistant", "content": text}]
    return _items(value.get("output"))


def _items(output: Any) -> list[Message]:
    """The messages of a Responses output."""
    found = response_items.messages({"input": "", "output": output}) if isinstance(output, list) else None
    return found[0][1:] if found else []
