"""Every way in which this project decodes JSON:

    strict_json     text written by a model: no NaN, no Infinity, bounded nesting
    lenient_json    as Python's json decodes it, NaN included, but with bounded nesting
    loads           as Python's json decodes it
    read_value      bytes of the user's files: as Python's json, with an InputError that says what is wrong

None of them lets a RecursionError pass.
"""

import json
import math
from typing import Any

from pivotrl_jax.records import InputError

MAX_NESTING = 64  # deeper JSON is refused: comparing or copying it would exhaust the interpreter's stack


def nesting(value: Any, limit: int = MAX_NESTING) -> int:
    """Depth of nested lists and dicts, counted level by level (no recursion) and not past `limit + 1`."""
    depth, level = 0, [value]
    while depth <= limit:
        containers = [v for v in level if isinstance(v, (dict, list, tuple))]
        if not containers:
            return depth
        level = [v for c in containers for v in (c.values() if isinstance(c, dict) else c)]
        depth += 1
    return depth


def no_constant(name: str) -> None:
    """A `parse_constant` for Python's json: refuses NaN and Infinity."""
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


_DECODER = json.JSONDecoder(parse_constant=no_constant, parse_float=_finite)


def strict_json(text: str, start: int = 0) -> tuple[Any, int]:
    """The JSON value that begins at `start`, and the index just past it.

    Raises ValueError, and nothing else, with a sentence: for malformed JSON, NaN and Infinity, numbers that
    overflow, integers of thousands of digits, and nesting deeper than MAX_NESTING.
    """
    while start < len(text) and text[start] in " \t\r\n":
        start += 1
    try:
        value, end = _DECODER.raw_decode(text, start)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    if nesting(value) > MAX_NESTING:
        raise ValueError(f"the JSON is nested deeper than {MAX_NESTING} levels")
    return value, end


def lenient_json(text: str) -> Any:
    """`loads` of JSON that is nested at most MAX_NESTING deep. Raises ValueError and nothing else."""
    value = loads(text)
    if nesting(value) > MAX_NESTING:
        raise ValueError(f"the JSON is nested deeper than {MAX_NESTING} levels")
    return value


def loads(text: str) -> Any:
    """Python's `json.loads`, which reads NaN and Infinity. Raises ValueError and nothing else."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def read_value(raw: bytes) -> Any:
    """The JSON value of a file or a line in UTF-8.

    Raises InputError, which does not name the file or line, for anything else and for text that cannot be
    written back as UTF-8.
    """
    try:
        value = json.loads(raw.decode("utf-8-sig"))
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as e:
        raise InputError(
            f"not text in UTF-8 (byte {e.start + 1} is 0x{raw[e.start]:02x}); convert it, e.g. with iconv"
        ) from None
    except UnicodeEncodeError:
        raise InputError("a text holds half of a surrogate pair; repair the text") from None
    except (ValueError, RecursionError) as e:
        raise InputError(f"not valid JSON ({e}); fix or remove the line") from None
    return value


def read_object(raw: bytes) -> dict:
    """`read_value` of a JSON object. Raises InputError."""
    value = read_value(raw)
    if not isinstance(value, dict):
        raise InputError(f"a JSON {type(value).__name__}, want an object; fix or remove the line")
    return value


def same_json(a: Any, b: Any) -> bool:
    """Whether two values give the same JSON. The order of keys counts, since prompts are rendered in it."""
    return json.dumps(a) == json.dumps(b)


def without_nulls(value: Any) -> Any:
    """`value` without the keys that are null: Arrow gives every object of a column the keys of all."""
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return [without_nulls(v) for v in value] if isinstance(value, list) else value
