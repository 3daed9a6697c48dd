"""What all verifiers share: the contract, and the checks that make model output safe to look at.

A verifier is a pure function of (candidate, action). It never raises on an action, whatever the model wrote;
it may raise InputError on a candidate or case that is not usable (the user's data).
"""

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any

from pivotrl_jax.chat.actions import message_to_action
from pivotrl_jax.chat.json_text import MAX_NESTING, nesting
from pivotrl_jax.records import Action, Call, Candidate, Verdict

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
