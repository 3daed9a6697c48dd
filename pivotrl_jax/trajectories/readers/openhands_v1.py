"""OpenHands V1 (software-agent-sdk) conversations -> trajectories: events that say what `kind` they are.

    {"kind": "ActionEvent", "source": "agent", "llm_response_id": "r1", "thought": [{"type": "text", ...}],
     "tool_call": {"id": "c1", "name": "terminal", "arguments": "{\\"command\\": \\"ls\\"}"}, ...}
    {"kind": "ObservationEvent", "tool_call_id": "c1", "observation": {"content": [...], "is_error": false}}

Read as JSONL with an event per line, as a list, as an evaluation row with a `history` of events, or as the
folder that the SDK writes (base_state.json, events/event-00000-....json). Actions of one model response are
one turn. A result is an error if the tool says so, or if the agent could not make the call. A condensation
ends a trajectory and begins the next: the model then saw a summary in place of the forgotten events; turns
that both hold are demonstrated by the first only.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pivotrl_jax.chat.messages import require
from pivotrl_jax.chat.reasoning import FIELDS as REASONING
from pivotrl_jax.chat.reasoning import reasoning_of
from pivotrl_jax.records import Trajectory
from pivotrl_jax.trajectories.readers import base, building, files, openhands
from pivotrl_jax.trajectories.readers.files import Document
from pivotrl_jax.trajectories.readers.turns import (
    Parts,
    Turns,
    call_of,
    function_docs,
    is_true,
    read_parts,
    thought,
)
from pivotrl_jax.trajectories.readers.unread import unread

EVENTS = "events/event-*.json"

RESULTS = ("ObservationEvent", "UserRejectObservation", "AgentErrorEvent")

# the kinds that the model sees; all others are the platform's
SEEN = ("SystemPromptEvent", "MessageEvent", "ActionEvent", "CondensationSummaryEvent", *RESULTS, "end")

# the row, and its events with what the platform notes in them
READ = openhands.READ + " known cut"
EVENT_READ = (
    " ".join(REASONING)
    + """
    kind source system_prompt dynamic_context tools llm_message thought extended_content summary
    summary_offset responses_reasoning_item tool_name tool_call tool_call_id llm_response_id action action_id
    observation error rejection_reason security_risk activated_skills activated_microagents sender
    critic_result """
)


def recognise(sample: Any, path: Path) -> bool:
    """Whether it is an event with a `kind`, a list of them, or an object whose `history` is such a list."""
    sample = sample.get("history", sample) if isinstance(sample, dict) else sample
    event = sample[0] if isinstance(sample, list) and sample else sample
    return isinstance(event, dict) and isinstance(event.get("kind"), str) and "source" in event


def holds(path: Path) -> bool:
    """Whether a folder is a conversation that the SDK wrote."""
    return path.is_dir() and next(path.glob(EVENTS), None) is not None


def documents(path: Path) -> Iterable[Document]:
    """The conversations of a file or of the SDK's folder."""
    if path.is_dir():
        return files.joined(str(path), files.of_files(sorted(path.glob(EVENTS))))
    return files.sessions(path, lambda event: isinstance(event, dict) and "kind" in event)


def episodes(document: Any, where: str) -> Iterable[Document]:
    """The stretches between condensations, each with the events that the model saw before it."""
    for place, row in base.unrolled(document, where, recognise):
        row = row if isinstance(row, dict) and "history" in row else {"history": row}
        events, cut, fault = files.objects(require(row["history"], list, "the events"), place)
        yield from fault
        name = row.get("instance_id") if isinstance(row.get("instance_id"), str) else building.stem(place)
        seen: list[dict] = []
        known = parts = 0  # how many of `seen` an earlier stretch demonstrated
        for event in [*events, None]:
            if event is None or event.get("kind") == "Condensation":
                if any(_acts(e) for e in seen[known:]) or (event is None and not parts):
                    parts += 1
                    part = {
                        **row,
                        "history": seen,
                        "known": known,
                        "name": name,
                        "cut": cut and event is None,
                    }
                    yield place if parts == 1 else f"{place}/part {parts}", part
                seen = _condensed(seen, event or {})
                known = len(seen)
            else:
                seen.append(event)


def _acts(event: dict) -> bool:
    return event.get("kind") == "ActionEvent" or (
        event.get("kind") == "MessageEvent" and event.get("source") == "agent"
    )


def _condensed(events: list[dict], condensation: dict) -> list[dict]:
    """The events that a condensation leaves, with its summary in their place."""
    forgotten = condensation.get("forgotten_event_ids")
    forgotten = {str(id) for id in forgotten} if isinstance(forgotten, list) else set()
    left = [event for event in events if str(event.get("id")) not in forgotten]
    offset, summary = condensation.get("summary_offset"), condensation.get("summary")
    if isinstance(summary, str) and isinstance(offset, int):
        left.insert(offset, {"kind": "CondensationSummaryEvent", "summary": summary})
    return left


class _Events:
    """The turns so far, and the actions of the model's response that is still open."""

    def __init__(self, known: int) -> None:
        self.turns = Turns()
        self.tools: list[dict] = []
        self.batch: list[dict] = []
        self.shown = False  # whether an earlier stretch demonstrated them
        self.left = known  # events that an earlier stretch demonstrated and that are still to come

    def add(self, event: dict) -> None:
        """Take one event. Raises InputError."""
        kind, known = event.get("kind"), self.left > 0
        self.left -= 1
        action = kind == "ActionEvent"
        same = action and self.batch and event.get("llm_response_id") == self.batch[0].get("llm_response_id")
        if kind in SEEN and not same:
            self.close()
        if action:
            self.batch, self.shown = [*self.batch, event], known
        elif kind == "SystemPromptEvent":
            prompts = [event[key] for key in ("system_prompt", "dynamic_context") if event.get(key)]
            self.turns.say("system", read_parts(prompts, "\n"))
            self.tools = function_docs(event.get("tools"))
        elif kind == "MessageEvent":
            _say(self.turns, event, known)
        elif kind == "CondensationSummaryEvent":
            self.turns.say("user", read_parts(event.get("summary")))
        elif kind in RESULTS:
            self.turns.result(event.get("tool_call_id"), *_result(event))

    def close(self) -> None:
        """End the turn that is open. Raises InputError."""
        batch, self.batch = self.batch, []
        if batch:
            self.turns.answer(_answer(batch), self.shown)


def trajectory(episode: Any, where: str) -> Trajectory:
    """One stretch of a conversation. Raises InputError."""
    events = _Events(episode["known"])
    turns, history = events.turns, episode["history"]
    faults = building.until_fault([*history, {"kind": "end"}], events.add, "history", turns.messages)
    if episode["cut"]:
        building.skip_last(turns.messages, turns.skip)
    tools = events.tools
    return building.checked(
        Trajectory(
            messages=turns.messages,
            id=episode["name"],
            origin=where,
            source="openhands_v1",
            scenario=episode["name"],
            verifier=turns.verifier(tools),
            tools=tools,
            reward=openhands.reward(episode),
            skip=turns.skip,
            unused=faults
            + unread([episode], READ)
            + unread([e for e in history if e.get("kind") in SEEN], EVENT_READ, "history"),
        )
    )


def _answer(batch: list[dict]) -> Parts:
    """The turn of the actions of one response; its thoughts are told by the first."""
    parts = read_parts(batch[0].get("thought"))
    item = batch[0].get("responses_reasoning_item")
    parts.reasoning = reasoning_of(batch[0]) or (thought(item) if isinstance(item, dict) else "")
    for event in batch:
        call = event.get("tool_call")
        named = {"name": event.get("tool_name"), "id": event.get("tool_call_id")}
        parts.calls.append(
            call_of({**named, **call} if isinstance(call, dict) else named | {"arguments": "?"})
        )
    return parts


def _say(turns: Turns, event: dict, shown: bool) -> None:
    message = require(event.get("llm_message"), dict, "an llm_message")
    parts = read_parts(message.get("content"))
    if message.get("role") == "assistant":
        parts.reasoning = parts.reasoning or reasoning_of(message)
        parts.calls += [call_of(require(c, dict, "a call")) for c in message.get("tool_calls") or []]
        turns.answer(parts, shown)
    else:
        more = read_parts(event.get("extended_content"))
        parts.text, parts.other = parts.text + more.text, parts.other + more.other
        turns.say("system" if message.get("role") == "system" else "user", parts)


def _result(event: dict) -> tuple[Parts, bool]:
    """(content, whether it is an error) of what answers a call."""
    if event["kind"] == "UserRejectObservation":
        return Parts(f"Action rejected: {event.get('rejection_reason')}"), True
    if event["kind"] == "AgentErrorEvent":
        return read_parts(event.get("error")), True
    observation = require(event.get("observation"), dict, "an observation")
    content = observation.get("content", observation.get("output"))
    return read_parts(content), is_true(observation, "is_error")
