"""Rows of single-step tool use -> (candidate, action), for tool_call, search and tau2.

    {"id", "expected_action": {...}, "candidate": [Responses items], "tools"?, "messages"?, "case"?}

`expected_action` is a function_call, a function_call_batch or a message; `expected_answers` (a list of
{"name", "arguments"}) stands for a batch. `messages` is the history, `case` becomes `candidate.case`. A
demonstration may hold what strict JSON does not: NaN, Infinity, arguments that are no object.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from pivotrl_jax.chat.json_text import lenient_json, strict_json
from pivotrl_jax.records import Action, Call, Candidate, InputError, Message
from pivotrl_jax.verifiers.base import _odd, problem, show


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


# ---- cases: one line of JSON -> (candidate, action)


def field(case: dict, name: str, kind: type | tuple[type, ...]) -> Any:
    """`case[name]`, checked. Raises InputError naming the field, what it is and what it should be."""
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
    """A candidate for a case without a trajectory. Raises InputError without a string id."""
    id = field(case, "id", str)
    return Candidate(id, id, 0, [], tools, demonstration, verifier, extra, id)


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


def _output_text(item: dict) -> str:
    content = item.get("content")
    if isinstance(content, list):
        return "".join(p["text"] for p in content if isinstance(p, dict) and isinstance(p.get("text"), str))
    return content if isinstance(content, str) else ""


def responses_action(items: list) -> Action:
    """An action from OpenAI Responses output items. What the model got wrong makes it malformed; nothing
    raises.
    """
    calls, texts, malformed = [], [], ""
    for item in items:
        if not isinstance(item, dict):
            malformed = malformed or f"an output item is {show(item)}, want an object"
        elif item.get("type") == "function_call":
            name, arguments = item.get("name"), item.get("arguments")
            if isinstance(arguments, str):
                try:
                    arguments, end = strict_json(raw := arguments)
                    if raw[end:].strip():
                        raise ValueError("text after the JSON")
                except ValueError as e:
                    malformed = malformed or f"arguments are not valid JSON ({str(e)[:120]})"
                    continue
            calls.append(Call(name, arguments))
        elif item.get("type") == "message":
            texts.append(_output_text(item))
    content = "\n".join(texts)
    if "<tool_call>" in content:
        malformed = malformed or "a tool call that could not be parsed was left in the text"
    return Action(content.strip(), "", tuple(calls), malformed, content)


class BadDemonstration(InputError):
    """The demonstration itself is no action that could be made, so no action can win."""


def responses_message(expected: dict) -> Message:
    """The demonstration of a `expected_action`: a function_call, a function_call_batch, or a message.

    Raises InputError when it is none of these or its arguments are not a JSON object: it is the user's data.
    """
    kind = expected.get("type")
    if kind == "message":
        return {"role": "assistant", "content": _output_text(expected)}
    if kind not in ("function_call", "function_call_batch"):
        raise InputError(
            f'"expected_action" has the type {show(kind)}; want function_call, function_call_batch or message'
        )
    items = [expected] if kind == "function_call" else expected.get("calls")
    if not isinstance(items, list) or not items:
        raise InputError('"expected_action" is a function_call_batch without "calls"; list them')
    items = [{**item, "type": "function_call"} if isinstance(item, dict) else item for item in items]
    action = responses_action(items)
    fault = problem(action)
    if fault is not None:
        raise BadDemonstration(f'"expected_action" cannot be read: {fault.details}; fix it')
    return calls_message([(call.name, call.arguments) for call in action.calls])


def read_responses_case(verifier: str) -> Callable[[dict], tuple[Candidate, Action]]:
    """A `read_case` for lines of {"id", "expected_action", "candidate": Responses items, "tools"?}."""

    def read_case(case: dict) -> tuple[Candidate, Action]:
        demonstration = responses_message(field(case, "expected_action", dict))
        tools = field(case, "tools", list) if case.get("tools") is not None else []
        candidate = case_candidate(case, verifier, demonstration, tools, {})
        return candidate, responses_action(field(case, "candidate", list))

    return read_case
