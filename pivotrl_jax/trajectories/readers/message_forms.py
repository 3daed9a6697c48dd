"""One message in any of the public forms -> messages with OpenAI's roles and fields.

Roles and fields of ShareGPT, ms-swift, OLMo, gpt-oss, Qwen-Agent and others; calls under a name of their own
(other_calls.py); several messages that are parts of one response.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from pivotrl_jax.chat import dialects
from pivotrl_jax.chat.messages import lenient_tool_calls, named_call
from pivotrl_jax.chat.reasoning import FIELDS, reasoning_of, split_thinking
from pivotrl_jax.records import Message
from pivotrl_jax.trajectories.readers import other_calls, sdk_parts, weights
from pivotrl_jax.trajectories.readers.lenient_calls import literal
from pivotrl_jax.trajectories.readers.special_tokens import without_special_tokens

_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "agent": "assistant",
    "function_call": "tool_call",
    "tool-call": "tool_call",
    "function-call": "tool_call",
    "tool_calls": "tool_call",
    "observation": "tool",
    "function": "tool",
    "function_response": "tool",
    "function-response": "tool",
    "tool_response": "tool",
    "tool-response": "tool",
    "tool_result": "tool",
    "tool_results": "tool",
    "tool_output": "tool",
    "tool_outputs": "tool",
    "function_result": "tool",
    "function_results": "tool",
    "function_output": "tool",
    "function_call_output": "tool",
    "env": "tool",
    "api": "tool",
    "ipython": "tool",
    "environment": "tool",
}
_HEARERS = ("", "all", "user", "assistant")  # recipients of a message that are no tools
_TEXT_FIELDS = ("content", "value", "text")

# the fields of a message that are read, and those that say nothing about what was said or done
MESSAGE_KEYS = {
    "role",
    "from",
    *_TEXT_FIELDS,
    "tool_calls",
    "tool_call_id",
    "name",
    "tool_name",
    "function_call",
    *weights.WEIGHTS,
    *weights.MASKED,
    *weights.DETAILS,
    *weights.ENDS,
}
MESSAGE_KEYS |= {
    *FIELDS,
    "function_calls",
    "functions",
    "tools",
    "tool_call_ids",
    *other_calls.ANSWERS,
    "channel",
    "recipient",
    "content_type",
    "id",
    "type",
    "timestamp",
    "created_at",
    "createdAt",
    "model",
    "refusal",
    "annotations",
}


def read_all(messages: list) -> list:
    """Messages in any of the forms, each with OpenAI's role and fields."""
    parts = [part for message in weights.with_masks(messages) for part in sdk_parts.expanded(message)]
    named = list(map(renamed, parts))
    read: list = []
    for message, after in zip(named, [*named[1:], None]):
        answered = isinstance(after, dict) and after.get("role") == "tool"
        for one in other_calls.with_invocations(message):
            read += other_calls.with_results(one, answered)
    return other_calls.with_ids(read)


def renamed(message: Any) -> Any:
    """A message in any of the forms, with OpenAI's role and fields."""
    if not isinstance(message, dict):
        return message
    original = message.get("role", message.get("from"))
    original = original.lower() if isinstance(original, str) else original
    role = _ROLES.get(original, original) if isinstance(original, str) else original
    out = {k: v for k, v in message.items() if k not in ("from", "value", "function_call")}
    out["role"] = role
    if not message.get("content"):
        text = next((message[k] for k in _TEXT_FIELDS if message.get(k)), message.get("content"))
        out["content"] = "" if text is None and any(k in message for k in _TEXT_FIELDS[1:]) else text
        out.pop("text", None)
    if role in ("assistant", "tool_call"):
        out |= {"weight": 0} if weights.is_context(message) else {}
        out = {k: v for k, v in out.items() if k not in weights.LABELS or weights.degree(v) not in (0, 1)}
        if not out["content"] and isinstance(message.get("refusal"), str):
            out["content"] = message["refusal"]
        out["content"] = _own_text(out["content"])
        out = _with_thought(out)
    name = out.get("name") or message.get("tool_name")
    if role == "tool" and isinstance(name, str):
        out["name"] = name.removeprefix("functions.")
    if role == "tool_call":
        return _call_message(out)
    if role == "assistant" and out.get("tool_calls"):
        out["tool_calls"] = other_calls.under_known_names(out["tool_calls"])
    call = message.get("function_call")
    recipient = message.get("recipient")
    if role == "assistant" and isinstance(recipient, str) and recipient not in _HEARERS:
        call = {"name": recipient.removeprefix("functions."), "arguments": out["content"]}
        out["content"] = ""
    if role == "assistant" and not message.get("tool_calls"):
        if isinstance(call, str) and call.strip():
            call = literal(call) or call
        if call:
            out["tool_calls"] = [
                {"function": call} if isinstance(call, dict) else other_calls.unreadable(call)
            ]
        elif message.get("function_calls"):
            out["tool_calls"] = _written_calls(message["function_calls"])
        else:
            out = other_calls.read(out)
    return out


# thinking under names that say so, unless the text holds it too (SWE-smith); Cohere's plan before its calls
_THOUGHTS = (
    "tool_plan",
    "thought",
    "thoughts",
    "think",
    "think_content",
    "reasoning_text",
    "chain_of_thought",
)


def _with_thought(message: Message) -> Message:
    for key in _THOUGHTS:
        thought = message.get(key)
        if isinstance(thought, str) and thought.strip() and not reasoning_of(message):
            told = isinstance(message["content"], str) and thought.strip() in message["content"]
            rest = {k: v for k, v in message.items() if k != key}
            return rest if told else {**rest, "reasoning_content": thought}
    return message


def _written_calls(calls: Any) -> list:
    """OLMo 3's calls, which are written in Python, one per line; a list of calls as it is."""
    if not isinstance(calls, str):
        return calls if isinstance(calls, list) else [calls]
    lines = [line for line in calls.splitlines() if line.strip()]
    found = dialects.read(f"[{', '.join(lines)}]", "pythonic", {})
    if found.fault or not found.calls:
        return [other_calls.unreadable(calls)]
    return [{"name": c.name, "arguments": c.arguments} for c in found.calls]


def _own_text(content: Any) -> Any:
    """What an assistant wrote: parts of nothing but text as one text, without a template's tokens."""
    if isinstance(content, list) and content and all(_is_text_part(part) for part in content):
        content = "".join(part["text"] for part in content)
    return without_special_tokens(content) if isinstance(content, str) else content


def _is_text_part(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _call_message(message: Message) -> Message:
    """A message whose role says that its text is a call, or a list of calls, in JSON."""
    thought, text = (
        split_thinking(message["content"]) if isinstance(message.get("content"), str) else ("", None)
    )
    text = message.get("content") if text is None else text
    calls = _values(text.removeprefix("Calling tools:\n") if isinstance(text, str) else text)
    if calls is None and isinstance(text, str) and dialects.shows_a_call(text, {}):
        return {**message, "role": "assistant"}  # in a dialect, which is read later
    calls = calls or [None]
    message = {**message, "reasoning_content": thought} if thought else message
    if any(named_call(c) is None for c in calls):
        calls = [other_calls.unreadable(text)]
    return {**message, "role": "assistant", "content": "", "tool_calls": lenient_tool_calls(calls)}


def _values(text: Any) -> list | None:
    """The calls of a text: one JSON value, a Python literal, or a value per line; None for other text."""
    if not isinstance(text, str):
        return text if isinstance(text, list) else [text]
    value = literal(text)
    if value is None:
        lines = [literal(line) for line in text.splitlines() if line.strip()]
        return None if None in lines or not lines else lines
    return value if isinstance(value, list) else [value]


def joined(messages: list) -> list:
    """Assistant messages that are parts of one response, joined: what follows without a result or a user in
    between, and calls, or stands between calls and their results. The copy of a message falls."""
    whole: list = []
    run = runs(messages)
    for i, message in enumerate(messages):
        before = whole[-1] if whole else None
        if _is_assistant(message) and _is_assistant(before) and _is_copy(message, before):
            continue
        if _is_assistant(message) and _is_assistant(before) and _is_one_response(before, message, i, run[i]):
            whole[-1] = both(before, message)
        elif _is_assistant(message) and _is_assistant(before) and _only_thinks(before):
            thoughts = "\n".join(t for m in (before, message) if (t := reasoning_of(m)))
            whole[-1] = {**message, "reasoning_content": thoughts}
        elif _is_assistant(message) and message.get("channel") == "analysis":
            whole.append({**message, "content": "", "reasoning": message.get("content")})
        elif _is_assistant(message) and _is_assistant(before) and before.get("channel") == "analysis":
            whole[-1] = {**message, "reasoning": before["reasoning"]}
        else:
            whole.append(message)
    return whole


def both(before: Message, message: Message) -> Message:
    """Two parts of one response as one message."""
    texts = [m["content"] for m in (before, message) if isinstance(m.get("content"), str) and m["content"]]
    calls = [c for m in (before, message) for c in m.get("tool_calls") or []]
    thoughts = "\n".join(t for m in (before, message) if (t := reasoning_of(m)))
    one = {**before, **message, "content": "\n".join(texts), "tool_calls": calls}
    return {**one, "reasoning_content": thoughts} if thoughts else one


def _is_copy(message: Message, before: Message) -> bool:
    """Whether a message is the one before it once more. Equal calls without ids may be two."""
    calls = message.get("tool_calls") or []
    told_apart = isinstance(calls, list) and all(isinstance(c, dict) and c.get("id") for c in calls)
    return message == before and bool(message.get("content") or calls) and told_apart


@dataclasses.dataclass(frozen=True)
class Run:
    """Messages of the assistant that follow each other, and the results after them."""

    last_call: int  # index of the last message that calls; -1 if none does
    is_answered: bool  # whether results follow
    # whether each call is answered, or none, so that they may be one response: else a result is missing
    is_whole: bool


def runs(messages: list) -> dict[int, Run]:
    """The run of every message of the assistant, by the message's index."""
    found: dict[int, Run] = {}
    end = 0
    for start in range(len(messages)):
        if start < end or not _is_assistant(messages[start]):
            continue
        end = _first(messages, start, lambda m: not _is_assistant(m))
        results = messages[end : _first(messages, end, lambda m: not _is_result(m))]
        found |= dict.fromkeys(range(start, end), _run(messages, start, end, results))
    return found


def _first(messages: list, start: int, fits: Callable[[Any], bool]) -> int:
    """Index of the first message from `start` on that fits; their number if none does."""
    return next((i for i in range(start, len(messages)) if fits(messages[i])), len(messages))


def _run(messages: list, start: int, end: int, results: list) -> Run:
    calling = [i for i in range(start, end) if messages[i].get("tool_calls")]
    lists = [messages[i]["tool_calls"] for i in calling]
    calls = [c for found in lists if isinstance(found, list) for c in found if isinstance(c, dict)]
    ids = {str(c["id"]) for c in calls if isinstance(c.get("id"), (str, int))}
    answered = {str(id) if (id := m.get("tool_call_id")) is not None else None for m in results}
    whole = not results or None in answered or ids <= answered
    return Run(max(calling, default=-1), bool(results), whole)


def _is_one_response(before: Message, message: Message, i: int, run: Run) -> bool:
    """Whether the message at index `i` goes on with the response of the one before it."""
    if not _has_calls(message, before) and not _has_calls(before, message):
        return False
    if not before.get("tool_calls"):
        return True
    return run.is_whole if i <= run.last_call else run.is_answered  # what follows all calls are words


def _is_result(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") == "tool"


def _has_calls(message: Message, before: Message) -> bool:
    """Whether a message makes calls, and neither holds anything but a list of them."""
    both = [m.get("tool_calls") or [] for m in (message, before)]
    return bool(both[0]) and all(isinstance(calls, list) for calls in both)


def _only_thinks(message: Message) -> bool:
    """Whether a message holds nothing but thinking (Qwen-Agent keeps it as a message of its own)."""
    return not message.get("content") and not message.get("tool_calls") and bool(reasoning_of(message))


def _is_assistant(message: Any) -> bool:
    return (
        isinstance(message, dict)
        and message.get("role") == "assistant"
        and (message.get("content") is None or isinstance(message["content"], str))
    )
