"""Calls behind special tokens:

mistral      [TOOL_CALLS] [{"name": "f", "arguments": {...}}], [TOOL_CALLS]f[ARGS]{...}, [TOOL_CALLS]f{...}
python_tag   <|python_tag|>{"name": "f", "parameters": {...}}; {...}        Llama 3.1
tool_token   <|tool_call|>[{...}], <TOOLCALL>[{...}]</TOOLCALL>             Phi, Granite, Nemotron
deepseek     <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{...}<｜tool▁call▁end｜>
kimi         <|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{...}<|tool_call_end|>
harmony      <|channel|>commentary to=functions.f <|constrain|>json<|message|>{...}<|call|>
functionary  >>>f\\n{...}, and >>>all\\n for talk
"""

import re

from pivotrl_jax.chat.dialects.base import (
    Block,
    Dialect,
    Schemas,
    TextCalls,
    arguments_at,
    calls_of,
    scan,
    skip_space,
)
from pivotrl_jax.chat.json_text import strict_json
from pivotrl_jax.records import Call


def _json_calls(text: str, start: int, what: str) -> Block:
    """Calls as JSON from `start` on: a list of them, or objects with semicolons or nothing between them."""
    calls: list[Call] = []
    while True:
        try:
            value, end = strict_json(text, start)
        except ValueError as e:
            return calls, f"{what} is followed by no valid JSON ({str(e)[:120]})", start
        found, fault = calls_of(value, what)
        calls += found
        after = skip_space(text, end)
        more = skip_space(text, after + 1) if text.startswith(";", after) else after
        if fault or not text.startswith("{", more):
            return calls, fault, end
        start = more


# ---- mistral

_MISTRAL = "[TOOL_CALLS]"
_MISTRAL_NAME = re.compile(r"\s*([\w.\-]{1,256})\s*(?:\[CALL_ID\][\w\-]{0,64})?\s*(?:\[ARGS\])?\s*(?=\{)")


def _mistral_block(text: str, at: int, schemas: Schemas) -> Block:
    start = at + len(_MISTRAL)
    name = _MISTRAL_NAME.match(text, start)
    if name is None:
        return _json_calls(text, start, _MISTRAL)
    arguments, end = arguments_at(text, name.end())
    if arguments is None:
        return [], f"{_MISTRAL} is followed by no JSON object", name.end()
    return [Call(name[1], arguments)], "", end


def read_mistral(text: str, schemas: Schemas) -> TextCalls:
    """Mistral's three forms."""
    return scan(text, (_MISTRAL,), _mistral_block, schemas)


# ---- python_tag, tool_token

_PYTHON_TAG, _TOOL_TOKENS = "<|python_tag|>", ("<|tool_call|>", "<TOOLCALL>", "<tool_calls>")
_END_TOKENS = re.compile(r"\s*(?:<\|/tool_call\|>|</TOOLCALL>|</tool_calls>|<\|eom_id\|>|<\|eot_id\|>)")


def _token_block(text: str, at: int, schemas: Schemas) -> Block:
    mark = next(m for m in (_PYTHON_TAG, *_TOOL_TOKENS) if text.startswith(m, at))
    calls, fault, end = _json_calls(text, at + len(mark), mark)
    close = _END_TOKENS.match(text, end)
    return calls, fault, close.end() if close else end


def read_python_tag(text: str, schemas: Schemas) -> TextCalls:
    """Llama 3.1's JSON after its token."""
    return scan(text, (_PYTHON_TAG,), _token_block, schemas)


def read_tool_token(text: str, schemas: Schemas) -> TextCalls:
    """A list of calls after a token."""
    return scan(text, _TOOL_TOKENS, _token_block, schemas)


# ---- deepseek

_DEEPSEEK = "<｜tool▁call▁begin｜>"
_DEEPSEEK_NAME = re.compile(r"(?:function<｜tool▁sep｜>)?([\w.\-]{1,256})(?:<｜tool▁sep｜>|\n```json\n)")
_DEEPSEEK_END = re.compile(r"\s*(?:```)?\s*<｜tool▁call▁end｜>\s*(?:<｜tool▁calls▁end｜>)?")


def _deepseek_block(text: str, at: int, schemas: Schemas) -> Block:
    start = at + len(_DEEPSEEK)
    name = _DEEPSEEK_NAME.match(text, start)
    arguments, end = arguments_at(text, name.end()) if name else (None, start)
    close = _DEEPSEEK_END.match(text, end) if arguments is not None else None
    if close is None:
        return [], f"a {_DEEPSEEK} without a name, a JSON object and its end", end
    return [Call(name[1], arguments)], "", close.end()


def read_deepseek(text: str, schemas: Schemas) -> TextCalls:
    """DeepSeek's forms of V3 and V3.1."""
    found = scan(text, (_DEEPSEEK,), _deepseek_block, schemas)
    content = found.content.replace("<｜tool▁calls▁begin｜>", "").strip()
    return TextCalls(content, found.calls, found.fault, found.spans)


# ---- kimi

_KIMI = "<|tool_call_begin|>"
_KIMI_NAME = re.compile(r"\s*(?:functions\.)?([\w.\-]{1,256}?)(?::\d{1,6})?\s*<\|tool_call_argument_begin\|>")
_KIMI_END = re.compile(r"\s*<\|tool_call_end\|>")


def _kimi_block(text: str, at: int, schemas: Schemas) -> Block:
    start = at + len(_KIMI)
    name = _KIMI_NAME.match(text, start)
    arguments, end = arguments_at(text, name.end()) if name else (None, start)
    close = _KIMI_END.match(text, end) if arguments is not None else None
    if close is None:
        return [], f"a {_KIMI} without a name, a JSON object and its end", end
    return [Call(name[1], arguments)], "", close.end()


def read_kimi(text: str, schemas: Schemas) -> TextCalls:
    """Kimi K2's form."""
    found = scan(text, (_KIMI,), _kimi_block, schemas)
    content = re.sub(r"<\|tool_calls_section_(?:begin|end)\|>", "", found.content).strip()
    return TextCalls(content, found.calls, found.fault, found.spans)


# ---- harmony

_HARMONY = re.compile(
    r"(?:<\|start\|>assistant)?(?:<\|channel\|>(?:commentary|analysis))? ?to=(?:functions\.)?([\w.\-]{1,256})"
    r"(?:<\|channel\|>(?:commentary|analysis))?\s*(?:<\|constrain\|>)?(?:json|code)?\s*<\|message\|>"
)
_HARMONY_END = re.compile(r"\s*<\|call\|>")
_HARMONY_MARKS = (
    "<|channel|>commentary to=",
    "<|start|>assistant to=",
    "<|channel|>analysis to=",
    " to=functions.",
)
_HARMONY_TALK = re.compile(
    r"(?:<\|start\|>assistant)?<\|channel\|>(?:final|commentary)<\|message\|>"
    r"|<\|start\|>assistant|<\|(?:end|return|call)\|>"
)


def _harmony_block(text: str, at: int, schemas: Schemas) -> Block:
    match = _HARMONY.match(text, at)
    arguments, end = arguments_at(text, match.end()) if match else (None, at)
    if arguments is None:
        return [], "a call on the commentary channel without a name and a JSON object", end
    close = _HARMONY_END.match(text, end)
    return [Call(match[1], arguments)], "", close.end() if close else end


def read_harmony(text: str, schemas: Schemas) -> TextCalls:
    """gpt-oss's channels: calls on the commentary channel; marks of the other channels are dropped."""
    found = scan(text, _HARMONY_MARKS, _harmony_block, schemas)
    return TextCalls(_HARMONY_TALK.sub("", found.content).strip(), found.calls, found.fault, found.spans)


# ---- functionary

_ROUTE = re.compile(r"^>>>([\w.\-]{1,256})\n", re.MULTILINE)


def read_functionary(text: str, schemas: Schemas) -> TextCalls:
    """Functionary v3.2: every part is headed by its recipient; `all` is the user."""
    routes = list(_ROUTE.finditer(text))
    if not routes or text[: routes[0].start()].strip():
        return TextCalls(text.strip())
    said, calls, spans, fault = [], [], [], ""
    for route, following in zip(routes, [*routes[1:], None]):
        stop = following.start() if following else len(text)
        if route[1] == "all":
            said.append(text[route.end() : stop])
            continue
        arguments, end = arguments_at(text[:stop], route.end())
        if arguments is None or text[end:stop].strip():
            fault = fault or f"{route[0].strip()} is followed by no JSON object"
            continue
        calls.append(Call(route[1], arguments))
        spans.append((route.start(), stop))
    return TextCalls("".join(said).strip(), tuple(calls), fault, tuple(spans))


DIALECTS = (
    Dialect("mistral", (_MISTRAL,), read_mistral),
    Dialect("python_tag", (_PYTHON_TAG,), read_python_tag),
    Dialect("tool_token", _TOOL_TOKENS, read_tool_token),
    Dialect("deepseek", (_DEEPSEEK,), read_deepseek),
    Dialect("kimi", (_KIMI,), read_kimi),
    Dialect("harmony", _HARMONY_MARKS, read_harmony),
    Dialect("functionary", (">>>",), read_functionary, sure=False),
)
