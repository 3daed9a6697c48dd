"""Messages whose content is a list of typed parts, of SDKs and traces -> chat messages.

| of | example |
|---|---|
| the AI SDK | "content": [{"type": "tool-call", "toolCallId", "toolName", "input"}] |
| its UI messages | "parts": [{"type": "tool-ls", "toolCallId", "state", "input", "output"}] |
| OpenTelemetry | "parts": [{"type": "tool_call", "id", "name", "arguments"}] |
| Cohere | "content": [{"type": "document", "document": {"data"}}] of a tool |
| Harmony | "content": [{"type": "system_content", "model_identity", "tools"}] |
| ChatGLM3 | {"role": "tool", "name", "parameters", "observation"} |

The names of the AI SDK's version 4 are read too ("args", "result", "tool-invocation"), and OpenTelemetry's
spans. A UI message holds the steps of a whole answer: what comes after a result, or a new step, is another
turn. A part of another kind (a file) stays, so that the turns from there on are skipped.
"""

import json
from typing import Any

from pivotrl_jax.chat.json_text import loads
from pivotrl_jax.records import Message
from pivotrl_jax.trajectories.readers import other_calls

_CALLS = ("tool-call", "tool_call")
_RESULTS = ("tool-result", "tool-error", "tool_call_response")
_INVOKED = ("tool-invocation", "dynamic-tool")  # and tool-NAME: a call, and its result if there is one
_SILENT = ("step-start", "source-url", "source-document", "source")


def expanded(message: Any) -> list:
    """The messages that one holds; any message without such parts alone."""
    if not isinstance(message, dict):
        return [message]
    if message.get("role") == "tool" and None not in map(message.get, ("parameters", "observation")):
        return _chatglm(message)
    if parts := _harmony_parts(message):
        return [{**message, "content": "\n\n".join(map(_harmony_text, parts))}]
    for key in ("parts", "content"):
        parts = message.get(key)
        if isinstance(parts, list) and parts and all(isinstance(p, dict) for p in parts):
            typed = all(isinstance(p.get("type"), str) for p in parts)
            if any(map(_is_own, parts)) or (key == "parts" and typed):
                drop = ("parts", "content", other_calls.INVOCATIONS)
                return _read({k: v for k, v in message.items() if k not in drop}, parts)
    return [message]


def _chatglm(message: Message) -> list[Message]:
    """ChatGLM3's call and its result, which are one message."""
    function = {"name": message.get("name"), "arguments": message["parameters"]}
    rest = {k: v for k, v in message.items() if k not in ("role", "name", "parameters", "observation")}
    return [
        {**rest, "role": "assistant", "content": "", "tool_calls": [{"function": function}]},
        {"role": "tool", "name": message.get("name"), "content": _text(message["observation"])},
    ]


def _is_own(part: dict) -> bool:
    """Whether a part has a type that only these SDKs write."""
    kind = part.get("type")
    if kind == "document":  # Anthropic's documents are others
        return isinstance(part.get("document"), dict)
    return kind in (*_CALLS, *_RESULTS, *_INVOKED, "step-start") or _is_named(part)


def _is_named(part: dict) -> bool:
    """Whether a part of a UI message is a call whose tool stands in its type."""
    kind = part.get("type")
    return isinstance(kind, str) and kind.startswith("tool-") and "state" in part and "toolName" not in part


def _read(rest: Message, parts: list[dict]) -> list[Message]:
    """The messages of one that has `parts`; `rest` is what stands beside them."""
    assistant = str(rest.get("role")).lower() in ("assistant", "model", "ai")
    turns: list[_Step] = [_Step()]
    for part in parts:
        kind = part["type"] if isinstance(part.get("type"), str) else ""
        if kind == "step-start" or (turns[-1].results and kind in ("text", "reasoning")):
            turns += [_Step()] if not turns[-1].is_empty() else []
        turns[-1].add(kind, part)
    messages = []
    for turn in turns:
        messages += turn.messages(rest, assistant)
    return messages or [{**rest, "content": ""}]


class _Step:
    """What the parts of one step say, think, call and return."""

    def __init__(self) -> None:
        self.texts: list[Any] = []
        self.thoughts: list[str] = []
        self.calls: list[dict] = []
        self.results: list[Message] = []
        self.odd: list[dict] = []

    def is_empty(self) -> bool:
        return not (self.texts or self.thoughts or self.calls or self.results or self.odd)

    def add(self, kind: str, part: dict) -> None:
        text = part.get("text", part.get("content"))
        if kind == "text" and isinstance(text, str):
            self.texts.append(text)
        elif kind == "reasoning" and isinstance(text, str):
            self.thoughts.append(text)
        elif kind in _CALLS:
            self.calls.append(_call(part, part.get("toolName", part.get("name"))))
        elif kind in _RESULTS or (kind == "document" and _is_own(part)):
            self.results.append(_result(part))
        elif kind in _INVOKED or _is_named(part):
            inner = part.get("toolInvocation") if kind == "tool-invocation" else part
            inner = inner if isinstance(inner, dict) else {}
            self.calls.append(
                _call(inner, inner.get("toolName") if kind in _INVOKED else kind.removeprefix("tool-"))
            )
            if any(inner.get(k) is not None for k in ("output", "result", "errorText")):
                self.results.append(_result(inner))
        elif kind not in _SILENT and not kind.startswith("data-"):
            self.odd.append(part)

    def messages(self, rest: Message, assistant: bool) -> list[Message]:
        content: Any = "".join(self.texts)
        if self.odd:
            content = [{"type": "text", "text": content}, *self.odd]
        if not assistant:
            results = [{**rest, **r, "role": "tool"} for r in self.results]
            return [*results, *([{**rest, "content": content}] if content or not results else [])]
        message: Message = {**rest, "content": content}
        if self.calls:
            message["tool_calls"] = self.calls
        if thought := "\n".join(t for t in self.thoughts if t):
            message["reasoning_content"] = thought
        spoken = content or self.calls or self.thoughts
        return [*([message] if spoken else []), *({**r, "role": "tool"} for r in self.results)]


def _call(part: dict, name: Any) -> dict:
    given = next((part[k] for k in ("input", "args", "arguments") if part.get(k) is not None), {})
    if not isinstance(name, str) or not name:
        return other_calls.unreadable(part)
    return {"id": part.get("toolCallId", part.get("id")), "function": {"name": name, "arguments": given}}


def _result(part: dict) -> Message:
    """A result as the tool's message, without its role."""
    document = part.get("document") if isinstance(part.get("document"), dict) else {}
    values = [part.get(k) for k in ("output", "result", "response", "errorText", "error")]
    values.append(document.get("data"))
    value = next((v for v in values if v is not None), "")
    failed = part.get("isError") is True or any(part.get(k) is not None for k in ("errorText", "error"))
    if isinstance(value, dict) and isinstance(value.get("type"), str) and value.keys() <= {"type", "value"}:
        failed = failed or value["type"].startswith("error")
        value = value.get("value")
    message: Message = {"content": _text(value)}
    id = part.get("toolCallId", None if document else part.get("id"))
    message |= {"tool_call_id": id} if isinstance(id, (str, int)) else {}
    message |= {"name": part["toolName"]} if isinstance(part.get("toolName"), str) else {}
    return message | ({"error": True} if failed else {})


def _text(value: Any) -> Any:
    """The text of a result: parts of text joined, any other JSON as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(p, dict) and "type" in p for p in value):
        texts = [p["text"] if isinstance(p.get("text"), str) else None for p in value]
        return value if None in texts else "\n".join(texts)
    return json.dumps(value, ensure_ascii=False)


# ---- Harmony's system and developer messages


def _harmony_parts(message: Any) -> list[dict]:
    parts = message.get("content") if isinstance(message, dict) else None
    kinds = ("system_content", "developer_content")
    return (
        [p for p in parts if isinstance(p, dict) and p.get("type") in kinds]
        if isinstance(parts, list)
        else []
    )


def _harmony_text(part: dict) -> str:
    """What gpt-oss reads of such a part, without its tools and channels."""
    named = (("", "model_identity"), ("Knowledge cutoff: ", "knowledge_cutoff"))
    named += (("Current date: ", "conversation_start_date"), ("\nReasoning: ", "reasoning_effort"))
    named += (("", "instructions"), ("", "text"))
    said = [(head, part.get(key), key) for head, key in named]
    return "\n".join(
        head + (value.lower() if key == "reasoning_effort" else value)
        for head, value, key in said
        if isinstance(value, str) and value
    )


def harmony_tools(messages: list) -> list[dict]:
    """The function docs in such parts, with the names under which they are called."""
    spaces = [
        (name, space)
        for message in messages[:2]
        for part in _harmony_parts(message)
        for name, space in (part["tools"].items() if isinstance(part.get("tools"), dict) else ())
        if isinstance(space, dict) and isinstance(space.get("tools"), list)
    ]
    return [
        {**doc, "name": doc["name"] if name == "functions" else f"{name}.{doc['name']}"}
        for name, space in spaces
        for doc in space["tools"]
        if isinstance(doc, dict) and isinstance(doc.get("name"), str)
    ]


# ---- spans

_ASKED, _ANSWERED = "gen_ai.input.messages", "gen_ai.output.messages"
_SYSTEM, _TOOLS = "gen_ai.system_instructions", "gen_ai.tool.definitions"


def span(row: dict) -> dict | None:
    """The chat row of a span of OpenTelemetry's conventions; None for any other row."""
    attributes = row.get("attributes") if isinstance(row.get("attributes"), dict) else row
    asked, answered, system, tools = (
        _decoded(attributes.get(key)) for key in (_ASKED, _ANSWERED, _SYSTEM, _TOOLS)
    )
    if not isinstance(asked, list) or not isinstance(answered, list):
        return None
    before = [{"role": "system", "parts": system}] if isinstance(system, list) and system else []
    rest = {k: v for k, v in row.items() if k not in ("attributes", _ASKED, _ANSWERED, _SYSTEM, _TOOLS)}
    docs = {"tools": tools} if isinstance(tools, list) else {}
    return {**rest, "messages": [*before, *asked, *answered], **docs}


def _decoded(value: Any) -> Any:
    try:
        return loads(value) if isinstance(value, str) else value
    except ValueError:
        return None
