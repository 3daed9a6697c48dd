"""Calls without tags or tokens, which a text can hold by chance; a reader wants more evidence for them:

json         the whole text is {"name": "f", "arguments": {...}} or "parameters", or several of them   Llama 3
json_fence   ```json {"name": "f", "arguments": {...}} ```, ```tool_call {...} ```
pythonic     the whole text is [f(a=1), g()]                                ToolACE, Llama 4; ```tool_code
react        Action: f / Action Input: {...}
bash_fence   one ```bash fence: a call of `bash`                            mini-swe-agent, SWE-agent
"""

import ast
import dataclasses
import math
import re

from pivotrl_jax.chat.dialects.base import (
    Dialect,
    Schemas,
    TextCalls,
    arguments_at,
    calls_of,
    properties_of,
    skip_space,
)
from pivotrl_jax.chat.json_text import MAX_NESTING, nesting, strict_json
from pivotrl_jax.records import Call

# ---- json

_CALL_KEYS = {"name", "arguments", "parameters", "id", "type"}


def _json_calls(text: str) -> tuple[list[Call], str]:
    """(calls, fault) of a text that is JSON that looks like calls, with semicolons between several values;
    ([], "") of any other text."""
    items: list = []
    end = -1
    while end < 0 or text.startswith(";", end):
        try:
            value, end = strict_json(text, skip_space(text, end + 1))
        except ValueError:
            return [], ""
        items += value if isinstance(value, list) else [value]
        end = skip_space(text, end)
    looks = all(isinstance(i, dict) and "name" in i and i.keys() <= _CALL_KEYS for i in items)
    if not items or not looks or end < len(text):
        return [], ""
    if not all("arguments" in i or "parameters" in i for i in items):
        return [], ""
    return calls_of(items, "the JSON")


def read_json(text: str, schemas: Schemas) -> TextCalls:
    """A text that is a JSON call, a list of them, or several with semicolons between them. Llama 3.1 may put
    its tokens around them, which its template does not write."""
    calls, fault = _json_calls(text.strip().removeprefix("<|python_tag|>").removesuffix("<|eom_id|>"))
    if not calls:
        return TextCalls(text.strip(), fault=fault)
    return TextCalls("", tuple(calls), fault, ((0, len(text)),))


# ---- fences


@dataclasses.dataclass(frozen=True)
class Fence:
    """A fenced block: text[start:end], with its language and what is inside."""

    language: str
    body: str
    start: int
    end: int


def fences(text: str) -> list[Fence]:
    """The fenced blocks of a text, in order; a block that is never closed is none."""
    found, at, opened = [], 0, None
    for line in text.splitlines(keepends=True):
        mark = line.strip()
        if opened is None and line.startswith("```") and "`" not in mark[3:]:
            opened = mark[3:].strip(), at, at + len(line)
        elif opened is not None and mark == "```" and line.startswith("```"):
            language, start, body = opened
            found.append(Fence(language, text[body:at].removesuffix("\n"), start, at + 3))
            opened = None
        at += len(line)
    return found


_FENCE = re.compile(r"^```(\S*)[ \t]*$", re.MULTILINE)


def outer_fences(text: str) -> list[Fence]:
    """The outermost fenced blocks, as SWE-agent's parser finds them: a fence with a word opens a block, also
    inside another one, and a bare one closes the innermost that is open."""
    found: list[Fence] = []
    opened: list[re.Match] = []
    for mark in _FENCE.finditer(text):
        if mark[1] or not opened:
            opened.append(mark)
            continue
        first = opened.pop()
        if not opened:
            body = text[first.end() + 1 : mark.start()].removesuffix("\n")
            found.append(Fence(first[1], body, first.start(), mark.end()))
    return found


_CALL_FENCES = ("json", "tool_call", "tool_calls", "tool", "function", "function_call", "")


def read_json_fence(text: str, schemas: Schemas) -> TextCalls:
    """Fences that hold JSON calls and nothing else."""
    pieces, calls, spans, fault, at = [], [], [], "", 0
    for fence in fences(text):
        if fence.language not in _CALL_FENCES:
            continue
        found, wrong = _json_calls(fence.body)
        if not found and fence.language.startswith(("tool", "function")):
            wrong = wrong or f"a fence of {fence.language} holds no JSON call"
        fault = fault or wrong
        if found:
            pieces.append(text[at : fence.start])
            at = fence.end
            calls += found
            spans.append((fence.start, fence.end))
    pieces.append(text[at:])
    return TextCalls("".join(pieces).strip(), tuple(calls), fault, tuple(spans))


# ---- pythonic

_TOOL_CODE = re.compile(r"\A\s*```(?:tool_code|python)\s*\n(.*?)\n?```\s*\Z", re.DOTALL)
_PYTHONIC_TAGS = re.compile(r"\A\s*(?:<\|python_start\|>)?(.*?)(?:<\|python_end\|>)?\s*\Z", re.DOTALL)
_LOOKS_PYTHONIC = re.compile(r"\A\[\s*[^\[\]\"'{}\n(]{1,256}\(.*\)\s*\]\Z", re.DOTALL)
MAX_PYTHON = 100_000  # characters that are given to Python's parser


def read_pythonic(text: str, schemas: Schemas) -> TextCalls:
    """A text that is a list of Python calls. Names may hold spaces (ToolACE's "Market Trends API")."""
    fence = _TOOL_CODE.match(text)
    if fence and fence[0].lstrip().startswith("```python") and not any(f"{n}(" in text for n in schemas):
        return TextCalls(text.strip())  # a fence of Python code
    body = _PYTHONIC_TAGS.match(fence[1] if fence else text)[1].strip()
    if fence and body.startswith("print(") and body.endswith(")"):
        body = body[len("print(") : -1]
    if fence and not body.startswith("["):
        body = f"[{body}]"
    if not _LOOKS_PYTHONIC.match(body):
        return _last_line_calls(text, schemas)
    calls, fault = _python_calls(body, schemas)
    if fault and fence:
        return TextCalls(text.strip())  # a fence of Python code
    return TextCalls("", tuple(calls), fault, ((0, len(text)),) if calls else ())


def _last_line_calls(text: str, schemas: Schemas) -> TextCalls:
    """Documented calls in the last line of a text, in brackets or alone."""
    before, _, line = text.strip().rpartition("\n")
    body = line if line.startswith("[") else f"[{line}]"
    if any(f"{name}(" in line for name in schemas) and _LOOKS_PYTHONIC.match(body):
        calls, fault = _python_calls(body, schemas)
        if not fault and all(call.name in schemas for call in calls):
            start = text.rindex(line)
            return TextCalls(before.strip(), tuple(calls), "", ((start, start + len(line)),))
    return TextCalls(text.strip())


# a string literal, which is left as it is, or the name of a call with what stands before it
_SPACED = re.compile(
    r"\"(?:[^\"\\]|\\.)*(?:\"|\Z)|'(?:[^'\\]|\\.)*(?:'|\Z)"
    r"|((?:\A\[|\)\s*,)\s*)([^\s\[\](),'\"=][^\[\](),'\"=]{0,255}?)\s*(?=\()",
    re.DOTALL,
)


def _python_calls(body: str, schemas: Schemas) -> tuple[list[Call], str]:
    """(calls, fault) of "[f(a=1), ...]". The text is parsed as literals, and never evaluated."""
    if len(body) > MAX_PYTHON:
        return [], f"a list of calls of more than {MAX_PYTHON} characters"
    names: list[str] = []

    def stand_in(match: re.Match) -> str:
        if match[2] is None:
            return match[0]
        names.append(match[2])
        return f"{match[1]}call_{len(names) - 1}"

    source = _SPACED.sub(stand_in, body)
    try:
        tree = ast.parse(source.strip(), mode="eval").body
        if not isinstance(tree, ast.List) or not tree.elts:
            return [], "no list of calls"
        return [_python_call(node, names, schemas) for node in tree.elts], ""
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as e:
        return [], f"a list of calls that cannot be read ({type(e).__name__})"


def _python_call(node: ast.expr, names: list[str], schemas: Schemas) -> Call:
    """The call of one node. Raises ValueError for anything but a call with literal arguments."""
    if not isinstance(node, ast.Call):
        raise ValueError("no call")
    target = ast.unparse(node.func)
    index = re.fullmatch(r"call_(\d+)", target)
    name = names[int(index[1])] if index and int(index[1]) < len(names) else target
    positions = list(properties_of(schemas, name))
    if len(node.args) > len(positions):
        raise ValueError("positional arguments without function docs")
    arguments = {key: _literal(value) for key, value in zip(positions, node.args)}
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in arguments:
            raise ValueError("an argument without a name of its own")
        arguments[keyword.arg] = _literal(keyword.value)
    return Call(name, arguments)


_CONSTANTS = {"true": True, "false": False, "null": None}


def _literal(node: ast.expr):
    """The JSON value of a literal; JSON's own constants are read too. Raises ValueError."""
    if isinstance(node, ast.Name) and node.id in _CONSTANTS:
        return _CONSTANTS[node.id]
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_literal(n) for n in node.elts]
    if isinstance(node, ast.Dict):
        keys = [ast.literal_eval(k) if k is not None else None for k in node.keys]
        if not all(isinstance(k, str) for k in keys):
            raise ValueError("a key that is no text")
        return {k: _literal(v) for k, v in zip(keys, node.values)}
    value = ast.literal_eval(node)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("no JSON number")
    if not (value is None or isinstance(value, (str, int, float, bool))) or nesting(value) > MAX_NESTING:
        raise ValueError("no JSON value")
    return value


# ---- react

_ACTION = re.compile(
    r"^[ \t]*\**Action(?: \d+)?:\**[ \t]*`?([^\n`\[({]{1,256}?)`?[ \t]*\n"
    r"[ \t]*\**Action Input(?: \d+)?:\**[ \t]*(?:\n[ \t]*)?",
    re.MULTILINE,
)
_BRACKET = re.compile(
    r"^[ \t]*\**Action(?: \d+)?:\**[ \t]*([\w.\- ]{1,64}?)[ \t]*\[(.*)\][ \t]*$", re.MULTILINE
)
_OBSERVATION = re.compile(r"^[ \t]*\**Observation(?: \d+)?:", re.MULTILINE)
_NO_CALL = {"final answer", "finish", "none", "answer"}
_STOP = re.compile(r"\n[ \t]*\**Observation\**[ \t]*\Z")  # a stop sequence that lost its colon
_INPUT_FENCE = re.compile(r"\A```\w*[ \t]*\n(.*?)\n?```\s*\Z", re.DOTALL)


def read_react(text: str, schemas: Schemas) -> TextCalls:
    """Action and Action Input, or Action: f[text]; a call with a bare text has it under the only parameter,
    or under "input". Thought stays content."""
    end = _OBSERVATION.search(text)  # what follows was not written by the model
    own = text[: end.start()] if end else text
    if end and re.search(r"^[ \t]*\**Action(?: \d+)?:", text[end.end() :], re.MULTILINE):
        return TextCalls(text.strip(), fault="several steps in one turn")
    own = _STOP.sub("", own)
    match = _ACTION.search(own)
    if match:
        given = own[match.end() :].strip()
        fenced = _INPUT_FENCE.match(given)
        given = fenced[1].strip() if fenced else given
        arguments, stop = arguments_at(given, 0)
        if arguments is None and given.startswith("{"):
            return TextCalls(own.strip(), fault="an Action Input that is no JSON object")
        if arguments is None:
            arguments = {_only_parameter(schemas, match[1].strip()): given.strip("`")}
        elif given[stop:].strip(" \n`*"):
            return TextCalls(own.strip(), fault="an Action Input goes on after its JSON")
    else:
        match = _BRACKET.search(own)
        if match is None or own[match.end() :].strip():
            fault = (
                "an Action without an Action Input"
                if re.search(r"^[ \t]*Action(?: \d+)?:", own, re.M)
                else ""
            )
            return TextCalls(text.strip(), fault=fault)
        arguments = {_only_parameter(schemas, match[1].strip()): match[2]}
    name = match[1].strip()
    if name.lower() in _NO_CALL and name not in schemas and len(arguments) == 1:
        (answer,) = arguments.values()
        return TextCalls(answer if isinstance(answer, str) else own.strip())
    content = re.sub(r"\A[ \t]*Thought(?: \d+)?:[ \t]*", "", own[: match.start()].strip())
    return TextCalls(content, (Call(name, arguments),), "", ((match.start(), len(own)),))


def _only_parameter(schemas: Schemas, name: str) -> str:
    properties = properties_of(schemas, name)
    return next(iter(properties)) if len(properties) == 1 else "input"


# ---- bash_fence

SHELLS = ("bash", "sh", "shell", "zsh", "console", "mswea_bash_command")


def read_bash_fence(text: str, schemas: Schemas) -> TextCalls:
    """Exactly one shell fence, whose text is the command."""
    shells = [fence for fence in fences(text) if fence.language in SHELLS]
    if len(shells) != 1:
        fault = f"{len(shells)} shell fences, want one" if shells else ""
        return TextCalls(text.strip(), fault=fault)
    if not shells[0].body.strip():
        return TextCalls(text.strip(), fault="an empty shell fence")
    return _command(text, shells[0], schemas)


def read_last_fence(text: str, schemas: Schemas) -> TextCalls:
    """The last fence is the command; it may hold fences itself."""
    found = outer_fences(text)
    if not found or not found[-1].body.strip():
        return TextCalls(text.strip())
    if found[-1].language not in ("", *SHELLS):
        return TextCalls(text.strip(), fault=f"a fence of {found[-1].language[:40]} and not of a shell")
    return _command(text, found[-1], schemas)


_HERE = re.compile(r"<<-?[ \t]*[\"']?([A-Za-z_]\w{0,63})[\"']?")


def _cut_document(text: str, fence: Fence) -> str:
    """What is wrong if the fence ends inside a here-document that itself holds fences; "" if nothing is."""
    after = {line.strip() for line in text[fence.end :].splitlines()}
    inside = {line.strip() for line in fence.body.splitlines()}
    delimiters = {match[1] for match in _HERE.finditer(fence.body)}
    cut = sorted(d for d in delimiters if d in after and d not in inside)
    return f"a fence inside the here-document {cut[0]} ends the command" if cut else ""


def _command(text: str, fence: Fence, schemas: Schemas) -> TextCalls:
    if fault := _cut_document(text, fence):
        return TextCalls(text.strip(), fault=fault)
    name, key = shell_tool(schemas)
    call = Call(name, {key: fence.body})
    content = (text[: fence.start] + text[fence.end :]).strip()
    return TextCalls(content, (call,), "", ((fence.start, fence.end),))


def shell_tool(schemas: Schemas) -> tuple[str, str]:
    """(name, parameter) of the tool that runs a fenced command: the only documented tool with a "command" or
    "cmd", else `bash`."""
    found = [(n, k) for n in schemas for k in ("command", "cmd") if k in properties_of(schemas, n)]
    return found[0] if len(found) == 1 else ("bash", "command")


DIALECTS = (
    Dialect("json", ('"name"',), read_json, sure=False),
    Dialect("json_fence", ("```",), read_json_fence, sure=False),
    Dialect("pythonic", ("(",), read_pythonic, sure=False),
    Dialect("react", ("Action",), read_react, sure=False),
    Dialect("bash_fence", ("```",), read_bash_fence, sure=False),
    Dialect("last_fence", ("```",), read_last_fence, sure=False),
)
