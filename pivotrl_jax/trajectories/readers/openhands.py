"""OpenHands event streams -> trajectories: lists of events, rows with a `history` of events, session folders.

    {"id": 3, "source": "agent", "action": "edit", "args": {...}, "tool_call_metadata": {...}}
    {"id": 4, "source": "agent", "observation": "edit", "cause": 3, "content": "..."}

An agent's action becomes an assistant turn. If the action has `tool_call_metadata`, the turn is the model's
own message, once for all events of one response; otherwise it is a call that is named after the action and
has the event's arguments. Internal events of the platform (state changes, recalls) give no messages. A result
is an error, and carries "error": True, when the observation is "error", or when its exit code says that the
command could not be run (building.could_not_run). A row's `resolved` report is the reward.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pivotrl_jax.chat.messages import content_text, require, tool_call
from pivotrl_jax.chat.reasoning import reasoning_of
from pivotrl_jax.records import InputError, Message, Trajectory
from pivotrl_jax.trajectories.readers import building, files, turns
from pivotrl_jax.trajectories.readers.files import Document
from pivotrl_jax.trajectories.readers.unread import unread

VERIFIER = "swe"

# Internal events of the platform: none of them reaches the model as a turn.
SILENT = (
    "agent_state_changed",
    "change_agent_state",
    "null",
    "recall",
    "condensation",
    "condensation_request",
)

# Arguments that OpenHands adds to an action; the model did not choose them.
NOT_ARGUMENTS = ("thought", "impl_source", "translated_ipython_code", "confirmation_state", "hidden")
NOT_ARGUMENTS += ("blocking", "keep_prompt", "is_confirmed", "is_static", "kernel_init_code", "include_extra")

# the row, and its events with what the platform notes in them
READ = "history trajectory instance_id report test_result resolved instance metadata instruction"
EVENT_READ = """
    source message action args observation content extras cause tool_call_metadata timeout success """


def recognise(sample: Any, path: Path) -> bool:
    """Whether it is a list of events, or an object whose `history` is one (of pairs in old files)."""
    events = _history(sample) if isinstance(sample, dict) else sample
    first = events[0] if isinstance(events, list) and events else None
    first = first[0] if isinstance(first, list) and first else first
    return isinstance(first, dict) and "source" in first and ("action" in first or "observation" in first)


def _history(row: dict) -> Any:
    """The events of a row; the platform's feedback set calls them a trajectory."""
    return row.get("history") or row.get("trajectory")


def holds(path: Path) -> bool:
    """Whether it is a folder of a session, with a file per event in `events`."""
    return path.is_dir() and (path / "events" / "0.json").is_file()


def documents(path: Path) -> Iterable[Document]:
    """The documents of a file; a session's folder is one, the list of its events."""
    if not path.is_dir():
        return files.documents(path)
    events = sorted((int(p.stem), p) for p in (path / "events").glob("*.json") if p.stem.isdecimal())
    return files.joined(str(path), files.of_files(p for _, p in events))


def trajectory(document: Any, where: str) -> Trajectory:
    """One episode. Raises InputError."""
    row = {"history": document} if isinstance(document, list) else require(document, dict, "a row")
    events = _Events()
    history = [e for e in _flat(require(_history(row), list, '"history"')) if e != files.CUT]
    unused = building.until_fault(history, events.add, "history", events.messages)
    unused += unread([row], READ) + unread(history, EVENT_READ, "history")
    name = row.get("instance_id")
    name = name if isinstance(name, str) else building.stem(where)
    return building.checked(
        Trajectory(
            messages=events.messages,
            id=name,
            origin=where,
            source="openhands",
            scenario=name,
            verifier=VERIFIER,
            tools=events.tools,
            reward=reward(row),
            unused=unused,
        )
    )


def _flat(history: list) -> Iterable[dict]:
    for event in history:
        yield from event if isinstance(event, list) else [event]


def reward(row: dict) -> float | None:
    """Whether a row's report says that the issue was resolved."""
    result = row.get("test_result") if isinstance(row.get("test_result"), dict) else {}
    for place in (row, row.get("report"), result, result.get("report")):
        if isinstance(place, dict) and building.number(place.get("resolved")) is not None:
            return building.number(place["resolved"])
    return None


class _Events:
    """Messages so far, and which calls they made."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.tools: list | None = None
        self.responses: set[str] = set()  # ids of model responses that are messages already
        self.calls: dict[Any, str] = {}  # event id -> id of the call it makes

    def add(self, event: dict) -> None:
        """Take one event. Raises InputError."""
        require(event, dict, "an event")
        if event.get("action") in SILENT or event.get("observation") in SILENT:
            return
        if isinstance(event.get("observation"), str):
            self._observation(event)
        elif isinstance(event.get("action"), str):
            args = require(event.get("args") or {}, dict, "an action's args")
            if event["action"] == "system":
                self.messages.append({"role": "system", "content": content_text(args.get("content"))})
                self.tools = args.get("tools")
            elif event.get("source") == "agent":
                self._action(event, args)
            elif event["action"] == "message":
                self.messages.append({"role": "user", "content": content_text(args.get("content"))})
            # other user actions (a command run by hand) show up as observations
        else:
            raise InputError(f"the event {event.get('id')!r} is neither an action nor an observation")

    def _action(self, event: dict, args: dict) -> None:
        metadata = event.get("tool_call_metadata")
        response = _response(metadata)
        if response is not None:
            id, message = response
            if isinstance(event.get("id"), (int, str)):
                self.calls[event["id"]] = str(metadata.get("tool_call_id"))
            if id in self.responses:
                return
            self.responses.add(id)
            calls = require(message.get("tool_calls") or [], list, "tool_calls")
            calls = [turns.call_of(require(call, dict, "a tool call")) for call in calls]
            if not calls and event["action"] != "message":
                calls = [turns.unreadable(args, metadata.get("tool_call_id"))]  # it is not in the message
            turn = {
                "role": "assistant",
                "content": content_text(message.get("content")),
                "tool_calls": calls,
            }
            if thought := reasoning_of(message):
                turn["reasoning_content"] = thought
            self.messages.append(turn)
        elif event["action"] == "message":
            self.messages.append({"role": "assistant", "content": content_text(args.get("content"))})
        else:
            id = f"event_{event.get('id')}"
            if isinstance(event.get("id"), (int, str)):
                self.calls[event["id"]] = id
            arguments = {k: v for k, v in args.items() if k not in NOT_ARGUMENTS and v is not None}
            if event["action"] == "think":
                arguments = {"thought": args.get("thought")}
            self.messages.append(
                {
                    "role": "assistant",
                    "content": content_text(args.get("thought")),
                    "tool_calls": [tool_call(event["action"], arguments, id)],
                }
            )

    def _observation(self, event: dict) -> None:
        metadata, cause = event.get("tool_call_metadata"), event.get("cause")
        id = self.calls.get(cause) if isinstance(cause, (int, str)) else None
        if id is None and isinstance(metadata, dict):
            id = metadata.get("tool_call_id")
        content = content_text(event.get("content"))
        if id is None or id not in self.calls.values():  # not the model's: the platform or the user acted
            self.messages.append({"role": "user", "content": content})
            return
        result = {"role": "tool", "tool_call_id": id, "content": content}
        self.messages.append({**result, "error": True} if _failed(event) else result)


def _response(metadata: Any) -> tuple[str, dict] | None:
    """(id of the model's response, its message), where the event has them."""
    response = metadata.get("model_response") if isinstance(metadata, dict) else None
    choices = response.get("choices") if isinstance(response, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        return None
    return str(response.get("id") or metadata.get("tool_call_id")), message


def _failed(event: dict) -> bool:
    extras = event.get("extras") if isinstance(event.get("extras"), dict) else {}
    metadata = extras.get("metadata") if isinstance(extras.get("metadata"), dict) else {}
    code = metadata.get("exit_code", extras.get("exit_code"))
    return event["observation"] == "error" or building.could_not_run(code)
