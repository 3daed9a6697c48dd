"""Messages built turn by turn, for sources that hold content blocks, events or items of an API.

`read_parts` reads a content of any public shape: text, thinking, calls and results of Anthropic, OpenAI,
LangChain and Inspect. `Turns` collects messages; a result answers the call that it names, or becomes a user
message, so that one odd call costs one turn. A content that is not text (an image) leaves out the turns after
it: only text can be shown to the policy.
"""

import dataclasses
import json
from typing import Any

from pivotrl_jax.chat.dialects.base import schemas_of
from pivotrl_jax.chat.json_text import MAX_NESTING, nesting
from pivotrl_jax.chat.messages import BAD_RESULT, NOT_TEXT, UNPARSEABLE, require, tool_call
from pivotrl_jax.records import InputError, Message
from pivotrl_jax.trajectories.readers import building, message_forms, openai_chat
from pivotrl_jax.trajectories.readers.building import CONTEXT, UNPARSEABLE_CALL
from pivotrl_jax.trajectories.readers.text_calls import NATIVE, read_calls, without_doubles
from pivotrl_jax.verifiers.compare.coding_tools import family

TEXTS = ("text", "input_text", "output_text", "summary_text", "reasoning_text", "refusal")
THOUGHTS = ("thinking", "reasoning", "reasoning_content")
HIDDEN = ("redacted_thinking", "encrypted_reasoning", "cache_control", "signature")  # nothing to read in them
RESULTS = ("tool_result", "function_call_output", "custom_tool_call_output")
REWARDS = ("reward", "resolved", "success", "target")  # fields of a row that tell its outcome
MAX_DEPTH = 8  # of contents inside contents
_ORIGIN = "origin"  # the index of a message that is taken apart


@dataclasses.dataclass
class Parts:
    """What a content holds. `other` names the kinds of parts that are not text."""

    text: str = ""
    reasoning: str = ""
    calls: list[dict] = dataclasses.field(default_factory=list)
    results: list[Message] = dataclasses.field(default_factory=list)
    other: list[str] = dataclasses.field(default_factory=list)


def read_parts(content: Any, joint: str = "", depth: int = 0) -> Parts:
    """The parts of a content: a text, a block, or a list of these. `joint` stands between texts.

    Raises InputError for anything else.
    """
    parts, texts, thoughts = Parts(), [], []
    if content is None:
        return parts
    if isinstance(content, (str, dict)):
        content = [content]
    if depth > MAX_DEPTH:
        raise InputError("a content is nested too deeply")
    for part in require(content, list, "a content"):
        part = {"type": "text", "text": part} if isinstance(part, str) else part
        kind = require(part, dict, "a part of a content").get("type")
        if kind in THOUGHTS:
            thoughts.append(thought(part, depth))
        elif kind in ("tool_use", "function_call") and "tool_type" not in part:
            parts.calls.append(call_of(part))
        elif kind in RESULTS:
            inner = read_parts(part.get("content", part.get("output")), depth=depth + 1)
            id = part.get("tool_use_id", part.get("call_id"))
            parts.results.append(
                {"tool_call_id": id, "content": inner.text, "error": is_true(part, "is_error")}
            )
            parts.other += inner.other
        elif isinstance(part.get("text"), str) and (kind in TEXTS or kind is None):
            texts.append(part["text"])
        elif kind == "refusal" and isinstance(part.get("refusal"), str):
            texts.append(part["refusal"])
        elif kind not in HIDDEN:
            parts.other.append(kind if isinstance(kind, str) else "unknown")
    parts.text, parts.reasoning = joint.join(texts), "\n".join(t for t in thoughts if t)
    return parts


def thought(part: dict, depth: int = 0) -> str:
    """The text of a thinking or reasoning block. Raises InputError."""
    if part.get("redacted") is True:  # its text is encrypted
        return part["summary"] if isinstance(part.get("summary"), str) else ""
    for key in ("thinking", "reasoning", "summary", "text", "content", "reasoning_content"):
        if part.get(key):
            return read_parts(part[key], "\n", depth + 1).text
    return ""


def call_of(part: dict) -> dict:
    """A call, whatever the source calls its fields; one without a name cannot be read."""
    function = part["function"] if isinstance(part.get("function"), dict) else part
    name = function.get("name", function.get("function"))
    given = [function[key] for key in ("input", "arguments", "args") if function.get(key) is not None]
    id = next((part[key] for key in ("call_id", "id") if isinstance(part.get(key), str)), None)
    if not isinstance(name, str) or not name:
        return unreadable(part, id)
    return tool_call(name, given[0] if given else {}, id)


def unreadable(call: Any, id: Any = None) -> dict:
    """A call that cannot be read, with its text; its turn is skipped."""
    deep = nesting(call) > MAX_NESTING
    text = "nested too deeply" if deep else json.dumps(call, ensure_ascii=False, default=str)[:2000]
    return tool_call("unreadable", {UNPARSEABLE: text}, id)


def is_true(value: dict, key: str) -> bool:
    """Whether a field is true; sources that have only text write "true"."""
    found = value.get(key)
    return found is True or (isinstance(found, str) and found.lower() == "true")


class Turns:
    """Messages so far, the turns to skip, and the calls that have no result yet."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.skip: dict[int, str] = {}
        # (the source's id, ours, index of the turn) of calls without a result
        self.open: list[tuple[Any, str, int]] = []
        self.last = -1  # index of the last turn
        self.blind = False  # whether something that is not text came before
        self.astray = False  # whether a result of no known call came before

    def say(self, role: str, parts: Parts) -> None:
        """Add a user's or system's message, if it has a text. Raises InputError if it makes calls."""
        if parts.calls:
            raise InputError(f"the role {role} makes tool calls; only an assistant can")
        self.blind = self.blind or bool(parts.other)
        if parts.text:
            self.messages.append({"role": role, "content": parts.text})

    def answer(self, parts: Parts, context: bool = False, source: Message | None = None) -> None:
        """Add an assistant's turn. With `context`, or where its `source` says so, it is shown, not
        demonstrated."""
        self.blind = self.blind or bool(parts.other)
        why = CONTEXT if context else building.told(source or {}) or self._unseen()
        before = self.messages[-1] if self.messages else {}
        self.last = len(self.messages)
        calls, known = [], set()
        if before.get("role") == "assistant" and before["tool_calls"]:  # perhaps the same response
            known = {ours for _, ours, _ in self.open}
        else:
            self.open = []
        for i, call in enumerate(parts.calls):
            ours = call["id"] if isinstance(call["id"], str) and call["id"] else f"call_{i}"
            while ours in known:  # equal ids: results pair in order
                ours = f"{ours}~{i}"
            known.add(ours)
            self.open.append((call["id"], ours, self.last))
            calls.append({**call, "id": ours})
        text, reasoning = parts.text, parts.reasoning
        if text.lstrip().startswith("<think>") and "</think>" in text and reasoning:
            text = text.partition("</think>")[2].strip("\n")  # the thinking, told twice
        message = {"role": "assistant", "content": text, "tool_calls": calls}
        message = {**message, "reasoning_content": reasoning} if reasoning else message
        if text and not calls and message == before and self.skip.get(self.last - 1, "") == why:
            self.last -= 1  # a copy
            return
        self.skip |= {self.last: why} if why else {}
        self.messages.append(message)

    def _unseen(self) -> str:
        """Why the state before a turn was not read whole; "" if it was."""
        return NOT_TEXT if self.blind else BAD_RESULT if self.astray else ""

    def result(self, id: Any, parts: Parts, error: bool = False) -> None:
        """Add the answer to a call: to the one with that id, or to the oldest open one of the last turn if it
        has no id."""
        if parts.calls:
            raise InputError("a tool result makes tool calls; only an assistant can")
        self.blind = self.blind or bool(parts.other)
        fit = [(-turn, i) for i, (theirs, _, turn) in enumerate(self.open) if theirs == id or not id]
        found = min(fit)[1] if fit and (id or -min(fit)[0] == self.last) else None
        if found is None:
            if id and not self.missing():
                self.astray = True
            self.say("user", parts)
            return
        message = {"role": "tool", "tool_call_id": self.open.pop(found)[1], "content": parts.text}
        message = message if id else {**message, building.BY_ORDER: True}
        self.messages.append({**message, "error": True} if error else message)

    def missing(self) -> bool:
        """Skip the last turn if it only talks: what comes after it tells that it made a call."""
        talks = self.last >= 0 and not self.messages[self.last]["tool_calls"]
        if talks:
            self.skip.setdefault(self.last, UNPARSEABLE_CALL)
        return talks

    def join(self) -> None:
        """Make one turn of a call and what follows it where every call among them is answered after the last:
        they are parts of one response."""
        skip, whole = {}, []
        runs = message_forms.runs(self.messages)
        for i, message in enumerate(self.messages):
            before = whole[-1] if whole else {"role": ""}
            follows = i in runs and before["role"] == "assistant" and bool(before["tool_calls"])
            if follows and runs[i].is_answered and runs[i].is_whole:
                whole[-1] = message_forms.both(before, message)
            else:
                whole.append(dict(message))
            if i in self.skip:
                skip.setdefault(len(whole) - 1, self.skip[i])
        self.messages, self.skip = whole, skip

    def results(self, parts: Parts) -> None:
        """Add the results among the blocks of a user's message."""
        for result in parts.results:
            self.result(result["tool_call_id"], Parts(result["content"]), result["error"])

    def read_text_calls(self, tools: list[dict]) -> tuple[str, list[dict]]:
        """Read the calls that stand in the text, if no turn has others: (the dialect, "" if there are no
        calls; the tools, with a shell where commands in fences call one that has no doc).

        Messages, and the turns to skip, change where one message held several results or steps.
        """
        if any(m.get("tool_calls") for m in self.messages):
            self.join()
            self.messages, others = without_doubles(self.messages, schemas_of(tools))
            self.skip = others | self.skip
            return NATIVE, tools
        read = read_calls([{**m, _ORIGIN: i} for i, m in enumerate(self.messages)], tools)
        origins = {i: m[_ORIGIN] for i, m in enumerate(read.messages) if m["role"] == "assistant"}
        skipped = {i: self.skip[origin] for i, origin in origins.items() if origin in self.skip}
        self.skip = read.skip | skipped
        self.messages = [{k: v for k, v in m.items() if k != _ORIGIN} for m in read.messages]
        shell = [building.BASH_TOOL] if read.dialect in openai_chat.SHELL_DIALECTS else []
        return read.dialect, tools or shell

    def told_of_row(self, row: dict) -> dict[int, str]:
        """The turns that a row's own weight or label leaves out, with the reason."""
        turns = [i for i, m in enumerate(self.messages) if m["role"] == "assistant"]
        return building.told_of_row(row, turns) if turns else {}

    def verifier(self, tools: list[dict]) -> str:
        """ "swe" where most calls are those of a coding agent, else chosen by the names of the tools."""
        names = [c["function"]["name"] for m in self.messages for c in m.get("tool_calls", ())]
        families = [family(name) for name in names]
        if 2 * sum(map(bool, families)) > len(names) and {"bash", "edit"} & set(families):
            return "swe"
        return openai_chat.verifier_for(self.messages, tools)


def function_docs(tools: Any) -> list[dict]:
    """Tools of any public shape as function docs: with `input_schema`, `params`, or already in our form.

    Tools that the API runs itself have no schema, and are left out.
    """
    docs = []
    for tool in require(tools or [], list, '"tools"'):
        doc = tool.get("function", tool) if isinstance(tool, dict) else tool
        name = doc.get("name") or doc.get("title") if isinstance(doc, dict) else None
        if not isinstance(name, str):
            raise InputError("a tool has no name")
        schema = next(
            (
                doc[k]
                for k in ("parameters", "input_schema", "inputSchema", "params")
                if isinstance(doc.get(k), dict)
            ),
            {},
        )
        if schema or "type" not in doc or doc["type"] in ("function", "custom"):
            docs.append(
                {"name": name, "description": str(doc.get("description") or ""), "parameters": schema}
            )
    return docs


def reward_of(row: dict) -> float | None:
    """The recorded outcome of a row, under one of its usual names."""
    found = [building.number(row.get(key)) for key in REWARDS]
    return next((value for value in found if value is not None), None)
