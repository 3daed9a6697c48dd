"""LangChain messages and LangSmith runs -> trajectories.

    [{"type": "human", "data": {"content": "..."}},
     {"type": "ai", "data": {"content": "", "tool_calls": [{"name": "ls", "args": {}, "id": "c1"}]}},
     {"type": "tool", "data": {"content": "a.py", "tool_call_id": "c1", "status": "success"}}]

The fields may also stand beside `type`, or under `kwargs` of a serialised object (`"lc": 1`). A row is such a
list, an object with `messages`, or a run with `inputs` and `outputs`: messages, or the `generations` of one
call of a model, which are its last turn. `invalid_tool_calls` cannot be read: their turn is skipped.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pivotrl_jax.chat.messages import require
from pivotrl_jax.chat.reasoning import reasoning_of
from pivotrl_jax.records import InputError, Trajectory
from pivotrl_jax.trajectories.readers import base, building, weights
from pivotrl_jax.trajectories.readers.files import Document
from pivotrl_jax.trajectories.readers.turns import (
    REWARDS,
    Turns,
    call_of,
    function_docs,
    read_parts,
    reward_of,
    unreadable,
)
from pivotrl_jax.trajectories.readers.unread import MESSAGE, unread

ROLES = {
    "human": "user",
    "user": "user",
    "ai": "assistant",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
}
LISTS = ("messages", "chat_history", "input", "output", "message")


SCENARIOS = ("scenario", "session_id", "thread_id", "trace_id")

# the row or the run, and what a tracer notes of it
READ = " ".join((*LISTS, *SCENARIOS, *REWARDS, *weights.OF_ROW))
READ += """ inputs outputs extra tools generations choices
    run_type serialized tags dotted_order child_run_ids session_name events status example """
MESSAGE_READ = (
    MESSAGE
    + """ additional_kwargs response_metadata usage_metadata invalid_tool_calls
    tool_call_chunks example lc kwargs data """
    + weights.READ
)


def recognise(sample: Any, path: Path) -> bool:
    """Whether it is a list of LangChain messages, or an object or a run that holds one."""
    if isinstance(sample, dict) and isinstance(sample.get("outputs"), (dict, list)):
        found = [*_lists(sample.get("inputs")), *_lists(sample["outputs"])]
        return any(_is_message(m) or (isinstance(m, dict) and "role" in m) for m in found)
    return any(_is_message(m) for m in (sample if isinstance(sample, list) else _lists(sample))[:4])


def _is_message(value: Any) -> bool:
    """Whether a value is a message of LangChain's own, in one of the three forms."""
    if not isinstance(value, dict):
        return False
    if value.get("lc") and isinstance(value.get("kwargs"), dict):
        return _kind(value) in ROLES
    kind = _kind(value)
    if kind in ROLES and isinstance(value.get("data"), dict):
        return "content" in value["data"]
    return kind in ROLES and "role" not in value and "content" in value and "message" not in value


def _kind(message: dict) -> str:
    """ "human", "ai", ...: what `type` says, or the name of the class."""
    kind = message.get("type")
    if kind == "constructor" and isinstance(message.get("id"), list) and message["id"]:
        kind = str(message["id"][-1])
    kind = str(kind or message.get("role")).removesuffix("Chunk").removesuffix("Message")
    return kind.lower()


def _lists(value: Any) -> list:
    """The messages in a row, or in the inputs or outputs of a run."""
    if not isinstance(value, dict):
        return value if isinstance(value, list) else []
    if "role" in value and ("content" in value or "tool_calls" in value):
        return [value]
    for key in LISTS:
        found = value.get(key)
        if isinstance(found, list) and found:  # a batch of one has another list around it
            return found[0] if isinstance(found[0], list) else found
        if isinstance(found, dict) and not found.keys().isdisjoint(
            ("content", "tool_calls", "kwargs", "data")
        ):
            return [found]
    for key, message in (("generations", "message"), ("choices", "message")):
        found = value.get(key)
        while isinstance(found, list) and found:
            found = found[0]
        if isinstance(found, dict) and isinstance(found.get(message), dict):
            return [found[message]]
    return []


def _unread_lists(row: dict) -> tuple[str, ...]:
    """The names of what holds more than the list or the answer that `_lists` takes."""
    found = set()
    for value in (row, row.get("inputs"), row.get("outputs")):
        for key in (*LISTS, "generations", "choices") if isinstance(value, dict) else ():
            several, nested = value.get(key), key not in LISTS
            while isinstance(several, list) and several:
                if len(several) > 1 and (nested or isinstance(several[0], list)):
                    found.add(f"{key} after the first")
                several = several[0]
    return tuple(sorted(found))


def episodes(document: Any, where: str) -> Iterable[Document]:
    """The rows of a document; a list of messages is one."""
    return base.unrolled(document, where, recognise)


def trajectory(document: Any, where: str) -> Trajectory:
    """One row, one run, or the messages of one conversation. Raises InputError."""
    row = {"messages": document} if isinstance(document, list) else require(document, dict, "a row")
    if isinstance(row.get("inputs"), dict) or isinstance(row.get("outputs"), (dict, list)):
        before, after = _lists(row.get("inputs")), _lists(row.get("outputs"))
        repeats = list(map(_gist, after[: len(before)])) == list(map(_gist, before))
        messages = after if repeats else [*before, *after]  # a graph's outputs repeat its inputs
    else:
        messages = _lists(row)
    turns = Turns()
    unused = building.until_fault(messages, lambda m: _add(turns, m), "messages", turns.messages)
    unused += unread([row], READ) + unread(map(_inner, messages), MESSAGE_READ, "messages")
    unused += _unread_lists(row)
    unused += weights.unobeyed([row], keys=weights.OF_ROW)
    unused += weights.unobeyed(list(map(_inner, messages)), "messages")
    tools = function_docs(_tools(row))
    name = building.named(row, ("id", "run_id", "trace_id"), building.stem(where))
    dialect, tools = turns.read_text_calls(tools)
    return building.checked(
        Trajectory(
            messages=turns.messages,
            id=name,
            origin=where,
            source="langchain",
            scenario=building.named(row, SCENARIOS, building.opening(turns.messages)),
            verifier=turns.verifier(tools),
            tools=tools,
            reward=reward_of(row),
            skip=turns.skip | turns.told_of_row(row),
            dialect=dialect,
            unused=unused,
        )
    )


def _fields(message: Any) -> dict:
    """The fields of a message, whichever form it has."""
    message = require(message, dict, "a message")
    kind = _kind(message)
    fields = _inner(message)
    role = fields.get("role") if kind in ("chat", "generic") else kind
    if role not in ROLES:
        raise InputError(f"unknown type of message {kind!r}; want one of {', '.join(ROLES)}")
    return {**{k: v for k, v in fields.items() if v is not None}, "role": ROLES[role]}


def _inner(message: Any) -> Any:
    """The object that holds a message's fields."""
    inner = [message.get(k) for k in ("kwargs", "data")] if isinstance(message, dict) else []
    return next((value for value in inner if isinstance(value, dict)), message)


def _gist(message: Any) -> tuple[str, str]:
    fields = _fields(message)
    return fields["role"], read_parts(fields.get("content")).text


def _add(turns: Turns, message: Any) -> None:
    fields = _fields(message)
    parts, role = read_parts(fields.get("content")), fields["role"]
    metadata = fields.get("response_metadata") if isinstance(fields.get("response_metadata"), dict) else {}
    extra = fields.get("additional_kwargs") if isinstance(fields.get("additional_kwargs"), dict) else {}
    if role == "tool":
        failed = fields.get("status") == "error"
        turns.result(fields.get("tool_call_id"), parts, failed)
    elif role == "assistant":
        calls = fields.get("tool_calls") or extra.get("tool_calls") or []
        legacy = fields.get("function_call") or extra.get("function_call")
        found = [require(c, dict, "a call") for c in require(calls, list, '"tool_calls"')]
        found = found or ([legacy] if isinstance(legacy, dict) else [])
        bad = fields.get("invalid_tool_calls") or []
        if found or bad:
            parts.calls = [*map(call_of, found), *map(unreadable, require(bad, list, '"invalid_tool_calls"'))]
        parts.reasoning = parts.reasoning or reasoning_of({**extra, **fields})
        turns.answer(parts, source={**metadata, **fields})
    elif fields.get("tool_calls"):
        raise InputError(f"the role {role} makes tool calls; only an assistant can")
    else:
        turns.results(parts)
        turns.say(role, parts)


def _tools(row: dict) -> Any:
    """Function docs of a row, or of the call of a model that a run records."""
    extra = row.get("extra") if isinstance(row.get("extra"), dict) else {}
    asked = extra.get("invocation_params") if isinstance(extra.get("invocation_params"), dict) else {}
    inputs = row.get("inputs") if isinstance(row.get("inputs"), dict) else {}
    return next((r["tools"] for r in (row, asked, inputs) if isinstance(r.get("tools"), list)), [])
