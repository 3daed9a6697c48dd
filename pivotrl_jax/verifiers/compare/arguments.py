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
- `prose`: true compares by words where the names and the schema do not say so, false never does (prose.py);
- `order`: the order of a list's items; false by default where the schema says `uniqueItems`;
- `compared`: false leaves the argument out, whether present or not.

Without a rule, prose is compared by words and every other string exactly. A null for an argument that the
schema does not declare is no argument: Arrow gives each row the keys of all rows. For `calls` see
`count_verdict`.
"""

import math
import unicodedata
from collections import Counter, deque
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from pivotrl_jax.chat.dialects.base import types_of
from pivotrl_jax.records import Call, InputError, Verdict
from pivotrl_jax.verifiers.common import show
from pivotrl_jax.verifiers.compare import prose

RULES = ("case", "space", "punctuation", "prose", "order", "compared")
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


def _referred(schema: Any, root: dict) -> dict:
    """`schema` with the local `$ref`s at its top resolved."""
    schema = as_object(schema)
    for _ in range(8):  # a schema may refer to itself
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#/"):
            break
        found: Any = root
        for part in reference[2:].split("/"):
            found = as_object(found).get(part)
        schema = {**as_object(found), **{k: v for k, v in schema.items() if k != "$ref"}}
    return schema


def _contradicts(value: Any, schema: dict, root: dict) -> bool:
    """Whether a member of `value` is none of the constants by which a union tells its branches apart."""
    for name, inner in as_object(schema.get("properties")).items() if isinstance(value, dict) else ():
        told = _referred(inner, root)
        allowed = told.get("enum") if told.get("const") is None else [told["const"]]
        if name in value and isinstance(allowed, list) and value[name] not in allowed:
            return True
    return False


def _branch(schema: dict, value: Any, root: dict) -> dict | None:
    """The branch of anyOf, oneOf or allOf that `value` belongs to; None if that is not clear."""
    for key in ("anyOf", "oneOf", "allOf"):
        branches = [_referred(b, root) for b in schema[key]] if isinstance(schema.get(key), list) else []
        fits = [b for b in branches if b.get("type") != "null"]
        if len(fits) > 1:
            fits = [b for b in fits if isinstance(value, _TYPES.get(str(b.get("type")), object))]
        if len(fits) > 1 and key != "allOf":
            fits = [b for b in fits if not _contradicts(value, b, root)]
        if len(fits) == 1:
            return {**fits[0], **{k: v for k, v in schema.items() if k != key}}
    return None


def _resolved(schema: dict, value: Any, root: dict) -> dict:
    """`schema` with local `$ref`s, and unions such as "a string or null" (pydantic writes them), resolved."""
    for _ in range(8):
        schema = _referred(schema, root)
        branch = _branch(schema, value, root)
        if branch is None:
            break
        schema = branch
    return schema


def _admits_null(schema: Any, root: dict) -> bool:
    """Whether a schema says that null is a value: by its type, or that of a branch."""
    waiting, seen = [schema], set()
    while waiting:
        found = waiting.pop()
        if id(found) in seen:  # a branch may refer to its union
            continue
        seen.add(id(found))
        found = _referred(found, root)
        if "null" in types_of(found):
            return True
        for key in ("anyOf", "oneOf"):
            waiting += found[key] if isinstance(found.get(key), list) else []
    return False


def _alternatives(schema: dict, value: Any, root: dict, depth: int = 3) -> Iterator[dict]:
    """`schema` and the branches of its unions that `_resolved` could not decide between."""
    yield schema
    for key in ("anyOf", "oneOf", "allOf"):
        for branch in schema[key] if depth and isinstance(schema.get(key), list) else []:
            yield from _alternatives(_resolved(as_object(branch), value, root), value, root, depth - 1)


def _joined(schemas: Iterable[Any]) -> dict:
    """One schema for a value that each of `schemas` may describe."""
    # by identity: in a recursive schema the branches of a union lead to the same few schemas again and again
    given = list({id(schema): schema for schema in schemas if isinstance(schema, dict)}.values())
    return given[0] if len(given) == 1 else {"anyOf": given} if given else {}


def _unpunctuated(text: str) -> str:
    return "".join(" " if unicodedata.category(c)[0] == "P" else c for c in text)


def _normal_string(text: str, is_prose: bool, is_label: bool, rules: Mapping[str, bool]) -> Hashable:
    """A string's normal form. `is_label` says that one word may be the exact name of a thing."""
    case, space = rules.get("case"), rules.get("space")
    if not rules.get("punctuation", True):  # what is left has no look by which code could be told
        words = _unpunctuated(text).split()
        text, is_prose = " ".join(words), len(words) > 1
        case = not is_prose if case is None else case
    elif is_prose:
        tidy = text if space else prose.spelled(text)
        if prose.looks_like_code(tidy.replace("\n", " ")):
            is_prose = False
        elif "\n" in tidy or (is_label and len(tidy.split()) < 2):  # lines may be code
            text, is_prose = tidy if "\n" in tidy else text, False
        else:
            text, is_prose = tidy, bool(tidy)
    if space is False:  # without spaces prose cannot be told from an id
        text, case = "".join(text.split()), bool(case)
    elif is_prose and not (case and space):
        words = prose.by_words(text, case is not None, bool(space))
        return "words", words.casefold() if case is False else words
    return "string", text.casefold() if case is False else text


def _normal_number(value: int | float) -> Hashable:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # NaN does not equal itself, but its name does
    return int(value) if isinstance(value, float) and value.is_integer() else value


class _Normal:
    """Values of one tool's arguments in normal form. `code` says that all strings are compared exactly;
    `exact`, that a null which is allowed is not the same as no argument either."""

    def __init__(self, root: dict, tool: str, fields: Fields, exact: bool):
        self.root, self.tool, self.fields, self.exact = root, tool, fields, exact
        self.default = {"case": True, "space": True} if exact else {}

    def rules(self, path: str) -> Mapping[str, bool]:
        own = self.fields.get(f"{self.tool}.{path}", self.fields.get(path)) if self.fields else None
        return {**self.default, **own} if own else self.default

    def members(self, value: dict, schemas: list[dict], path: str, code: bool) -> Hashable:
        schema, described = schemas[0], [as_object(s.get("properties")) for s in schemas]
        properties = described[0]
        required = schema.get("required") if isinstance(schema.get("required"), list) else []
        members = dict(value)
        for name, inner in properties.items():
            if name in required or members.get(name) is not None:
                continue
            documented = {**_resolved(as_object(inner), None, self.root), **as_object(inner)}
            default = documented.get("default")
            if default is None:
                if not self.exact or "default" in documented or not _admits_null(inner, self.root):
                    members.pop(name, None)
            elif name not in members or not _admits_null(inner, self.root):
                members[name] = default  # an explicit null says something else, where it is allowed
        paths = {name: f"{path}.{name}" if path else name for name in members}
        return frozenset(
            (name, self.value(v, _joined(d.get(name) for d in described), paths[name], code))
            for name, v in members.items()
            if self.rules(paths[name]).get("compared", True)
        )

    def string(self, text: str, schemas: list[dict], path: str, code: bool) -> Hashable:
        rules = self.rules(path)
        is_prose, name = rules.get("prose"), path.rpartition(".")[2]
        is_label = is_prose is not True and bool(prose.LABEL_NAMES & prose.name_words(name[: prose.MAX_NAME]))
        if is_prose is None:
            is_prose = not code and prose.speaks_for_prose(name, schemas, self.tool)
        return _normal_string(text, is_prose, is_label, rules)

    def value(self, value: Any, schema: dict, path: str, code: bool) -> Hashable:
        schema = _resolved(schema, value, self.root)
        if value is None or isinstance(value, bool):
            return ("constant", value)
        if isinstance(value, (int, float)):
            return ("number", _normal_number(value))
        schemas = list(_alternatives(schema, value, self.root))
        code = code or (bool(path) and prose.speaks_for_code(path, schemas))
        if isinstance(value, str):
            return self.string(value, schemas, path, code)
        if isinstance(value, dict):
            return ("object", self.members(value, schemas, path, code))
        inner = _joined(s.get("items") for s in schemas)
        items = [self.value(v, inner, path, code) for v in value]
        if self.rules(path).get("order", schema.get("uniqueItems") is not True):
            return ("list", tuple(items))
        return ("set", frozenset(Counter(items).items()))


def normal_call(
    call: Call, docs: dict[str, dict], fields: Fields | None = None, exact: bool = False
) -> tuple[str, Hashable]:
    """The call in a hashable normal form: two calls are interchangeable under their tool's schema iff their
    normal forms are equal. With `exact`, strings are compared exactly unless a rule says otherwise, and so
    are the nulls that a schema allows.
    """
    call, schema = without_undeclared_nulls(call, docs), parameters(call.name, docs)
    code = prose.tool_takes_code(call.name, as_object(docs.get(call.name)).get("description"))
    return call.name, _Normal(schema, call.name, fields or {}, exact).value(call.arguments, schema, "", code)


def without_undeclared_nulls(call: Call, docs: dict[str, dict]) -> Call:
    """The call without nulls for arguments that the tool's schema lists properties but does not declare."""
    root = parameters(call.name, docs)
    return Call(call.name, _declared(call.arguments, root, root))


def _declared(value: Any, schema: dict, root: dict) -> Any:
    schema = _resolved(schema, value, root)
    if isinstance(value, list):
        inner = as_object(schema.get("items"))
        return [_declared(v, inner, root) for v in value]
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties")
    open_ended = schema.get("patternProperties") or isinstance(schema.get("additionalProperties"), dict)
    closed = isinstance(properties, dict) and not open_ended
    # Arrow gives schemas, too, the keys of all others: a property whose schema is null is not declared
    declared = {name: inner for name, inner in as_object(properties).items() if inner is not None}
    return {
        name: _declared(v, as_object(declared.get(name)), root)
        for name, v in value.items()
        if v is not None or not closed or name in declared
    }


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
