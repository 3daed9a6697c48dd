"""Inspect logs -> trajectories: .json files, and .eval files, which are zip archives of JSON.

    {"version": 2, "status": "success", "eval": {"task": "t"}, "samples": [
        {"id": 1, "epoch": 1, "messages": [{"role": "user", "content": "..."}, {"role": "assistant",
            "content": "", "tool_calls": [{"id": "c1", "function": "ls", "arguments": {}}]}, ...],
         "scores": {"match": {"value": "C"}}, "attachments": {...}, "events": [...]}]}

A sample is a trajectory, and its epochs are attempts at one scenario. The reward is the first score: a
number, or a letter (C 1, P 0.5, I and N 0). `attachment://...` in a text is replaced by what it stands for. A
result with an `error` is an error, and its text is what the model saw of it. Assistant messages of the input
are context. Function docs come from the calls of the model among the events.
"""

import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pivotrl_jax.chat.json_text import MAX_NESTING, nesting, read_value
from pivotrl_jax.chat.messages import require
from pivotrl_jax.chat.reasoning import reasoning_of
from pivotrl_jax.records import InputError, Trajectory
from pivotrl_jax.trajectories.readers import base, building, files
from pivotrl_jax.trajectories.readers.files import Document
from pivotrl_jax.trajectories.readers.turns import Turns, call_of, function_docs, read_parts, unreadable
from pivotrl_jax.trajectories.readers.unread import MESSAGE, unread

ATTACHMENT = re.compile(r"attachment://([0-9a-f]{32})")

LETTERS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}

# what zipfile raises for archives that are damaged, encrypted, or packed in a way that it does not know
UNREADABLE = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    OSError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    KeyError,
    ValueError,
)

MAX_MEMBER = 256 << 20  # bytes of one sample, unpacked
MAX_TEXT = 64 << 20  # characters of one sample's messages, with attachments

# what a log holds beside its samples
LOG_READ = "eval samples status plan results stats reductions log_updates location etag"
# what the sample is, what it was made from, and how its run went
READ = """
    eval log messages events transcript events_data timelines attachments scores score epoch
    samples status plan results input target choices output metadata store files sandbox setup
    stats role_usage """
MESSAGE_READ = MESSAGE + " source function error internal"


def recognise(sample: Any, path: Path) -> bool:
    """Whether it is a log, or a sample of an .eval archive."""
    if not isinstance(sample, dict) or not isinstance(sample.get("eval"), dict):
        return False
    return isinstance(sample.get("samples"), list) or ("epoch" in sample and "messages" in sample)


def holds(path: Path) -> bool:
    """Whether a file is a zip archive of the form that Inspect writes."""
    return path.suffix == ".eval" and path.is_file()


def documents(path: Path) -> Iterable[Document]:
    """The documents of a JSON file, or the samples of an archive, each with the header's `eval`."""
    return _members(path) if path.suffix == ".eval" else files.documents(path)


def _members(path: Path) -> Iterator[Document]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            header = next((n for n in ("header.json", "_journal/start.json") if n in names), None)
            info = _member(archive, header).get("eval") if header else None
            info = info if isinstance(info, dict) else {}
            samples = [n for n in names if n.startswith("samples/") and n.endswith(".json")]
            for number, name in enumerate(samples, 1):
                try:
                    yield f"{path}:{number}", {**_member(archive, name), "eval": info}
                except InputError as e:
                    yield f"{path}:{number}", InputError(f"{name}: {e}")
    except UNREADABLE as e:
        raise InputError(f"{path}: no readable .eval archive ({e})") from None


def _member(archive: zipfile.ZipFile, name: str) -> dict:
    try:
        with archive.open(name) as f:
            raw = f.read(MAX_MEMBER + 1)
    except UNREADABLE as e:
        raise InputError(f"cannot be unpacked ({e})") from None
    if len(raw) > MAX_MEMBER:
        raise InputError(f"it is larger than {MAX_MEMBER >> 20} MiB; split the log")
    return require(read_value(raw), dict, "a member of the archive")


def episodes(document: Any, where: str) -> Iterable[Document]:
    """The samples of a log, each at "file:number"."""
    for place, log in base.unrolled(document, where, recognise):
        if "samples" not in require(log, dict, "a log"):
            yield place, log
            continue
        for i, sample in enumerate(require(log["samples"], list, '"samples"'), 1):
            found = isinstance(sample, dict)
            yield (
                f"{place}:{i}",
                {**sample, "eval": log.get("eval"), "log": log} if found else InputError("no sample"),
            )


def trajectory(sample: Any, where: str) -> Trajectory:
    """One sample. Raises InputError."""
    info = require(sample, dict, "a sample").get("eval")
    task = building.named(info, ("task",), "inspect") if isinstance(info, dict) else "inspect"
    attachments = sample.get("attachments") if isinstance(sample.get("attachments"), dict) else {}
    messages = _resolved(require(sample.get("messages"), list, '"messages"'), attachments, [MAX_TEXT])
    turns = Turns()
    unused = building.until_fault(messages, lambda m: _add(turns, m), "messages", turns.messages)
    unused += (
        unread([sample.get("log")], LOG_READ, "log")
        + unread([sample], READ)
        + unread(messages, MESSAGE_READ, "messages")
    )
    tools = function_docs(_resolved(_tools(sample.get("events")), attachments, [MAX_TEXT]))
    id = building.named(sample, ("id",), "?")
    dialect, tools = turns.read_text_calls(tools)
    return building.checked(
        Trajectory(
            messages=turns.messages,
            id=f"{task}:{id}:{building.named(sample, ('epoch',), '1')}",
            origin=where,
            source="inspect_log",
            scenario=f"{task}:{id}",
            verifier=turns.verifier(tools),
            tools=tools,
            reward=_reward(sample),
            skip=turns.skip,
            dialect=dialect,
            unused=unused,
        )
    )


def _resolved(value: Any, attachments: dict, left: list[int]) -> Any:
    """`value` with its attachments. `left` is how many characters may still be put in."""
    if nesting(value) > MAX_NESTING:
        raise InputError(f"a sample is nested deeper than {MAX_NESTING} levels")
    return _with_texts(value, attachments, left)


def _with_texts(value: Any, attachments: dict, left: list[int]) -> Any:
    if isinstance(value, dict):
        return {k: _with_texts(v, attachments, left) for k, v in value.items()}
    if isinstance(value, list):
        return [_with_texts(v, attachments, left) for v in value]
    if not isinstance(value, str) or "attachment://" not in value:
        return value

    def text(match: re.Match) -> str:
        found = attachments.get(match[1])
        left[0] -= len(found) if isinstance(found, str) else 0
        if left[0] < 0:
            raise InputError(f"with its attachments a sample is larger than {MAX_TEXT >> 20} MiB")
        return found if isinstance(found, str) else match[0]

    return ATTACHMENT.sub(text, value)


def _add(turns: Turns, message: Any) -> None:
    require(message, dict, "a message")
    parts, role, error = read_parts(message.get("content")), message.get("role"), message.get("error")
    if role == "assistant":
        for call in require(message.get("tool_calls") or [], list, '"tool_calls"'):
            broken = require(call, dict, "a call").get("parse_error")
            parts.calls.append(unreadable(call, call.get("id")) if broken else call_of(call))
        parts.reasoning = parts.reasoning or reasoning_of(message)
        turns.answer(parts, context=message.get("source") == "input")
    elif role == "tool":
        failed = isinstance(error, dict)
        if failed and isinstance(error.get("message"), str) and not parts.text:
            parts.text = error["message"]
        turns.result(message.get("tool_call_id"), parts, failed)
    elif message.get("tool_calls"):
        raise InputError(f"the role {role} makes tool calls; only an assistant can")
    else:
        turns.say("system" if role in ("system", "developer") else "user", parts)


def _tools(events: Any) -> list:
    """The docs of all functions that calls of the model declare."""
    found = {}
    for event in events if isinstance(events, list) else []:
        tools = event.get("tools") if isinstance(event, dict) and event.get("event") == "model" else None
        for tool in tools if isinstance(tools, list) else []:
            if isinstance(tool, dict) and isinstance(tool.get("name"), str):
                found.setdefault(tool["name"], tool)
    return list(found.values())


def _reward(sample: dict) -> float | None:
    scores = sample.get("scores")
    scores = list(scores.values()) if isinstance(scores, dict) else [sample.get("score")]
    for value in (score.get("value") for score in scores if isinstance(score, dict)):
        reward = building.number(_as_number(value) if isinstance(value, str) else value)
        if reward is not None:
            return reward
    return None


def _as_number(value: str) -> float | None:
    """What a score in letters stands for; None if nothing."""
    found = LETTERS.get(value, LETTERS.get(value.lower()))
    try:
        return float(value[:40]) if found is None else found
    except ValueError:
        return None
