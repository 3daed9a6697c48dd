"""What all readers share: from loosely typed messages to a checked Trajectory."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pivotrl_jax.chat import messages as messages_lib
from pivotrl_jax.chat.messages import UNPARSEABLE
from pivotrl_jax.records import InputError, Message, Trajectory
from pivotrl_jax.trajectories.readers.files import Document

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


def number(value: Any) -> float | None:
    """A reward as recorded: a number, or a yes or no; None for anything else."""
    return float(value) if isinstance(value, (bool, int, float)) and abs(value) < 1e9 else None


def trajectory(
    raw: list[Message],
    *,
    id: str,
    origin: str,
    source: str,
    scenario: str,
    verifier: str,
    tools: Any = None,
    reward: float | None = None,
    skip: Mapping[int, str] | None = None,
    case: dict | None = None,
) -> Trajectory:
    """Check `raw` messages and build the Trajectory. Raises InputError.

    A result message may carry "error": True, which stays: the source itself says that the call failed. `skip`
    counts in `raw`; turns that answer nothing, say nothing, or hold an unreadable call are added to it.
    `case` goes to every assistant turn.
    """
    if any(isinstance(m, dict) and m.get("role") == "tool" for m in raw[:1]):
        raise InputError("the first message is a tool result; the call before it is missing")
    messages = messages_lib.read_messages(raw)
    for message, loose in zip(messages, raw):
        if message["role"] == "tool" and loose.get("error") is True:
            message["error"] = True
    turns = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    if not turns:
        raise InputError("no assistant turn, so nothing is demonstrated")
    try:
        json.dumps(messages, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (ValueError, RecursionError) as e:  # UnicodeEncodeError is a ValueError
        raise InputError(f"the messages cannot be written as JSON ({type(e).__name__})") from None
    return Trajectory(
        id,
        messages,
        messages_lib.read_tools(tools),
        source,
        scenario,
        verifier,
        {i: case for i in turns} if case else {},
        origin,
        reward,
        plain_skips(messages, turns) | dict(skip or {}),
    )


def read_documents(
    source: Iterable[Document],
    episodes: Callable[[Any, str], Iterable[Document]],
    trajectory: Callable[[Any, str], Trajectory],
) -> tuple[list[Trajectory], dict[str, str]]:
    """(trajectories, where -> why an episode is missing).

    `episodes` takes a document apart, `trajectory` reads one episode; both may raise InputError, and an
    episode may be one.
    """
    trajectories: list[Trajectory] = []
    named: dict[str, str] = {}
    for where, document in source:
        try:
            if isinstance(document, InputError):
                raise document
            parts = list(episodes(document, where))
        except InputError as e:
            named[where] = str(e)
            continue
        if not parts:
            named[where] = "no episode in it"
        for place, episode in parts:
            try:
                if isinstance(episode, InputError):
                    raise episode
                trajectories.append(trajectory(episode, place))
            except InputError as e:
                named[place] = str(e)
    return trajectories, named


def unrolled(document: Any, where: str, recognise: Callable[[Any, Path], bool]) -> Iterator[Document]:
    """The `episodes` of a format whose documents are single episodes, or lists of them."""
    if isinstance(document, list) and not recognise(document, Path(where)):
        yield from ((f"{where}:{i}", one) for i, one in enumerate(document, 1))
    else:
        yield where, document


def stem(where: str) -> str:
    """What a place is called in ids: the file's name without its endings, and the numbers if there are any.

    >>> stem("runs/django__django-1.traj.json"), stem("rows.jsonl:3")
    ('django__django-1', 'rows:3')
    """
    path, numbers = re.fullmatch(r"(.*?)((?::\d+)*)", where, re.DOTALL).groups()
    return re.sub(r"(\.(json|jsonl|ndjson|parquet|traj|trajectory))+$", "", Path(path).name) + numbers


GREETING = "greeting"  # it answers nobody: no user has spoken yet


NO_ACTION = "no_action"  # it says and does nothing, or its format wants an action and it has none


UNPARSEABLE_CALL = "unparseable_call"  # its action cannot be read


CALL_ERROR = "call_error"  # the environment answered with an error


REPEATED = "repeated"  # the same action was demonstrated often enough


CONTEXT = "context"  # given to the policy, not demonstrated: an example, or a copy of an earlier episode


def plain_skips(messages: list[Message], turns: Iterable[int]) -> dict[int, str]:
    """The turns among `turns` that are no candidates whatever the source."""
    spoken = next((i for i, m in enumerate(messages) if m["role"] in ("user", "tool")), len(messages))
    skip = {}
    for i in turns:
        calls = messages[i].get("tool_calls") or []
        if i == 0 or (i < spoken and not calls):
            skip[i] = GREETING
        elif any(UNPARSEABLE in c["function"]["arguments"] for c in calls):
            skip[i] = UNPARSEABLE_CALL
        elif not calls and not messages[i]["content"].strip():
            skip[i] = NO_ACTION
    return skip
