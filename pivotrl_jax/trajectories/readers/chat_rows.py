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

from pivotrl_jax.chat.json_text import strict_json
from pivotrl_jax.chat.messages import content_text, lenient_tool_calls
from pivotrl_jax.records import InputError, Message
from pivotrl_jax.trajectories.readers import message_forms, row_answers, row_forms, sdk_parts, weights
from pivotrl_jax.trajectories.readers.row_forms import MESSAGE_FIELDS, decoded

TOOL_FIELDS = ("tools", "functions", "tool_definitions", "available_tools", "function_docs", "tool_schemas")
TOOL_FIELDS += ("xml_tools",)
# objects beside the messages that hold their tools: of Nemotron's post-training set, of logs
ASIDE = ("metadata", "kwargs", "optional_params", "invocation_params", "model_parameters", "modelParameters")
ASIDE += ("proxy_server_request",)
SYSTEM_FIELDS = ("system", "system_prompt", "system_message", "instructions")
SYSTEM_KWARGS = ("custom_instructions",)  # of a chat template: SmolTalk 2 keeps its system messages there


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
    return message_forms.joined(messages + message_forms.read_all(row_answers.answer(row, messages)[1]))


def unread_answers(row: dict) -> list[str]:
    """The fields of a row that hold an answer to its messages which was not read."""
    messages = _turns(row) if any(row.get(key) for key in row_answers.FIELDS) else None
    return row_answers.unread(row, messages) if isinstance(messages, list) else []


def read_answer(row: dict) -> str:
    """The field that holds the answer to a row's messages; "" if no field does."""
    messages = _turns(row) if any(row.get(key) for key in row_answers.FIELDS) else None
    return row_answers.answer(row, messages)[0] if isinstance(messages, list) else ""


def unobeyed(row: dict) -> list[str]:
    """The weights of a row and its messages that are not obeyed."""
    of_messages = weights.unobeyed(_raw_messages(row), "messages")
    return [*weights.unobeyed([row], keys=weights.OF_ROW), *of_messages]


def _turns(row: dict) -> Any:
    """The messages of a row without an answer that stands beside them."""
    raw = _raw_messages(row)
    return _with_system(row, message_forms.read_all(raw)) if isinstance(raw, list) else raw


def _with_system(row: dict, messages: list) -> list:
    """The messages of a row with the system messages that stand beside them: as one text, the given ones
    before what the first message says as system. One that another holds is told once."""
    kwargs = row.get("chat_template_kwargs") if isinstance(row.get("chat_template_kwargs"), dict) else {}
    values = [*map(row.get, SYSTEM_FIELDS), *map(kwargs.get, SYSTEM_KWARGS)]
    given = [v for v in values if isinstance(v, (str, list)) and v]
    if not given:
        return messages
    first = messages[0] if messages and isinstance(messages[0], dict) else {}
    speaks = first.get("role") in ("system", "developer")
    try:
        texts = [_system_text(v) for v in [*given, *([first.get("content")] if speaks else [])]]
    except InputError:  # parts that are not text
        return [*({"role": "system", "content": v} for v in given), *messages]
    told = [t.strip() for t in texts]
    kept = [
        text
        for i, text in enumerate(texts)
        if told[i] and not any(told[i] in o and (told[i] != o or j < i) for j, o in enumerate(told))
    ]
    own = {**(first if speaks else {}), "role": "system", "content": "\n\n".join(kept)}
    return [own, *messages[speaks:]] if kept else messages


def _system_text(value: Any) -> str:
    """The text of a system message: a text, texts, or blocks of text. Raises InputError for other blocks."""
    texts = isinstance(value, list) and all(isinstance(part, str) for part in value)
    return "\n\n".join(value) if texts else content_text(value)


def messages_field(row: dict) -> str:
    """The field that a row's messages are read from: the first that holds something; "" for another form."""
    found = [key for key in MESSAGE_FIELDS if row.get(key) is not None]
    return next((key for key in found if row[key] != []), found[0] if found else "")


def _raw_messages(row: dict) -> Any:
    if key := messages_field(row):
        value = row[key]
        return decoded(value, key) if isinstance(value, str) and value.lstrip().startswith("[") else value
    turns = _exchange(row)
    return turns and [*row_forms.history_of(row), *turns]


def _exchange(row: dict) -> list | None:
    """What a row asks, and its answer, under their usual names."""
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
    asked = "\n".join(t for t in (row["instruction"], row.get("input")) if isinstance(t, str) and t.strip())
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": row["output"]}]


def tools_of(row: dict) -> Any:
    """The function docs of a row, as they stand there; None if it has none. Raises InputError."""
    messages = row.get(messages_field(row))
    messages = messages if isinstance(messages, list) else []
    empty = None
    for source in (row, row.get("chat_template_kwargs"), *messages[:1]):
        for key in TOOL_FIELDS if isinstance(source, dict) else ():
            value = _listed(source.get(key), key)
            if value in ([], None):
                empty = value if empty is None else empty
                continue
            if isinstance(value, list):
                docs = [decoded(t, key) if isinstance(t, str) else t for t in value]
                return [_xlam_tool(t) if "answers" in row else _with_schema(t) for t in docs]
            return value
    for key in ASIDE:
        docs = (row_forms.object_of(row.get(key)) or {}).get("tools")
        if isinstance(docs, list) and docs and all(map(_is_doc, docs)):  # other lists of tools are names
            return docs
    return sdk_parts.harmony_tools(messages) or empty


def _listed(value: Any, key: str) -> Any:
    """Function docs as a list: out of JSON text, of one object after another, of an object that holds them
    under their names, or of one doc. Raises InputError for other text."""
    if isinstance(value, str):
        if not value.strip():
            return None
        value = _objects(value) or decoded(value, key)
    if not isinstance(value, dict):
        return value
    if not value.keys().isdisjoint(("name", "function")):
        return [value]
    inner = next((value[k] for k in ("tools", "functions") if isinstance(value.get(k), list)), None)
    if inner is not None:
        return inner
    told = ("description", "parameters", "inputSchema", "input_schema")
    named = [isinstance(v, dict) and not v.keys().isdisjoint(told) for v in value.values()]
    return [{**doc, "name": name} for name, doc in value.items()] if named and all(named) else value


def _objects(text: str) -> list[dict]:
    """The objects of a text that holds several, one after another; [] for any other text."""
    found, at = [], 0
    while text[at:].strip():
        try:
            value, at = strict_json(text, at)
        except ValueError:
            return []
        found.append(value)
    return found if len(found) > 1 and all(isinstance(v, dict) for v in found) else []


def _is_doc(tool: Any) -> bool:
    doc = tool.get("function", tool) if isinstance(tool, dict) else None
    return (
        isinstance(doc, dict) and isinstance(doc.get("name"), str) and isinstance(doc.get("parameters"), dict)
    )


def _with_schema(tool: Any) -> Any:
    """A doc that has "arguments", each with its type, in place of parameters (ToolMind), with a schema."""
    inner = tool.get("function") if isinstance(tool, dict) else None
    doc = inner if isinstance(inner, dict) else tool
    arguments = doc.get("arguments") if isinstance(doc, dict) else None
    if not isinstance(arguments, dict) or not arguments or doc.get("parameters"):
        return tool
    if not all(isinstance(a, dict) and isinstance(a.get("type"), str) for a in arguments.values()):
        return tool
    told = {k: v for k, v in doc.items() if k != "arguments"} | {"parameters": arguments}
    return _xlam_tool(told) if doc is tool else {**tool, "function": _xlam_tool(told)}


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
