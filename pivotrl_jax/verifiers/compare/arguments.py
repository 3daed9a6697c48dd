"""Do two calls mean the same? JSON values in a normal form under a tool's schema, and counts of calls.

For the verifiers that compare arguments (tool_call, search, tau2) `candidate.case` may hold:

    {"fields": {"note": {"case": false}, "book.guests": {"order": false}, "book.trace": {"compared": false}},
     "calls": "superset", "max_extra": 2}

`fields` names an argument, or "tool.argument", which takes precedence; a value inside an object or a list
of objects is named by its path ("book.guests.name"). Its rules say what is compared (true) and what is not
(false):

- `case`: upper and lower case;
- `space`: false removes all white space, true compares it exactly;
- `punctuation`: false reads punctuation as spaces, and runs of spaces as one;
- `order`: the order of a list's items; false by default where the schema says `uniqueItems`;
- `compared`: false leaves the argument out, whether present or not.

Without a rule, values are compared as `normal` says. For `calls` see `count_verdict`.
"""

import math
import unicodedata
from collections import Counter, deque
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from pivotrl_jax.records import Call, InputError, Verdict
from pivotrl_jax.verifiers.common import show

RULES = ("case", "space", "punctuation", "order", "compared")
COUNTINGS = ("strict", "subset", "superset", "f1")
MAX_EXTRA = 1  # surplus calls accepted by "superset" and "f1": more would be guessing
Fields = Mapping[str, Mapping[str, bool]]

_TYPES = {
    "string": str,
    "object": dict,
    "dict": dict,
    "array": list,
    "boolean": bool,
    "integer": (int, float),
    "number": (int, float),
}


def as_object(value: Any) -> dict:
    """`value`, or {} when it is no object: a schema may hold anything."""
    return value if isinstance(value, dict) else {}


# ---- what the case says


def read_fields(case: dict) -> Fields:
    """The field rules of a case. Raises InputError for a rule that does not exist."""
    fields = case.get("fields", {})
    if not isinstance(fields, dict):
        raise InputError(f'"fields" of the case is {show(fields)}; want an object: argument -> rules')
    for name, rules in fields.items():
        if not isinstance(rules, dict) or not all(
            k in RULES and isinstance(v, bool) for k, v in rules.items()
        ):
            raise InputError(
                f"the rules of field {show(name)} are {show(rules)}; want true or false for {RULES}"
            )
    return fields


def read_counting(case: dict) -> tuple[str, int]:
    """(how calls are counted, surplus calls allowed) of a case. Raises InputError."""
    counting, extra = case.get("calls", "strict"), case.get("max_extra", MAX_EXTRA)
    if counting not in COUNTINGS:
        raise InputError(f'"calls" of the case is {show(counting)}; want one of {", ".join(COUNTINGS)}')
    if isinstance(extra, bool) or not isinstance(extra, int) or extra < 0:
        raise InputError(f'"max_extra" of the case is {show(extra)}; want a count of calls, 0 or more')
    return counting, extra


# ---- values


def _branch(schema: dict, value: Any) -> dict | None:
    """The branch of anyOf, oneOf or allOf that `value` belongs to; None if that is not clear."""
    for key in ("anyOf", "oneOf", "allOf"):
        branches = [as_object(b) for b in schema[key]] if isinstance(schema.get(key), list) else []
        fits = [b for b in branches if b.get("type") != "null"]
        if len(fits) > 1:
            fits = [b for b in fits if isinstance(value, _TYPES.get(str(b.get("type")), object))]
        if len(fits) == 1:
            return {**fits[0], **{k: v for k, v in schema.items() if k != key}}
    return None


def _resolved(schema: dict, value: Any, root: dict) -> dict:
    """`schema` with local `$ref`s, and unions such as "a string or null" (pydantic writes them), resolved."""
    for _ in range(8):  # a schema may refer to itself
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference.startswith("#/"):
            found: Any = root
            for part in reference[2:].split("/"):
                found = as_object(found).get(part)
            schema = {**as_object(found), **{k: v for k, v in schema.items() if k != "$ref"}}
            continue
        branch = _branch(schema, value)
        if branch is None:
            break
        schema = branch
    return schema


def _unpunctuated(text: str) -> str:
    return "".join(" " if unicodedata.category(c)[0] == "P" else c for c in text)


def _normal_string(text: str, schema: dict, rules: Mapping[str, bool]) -> str:
    if not rules.get("punctuation", True):
        text = " ".join(_unpunctuated(text).split())
    words = text.split()
    space = rules.get("space")
    # where spaces are not compared, they cannot tell prose from an id either
    prose = space is False or (len(words) > 1 and "\n" not in text)
    prose = prose and "enum" not in schema and "const" not in schema
    case = rules.get("case", not prose)
    if space is False:
        text = "".join(words)
    elif space is None and prose:
        text = " ".join(words)
    return text if case else text.casefold()


def _normal_number(value: int | float) -> Hashable:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # NaN does not equal itself, but its name does
    return int(value) if isinstance(value, float) and value.is_integer() else value


class _Normal:
    """Values of one tool's arguments in normal form."""

    def __init__(self, root: dict, tool: str, fields: Fields, default: Mapping[str, bool]):
        self.root, self.tool, self.fields, self.default = root, tool, fields, default

    def rules(self, path: str) -> Mapping[str, bool]:
        own = self.fields.get(f"{self.tool}.{path}", self.fields.get(path)) if self.fields else None
        return {**self.default, **own} if own else self.default

    def members(self, value: dict, schema: dict, path: str) -> Hashable:
        properties = as_object(schema.get("properties"))
        required = schema.get("required") if isinstance(schema.get("required"), list) else []
        members = dict(value)
        for name, inner in properties.items():
            if name not in required and members.get(name) is None:
                members[name] = as_object(inner).get("default")
                if members[name] is None:
                    del members[name]
        paths = {name: f"{path}.{name}" if path else name for name in members}
        return frozenset(
            (name, self.value(v, as_object(properties.get(name)), paths[name]))
            for name, v in members.items()
            if self.rules(paths[name]).get("compared", True)
        )

    def value(self, value: Any, schema: dict, path: str) -> Hashable:
        schema = _resolved(schema, value, self.root)
        if value is None or isinstance(value, bool):
            return ("constant", value)
        if isinstance(value, (int, float)):
            return ("number", _normal_number(value))
        if isinstance(value, str):
            return ("string", _normal_string(value, schema, self.rules(path)))
        if isinstance(value, dict):
            return ("object", self.members(value, schema, path))
        inner = as_object(schema.get("items"))
        items = [self.value(v, inner, path) for v in value]
        if self.rules(path).get("order", schema.get("uniqueItems") is not True):
            return ("list", tuple(items))
        return ("set", frozenset(Counter(items).items()))


def normal(
    value: Any, schema: dict, tool: str = "", fields: Fields | None = None, exact_strings: bool = False
) -> Hashable:
    """A hashable normal form: two JSON values (arguments of `tool`) are interchangeable under `schema` iff
    their normal forms are equal. With `exact_strings`, strings are compared exactly unless a rule says
    otherwise.
    """
    default = {"case": True, "space": True} if exact_strings else {}
    return _Normal(schema, tool, fields or {}, default).value(value, schema, "")


def normal_call(call: Call, docs: dict[str, dict], fields: Fields | None = None) -> tuple[str, Hashable]:
    """The call in normal form, under its tool's schema."""
    return call.name, normal(call.arguments, parameters(call.name, docs), call.name, fields)


def parameters(name: str, docs: dict[str, dict]) -> dict:
    """The schema of a tool's arguments, {} when there is none."""
    return as_object(as_object(docs.get(name)).get("parameters"))


# ---- calls


def matched(choices: Sequence[Sequence[int]]) -> dict[int, int]:
    """Maximum one-to-one matching (Kuhn's augmenting paths, breadth first, without recursion).

    `choices[i]` lists the j that i could be paired with; the result is i -> j.
    """
    pairs: dict[int, int] = {}
    owner: dict[int, int] = {}
    for start in range(len(choices)):
        reached: dict[int, int] = {}  # j -> the i it was reached from
        queue, free = deque([start]), None
        while queue and free is None:
            i = queue.popleft()
            for j in choices[i]:
                if j not in reached:
                    reached[j] = i
                    if j not in owner:
                        free = j
                        break
                    queue.append(owner[j])
        while free is not None:  # walk back and give every i on the path its new j
            i, j = reached[free], free
            free = pairs.get(i)
            owner[j], pairs[i] = i, j
    return pairs


def count_verdict(case: dict, found: int, expected: int, actual: int) -> Verdict:
    """The verdict on `actual` calls, of which `found` equal one of the `expected` calls, one to one.

    `case["calls"]` is "strict" (default): all expected calls and no other; "subset": at least one and no
    other; "superset": all, and at most `case["max_extra"]` more; or "f1": a reward of 2 * found / (expected
    + actual), with the same limit on surplus calls. Raises InputError for another value.
    """
    counting, max_extra = read_counting(case)
    details = f"{found} of {expected} demonstrated calls among {actual}"
    if counting in ("superset", "f1") and actual - expected > max_extra:
        return Verdict(0.0, "spray", f"{details}: more than {max_extra} surplus")
    if counting == "f1":
        reward = 2 * found / (expected + actual)
        return Verdict(reward, "ok" if reward == 1 else "partial" if reward else "arguments", details)
    right = {
        "strict": found == expected == actual,
        "subset": found == actual,
        "superset": found == expected,
    }[counting]
    if right:
        return Verdict(1.0, "ok", details)
    fits = {"strict": actual == expected, "subset": actual <= expected, "superset": actual >= expected}
    return Verdict(0.0, "arguments" if fits[counting] else "count", details)
