"""Rows of Gemini's and Bedrock's APIs -> chat rows.

| form | example |
|---|---|
| Gemini | {"contents": [{"role": "model", "parts": [{"functionCall": {"name", "args"}}]}], "tools"} |
| Converse | {"messages": [{"content": [{"toolUse": {"toolUseId", "name", "input"}}]}], "toolConfig"} |

Gemini's `systemInstruction` and function declarations are read, in its two spellings, and an answer beside
the request: `candidates`, Converse's `output`. A part of another kind (an image, code that the API ran) is
not text: the turns from there on are skipped.
"""

import json
from typing import Any

from pivotrl_jax.records import Message
from pivotrl_jax.trajectories.readers import other_calls

CALLS = ("functionCall", "function_call", "toolUse")
RESULTS = ("functionResponse", "function_response", "toolResult")
SYSTEM = ("systemInstruction", "system_instruction")
DECLARED = ("functionDeclarations", "function_declarations")
HIDDEN = {"thought", "thoughtSignature", "thought_signature", "cachePoint"}


def normal(row: dict) -> dict | None:
    """The chat row of a row of one of these APIs; None for any other row."""
    return _gemini(row) or _converse(row)


def _gemini(row: dict) -> dict | None:
    key = next((k for k in ("contents", "messages") if _is_contents(row.get(k))), "")
    if not key:
        return None
    system = next((row[k] for k in SYSTEM if row.get(k)), None)
    messages = [{"role": "system", "content": _text(_list(system, "parts"))}] if system else []
    for content in row[key]:
        messages += _read(content, "parts")
    holder = "response" if _list(row.get("response"), "candidates") else "candidates"
    answers = _list(row.get("response"), "candidates") or _list(row, "candidates")
    answer = answers[0] if answers and isinstance(answers[0], dict) else {}
    if parts := _list(answer.get("content"), "parts"):
        messages += _messages("model", parts, answer.get("finishReason") or answer.get("finish_reason"))
    tools = [_declared(d) for t in _list(row, "tools") for k in DECLARED for d in _list(t, k)]
    rest = {k: v for k, v in row.items() if k not in (key, *SYSTEM, holder)}
    rest |= {"candidates after the first": answers[1:]}  # named as not read
    return {**rest, "messages": messages} | ({"tools": tools} if tools else {})


def _is_contents(value: Any) -> bool:
    """Whether a value is a list of Gemini's contents; other formats give their parts a type or a kind."""
    parts = [p for c in value for p in _list(c, "parts")] if isinstance(value, list) else []
    parts = [p for p in parts if isinstance(p, dict)]
    known = any({"text", *CALLS, *RESULTS} & p.keys() for p in parts)
    return known and not any({"type", "part_kind", "kind"} & p.keys() for p in parts)


def _converse(row: dict) -> dict | None:
    messages = row.get("messages") if isinstance(row.get("messages"), list) else []
    if isinstance(row.get("response"), dict) and isinstance(row["response"].get("output"), dict):
        row = {**{k: v for k, v in row.items() if k != "response"}, **row["response"]}  # an invocation's log
    answer = row["output"].get("message") if isinstance(row.get("output"), dict) else None
    logged = isinstance(answer, dict) and "stopReason" in row
    known = any(map(_has_blocks, [*messages, answer])) or isinstance(row.get("toolConfig"), dict) or logged
    if not messages or not known:
        return None
    read = [m for one in messages for m in _read(one, "content")]
    read += _read(answer, "content", row.get("stopReason")) if answer else []
    docs = [t.get("toolSpec") for t in _list(row.get("toolConfig"), "tools") if isinstance(t, dict)]
    fields = ("messages", "toolConfig", "stopReason", *(["output"] if answer else []))
    rest = {k: v for k, v in row.items() if k not in fields}
    return {**rest, "messages": read} | ({"tools": list(map(_declared, docs))} if docs else {})


def _has_blocks(message: Any) -> bool:
    kinds = {"toolUse", "toolResult", "reasoningContent"}
    return any(
        isinstance(b, dict) and kinds & b.keys() and "type" not in b for b in _list(message, "content")
    )


def _list(value: Any, key: str) -> list:
    """The list under a key of an object; an empty one if there is none."""
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, list) else []


# ---- parts


def _read(content: Any, key: str, end: Any = None) -> list:
    """The messages of one content, whose parts are under `key`; one without parts stays as it is."""
    if not isinstance(content, dict) or not isinstance(content.get(key), list):
        return [content]
    return _messages(content.get("role"), content[key], end)


def _messages(role: Any, parts: list, end: Any = None) -> list[Message]:
    """The messages of one content: an assistant's, or results and what a user says."""
    calls, results, odd, thoughts, said = [], [], [], [], []
    for part in parts:
        part = part if isinstance(part, dict) else {"unknown": part}
        kind = next((k for k in (*CALLS, *RESULTS, "reasoningContent", "text") if k in part), "")
        if kind in CALLS:
            calls.append(_call(part[kind]))
        elif kind in RESULTS:
            results.append(_result(part[kind]))
        elif kind == "reasoningContent":
            thoughts.append(_thought(part[kind]))
        elif kind == "text" and isinstance(part["text"], str):
            (thoughts if part.get("thought") is True else said).append(part["text"])
        else:
            odd += [{"type": str(k)} for k in part.keys() - HIDDEN][:1]
    text = "".join(said)
    content = [{"type": "text", "text": text}, *odd] if odd else text
    if role not in ("model", "assistant"):
        role = "user" if role in (None, "function", "tool") else role
        return [*results, *([{"role": role, "content": content}] if content else [])]
    message: Message = {"role": "assistant", "content": content, "tool_calls": calls}
    if thought := "\n".join(t for t in thoughts if isinstance(t, str) and t):
        message["reasoning_content"] = thought
    return [message | ({"finish_reason": end} if end else {})]


def _call(call: Any) -> dict:
    if not isinstance(call, dict):
        return other_calls.unreadable(call)
    given = next((call[k] for k in ("args", "input") if call.get(k) is not None), {})
    return {
        "id": call.get("toolUseId", call.get("id")),
        "function": {"name": call.get("name"), "arguments": given},
    }


def _result(result: Any) -> Message:
    result = result if isinstance(result, dict) else {"response": result}
    message = {"role": "tool", "tool_call_id": result.get("toolUseId", result.get("id"))}
    if isinstance(result.get("name"), str):
        message["name"] = result["name"]
    if result.get("status") == "error":
        message["error"] = True
    return {**message, "content": _text(result.get("content", result.get("response")))}


def _text(content: Any) -> Any:
    """The text of a result or a system instruction: a text, blocks of text and JSON, or any JSON."""
    if not isinstance(content, list):
        return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    blocks = [b if isinstance(b, dict) else {"json": b} for b in content]
    texts = [
        b["text"] if isinstance(b.get("text"), str) else json.dumps(b.get("json"), ensure_ascii=False)
        for b in blocks
    ]
    odd = [{"type": str(next(iter(b), ""))} for b in blocks if not {"text", "json"} & b.keys()]
    return [{"type": "text", "text": "".join(texts)}, *odd] if odd else "\n".join(texts)


def _thought(value: Any) -> Any:
    value = value.get("reasoningText", value) if isinstance(value, dict) else {}
    return value.get("text") if isinstance(value, dict) else ""


# ---- function docs


def _declared(doc: Any) -> Any:
    """A function doc of these APIs with a JSON schema under "parameters"."""
    if not isinstance(doc, dict):
        return doc
    schema = next((doc[k] for k in ("parameters", "parametersJsonSchema", "inputSchema") if doc.get(k)), {})
    schema = schema.get("json", schema) if isinstance(schema, dict) else schema
    return {
        "name": doc.get("name"),
        "description": doc.get("description") or "",
        "parameters": _lower(schema),
    }


def _lower(schema: Any) -> Any:
    """A schema with its types as JSON schema writes them: Gemini's are in capitals."""
    if isinstance(schema, list):
        return [_lower(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {k: v.lower() if k == "type" and isinstance(v, str) else _lower(v) for k, v in schema.items()}
