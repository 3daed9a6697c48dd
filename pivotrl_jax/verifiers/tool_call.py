"""tool_call: the same calls as the demonstration, by name and normalised arguments.

Accepted is what means the same under the tools' schemas, and nothing else:
- call or talk: where the demonstration talks, any non-empty text without a call; where it calls, calls;
- parallel calls in any order, matched one to one: no missing call, no surplus call;
- names exactly equal; unknown or missing arguments differ;
- an optional argument left out equals its schema default, or null where the schema has none;
- numbers by value: 5 equals 5.0, but never true, and never "5";
- strings of one word exactly (ids, paths, tickers); of several words without regard to case and to runs of
  spaces; with a line break exactly (code, letters);
- a string that the schema lists in an enum exactly;
- lists in order; objects by keys, recursively, with the nested schemas.

Text beside the calls and reasoning are not compared.
"""

from collections import Counter
from collections.abc import Hashable
from typing import Any

from pivotrl_jax.records import Action, Call, Candidate, Verdict
from pivotrl_jax.verifiers.base import (
    Verifier,
    demonstrated_calls,
    function_docs,
    problem,
    read_responses_case,
    show,
    text_verdict,
)


def _object(value: Any) -> dict:
    return value if isinstance(value, dict) else {}


def _normal_string(text: str, schema: dict) -> str:
    words = text.split()
    if "enum" in schema or len(words) < 2 or "\n" in text:
        return text
    return " ".join(words).casefold()


def _normal_members(value: dict, schema: dict) -> Hashable:
    properties = _object(schema.get("properties"))
    required = schema.get("required") if isinstance(schema.get("required"), list) else []
    members = dict(value)
    for name, inner in properties.items():
        if name not in required and members.get(name) is None:
            members[name] = _object(inner).get("default")
            if members[name] is None:
                del members[name]
    return frozenset((name, normal(v, _object(properties.get(name)))) for name, v in members.items())


def normal(value: Any, schema: dict) -> Hashable:
    """A hashable normal form: two JSON values are interchangeable under `schema` iff their normal forms are
    equal.
    """
    if value is None or isinstance(value, bool):
        return ("constant", value)
    if isinstance(value, (int, float)):
        return ("number", int(value) if isinstance(value, float) and value.is_integer() else value)
    if isinstance(value, str):
        return ("string", _normal_string(value, schema))
    if isinstance(value, dict):
        return ("object", _normal_members(value, schema))
    items = _object(schema.get("items"))
    return ("list", tuple(normal(v, items) for v in value))


def _normal_call(call: Call, docs: dict[str, dict]) -> tuple[str, Hashable]:
    schema = _object(_object(docs.get(call.name)).get("parameters"))
    return call.name, normal(call.arguments, schema)


def verify(candidate: Candidate, action: Action) -> Verdict:
    """Reward 1 iff the action's calls mean what the demonstration's do. Never raises on `action`."""
    verdict = problem(action)
    if verdict is not None:
        return verdict
    expected = demonstrated_calls(candidate)
    if not expected:
        return text_verdict(action)
    if not action.calls:
        return Verdict(0.0, "no_call", f"no call; the demonstration calls {show([c.name for c in expected])}")
    docs = function_docs(candidate.tools)
    want = Counter(_normal_call(c, docs) for c in expected)
    got = Counter(_normal_call(c, docs) for c in action.calls)
    if want == got:
        return Verdict(1.0, "ok", "the demonstrated calls")
    names = sorted(c.name for c in expected)
    if len(action.calls) != len(expected):
        return Verdict(0.0, "count", f"{len(action.calls)} calls, want {len(expected)}: {show(names)}")
    called = sorted(c.name for c in action.calls)
    if called != names:
        return Verdict(0.0, "name", f"called {show(called)}, want {show(names)}")
    wrong = next(c for c in action.calls if _normal_call(c, docs) in got - want)
    right = next(c for c in expected if c.name == wrong.name and _normal_call(c, docs) in want - got)
    return Verdict(
        0.0, "arguments", f"{wrong.name}: arguments {show(wrong.arguments)}, want {show(right.arguments)}"
    )


VERIFIERS = (Verifier("tool_call", "1", verify, read_responses_case("tool_call")),)
