"""Schemas of declared tools: what jsonschema says, and an end to what would never end."""

import pytest
from jsonschema import Draft202012Validator

from pivotrl_jax.verifiers.compare.schemas import satisfies


def doubling(levels: int) -> dict:
    """A schema of a few hundred bytes that means 2 ** levels checks of the same value."""
    inner = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(levels)}
    return {"properties": {"x": {"$ref": "#/$defs/d0"}}, "$defs": {**inner, f"d{levels}": {"type": "string"}}}


SCHEMAS = [
    {},
    {"type": "object", "properties": {"x": {"type": "string", "pattern": "^a+$"}}},
    {"properties": {"x": {"type": "string"}}, "additionalProperties": False},
    {"properties": {"x": {}}, "additionalProperties": {"type": "integer"}},
    {"patternProperties": {"^x": {"pattern": "a"}, "[yz]$": {"type": "integer"}}},
    {"patternProperties": {"^x": True}, "additionalProperties": False},
    {"patternProperties": {"^x": True}, "additionalProperties": {"maximum": 3}},
    {"properties": {"x": True}, "unevaluatedProperties": False},
    {"allOf": [{"properties": {"x": True}}], "unevaluatedProperties": {"type": "integer"}},
    {"properties": {"x": {"$ref": "#/$defs/word"}}, "$defs": {"word": {"pattern": "(?i)^A"}}},
    {
        "properties": {"y": {"$dynamicRef": "#node"}},
        "$defs": {"n": {"$dynamicAnchor": "node", "type": "integer"}},
    },
    {"$defs": {"t": {"maximum": 1, "properties": {"x": {"$ref": "#/$defs/t"}}}}, "$ref": "#/$defs/t"},
    doubling(5),
]
VALUES = ["a", "aa", "b", "A", 1, 5, {"x": "a"}, {"x": {"x": 1}}, None, ["a"]]
ARGUMENTS = [
    {},
    *({k: v} for k in ("x", "xy", "y", "q") for v in VALUES),
    {"x": "a", "y": 1},
    {"x": "a", "q": 9},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=range(len(SCHEMAS)))
def test_a_schema_means_what_jsonschema_says(schema):
    plain = Draft202012Validator(schema)
    want = [plain.is_valid(arguments) for arguments in ARGUMENTS]
    assert [satisfies(arguments, schema) for arguments in ARGUMENTS] == want
    assert True in want and (False in want or not schema)


HOSTILE = {
    "a pattern": {"properties": {"x": {"pattern": "^(a|aa)+$"}}},
    "a pattern of names": {"patternProperties": {"^(a|aa)+$": {"type": "integer"}}},
    "other names": {"patternProperties": {"^(a|aa)+$": True}, "additionalProperties": False},
    "unevaluated names": {"patternProperties": {"^(a|aa)+$": True}, "unevaluatedProperties": False},
    "doubled references": doubling(40),
    "a circle": {"$ref": "#"},
    "no pattern": {"properties": {"x": {"pattern": "(["}}},
    "a vast repeat": {"properties": {"x": {"pattern": "(a{1,30000}){1,30000}b"}}},
    "elsewhere": {"$ref": "https://example.com/schema.json"},
    "a file": {"$ref": "file:///etc/passwd"},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_would_never_end_is_satisfied_by_nothing(name):
    long = "a" * 60 + "!"
    assert not satisfies({"x": long, long: 1}, HOSTILE[name])


def test_each_check_has_a_budget_of_its_own():
    busy = doubling(11)  # 4,000 references
    assert all(satisfies({"x": "a"}, busy) for _ in range(4))
