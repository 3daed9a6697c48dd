"""Rows of single-step tool use, and what is said of rows that cannot be read."""

import pytest

from pivotrl_jax.records import InputError
from pivotrl_jax.verifiers import VERIFIERS


def case(expected, *items, **more):
    return {"id": "c", "expected_action": expected, "candidate": list(items), **more}


CALL = {"type": "function_call", "name": "f", "arguments": '{"a": 1}'}


def message(text):
    return {"type": "message", "content": [{"type": "output_text", "text": text}]}


@pytest.mark.parametrize(
    ("given", "reward", "reason"),
    [
        (case(CALL, CALL), 1, "ok"),
        (case(CALL, {**CALL, "arguments": '{"a":1.0}'}), 1, "ok"),
        (case(CALL, {**CALL, "arguments": "{"}), 0, "malformed"),
        (case(CALL, {**CALL, "arguments": '{"a": 1} x'}), 0, "malformed"),
        (case(CALL, {**CALL, "arguments": "[" * 100_000}), 0, "malformed"),
        (case(CALL, {**CALL, "arguments": "[1]"}), 0, "malformed"),
        (case(CALL, {**CALL, "arguments": None}), 0, "malformed"),
        (case(CALL, {**CALL, "name": None}), 0, "malformed"),
        (case(CALL, "f(a=1)"), 0, "malformed"),
        (case(CALL), 0, "no_call"),
        (case(CALL, message("f(a=1)")), 0, "no_call"),
        (case(message("Hi"), message("Hello")), 1, "ok"),
        (case(message("Hi"), message("")), 0, "empty"),
        (case(message("Hi"), message('<tool_call>{"name": "rm"')), 0, "malformed"),
        (case(message("Hi"), CALL), 0, "called"),
        (case({"type": "function_call_batch", "calls": [CALL, CALL]}, CALL, CALL), 1, "ok"),
        (case({"type": "function_call_batch", "calls": [CALL, CALL]}, CALL), 0, "count"),
        (case(CALL, {**CALL, "arguments": '{"a": 1, "b": 2}'}, tools=None), 0, "arguments"),
    ],
)
def test_responses_cases(given, reward, reason):
    tool_call = VERIFIERS["tool_call"]
    verdict = tool_call.verify(*tool_call.read_case(given))
    assert (verdict.reward, verdict.reason) == (reward, reason)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"expected_action": CALL, "candidate": []}, '"id" is missing'),
        ({"id": "c", "candidate": []}, '"expected_action" is missing'),
        ({"id": "c", "expected_action": CALL}, '"candidate" is missing'),
        (case(CALL, tools=3), '"tools" is 3; want a list'),
        (case({"type": "poem"}), "poem"),
        (case({**CALL, "arguments": "{bad"}), "not valid JSON"),
        (case({"type": "function_call_batch", "calls": []}), "without"),
    ],
)
def test_what_is_wrong_with_a_case_is_said(given, words):
    with pytest.raises(InputError, match=words):
        VERIFIERS["tool_call"].read_case(given)
