"""Assistant messages that hold the results of their calls -> a turn per step, and its results between them.

<tool_call>...</tool_call>
<tool_response>1</tool_response>     <- a message of its own: the environment wrote it
It is 1.
"""

import re
from typing import Any

from pivotrl_jax.chat import dialects
from pivotrl_jax.chat.reasoning import FIELDS
from pivotrl_jax.records import Message
from pivotrl_jax.trajectories.readers.weights import ENDS

_TAGS = "tool_response|function_results|tool_result|tool_output|information|interpreter|execution_results"
_RESULT = rf"<({_TAGS})>(?:(?!<\1>).)*?</\1>"
_RESULT += r"|(?:(?<=</search>)|(?<=</python>))\s{0,9}<result>(?:(?!<result>).)*?</result>"
_RESULTS = re.compile(_RESULT, re.DOTALL)
# results in a text that was not taken apart
INSIDE = re.compile(
    rf"(?:^|>)[ \t]*<(?:{_TAGS}|output)>|^[ \t]*FUNCTION RESPONSE:|\[TOOL_RESULTS\]"
    r"|^```(?:tool_)?output[ \t]*$",
    re.MULTILINE,
)
MAX_STEPS = 256  # steps that are looked for in one message


def split_results(messages: list[Any]) -> list[Any]:
    """The messages, those with results after calls split; one whose steps show no call stays as it is."""
    return [part for m in messages for part in _split(m) or [m]]


def _split(message: Any) -> list[Message] | None:
    text = message.get("content") if isinstance(message, dict) else None
    if not isinstance(text, str) or message.get("role") != "assistant" or message.get("tool_calls"):
        return None
    parts: list[Message] = []
    at = 0
    for found in _RESULTS.finditer(text):
        own = text[at : found.start()]
        if own.strip():
            if len(parts) > 2 * MAX_STEPS or not dialects.shows_a_call(own, {}):
                return None
            parts.append({**message, "content": own.rstrip()})
        elif not parts:
            return None  # results before any call
        if parts[-1]["role"] == "user":
            parts[-1] = {"role": "user", "content": f"{parts[-1]['content']}\n{found[0].strip()}"}
        else:
            parts.append({"role": "user", "content": found[0].strip()})
        at = found.end()
    if not parts:
        return None
    rest = text[at:].strip()
    parts += [{**message, "content": rest}] if rest else []
    for part in parts[1:]:  # the thinking came before the first step
        for key in FIELDS:
            part.pop(key, None)
    for part in parts[:-1]:  # and why it ended came at its end
        for key in ENDS:
            part.pop(key, None)
    return parts
