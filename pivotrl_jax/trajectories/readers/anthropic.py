"""Anthropic Messages -> trajectories: rows of messages with content blocks, logs of requests and responses.

    {"system": "...", "messages": [
        {"role": "user", "content": "..."},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "..."},
            {"type": "text", "text": "..."}, {"type": "tool_use", "id": "t1", "name": "ls", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "a.py"}]}],
     "tools": [{"name": "ls", "input_schema": {...}}]}

The response of a log, `{"request": {...}, "response": {"role": "assistant", "content": [...]}}`, is the last
turn; a batch's line joined with its result, and Bedrock's logs of invocations, are logs too. `system` is a
text or text blocks. A result is an error if it says `is_error`. What the API runs itself (a web search) is
recorded in a turn together with what it led to: such a turn, and those after it, are skipped (not_text), as
they are after an image.
"""

from pathlib import Path
from typing import Any

from pivotrl_jax.chat.json_text import lenient_json
from pivotrl_jax.chat.messages import require
from pivotrl_jax.chat.reasoning import reasoning_of
from pivotrl_jax.records import Trajectory
from pivotrl_jax.trajectories.readers import building
from pivotrl_jax.trajectories.readers.turns import (
    REWARDS,
    Turns,
    call_of,
    function_docs,
    read_parts,
    reward_of,
)
from pivotrl_jax.trajectories.readers.unread import MESSAGE, unread
from pivotrl_jax.trajectories.readers.weights import OF_ROW, WEIGHTS, unobeyed
from pivotrl_jax.trajectories.readers.weights import READ as WEIGHED

BLOCKS = ("tool_use", "tool_result", "redacted_thinking")

REQUESTS = ("request", "request_body", "body", "kwargs", "input", "inputs", "params", "modelInput")
RESPONSES = ("response", "response_body", "output", "outputs", "result", "modelOutput")
BODIES = ("body", "inputBodyJson", "outputBodyJson", "message")

NAMES = ("id", "request_id", "session_id", "custom_id", "recordId", "requestId")
SCENARIOS = ("scenario", "instance_id", "task_id", "session_id")

# the row or the log, and how its answer was asked for
READ = " ".join((*NAMES, *SCENARIOS, *REWARDS, *REQUESTS, *RESPONSES, *OF_ROW))
READ += """ messages system tools
    max_tokens temperature top_p top_k stream stop_sequences tool_choice thinking anthropic_version
    accountId identity region operation modelId schemaType schemaVersion """


def recognise(sample: Any, path: Path) -> bool:
    """Whether it is a row or a log with Anthropic's blocks or response. Tools or a system of its form are
    enough where nothing is a chat row's: some of these hold such tools too."""
    if isinstance(sample, list):
        sample = {"messages": sample}
    if not isinstance(sample, dict):
        return False
    request, response = _request(sample), _response(sample)
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages or any(_openai(m) for m in messages):
        return False
    said = [*messages, response]
    if any(map(_has_blocks, said)) or (response and response.get("type") == "message"):
        return True
    tools = request.get("tools") if isinstance(request.get("tools"), list) else []
    formed = any(isinstance(t, dict) and "input_schema" in t for t in tools)
    answers = any(isinstance(m, dict) and m.get("role") == "assistant" for m in said)
    return (formed or _is_typed(request.get("system"))) and answers and not any(map(_weighs, messages))


def _openai(message: Any) -> bool:
    """Whether a message makes calls, or has a role, that only chat rows have."""
    if not isinstance(message, dict):
        return False
    calls = message.get("tool_calls") or message.get("function_call")
    return bool(calls) or message.get("role") not in ("user", "assistant", "system", "developer")


def _is_typed(system: Any) -> bool:
    """Whether a system is a list of Anthropic's blocks; Bedrock's have no type."""
    return isinstance(system, list) and any(isinstance(b, dict) and "type" in b for b in system)


def _weighs(message: Any) -> bool:
    return isinstance(message, dict) and any(message.get(key) is not None for key in WEIGHTS)


def _has_blocks(message: Any) -> bool:
    content = message.get("content") if isinstance(message, dict) else None
    blocks = [b for b in content if isinstance(b, dict)] if isinstance(content, list) else []
    return any(b.get("type") in BLOCKS or (b.get("type") == "thinking" and "signature" in b) for b in blocks)


def _request(row: dict) -> dict:
    """What a log asked for; a row that is no log is its own request."""
    return next((r for r in _objects(row, REQUESTS) if "messages" in r), row)


def _response(row: dict) -> dict | None:
    """The model's answer in a log, a message; None if there is none."""
    return next(
        (r for r in _objects(row, RESPONSES) if r.get("role") == "assistant" and "content" in r), None
    )


def _objects(row: dict, keys: tuple[str, ...]) -> list[dict]:
    """The objects under some of a row's keys and in their `body`; proxies keep them as JSON text."""
    found = [_decoded(row.get(key)) for key in keys]
    found += [_decoded(value.get(key)) for value in found if isinstance(value, dict) for key in BODIES]
    return [value for value in found if isinstance(value, dict)]


def _decoded(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith("{"):
        return value
    try:
        return lenient_json(value)
    except ValueError:
        return None


def trajectory(document: Any, where: str) -> Trajectory:
    """One row or log. Raises InputError."""
    row = {"messages": document} if isinstance(document, list) else require(document, dict, "a row")
    request, response = _request(row), _response(row)
    turns = Turns()
    turns.say("system", read_parts(request.get("system"), "\n\n"))
    messages = require(request.get("messages"), list, '"messages"')
    messages = [*messages, response] if response else messages
    unused = building.until_fault(messages, lambda m: add(turns, m), "messages", turns.messages)
    unused += unread([row, request], READ) + unread(messages, MESSAGE + WEIGHED, "messages")
    unused += unobeyed([row], keys=OF_ROW) + unobeyed(messages, "messages")
    tools = function_docs(request.get("tools"))
    name = building.named(row, NAMES, building.stem(where))
    dialect, tools = turns.read_text_calls(tools)
    return building.checked(
        Trajectory(
            messages=turns.messages,
            id=name,
            origin=where,
            source="anthropic",
            scenario=building.named(row, SCENARIOS, building.opening(turns.messages)),
            verifier=turns.verifier(tools),
            tools=tools,
            reward=reward_of(row),
            skip=turns.skip | turns.told_of_row(row),
            dialect=dialect,
            unused=unused,
        )
    )


def add(turns: Turns, message: dict, context: bool = False) -> None:
    """Add a message with a text or blocks; chat messages with `tool_calls` or the role "tool" too."""
    parts = read_parts(require(message, dict, "a message").get("content"))
    role = message.get("role")
    parts.calls += [call_of(require(c, dict, "a call")) for c in message.get("tool_calls") or []]
    if role == "assistant":
        parts.reasoning = parts.reasoning or reasoning_of(message)
        turns.answer(parts, context, message)
    elif role == "tool":
        turns.result(message.get("tool_call_id"), parts, message.get("is_error") is True)
    else:
        turns.results(parts)
        turns.say("system" if role in ("system", "developer") else "user", parts)
