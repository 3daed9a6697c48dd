"""JSON schemas: of the arguments of declared tools, and of the answers of the Terminus harnesses.

A tool's schema comes with the data, and its patterns meet what a model wrote, so both may be hostile: a
pattern may need exponential time, and references to references may double without end. A check is therefore
given up after `SECONDS` in one pattern or `REFERENCES` followed references; a schema of real tools needs
microseconds and a few dozen.
"""

import contextvars
import json
from typing import Any

import jsonschema
import regex
from jsonschema import Draft202012Validator, ValidationError
from jsonschema_specifications import REGISTRY
from referencing.exceptions import Unresolvable

from pivotrl_jax.chat.json_text import loads

# raised on too deep nesting, on integers of thousands of digits, and on values that are no JSON
UNSAFE = (RecursionError, ArithmeticError, ValueError, TypeError)
SECONDS, REFERENCES = 0.25, 10_000


# ---- declared tools


def schemas_of(tools: list) -> dict[str, dict]:
    """Name -> parameter schema of the declared tools, without OpenAI's wrapper."""
    schemas = {}
    for tool in tools:
        doc = tool.get("function", tool) if isinstance(tool, dict) else {}
        doc = doc if isinstance(doc, dict) else tool
        if isinstance(doc.get("name"), str) and isinstance(doc.get("parameters"), dict):
            schemas[doc["name"]] = doc["parameters"]
    return schemas


def coerced(arguments: dict, schema: dict) -> dict:
    """`arguments`, with strings parsed where the schema declares a list or an object.

    Raises ValueError where a string is JSON that Python refuses (thousands of digits), as the released code
    does for any string.
    """
    properties = schema.get("properties")
    arguments = dict(arguments)
    for name, declared in properties.items() if isinstance(properties, dict) else ():
        if not isinstance(declared, dict) or not isinstance(arguments.get(name), str):
            continue
        try:
            value = loads(arguments[name])
        except json.JSONDecodeError:
            continue
        kind = {"array": list, "object": dict}.get(str(declared.get("type")))
        if kind is not None and isinstance(value, kind):
            arguments[name] = value
    return arguments


def satisfies(arguments: dict, schema: dict) -> bool:
    """Whether arguments satisfy a declared schema. No `$ref` is fetched. An invalid schema is satisfied by
    nothing, as in the released code, and neither is one that takes too long.
    """
    _references_left.set(REFERENCES)
    try:
        Draft202012Validator.check_schema(schema)
        return _Bounded(schema, registry=REGISTRY).is_valid(arguments)
    except (jsonschema.SchemaError, Unresolvable, regex.error, TimeoutError, *UNSAFE):
        return False


_references_left = contextvars.ContextVar("references left", default=0)


def _matches(pattern: str, text: str) -> bool:
    return regex.search(pattern, text, timeout=SECONDS) is not None


# Keywords of a schema that use patterns or references, as jsonschema calls them: they yield what is wrong.


def _pattern(validator, pattern, instance, schema):
    if validator.is_type(instance, "string") and not _matches(pattern, instance):
        yield ValidationError("does not match the pattern")


def _pattern_properties(validator, patterns, instance, schema):
    if validator.is_type(instance, "object"):
        for pattern, inner in patterns.items():
            for name in filter(lambda name: _matches(pattern, name), instance):
                yield from validator.descend(instance[name], inner, path=name, schema_path=pattern)


def _additional_properties(validator, inner, instance, schema):
    if validator.is_type(instance, "object"):
        declared, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        others = (k for k in instance if k not in declared and not any(_matches(p, k) for p in patterns))
        for name in others:
            yield from validator.descend(instance[name], inner, path=name)


def _unevaluated_properties(validator, inner, instance, schema):
    if '"patternProperties"' in json.dumps(schema):  # jsonschema would match them without a limit
        raise ValueError("unevaluatedProperties beside patternProperties")
    yield from Draft202012Validator.VALIDATORS["unevaluatedProperties"](validator, inner, instance, schema)


def _reference(validator, reference, instance, schema):
    _references_left.set(_references_left.get() - 1)
    if _references_left.get() < 0:
        raise ValueError(f"more than {REFERENCES} references")
    yield from Draft202012Validator.VALIDATORS["$ref"](validator, reference, instance, schema)


_Bounded = jsonschema.validators.extend(
    Draft202012Validator,
    {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "unevaluatedProperties": _unevaluated_properties,
        "$ref": _reference,
        "$dynamicRef": _reference,
    },
)


# ---- answers of a Terminus harness


def _schema(texts: list[str], command: dict, required: list[str], done: str, done_required: bool) -> dict:
    properties = {name: {"type": "string"} for name in texts}
    item = {"type": "object", "additionalProperties": False, "properties": command, "required": required}
    properties |= {"commands": {"type": "array", "items": item}, done: {"type": "boolean"}}
    names = [*texts, "commands"] + ([done] if done_required else [])
    return {"type": "object", "additionalProperties": False, "properties": properties, "required": names}


_KEYSTROKES, _NUMBER = {"keystrokes": {"type": "string"}}, {"type": "number"}

SCHEMAS = {
    "terminus_1": Draft202012Validator(
        _schema(
            ["state_analysis", "explanation"],
            {**_KEYSTROKES, "is_blocking": {"type": "boolean"}, "timeout_sec": _NUMBER},
            ["keystrokes", "is_blocking", "timeout_sec"],
            "is_task_complete",
            True,
        )
    ),
    "terminus_2": Draft202012Validator(
        _schema(
            ["analysis", "plan"], {**_KEYSTROKES, "duration": _NUMBER}, ["keystrokes"], "task_complete", False
        )
    ),
}


def fits(harness: str, answer: Any) -> bool:
    """Whether `answer` satisfies the harness's schema."""
    try:
        return SCHEMAS[harness].is_valid(answer)
    except RecursionError:  # the error's message prints the value
        return False


def strokes(answer: dict) -> list[str]:
    """The keystrokes of an answer that satisfies its schema."""
    return [command["keystrokes"] for command in answer["commands"]]
