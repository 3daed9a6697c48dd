"""Calls written in every dialect, without the code that reads them; and random calls to write."""

import json
import random

from pivotrl_jax.records import Call


def as_json(call, key="arguments"):
    return json.dumps({"name": call.name, key: call.arguments}, ensure_ascii=False)


def plain(value):
    """A value as tag dialects write it: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def arguments_json(call):
    return json.dumps(call.arguments, ensure_ascii=False)


def hermes(calls):
    return "\n".join(f"<tool_call>\n{as_json(c)}\n</tool_call>" for c in calls)


def qwen3_coder(calls, outer=True):
    blocks = []
    for c in calls:
        parts = "".join(f"<parameter={k}>\n{plain(v)}\n</parameter>\n" for k, v in c.arguments.items())
        block = f"<function={c.name}>\n{parts}</function>"
        blocks.append(f"<tool_call>\n{block}\n</tool_call>" if outer else block)
    return "\n".join(blocks)


def function_json(calls):
    return "".join(f"<function={c.name}>{arguments_json(c)}</function>" for c in calls)


def glm(calls):
    blocks = []
    for c in calls:
        pairs = "".join(
            f"<arg_key>{k}</arg_key>\n<arg_value>{plain(v)}</arg_value>\n" for k, v in c.arguments.items()
        )
        blocks.append(f"<tool_call>{c.name}\n{pairs}</tool_call>")
    return "\n".join(blocks)


def invoke(calls):
    blocks = []
    for c in calls:
        parts = "".join(f'<parameter name="{k}">{plain(v)}</parameter>\n' for k, v in c.arguments.items())
        blocks.append(f'<invoke name="{c.name}">\n{parts}</invoke>')
    return "<function_calls>\n" + "\n".join(blocks) + "\n</function_calls>"


def mistral(calls):
    return "[TOOL_CALLS] [" + ", ".join(map(as_json, calls)) + "]"


def mistral_args(calls):
    return "".join(f"[TOOL_CALLS]{c.name}[ARGS]{arguments_json(c)}" for c in calls)


def python_tag(calls):
    return "<|python_tag|>" + "; ".join(as_json(c, "parameters") for c in calls)


def tool_token(calls):
    return "<|tool_call|>[" + ", ".join(map(as_json, calls)) + "]<|/tool_call|>"


def deepseek(calls):
    blocks = "".join(
        f"<｜tool▁call▁begin｜>{c.name}<｜tool▁sep｜>{arguments_json(c)}<｜tool▁call▁end｜>" for c in calls
    )
    return f"<｜tool▁calls▁begin｜>{blocks}<｜tool▁calls▁end｜>"


def deepseek_v3(calls):
    blocks = "\n".join(
        f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{c.name}\n```json\n{arguments_json(c)}\n```<｜tool▁call▁end｜>"
        for c in calls
    )
    return f"<｜tool▁calls▁begin｜>{blocks}<｜tool▁calls▁end｜>"


def kimi(calls):
    blocks = "".join(
        f"<|tool_call_begin|>functions.{c.name}:{i}<|tool_call_argument_begin|>{arguments_json(c)}<|tool_call_end|>"
        for i, c in enumerate(calls)
    )
    return f"<|tool_calls_section_begin|>{blocks}<|tool_calls_section_end|>"


def harmony(calls):
    return "".join(
        f"<|channel|>commentary to=functions.{c.name} <|constrain|>json<|message|>{arguments_json(c)}<|call|>"
        for c in calls
    )


def functionary(calls):
    return "\n".join(f">>>{c.name}\n{arguments_json(c)}" for c in calls)


def json_object(calls):
    return as_json(calls[0], "parameters") if len(calls) == 1 else "[" + ", ".join(map(as_json, calls)) + "]"


def json_fence(calls):
    return "\n".join(f"```json\n{as_json(c)}\n```" for c in calls)


def pythonic(calls):
    made = [f"{c.name}({', '.join(f'{k}={v!r}' for k, v in c.arguments.items())})" for c in calls]
    return f"[{', '.join(made)}]"


def react(calls):
    return f"Thought: so\nAction: {calls[0].name}\nAction Input: {arguments_json(calls[0])}"


def functioncall(calls):
    return f'<functioncall> {{"name": "{calls[0].name}", "arguments": \'{arguments_json(calls[0])}\'}}'


# form -> (dialect, writer, whether it takes several calls, whether text may stand before the calls)
FORMS = {
    "hermes": ("hermes", hermes, True, True),
    "qwen3_coder": ("qwen3_coder", qwen3_coder, True, True),
    "qwen3_coder without the outer tag": ("qwen3_coder", lambda c: qwen3_coder(c, False), True, True),
    "function_json": ("function_json", function_json, True, True),
    "glm": ("glm", glm, True, True),
    "invoke": ("invoke", invoke, True, True),
    "functioncall": ("functioncall", functioncall, False, True),
    "mistral": ("mistral", mistral, True, True),
    "mistral with names": ("mistral", mistral_args, True, True),
    "python_tag": ("python_tag", python_tag, True, True),
    "tool_token": ("tool_token", tool_token, True, True),
    "deepseek": ("deepseek", deepseek, True, True),
    "deepseek v3": ("deepseek", deepseek_v3, True, True),
    "kimi": ("kimi", kimi, True, True),
    "harmony": ("harmony", harmony, True, False),
    "functionary": ("functionary", functionary, True, False),
    "json": ("json", json_object, True, False),
    "json_fence": ("json_fence", json_fence, True, True),
    "pythonic": ("pythonic", pythonic, True, False),
    "react": ("react", react, False, False),
}
# they write values as plain text, so that functions need docs, and text cannot be told from JSON without
TAGGED = ("qwen3_coder", "glm", "invoke")

NAMES = ("get_weather", "bash", "search", "api.v2_find", "f")
KEYS = ("city", "command", "n", "text", "options", "flag")
TEXTS = (
    "Oslo",
    "ls -la | grep 'x'",
    "a </tool_call> b",
    "x.split('</think>')[-1]",
    "line 1\nline 2",
    '{"a": 1}',
    "<tool_call> is a tag",
    'it\'s "quoted"',
    "naïve 日本 \U0001f600",
    "</parameter> in prose",
    "",
    "```\ncode\n```",
    "[f(a=1)]",
    "tab\tand \\ backslash",
    "null",
    "42",
)


def random_value(rng: random.Random, depth: int = 0):
    kind = rng.randrange(8 if depth < 2 else 5)
    if kind < 2:
        return rng.choice(TEXTS)
    if kind == 2:
        return rng.choice([0, -7, 42, 10**12])
    if kind == 3:
        return rng.choice([0.5, -1.25, 3e-5])
    if kind == 4:
        return rng.choice([True, False, None])
    if kind == 5:
        return [random_value(rng, depth + 1) for _ in range(rng.randrange(3))]
    return {rng.choice(KEYS): random_value(rng, depth + 1) for _ in range(rng.randrange(3))}


def random_calls(rng: random.Random, several: bool = True) -> list[Call]:
    count = rng.choice([1, 1, 2, 3]) if several else 1
    return [
        Call(rng.choice(NAMES), {k: random_value(rng) for k in rng.sample(KEYS, rng.randrange(4))})
        for _ in range(count)
    ]


def schemas_for(calls: list[Call]) -> dict[str, dict]:
    """Docs under which the calls' values can be told from text."""
    kinds = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
    schemas: dict[str, dict] = {}
    for call in calls:
        properties = schemas.setdefault(call.name, {"type": "object", "properties": {}})["properties"]
        for key, value in call.arguments.items():
            properties[key] = {"type": kinds.get(type(value), "null")}
    return schemas
