"""Helpers of all verifiers: making model output safe to compare, reading tools, showing values."""

import dataclasses
import math
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from pivotrl_jax.chat.actions import message_to_action
from pivotrl_jax.chat.json_text import MAX_NESTING, nesting
from pivotrl_jax.records import Action, Call, Candidate, Verdict

MAX_BITS = 14_000  # about 4,200 digits: Python refuses to print longer integers


def show(value: Any, limit: int = 120) -> str:
    """`value` for use in a message: ASCII only, at most `limit` characters; never raises."""
    try:
        text = ascii(value)
    except (ValueError, RecursionError):  # integers of thousands of digits; nesting too deep to print
        text = f"<{type(value).__name__}>"
    return text if len(text) <= limit else text[: limit - 3] + "..."


# ---- actions that no verifier accepts


def problem(action: Action, expected: Iterable[Call] = ()) -> Verdict | None:
    """The rejection of an action that no verifier accepts; None for every other action.

    It rejects malformed actions, and calls whose name is not a string or whose arguments are not a JSON
    object of bounded depth. After this check, arguments can be compared, copied and printed safely. If the
    demonstrated calls (`expected`) hold NaN, Infinity or arguments that are not an object, the action may
    hold them too, because a demonstration must be accepted by its own verifier.
    """
    verdict = _strict_problem(action)
    if verdict is None or action.malformed or not any(is_nonstandard(call.arguments) for call in expected):
        return verdict
    if any(nesting(call.arguments) > MAX_NESTING for call in action.calls):
        return verdict
    calls = []
    for call in action.calls:
        arguments = _with_finite_numbers(call.arguments)
        calls.append(Call(call.name, arguments if isinstance(arguments, dict) else {"": arguments}))
    return _strict_problem(dataclasses.replace(action, calls=tuple(calls)))


def _strict_problem(action: Action) -> Verdict | None:
    if action.malformed:
        return Verdict(0.0, "malformed", action.malformed)
    for call in action.calls:
        if not isinstance(call.name, str):
            return Verdict(0.0, "malformed", f"a call's name is {show(call.name)}, want a string")
        if not isinstance(call.arguments, dict):
            return Verdict(0.0, "malformed", f"arguments {show(call.arguments)}, want an object")
        fault = _why_no_json(call.arguments)
        if fault:
            return Verdict(0.0, "malformed", f"the arguments of {show(call.name)} hold {fault}")
    return None


def _why_no_json(value: Any) -> str:
    """Why `value` is not JSON that is safe to compare and print; "" if it is. Does not recurse."""
    if nesting(value) > MAX_NESTING:
        return f"lists or objects nested deeper than {MAX_NESTING} levels"
    stack = [value]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                return "an object whose keys are not all strings"
            stack.extend(value.values())
        elif isinstance(value, (list, tuple)):
            stack.extend(value)
        elif isinstance(value, float) and not math.isfinite(value):
            return f"the number {value}, which is not JSON"
        elif isinstance(value, int) and value.bit_length() > MAX_BITS:
            return "an integer of thousands of digits"
        elif not (value is None or isinstance(value, (str, int, float))):
            return f"a {type(value).__name__}, which is not JSON"
    return ""


def is_nonstandard(arguments: Any) -> bool:
    """Whether arguments, as Python's `json` reads them, are not an object or hold NaN or Infinity."""
    if not isinstance(arguments, dict):
        return True
    stack = [arguments]
    while stack:
        value = stack.pop()
        if isinstance(value, (dict, list)):
            stack.extend(value.values() if isinstance(value, dict) else value)
        elif isinstance(value, float) and not math.isfinite(value):
            return True
    return False


def _with_finite_numbers(value: Any) -> Any:
    """`value` (of bounded depth) with 0.0 in place of NaN and Infinity."""
    if isinstance(value, dict):
        return {k: _with_finite_numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_with_finite_numbers(v) for v in value]
    return 0.0 if isinstance(value, float) and not math.isfinite(value) else value


# ---- demonstrations and tools


_TEMPLATE_TOKEN = re.compile(r"<\|[^<>|\s]{1,64}\|>")
_BLANK = "\u2800"  # Braille's blank pattern, which Unicode counts as a symbol


def says_something(text: str) -> bool:
    """Whether a text holds a character that is seen, outside of a template's tokens."""
    seen = (c for c in _TEMPLATE_TOKEN.sub("", text) if c != _BLANK)
    return any(unicodedata.category(c)[0] not in "CZ" for c in seen)


def speaks(value: Any) -> bool:
    """Whether a JSON value (of bounded depth) holds a text that says something, or a number."""
    if isinstance(value, str):
        return says_something(value)
    if isinstance(value, (dict, list)):
        return any(speaks(v) for v in (value.values() if isinstance(value, dict) else value))
    return value is not None


def text_verdict(action: Action) -> Verdict:
    """The verdict where the demonstration is a message: any text without a call is accepted."""
    if action.calls:
        return Verdict(0.0, "called", f"called {show(action.calls[0].name)} where the demonstration talks")
    if not says_something(action.content):
        return Verdict(0.0, "empty", "no text and no call")
    return Verdict(1.0, "ok", "talks, as the demonstration does")


def no_call(expected: Iterable[Call]) -> Verdict:
    """The verdict on an action without a call where the demonstration makes the calls `expected`."""
    names = show([call.name for call in expected])
    return Verdict(0.0, "no_call", f"no call; the demonstration calls {names}")


def demonstrated_calls(candidate: Candidate) -> tuple[Call, ...]:
    """The calls of the demonstration."""
    return message_to_action(candidate.demonstration).calls


def function_docs(tools: list[dict]) -> dict[str, dict]:
    """Name -> doc (`{"name", "description", "parameters"}`), without OpenAI's wrapper."""
    docs = {}
    for tool in tools:
        doc = tool.get("function", tool) if isinstance(tool, dict) else {}
        if isinstance(doc, dict) and isinstance(doc.get("name"), str):
            docs[doc["name"]] = doc
    return docs
