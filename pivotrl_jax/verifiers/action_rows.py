"""Rows of single-step tool use -> (candidate, action), for tool_call, search and tau2.

    {"id", "expected_action": {...}, "candidate": [Responses items], "tools"?, "messages"?, "case"?}

`expected_action` is a function_call, a function_call_batch or a message; `expected_answers` (a list of
{"name", "arguments"}) stands for a batch. `messages` is the history, `case` becomes `candidate.case`. A
demonstration may hold what strict JSON does not: NaN, Infinity, arguments that are no object.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable
from typing import Any

from pivotrl_jax.chat import MAX_NESTING, nesting
from pivotrl_jax.records import Action, Call, Candidate, InputError, Message, Verdict
from pivotrl_jax.verifiers.base import (
    calls_message,
    case_candidate,
    field,
    problem,
    responses_action,
    responses_message,
    show,
)


def lenient_json(text: str) -> Any:
    """Python's `json.loads`, which reads NaN and Infinity. Raises ValueError and nothing else."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    if nesting(value) > MAX_NESTING:
        raise ValueError(f"the JSON is nested deeper than {MAX_NESTING} levels")
    return value


def _odd(value: Any) -> bool:
    """Whether arguments that Python's json reads are outside what `problem` lets pass."""
    if not isinstance(value, dict):
        return True
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, (dict, list)):
            left.extend(value.values() if isinstance(value, dict) else value)
        elif isinstance(value, float) and not math.isfinite(value):
            return True
    return False


def _tame(value: Any) -> Any:
    """`value` (of bounded depth) with 0.0 for numbers that are not finite."""
    if isinstance(value, dict):
        return {k: _tame(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_tame(v) for v in value]
    return 0.0 if isinstance(value, float) and not math.isfinite(value) else value


def fault(action: Action, expected: Iterable[Call]) -> Verdict | None:
    """`base.problem`, but where the demonstration holds NaN, Infinity or arguments that are no object, an
    action may hold them too: a demonstration must verify against itself.
    """
    verdict = problem(action)
    if verdict is None or action.malformed or not any(_odd(c.arguments) for c in expected):
        return verdict
    if any(nesting(call.arguments) > MAX_NESTING for call in action.calls):
        return verdict
    wrapped = tuple(
        Call(c.name, _tame(c.arguments) if isinstance(c.arguments, dict) else {"": _tame(c.arguments)})
        for c in action.calls
    )
    return problem(dataclasses.replace(action, calls=wrapped))


def expected_action(case: dict) -> dict:
    """`expected_action`, or `expected_answers` as a batch. Raises InputError."""
    answers = case.get("expected_answers")
    if "expected_action" in case or not isinstance(answers, list):
        return field(case, "expected_action", dict)
    if not answers:
        return {"type": "message", "content": ""}
    return {"type": "function_call_batch", "calls": answers}


def _read_items(items: Any) -> list[tuple[Any, Any]] | None:
    """(name, arguments) of each call, decoded leniently; None when one cannot be."""
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
    calls = _read_items(item) if isinstance(item, dict) and item.get("type") == "function_call" else None
    # a JSON string would be decoded a second time
    return item if calls is None or isinstance(calls[0][1], str) else {**item, "arguments": calls[0][1]}


def _demonstration(expected: dict) -> tuple[Message, bool]:
    """(the demonstration, whether it holds what strict JSON does not)."""
    kind = expected.get("type")
    if kind in ("function_call", "function_call_batch"):
        calls = _read_items(expected if kind == "function_call" else expected.get("calls"))
        if calls and any(_odd(arguments) for _, arguments in calls):
            return calls_message(calls), True
    return responses_message(expected), False


def _message(message: Any) -> Message:
    """A message of the history, its calls' arguments parsed. Raises InputError when it is no chat message."""
    made = message.get("tool_calls") or [] if isinstance(message, dict) else None
    functions = (
        [c.get("function") if isinstance(c, dict) else None for c in made] if isinstance(made, list) else []
    )
    calls = [_read_items(f) if isinstance(f, dict) else None for f in functions]
    if not isinstance(made, list) or None in calls:
        raise InputError(f'"messages" holds {show(message)}; want a chat message')
    if not calls:
        return message
    parsed = [
        {**call, "function": {"name": name, "arguments": arguments}}
        for call, [(name, arguments)] in zip(made, calls)
    ]
    return {**message, "tool_calls": parsed}


def read_row(verifier: str) -> Callable[[dict], tuple[Candidate, Action]]:
    """A `read_case` for the rows above. It raises InputError naming the field that is wrong."""

    def read_case(case: dict) -> tuple[Candidate, Action]:
        demonstration, odd = _demonstration(expected_action(case))
        items = field(case, "candidate", list)
        given = {name: case.get(name) for name in ("tools", "messages", "case")}
        tools = field(case, "tools", list) if given["tools"] is not None else []
        messages = field(case, "messages", list) if given["messages"] is not None else []
        extra = field(case, "case", dict) if given["case"] is not None else {}
        candidate = case_candidate(case, verifier, demonstration, tools, extra)
        candidate = dataclasses.replace(candidate, messages=[_message(m) for m in messages])
        return candidate, responses_action([_decoded(item) for item in items] if odd else items)

    return read_case
