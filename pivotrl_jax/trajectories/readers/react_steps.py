"""Assistant messages that hold several steps of ReAct -> a turn per step, and its observation between them.

Thought: a
Action: f
Action Input: {}
Observation: 1          <- a message of its own
Thought: b
Final Answer: c
"""

import re
from typing import Any

from pivotrl_jax.chat import dialects
from pivotrl_jax.chat.dialects.base import Schemas
from pivotrl_jax.chat.reasoning import FIELDS
from pivotrl_jax.records import Message

_NUMBER = r"(?: \d+)?:"
_OBSERVATION = re.compile(rf"^[ \t]*\**Observation{_NUMBER}", re.MULTILINE)
_STEP = re.compile(rf"^[ \t]*\**(?:Thought|Action|Final Answer){_NUMBER}", re.MULTILINE)
MAX_STEPS = 256  # steps that are looked for in one message


def split_steps(messages: list[Any], schemas: Schemas) -> list[Any]:
    """The messages, those of several steps split; one whose steps cannot all be read stays as it is."""
    return [part for m in messages for part in (_split(m, schemas) if _is_candidate(m) else None) or [m]]


def _is_candidate(message: Any) -> bool:
    return (
        isinstance(message, dict)
        and message.get("role") == "assistant"
        and isinstance(message.get("content"), str)
        and not message.get("tool_calls")
        and "Observation" in message["content"]
        and bool(_STEP.match(message["content"].lstrip()))
    )


def _split(message: Message, schemas: Schemas) -> list[Message] | None:
    """The turns and observations of a message; None if they cannot be read."""
    text, parts, at = message["content"], [], 0
    while (seen := _OBSERVATION.search(text, at)) and len(parts) < 2 * MAX_STEPS:
        own = text[at : seen.start()]
        found = dialects.read(own, "react", schemas)
        if not found.calls or found.fault:
            return None
        step = _STEP.search(text, seen.end())
        end = step.start() if step else len(text)
        if not text[seen.end() : end].strip(" *\n"):
            return None  # the stop sequence, and no observation
        parts += [{**message, "content": own}, {"role": "user", "content": text[seen.start() : end].strip()}]
        at = end
    if _OBSERVATION.search(text, at) or not parts:
        return None
    parts += [{**message, "content": text[at:]}] if text[at:].strip() else []
    for part in parts[1:]:  # the thinking came before the first step
        for key in FIELDS:
            part.pop(key, None)
    return parts
