"""Terminus (1 and 2) episodes -> trajectories: every turn is JSON with keystrokes for a terminal.

    {"analysis": "...", "plan": "...", "commands": [{"keystrokes": "ls\\n", "duration": 0.1}],
     "task_complete": false}

Read as chat messages (rows of JSONL or parquet, `openai_chat`'s forms), or as the folder that terminal-bench
writes: episode-0/prompt.txt, episode-0/response.txt, episode-1/... The JSON stays the assistant's content, as
the model wrote it. A turn without such JSON, or with anything but a think block around it, is skipped
(unparseable_call): Terminus warns about it, and no verifier accepts it; so are the turns of Terminus 2's
XML form. A turn that types nothing and does not finish is skipped too (no_action).
"""

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pivotrl_jax.chat.json_text import read_object, strict_json
from pivotrl_jax.records import InputError, Message, Trajectory
from pivotrl_jax.trajectories.readers import building, files, openai_chat
from pivotrl_jax.trajectories.readers.building import NO_ACTION, UNPARSEABLE_CALL
from pivotrl_jax.trajectories.readers.files import Document

VERIFIER = "terminal"

FOLDER = re.compile(r"episode-(\d{1,6})")


def turn(content: str) -> tuple[tuple[str, ...], bool] | None:
    """(keystrokes of each command, whether it says the task is complete); None if it is not such JSON.

    The verifiers accept nothing around the JSON except a think block before it, so this does not either.
    """
    value = None
    for text in (content, content.rpartition("</think>")[2]):  # keystrokes may hold a </think> too
        try:
            parsed, end = strict_json(text.strip())
        except ValueError:
            continue
        if isinstance(parsed, dict) and end == len(text.strip()):
            value = parsed
            break
    commands = value.get("commands") if value else None
    if not isinstance(commands, list):
        return None
    keys = [c.get("keystrokes") if isinstance(c, dict) else None for c in commands]
    if not all(isinstance(k, str) for k in keys):
        return None
    return tuple(keys), value.get("task_complete", value.get("is_task_complete")) is True


def recognise(sample: Any, path: Path) -> bool:
    """Whether it is a row of messages with an assistant turn that types."""
    if isinstance(sample, list) and sample and isinstance(sample[0], dict) and "role" not in sample[0]:
        sample = sample[0]
    messages = sample if isinstance(sample, list) else None
    if isinstance(sample, dict):
        try:
            messages = openai_chat.messages_of(sample)
        except InputError:
            return False
    for message in messages if isinstance(messages, list) else []:
        if isinstance(message, dict) and message.get("role") == "assistant":
            content = message.get("content")
            if isinstance(content, str) and not message.get("tool_calls") and turn(content):
                return True
    return False


def holds(path: Path) -> bool:
    """Whether it is a folder of episodes."""
    return path.is_dir() and bool(episode_folders(path))


def documents(path: Path) -> Iterable[Document]:
    """The documents of a file. A folder of episodes is one document: its path."""
    return [(str(path), path)] if path.is_dir() else files.documents(path)


def episodes(document: Any, where: str) -> Iterable[Document]:
    """The rows of a document, each at "file:number"; a folder is one episode."""
    return [(where, document)] if isinstance(document, Path) else openai_chat.episodes(document, where)


def trajectory(document: Any, where: str) -> Trajectory:
    """One row of chat messages, or one folder. Raises InputError."""
    if isinstance(document, Path):
        return _typed(_folder(document))
    row = openai_chat.trajectory(document, where)
    unnamed = isinstance(document, dict) and document.get("scenario") is None
    task = document.get("task") if unnamed else None
    scenario = task if isinstance(task, str) else row.scenario
    unused = tuple(name for name in row.unused if name != "task")
    return _typed(dataclasses.replace(row, scenario=scenario, tools=[], unused=unused))


def _typed(trajectory: Trajectory) -> Trajectory:
    """The trajectory, checked; turns that type nothing or cannot be read are skipped."""
    skip = {}
    for i, message in enumerate(trajectory.messages):
        if message["role"] == "assistant":
            action = turn(message["content"])
            if action is None:
                skip[i] = UNPARSEABLE_CALL
            elif not any(action[0]) and not action[1]:
                skip[i] = NO_ACTION
    skip |= trajectory.skip
    return building.checked(dataclasses.replace(trajectory, source="terminus", verifier=VERIFIER, skip=skip))


# ---- folders


def episode_folders(path: Path) -> list[Path]:
    """episode-0, episode-1, ... inside a folder, in order; only those with a response."""
    folders = [(int(m[1]), p) for p in path.iterdir() if (m := FOLDER.fullmatch(p.name)) and p.is_dir()]
    return [p for _, p in sorted(folders) if (p / "response.txt").is_file()]


def _folder(path: Path) -> Trajectory:
    messages: list[Message] = []
    for episode in episode_folders(path):
        for name, role in (("prompt.txt", "user"), ("response.txt", "assistant")):
            try:
                messages.append({"role": role, "content": (episode / name).read_text(encoding="utf-8")})
            except (OSError, UnicodeDecodeError) as e:
                raise InputError(f"{episode / name} cannot be read ({type(e).__name__})") from None
    trial = path.parent if path.name == "agent-logs" else path
    return Trajectory(
        id=trial.name,
        messages=messages,
        tools=[],
        source="terminus",
        scenario=trial.name.partition(".")[0],
        verifier=VERIFIER,
        origin=str(path),
        reward=_resolved(trial),
    )


def _resolved(trial: Path) -> float | None:
    try:
        return building.number(read_object((trial / "results.json").read_bytes()).get("is_resolved"))
    except (InputError, OSError):
        return None
