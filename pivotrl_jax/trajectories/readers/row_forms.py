"""Rows that keep a conversation in another shape than a list of messages -> rows with messages.

| form | example |
|---|---|
| Responses API | {"input": [...], "output": [{"type": "function_call", ...}], "instructions"} |
| batches | {"body": {"messages"}, "response": {"body": {"choices"}}} |
| proxies | {"input": {"messages"}, "output": {"role", "content"}}, {"messages", "choices"} |
| Glaive v2 | {"system": "SYSTEM: ...", "chat": "USER: ... ASSISTANT: ... FUNCTION RESPONSE: ..."} |
| ADP | {"content": [{"class_": "api_action", "function", "kwargs"}, {"class_": "text_observation"}]} |
| R2E-Gym | {"problem_statement", "trajectory_steps": [{"thought", "action", "observation"}]} |
| agents | {"input", "intermediate_steps": [[{"tool", "tool_input", "log"}, "observation"]], "output"} |
| pairs | {"prompt" or "question", ..., "response" or "answer", "chosen", ..., "history": [[text, text]]} |
| rendered | {"text": "<|im_start|>user\\n...<|im_end|>..."}, {"prompt": "<|im_start|>...", "completion"} |
| columns | {"messages": {"role": [...], "content": [...]}}, {"conversation": [{"user", "assistant"}]} |
| XTuner | {"conversation": [{"system", "input", "output"}]} |

Rows of Gemini's and Bedrock's APIs are those of provider_rows.py. What is read is taken out of the row, so
that what is left can be named as unused.
"""

import re
from typing import Any

from pivotrl_jax.chat.json_text import lenient_json, loads
from pivotrl_jax.chat.reasoning import reasoning_of
from pivotrl_jax.records import InputError, Message
from pivotrl_jax.trajectories.readers import provider_rows, rendered, response_items, sdk_parts
from pivotrl_jax.trajectories.readers.step_rows import STEP_FORMS

REQUESTS = ("request", "request_body", "body", "input", "inputs", "reqPayload", "modelInput", "chat_messages")
RESPONSES = ("response", "response_body", "output", "respPayload", "modelOutput")
BODIES = ("body", "inputBodyJson", "outputBodyJson")
ASKED = ("messages", "input", "instructions", "tools", "functions", "system", "previous_response_id")
ASKED += ("contents", "toolConfig", *provider_rows.SYSTEM)
QUESTIONS = ("prompt", "input", "question", "query", "instruction")
ANSWERS = ("chosen", "chosen_response", "preferred_output", "response", "output", "answer", "completion")
THOUGHTS = ("reasoning_content", "reasoning", "thinking", "thought")  # what was thought before an answer
MESSAGE_FIELDS = (
    *("messages", "conversations", "conversation", "trajectory", "traj", "dialog", "dialogue", "turns"),
    *("chat", "message_list", "chat_messages", "stitched"),
)


def has_form(row: dict) -> bool:
    """Whether a row has one of the forms above."""
    if isinstance(row.get("custom_id"), str) and any(
        isinstance(row.get(k), dict) for k in ("response", "result")
    ):
        return True
    try:
        return normal(row) is not row
    except InputError:
        return True


def normal(row: dict) -> dict:
    """The row with its conversation under "messages"; the row itself if it has none of the forms above.

    Raises InputError for a row whose conversation is not whole.
    """
    opened = _opened(row)
    opened = sdk_parts.span(opened) or provider_rows.normal(opened) or opened
    opened = _with_calls(opened)
    for form in (response_items.messages, _rendered, _glaive, *STEP_FORMS, _columns, _preferred, _pair):
        if found := form(opened):
            messages, read = found
            rest = {k: v for k, v in opened.items() if k not in read}
            return {**rest, "messages": messages}
    return opened


def object_of(value: Any) -> dict | None:
    """An object, which proxies also keep as JSON text and in a body; None for anything else."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = lenient_json(value)
        except ValueError:
            return None
    for key in BODIES if isinstance(value, dict) else ():
        if isinstance(value.get(key), (dict, str)):
            return object_of(value[key])
    return value if isinstance(value, dict) else None


def _are_choices(value: Any) -> bool:
    """Whether a value is a list of a completion's choices."""
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, dict) and isinstance(first.get("message"), dict) and "role" not in first


def _opened(row: dict) -> dict:
    """The row with its request's fields beside its response, out of their envelopes."""
    if _are_choices(row.get("output")):  # Braintrust keeps no more of a response
        row = {**row, "output": {"choices": row["output"]}}
    requests = ((key, object_of(row.get(key))) for key in REQUESTS)
    key, request = next(
        ((k, r) for k, r in requests if r and {"messages", "input", "contents"} & r.keys()), ("", None)
    )
    answers = ((key, object_of(row.get(key))) for key in RESPONSES if not isinstance(row.get(key), list))
    answer_key, answer = next(((k, a) for k, a in answers if a), ("", None))
    if request is None:
        batch = isinstance(row.get("custom_id"), str) and (answer or isinstance(row.get("result"), dict))
        if batch and "messages" not in row and "input" not in row:
            raise InputError(
                "it holds a batch's answer without its request; join the two files by their custom_id, "
                'as {"body": the request, "response": the answer}'
            )
        if answer_key != "output" or not isinstance(row.get("input"), list):
            return row
    opened = {k: v for k, v in row.items() if k not in (key, answer_key, "custom_id", "method", "url")}
    opened |= {k: request[k] for k in ASKED if request and request.get(k) is not None and k not in opened}
    if "custom_id" in row:
        opened.setdefault("id", row["custom_id"])
    return {**opened, "response": answer} if answer else opened


Found = tuple[list, tuple[str, ...]]  # messages, and the fields that were read

# ---- Glaive

_SPEAKER = re.compile(r"(?:\A|\n)[ \t]*(SYSTEM|USER|ASSISTANT|FUNCTION RESPONSE):")
_SPEAKERS = {"SYSTEM": "system", "USER": "user", "ASSISTANT": "assistant", "FUNCTION RESPONSE": "tool"}


def _glaive(row: dict) -> Found | None:
    chat, system = row.get("chat"), row.get("system")
    if not isinstance(chat, str) or not _SPEAKER.match(chat):
        return None
    pieces = _SPEAKER.split(chat)[1:]
    messages = [
        {"role": _SPEAKERS[name], "content": text.strip()} for name, text in zip(pieces[::2], pieces[1::2])
    ]
    if isinstance(system, str) and (text := system.strip().removeprefix("SYSTEM:").strip()):
        messages = [{"role": "system", "content": text}, *messages]
    return messages, ("chat", "system")


# ---- pairs and columns


def _rendered(row: dict) -> Found | None:
    """A text that a chat template rendered, or such a prompt and its answer. Raises InputError."""
    if any(row.get(k) for k in MESSAGE_FIELDS):
        return None
    key = next((k for k in (*QUESTIONS, "text") if rendered.is_rendered(row.get(k))), "")
    if not key:
        return None
    answer = next((k for k in ANSWERS if k != key and isinstance(row.get(k), str) and row[k]), "")
    return rendered.messages(row[key] + (row[answer] if answer else "")), (key, answer)


def _columns(row: dict) -> Found | None:
    """A list of messages that Arrow turned into lists of their fields, or a list of pairs."""
    for key in MESSAGE_FIELDS:
        value = row.get(key)
        if isinstance(value, dict) and value and all(isinstance(v, list) for v in value.values()):
            lengths = {len(v) for v in value.values()}
            if len(lengths) == 1 and {"role", "from"} & value.keys():
                return [dict(zip(value, fields)) for fields in zip(*value.values())], (key,)
        if isinstance(value, list) and value and all(map(_is_turn_of_xtuner, value)):
            return [message for turn in value for message in _of_xtuner(turn)], (key,)
        if isinstance(value, list) and value and all(map(_is_exchange, value)):
            return [{"role": who, "content": text} for pair in value for who, text in pair.items()], (key,)
    return None


_XTUNER = {"system", "input", "output", "output_with_loss", "need_eos_token", "sep"}


def _is_turn_of_xtuner(value: Any) -> bool:
    return isinstance(value, dict) and "output" in value and value.keys() <= _XTUNER


def _of_xtuner(turn: dict) -> list[Message]:
    """XTuner's turn, {"system", "input", "output"}; "output_with_loss" says whether its output is learned."""
    answer = {"role": "assistant", "content": turn["output"]}
    if "output_with_loss" in turn:
        answer["loss"] = turn["output_with_loss"]
    asked = [
        {"role": r, "content": turn[k]} for k, r in (("system", "system"), ("input", "user")) if turn.get(k)
    ]
    return [*asked, answer]


def _is_exchange(value: Any) -> bool:
    """Whether a value is {"user": text, "assistant": text}, with the names of roles as keys."""
    names = ("system", "user", "human", "assistant", "gpt", "bot")
    return (
        isinstance(value, dict)
        and len(value) > 1
        and all(k in names and isinstance(v, str) for k, v in value.items())
    )


def as_messages(value: Any, role: str) -> list[Message] | None:
    """A text, a message, or a list of messages, also as JSON text; None for anything else."""
    if isinstance(value, str):
        return _as_json(value) or [{"role": role, "content": value}]
    if isinstance(value, dict):
        value = [value] if "from" in value else [{"role": role, **value}]
    if not isinstance(value, list) or not all(isinstance(m, dict) for m in value):
        return None
    return value if value and all({"role", "from"} & m.keys() for m in value) else None


def _as_json(text: str) -> list[Message] | None:
    """The messages that a text holds as JSON; None for any other text."""
    if not text.lstrip().startswith(("[", "{")):
        return None
    try:
        value = lenient_json(text)
    except ValueError:
        return None
    value = [value] if isinstance(value, dict) else value
    if not isinstance(value, list) or not value or not all(isinstance(m, dict) for m in value):
        return None
    known = {"content", "value", "tool_calls"}
    return value if all({"role", "from"} & m.keys() and known & m.keys() for m in value) else None


def _preferred(row: dict) -> Found | None:
    """Preference rows: what was chosen, after the messages it answers, or holding them itself."""
    key = next((k for k in ("chosen", "chosen_response", "preferred_output") if row.get(k)), "")
    chosen = as_messages(row.get(key), "assistant") if key else None
    if chosen is None:
        return None
    if chosen[0].get("role", chosen[0].get("from")) in ("system", "user", "human"):
        return chosen, (key, "prompt")
    asked = next((k for k in (*MESSAGE_FIELDS, *QUESTIONS) if row.get(k)), "")
    before = as_messages(row.get(asked), "user")
    return ([*before, *chosen], (key, asked)) if before else None


def _pair(row: dict) -> Found | None:
    """One question and its answer. Rows that chat_rows.py knows are left to it."""
    if any(row.get(k) for k in MESSAGE_FIELDS) or "answers" in row:
        return None
    if {"prompt", "completion"} <= row.keys() or {"instruction", "output"} <= row.keys():
        return None
    read, before = _question(row)
    answer = next((k for k in ANSWERS if k not in read and row.get(k)), "")
    if not before or not answer:
        return None
    before, read = [*history_of(row), *before], (*read, "history")
    if answer == "response" and isinstance(row[answer], dict):
        return before, read  # its answer is read as every log's
    after = as_messages(row[answer], "assistant")
    if not after:
        return None
    thought = next((k for k in THOUGHTS if _is_text(row.get(k))), "")
    if thought and after[0].get("role") == "assistant" and not reasoning_of(after[0]):
        after, read = [{**after[0], "reasoning_content": row[thought]}, *after[1:]], (*read, thought)
    return [*before, *after], (*read, answer)


# what was called in place of an answer, and what was done before it
CALLED = ("tool_calls", "tool_call", "function_call", "function_calls")
DONE = ("observations", "spans", "child_runs", "steps", "actions", "trace")
_ACTS = ("tool", "tool_name", "tool_calls", "tool_call", "action", "function", "observation", "run_type")
_ACTS += ("parentObservationId", "traceId")


def _with_calls(row: dict) -> dict:
    """A row of a question and its answer, whose calls stand in a column of their own, with an answer that
    makes them. Raises InputError for what was done between the two in another form."""
    read, before = _question(row)
    if not before or any(row.get(k) for k in MESSAGE_FIELDS):
        return row
    done = next((k for k in DONE if _are_acts(row.get(k))), "")
    answer = next((k for k in ANSWERS if k not in read and isinstance(row.get(k), str)), "")
    if done and answer:
        raise InputError(f'"{done}" holds what was done before the answer, in a form that is not read')
    called = next((k for k in CALLED if row.get(k)), "")
    if not called:
        return row
    message = {"role": "assistant", "content": row[answer] if answer else "", called: row[called]}
    rest = {k: v for k, v in row.items() if k not in (*read, answer, called, "history")}
    return {**rest, "messages": [*history_of(row), *before, message]}


def _question(row: dict) -> tuple[tuple[str, ...], list[Message] | None]:
    """(the fields that ask, the messages they hold); None where no field asks."""
    asked = [k for k in QUESTIONS if row.get(k)]
    if not asked:
        return (), None
    if {"instruction", "input"} <= set(asked) and isinstance(row["input"], str):
        return ("instruction", "input"), as_messages(f"{row['instruction']}\n{row['input']}", "user")
    return (asked[0],), as_messages(row[asked[0]], "user")


def _are_acts(value: Any) -> bool:
    return isinstance(value, list) and any(
        isinstance(v, dict) and not v.keys().isdisjoint(_ACTS) for v in value
    )


def _is_text(value: Any) -> bool:
    """Whether a value is a text of several words, and no switch ("on")."""
    return isinstance(value, str) and len(value.split()) > 1


def history_of(row: dict) -> list:
    """The turns before a row's own: messages, or pairs of texts, also as JSON text. Raises InputError."""
    history = row.get("history") or []
    history = decoded(history, "history") if isinstance(history, str) else history
    messages = []
    for pair in history if isinstance(history, list) else [None]:
        if isinstance(pair, list) and len(pair) == 2:
            messages += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
        elif _is_exchange(pair):
            messages += [{"role": who, "content": text} for who, text in pair.items()]
        elif isinstance(pair, dict) and {"role", "from"} & pair.keys():
            messages.append(pair)
        else:
            raise InputError('"history" holds something else than pairs of texts and messages; fix the row')
    return messages


def decoded(value: str, key: str) -> Any:
    """The JSON value of a field that holds JSON text. Raises InputError naming the field."""
    try:
        return loads(value)
    except ValueError as e:
        raise InputError(f'"{key}" is text but not valid JSON ({e}); fix it') from None
