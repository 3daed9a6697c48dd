"""Requests and responses of OpenAI's Responses API -> chat messages.

    {"instructions": "...", "input": [...], "output": [{"type": "function_call", "name", "arguments"}]}

The output may also stand in a "response", and all items of a run under "messages". What the API ran itself
(web_search_call), and everything else that is no message, call, result or reasoning, stays as a message of an
unknown role: the turns after it are skipped. A turn with an item whose status is "incomplete" was cut, and so
was the last of such a response.
"""

import json
from typing import Any

from pivotrl_jax.chat import responses
from pivotrl_jax.chat.messages import content_text
from pivotrl_jax.records import InputError, Message

_CALLS = ("function_call", "custom_tool_call")
_OUTPUTS = ("function_call_output", "custom_tool_call_output")
_TYPES = ("message", "reasoning", *_CALLS, *_OUTPUTS)


def messages(row: dict) -> tuple[list[Message], tuple[str, ...]] | None:
    """(messages, the fields they were read from); None if the row does not hold items. Raises InputError."""
    asked, output, status = row.get("input"), row.get("output"), row.get("status")
    answer = row.get("response")
    read = ("input", "output", "instructions", "status", "incomplete_details")
    if isinstance(answer, dict) and isinstance(answer.get("output"), list):
        output, status, read = answer["output"], answer.get("status"), (*read, "response")
    if asked is None and _has_actions(
        row.get("messages")
    ):  # the items of a run, as the Agents SDK keeps them
        asked, read = row["messages"], (*read, "messages")
    if not isinstance(asked, (str, list)) or not (_has_items(asked) or _has_items(output)):
        return None
    if row.get("previous_response_id"):
        raise InputError(
            '"previous_response_id" names messages that the row does not hold; put them in "input"'
        )
    asked = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    found = _messages([*asked, *(output if isinstance(output, list) else [])])
    if status == "incomplete":
        found[-1:] = map(_cut, found[-1:])
    if isinstance(row.get("instructions"), str) and row["instructions"].strip():
        found = [{"role": "system", "content": row["instructions"]}, *found]
    return found, read


def _has_items(value: Any) -> bool:
    return isinstance(value, list) and any(
        isinstance(i, dict) and (i.get("type") in _TYPES and ("role" in i or i["type"] != "message"))
        for i in value
    )


def _has_actions(value: Any) -> bool:
    """Whether a list of messages holds calls and results as items of their own."""
    return isinstance(value, list) and any(
        isinstance(i, dict) and "role" not in i and i.get("type") in (*_CALLS, *_OUTPUTS) for i in value
    )


def _messages(items: list) -> list[Message]:
    found: list[Message] = []
    plain: list[dict] = []
    for item in items:
        odd = _odd(item)
        if odd is None:
            plain.append(_as_function(item))
            if item.get("status") != "incomplete":
                continue
        read = responses.messages_of(plain)
        found += [*read, odd] if odd else [*read[:-1], *map(_cut, read[-1:])]
        plain = []
    return [*found, *responses.messages_of(plain)]


def _cut(message: Message) -> Message:
    """A message that says, if it is an assistant's, that it was cut."""
    return {**message, "finish_reason": "length"} if message["role"] == "assistant" else message


def _odd(item: Any) -> Message | None:
    """The message for an item that is not only text; None for an item that is."""
    if not isinstance(item, dict):
        return {"role": type(item).__name__}
    kind = item.get("type") or "message"
    if kind not in _TYPES or (kind in _CALLS and not isinstance(item.get("name"), str)):
        return {"role": kind}
    key = {"message": "content", "reasoning": "summary"}.get(kind, "output")
    try:
        content_text(item.get(key))
    except InputError:
        if kind in _OUTPUTS:
            return {"role": "tool", "tool_call_id": item.get("call_id"), "content": item.get(key)}
        return {"role": item.get("role") or kind, "content": item.get(key)}
    roles = (*responses.SPOKEN, "assistant", "tool")
    return {"role": item.get("role")} if kind == "message" and item.get("role") not in roles else None


def _as_function(item: dict) -> dict:
    """A custom tool's call or result as a function's: its one argument is the text "input"."""
    if item.get("type") == "custom_tool_call":
        arguments = json.dumps({"input": item.get("input")})
        return {**item, "type": "function_call", "arguments": arguments}
    return {**item, "type": "function_call_output"} if item.get("type") in _OUTPUTS else item
