"""The answer that stands beside a row's messages: in a log of requests, or where the last turn was cut out.

| form | example |
|---|---|
| logs | {"messages", "response": {"choices": [{"message"}]}}; "response": a text, message or messages |
| cut rows | {"messages" that end with a user or a tool, "completion" or "output": the same forms} |
| | or "answer": an assistant's message (AReaL) |

Where the messages end with an assistant's, an answer beside them is the same once more, or is not read.
"""

from typing import Any

from pivotrl_jax.chat.json_text import loads
from pivotrl_jax.chat.messages import content_text, lenient_tool_calls, require
from pivotrl_jax.records import InputError, Message
from pivotrl_jax.trajectories.readers import message_forms, response_items
from pivotrl_jax.trajectories.readers.row_forms import MESSAGE_FIELDS, as_messages, object_of

LOGS = ("response", "choices")
CUT = ("completion", "output")
NOT_READ = ("answer", "ground_truth", "target")  # may be right, but nobody said it in this conversation
FIELDS = (*LOGS, *CUT, *NOT_READ)


def answer(row: dict, messages: list) -> tuple[str, list[Message]]:
    """(the field, its messages) of the answer to a row's messages; ("", []) if there is none, and no messages
    where the row's own hold it already."""
    last = _role(messages[-1]) if messages else ""
    for key in (*LOGS, *(_cut_out(row) if last in ("user", "tool") else ())):
        found = _answer(row, key)
        if found and last != "assistant":
            return key, found
        if found and _repeats(found, messages):
            return key, []
    return "", []


def _cut_out(row: dict) -> tuple[str, ...]:
    """The fields that may hold the last turn where it was cut out; a message of the assistant's was said."""
    said = (k for k in NOT_READ if isinstance(row.get(k), dict) and _role(row[k]) == "assistant")
    return (*CUT, *said)


def unread(row: dict, messages: list) -> list[str]:
    """The fields that hold an answer which was not read, of a row that has messages."""
    if not any(row.get(key) for key in MESSAGE_FIELDS):
        return []
    read = answer(row, messages)[0]
    others = [key for key in FIELDS if key != read and row.get(key)]
    fields = [
        key
        for key in others
        if (key in NOT_READ and not isinstance(row[key], dict)) or not _repeats(_answer(row, key), messages)
    ]
    more = any(_has_several(row.get(key) if key != "choices" else row) for key in (*LOGS, *CUT))
    return fields + ["choices after the first"] * more


def _has_several(completion: Any) -> bool:
    """Whether a completion, an object or JSON text, has more choices than the one that is read."""
    choices = (object_of(completion) or {}).get("choices")
    return isinstance(choices, list) and len(choices) > 1


def _answer(row: dict, key: str) -> list[Message]:
    return _messages({"choices": row[key]} if key == "choices" and row.get(key) else row.get(key))


def _repeats(found: list[Message], messages: list) -> bool:
    """Whether messages end with what an answer says and calls."""
    found = message_forms.joined(message_forms.read_all(found))
    ends = message_forms.joined(messages)[-len(found) :]
    try:
        return bool(found) and list(map(_gist, found)) == list(map(_gist, ends))
    except InputError:  # what cannot be read is no copy
        return False


def _gist(message: Any) -> tuple:
    """Who says and calls what in a message. Raises InputError."""
    message = require(message, dict, "a message")
    calls = [call["function"] for call in lenient_tool_calls(message.get("tool_calls"))]
    return _role(message), content_text(message.get("content")).strip(), calls


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, dict) else ""


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
        return as_messages(value, "assistant") or _items({"output": value})
    if not isinstance(value, dict):
        return []
    choices = value.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    end = {"finish_reason": choice["finish_reason"]} if "finish_reason" in choice else {}
    for message in (choice.get("message"), choice.get("delta"), value.get("message"), value):
        if isinstance(message, dict) and any(k in message for k in ("role", "content", "tool_calls")):
            return [{"role": "assistant", **message, **end}]
    for text in (choice.get("text"), value.get("text")):
        if isinstance(text, str) and text.strip():
            return [{"role": "assistant", "content": text, **end}]
    return _items(value)


def _items(response: dict) -> list[Message]:
    """The messages of a Responses output."""
    if not isinstance(response.get("output"), list):
        return []
    found = response_items.messages({**{k: response.get(k) for k in ("output", "status")}, "input": ""})
    return found[0][1:] if found else []
