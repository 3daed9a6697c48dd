"""Trajectories from chat rows: one row per line of JSONL or row of parquet, or a JSON file that holds one
row, a list of rows, or the messages of one conversation.

    {"messages": [...], "tools": [...], "id": "optional", "scenario": "optional", "reward": 1.0}

chat_rows.py lists the forms of rows that are read, and message_forms.py reads their messages; calls may stand
in `tool_calls` or in the text, in any dialect of chat/dialects (text_calls.py). In this project arguments are
objects, thinking is `reasoning_content`, and developer is system. A message with "weight": 0 or "loss": false
is context (weights.py).
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pivotrl_jax.chat.messages import NOT_TEXT
from pivotrl_jax.chat.tools import is_built_in, read_tools
from pivotrl_jax.records import InputError, Message, Trajectory
from pivotrl_jax.trajectories.readers import building, chat_rows, message_forms, row_forms, step_rows, weights
from pivotrl_jax.trajectories.readers.chat_rows import MESSAGE_FIELDS, messages_of
from pivotrl_jax.trajectories.readers.files import Document
from pivotrl_jax.trajectories.readers.text_calls import read_calls
from pivotrl_jax.verifiers.compare.coding_tools import family

IDS = ("id", "traj_id", "trajectory_id", "uuid", "conversation_id", "session_id")
SCENARIOS = ("scenario", "instance_id", "task_id", "problem_id", "task_name")
REWARDS = ("reward", "resolved", "success", "is_resolved", "passed", "is_correct", "correct", "is_success")
REWARDS += ("is_successful", "task_success", "final_reward")
SHELL_DIALECTS = ("bash_fence", "last_fence")  # their calls are named by us
# names of paths of media, which a text may also be without: they count where it shows a mark
PATHS = (
    "image_path",
    "image_paths",
    "image_file",
    "image_files",
    "image_url",
    "image_urls",
    "img",
    "img_path",
)
PATHS += ("img_filename", "screenshot", "screenshots", "video_path", "audio_path")
MEDIA = ("images", "image", "audios", "audio", "videos", "video")


def recognise(sample: Any, path: Path) -> bool:
    """Whether a document looks like a row, rows, or the messages of one conversation."""
    first = sample[0] if isinstance(sample, list) and sample else sample
    if _is_conversation(sample) or step_rows.instances(first):
        return True
    return chat_rows.has_form(first)


def episodes(document: Any, where: str) -> Iterator[Document]:
    """The rows of one document, each at "file:number", counted from 1."""
    numbered = where.rpartition(":")[2].isdigit()
    listed = document if isinstance(document, list) else [document]
    if any(found := [step_rows.instances(one) or [] for one in listed]):
        rows = [row for instances in found for row in instances]
        yield from ((f"{where}:{i}", row) for i, row in enumerate(rows, 1))
        return
    if isinstance(document, list) and document and not numbered and not _is_conversation(document):
        yield from ((f"{where}:{i}", row) for i, row in enumerate(document, 1))
    else:
        yield where if numbered else f"{where}:1", document


def _is_conversation(value: Any) -> bool:
    """Whether a value is a list of messages (judged by its first), not a list of rows."""
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, dict) and ("role" in first or "from" in first) and "messages" not in first


def trajectory(document: Any, where: str) -> Trajectory:
    """One row, or the messages of one conversation. Raises InputError."""
    row = {"messages": document} if _is_conversation(document) else document
    if not isinstance(row, dict):
        raise InputError(f"a JSON {type(row).__name__}, want an object; fix or remove the line")
    given, row = row, row_forms.normal(row)
    id = _name(row, IDS, building.stem(where))
    tools = read_tools(chat_rows.tools_of(row))
    raw = messages_of(row)
    calls = read_calls(raw, tools) if isinstance(raw, list) else None
    messages, skip = building.readable(calls.messages if calls else raw, tools)
    turns = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    if not turns:
        raise InputError("no assistant turn, so nothing is demonstrated; remove the row")
    scenarios = (*SCENARIOS, "task") if isinstance(row.get("trial_name"), str) else SCENARIOS
    said = {i: why for i in turns if (why := building.told(calls.messages[i]))}
    return Trajectory(
        id=id,
        messages=messages,
        tools=tools or ([building.BASH_TOOL] if calls.dialect in SHELL_DIALECTS else []),
        source="openai",
        scenario=_name(row, scenarios, building.opening(messages)),
        verifier=verifier_for(messages, tools),
        origin=where,
        reward=next((r for k in _rewards(row) if (r := _reward(row.get(k))) is not None), None),
        skip=building.plain_skips(messages, turns)
        | calls.skip
        | _media(row, messages)
        | skip
        | said
        | building.told_of_row(row, turns),
        dialect=calls.dialect,
        unused=_unused(row, raw, given),
    )


def _media(row: dict, messages: list[Message]) -> dict[int, str]:
    """Turns from the first image, sound or video on, where the row holds some beside its text, or its text a
    template's tokens for some."""
    marks = [i for i, m in enumerate(messages) if _MARK.search(m["content"])]
    if any(_TOKEN.search(m["content"]) for m in messages) or (marks and any(row.get(k) for k in PATHS)):
        row = {**row, MEDIA[0]: True}
    if not any(row.get(name) and (marks or not _is_container(row[name])) for name in MEDIA):
        return {}
    first = marks[0] if marks else 0
    return {i: NOT_TEXT for i, m in enumerate(messages) if m["role"] == "assistant" and i >= first}


_TOKEN = re.compile(r"<\|(?:vision_start|image_pad|video_pad|audio_pad)\|>")
_MARK = re.compile(rf"<(?:image|audio|video)>|{_TOKEN.pattern}")

# the image of a container: "docker.io/a/b:tag", "a/b@sha256:..."
_CONTAINER = re.compile(r"[\w.\-]+(?::\d+)?(?:/[\w.\-]+)*(?::[\w.\-]+)?(?:@sha256:[0-9a-f]{8,64})?")
_PICTURE = re.compile(r"\.(?:png|jpe?g|webp|gif|bmp|tiff?|svg|mp4|mp3|wav)\Z", re.IGNORECASE)


def _is_container(value: Any) -> bool:
    """Whether a field called "image" names the container that a task ran in, and no picture."""
    if not isinstance(value, str) or len(value) > 300 or _PICTURE.search(value):
        return False
    registry, slash, _ = value.partition("/")
    return bool(_CONTAINER.fullmatch(value)) and (":" in value or bool(slash and "." in registry))


# ---- what was not read

_ROW_FIELDS = {
    *IDS,
    *SCENARIOS,
    *REWARDS,
    *MEDIA,
    *weights.OF_ROW,
    *MESSAGE_FIELDS,
    *chat_rows.TOOL_FIELDS,
    *chat_rows.SYSTEM_FIELDS,
    "response",
    "choices",
    "chat_template_kwargs",
}
_ROW_FIELDS |= {
    "request",
    "prompt",
    "completion",
    "query",
    "answers",
    "instruction",
    "input",
    "output",
    "history",
}


# of an item or a content that another API's row holds in place of a message
_ITEM_KEYS = {"call_id", "arguments", "input", "output", "summary", "encrypted_content", "parts", "phase"}


def _unused(row: dict, raw: list, given: dict) -> tuple[str, ...]:
    """Names of fields with content that nothing was read from. `given` is the row before it got its form."""
    harbor = ("trial_name", "task", *(["result"] if _reward(row.get("result")) is not None else []))
    known = {*_ROW_FIELDS, chat_rows.read_answer(row), *(harbor if row.get("trial_name") else ())}
    fields = [k for k, v in row.items() if k not in known and v not in (None, "", [], {})]
    fields += [k for k in REWARDS if row.get(k) is not None and _reward(row[k]) is None]
    fields += _other_outcomes(row)
    fields += [k for k in chat_rows.unread_answers(row) if k not in fields]
    fields += ["history"] if row.get("history") and any(row.get(k) for k in MESSAGE_FIELDS) else []
    fields += _unsaid(row, raw)
    fields += chat_rows.unobeyed(row)
    kwargs = row.get("chat_template_kwargs") if isinstance(row.get("chat_template_kwargs"), dict) else {}
    read = (*chat_rows.TOOL_FIELDS, *chat_rows.SYSTEM_KWARGS, "enable_thinking")
    fields += [f"chat_template_kwargs.{k}" for k, v in kwargs.items() if k not in read and v]
    keys = {k for m in raw if isinstance(m, dict) for k, v in m.items() if v not in (None, "", [], {})}
    keys -= {"error"} if all(m.get("error") in (None, True) for m in raw if isinstance(m, dict)) else set()
    if row is not given:
        lists = [
            given[k] for k in ("messages", "input", "output", "contents") if isinstance(given.get(k), list)
        ]
        items = {k for items in lists for m in items if isinstance(m, dict) for k, v in m.items() if v}
        keys |= items - _ITEM_KEYS
    fields += [f"messages.{key}" for key in sorted(keys - message_forms.MESSAGE_KEYS)]
    tools = chat_rows.tools_of(row)
    return (*fields, *(f"tools.{tool['type']}" for tool in tools or () if is_built_in(tool)))


def _unsaid(row: dict, raw: list) -> list[str]:
    """The fields of a row that ask or answer something else than its messages hold."""
    said = "\n".join(_said(m.get("content")) for m in raw if isinstance(m, dict))
    asked = [k for k in ("prompt", "query", "instruction", "input") if isinstance(row.get(k), str)]
    read = chat_rows.messages_field(row)
    answers = ["answers"] if read and row.get("answers") else []
    others = [k for k in MESSAGE_FIELDS if k != read and isinstance(row.get(k), (list, str)) and row[k]]
    others = [k for k in others if not all(text in said for text in _texts(row[k]))]
    return [k for k in asked if row[k].strip() not in said] + answers + others


def _said(content: Any) -> str:
    parts = content if isinstance(content, list) else [content]
    texts = (part.get("text") if isinstance(part, dict) else part for part in parts)
    return "\n".join(text for text in texts if isinstance(text, str))


def _texts(messages: list | str) -> list[str]:
    """The texts of a list of messages; another value as one text."""
    if not isinstance(messages, list):
        return [messages.strip()]
    fields = ("content", "value", "text")
    found = [
        next((m[k] for k in fields if isinstance(m.get(k), str)), None)
        for m in messages
        if isinstance(m, dict)
    ]
    return [text.strip() if isinstance(text, str) else str(messages) for text in found] or [str(messages)]


# ---- what a row says of itself

SEARCH_TOOLS = ("search", "open", "fetch", "browse", "visit", "find", "click", "crawl", "scroll", "google")


def verifier_for(messages: list[Message], tools: list[dict]) -> str:
    """ "search" if every tool looks things up on the web, "swe" if all called tools are a coding
    agent's and one is a shell, else "tool_call"."""
    called = {c["function"]["name"].lower() for m in messages for c in m.get("tool_calls", ())}
    names = {t.get("function", t)["name"].lower() for t in tools} | called
    words = [set(re.split(r"[^a-z]+", name)) for name in names]
    looks = all(any(w.startswith(t) for w in ws for t in SEARCH_TOOLS) for ws in words)
    searches = any("search" in name or "browse" in name or "visit" in name for name in names)
    if looks and searches:
        return "search"
    families = {family(name) for name in called}
    return "swe" if "bash" in families and "" not in families else "tool_call"


def _rewards(row: dict) -> tuple[str, ...]:
    """The fields that may tell a row's outcome. Rows that Harbor exports name their trial."""
    return (*REWARDS, "result") if isinstance(row.get("trial_name"), str) else REWARDS


def _other_outcomes(row: dict) -> list[str]:
    """The fields that tell another outcome, success or failure, than the first, which is read."""
    told = {k: r > 0 for k in _rewards(row) if (r := _reward(row.get(k))) is not None}
    return [k for k, good in told.items() if good != next(iter(told.values()))]


def _reward(value: Any) -> float | None:
    """A recorded outcome, also as text: "true", "no", "0.5"."""
    if not isinstance(value, str):
        return building.number(value)
    words = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}
    if value.strip().lower() in words:
        return words[value.strip().lower()]
    try:
        return building.number(float(value))
    except ValueError:
        return None


def _name(row: dict, fields: tuple[str, ...], default: str) -> str:
    for field in fields:
        value = row.get(field)
        if isinstance(value, (str, int)) and not isinstance(value, bool):
            return str(value)
    return default
