"""A chat reply, parsed by the server that drew it, as the action that it stands for.

The counterpart of actions.py for models that are asked by chat completions: no text is parsed again.
"""

import json
from collections.abc import Sequence
from typing import Any

from pivotrl_jax.chat import dialects
from pivotrl_jax.chat.actions import END_THINK, THINK
from pivotrl_jax.chat.dialects.base import schemas_of
from pivotrl_jax.chat.messages import content_text, named_call, read_arguments
from pivotrl_jax.chat.reasoning import PART_TYPES, reasoning_of, split_thinking
from pivotrl_jax.records import Action, Call, InputError, Message


def message_of(served: dict | None) -> Message | None:
    """The message in a rollout's field `served`, from which `action_of` reads its action; None for what was
    drawn as token ids, whose action is parsed from its text."""
    return served.get("message") if served else None


def action_of(message: Message, tools: Sequence[dict] = ()) -> Action:
    """The action of a chat reply. Never raises: what cannot be read makes the action malformed.

    The server has parsed the calls; no text is parsed again. A call that it has left in the content, whole or
    broken, is malformed and no talk.
    """
    fault = message.get("fault", "")
    reasoning, content = reasoning_of(message), ""
    try:
        content = content_text(_spoken(message))
    except InputError as e:
        fault = fault or str(e)
    content = content or _text(message.get("refusal"))
    if not reasoning:
        reasoning, content = split_thinking(content)
    if content.lstrip().startswith(THINK):
        fault = fault or "a <think> block is never closed"
    calls = []
    given = _given_calls(message)
    for n, call in enumerate(given):
        named = named_call(call)
        if named is None:
            fault = fault or f"tool_calls[{n}] has no name of a function"
            continue
        try:
            calls.append(Call(named[0], read_arguments(named[1])))
        except InputError as e:
            fault = fault or f"tool_calls[{n}] ({named[0]}): {e}"
    if not fault:
        form = dialects.attempted_call(content, schemas_of(list(tools)))
        fault = f"a call in the text, in the form of {form}, that the server did not parse" if form else ""
    return Action(content.strip(), reasoning, tuple(calls), fault, text_of(message))


def _spoken(message: Message) -> Any:
    """The content without its parts of thinking, which `reasoning_of` reads."""
    content = message.get("content")
    if not isinstance(content, list):
        return content
    return [part for part in content if not (isinstance(part, dict) and part.get("type") in PART_TYPES)]


def _given_calls(message: Message) -> list:
    """The calls that the server parsed; older ones answer with one "function_call"."""
    given = message.get("tool_calls") or message.get("function_call") or []
    return given if isinstance(given, list) else [given]


def text_of(message: Message) -> str:
    """A chat reply as people read it, in the form in which Qwen3 writes it; it is not parsed again."""
    parts = [f"{THINK}\n{thought}\n{END_THINK}\n\n"] if (thought := reasoning_of(message)) else []
    content = _spoken(message) or message.get("refusal") or ""
    try:
        parts.append(content_text(content))
    except InputError:
        parts.append(json.dumps(content, ensure_ascii=False))
    for call in _given_calls(message):
        named = named_call(call)
        name, arguments = named or ("unreadable", call)
        written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        called = f'{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": {written or "{}"}}}'
        parts.append(f"\n<tool_call>\n{called}\n</tool_call>")
    return "".join(parts).strip()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
