"""Calls between tags:

hermes         <tool_call>{"name": "f", "arguments": {...}}</tool_call>            Hermes, Qwen
qwen3_coder    <tool_call><function=f><parameter=a>1</parameter></function></tool_call>
               (the outer tag is optional: SWE-smith, OpenHands, SWE-Gym)
function_json  <function=f>{...}</function>                                 Llama 3.1, Functionary
glm            <tool_call>f<arg_key>a</arg_key><arg_value>1</arg_value></tool_call>
invoke         <invoke name="f"><parameter name="a">1</parameter></invoke>  Anthropic, MiniMax
functioncall   <functioncall> {"name": "f", "arguments": '{...}'}           Glaive
command_tags   <mswea_bash_command>ls</mswea_bash_command>, <execute_bash>ls</execute_bash>
"""

import re

from pivotrl_jax.chat.dialects.base import (
    Block,
    Dialect,
    Schemas,
    TextCalls,
    arguments_at,
    call_of,
    properties_of,
    scan,
    skip_space,
    typed,
)
from pivotrl_jax.chat.json_text import strict_json
from pivotrl_jax.records import Call

OPEN, CLOSE = "<tool_call>", "</tool_call>"

# ---- hermes


def _unclosed(text: str, close: int, start: int) -> Block | None:
    """What `_hermes_block` returns for a block that is not closed before the next one opens; else None."""
    reopened = text.find(OPEN, start)
    if close < 0 or 0 <= reopened < close:
        return [], "a <tool_call> is never closed", reopened if reopened >= 0 else len(text)
    return None


def _hermes_block(text: str, at: int, schemas: Schemas) -> Block:
    start = at + len(OPEN)
    try:
        value, end = strict_json(text, start)
    except ValueError as e:
        close = text.find(CLOSE, start)
        fault = [], f"a <tool_call> holds no valid JSON ({str(e)[:120]})", close + len(CLOSE)
        return _unclosed(text, close, start) or fault
    end = skip_space(text, end)
    if not text.startswith(CLOSE, end):
        close = text.find(CLOSE, end)
        fault = [], "a <tool_call> holds more than one JSON object", close + len(CLOSE)
        return _unclosed(text, close, end) or fault
    # "parameters" is another dialect's name for "arguments"
    value = {k: v for k, v in value.items() if k != "parameters"} if isinstance(value, dict) else value
    call = call_of(value, "a <tool_call>")
    return ([call], "", end + len(CLOSE)) if isinstance(call, Call) else ([], call, end + len(CLOSE))


def read_hermes(text: str, schemas: Schemas) -> TextCalls:
    """`<tool_call>` blocks of JSON; newlines around the JSON are optional."""
    return scan(text, (OPEN,), _hermes_block, schemas, (CLOSE,))


# ---- qwen3_coder and function_json

_FUNCTION = re.compile(r"<function=([^>\n]{1,256})>")
_PARAMETER = re.compile(r"\s*<parameter=([^>\n]{1,256})>")
_END_PARAMETER, _END_FUNCTION = "</parameter>", "</function>"
# what may follow a value; a value may hold the text </parameter> itself
_AFTER_VALUE = re.compile(r"</parameter>(?=\s*(?:<parameter=|</function>|\Z))")


def _function_block(text: str, at: int, schemas: Schemas) -> Block:
    outer = text.startswith(OPEN, at)
    match = _FUNCTION.match(text, skip_space(text, at + len(OPEN)) if outer else at)
    if match is None:
        return [], "a <tool_call> without <function=...>", _past(text, CLOSE, at)
    name, arguments, end = match[1].strip(), {}, match.end()
    properties = properties_of(schemas, name)
    while parameter := _PARAMETER.match(text, end):
        close = _AFTER_VALUE.search(text, parameter.end())
        if close is None:
            return [], "a <parameter=...> is never closed", len(text)
        value = text[parameter.end() : close.start()].removeprefix("\n").removesuffix("\n")
        if "\n<parameter=" in value:
            return [], "a <parameter=...> is opened inside another", close.end()
        arguments[parameter[1].strip()] = typed(value, properties.get(parameter[1].strip()))
        end = close.end()
    end = skip_space(text, end)
    if not text.startswith(_END_FUNCTION, end):
        return [], "a <function=...> holds text outside of parameters or is never closed", end
    return _closed(text, Call(name, arguments), end + len(_END_FUNCTION), outer)


def _closed(text: str, call: Call, end: int, outer: bool) -> Block:
    """The call, past its outer end tag, which must be there if the outer tag was opened."""
    if not outer:
        return [call], "", end
    inner = skip_space(text, end)
    if not text.startswith(CLOSE, inner):
        return [], "a <tool_call> is never closed", end
    return [call], "", inner + len(CLOSE)


def _past(text: str, mark: str, at: int) -> int:
    found = text.find(mark, at)
    return found + len(mark) if found >= 0 else len(text)


def read_qwen3_coder(text: str, schemas: Schemas) -> TextCalls:
    """Functions with a tag per parameter; values get the types of the function docs."""
    return scan(text, (OPEN, "<function="), _function_block, schemas, (_END_FUNCTION, CLOSE))


def _function_json_block(text: str, at: int, schemas: Schemas) -> Block:
    match = _FUNCTION.match(text, at)
    if match is None:
        return [], "a <function= without a name", at
    arguments, end = arguments_at(text, match.end())
    if arguments is None:
        return [], "a <function=...> holds no JSON object", match.end()
    end = skip_space(text, end)
    if not text.startswith(_END_FUNCTION, end):
        return [], "a <function=...> is never closed", end
    return [Call(match[1].strip(), arguments)], "", end + len(_END_FUNCTION)


def read_function_json(text: str, schemas: Schemas) -> TextCalls:
    """Functions whose body is a JSON object."""
    return scan(text, ("<function=",), _function_json_block, schemas, (_END_FUNCTION,))


# ---- glm

_GLM_NAME = re.compile(r"\s*([\w.\-]{1,256})\s*(?=<arg_key>|</tool_call>)")
_GLM_KEY = re.compile(r"\s*<arg_key>([^<]{1,256})</arg_key>\s*<arg_value>")
_GLM_END = re.compile(r"</arg_value>(?=\s*(?:<arg_key>|</tool_call>|\Z))")


def _glm_block(text: str, at: int, schemas: Schemas) -> Block:
    match = _GLM_NAME.match(text, at + len(OPEN))
    if match is None:
        return [], "a <tool_call> without a function name", _past(text, CLOSE, at)
    name, arguments, end = match[1], {}, match.end()
    properties = properties_of(schemas, name)
    while key := _GLM_KEY.match(text, end):
        close = _GLM_END.search(text, key.end())
        if close is None:
            return [], "an <arg_value> is never closed", len(text)
        arguments[key[1].strip()] = typed(text[key.end() : close.start()], properties.get(key[1].strip()))
        end = close.end()
    return _closed(text, Call(name, arguments), end, True)


def read_glm(text: str, schemas: Schemas) -> TextCalls:
    """A name, then keys and values in turn; values get the types of the function docs."""
    return scan(text, (OPEN,), _glm_block, schemas, (CLOSE,))


# ---- invoke

_INVOKE = re.compile(r"<(?:\w+:)?invoke name=[\"']([^\"'\n]{1,256})[\"']>")
_INVOKE_MARK = re.compile(r"<(?:\w{1,32}:)?invoke name=")
MAX_NAMESPACES = 4  # that are looked for in one text
_NAMED = re.compile(r"\s*<(?:\w+:)?parameter name=[\"']([^\"'\n]{1,256})[\"'][^>\n]{0,64}>")
_NAMED_END = re.compile(r"</(?:\w+:)?parameter>(?=\s*(?:<(?:\w+:)?parameter name=|</(?:\w+:)?invoke>|\Z))")
_INVOKE_END = re.compile(r"\s*</(?:\w+:)?invoke>")
_WRAPPERS = re.compile(r"</?(?:\w+:)?(?:function_calls|tool_calls|tool_call)>")


def _invoke_block(text: str, at: int, schemas: Schemas) -> Block:
    match = _INVOKE.match(text, at)
    if match is None:
        return [], 'an <invoke without name="..."', at
    name, arguments, end = match[1], {}, match.end()
    properties = properties_of(schemas, name)
    while parameter := _NAMED.match(text, end):
        close = _NAMED_END.search(text, parameter.end())
        if close is None:
            return [], "a <parameter name=...> is never closed", len(text)
        value = text[parameter.end() : close.start()]
        value = value.removeprefix("\n").removesuffix("\n") if value.startswith("\n") else value
        arguments[parameter[1]] = typed(value, properties.get(parameter[1]))
        end = close.end()
    close = _INVOKE_END.match(text, end)
    return ([Call(name, arguments)], "", close.end()) if close else ([], "an <invoke> is never closed", end)


def read_invoke(text: str, schemas: Schemas) -> TextCalls:
    """Anthropic's and MiniMax's form; the tag around the calls is dropped."""
    marks = tuple(dict.fromkeys(_INVOKE_MARK.findall(text)))[:MAX_NAMESPACES]
    found = scan(text, marks or ("<invoke name=",), _invoke_block, schemas)
    content = _WRAPPERS.sub("", found.content).strip() if found.calls else found.content
    return TextCalls(content, found.calls, found.fault, found.spans)


# ---- command_tags

SHELL_TAGS = {
    "mswea_bash_command": "bash",
    "execute_bash": "execute_bash",
    "execute_ipython": "execute_ipython",
}
_ARGUMENT = {"execute_ipython": "code"}


def _command_block(text: str, at: int, schemas: Schemas) -> Block:
    tag = text[at + 1 : text.index(">", at)]
    close = text.find(f"</{tag}>", at)
    if close < 0:
        return [], f"a <{tag}> is never closed", len(text)
    body = text[at + len(tag) + 2 : close].strip("\n")
    arguments = {_ARGUMENT.get(tag, "command"): body.strip() if "\n" not in body else body}
    return [Call(SHELL_TAGS[tag], arguments)], "", close + len(tag) + 3


def read_command_tags(text: str, schemas: Schemas) -> TextCalls:
    """A command between tags that are named after the tool."""
    marks = tuple(f"<{tag}>" for tag in SHELL_TAGS)
    return scan(text, marks, _command_block, schemas, tuple(f"</{tag}>" for tag in SHELL_TAGS))


# ---- functioncall

_GLAIVE = "<functioncall>"
_GLAIVE_END = re.compile(r"\s*(?:</functioncall>|<\|endoftext\|>)")
_GLAIVE_HEAD = re.compile(r"\s*\{\s*\"name\":\s*\"([^\"\n]{1,256})\"\s*(?:\}|,\s*\"arguments\":\s*)")


def _glaive_block(text: str, at: int, schemas: Schemas) -> Block:
    head = _GLAIVE_HEAD.match(text, at + len(_GLAIVE))
    if head is None:
        return [], f"a {_GLAIVE} without a name", at
    if head[0].endswith("}"):
        return [Call(head[1], {})], "", head.end()
    quoted = text.startswith("'", head.end())  # the JSON of the arguments stands in single quotes
    arguments, end = arguments_at(text, head.end() + quoted)
    close = re.compile(r"'\s*\}" if quoted else r"\s*\}").match(text, end) if arguments is not None else None
    if close is None:
        return [], f"a {_GLAIVE} holds no valid JSON", end
    tail = _GLAIVE_END.match(text, close.end())
    return [Call(head[1], arguments)], "", tail.end() if tail else close.end()


def read_functioncall(text: str, schemas: Schemas) -> TextCalls:
    """Glaive's form, whose arguments are JSON in single quotes."""
    return scan(text, (_GLAIVE,), _glaive_block, schemas)


DIALECTS = (
    Dialect("hermes", (OPEN,), read_hermes),
    Dialect("qwen3_coder", ("<function=",), read_qwen3_coder),
    Dialect("function_json", ("<function=",), read_function_json),
    Dialect("glm", (OPEN,), read_glm),
    Dialect("invoke", ("invoke name=",), read_invoke),
    Dialect("functioncall", (_GLAIVE,), read_functioncall),
    Dialect("command_tags", tuple(f"<{tag}>" for tag in SHELL_TAGS), read_command_tags),
)
