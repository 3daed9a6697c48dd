"""Actions as a model might write them by accident or in bad faith, to test that no verifier fails on them."""

import functools
import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pivotrl_jax.chat.actions import parse_action
from pivotrl_jax.records import Action, Call
from pivotrl_jax.verifiers.base import Verifier
from support.fuzzing import cases

MEGABYTE = 1_000_000

LONG = {
    "letters": "a" * MEGABYTE,
    "digits": "1" * MEGABYTE,
    "words": "ab " * (MEGABYTE // 3),
    "numbers": "1,234 " * (MEGABYTE // 6),
    "commas": "1," * (MEGABYTE // 2),
    "quotes": '"' * MEGABYTE,
    "open quotes": '"a ' * (MEGABYTE // 3),
    "answers": "answer: x\n" * (MEGABYTE // 10),
    "stars": "*" * MEGABYTE,
    "tags": "<answer>" * (MEGABYTE // 8),
    "minus": "-a" * (MEGABYTE // 2),
    "spaces": " " * MEGABYTE + "x",
    "percent": "https://a.bc/" + "%4" * (MEGABYTE // 2),
    "dots": "https://a.bc/" + "a/../" * (MEGABYTE // 5),
    "parameters": "https://a.bc/?" + "utm_a=1&" * (MEGABYTE // 8),
    "short parameters": "https://a.bc/?" + "a&" * 40_000,
    "brackets": "http://[" + ":" * MEGABYTE,
    "money": "$1.1" * (MEGABYTE // 4),
    "dates": "1 may 2024 " * (MEGABYTE // 11),
    "accents": "e\u0301" * (MEGABYTE // 2),
    "surrogates": "\ud800" * MEGABYTE,
    "errors": "error" * (MEGABYTE // 5),
    "tool calls": "<tool_call>" * (MEGABYTE // 11),
}


def deep(levels: int) -> list:
    """Lists in lists."""
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


UNUSUAL_VALUES = [
    deep(100_000),
    {"a": deep(500)},
    10**5000,
    -(10**5000),
    float("nan"),
    float("inf"),
    None,
    object(),
    b"bytes",
    "\ud800",
    {1: 2},
    [],
    {},
    "",
]

UNUSUAL_TEXTS = [
    "[" * MEGABYTE,
    '{"a": ' * 100_000,
    '<tool_call>{"name": "f", "arguments": {"q": ' + "9" * 5000 + "}}</tool_call>",
    '<tool_call>{"name": "f", "arguments": ' + "[" * 100_000 + "</tool_call>",
    "<tool_call>" * 4_000,  # parse_action takes time in the square of these
    "<think>" * 50_000,
    "</think>" * 50_000,
    '<tool_call>{"name": "f", "arguments": {}}</tool_call>' * 20_000,
    '<tool_call>{"name": "f", "arguments": {"x": NaN}}</tool_call>',
    "\x00" * 1000,
]


def hostile(name: str, argument: str, given: dict) -> dict[str, Action]:
    """Name of a trick -> the action: `given` arguments of a call to `name`, one of them hostile."""
    actions = {
        "nothing": Action(),
        "malformed": Action(malformed="x"),
        "no name": Action(calls=(Call(None, {}),)),
        "a list for a name": Action(calls=(Call([], {}), Call(name, given))),
        "many calls": Action(calls=(Call(name, given),) * 2000),
        "a call that evaluates": Action(calls=(Call("__import__('os').getpid", {"self": 1}),)),
    }
    for kind, text in LONG.items():
        actions[f"{kind} in an argument"] = Action(calls=(Call(name, {**given, argument: text}),))
        actions[f"{kind} as arguments"] = Action(calls=(Call(name, text),))
        actions[f"{kind} in the text"] = Action(content=text, text=text)
    for i, value in enumerate(UNUSUAL_VALUES):
        actions[f"unusual value {i}"] = Action(calls=(Call(name, {**given, argument: value}),))
        actions[f"unusual arguments {i}"] = Action(calls=(Call(name, value),))
    for i, text in enumerate(UNUSUAL_TEXTS):
        actions[f"unusual text {i}"] = parse_action(text)
        actions[f"unusual text {i} as arguments"] = Action(calls=(Call(name, text),))
    return actions


def check(verifier: Verifier, candidate, action: Action) -> float:
    """Verify twice: no exception, the same verdict, a reward in [0, 1], details that a file can hold."""
    start = time.process_time()
    verdict = verifier.verify(candidate, action)
    took = time.process_time() - start
    assert took < 5, f"{took:.1f} s of CPU time"
    assert verdict == verifier.verify(candidate, action)
    assert math.isfinite(verdict.reward) and 0 <= verdict.reward <= 1
    assert verdict.reason and (verdict.reward == 1) == (verdict.reason in ("ok", "task_action"))
    verdict.details.encode("utf-8")
    return verdict.reward


def actions(names: list[str], keys: list[str], texts: list[str]) -> st.SearchStrategy[Action]:
    """Actions near a demonstration: its names, argument names and texts, cut, joined and mixed with noise."""
    words = st.sampled_from(texts)
    text = st.one_of(
        words, st.text(max_size=12), st.lists(words | st.text(max_size=4), max_size=4).map(" ".join)
    )
    scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), text)
    values = st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(keys), inner, max_size=3),
        max_leaves=8,
    )
    calls = st.tuples(
        st.one_of(st.sampled_from(names), st.sampled_from(names), values),
        st.one_of(st.dictionaries(st.sampled_from(keys) | st.text(max_size=3), values, max_size=5), values),
    ).map(lambda call: Call(*call))
    return st.builds(
        lambda content, calls, malformed, text: Action(content, "", tuple(calls), malformed, text or content),
        text,
        st.lists(calls, max_size=3),
        st.sampled_from(["", "", "", "", "bad"]),
        st.sampled_from(["", "", " ", "<tool_call>"]),
    )


def completions(texts: list[str]) -> st.SearchStrategy[str]:
    """Completions in pieces: tags, calls, thoughts and noise in any order."""
    pieces = [
        "<tool_call>",
        "</tool_call>",
        "<think>",
        "</think>",
        '{"name": ',
        '"arguments": {',
        "}",
        "\n",
        *texts,
    ]
    return st.lists(st.sampled_from(pieces) | st.text(max_size=6), max_size=8).map("".join)


few = functools.partial(settings, max_examples=200, deadline=None)
many = functools.partial(settings, max_examples=cases(4_000), deadline=None)


def fast_and_slow(strategy: st.SearchStrategy, body):
    """Two tests of `body` on values of `strategy`: hundreds of them, and very many in a slow test."""
    return few()(given(strategy)(body)), pytest.mark.slow(many()(given(strategy)(body)))


def act(*calls, content: str = "") -> Action:
    """An action of (name, arguments) pairs, or a message."""
    return Action(content, "", tuple(Call(*c) for c in calls), "", content)
