"""Calls written in any dialect come back, and no text makes a reader raise."""

import random
import re

import pytest
from support.fuzzing import cases
from support.paths import ROOT
from support.written_calls import FORMS, TAGGED, random_calls, schemas_for

from pivotrl_jax.chat import dialects
from pivotrl_jax.chat.actions import parse_action
from pivotrl_jax.chat.dialects import DIALECTS, read
from pivotrl_jax.chat.dialects.base import MAX_CALLS
from pivotrl_jax.records import Call

CASES = cases(200)  # random turns per form; 100,000 were run by hand


@pytest.mark.parametrize("form", FORMS)
def test_random_calls_come_back(form):
    dialect, write, several, text_before = FORMS[form]
    rng = random.Random(form)
    for _ in range(CASES):
        calls = random_calls(rng, several)
        schemas = schemas_for(calls)
        if dialect in TAGGED and len({c.name for c in calls}) < len(calls):
            continue  # two calls of one function may need two types for one parameter
        text = write(calls)
        found = read(text, dialect, schemas)
        assert (found.calls, found.fault) == (tuple(calls), ""), text
        if text_before:
            said = read("Let me see.\n" + text, dialect, schemas)
            assert (said.calls, said.content, said.fault) == (tuple(calls), "Let me see.", ""), text
        action = parse_action(f"<think>\nhm\n</think>\n\n{text}", False, dialect, schemas)
        assert (action.calls, action.reasoning, action.malformed) == (tuple(calls), "hm", ""), text


READ = {
    # several calls to a block, and what stands around them
    "qwen3_coder": [
        (
            "Look.\n<tool_call>\n<function=bash>\n<parameter=command>\nls -la\n</parameter>\n</function>\n"
            "</tool_call>",
            "Look.",
            [("bash", {"command": "ls -la"})],
        ),
        ("<function=submit>\n</function>", "", [("submit", {})]),
        (
            "<function=f><parameter=a>x</parameter> b</parameter>\n</function>",
            "",
            [("f", {"a": "x</parameter> b"})],
        ),
    ],
    "command_tags": [
        (
            "Look.\n<mswea_bash_command>ls -la</mswea_bash_command>",
            "Look.",
            [("bash", {"command": "ls -la"})],
        ),
        ("<execute_bash>\nls\n</execute_bash>", "", [("execute_bash", {"command": "ls"})]),
    ],
    "pythonic": [
        (
            '[Market Trends API(kind="x", n=2), g()]',
            "",
            [("Market Trends API", {"kind": "x", "n": 2}), ("g", {})],
        ),
        ("```tool_code\nprint(f(a=1))\n```", "", [("f", {"a": 1})]),
        ("[f(a=true, b=null)]", "", [("f", {"a": True, "b": None})]),
        ("[1, 2]", "[1, 2]", []),
        ("see [the docs](http://x.y)", "see [the docs](http://x.y)", []),
    ],
    "react": [
        ("Thought: x\nAction: search\nAction Input: cats", "x", [("search", {"input": "cats"})]),
        ('Action: f\nAction Input: {"a": 1}\nObservation: 7\nThought: y', "", [("f", {"a": 1})]),
        ("Thought 1: so\nAction 1: Search[cats and dogs]", "so", [("Search", {"input": "cats and dogs"})]),
        ("Thought: I know.\nFinal Answer: 7", "Thought: I know.\nFinal Answer: 7", []),
        ("Thought: I know.\nAction: Finish[7]", "7", []),
    ],
    "bash_fence": [
        ("Look.\n\n```bash\nls -la\n```", "Look.", [("bash", {"command": "ls -la"})]),
        ("```python\nprint(1)\n```", "```python\nprint(1)\n```", []),
    ],
    "last_fence": [
        ("DISCUSSION\nLook.\n```\nls -la\n```\n", "DISCUSSION\nLook.", [("bash", {"command": "ls -la"})]),
    ],
    "json": [
        ('{"name": "Bob", "age": 3}', '{"name": "Bob", "age": 3}', []),
        ("[]", "[]", []),
        # Llama 3.1, around what its template writes without these tokens
        ('<|python_tag|>{"name": "f", "parameters": {"a": 1}}<|eom_id|>', "", [("f", {"a": 1})]),
        (
            '{"name": "f", "parameters": {}}; {"name": "g", "parameters": {}}',
            "",
            [("f", {}), ("g", {})],
        ),
        ('{"name": "f", "parameters": {}};', '{"name": "f", "parameters": {}};', []),
    ],
    "functionary": [(">>>all\nHello.", "Hello.", [])],
    "harmony": [("<|channel|>final<|message|>Hello.<|return|>", "Hello.", [])],
}


@pytest.mark.parametrize("dialect", READ)
def test_what_a_text_says_and_calls(dialect):
    for text, content, calls in READ[dialect]:
        found = read(text, dialect, {})
        assert (found.content, found.calls, found.fault) == (content, tuple(Call(*c) for c in calls), ""), (
            text
        )


UNREADABLE = {
    "hermes": ["<tool_call>ls</tool_call>", '<tool_call>{"name": "f", "parameters": {}}</tool_call>'],
    "qwen3_coder": [
        "<function=f><parameter=a>x",
        "<function=f>text</function>",
        "<tool_call>\n<function=f>\n</function>",
        "x</function>",
    ],
    "function_json": ["<function=f>{</function>", "<function=f>{} {}</function>"],
    "glm": ["<tool_call>f<arg_key>a</arg_key><arg_value>1</tool_call>"],
    "invoke": ['<invoke name="f"><parameter name="a">1'],
    "command_tags": ["<execute_bash>ls"],
    "mistral": ["[TOOL_CALLS] ls"],
    "python_tag": ["<|python_tag|>import os"],
    "deepseek": ["<｜tool▁call▁begin｜>f"],
    "kimi": ["<|tool_call_begin|>f"],
    "bash_fence": ["```bash\nls\n```\n```bash\ncd a\n```", "```bash\n\n```"],
    "pythonic": ["[f(a=b)]", "[f(1)]", "[f(a=1, a=2)]", "[f(**x)]", "[f(a=open('x'))]"],
    "react": ["Action: f\nAction Input: {} and more", "Action: f"],
    "json": ['{"name": "f", "arguments": 3}'],
}


@pytest.mark.parametrize("dialect", UNREADABLE)
def test_what_cannot_be_read_is_a_fault(dialect):
    for text in UNREADABLE[dialect]:
        found = read(text, dialect, {})
        assert found.fault and not found.calls, text


def test_values_get_the_types_of_the_docs():
    schemas = {
        "f": {
            "properties": {
                "n": {"type": "integer"},
                "s": {"type": "string"},
                "b": {"type": "boolean"},
                "o": {"type": ["object", "null"]},
                "e": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            }
        }
    }
    values = {"n": "3", "s": "3", "b": "True", "o": "None", "e": "4", "undocumented": "5"}
    text = (
        "<function=f>" + "".join(f"<parameter={k}>{v}</parameter>" for k, v in values.items()) + "</function>"
    )
    (call,) = read(text, "qwen3_coder", schemas).calls
    assert call.arguments == {"n": 3, "s": "3", "b": True, "o": None, "e": 4, "undocumented": "5"}


def test_a_call_in_another_dialect_than_the_templates_is_no_talk():
    action = parse_action("<function=f><parameter=a>1</parameter></function>")
    assert "qwen3_coder" in action.malformed and not action.calls
    assert not parse_action("Use <function=...> tags for that.").malformed


PIECES = [
    *(
        "<tool_call>",
        "</tool_call>",
        "<function=",
        "f>",
        "</function>",
        "<parameter=a>",
        "</parameter>",
        "{",
        "}",
    ),
    *(
        '"name": "f"',
        ', "arguments": ',
        "[",
        "]",
        "(",
        ")",
        "f(a=1)",
        "```",
        "bash\n",
        "json\n",
        "\n",
        "Action: f",
    ),
    *("Action Input:", "[TOOL_CALLS]", "<|python_tag|>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", ">>>f\n"),
    *(
        "<|channel|>commentary to=functions.f",
        "<|message|>",
        "<invoke name=",
        '"f">',
        "<arg_key>",
        "</arg_key>",
    ),
    *(
        "<arg_value>",
        "<think>",
        "</think>",
        "\\",
        "'",
        '"',
        "\ud800",
        "\x00",
        "9" * 5000,
        "[" * 300,
        "-" * 500,
    ),
]


def test_no_text_makes_a_dialect_raise():
    rng = random.Random(7)
    for _ in range(5 * CASES):
        text = "".join(rng.choice(PIECES) for _ in range(rng.randrange(20)))
        for dialect in DIALECTS:
            found = read(text, dialect, {"f": {"properties": {"a": {}}}})
            assert all(isinstance(c.name, str) and isinstance(c.arguments, dict) for c in found.calls)
            spans = [i for span in found.spans for i in span]
            assert spans == sorted(spans) and all(0 <= i <= len(text) for i in spans)
            assert not found.calls or found.spans
        dialects.attempted_call(text, {"f": {}}, "hermes")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_hostile_repetition_takes_bounded_time(dialect):
    for piece in (
        "<tool_call>",
        "<function=f><parameter=a>",
        "```json\n",
        "```bash\n",
        "Action: f\n",
        "[f(",
        ">>>f\n",
    ):
        assert len(read(piece * 4000, dialect, {}).calls) <= MAX_CALLS


def documented_dialects():
    """(dialect, example) of each row of the table in docs/formats.md."""
    text = (ROOT / "docs/formats.md").read_text("utf-8").partition("## Calls written in the text")[2]
    rows = re.findall(r"^\| (\w+) \| [^|]+ \| `+(.*?)`+ \|$", text.replace("\\|", "¦"), re.MULTILINE)
    return [(name, example.strip(" ").replace("¦", "|").replace("⏎", "\n")) for name, example in rows]


def test_the_documented_example_of_every_dialect_is_a_call():
    examples = dict(documented_dialects())
    assert list(examples) == list(DIALECTS)
    schemas = {"f": {"properties": {"a": {"type": "integer"}}}}
    for name, example in examples.items():
        found = read(example, name, schemas)
        assert found.calls in ((Call("f", {"a": 1}),), (Call("bash", {"command": "ls"}),)), name
        assert not found.fault
