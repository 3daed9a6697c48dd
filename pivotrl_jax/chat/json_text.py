"""JSON out of model output and files: strict and lenient, with a bound on nesting."""

import json
import math
from typing import Any

MAX_NESTING = 64  # deeper JSON is refused: comparing or copying it would exhaust the interpreter's stack


# ---- JSON written by a model


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


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)


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
    """Python's `json.loads`, which reads NaN and Infinity. Raises ValueError and nothing else."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    if nesting(value) > MAX_NESTING:
        raise ValueError(f"the JSON is nested deeper than {MAX_NESTING} levels")
    return value


def loads(text: str) -> Any:
    """Python's `json.loads`, which reads NaN. Raises ValueError and nothing else."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
