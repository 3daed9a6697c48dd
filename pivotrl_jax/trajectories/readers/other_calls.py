"""Calls that stand in a message under another name than `tool_calls`.

| of | example |
|---|---|
| the AI SDK | "toolInvocations": [{"toolCallId", "toolName", "args", "result"}] |
| LangChain | "additional_kwargs": {"tool_calls": [...]} |
| others | "toolCalls", "tool_call", "functionCall", "tool_uses", "actions": calls or one, or JSON text |

One that cannot be read makes its turn unreadable, so that it is never taken for talk.
"""

import json
from typing import Any

from pivotrl_jax.chat import dialects
from pivotrl_jax.chat.json_text import loads
from pivotrl_jax.chat.messages import UNPARSEABLE, named_call, tool_call
from pivotrl_jax.records import Message

INVOCATIONS = "toolInvocations"
NAMES = ("toolCalls", "toolCall", "tool_call", "functionCall", "tool_use", "tool_uses", "toolUse")
NAMES += ("actions", "calls", "api_calls", "api_call", "additional_kwargs")

# the fields of a call under other names
_NAME = ("toolName", "tool_name", "tool")
_ID = ("toolCallId", "tool_call_id", "toolUseId", "id")
_ARGUMENTS = (
    "args",
    "input",
    "arguments",
    "tool_input",
    "tool_args",
    "tool_arguments",
    "parameters",
    "params",
)


def unreadable(call: Any) -> dict:
    """A call that cannot be read, so that its turn is skipped."""
    return tool_call("unreadable", {UNPARSEABLE: str(call)[:2000]})


def as_list(calls: Any) -> Any:
    """Calls as a list: JSON text is decoded, and one call stands for a list of it."""
    try:
        value = loads(calls) if isinstance(calls, str) else calls
    except ValueError:
        return calls
    return [value] if isinstance(value, dict) else value


def under_known_names(calls: Any) -> Any:
    """What stands in `tool_calls`, as a list of calls, each as an object with the names that are read:
    verifiers keeps each as JSON text. One that cannot be read stays as it is."""
    calls = as_list(calls)
    if not isinstance(calls, list):
        return calls
    values = [one[0] if isinstance(one := as_list(c), list) and len(one) == 1 else c for c in calls]
    return [c if named_call(c) or named_call(_named(c)) is None else _named(c) for c in values]


# where a call keeps its own result, and a message the results of its calls
_RESULT = ("result", "output", "response", "observation", "tool_result")
_RESULTS = ("tool_results", "tool_outputs", "tool_responses")


def with_results(message: Any, answered: bool) -> list:
    """A message that calls, and the results that it keeps beside or inside its calls; `answered`: they follow
    as messages of their own."""
    calls = message.get("tool_calls") if isinstance(message, dict) else None
    if not isinstance(calls, list) or message.get("role") != "assistant" or not calls:
        return [message]
    found = [_own_result(call) for call in calls]
    beside = next((message[k] for k in _RESULTS if isinstance(message.get(k), list)), [])
    if not any(f is not None for f in found) and len(beside) == len(calls):
        found = [
            next((b[k] for k in ("content", *_RESULT) if b.get(k) is not None), None)
            if isinstance(b, dict)
            else b
            for b in beside
        ]
    if answered or all(f is None for f in found):
        return [message]
    rest = {k: v for k, v in message.items() if k not in _RESULTS}
    plain = [{k: v for k, v in c.items() if k not in _RESULT} if isinstance(c, dict) else c for c in calls]
    results = [
        {"role": "tool", "content": _text(result)} | ({"tool_call_id": c["id"]} if c.get("id") else {})
        for c, result in zip(calls, found)
        if result is not None and isinstance(c, dict)
    ]
    return [{**rest, "tool_calls": plain}, *results]


def _own_result(call: Any) -> Any:
    """The result in a call, or in its function as the Assistants API keeps it; None if there is none."""
    inner = call.get("function") if isinstance(call, dict) else None
    for value in (call, inner):
        for key in _RESULT if isinstance(value, dict) else ():
            if value.get(key) is not None:
                return value[key]
    return None


def read(message: Message) -> Message:
    """An assistant's message without calls, with those that stand under another name as its `tool_calls`."""
    for key in NAMES:
        value = message.get(key)
        if key == "additional_kwargs" and isinstance(value, dict):
            value = value.get("tool_calls") or value.get("function_call")
        if not value or not isinstance(value, (list, dict, str)):
            continue
        if isinstance(message.get("content"), str) and dialects.shows_a_call(message["content"], {}):
            return message  # told twice
        calls = as_list(value)
        calls = [_plain(c) for c in calls] if isinstance(calls, list) else [unreadable(calls)]
        return {**{k: v for k, v in message.items() if k != key}, "tool_calls": calls}
    return message


def _plain(call: Any) -> dict:
    """A call with its name and arguments where `named_call` finds them."""
    call = call if named_call(call) else _named(call)
    return unreadable(call) if named_call(call) is None else call


def _named(call: Any) -> Any:
    """A call with its fields under OpenAI's names."""
    if not isinstance(call, dict):
        return call
    fields = {"id": _ID, "name": _NAME, "arguments": _ARGUMENTS}
    named = {
        field: next((call[k] for k in keys if call.get(k) is not None), None)
        for field, keys in fields.items()
    }
    return named | {k: call[k] for k in _RESULT if k in call}


# where a result says which call it answers; "id" may as well be the message's own
ANSWERS = ("call_id", "toolCallId", "tool_use_id", "toolUseId", "callId", "id")


def with_ids(messages: list) -> list:
    """Messages whose results say in `tool_call_id` which call they answer; one that answers several
    (`tool_call_ids`) is as many."""
    known: set = set()
    whole: list = []
    for message in messages:
        if not isinstance(message, dict) or message.get("role") != "tool":
            calls = message.get("tool_calls") if isinstance(message, dict) else None
            ids = [c.get("id") for c in calls if isinstance(c, dict)] if isinstance(calls, list) else []
            known |= {str(id) for id in ids if isinstance(id, (str, int))}
            whole.append(message)
            continue
        ids, content = message.get("tool_call_ids"), message.get("content")
        if message.get("tool_call_id") in (None, "") and isinstance(ids, list) and ids:
            if isinstance(content, list) and len(content) == len(ids) > 1:
                whole += [{**message, "tool_call_id": id, "content": c} for id, c in zip(ids, content)]
                continue
            message = {**message, "tool_call_id": ids[0]} if len(ids) == 1 else message
        elif message.get("tool_call_id") in (None, ""):
            id = next((message[k] for k in ANSWERS if str(message.get(k)) in known), None)
            message = message if id is None else {**message, "tool_call_id": id}
        whole.append(message)
    return whole


def with_invocations(message: Any) -> list:
    """A message of the AI SDK as the turn that calls, the results, and the text that came after them; any
    other message alone. The text stands with the calls where one has no result yet."""
    invocations = message.get(INVOCATIONS) if isinstance(message, dict) else None
    if not isinstance(invocations, list) or not invocations or message.get("role") != "assistant":
        return [message]
    rest = {k: v for k, v in message.items() if k != INVOCATIONS}
    calls = [{k: v for k, v in _plain(c).items() if k not in _RESULT} for c in invocations]
    results = [
        {"role": "tool", "tool_call_id": call.get("id"), "content": _text(one["result"])}
        for one, call in zip(invocations, calls)
        if isinstance(one, dict) and "result" in one
    ]
    if len(results) < len(calls) or not message.get("content"):
        return [{**rest, "tool_calls": calls}, *results]
    return [{**rest, "content": "", "tool_calls": calls}, *results, {"role": "assistant", **_said(rest)}]


def _said(message: Message) -> Message:
    """A message without its thinking, which came before its calls."""
    return {k: v for k, v in message.items() if not k.startswith(("reasoning", "thinking"))}


def _text(result: Any) -> str:
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
