"""Do arguments satisfy a tool's JSON schema, and do two answers of a Terminus harness have its form?"""

import json
import re
from typing import Any

import jsonschema
from jsonschema import Draft202012Validator
from jsonschema_specifications import REGISTRY
from referencing.exceptions import Unresolvable

from pivotrl_jax.chat.json_text import loads
from pivotrl_jax.records import Candidate
from pivotrl_jax.verifiers.terminal_cases import row_of

# raised on bottomless nesting, on integers of thousands of digits, and on values that are no JSON
_UNSAFE = (RecursionError, ArithmeticError, ValueError, TypeError)


# ---- what all tools share


def schemas_of(tools: list) -> dict[str, dict]:
    """Name -> parameter schema of the declared tools, with OpenAI's wrapper taken off."""
    schemas = {}
    for tool in tools:
        doc = tool.get("function", tool) if isinstance(tool, dict) else {}
        doc = doc if isinstance(doc, dict) else tool
        if isinstance(doc.get("name"), str) and isinstance(doc.get("parameters"), dict):
            schemas[doc["name"]] = doc["parameters"]
    return schemas


def coerced(arguments: dict, schema: dict) -> dict:
    """`arguments`, with lists and objects that were written as strings read. Raises ValueError where a string
    is JSON that Python refuses (thousands of digits): the released code raises there, for any string.
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
    """Whether arguments satisfy a declared schema. Nothing is fetched; a schema that is none satisfies
    nothing, as released.
    """
    try:
        Draft202012Validator.check_schema(schema)
        return Draft202012Validator(schema, registry=REGISTRY).is_valid(arguments)
    except (jsonschema.SchemaError, Unresolvable, re.error, *_UNSAFE):
        return False


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


# ---- the rules


def harness_of(candidate: Candidate, gold: dict) -> Any:
    """The row's `metadata.harness`. Where a row says none and no `expected_answer` either (a demonstration
    with an empty case), the gold's keys tell.
    """
    row = row_of(candidate.case)
    named = (row.get("metadata") or {}).get("harness") or candidate.case.get("harness")
    if named is None and "row" not in candidate.case and "expected_answer" not in candidate.case:
        return "terminus_1" if "state_analysis" in gold else "terminus_2"
    return named


def fits(harness: str, answer: Any) -> bool:
    """Whether `answer` satisfies the harness's schema."""
    try:
        return SCHEMAS[harness].is_valid(answer)
    except RecursionError:  # error messages print the value
        return False


def strokes(answer: dict) -> list[str]:
    """The keystrokes of an answer that satisfies its schema."""
    return [command["keystrokes"] for command in answer["commands"]]
