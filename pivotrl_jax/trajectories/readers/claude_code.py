"""Claude Code sessions -> trajectories: JSONL with one content block of a message per line, or `stream-json`.

    {"type": "user", "uuid": "u1", "parentUuid": null, "sessionId": "s", "message": {"role": "user", ...}}
    {"type": "assistant", "uuid": "u2", "parentUuid": "u1", "sessionId": "s", "message": {"id": "m1", ...}}

A session is one trajectory, and so is every sidechain (a subagent's conversation). Lines of one message id
are one turn. Left out of the messages: summaries and the client's own records, meta lines and local commands,
unless such a line is all that a turn answers. What the client says in the model's place is context. After a
compaction the model sees a summary and nothing before it: a new trajectory begins. Lines on a branch that
the user went back from are named and not read. The lines hold no system prompt and no tool docs.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pivotrl_jax.chat.messages import require
from pivotrl_jax.records import InputError, Trajectory
from pivotrl_jax.trajectories.readers import anthropic, base, building, files, weights
from pivotrl_jax.trajectories.readers.files import Document
from pivotrl_jax.trajectories.readers.turns import Turns, read_parts
from pivotrl_jax.trajectories.readers.unread import MESSAGE, unread

SPOKEN = ("user", "assistant")
RECORDS = (
    "summary",
    "system",
    "file-history-snapshot",
    "queue-operation",
    "progress",
    "attachment",
    "ai-title",
    "agent-name",
    "custom-title",
    "last-prompt",
    "permission-mode",
)

COMMAND = re.compile(r"\s*<(command-(name|message|args)|local-command-\w+|bash-(input|stdout|stderr))>")

# what the lines say, and what the client notes of itself and of the machine
LINE_READ = """
    type message role content attachment subtype uuid logicalParentUuid agentId parent_tool_use_id isMeta
    isSidechain isCompactSummary isApiErrorMessage isVisibleInTranscriptOnly compactMetadata leafUuid summary
    messageId snapshot isSnapshotUpdate toolUseResult sourceToolUseID sourceToolAssistantUUID requestId
    userType entrypoint cwd gitBranch slug permissionMode thinkingMetadata todos level isReplay operation
    hookInfos """


def recognise(sample: Any, path: Path) -> bool:
    """Whether it is a line of a session, or a list of lines."""
    line = sample[0] if isinstance(sample, list) and sample else sample
    if not isinstance(line, dict) or not isinstance(line.get("type"), str):
        return False
    if line["type"] in SPOKEN:
        return isinstance(line.get("message"), dict) and _session(line) != ""
    return line["type"] in RECORDS and any(
        k in line for k in ("sessionId", "session_id", "leafUuid", "messageId")
    )


def documents(path: Path) -> Iterable[Document]:
    """The sessions of a file: one, with a line per event."""
    return files.sessions(path, lambda line: isinstance(line, dict) and "type" in line)


def episodes(document: Any, where: str) -> Iterable[Document]:
    """The session and its sidechains, each cut where it was compacted."""
    for place, lines in base.unrolled(document, where, recognise):
        lines, cut, fault = files.objects(require(lines, list, "a session"), place)
        yield from fault
        cut_at = next((line for line in reversed(lines) if _kind(line) in SPOKEN), None) if cut else None
        stem, made = building.stem(place), False
        for name, chain in _chains(lines).items():
            kept = chain if name else _without_branches(chain)
            if count := sum(map(_answers, chain)) - sum(map(_answers, kept)):
                yield (
                    f"{place}/branches",
                    InputError(
                        f"a branch that the user went back from, with {count} of the model's lines; not read"
                    ),
                )
            stretches: list[list[dict]] = [[]]
            for line in kept:
                if line.get("isCompactSummary") is True and any(map(_answers, stretches[-1])):
                    stretches.append([])
                stretches[-1].append(line)
            for i, stretch in enumerate(s for s in stretches if any(map(_answers, s))):
                inner = [place, name, f"part {i + 1}" if i else ""]
                yield (
                    "/".join(part for part in inner if part),
                    {"lines": stretch, "name": stem, "cut": cut_at},
                )
                made = True
        if not made:
            yield place, {"lines": [], "name": stem, "cut": None}


def _session(line: dict) -> str:
    return building.named(line, ("sessionId", "session_id"), "")


def _answers(line: dict) -> bool:
    return _kind(line) == "assistant"


def _kind(line: dict) -> str:
    """Who speaks in a line, "user" or "assistant"; for the client's own records, their type."""
    role = _message(line).get("role")
    return role if line.get("type") not in SPOKEN and role in SPOKEN else str(line.get("type"))


def _uuid(line: dict) -> str:
    return line["uuid"] if isinstance(line.get("uuid"), str) else ""


def _message(line: dict) -> dict:
    return line["message"] if isinstance(line.get("message"), dict) else {}


def _chains(lines: list[dict]) -> dict[str, list[dict]]:
    """Name -> lines: the main conversation is "", a sidechain "sidechain N", told apart by agent or root."""
    chains: dict[str, list[dict]] = {"": []}
    names: dict[str, str] = {}  # agent, parent call, line or message -> chain
    for line in lines:
        call = building.named(line, ("parent_tool_use_id",), "")
        agent = building.named(line, ("agentId",), call)
        message = f"message {_message(line).get('id')}"  # its lines stay together
        if message in names and message != "message None":
            name = names[message]
        elif line.get("isSidechain") is not True and not call:
            name = ""
        else:
            name = names.get(agent or f"after {line.get('parentUuid')}") or f"sidechain {len(chains)}"
            names[f"after {_uuid(line)}"] = name
            if agent:
                names[agent] = name
        names[message] = name
        chains.setdefault(name, []).append(line)
    return chains


def _without_branches(lines: list[dict]) -> list[dict]:
    """The lines that lead to the last one, with all blocks of their messages and results of their calls."""
    parents: dict[str, Any] = {}
    before = None  # a compaction starts anew, after the line before it
    for line in lines:
        if _uuid(line) and "parentUuid" in line:
            compacts = line.get("isCompactSummary") is True or line.get("subtype") == "compact_boundary"
            parent = line["parentUuid"] or line.get("logicalParentUuid")
            parents[_uuid(line)] = parent or (before if compacts else None)
            before = _uuid(line) if _kind(line) in SPOKEN else before
    path, at = set(), before
    while isinstance(at, str) and at in parents and at not in path:
        path.add(at)
        at = parents[at]
    if at is not None or not path:  # lines are missing: which of them led where is not known
        return lines
    spoken = [line for line in lines if _uuid(line) in path and _answers(line)]
    ids = {str(_message(line).get("id")) for line in spoken} - {"None"}
    kept, calls = [], set()
    for line in lines:
        on_path = _uuid(line) not in parents or _uuid(line) in path or str(_message(line).get("id")) in ids
        if on_path or calls & set(_ids(line, "tool_result", "tool_use_id")):
            kept.append(line)
            calls.update(_ids(line, "tool_use", "id"))
    return kept


def _ids(line: dict, kind: str, field: str) -> list[str]:
    content = _message(line).get("content")
    blocks = [b for b in content if isinstance(b, dict)] if isinstance(content, list) else []
    return [str(b[field]) for b in blocks if b.get("type") == kind and field in b]


class _Session:
    """The turns so far, and what the client said that the model has not answered yet."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.meta: Any = None

    def add(self, line: dict) -> None:
        """Take one line. Raises InputError."""
        turns, content = self.turns, _message(line).get("content")
        if _answers(line):
            if self.meta is not None and (not turns.messages or turns.messages[-1]["role"] == "assistant"):
                turns.say("user", read_parts(self.meta, "\n"))
            anthropic.add(turns, {**_message(line), "role": "assistant"}, _synthetic(line))
            self.meta = None
        elif line.get("type") == "attachment" and isinstance(line.get("attachment"), dict):
            if line["attachment"].get("type") == "queued_command":  # typed while the model was at work
                turns.say("user", read_parts(line["attachment"].get("prompt"), "\n"))
        elif line.get("isMeta") is True:
            self.meta = content
        elif _kind(line) == "user":
            if isinstance(content, list) and len(content) > 1:  # a command beside what it stands for
                content = [b for b in content if not COMMAND.match(read_parts([b]).text)]
            parts = read_parts(content, "\n")
            turns.results(parts)
            if COMMAND.match(parts.text):  # the model saw it if it answers nothing else
                self.meta = content if "<command-name>" in parts.text else self.meta
            else:
                turns.say("user", parts)
        elif _message(line):  # whoever says it
            turns.missing()
            turns.blind = True


def trajectory(episode: Any, where: str) -> Trajectory:
    """One stretch of a session. Raises InputError."""
    lines, session = episode["lines"], _Session()
    turns = session.turns
    faults = building.until_fault(_merged(lines), session.add, "lines", turns.messages)
    if faults or any(line is episode["cut"] for line in lines):  # the odd line may hold its call
        building.skip_last(turns.messages, turns.skip)
    turns.join()
    said = [line for line in lines if _kind(line) in SPOKEN]
    name = next((_session(line) for line in lines if _session(line)), episode["name"])
    return building.checked(
        Trajectory(
            messages=turns.messages,
            id=name,
            origin=where,
            source="claude_code",
            scenario=name,
            verifier=turns.verifier([]),
            tools=[],
            skip=turns.skip,
            unused=faults
            + unread(said, LINE_READ, "lines")
            + unread(map(_message, said), MESSAGE + weights.READ, "message"),
        )
    )


def _merged(lines: list[dict]) -> list[dict]:
    """The lines, with those of one assistant message as one line, each call in it once.

    Lines that follow each other are one message too: only a user's line lets the model speak again. Where
    both call under ids of their own, they are not: a result between them is missing.
    """
    merged: list[dict] = []
    last: dict | None = None  # the line of the message that is still open
    for line in lines:
        message = _message(line)
        if not _answers(line):
            if _kind(line) == "user" and not _ids(line, "tool_result", "tool_use_id"):
                last = None
            merged.append(line)
            continue
        content = message.get("content")
        blocks = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
        known_id = message.get("id") is not None and last and message["id"] == last["message"].get("id")
        same = last and ((merged[-1] is last and not _calls_again(message, last)) or known_id)
        if same and message.get("stop_reason"):  # the last line has it
            last["message"]["stop_reason"] = message["stop_reason"]
        if not same or _synthetic(line) != _synthetic(last):
            last = {**line, "message": {**message, "content": []}}
            known: set[str | None] = set()  # ids of its calls
            merged.append(last)
        for block in blocks:
            id = str(block.get("id")) if isinstance(block, dict) and block.get("type") == "tool_use" else None
            if id is None or id not in known:
                last["message"]["content"].append(block)
                known.add(id)
    return merged


def _calls_again(message: dict, last: dict) -> bool:
    """Whether a message and the open one both make calls, and are two by their ids."""
    before = last["message"]
    two = None not in (message.get("id"), before.get("id")) and message["id"] != before["id"]
    return two and all(_ids({"message": m}, "tool_use", "id") for m in (message, before))


def _synthetic(line: dict) -> bool:
    """Whether the client speaks in the model's place."""
    return line.get("isApiErrorMessage") is True or _message(line).get("model") == "<synthetic>"
