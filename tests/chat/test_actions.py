"""Parsing completions into actions."""

import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.fuzzing import cases
from support.paths import SHARED

from pivotrl_jax.chat.actions import action_to_message, message_to_action, parse_action
from pivotrl_jax.chat.json_text import MAX_NESTING
from pivotrl_jax.records import Action, Call

CONFORMANCE = SHARED / "conformance/bfcl/qwen_fc_parse.jsonl"
LS = Call("ls", {})


def block(body):
    return f"<tool_call>\n{body}\n</tool_call>"


LS_BLOCK = block('{"name": "ls", "arguments": {}}')

READABLE = {
    "plain text": ("Hello there.", Action("Hello there.")),
    "one call": (LS_BLOCK, Action(calls=(LS,))),
    "two calls": (LS_BLOCK + "\n" + LS_BLOCK, Action(calls=(LS, LS))),
    "text around": ("Sure.\n" + LS_BLOCK + "\nDone.", Action("Sure.\n\nDone.", calls=(LS,))),
    "thought": ("<think>\nhm\n</think>\n\n" + LS_BLOCK, Action("", "hm", (LS,))),
    "empty thought": ("<think>\n\n</think>\n\nHi", Action("Hi")),
    "call in thought": (f"<think>{LS_BLOCK}</think>Hi", Action("Hi", LS_BLOCK)),
    "only the last thought counts": (f"a</think>{LS_BLOCK}</think>b", Action("b", f"a</think>{LS_BLOCK}")),
    "no newlines": ('<tool_call>{"name": "ls", "arguments": {}}</tool_call>', Action(calls=(LS,))),
    "many newlines": (block('\n\n{"arguments":\n{},\n"name": "ls"}\n \n'), Action(calls=(LS,))),
    "end tag inside a string": (
        block('{"name": "cd", "arguments": {"folder": "</tool_call>"}}'),
        Action(calls=(Call("cd", {"folder": "</tool_call>"}),)),
    ),
    "thought inside a string": (
        block('{"name": "cd", "arguments": {"folder": "<think>"}}'),
        Action(calls=(Call("cd", {"folder": "<think>"}),)),
    ),
    "lone surrogate": (
        block('{"name": "cd", "arguments": {"folder": "\\ud800"}}'),
        Action(calls=(Call("cd", {"folder": "\ud800"}),)),
    ),
}


@pytest.mark.parametrize("name", READABLE)
def test_readable(name):
    text, want = READABLE[name]
    action = parse_action(text)
    assert (action.content, action.reasoning, action.calls, action.malformed) == (
        want.content,
        want.reasoning,
        want.calls,
        "",
    )
    assert action.text == text


MALFORMED = {
    "unclosed thought": "<think>" + LS_BLOCK,
    "thought after a call": LS_BLOCK + "<think>" + LS_BLOCK,
    "thought reopened": "<think>a</think>b<think>" + LS_BLOCK,
    "unclosed call": '<tool_call>\n{"name": "ls", "arguments": {}}',
    "unclosed call, then another": '<tool_call>\n{"name": "ls", "argu' + LS_BLOCK,
    "end without start": '{"name": "ls", "arguments": {}}\n</tool_call>',
    "empty": block(""),
    "two objects": block('{"name": "ls", "arguments": {}} {"name": "ls", "arguments": {}}'),
    "list": block('[{"name": "ls", "arguments": {}}]'),
    "string": block('"ls"'),
    "no name": block('{"arguments": {}}'),
    "name is a number": block('{"name": 1, "arguments": {}}'),
    "no arguments": block('{"name": "ls"}'),
    "null arguments": block('{"name": "ls", "arguments": null}'),
    "arguments as a string": block('{"name": "ls", "arguments": "{}"}'),
    "arguments as a list": block('{"name": "ls", "arguments": []}'),
    "NaN": block('{"name": "ls", "arguments": {"a": NaN}}'),
    "infinite": block('{"name": "ls", "arguments": {"a": 1e999}}'),
    "huge integer": block('{"name": "ls", "arguments": {"a": ' + "9" * 5000 + "}}"),
    "deep": block(
        '{"name": "ls", "arguments": {"a": ' + "[" * (MAX_NESTING + 1) + "]" * (MAX_NESTING + 1) + "}}"
    ),
    "bottomless": block("[" * 200_000),
    "Python": block("{'name': 'ls', 'arguments': {}}"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(name):
    action = parse_action(MALFORMED[name])
    assert action.malformed and "\n" not in action.malformed
    assert len(action.calls) <= 1


def test_one_bad_block_spoils_the_action_but_the_good_one_is_read():
    action = parse_action(block("{") + LS_BLOCK)
    assert action.calls == (LS,) and "no valid JSON" in action.malformed
    assert "tool_calls" not in action_to_message(action)  # nothing of it was executed


def test_a_malformed_action_stays_in_the_history_as_its_text():
    message = action_to_message(parse_action("<think>a</think>\n" + block("{")))
    assert message == {"role": "assistant", "content": block("{"), "reasoning_content": "a"}


# Where we read differently from BFCL's Qwen3 handler, and why.
DIFFERENCES = {
    "no_newlines": "newlines around the JSON are optional: the call is unmistakable",
    "unclosed": "BFCL takes a cut-off call for text; it is malformed, and no verifier accepts it",
    "bad_json_only": "BFCL takes a broken call for text; it is malformed, and no verifier accepts it",
}


@pytest.mark.skipif(not CONFORMANCE.is_file(), reason="the conformance data is not here")
def test_bfcls_handler_reads_the_same_save_for_the_deliberate_differences():
    different = set()
    for case in map(json.loads, CONFORMANCE.read_text().splitlines()):
        action = parse_action(case["completion"])
        theirs = case["decode_ast"]
        if isinstance(theirs, dict):  # decode error: BFCL ends the turn
            same = bool(action.malformed) and not action.calls
        else:
            same = not action.malformed and [{c.name: c.arguments} for c in action.calls] == theirs
        if same:
            assert action.reasoning == case["history_message"]["reasoning_content"]
        else:
            different.add(case["id"])
    assert different == set(DIFFERENCES)


def test_bfcl_drops_a_broken_block_beside_a_good_one_and_we_do_not():
    assert parse_action(LS_BLOCK + block("{")).malformed  # BFCL would execute ls


PIECES = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "\n",
        '{"name": ',
        '"ls"',
        ', "arguments": ',
        "{",
        "}",
    ]
    + [
        "[",
        "]",
        '"',
        "NaN",
        "1e999",
        "9" * 5000,
        "[" * 2000,
        "null",
        "\\ud800",
        "\ud800",
        "\x00",
        "\\",
        LS_BLOCK,
    ]
)
TEXTS = st.one_of(st.text(), st.lists(st.one_of(PIECES, st.text(max_size=5)), max_size=25).map("".join))


def never_raises(text):
    for thinking_open in (False, True):
        action = parse_action(text, thinking_open)
        assert action.text == text
        assert all(isinstance(c.name, str) and isinstance(c.arguments, dict) for c in action.calls)
        action_to_message(action)


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_no_text_makes_the_parser_raise(text):
    never_raises(text)


@pytest.mark.slow
@settings(max_examples=cases(4_000), deadline=None)
@given(TEXTS)
def test_no_text_makes_the_parser_raise_slow(text):
    never_raises(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(st.text(min_size=1), st.dictionaries(st.text(), JSON))
def test_every_call_survives_writing_and_reading(name, arguments):
    text = block(json.dumps({"name": name, "arguments": arguments}))
    assume("</think>" not in text)  # nothing before it is spoken
    action = parse_action(text)
    assert action.calls == (Call(name, arguments),) and not action.malformed


def test_a_demonstration_is_an_action():
    message = action_to_message(Action("", "look first", (LS,)))
    assert message_to_action(message) == Action("", "look first", (LS,), "", "")
