"""SWE-agent trajectories (.traj): shell and editor commands that repair a repository.

Read from `history`, which is what the model saw and all that some files hold, in both of SWE-agent's styles:

- function calls: the message's own `tool_calls`; some files hold them as the printed Python list, which is
  read as a literal and never evaluated;
- thought and action: text with the command in its last ``` block. The command, which may be an editor command
  ("edit 10:12 ..."), becomes a call of `bash` with {"command": ...}; the thought stays as content. The
  observation, which the file holds as a user message, becomes the call's result. The system prompt is kept as
  it was and may still ask for a block.

Demonstrations inside a history are context. Rows of nebius' SWE-agent set, whose `trajectory` has messages
of the role "ai" with a `text`, are read too. The agent records no reward, since the repair is tested
elsewhere; `resolved` (nebius: `target`) is the reward if it was added to the file. The docs of SWE-agent's
own commands are in its system prompt, not in `tools`.
"""

import ast
import json
from pathlib import Path
from typing import Any

from pivotrl_jax.chat.dialects.plain import outer_fences
from pivotrl_jax.chat.messages import UNPARSEABLE, lenient_tool_calls, require, tool_call
from pivotrl_jax.chat.reasoning import reasoning_of
from pivotrl_jax.records import Trajectory
from pivotrl_jax.trajectories.readers import building
from pivotrl_jax.trajectories.readers.building import NO_ACTION, UNPARSEABLE_CALL
from pivotrl_jax.trajectories.readers.turns import Turns, read_parts
from pivotrl_jax.trajectories.readers.unread import MESSAGE, unread

VERIFIER = "swe"

# What the editor answers to an edit that it did not apply.
REFUSED = ("Your proposed edit has introduced new syntax error", "Your edit was not applied")

# the file, and its messages; nebius' say what to train on, and when the model's knowledge ends
READ = "history trajectory info instance_id resolved target environment replay_config"
MESSAGE_READ = (
    MESSAGE
    + """ agent message_type is_demo thought action tags text system_prompt mask
    cutoff_date """
)


def recognise(sample: Any, path: Path) -> bool:
    """Whether it is an object with a `history` of messages, or with a `trajectory` of nebius' messages."""
    if not isinstance(sample, dict):
        return False
    history, steps = sample.get("history"), sample.get("trajectory")
    asked = ("messages", "conversations", "query", "prompt", "question", "response")
    if {"instruction", "output"} <= sample.keys() or any(key in sample for key in asked):
        return False  # a chat row, whose history may be messages too
    if isinstance(history, list) and (isinstance(steps, list) or (history and _is_message(history[0]))):
        return True
    return isinstance(steps, list) and bool(steps) and _is_message(steps[0]) and "content" not in steps[0]


def _is_message(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and "role" in value
        and bool({"content", "text", "system_prompt"} & value.keys())
    )


def trajectory(document: Any, where: str) -> Trajectory:
    """One episode. Raises InputError."""
    history = require(document, dict, "a trajectory").get("history")
    history = document.get("trajectory") if history is None else history
    history = require(history, list, '"history"')
    history = [_renamed(require(m, dict, f"history[{i}]")) for i, m in enumerate(history)]
    agent = history[0].get("agent") if history else None
    history = [m for m in history if m.get("agent", agent) == agent]  # subroutines have their own history
    native = any(m.get("tool_calls") for m in history)
    turns = Turns()
    for message in history:
        _add(turns, message, native)
    info = document.get("info") if isinstance(document.get("info"), dict) else {}
    name = document.get("instance_id")
    name = name if isinstance(name, str) else building.stem(where)
    return building.checked(
        Trajectory(
            messages=turns.messages,
            id=name,
            origin=where,
            source="swe_agent",
            scenario=name,
            verifier=VERIFIER,
            tools=None if native else [building.BASH_TOOL],
            reward=building.number(info.get("resolved", document.get("resolved", document.get("target")))),
            skip=turns.skip,
            unused=unread([document], READ) + unread(history, MESSAGE_READ, "history"),
            dialect="" if native else "last_fence",
        )
    )


def _renamed(message: dict) -> dict:
    """A message in nebius' form (role "ai", `text` or `system_prompt`), turned into SWE-agent's."""
    if "content" in message or not {"text", "system_prompt"} & message.keys():
        return message
    role = "assistant" if message.get("role") == "ai" else message.get("role")
    return {**message, "role": role, "content": message.get("text") or message.get("system_prompt")}


def _add(turns: Turns, message: dict, native: bool) -> None:
    role, parts = message.get("role"), read_parts(message.get("content"))
    demo = message.get("is_demo") is True
    if role == "assistant":
        parts.calls, why = _calls(message), ""
        if not parts.calls and native:
            why = NO_ACTION
        elif not parts.calls:
            parts.text, command = _thought_and_command(message, parts.text)
            parts.calls = [tool_call("bash", {"command": command})] if command else []
            why = "" if command else UNPARSEABLE_CALL
        parts.reasoning = parts.reasoning or reasoning_of(message)
        turns.answer(parts, context=demo)
        if why:
            turns.skip.setdefault(turns.last, why)
    elif role == "tool" or (role == "user" and turns.open and not native):
        ids = message.get("tool_call_ids")
        id = ids[0] if isinstance(ids, list) and ids else message.get("tool_call_id")
        turns.result(id, parts, parts.text.lstrip().startswith(REFUSED))
    else:
        turns.say(role, parts)


def _calls(message: dict) -> list[dict]:
    calls = message.get("tool_calls")
    if isinstance(calls, str):
        text, calls = calls, _literal(calls)
        if not isinstance(calls, list):
            return [tool_call("unreadable", {UNPARSEABLE: text})]
    return lenient_tool_calls(calls)


def _literal(text: str) -> Any:
    """The value of JSON or of a Python literal; None if the text is neither."""
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text) if len(text) < 1_000_000 else None
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return None


def _thought_and_command(message: dict, content: str) -> tuple[str, str]:
    """(thought, command) as SWE-agent recorded them, else from the last ``` block; command "" if none."""
    thought, action = message.get("thought"), message.get("action")
    if isinstance(thought, str) and isinstance(action, str) and action.strip():
        return thought.strip(), action.rstrip("\n")
    blocks = outer_fences(content)
    if not blocks or not blocks[-1].body.strip():
        return content, ""
    last = blocks[-1]
    return (content[: last.start] + content[last.end :]).strip(), last.body.rstrip("\n")
