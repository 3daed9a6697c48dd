"""Lines of a cases file -> (candidate, action). `read_row` is the reader of every verifier without its own:

    {"id", "expected_action": {...}, "candidate": [Responses items], "tools"?, "messages"?, "case"?}

`expected_action` is a function_call, a function_call_batch or a message in OpenAI's Responses format;
`expected_answers` (a list of {"name", "arguments"}) stands for a batch. `messages` is the history, and `case`
becomes `candidate.case`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from pivotrl_jax.chat.json_text import lenient_json
from pivotrl_jax.chat.responses import action_of_items, output_text
from pivotrl_jax.records import Action, Candidate, InputError, Message
from pivotrl_jax.verifiers.common import is_nonstandard, problem, show

CaseReader = Callable[[dict], tuple[Candidate, Action]]


class BadDemonstration(InputError):
    """The demonstration cannot be read as an action, so no action can be rewarded."""


def read_row(verifier: str, lenient: bool = True) -> CaseReader:
    """A reader of the rows above, for the verifier of that name. It raises InputError naming the wrong field.

    If `lenient`, a demonstration may hold NaN, Infinity and arguments that are not an object; the action's
    arguments are then decoded just as leniently.
    """

    def read_case(case: dict) -> tuple[Candidate, Action]:
        expected = expected_action(case)
        demonstration = _nonstandard_demonstration(expected) if lenient else None
        decode = demonstration is not None
        demonstration = demonstration or responses_message(expected)
        items = field(case, "candidate", list)
        tools = field(case, "tools", list) if case.get("tools") is not None else []
        messages = field(case, "messages", list) if case.get("messages") is not None else []
        extra = field(case, "case", dict) if case.get("case") is not None else {}
        candidate = case_candidate(case, verifier, demonstration, tools, extra)
        candidate = dataclasses.replace(candidate, messages=[_message(m) for m in messages])
        return candidate, action_of_items([_decoded(item) for item in items] if decode else items)

    return read_case


# ---- parts of a row


def field(case: dict, name: str, kind: type | tuple[type, ...]) -> Any:
    """`case[name]`, checked. Raises InputError naming the field, its value and what is wanted."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    want = " or ".join({dict: "an object", list: "a list", str: "a string"}.get(k, k.__name__) for k in kinds)
    if name not in case:
        raise InputError(f'the field "{name}" is missing; add it ({want})')
    if not isinstance(case[name], kinds):
        raise InputError(f'the field "{name}" is {show(case[name])}; want {want}')
    return case[name]


def case_candidate(
    case: dict, verifier: str, demonstration: Message, tools: list[dict], extra: dict
) -> Candidate:
    """A candidate for a case without a trajectory. Raises InputError unless the case has a string id."""
    id = field(case, "id", str)
    return Candidate(id, id, 0, [], tools, demonstration, verifier, extra, id)


def expected_action(case: dict) -> dict:
    """`expected_action`, or `expected_answers` as a batch. Raises InputError."""
    answers = case.get("expected_answers")
    if "expected_action" in case or not isinstance(answers, list):
        return field(case, "expected_action", dict)
    if not answers:
        return {"type": "message", "content": ""}
    return {"type": "function_call_batch", "calls": answers}


def _message(message: Any) -> Message:
    """A message of the history, with its calls' arguments parsed. Raises InputError for anything else."""
    calls = message.get("tool_calls") or [] if isinstance(message, dict) else None
    functions = (
        [c.get("function") if isinstance(c, dict) else None for c in calls] if isinstance(calls, list) else []
    )
    call_lists = [_read_calls(f) if isinstance(f, dict) else None for f in functions]
    if not isinstance(calls, list) or None in call_lists:
        raise InputError(f'"messages" holds {show(message)}; want a chat message')
    if not call_lists:
        return message
    parsed = [
        {**call, "function": {"name": name, "arguments": arguments}}
        for call, [(name, arguments)] in zip(calls, call_lists)
    ]
    return {**message, "tool_calls": parsed}


# ---- Responses items


def calls_message(calls: list[tuple[str, dict]]) -> Message:
    """An assistant message that makes `calls`."""
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for i, (name, arguments) in enumerate(calls)
        ],
    }


def responses_message(expected: dict) -> Message:
    """The demonstration of an `expected_action`: a function_call, a function_call_batch, or a message.

    Raises InputError when it is none of these, and BadDemonstration when its arguments are not a JSON object.
    """
    kind = expected.get("type")
    if kind == "message":
        return {"role": "assistant", "content": output_text(expected)}
    if kind not in ("function_call", "function_call_batch"):
        raise InputError(
            f'"expected_action" has the type {show(kind)}; want function_call, function_call_batch or message'
        )
    items = [expected] if kind == "function_call" else expected.get("calls")
    if not isinstance(items, list) or not items:
        raise InputError('"expected_action" is a function_call_batch without "calls"; list them')
    items = [{**item, "type": "function_call"} if isinstance(item, dict) else item for item in items]
    action = action_of_items(items)
    rejected = problem(action)
    if rejected is not None:
        raise BadDemonstration(f'"expected_action" cannot be read: {rejected.details}; fix it')
    return calls_message([(call.name, call.arguments) for call in action.calls])


# ---- demonstrations that strict JSON cannot hold


def _nonstandard_demonstration(expected: dict) -> Message | None:
    """The demonstrated calls, if they can be read leniently and are not standard JSON objects; else None."""
    kind = expected.get("type")
    if kind not in ("function_call", "function_call_batch"):
        return None
    calls = _read_calls(expected if kind == "function_call" else expected.get("calls"))
    nonstandard = calls and any(is_nonstandard(arguments) for _, arguments in calls)
    return calls_message(calls) if nonstandard else None


def _read_calls(items: Any) -> list[tuple[str, Any]] | None:
    """(name, arguments) of each call, decoded leniently; None if one of them cannot be decoded."""
    calls = []
    for item in items if isinstance(items, list) else [items]:
        arguments = item.get("arguments") if isinstance(item, dict) else None
        if not isinstance(item, dict) or not isinstance(item.get("name"), str) or arguments is None:
            return None
        try:
            calls.append((item["name"], lenient_json(arguments) if isinstance(arguments, str) else arguments))
        except ValueError:
            return None
    return calls


def _decoded(item: Any) -> Any:
    """A Responses item with its arguments decoded leniently where that is possible."""
    calls = _read_calls(item) if isinstance(item, dict) and item.get("type") == "function_call" else None
    # arguments that are a string stay as they are: they would be decoded a second time
    return item if calls is None or isinstance(calls[0][1], str) else {**item, "arguments": calls[0][1]}
