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

from pivotrl_jax.chat.messages import content_text, require, tool_call
from pivotrl_jax.chat.tools import read_tools
from pivotrl_jax.records import InputError, Message, Trajectory
from pivotrl_jax.trajectories import folders
from pivotrl_jax.trajectories.readers import base, building, openai_chat
from pivotrl_jax.trajectories.readers.building import CONTEXT
from pivotrl_jax.trajectories.readers.files import Document

NEWEST = 8

SOURCES = {"user": "user", "system": "system", "agent": "assistant"}

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
    messages, skip = _messages(require(document.get("steps"), list, '"steps"'))
    tools = agent.get("tool_definitions")
    name = _name(document, where)
    return building.checked(
        Trajectory(
            messages=messages,
            id=name,
            origin=where,
            source="atif",
            scenario=name,
            verifier=_verifier(str(agent.get("name", "")), messages, tools),
            tools=tools,
            reward=building.number(extra.get("reward")),
            skip=skip,
        )
    )


def _name(document: dict, where: str) -> str:
    """The trial's folder, which Harbor names "task__random letters"; else the document's own id."""
    trial = folders.trial(Path(where))
    if trial and "/subagent " not in where:
        return trial.name
    return building.named(document, ("trajectory_id", "session_id"), building.stem(where))


def _messages(steps: list) -> tuple[list[Message], dict[int, str]]:
    messages: list[Message] = []
    skip: dict[int, str] = {}
    for i, step in enumerate(steps):
        source = require(step, dict, f"steps[{i}]").get("source")
        if not isinstance(source, str) or source not in SOURCES:
            raise InputError(f"steps[{i}]: unknown source {source!r}; want one of {', '.join(SOURCES)}")
        message: Message = {"role": SOURCES[source], "content": content_text(step.get("message"))}
        calls = []
        if source == "agent":
            calls = [_call(c) for c in require(step.get("tool_calls") or [], list, f"steps[{i}]: tool_calls")]
            message["tool_calls"] = calls
            if isinstance(step.get("reasoning_content"), str):
                message["reasoning_content"] = step["reasoning_content"]
            if step.get("is_copied_context") is True:
                skip[len(messages)] = CONTEXT
        messages.append(message)
        messages += _results(step, calls)
    return messages, skip


def _call(call: Any) -> dict:
    if not isinstance(call, dict) or not isinstance(call.get("function_name"), str):
        raise InputError("a tool call has no function_name")
    return tool_call(call["function_name"], call.get("arguments"), call.get("tool_call_id"))


def _results(step: dict, calls: list[dict]) -> list[Message]:
    observation = step.get("observation")
    if observation is None:
        return []
    results = require(observation, dict, "an observation").get("results")
    results = require(results, list, "an observation's results")
    messages, unanswered = [], [c["id"] for c in calls]
    for result in results:
        content = content_text(require(result, dict, "a result").get("content"))
        id = result.get("source_call_id") or (unanswered[0] if unanswered else None)
        if id not in unanswered:
            messages.append({"role": "user", "content": content})
            continue
        unanswered.remove(id)
        extra = result.get("extra") if isinstance(result.get("extra"), dict) else {}
        message = {"role": "tool", "tool_call_id": id, "content": content}
        failed = extra.get("is_error") is True or building.could_not_run(
            extra.get("exit_code", extra.get("returncode"))
        )
        messages.append({**message, "error": True} if failed else message)
    return messages


def _verifier(agent: str, messages: list[Message], tools: Any) -> str:
    """ "terminal" for an agent that types into a terminal, else chosen by the names of its tools."""
    names = [c["function"]["name"] for m in messages for c in m.get("tool_calls", ())]
    shell = [n for n in names if set(re.split(r"[^a-z]+", n.lower())) & set(SHELLS)]
    if "terminus" in agent.lower() or len(shell) * 2 > len(names):
        return "terminal"
    return openai_chat.verifier_for(messages, read_tools(tools))
