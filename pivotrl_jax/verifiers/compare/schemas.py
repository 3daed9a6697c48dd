"""JSON schemas: of the arguments of declared tools, and of the answers of the Terminus harnesses."""

import json
import re
from typing import Any

import jsonschema
from jsonschema import Draft202012Validator
from jsonschema_specifications import REGISTRY
from referencing.exceptions import Unresolvable

from pivotrl_jax.chat.json_text import loads

# raised on too deep nesting, on integers of thousands of digits, and on values that are no JSON
UNSAFE = (RecursionError, ArithmeticError, ValueError, TypeError)


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
    """Whether arguments satisfy a declared schema. No `$ref` is fetched; an invalid schema is satisfied by
    nothing, as in the released code.
    """
    try:
        Draft202012Validator.check_schema(schema)
        return Draft202012Validator(schema, registry=REGISTRY).is_valid(arguments)
    except (jsonschema.SchemaError, Unresolvable, re.error, *UNSAFE):
        return False


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
