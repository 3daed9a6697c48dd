"""Harbor's Agent Trajectory Interchange Format, ATIF-v1.0 to v1.8 -> trajectories.

    {"schema_version": "ATIF-v1.7", "agent": {"name", "tool_definitions"}, "steps": [
        {"step_id": 1, "source": "user", "message": "..."},
        {"step_id": 2, "source": "agent", "message": "...", "reasoning_content": "...",
         "tool_calls": [{"tool_call_id", "function_name", "arguments"}],
         "observation": {"results": [{"source_call_id", "content"}]}}]}

An agent's step is an assistant turn and its results follow it. A result that names no call answers the oldest
open one; a result without an open call becomes a user message. Steps with `is_copied_context` are context.
Embedded subagents become trajectories of their own. The reward is the trial's (trajectories/folders.py),
unless the document has its own under `extra`.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pivotrl_jax.chat.messages import require
from pivotrl_jax.chat.reasoning import FIELDS as REASONING
from pivotrl_jax.chat.reasoning import reasoning_of
from pivotrl_jax.chat.tools import read_tools
from pivotrl_jax.records import InputError, Message, Trajectory
from pivotrl_jax.trajectories import folders
from pivotrl_jax.trajectories.readers import base, building, openai_chat
from pivotrl_jax.trajectories.readers.files import Document
from pivotrl_jax.trajectories.readers.turns import Turns, call_of, read_parts
from pivotrl_jax.trajectories.readers.unread import unread

NEWEST = 8

SOURCES = {"user": "user", "system": "system", "agent": "assistant"}

# the document, and its steps
READ = "agent steps extra trajectory_id subagent_trajectories continued_trajectory_ref notes"
STEP_READ = (
    " ".join(REASONING)
    + """
    source message tool_calls observation is_copied_context reasoning_effort llm_call_count extra """
)

SHELLS = ("bash", "shell", "terminal", "exec", "execute", "keystrokes", "command", "commands")


def recognise(sample: Any, path: Path) -> bool:
    """Whether it is an object whose `schema_version` says ATIF."""
    return isinstance(sample, dict) and str(sample.get("schema_version", "")).startswith("ATIF")


def episodes(document: Any, where: str) -> Iterable[Document]:
    """A document's trajectories, and those of embedded subagents (only in the newest versions)."""
    open_documents = list(base.unrolled(document, where, recognise))[::-1]
    while open_documents:
        place, one = open_documents.pop()
        yield place, one
        inner = one.get("subagent_trajectories") if isinstance(one, dict) else None
        for i, subagent in enumerate(inner if isinstance(inner, list) else [], 1):
            open_documents.append((f"{place}/subagent {i}", subagent))


def trajectory(document: Any, where: str) -> Trajectory:
    """One episode. Raises InputError."""
    version = str(require(document, dict, "a trajectory").get("schema_version"))
    match = re.fullmatch(r"ATIF-v1\.(\d{1,3})", version)
    if not match or int(match[1]) > NEWEST:
        raise InputError(f"schema_version is {version!r}; want ATIF-v1.0 to ATIF-v1.{NEWEST}")
    agent = document.get("agent") if isinstance(document.get("agent"), dict) else {}
    extra = document.get("extra") if isinstance(document.get("extra"), dict) else {}
    turns = Turns()
    steps = require(document.get("steps"), list, '"steps"')
    unused = building.until_fault(steps, lambda step: _add(turns, step), "steps", turns.messages)
    unused += unread([document], READ) + unread(steps, STEP_READ, "steps")
    tools = read_tools(agent.get("tool_definitions"))
    maker = str(agent.get("name", ""))
    dialect = ""  # what Terminus types is text
    if "terminus" not in maker.lower():
        dialect, tools = turns.read_text_calls(tools)
    name = _name(document, where)
    return building.checked(
        Trajectory(
            messages=turns.messages,
            id=name,
            origin=where,
            source="atif",
            scenario=name,
            verifier=_verifier(maker, turns.messages, tools),
            tools=tools,
            reward=building.number(extra.get("reward")),
            skip=turns.skip,
            dialect=dialect,
            unused=unused,
        )
    )


def _name(document: dict, where: str) -> str:
    """The trial's folder, which Harbor names "task__random letters"; else the document's own id."""
    trial = folders.trial(Path(where))
    if trial and "/subagent " not in where:
        return trial.name
    return building.named(document, ("trajectory_id", "session_id"), building.stem(where))


def _add(turns: Turns, step: Any) -> None:
    source = require(step, dict, "a step").get("source")
    if not isinstance(source, str) or source not in SOURCES:
        raise InputError(f"unknown source {source!r}; want one of {', '.join(SOURCES)}")
    parts = read_parts(step.get("message"))
    if source == "agent":
        for call in require(step.get("tool_calls") or [], list, "tool_calls"):
            call = require(call, dict, "a tool call")
            named = {"name": call.get("function_name"), "id": call.get("tool_call_id")}
            parts.calls.append(call_of({**named, "arguments": call.get("arguments")}))
        parts.reasoning = parts.reasoning or reasoning_of(step)
        turns.answer(parts, context=step.get("is_copied_context") is True)
    else:
        turns.say(SOURCES[source], parts)
    observation = step.get("observation")
    if observation is None:
        return
    if isinstance(observation, str):
        observation = {"results": [{"content": observation}]}
    results = require(observation, dict, "an observation").get("results") or []
    for result in require(results, list, "an observation's results"):
        extra = require(result, dict, "a result").get("extra")
        extra = extra if isinstance(extra, dict) else {}
        code = extra.get("exit_code", extra.get("returncode"))
        failed = extra.get("is_error") is True or building.could_not_run(code)
        turns.result(result.get("source_call_id"), read_parts(result.get("content")), failed)


def _verifier(agent: str, messages: list[Message], tools: list[dict]) -> str:
    """ "terminal" for an agent that types into a terminal, else chosen by the names of its tools."""
    names = [c["function"]["name"] for m in messages for c in m.get("tool_calls", ())]
    shell = [n for n in names if set(re.split(r"[^a-z]+", n.lower())) & set(SHELLS)]
    if "terminus" in agent.lower() or len(shell) * 2 > len(names):
        return "terminal"
    return openai_chat.verifier_for(messages, tools)
