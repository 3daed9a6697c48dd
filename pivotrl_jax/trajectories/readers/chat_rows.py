"""The public forms of chat rows -> one loose form: a list of messages with OpenAI's roles, and tools.

| form | example |
|---|---|
| OpenAI | {"messages": [{"role", "content", "tool_calls"}], "tools"}; also "function_call", role "function" |
| ShareGPT | {"conversations": [{"from": "human", "value"}], "system", "tools"} |
| ms-swift | roles "tool_call" and "tool_response" |
| TRL | {"prompt": [...], "completion": [...]} |
| logs | {"messages", "response": {"choices": [{"message"}]}} |
| Alpaca | {"instruction", "input", "output", "history", "system"} |
| xLAM | {"query", "answers", "tools"} |

row_forms.py gives rows of other shapes one of these.
"""

from typing import Any

from pivotrl_jax.chat import dialects
from pivotrl_jax.chat.json_text import loads
from pivotrl_jax.chat.messages import UNPARSEABLE, lenient_tool_calls, named_call, tool_call
from pivotrl_jax.chat.reasoning import FIELDS, reasoning_of, split_thinking
from pivotrl_jax.records import InputError, Message
from pivotrl_jax.trajectories.readers import row_answers, row_forms
from pivotrl_jax.trajectories.readers.lenient_calls import literal
from pivotrl_jax.trajectories.readers.row_forms import MESSAGE_FIELDS
from pivotrl_jax.trajectories.readers.special_tokens import without_special_tokens

TOOL_FIELDS = ("tools", "functions", "tool_definitions", "available_tools", "function_docs", "tool_schemas")
TOOL_FIELDS += ("xml_tools",)
SYSTEM_FIELDS = ("system", "system_prompt", "system_message", "instructions")

_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "agent": "assistant",
    "function_call": "tool_call",
    "tool-call": "tool_call",
    "function-call": "tool_call",
    "tool_calls": "tool_call",
    "observation": "tool",
    "function": "tool",
    "function_response": "tool",
    "function-response": "tool",
    "tool_response": "tool",
    "tool-response": "tool",
    "tool_result": "tool",
    "ipython": "tool",
    "environment": "tool",
}
_TEXT_FIELDS = ("content", "value", "text")
# false or 0 in one of these: the turn is shown, not imitated
_NOT_TRAINED = ("0", "0.0", "false", "False")
_WEIGHTS = ("weight", "loss", "train", "training", "trainable", "loss_weight", "loss_scale")

# the fields of a message that are read, and those that say nothing about what was said or done
MESSAGE_KEYS = {
    "role",
    "from",
    *_TEXT_FIELDS,
    "tool_calls",
    "tool_call_id",
    "name",
    "tool_name",
    "function_call",
    *_WEIGHTS,
}
MESSAGE_KEYS |= {
    *FIELDS,
    "function_calls",
    "functions",
    "tools",
    "tool_call_ids",
    "channel",
    "recipient",
    "id",
    "type",
    "timestamp",
    "created_at",
    "model",
    "refusal",
    "annotations",
}


def has_form(row: Any) -> bool:
    """Whether a JSON object looks like a chat row."""
    if not isinstance(row, dict):
        return False
    if any(isinstance(row.get(key), (list, str)) for key in MESSAGE_FIELDS):
        return True
    if row_forms.has_form(row):
        return True
    if isinstance(row.get("prompt"), (list, str)) and isinstance(row.get("completion"), (list, str)):
        return True
    if isinstance(row.get("query"), str) and isinstance(row.get("answers"), (list, str)):
        return True
    if isinstance(row.get("instruction"), str) and isinstance(row.get("output"), str):
        return True
    return False


def messages_of(row: dict) -> Any:
    """The messages of a row, with OpenAI's roles and fields; None if there are none. Raises InputError."""
    messages = _turns(row)
    if not isinstance(messages, list):
        return messages
    return _joined(messages + [_renamed(m) for m in row_answers.answer(row, messages)[1]])


def unread_answers(row: dict) -> list[str]:
    """The fields of a row that hold an answer to its messages which was not read."""
    messages = _turns(row) if any(row.get(key) for key in row_answers.FIELDS) else None
    return row_answers.unread(row, messages) if isinstance(messages, list) else []


def _turns(row: dict) -> Any:
    """The messages of a row without an answer that stands beside them."""
    raw = _raw_messages(row)
    if not isinstance(raw, list):
        return raw
    messages = [_renamed(m) for m in raw]
    system = _system(row)
    if system and not (messages and isinstance(messages[0], dict) and messages[0].get("role") == "system"):
        messages = [{"role": "system", "content": system}, *messages]
    return messages


def _system(row: dict) -> Any:
    """The system message beside a row's turns: a text, or texts and blocks of one; "" if there is none."""
    for key in SYSTEM_FIELDS:
        value = row.get(key)
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            value = "\n\n".join(value)
        if isinstance(value, (str, list)) and value and (isinstance(value, list) or value.strip()):
            return value
    return ""


def _raw_messages(row: dict) -> Any:
    for key in MESSAGE_FIELDS:
        value = row.get(key)
        if isinstance(value, str) and value.lstrip().startswith("["):
            value = decoded(value, key)
        if value is not None:
            return value
    if "prompt" in row and "completion" in row:
        return _part(row["prompt"], "user") + _part(row["completion"], "assistant")
    if "query" in row and "answers" in row:
        return [{"role": "user", "content": row["query"]}, _answers(row["answers"])]
    if isinstance(row.get("instruction"), str) and isinstance(row.get("output"), str):
        return _alpaca(row)
    return None


def _part(value: Any, role: str) -> list:
    """One side of a prompt and its completion: messages, also as JSON text, or a text."""
    if isinstance(value, list):
        return value
    return row_forms.as_messages(value, role) or [{"role": role, "content": value}]


def _answers(answers: Any) -> Message:
    """xLAM's answers: a list of calls, also as JSON text."""
    calls = decoded(answers, "answers") if isinstance(answers, str) else answers
    calls = lenient_tool_calls(calls if isinstance(calls, list) else [calls])
    return {"role": "assistant", "content": "", "tool_calls": calls}


def _alpaca(row: dict) -> list:
    history = row.get("history") or []
    history = decoded(history, "history") if isinstance(history, str) else history
    messages = []
    for pair in history if isinstance(history, list) else [None]:
        if isinstance(pair, list) and len(pair) == 2:
            messages += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
        elif isinstance(pair, dict) and {"role", "from"} & pair.keys():
            messages.append(pair)
        else:
            raise InputError('"history" holds something else than pairs of texts and messages; fix the row')
    asked = "\n".join(t for t in (row["instruction"], row.get("input")) if isinstance(t, str) and t.strip())
    return [*messages, {"role": "user", "content": asked}, {"role": "assistant", "content": row["output"]}]


def _renamed(message: Any) -> Any:
    """A message in any of the forms, with OpenAI's role and fields."""
    if not isinstance(message, dict):
        return message
    original = message.get("role", message.get("from"))
    original = original.lower() if isinstance(original, str) else original
    role = _ROLES.get(original, original) if isinstance(original, str) else original
    out = {k: v for k, v in message.items() if k not in ("from", "value", "function_call")}
    out["role"] = role
    if not message.get("content"):
        text = next((message[k] for k in _TEXT_FIELDS if message.get(k)), message.get("content"))
        out["content"] = "" if text is None and any(k in message for k in _TEXT_FIELDS[1:]) else text
        out.pop("text", None)
    if role in ("assistant", "tool_call"):
        out["content"] = _own_text(out["content"])
    ids = out.get("tool_call_ids")
    if role == "tool" and "tool_call_id" not in out and isinstance(ids, list) and len(ids) == 1:
        out["tool_call_id"] = ids[0]
    name = out.get("name") or message.get("tool_name")
    if role == "tool" and isinstance(name, str):
        out["name"] = name.removeprefix("functions.")
    if role == "tool_call":
        return _call_message(out)
    if isinstance(out.get("tool_calls"), (str, dict)):
        out["tool_calls"] = _as_list(out["tool_calls"])
    call = message.get("function_call")
    recipient = message.get("recipient")
    if role == "assistant" and isinstance(recipient, str) and recipient.startswith("functions."):
        call = {"name": recipient.removeprefix("functions."), "arguments": out["content"]}
        out["content"] = ""
    if role == "assistant" and not message.get("tool_calls"):
        if isinstance(call, str) and call.strip():
            call = literal(call) or call
        if call:
            out["tool_calls"] = [{"function": call} if isinstance(call, dict) else _unreadable(call)]
        elif message.get("function_calls"):
            out["tool_calls"] = _written_calls(message["function_calls"])
    return out


def _written_calls(calls: Any) -> list:
    """OLMo 3's calls, which are written in Python, one per line; a list of calls as it is."""
    if not isinstance(calls, str):
        return calls if isinstance(calls, list) else [calls]
    lines = [line for line in calls.splitlines() if line.strip()]
    found = dialects.read(f"[{', '.join(lines)}]", "pythonic", {})
    if found.fault or not found.calls:
        return [_unreadable(calls)]
    return [{"name": c.name, "arguments": c.arguments} for c in found.calls]


def _unreadable(call: Any) -> dict:
    """A call that cannot be read, so that its turn is skipped."""
    return tool_call("unreadable", {UNPARSEABLE: str(call)[:2000]})


def _own_text(content: Any) -> Any:
    """What an assistant wrote: parts of nothing but text as one text, without a template's tokens."""
    if isinstance(content, list) and content and all(_is_text_part(part) for part in content):
        content = "".join(part["text"] for part in content)
    return without_special_tokens(content) if isinstance(content, str) else content


def _is_text_part(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _as_list(calls: Any) -> Any:
    """Calls as a list: JSON text is decoded, and one call stands for a list of it."""
    try:
        value = loads(calls) if isinstance(calls, str) else calls
    except ValueError:
        return calls
    return [value] if isinstance(value, dict) else value


def _call_message(message: Message) -> Message:
    """A message whose role says that its text is a call, or a list of calls, in JSON."""
    thought, text = (
        split_thinking(message["content"]) if isinstance(message.get("content"), str) else ("", None)
    )
    text = message.get("content") if text is None else text
    calls = _values(text.removeprefix("Calling tools:\n") if isinstance(text, str) else text)
    if calls is None and isinstance(text, str) and dialects.shows_a_call(text, {}):
        return {**message, "role": "assistant"}  # in a dialect, which is read later
    calls = calls or [None]
    message = {**message, "reasoning_content": thought} if thought else message
    if any(named_call(c) is None for c in calls):
        calls = [_unreadable(text)]
    return {**message, "role": "assistant", "content": "", "tool_calls": lenient_tool_calls(calls)}


def _values(text: Any) -> list | None:
    """The calls of a text: one JSON value, a Python literal, or a value per line; None for other text."""
    if not isinstance(text, str):
        return text if isinstance(text, list) else [text]
    value = literal(text)
    if value is None:
        lines = [literal(line) for line in text.splitlines() if line.strip()]
        return None if None in lines or not lines else lines
    return value if isinstance(value, list) else [value]


def _joined(messages: list) -> list:
    """Assistant messages that are parts of one response, joined: what follows without a result or a user in
    between, and calls."""
    joined: list = []
    for message in messages:
        before = joined[-1] if joined else None
        if _is_assistant(message) and _is_assistant(before) and _has_calls(message, before):
            texts = [
                m["content"] for m in (before, message) if isinstance(m.get("content"), str) and m["content"]
            ]
            calls = [c for m in (before, message) for c in m.get("tool_calls") or []]
            thoughts = "\n".join(t for m in (before, message) if (t := reasoning_of(m)))
            joined[-1] = {**before, **message, "content": "\n".join(texts), "tool_calls": calls}
            if thoughts:
                joined[-1]["reasoning_content"] = thoughts
        elif _is_assistant(message) and _is_assistant(before) and _only_thinks(before):
            thoughts = "\n".join(t for m in (before, message) if (t := reasoning_of(m)))
            joined[-1] = {**message, "reasoning_content": thoughts}
        elif _is_assistant(message) and message.get("channel") == "analysis":
            joined.append({**message, "content": "", "reasoning": message.get("content")})
        elif _is_assistant(message) and _is_assistant(before) and before.get("channel") == "analysis":
            joined[-1] = {**message, "reasoning": before["reasoning"]}
        else:
            joined.append(message)
    return joined


def _has_calls(message: Message, before: Message) -> bool:
    """Whether a message makes calls, and neither holds anything but a list of them."""
    both = [m.get("tool_calls") or [] for m in (message, before)]
    return bool(both[0]) and all(isinstance(calls, list) for calls in both)


def _only_thinks(message: Message) -> bool:
    """Whether a message holds nothing but thinking (Qwen-Agent keeps it as a message of its own)."""
    return not message.get("content") and not message.get("tool_calls") and bool(reasoning_of(message))


def _is_assistant(message: Any) -> bool:
    return (
        isinstance(message, dict)
        and message.get("role") == "assistant"
        and (message.get("content") is None or isinstance(message["content"], str))
    )


def tools_of(row: dict) -> Any:
    """The function docs of a row, as they stand there; None if it has none. Raises InputError."""
    messages = next((row[key] for key in MESSAGE_FIELDS if isinstance(row.get(key), list)), [])
    empty = None
    for source in (row, row.get("chat_template_kwargs"), *messages[:1]):
        for key in TOOL_FIELDS if isinstance(source, dict) else ():
            value = source.get(key)
            if isinstance(value, str):
                value = decoded(value, key) if value.strip() else None
            if value in ([], None):
                empty = value if empty is None else empty
                continue
            if isinstance(value, list):
                docs = [decoded(t, key) if isinstance(t, str) else t for t in value]
                return [_xlam_tool(t) for t in docs] if "answers" in row else docs
            return value
    return empty


_PYTHON_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "list": "array"}
_PYTHON_TYPES |= {"dict": "object", "tuple": "array", "set": "array"}


def _xlam_tool(tool: Any) -> Any:
    """xLAM's docs have a parameter per key, with Python's types, instead of a JSON schema."""
    parameters = tool.get("parameters") if isinstance(tool, dict) else None
    if not isinstance(parameters, dict) or not all(isinstance(p, dict) for p in parameters.values()):
        return tool
    if "properties" in parameters:
        return tool
    properties, required = {}, []
    for name, parameter in parameters.items():
        words = str(parameter.get("type", "")).split(",")
        kind = words[0].partition("[")[0].strip().lower()
        properties[name] = {**parameter, "type": _PYTHON_TYPES.get(kind, kind)}
        if "default" not in parameter and "optional" not in "".join(words[1:]):
            required.append(name)
    return {**tool, "parameters": {"type": "object", "properties": properties, "required": required}}


def is_context(message: Any) -> bool:
    """Whether a message says that it is shown and not imitated."""
    return any(message[key] in (0, False, *_NOT_TRAINED) for key in _WEIGHTS if message.get(key) is not None)


def decoded(value: str, key: str) -> Any:
    """The JSON value of a field that holds JSON text. Raises InputError naming the field."""
    try:
        return loads(value)
    except ValueError as e:
        raise InputError(f'"{key}" is text but not valid JSON ({e}); fix it') from None
