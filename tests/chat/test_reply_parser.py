"""What the present version of the reply parser reads: rewards on disk follow from it.

A reply that is read otherwise than replies.json says fails here. Then change `chat.actions.REPLY_PARSER`, by
which old profiles are told, and write the file anew: python tests/chat/test_reply_parser.py
"""

import json
from pathlib import Path

from pivotrl_jax.chat import dialects
from pivotrl_jax.chat.actions import REPLY_PARSER, parse_action
from pivotrl_jax.chat.replies import action_of

FILE = Path(__file__).with_name("replies.json")
SCHEMAS = {
    "f": {"type": "object", "properties": {"a": {"type": "string"}, "n": {"type": "integer"}}},
    "bash": {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]},
}
CALL = '{"name": "f", "arguments": {"a": "x", "n": 2}}'
CALLS = {  # a call in the form of each dialect, and in some that are not read
    "hermes": f"<tool_call>\n{CALL}\n</tool_call>",
    "coder": "<tool_call>\n<function=f>\n<parameter=a>\nx\n</parameter>\n"
    "<parameter=n>\n2\n</parameter>\n</function>\n</tool_call>",
    "function_json": '<function=f>{"a": "x", "n": 2}</function>',
    "glm": "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>x</arg_value>\n"
    "<arg_key>n</arg_key>\n<arg_value>2</arg_value>\n</tool_call>",
    "invoke": '<invoke name="f"><parameter name="a">x</parameter><parameter name="n">2</parameter></invoke>',
    "functioncall": f"<functioncall> {CALL}",
    "command": "<execute_bash>ls -la</execute_bash>",
    "mistral": f"[TOOL_CALLS] [{CALL}]",
    "mistral_args": '[TOOL_CALLS]f[ARGS]{"a": "x", "n": 2}',
    "python_tag": f"<|python_tag|>{CALL}",
    "tool_token": f"<|tool_call|>[{CALL}]",
    "deepseek": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>"
    '{"a": "x", "n": 2}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    "kimi": "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>"
    '{"a": "x", "n": 2}<|tool_call_end|><|tool_calls_section_end|>',
    "harmony": "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary "
    'to=functions.f <|constrain|>json<|message|>{"a": "x", "n": 2}<|call|>',
    "functionary": '>>>f\n{"a": "x", "n": 2}',
    "json": CALL,
    "json_fence": f"```json\n{CALL}\n```",
    "pythonic": '[f(a="x", n=2)]',
    "react": 'Thought: hm\nAction: f\nAction Input: {"a": "x", "n": 2}',
    "bash_fence": "I look.\n```bash\nls -la\n```",
    "fence": "I look.\n```\nls -la\n```",
    "cline": "<execute_command>\n<command>ls</command>\n</execute_command>",
    "code_act": "<execute>\nls\n</execute>",
}
TEXTS = {
    **CALLS,
    **{f"{name}, cut": text[: 2 * len(text) // 3] for name, text in CALLS.items()},
    **{f"{name}, twice": f"{text}\n{text}" for name, text in CALLS.items()},
    **{f"{name} after thinking": f"<think>\nhm\n</think>\n\nSo:\n{text}" for name, text in CALLS.items()},
    "nothing": "",
    "talk": "It is done.\n",
    "thinking alone": "<think>hm",
    "a call in thinking": f"<think>{CALLS['hermes']}</think>Done.",
    "a thought that ends in an argument": CALLS["hermes"].replace('"x"', '"</think>"'),
    "a quoted mark": "The mark `</think>` ends it.",
    "NaN": CALLS["hermes"].replace("2", "NaN"),
    "a key twice": CALLS["hermes"].replace('"n": 2', '"n": 2, "n": 3'),
    "arguments in a text": CALLS["hermes"].replace('{"a": "x", "n": 2}', '"{\\"a\\": \\"x\\"}"'),
    "no arguments": '<tool_call>{"name": "f"}</tool_call>',
    "parameters": CALLS["hermes"].replace("arguments", "parameters"),
    "an unknown name": CALLS["hermes"].replace('"f"', '"g"'),
    "a trailing comma": CALLS["hermes"].replace("2}", "2,}"),
    "talk around": f"First. {CALLS['hermes']} Then.",
    "another opening": f"<tool_call>\n{CALLS['hermes']}",
}
MESSAGES = {
    "a call": {"tool_calls": [{"function": {"name": "f", "arguments": '{"a": "x"}'}}]},
    "arguments that are no JSON": {"tool_calls": [{"function": {"name": "f", "arguments": '{"a": '}}]},
    "no arguments": {"tool_calls": [{"function": {"name": "f", "arguments": ""}}]},
    "no name": {"tool_calls": [{"function": {"arguments": "{}"}}]},
    "talk": {"content": " Done. "},
    "thinking in the content": {"content": "<think>hm</think>Done."},
    "thinking that never ends": {"content": "<think>hm"},
    "thinking in a field": {"content": "Done.", "reasoning_content": "hm"},
    "a refusal": {"refusal": "No."},
    "nothing": {"content": None},
    **{f"{name} in the content": {"content": text} for name, text in CALLS.items()},
}


def read(action) -> list:
    """What a verifier sees of an action."""
    return [
        *([action.malformed] if action.malformed else []),
        {"content": action.content, "calls": [[c.name, c.arguments] for c in action.calls]},
    ]


def as_read() -> dict:
    """Every reply -> what is read, with the dialects in which it is."""
    found: dict = {}
    for name, text in TEXTS.items():
        of = found.setdefault(name, {})
        for dialect in sorted(dialects.DIALECTS):
            key = json.dumps(read(parse_action(text, False, dialect, SCHEMAS)), ensure_ascii=False)
            of[key] = f"{of.get(key, '')} {dialect}".strip()
    found |= {f"{n}, prompted to think": json.dumps(read(parse_action(t, True))) for n, t in TEXTS.items()}
    tools = [{"type": "function", "function": {"name": n, "parameters": s}} for n, s in SCHEMAS.items()]
    return found | {f"served: {n}": json.dumps(read(action_of(m, tools))) for n, m in MESSAGES.items()}


def test_replies_are_read_as_the_version_says():
    stored = json.loads(FILE.read_text("utf-8"))
    found = as_read()
    other = [
        name for name in {**found, **stored["replies"]} if found.get(name) != stored["replies"].get(name)
    ]
    assert not other, f"read otherwise: {other[:5]}; change REPLY_PARSER, then write {FILE.name} anew"
    assert stored["version"] == REPLY_PARSER, f"write {FILE.name} anew"


def test_the_forms_of_all_dialects_are_among_the_replies():
    called = {
        dialect
        for text in CALLS.values()
        for dialect in dialects.DIALECTS
        if parse_action(text, False, dialect, SCHEMAS).calls
    }
    assert called == {*dialects.DIALECTS}


if __name__ == "__main__":
    before = json.loads(FILE.read_text("utf-8")) if FILE.is_file() else {"version": "", "replies": {}}
    now = as_read()
    other = [name for name, reading in before["replies"].items() if now.get(name, reading) != reading]
    if other and before["version"] == REPLY_PARSER:
        raise SystemExit(f"read otherwise: {other[:5]}; change REPLY_PARSER in chat/actions.py first")
    page = {"version": REPLY_PARSER, "replies": now}
    FILE.write_text(json.dumps(page, indent=1, ensure_ascii=False) + "\n", "utf-8")
