"""Terminus (1 and 2) episodes -> trajectories: every turn is JSON with keystrokes for a terminal.

    {"analysis": "...", "plan": "...", "commands": [{"keystrokes": "ls\\n", "duration": 0.1}],
     "task_complete": false}

Read as chat messages (rows of JSONL or parquet, `openai_chat`'s forms), or as the folder that terminal-bench
writes: episode-0/prompt.txt, episode-0/response.txt, episode-1/... The JSON stays the assistant's content, as
the model wrote it. A turn without such JSON, or with anything around it but a think block, is skipped
(unparseable_call): Terminus warns about it, and no verifier accepts it. So is one that types nothing and does
not finish (no_action).
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pivotrl_jax.chat.json_text import strict_json
from pivotrl_jax.records import InputError, Message, Trajectory
from pivotrl_jax.trajectories.readers import base, files, openai_chat
from pivotrl_jax.trajectories.readers.base import NO_ACTION, UNPARSEABLE_CALL

VERIFIER = "terminal"


FOLDER = re.compile(r"episode-(\d{1,6})")


def turn(content: str) -> tuple[tuple[str, ...], bool] | None:
    """(keystrokes of each command, whether it says the task is complete); None: the content is no such JSON.

    The JSON must be alone but for a think block before it, as the verifiers want it.
    """
    value = None
    for text in (content, content.rpartition("</think>")[2]):  # a </think> may also be typed
        try:
            found, end = strict_json(text.strip())
        except ValueError:
            continue
        if isinstance(found, dict) and end == len(text.strip()):
            value = found
            break
    commands = value.get("commands") if value else None
    if not isinstance(commands, list):
        return None
    keys = [c.get("keystrokes") if isinstance(c, dict) else None for c in commands]
    if not all(isinstance(k, str) for k in keys):
        return None
    return tuple(keys), value.get("task_complete", value.get("is_task_complete")) is True


def recognise(sample: Any, path: Path) -> bool:
    """A row of messages one of whose assistant turns types keystrokes; a folder of episodes."""
    if path.is_dir():
        return bool(episode_folders(path))
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


def read(path: Path) -> tuple[list[Trajectory], dict[str, str]]:
    """(trajectories, where -> why an episode is missing)."""
    if path.is_dir():
        try:
            return [_folder(path)], {}
        except InputError as e:
            return [], {str(path): str(e)}
    return base.read_documents(files.documents(path), episodes, trajectory)


def episodes(document: Any, where: str) -> Iterable[files.Document]:
    """The rows of a document, each at "file:number"."""
    return openai_chat.episodes(document, where)


def trajectory(row: Any, where: str) -> Trajectory:
    """One row of chat messages. Raises InputError."""
    made = openai_chat.trajectory(row, where, base.stem(where), VERIFIER)
    task = row.get("task") if isinstance(row, dict) else None
    scenario = task if isinstance(task, str) and made.scenario == made.id else made.scenario
    return _terminal(made.messages, made.id, where, scenario, made.reward, made.skip)


def _terminal(
    messages: list[Message], id: str, where: str, scenario: str, reward: float | None, skip: dict[int, str]
) -> Trajectory:
    why = {}
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            typed = turn(message["content"])
            if typed is None:
                why[i] = UNPARSEABLE_CALL
            elif not any(typed[0]) and not typed[1]:
                why[i] = NO_ACTION
    return base.trajectory(
        messages,
        id=id,
        origin=where,
        source="terminus",
        scenario=scenario,
        verifier=VERIFIER,
        reward=reward,
        skip=why | skip,
    )


# ---- folders


def episode_folders(path: Path) -> list[Path]:
    """episode-0, episode-1, ... inside a folder, in order; those with a response only."""
    found = [(int(m[1]), p) for p in path.iterdir() if (m := FOLDER.fullmatch(p.name)) and p.is_dir()]
    return [p for _, p in sorted(found) if (p / "response.txt").is_file()]


def _folder(path: Path) -> Trajectory:
    messages: list[Message] = []
    for episode in episode_folders(path):
        for name, role in (("prompt.txt", "user"), ("response.txt", "assistant")):
            try:
                messages.append({"role": role, "content": (episode / name).read_text(encoding="utf-8")})
            except (OSError, UnicodeDecodeError) as e:
                raise InputError(f"{episode / name} cannot be read ({type(e).__name__})") from None
    trial = path.parent if path.name == "agent-logs" else path
    return _terminal(messages, trial.name, str(path), trial.name.partition(".")[0], _resolved(trial), {})


def _resolved(trial: Path) -> float | None:
    try:
        return base.number(files.read_row((trial / "results.json").read_bytes()).get("is_resolved"))
    except (InputError, OSError):
        return None
