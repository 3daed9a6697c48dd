"""The nouns of PivotRL, and their JSONL form. Read this file first.

Trajectory -> Candidate (one per assistant turn) -> Prompt -> Rollout (G per prompt) -> Profile -> Pivot.

Messages are OpenAI chat messages (`role`, `content`, `tool_calls`, `tool_call_id`, `reasoning_content`). One
rule is ours: inside this project `tool_calls[i]["function"]["arguments"]` is a dict, parsed once by the
reader.
"""

import dataclasses
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Message = dict[str, Any]


class InputError(ValueError):
    """The user's input is wrong. The message is one sentence: what is wrong, where, and what to do."""


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """One demonstrated episode."""

    id: str
    messages: list[Message]
    tools: list[dict]  # function docs: {"name", "description", "parameters"}, or OpenAI's wrapper around it
    source: str  # which reader made it: "openai", "bfcl", "toolbox"
    scenario: str  # trajectories that share a scenario are never on both sides of a split
    verifier: str  # key of VERIFIERS that scores this trajectory's turns
    # index into messages -> what the verifier needs there
    cases: dict[int, dict] = dataclasses.field(default_factory=dict)
    origin: str = ""  # "file:line", for error sentences
    reward: float | None = None  # the episode's outcome where the source records one; 1 is success
    # index into messages -> why that assistant turn is no candidate, a short stable slug ("call_error")
    skip: dict[int, str] = dataclasses.field(default_factory=dict)
    dialect: str = ""  # the form in which the source writes calls: "native", "hermes", ...; "" for no calls
    unused: tuple[str, ...] = ()  # fields of the source with content that the reader did not use


class Prefix(Sequence):
    """The first `length` messages of a trajectory, as a sequence that copies none of them.

    All candidates of a trajectory point into one list, so they cost the trajectory's size once.
    """

    __slots__ = ("length", "trajectory")

    def __init__(self, trajectory: list[Message], length: int):
        self.trajectory, self.length = trajectory, length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Message]:
        return itertools.islice(self.trajectory, self.length)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.trajectory[: self.length][index]
        return self.trajectory[range(self.length)[index]]

    def __eq__(self, other) -> bool:
        return list(self) == list(other) if isinstance(other, (list, Prefix)) else NotImplemented

    def __repr__(self) -> str:
        return repr(list(self))


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A state and the action demonstrated there: one assistant turn of one trajectory."""

    id: str  # "{trajectory_id}@{index of the assistant message}"
    trajectory_id: str
    turn: int  # 0 for the trajectory's first assistant turn, 1 for the second, ...
    messages: Sequence[Message]  # everything before the turn: a `Prefix` of the trajectory, or a list
    tools: list[dict]
    demonstration: Message  # the assistant message itself
    verifier: str
    case: dict  # what the verifier needs beyond messages and demonstration; {} for most
    scenario: str

    @property
    def is_call(self) -> bool:
        """Whether the demonstration calls a tool (a call turn) or only talks (a text turn)."""
        return bool(self.demonstration.get("tool_calls"))


@dataclasses.dataclass(frozen=True, eq=False)
class Prompt:
    """A candidate's state as the policy reads it; its rollouts start from it. Never written to disk."""

    candidate: Candidate
    # int32 [T]: messages and tools, rendered by the checkpoint's chat template. Prompts of a trajectory share
    # memory, so it is only read
    ids: np.ndarray


@dataclasses.dataclass(frozen=True)
class Call:
    """One tool call: the name and the arguments exactly as parsed (a dict when the JSON was an object)."""

    name: str
    arguments: Any


@dataclasses.dataclass(frozen=True)
class Action:
    """One assistant completion, parsed. `malformed` says in words what could not be parsed ("" when all
    could).
    """

    content: str = ""
    reasoning: str = ""
    calls: tuple[Call, ...] = ()
    malformed: str = ""
    text: str = ""  # the completion as decoded, before parsing


@dataclasses.dataclass(frozen=True)
class Question:
    """What a judge may be asked where a verifier's rules do not decide: are two actions equivalent?"""

    kind: str  # key of the judge's prompt templates: "terminal", "answer"
    task: str  # what the actions are for: the instruction, the question
    gold: str
    actual: str


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A verifier's decision. `reason` is a short stable slug ("ok", "no_call", "state"), the rule that
    decided; `details` explains it.
    """

    reward: float | None  # 0 to 1; None: undecided (a judge abstained)
    reason: str
    details: str = ""
    question: Question | None = None  # if there is a judge, its answer replaces the reward


@dataclasses.dataclass(frozen=True)
class Rollout:
    """One action sampled at a candidate's state. Token ids go from sampler to loss untouched."""

    candidate_id: str
    sample: int  # 0..G-1
    token_ids: list[int]  # the completion, stop token included when it was sampled
    log_probs: list[float]  # of each token under the distribution it was sampled from
    model_log_probs: list[float]  # of each token under the model: temperature 1, nothing cut off
    finished: bool  # False: cut at the token limit
    text: str
    reward: float | None  # None: undecided; it counts nowhere
    reason: str
    details: str = ""
    # of a served model: {"mode": "completions" or "chat", "model", "fingerprint"}, as the server names them,
    # and in chat mode "message", its reply; there are no token ids in chat mode. None: our own sampler
    served: dict | None = None


@dataclasses.dataclass(frozen=True)
class Profile:
    """G rewards of one candidate under the frozen reference policy, and everything that produced them."""

    candidate_id: str
    rewards: list[float]  # the decided ones
    mean: float  # mean and variance are 0 when no reward is decided
    variance: float
    is_call: bool
    policy: str  # fingerprint of the checkpoint
    verifier: str  # "name/version"
    temperature: float
    seed: int
    abstained: int = 0  # rollouts without a decided reward
    early: str = ""  # the outcome, if adaptive profiling decided it before all G were drawn


@dataclasses.dataclass(frozen=True)
class Pivot:
    """A candidate that teaches: mixed rewards, low mean."""

    candidate: Candidate
    profile: Profile


# ---- candidates and pivots on disk
#
# A line holds a trajectory once, up to its last candidate, and the candidates (or pivots) as places in it:
#
#   {"trajectory_id", "scenario", "tools", "messages": [...],
#    "candidates": [{"id", "turn", "index": 3, "verifier", "case"}, ...]}
#
# The candidate's state is messages[:index], its demonstration messages[index]. A pivot has a "profile" too,
# and stands under "pivots". A line may also be one record with all its fields, as earlier versions wrote it.

_PLURAL = {Candidate: "candidates", Pivot: "pivots"}


def _candidate_of(record: Candidate | Prompt | Pivot) -> Candidate:
    return record if isinstance(record, Candidate) else record.candidate


def _points(c: Candidate) -> bool:
    """Whether a candidate is a place in a trajectory, so that it can share a line with its neighbours."""
    at = c.messages
    return (
        isinstance(at, Prefix) and len(at) < len(at.trajectory) and at.trajectory[len(at)] is c.demonstration
    )


def by_trajectory(records: Iterable[Any]) -> Iterator[list[Any]]:
    """Candidates, prompts or pivots in order, in groups of neighbours that point into one trajectory. What
    points into none is a group of its own."""
    group: list[Any] = []
    for record in records:
        c, before = _candidate_of(record), _candidate_of(group[-1]) if group else None
        shared = before is not None and _points(before) and _points(c)
        if shared:
            same = before.messages.trajectory is c.messages.trajectory and before.tools is c.tools
            shared = same and (before.trajectory_id, before.scenario) == (c.trajectory_id, c.scenario)
        if group and not shared:
            yield group
            group = []
        group.append(record)
    if group:
        yield group


def _group_to_json(group: Sequence[Candidate | Pivot]) -> str:
    candidates = [_candidate_of(record) for record in group]
    first, last = candidates[0], max(len(c.messages) for c in candidates)
    messages = (
        first.messages.trajectory[: last + 1] if _points(first) else [*first.messages, first.demonstration]
    )
    places = []
    for record, c in zip(group, candidates):
        place = {"id": c.id, "turn": c.turn, "index": len(c.messages), "verifier": c.verifier, "case": c.case}
        if isinstance(record, Pivot):
            place["profile"] = dataclasses.asdict(record.profile)
        places.append(place)
    line = {"trajectory_id": first.trajectory_id, "scenario": first.scenario, "tools": first.tools}
    line |= {"messages": messages, _PLURAL[type(group[0])]: places}
    return json.dumps(line, ensure_ascii=False)


def _read_group(kind: type, value: dict) -> list[Any]:
    """The records of a line that `_group_to_json` wrote. Raises InputError."""
    shared = {k: v for k, v in value.items() if k not in ("messages", _PLURAL[kind])}
    records = []
    try:
        for place in value[_PLURAL[kind]]:
            place, messages = dict(place), value["messages"]
            index = range(len(messages))[place.pop("index")]
            profile = place.pop("profile") if kind is Pivot else None
            state = {"messages": Prefix(messages, index), "demonstration": messages[index]}
            candidate = _build(Candidate, {**shared, **place, **state})
            records.append(Pivot(candidate, _build(Profile, profile)) if kind is Pivot else candidate)
    except (KeyError, IndexError, TypeError, ValueError) as e:  # InputError is a ValueError
        raise InputError(f"not the {_PLURAL[kind]} of a trajectory ({type(e).__name__}: {e})") from None
    return records


# ---- any record as a line of JSON


def to_json(record: Any) -> str:
    """One line of JSON for any record above."""
    if isinstance(record, (Candidate, Pivot)):
        return _group_to_json([record])
    value = dataclasses.asdict(record)
    if isinstance(record, Rollout) and record.served is None:
        del value["served"]
    return json.dumps(value, ensure_ascii=False)


def _build(kind: type, value: dict) -> Any:
    fields = {f.name for f in dataclasses.fields(kind)}
    missing = [
        f.name
        for f in dataclasses.fields(kind)
        if f.name not in value
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    unknown = sorted(set(value) - fields)
    if missing or unknown:
        raise InputError(f"not a {kind.__name__}: missing fields {missing}, unknown fields {unknown}")
    if kind is Pivot:
        return Pivot(_build(Candidate, value["candidate"]), _build(Profile, value["profile"]))
    if kind is Trajectory:
        indexed = {f: {int(k): v for k, v in value.get(f, {}).items()} for f in ("cases", "skip")}
        value = {**value, **indexed, "unused": tuple(value.get("unused", ()))}
    return kind(**value)


def read_jsonl(path: str | Path) -> Iterator[tuple[int, dict]]:
    """Yield (line number from 1, object) for every non-blank line.

    Raises InputError naming file and line for a missing file, malformed JSON, or a line that is no object.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    with path.open("rb") as f:
        for number, raw in enumerate(f, 1):
            if (value := parse_line(path, number, raw)) is not None:
                yield number, value


def parse_line(path: Path, number: int, raw: bytes) -> dict | None:
    """The object in a line of a JSONL file; None for a blank line. Raises InputError naming file and line."""
    try:
        line = raw.decode("utf-8")
        if not line.strip():
            return None
        value = json.loads(line)
    except (ValueError, RecursionError) as e:
        raise InputError(f"{path}:{number}: not valid JSON ({e}); fix or remove the line") from None
    if not isinstance(value, dict):
        raise InputError(
            f"{path}:{number}: a JSON {type(value).__name__}, want an object; fix or remove the line"
        )
    return value


def read_records(path: str | Path, kind: type) -> list:
    """Read a file written by `write_records`. Raises InputError naming file and line."""
    records = []
    for number, value in read_jsonl(path):
        try:
            records += _read_group(kind, value) if _PLURAL.get(kind) in value else [_build(kind, value)]
        except InputError as e:
            raise InputError(f"{path}:{number}: {e}") from None
    return records


def count_candidates(path: str | Path) -> int:
    """How many candidates a file holds. Raises InputError as `read_jsonl` does."""
    return sum(len(value.get("candidates", [value])) for _, value in read_jsonl(path))


def write_records(path: str | Path, records: Iterable[Any]) -> None:
    """Write records as JSON lines, atomically: the old file stays until the new one is whole.

    A line is a record; neighbouring candidates, or pivots, of one trajectory share a line.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_lines(path, _lines(records))


def _lines(records: Iterable[Any]) -> Iterator[str]:
    records = iter(records)
    first = next(records, None)
    if isinstance(first, (Candidate, Pivot)):
        yield from map(_group_to_json, by_trajectory(itertools.chain([first], records)))
    elif first is not None:
        yield from map(to_json, itertools.chain([first], records))


def write_json(path: str | Path, value: Any) -> None:
    """Write one JSON value, atomically."""
    write_lines(Path(path), [json.dumps(value, ensure_ascii=False, indent=1)])


def write_lines(path: Path, lines: Iterable[str]) -> int:
    """Write a text file line by line, atomically. Returns the number of lines."""
    count, temporary = 0, path.with_name(path.name + ".tmp")
    # a lone surrogate, which JSON can hold and UTF-8 cannot, is written as the JSON escape it is read from
    try:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace") as f:
            for count, line in enumerate(lines, 1):  # noqa: B007
                f.write(line + "\n")
        os.replace(temporary, path)
    except Exception:
        temporary.unlink(missing_ok=True)
        raise
    return count
