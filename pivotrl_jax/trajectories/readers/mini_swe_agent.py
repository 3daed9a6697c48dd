"""mini-swe-agent trajectories (.traj.json): a bash-only agent that repairs a repository.

These forms are read: a bare list of messages (before version 1), {"info", "messages", "trajectory_format"}
with the command in a fence or between <mswea_bash_command> tags, and version 2 with native tool calls, as
chat messages or as responses and items of the Responses API. A command in the text becomes a call of `bash`
with {"command": ...}; its thought stays as content. The observation, which the file holds as a user message,
becomes the call's result. The system prompt is kept as it was and may still ask for a fence. A turn without
exactly one command stays text and is skipped (unparseable_call).

A result carries "error": True if the agent could not run the command (`exception_info`), if the shell could
not (return codes 126, 127), or if the command was killed for taking too long. The agent records no reward,
since the repair is tested elsewhere; `resolved` is the reward if it was added to the file.
"""

import re
from pathlib import Path
from typing import Any

from pivotrl_jax.chat.messages import require, tool_call
from pivotrl_jax.chat.reasoning import reasoning_of
from pivotrl_jax.records import Trajectory
from pivotrl_jax.trajectories.readers import building
from pivotrl_jax.trajectories.readers.building import UNPARSEABLE_CALL
from pivotrl_jax.trajectories.readers.turns import Parts, Turns, call_of, read_parts, thought
from pivotrl_jax.trajectories.readers.unread import MESSAGE, unread

VERIFIER = "swe"

# what begins a command, and what ends it
OPENING = re.compile(r"```(?:mswea_bash_command|bash)[ \t]*\n|<mswea_bash_command>")
TAG = "<mswea_bash_command>"
CLOSINGS = {True: "</mswea_bash_command>", False: "```"}

RETURN_CODE = re.compile(r"<returncode>\s*(-?\d+)\s*</returncode>")

# what the agent's templates say of a command that did not run to its end
STOPPED = re.compile(r"\s*(<exception>|The last command <command>.{0,20000}?</command> timed out)", re.DOTALL)

# the file, and its messages with what the API returned beside them
READ = "messages info instance_id resolved trajectory_format"
MESSAGE_READ = (
    MESSAGE
    + """ extra object output call_id
    completed_at error incomplete_details instructions metadata parallel_tool_calls temperature tool_choice
    tools top_p max_output_tokens previous_response_id reasoning text truncation user background store """
)


def recognise(sample: Any, path: Path) -> bool:
    """Looks for `trajectory_format` or `mini_version`; in a bare list, for fences or return codes."""
    if isinstance(sample, dict):
        info = sample.get("info") if isinstance(sample.get("info"), dict) else {}
        named = str(sample.get("trajectory_format", "")).startswith("mini-swe-agent")
        return isinstance(sample.get("messages"), list) and (named or "mini_version" in info)
    if not isinstance(sample, list):
        return False
    contents = [m.get("content") for m in sample if isinstance(m, dict) and "role" in m]
    contents = [c for c in contents if isinstance(c, str)]
    return any("mswea_bash_command" in c or RETURN_CODE.match(c) for c in contents)


def trajectory(document: Any, where: str) -> Trajectory:
    """One episode. Raises InputError."""
    if isinstance(document, list):
        document = {"messages": document}
    require(document, dict, "a trajectory")
    info = document.get("info") if isinstance(document.get("info"), dict) else {}
    turns = Turns()
    for i, message in enumerate(require(document.get("messages"), list, '"messages"')):
        _add(turns, require(message, dict, f"messages[{i}]"))
    name = document.get("instance_id") or info.get("instance_id")
    name = name if isinstance(name, str) else building.stem(where)
    return building.checked(
        Trajectory(
            messages=turns.messages,
            id=name,
            origin=where,
            source="mini_swe_agent",
            scenario=name,
            verifier=VERIFIER,
            tools=[building.BASH_TOOL],
            reward=building.number(info.get("resolved", document.get("resolved"))),
            skip=turns.skip,
            unused=unread([document], READ) + unread(document["messages"], MESSAGE_READ, "messages"),
            dialect="" if _is_native(document) else "bash_fence",
        )
    )


def _is_native(document: dict) -> bool:
    """Whether its model called the shell by the API, and not by a fence or a tag in its text."""
    messages = [m for m in document["messages"] if isinstance(m, dict)]
    return any(m.get("tool_calls") or m.get("object") == "response" for m in messages)


def _add(turns: Turns, message: dict) -> None:
    role = message.get("role")
    if role == "exit":  # version 2 ends with the submission
        return
    if message.get("object") == "response":
        turns.answer(_response(message))
        return
    if message.get("type") == "function_call_output":
        parts = read_parts(message.get("output"))
        turns.result(message.get("call_id"), parts, _failed(parts.text, message))
        return
    parts = read_parts(message.get("content"))
    if role == "assistant":
        calls = require(message.get("tool_calls") or [], list, '"tool_calls"')
        parts.calls = [call_of(require(call, dict, "a tool call")) for call in calls]
        if not parts.calls:
            commands, rest = _commands(parts.text)
            commands = commands if len(commands) == 1 else _actions(message)
            if len(commands) == 1:
                parts.calls = [tool_call("bash", {"command": commands[0]})]
                parts.text = rest
        parts.reasoning = parts.reasoning or reasoning_of(message)
        turns.answer(parts)
        if not parts.calls:
            turns.skip.setdefault(len(turns.messages) - 1, UNPARSEABLE_CALL)
    elif role == "tool" or (role == "user" and turns.open and turns.open[0][0] is None):
        turns.result(message.get("tool_call_id"), parts, _failed(parts.text, message))
    else:
        turns.say(role, parts)


def _commands(text: str) -> tuple[list[str], str]:
    """(the commands in a text, the text without them). Linear in the text's length."""
    commands, rest, at, unclosed = [], [], 0, set()
    for opening in OPENING.finditer(text):
        is_tag = opening[0] == TAG
        if opening.start() < at or is_tag in unclosed:
            continue
        end = text.find(CLOSINGS[is_tag], opening.end())
        if end < 0:
            unclosed.add(is_tag)
            continue
        command = text[opening.end() : end]
        commands.append(command.strip() if is_tag else command.removesuffix("\n"))
        rest.append(text[at : opening.start()])
        at = end + len(CLOSINGS[is_tag])
    return commands, "".join([*rest, text[at:]]).strip()


def _actions(message: dict) -> list[str]:
    """The commands that the agent found in its model's text, where the file tells them."""
    extra = message.get("extra") if isinstance(message.get("extra"), dict) else {}
    actions = extra.get("actions") if isinstance(extra.get("actions"), list) else []
    return [a["command"] for a in actions if isinstance(a, dict) and isinstance(a.get("command"), str)]


def _response(message: dict) -> Parts:
    """The turn in a response of the Responses API."""
    turn = Parts()
    for item in require(message.get("output"), list, "the output of a response"):
        kind = require(item, dict, "an item").get("type")
        if kind == "reasoning":
            turn.reasoning = "\n".join(t for t in (turn.reasoning, thought(item)) if t)
        elif kind == "function_call":
            turn.calls.append(call_of(item))
        else:
            parts = read_parts(item.get("content") if kind == "message" else [item])
            turn.text, turn.other = turn.text + parts.text, turn.other + parts.other
    return turn


def _failed(content: str, message: dict) -> bool:
    extra = message.get("extra") if isinstance(message.get("extra"), dict) else {}
    match = RETURN_CODE.match(content.lstrip())
    code = extra.get("returncode", match[1] if match else None)
    return bool(extra.get("exception_info")) or building.could_not_run(code) or bool(STOPPED.match(content))
