"""mini-swe-agent trajectories (.traj.json): a bash-only agent that repairs a repository.

Three forms are read: a bare list of messages (before version 1), {"info", "messages", "trajectory_format"}
with the command in a fence, and version 2 with native tool calls. A fenced command becomes a call of `bash`
with {"command": ...}; its thought stays as content. The observation, which the file holds as a user message,
becomes the call's result. The system prompt is kept as it was and may still ask for a fence. A turn without
exactly one fence stays text and is skipped (unparseable_call).

A result with a nonzero return code carries "error": True. The agent records no reward, since the repair is
tested elsewhere; `resolved` is the reward if it was added to the file.
"""

import re
from pathlib import Path
from typing import Any

from pivotrl_jax.chat.messages import content_text, lenient_tool_calls, require, tool_call
from pivotrl_jax.records import InputError, Message, Trajectory
from pivotrl_jax.trajectories.readers import building
from pivotrl_jax.trajectories.readers.building import UNPARSEABLE_CALL

VERIFIER = "swe"

FENCE = re.compile(r"```(?:mswea_bash_command|bash)[ \t]*\n(.*?)\n?```", re.DOTALL)

RETURN_CODE = re.compile(r"<returncode>\s*(-?\d+)\s*</returncode>")


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
    return any("```mswea_bash_command" in c or RETURN_CODE.match(c) for c in contents)


def trajectory(document: Any, where: str) -> Trajectory:
    """One episode. Raises InputError."""
    if isinstance(document, list):
        document = {"messages": document}
    require(document, dict, "a trajectory")
    info = document.get("info") if isinstance(document.get("info"), dict) else {}
    messages, skip = _messages(require(document.get("messages"), list, '"messages"'))
    name = document.get("instance_id") or info.get("instance_id")
    name = name if isinstance(name, str) else building.stem(where)
    return building.checked(
        Trajectory(
            messages=messages,
            id=name,
            origin=where,
            source="mini_swe_agent",
            scenario=name,
            verifier=VERIFIER,
            tools=[building.BASH_TOOL],
            reward=building.number(info.get("resolved", document.get("resolved"))),
            skip=skip,
        )
    )


def _messages(raw: list) -> tuple[list[Message], dict[int, str]]:
    messages: list[Message] = []
    skip: dict[int, str] = {}
    waiting = False  # whether the last turn made a fenced call that has no result yet
    for i, message in enumerate(raw):
        role = require(message, dict, f"messages[{i}]").get("role")
        extra = message.get("extra") if isinstance(message.get("extra"), dict) else {}
        if role == "exit":  # version 2 ends with the submission
            continue
        content = content_text(message.get("content"))
        if role == "assistant":
            calls = lenient_tool_calls(message.get("tool_calls"))
            waiting = False
            if not calls:
                fences = FENCE.findall(content)
                if len(fences) == 1:
                    calls = [tool_call("bash", {"command": fences[0]})]
                    content = FENCE.sub("", content).strip()
                    waiting = True
                else:
                    skip[len(messages)] = UNPARSEABLE_CALL
            messages.append({**_reasoning(message), "role": role, "content": content, "tool_calls": calls})
        elif role == "tool" or (role == "user" and waiting):
            result = {"role": "tool", "tool_call_id": message.get("tool_call_id"), "content": content}
            failed = _return_code(content, extra) not in (None, 0)
            messages.append({**result, "error": True} if failed else result)
            waiting = False
        elif role is None and "type" in message:
            raise InputError(f"messages[{i}] is an item of the Responses API; only chat messages are read")
        else:
            messages.append({"role": role, "content": content})
    return messages, skip


def _reasoning(message: dict) -> dict:
    value = message.get("reasoning_content")
    return {"reasoning_content": value} if isinstance(value, str) else {}


def _return_code(content: str, extra: dict) -> int | None:
    if isinstance(extra.get("returncode"), int):
        return extra["returncode"]
    match = RETURN_CODE.match(content.lstrip())
    return int(match[1][:9]) if match else None
