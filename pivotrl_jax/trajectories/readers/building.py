"""What readers build trajectories with: checks, ids, rewards, and the reasons to skip a turn."""

import dataclasses
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pivotrl_jax.chat.messages import UNPARSEABLE, read_messages
from pivotrl_jax.chat.tools import read_tools
from pivotrl_jax.records import InputError, Message, Trajectory

# Why an assistant turn gives no candidate: the values of `Trajectory.skip`.
GREETING = "greeting"  # it answers nobody: no user has spoken yet
NO_ACTION = "no_action"  # it says and does nothing, or lacks the action that its format requires
UNPARSEABLE_CALL = "unparseable_call"  # its action cannot be read
CALL_ERROR = "call_error"  # the environment answered with an error
REPEATED = "repeated"  # the same action has been demonstrated often enough
CONTEXT = "context"  # shown to the policy, not demonstrated: an example, or a copy of an earlier episode
NOT_TEXT = "not_text"  # an image or another content that is not text came before it

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
    messages = read_messages(loose)
    for message, original in zip(messages, loose):
        if message["role"] == "tool" and original.get("error") is True:
            message["error"] = True
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
        tools=read_tools(trajectory.tools),
        cases={i: case for i in turns} if case else trajectory.cases,
        skip=plain_skips(messages, turns) | trajectory.skip,
    )


def plain_skips(messages: list[Message], turns: Iterable[int]) -> dict[int, str]:
    """Index -> reason, for those of `turns` that give no candidate in any format."""
    first_input = next((i for i, m in enumerate(messages) if m["role"] in ("user", "tool")), len(messages))
    skip = {}
    for i in turns:
        calls = messages[i].get("tool_calls") or []
        if i == 0 or (i < first_input and not calls):
            skip[i] = GREETING
        elif any(UNPARSEABLE in c["function"]["arguments"] for c in calls):
            skip[i] = UNPARSEABLE_CALL
        elif not calls and not messages[i]["content"].strip():
            skip[i] = NO_ACTION
    return skip


def reasoning_of(message: dict) -> str:
    """The thinking that a message holds apart from its content, under any of its public names."""
    for key in ("reasoning_content", "reasoning", "thinking"):
        if isinstance(message.get(key), str) and message[key]:
            return message[key]
    for key in ("thinking_blocks", "reasoning_details"):
        blocks = message.get(key) if isinstance(message.get(key), list) else []
        found = [
            b.get("thinking") or b.get("text") or b.get("summary") for b in blocks if isinstance(b, dict)
        ]
        if texts := [text for text in found if isinstance(text, str)]:
            return "\n".join(texts)
    return ""


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
