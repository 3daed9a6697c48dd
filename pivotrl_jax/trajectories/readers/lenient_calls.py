"""Repairs of calls in demonstrations, which were executed although no strict parser reads them.

    {'name': 'f', 'arguments': {...}}      Python's form of JSON (Hermes function calling v1)
    {"name": "f", "arguments": "{...}"}    arguments as JSON text
    {"name": "f", "parameters": {...}}     another name for the arguments
    {"name": "f", ...}\\n{"name": "g", ...}  several in one block, a call per line (ToolRL)
    Action Input: {'city': 'Oslo'}         the same in ReAct
    ...</parameter>                        an end tag that was the stop sequence (OpenHands)

A policy's completion gets no repair: what it must write is what its chat template writes.
"""

import ast
import json
import re
from typing import Any

from pivotrl_jax.chat import dialects
from pivotrl_jax.chat.dialects.base import Schemas, TextCalls
from pivotrl_jax.chat.messages import named_call, parse_arguments

_BLOCK = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|\Z)", re.DOTALL)
_ACTION_INPUT = re.compile(r"^([ \t]*\**Action Input(?: \d+)?:\**\s*)(\{.*\})\s*\Z", re.MULTILINE | re.DOTALL)
MAX_LITERAL = 100_000  # characters that are given to Python's parser


def repaired(text: str, dialect: str, schemas: Schemas) -> TextCalls | None:
    """The text's calls, read after a repair; None if no repair makes them readable."""
    found = dialects.read(_mended(text, dialect), dialect, schemas)
    return found if found.calls and not found.fault else None


def _mended(text: str, dialect: str) -> str:
    if dialect == "hermes":
        return _BLOCK.sub(_standard_block, text)
    if dialect == "react":
        return _ACTION_INPUT.sub(_standard_input, text)
    if dialect in ("qwen3_coder", "function_json"):
        for mark in ("</parameter>", "</function>", "</tool_call>"):
            opened = (
                text.count(mark.replace("/", "").rstrip(">"))
                if mark != "</tool_call>"
                else text.count("<tool_call>")
            )
            if opened == text.count(mark) + 1:
                text = text.rstrip() + "\n" + mark
    return text


def _standard_block(match: re.Match) -> str:
    """A block with its calls in standard JSON; the block itself if they cannot be read."""
    value = literal(match[1])
    if value is None:  # one call per line
        value = [literal(line) for line in match[1].splitlines() if line.strip()]
    calls = value if isinstance(value, list) else [value]
    lines = []
    for call in calls:
        named = named_call(call)
        arguments = parse_arguments(named[1]) if named else None
        if arguments is None or "unparseable" in arguments:
            return match[0]
        try:
            body = json.dumps({"name": named[0], "arguments": arguments}, ensure_ascii=False, allow_nan=False)
        except (ValueError, TypeError):
            return match[0]
        lines.append(f"<tool_call>\n{body}\n</tool_call>")
    return "\n".join(lines)


def _standard_input(match: re.Match) -> str:
    """An Action Input with its object in standard JSON; itself if it is none."""
    value = literal(match[2])
    if not isinstance(value, dict):
        return match[0]
    try:
        return match[1] + json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError):
        return match[0]


def literal(text: str) -> Any:
    """The value of JSON or of a Python literal, which is parsed and never evaluated; None for other text."""
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text) if len(text) <= MAX_LITERAL else None
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return None
