"""How calls are written in a text: what every dialect has in common.

A dialect has a name, `marks` (texts one of which stands in every turn that calls), and `read`, which finds
the calls. `read` never raises and takes time linear in the text, save for MAX_CALLS searches.
"""

import ast
import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from pivotrl_jax.chat.json_text import strict_json
from pivotrl_jax.records import Call

MAX_CALLS = 256  # calls read per text; each may search all the text after it

Schemas = Mapping[str, dict]  # function name -> JSON schema of its parameters

MAX_LITERAL = 100_000  # characters that are given to Python's parser

NOTHING: dict = {}


@dataclasses.dataclass(frozen=True)
class TextCalls:
    """What a text says and calls."""

    content: str  # the text outside of calls, stripped
    calls: tuple[Call, ...] = ()  # those that could be read
    fault: str = ""  # what could not be read; "" if everything could
    spans: tuple[tuple[int, int], ...] = ()  # (start, end) in the text, of the calls that could be read


@dataclasses.dataclass(frozen=True)
class Dialect:
    """A form in which calls are written. `sure`: nobody writes its marks without meaning a call, so that one
    turn is evidence enough."""

    name: str
    marks: tuple[str, ...]
    read: Callable[[str, Schemas], TextCalls]
    sure: bool = True


# (calls that could be read, what was wrong, index to continue from)
Block = tuple[list[Call], str, int]


def scan(
    text: str,
    marks: tuple[str, ...],
    read_block: Callable[[str, int, Schemas], Block],
    schemas: Schemas,
    leftovers: tuple[str, ...] = (),
) -> TextCalls:
    """The calls of a text in which each block of calls begins with one of `marks`.

    `read_block(text, start, schemas)` reads the block that begins at `start`. A closing mark outside of
    blocks (`leftovers`) is a fault.
    """
    pieces, calls, faults, spans, at = [], [], [], [], 0
    starts = re.compile("|".join(map(re.escape, marks)))
    blocks = 0
    while match := starts.search(text, at):
        pieces.append(text[at : match.start()])
        blocks += 1
        if blocks > MAX_CALLS:
            faults.append(f"more than {MAX_CALLS} blocks of calls")
            at = len(text)
            break
        found, fault, at = read_block(text, match.start(), schemas)
        at = max(at, match.end())
        if fault:
            faults.append(fault)
        if found:
            spans.append((match.start(), at))
        calls += found
    pieces.append(text[at:])
    closing = next((mark for mark in leftovers for piece in pieces if mark in piece), "")
    if closing:
        faults.append(f"a {closing} closes nothing")
    return TextCalls("".join(pieces).strip(), tuple(calls), faults[0] if faults else "", tuple(spans))


def skip_space(text: str, at: int) -> int:
    """The index of the first character from `at` on that is no white space."""
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def call_of(value: Any, what: str) -> Call | str:
    """The call that a JSON value stands for, or what is wrong with it. `what` is where it was found."""
    if not isinstance(value, dict):
        return f"{what} holds a JSON {type(value).__name__}, want an object"
    if not isinstance(value.get("name"), str) or not value["name"]:
        return f'{what} has no "name"'
    key = "parameters" if "parameters" in value and "arguments" not in value else "arguments"
    if not isinstance(value.get(key), dict):
        kind = type(value[key]).__name__ if key in value else "nothing"
        return f'{what} has {kind} as "{key}", want an object'
    return Call(value["name"], value[key])


def calls_of(value: Any, what: str) -> tuple[list[Call], str]:
    """(the calls of a JSON object or a list of them, what is wrong)."""
    found = [call_of(one, what) for one in (value if isinstance(value, list) else [value])]
    fault = next((f for f in found if isinstance(f, str)), "" if found else f"{what} is empty")
    return [c for c in found if isinstance(c, Call)], fault


def arguments_at(text: str, start: int) -> tuple[dict | None, int]:
    """(the JSON object that begins at `start`, the index past it); (None, start) for anything else."""
    try:
        value, end = strict_json(text, start)
    except ValueError:
        return None, start
    return (value, end) if isinstance(value, dict) else (None, start)


# ---- values written as plain text


def typed(text: str, schema: Any) -> Any:
    """A value that was written as plain text, in the type of its schema.

    Text stays text where the schema allows a string or says nothing, and where it cannot be read as the type
    that the schema wants.
    """
    types = types_of(schema)
    stripped = text.strip()
    if stripped.lower() in ("null", "none") and "null" in types:
        return None
    if not types or "string" in types:
        return text
    if types & {"boolean", "bool"} and stripped.lower() in ("true", "false"):
        return stripped.lower() == "true"
    try:
        value, end = strict_json(stripped)
        return value if not stripped[end:].strip() else text
    except ValueError:
        return _python_value(stripped, text) if types & {"array", "object"} else text


def _python_value(stripped: str, text: str) -> Any:
    """A list or object in Python's form, which is parsed and never evaluated; else the text."""
    try:
        value = ast.literal_eval(stripped) if len(stripped) <= MAX_LITERAL else None
        json.dumps(value, allow_nan=False)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
    keys_are_texts = not isinstance(value, dict) or all(isinstance(key, str) for key in value)
    return value if isinstance(value, (list, dict)) and keys_are_texts else text


def types_of(schema: Any) -> set[str]:
    """The JSON types that a schema allows; empty if it does not say."""
    if not isinstance(schema, dict):
        return set()
    kind = schema.get("type")
    types = {kind} if isinstance(kind, str) else {k for k in kind or () if isinstance(k, str)}
    for key in ("anyOf", "oneOf"):
        for option in schema.get(key) or () if isinstance(schema.get(key), list) else ():
            types |= types_of(option)
    return types | ({"null"} if schema.get("nullable") is True else set())


def properties_of(schemas: Schemas, name: str) -> dict:
    """Parameter name -> schema, of a function; {} for a function without docs."""
    schema = schemas.get(name)
    properties = schema.get("properties") if isinstance(schema, dict) else None
    return properties if isinstance(properties, dict) else NOTHING


def schemas_of(tools: list[dict]) -> dict[str, dict]:
    """Function name -> schema of its parameters, from function docs with or without OpenAI's wrapper."""
    schemas = {}
    for tool in tools:
        doc = tool.get("function", tool) if isinstance(tool, dict) else None
        if isinstance(doc, dict) and isinstance(doc.get("name"), str):
            parameters = doc.get("parameters")
            schemas[doc["name"]] = parameters if isinstance(parameters, dict) else {}
    return schemas


def as_json(call: Call) -> str:
    """A call as the JSON object {"name", "arguments"}."""
    return json.dumps({"name": call.name, "arguments": call.arguments}, ensure_ascii=False)
