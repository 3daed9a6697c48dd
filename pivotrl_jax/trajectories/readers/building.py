"""What readers build trajectories with: checks, ids, rewards, and the reasons to skip a turn."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pivotrl_jax.chat import dialects
from pivotrl_jax.chat.dialects.base import properties_of, schemas_of, types_of
from pivotrl_jax.chat.messages import BAD_CALL, UNPARSEABLE, read_conversation
from pivotrl_jax.chat.reasoning import split_all_thinking, split_thinking
from pivotrl_jax.chat.tools import read_tools
from pivotrl_jax.records import InputError, Message, Trajectory
from pivotrl_jax.trajectories.readers import weights
from pivotrl_jax.trajectories.readers.files import without_undeclared_nulls

# Why an assistant turn gives no candidate: the values of `Trajectory.skip`.
GREETING = "greeting"  # it answers nobody: no user has spoken yet
NO_ACTION = "no_action"  # it says and does nothing, or lacks the action that its format requires
UNPARSEABLE_CALL = BAD_CALL  # its action cannot be read
CALL_ERROR = "call_error"  # the environment answered with an error
REPEATED = "repeated"  # the same action has been demonstrated often enough
CUT = "cut"  # it ends before its end: at the limit of its tokens, by a filter or a failure
CONTEXT = "context"  # shown to the policy, not demonstrated: an example, or a copy of an earlier episode
NO_RESULT = "result_missing"  # a call before it has no result, so its state is not what the agent saw
# and NOT_TEXT, BAD_MESSAGE, BAD_RESULT of chat/messages.py: the state before it was not read whole

BASH_TOOL = {
    "type": "function",
    "function": {
        "name": "bash",
        "description": "Run a command in the shell of the environment.",
        "parameters": {
            "type": "object",
            "properties": {"command": {"type": "string", "description": "The command to run."}},
            "required": ["command"],
        },
    },
}


def checked(trajectory: Trajectory, case: dict | None = None) -> Trajectory:
    """The trajectory with checked messages and tools, and with the turns of `plain_skips` skipped too.

    Messages may still be loosely typed (see `read_messages`); their number and order stay. A result message
    may carry "error": True, which is kept: the source says that the call failed. `case`, if given, becomes
    the case of every assistant turn. Raises InputError.
    """
    loose = trajectory.messages
    if any(isinstance(m, dict) and m.get("role") == "tool" for m in loose[:1]):
        raise InputError("the first message is a tool result; the call before it is missing")
    tools = read_tools(trajectory.tools)
    messages, unread = readable(loose, tools)
    turns = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    if not turns:
        raise InputError("no assistant turn, so nothing is demonstrated")
    try:
        json.dumps(messages, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (ValueError, RecursionError) as e:  # UnicodeEncodeError is a ValueError
        raise InputError(f"the messages cannot be written as JSON ({type(e).__name__})") from None
    return dataclasses.replace(
        trajectory,
        messages=messages,
        tools=tools,
        cases={i: case for i in turns} if case else trajectory.cases,
        skip=plain_skips(messages, turns) | trajectory.skip | unread,
        dialect=trajectory.dialect or ("native" if any(m.get("tool_calls") for m in messages) else ""),
    )


def readable(loose: Any, tools: list[dict]) -> tuple[list[Message], dict[int, str]]:
    """(the messages, checked; index -> slug of the turns that what could not be read leaves out).

    One odd call costs its turn. An odd message, or a missing result, costs the turns from there on, since
    their state is not what the agent saw. Nulls that no function doc declares are no arguments. A result
    keeps "error": True. Raises InputError, with the first fault, if no turn is left.
    """
    messages, faults = read_conversation(loose, _split)
    skip: dict[int, str] = {}
    turns = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    for fault in faults:
        for i in turns:
            if i == fault.index or (fault.onward and i > fault.index):
                skip.setdefault(i, fault.slug)
    if faults and all(i in skip for i in turns):
        raise InputError(f"messages[{faults[0].index}]: {faults[0].sentence}")
    unanswered = _after_missing_result(messages, loose)
    skip = {i: NO_RESULT for i in turns if unanswered is not None and i >= unanswered} | skip
    schemas = schemas_of(tools)
    for message in messages:
        for call in message.get("tool_calls") or ():
            function = call["function"]
            function["arguments"] = declared_arguments(function["arguments"], schemas, function["name"])
    for message, original in zip(messages, loose):
        if message["role"] == "tool" and original.get("error") is True:
            message["error"] = True
    return messages, skip


# what the agent typed or passed stands between tags, and may hold any other
_IN_TAGS = re.compile(r"<(?:keystrokes|commands?|parameter|arg_value|invoke|execute_\w+|function)\b")


def _split(content: str) -> tuple[str, str]:
    """(thinking, the rest) of a demonstration, also from between its words where these are all that it is."""
    first, everywhere = split_thinking(content), split_all_thinking(content)
    acts = first != everywhere and (_IN_TAGS.search(content) or dialects.shows_a_call(content, {}))
    return first if acts else everywhere


BY_ORDER = "by_order"  # of a loose result: it does not say which call it answers, and may answer several


def _after_missing_result(messages: list[Message], loose: list) -> int | None:
    """Index of the first turn that goes on although a call of the turn before it has no result. Where a user
    spoke in between, the agent saw none either."""
    for i, message in enumerate(messages):
        calls = message.get("tool_calls") or ()
        if not calls or any(UNPARSEABLE in c["function"]["arguments"] for c in calls):  # nobody ran these
            continue
        after = i + 1
        while after < len(messages) and messages[after]["role"] == "tool":
            after += 1
        goes_on = after < len(messages) and messages[after]["role"] == "assistant"
        each = all(m.get("tool_call_id") and not m.get(BY_ORDER) for m in loose[i + 1 : after])
        if goes_on and each and after - i - 1 < len(calls):
            return after
    return None


def declared_arguments(arguments: dict, schemas: dict[str, dict], name: str) -> dict:
    """Arguments without the nulls that no property declares, nor of an optional one that cannot be null."""
    properties = properties_of(schemas, name)
    required = schemas.get(name, {}).get("required")
    required = required if isinstance(required, list) else []
    return {
        k: v
        for k, v in without_undeclared_nulls(arguments, schemas.get(name)).items()
        if v is not None or k in required or _admits_null(properties.get(k))
    }


def _admits_null(schema: Any) -> bool:
    types = types_of(schema)
    return not types or "null" in types


_OPEN_THINKING = re.compile(r"(?:\A\s*|\n)<think>")


def plain_skips(messages: list[Message], turns: Iterable[int]) -> dict[int, str]:
    """Index -> reason, for those of `turns` that give no candidate in any format."""
    first_input = next((i for i, m in enumerate(messages) if m["role"] in ("user", "tool")), len(messages))
    skip = {}
    in_words = any(m["role"] == "assistant" and dialects.thinks_and_acts(m["content"]) for m in messages)
    for i in turns:
        calls = messages[i].get("tool_calls") or []
        if i == 0 or (i < first_input and not calls):
            skip[i] = GREETING
        elif any(UNPARSEABLE in c["function"]["arguments"] for c in calls):
            skip[i] = UNPARSEABLE_CALL
        elif not calls and (
            _acts(messages, i) or (in_words and dialects.ACTS.search(messages[i]["content"]))
        ):
            skip[i] = UNPARSEABLE_CALL
        elif _OPEN_THINKING.search(messages[i]["content"]) and "</think>" not in messages[i]["content"]:
            skip[i] = UNPARSEABLE_CALL if calls else CUT
        elif not calls and not messages[i]["content"].strip():
            skip[i] = NO_ACTION
    return skip


def told(message: Message) -> str:
    """Why a loosely typed assistant's message is no demonstration, by its own word; "" if it is one."""
    return CONTEXT if weights.is_context(message) else CUT if weights.is_cut(message) else ""


def told_of_row(row: dict, turns: Sequence[int]) -> dict[int, str]:
    """Index -> reason, for the turns that a row's own weight (all) or label (the last) leaves out."""
    if weights.is_no(row.get("weight")):
        return dict.fromkeys(turns, CONTEXT)
    return {turns[-1]: CONTEXT} if any(weights.is_no(row.get(k)) for k in weights.LABELS) else {}


def _acts(messages: list[Message], i: int) -> bool:
    """Whether a turn without calls acted, in a form that we did not read or that its environment did not
    execute: its text shows a call, or it was answered as calls are."""
    after = messages[i + 1] if i + 1 < len(messages) else {"role": "", "content": ""}
    answered = after["role"] == "user" and dialects.OBSERVATION.match(after["content"])
    return bool(answered) or dialects.shows_a_call(messages[i]["content"], {})


def opening(messages: Iterable[Message]) -> str:
    """The scenario of an episode whose source does not name the task: a hash of all that was said to the
    assistant before its first answer.

    Attempts at one task begin alike, so no split divides them. A greeting is no answer: where the assistant
    talks before anybody else has spoken, what it is then told belongs to the opening.
    """
    said, spoken = [], False
    for message in messages:
        if message["role"] == "tool" or message.get("tool_calls"):
            break
        if message["role"] == "assistant":
            if spoken:
                break
        else:
            said.append([message["role"], message.get("content")])
            spoken |= message["role"] == "user"
    return "opening:" + hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def until_fault(
    items: Iterable[Any], add: Callable[[Any], None], what: str, messages: list[Message]
) -> tuple[str, ...]:
    """Call `add` with every item, which adds to `messages`. An item that cannot be read ends the episode
    there: the turns before it stay, and the fault is returned for `Trajectory.unused`.

    Raises InputError if there is no turn before it.
    """
    for i, item in enumerate(items):
        try:
            add(item)
        except InputError as e:
            if not any(m["role"] == "assistant" for m in messages):
                raise InputError(f"{what}[{i}]: {e}") from None
            return (f"{what} from {i} on ({e})",)
    return ()


def skip_last(messages: list[Message], skip: dict[int, str]) -> None:
    """Skip a turn at the very end of an episode that was cut there: the call that it made may be missing."""
    if messages and messages[-1]["role"] == "assistant":
        skip.setdefault(len(messages) - 1, UNPARSEABLE_CALL)


def could_not_run(exit_code: Any) -> bool:
    """Whether a shell's exit code says that the command itself could not be run: 126 (not executable) or 127
    (not found).

    No other code says that a call was wrong: 1 is also grep without a match, diff with a difference, and a
    test that fails.
    """
    return str(exit_code) in ("126", "127")


def named(row: dict, fields: Iterable[str], default: str) -> str:
    """The first of a row's fields that holds a name or a number, as text; else `default`."""
    for field in fields:
        value = row.get(field)
        if isinstance(value, (str, int)) and not isinstance(value, bool) and value != "":
            return str(value)
    return default


def number(value: Any) -> float | None:
    """A recorded reward: a number or a boolean; None for anything else."""
    return float(value) if isinstance(value, (bool, int, float)) and abs(value) < 1e9 else None


def stem(where: str) -> str:
    """A place as a part of ids: the file's name without its endings, with the numbers if there are any.

    >>> stem("runs/django__django-1.traj.json"), stem("rows.jsonl:3")
    ('django__django-1', 'rows:3')
    """
    path, numbers = re.fullmatch(r"(.*?)((?::\d+)*)", where, re.DOTALL).groups()
    return re.sub(r"(\.(json|jsonl|ndjson|parquet|traj|trajectory))+$", "", Path(path).name) + numbers
