"""What all verifiers share: the contract, and the checks that make model output safe to look at.

A verifier is a pure function of (candidate, action). It never raises on an action, whatever the model wrote;
it may raise InputError on a candidate or case that is not usable (the user's data).
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from pivotrl_jax.chat import MAX_NESTING, message_to_action, nesting, strict_json
from pivotrl_jax.records import Action, Call, Candidate, InputError, Message, Verdict

MAX_BITS = 14_000  # about 4,200 digits: Python refuses to print longer integers


@dataclasses.dataclass(frozen=True)
class Verifier:
    """Decides whether an action lies in the locally acceptable set of a candidate's state."""

    name: str
    version: str  # changes whenever a verdict could change; recorded in every profile
    verify: Callable[[Candidate, Action], Verdict]
    read_case: Callable[[dict], tuple[Candidate, Action]]  # a line of cases.jsonl; raises InputError

    @property
    def label(self) -> str:
        """`name/version`, as recorded in a profile."""
        return f"{self.name}/{self.version}"


def show(value: Any, limit: int = 120) -> str:
    """`value` in a sentence: ASCII only, at most `limit` characters, never raises."""
    try:
        text = ascii(value)
    except (ValueError, RecursionError):  # integers of thousands of digits; bottomless nesting
        text = f"<{type(value).__name__}>"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _unlike_json(value: Any) -> str:
    """Why `value` is not JSON that is safe to compare and print ("" when it is); no recursion."""
    if nesting(value) > MAX_NESTING:
        return f"lists or objects nested deeper than {MAX_NESTING} levels"
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                return "an object whose keys are not all strings"
            left.extend(value.values())
        elif isinstance(value, (list, tuple)):
            left.extend(value)
        elif isinstance(value, float) and not math.isfinite(value):
            return f"the number {value}, which is not JSON"
        elif isinstance(value, int) and value.bit_length() > MAX_BITS:
            return "an integer of thousands of digits"
        elif not (value is None or isinstance(value, (str, int, float))):
            return f"a {type(value).__name__}, which is not JSON"
    return ""


def problem(action: Action) -> Verdict | None:
    """The verdict on an action that no verifier accepts, else None.

    No verifier accepts a malformed action, or a call that is not (string, JSON object of bounded depth).
    After this check, arguments can be compared, copied and printed without fear.
    """
    if action.malformed:
        return Verdict(0.0, "malformed", action.malformed)
    for call in action.calls:
        if not isinstance(call.name, str):
            return Verdict(0.0, "malformed", f"a call's name is {show(call.name)}, want a string")
        if not isinstance(call.arguments, dict):
            return Verdict(0.0, "malformed", f"arguments {show(call.arguments)}, want an object")
        fault = _unlike_json(call.arguments)
        if fault:
            return Verdict(0.0, "malformed", f"the arguments of {show(call.name)} hold {fault}")
    return None


def text_verdict(action: Action) -> Verdict:
    """The call-or-talk decision where the demonstration talks: any text without a call is accepted."""
    if action.calls:
        return Verdict(0.0, "called", f"called {show(action.calls[0].name)} where the demonstration talks")
    if not action.content.strip():
        return Verdict(0.0, "empty", "no text and no call")
    return Verdict(1.0, "ok", "talks, as the demonstration does")


def function_docs(tools: list[dict]) -> dict[str, dict]:
    """Name -> doc (`{"name", "description", "parameters"}`), with OpenAI's wrapper taken off."""
    docs = {}
    for tool in tools:
        doc = tool.get("function", tool) if isinstance(tool, dict) else {}
        if isinstance(doc, dict) and isinstance(doc.get("name"), str):
            docs[doc["name"]] = doc
    return docs


def demonstrated_calls(candidate: Candidate) -> tuple[Call, ...]:
    """The calls of the demonstration."""
    return message_to_action(candidate.demonstration).calls


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
