"""terminal:nemo_gym: the released rewards."""

import json
import random
from difflib import SequenceMatcher

import pytest
from support.terminal_cases import (
    FILES,
    RELEASED,
    answer,
    cases,
    needs_cases,
    score,
)

from pivotrl_jax.verifiers.nemo_gym import terminus as terminus_lib


@needs_cases
@pytest.mark.parametrize("name", FILES[:2])
def test_nemo_gym_mode_gives_the_released_rewards(name):
    for case in cases(name):
        verdict = score(RELEASED, case)
        assert verdict.reward == (case["reward"] or 0.0), (case["id"], verdict)
        assert verdict.reason and verdict.question is None


@needs_cases
def test_nemo_gym_mode_asks_where_the_released_code_asks_a_judge():
    for case in cases("terminus_judge_scripted"):
        verdict = score(RELEASED, case)
        assert verdict.reward == 0.0
        if case["failure_reason"] == "schema_check_failed":
            assert verdict.question is None
        else:
            assert verdict.reason == "undecided"
            assert verdict.question.kind == "terminal"
            assert verdict.question.gold == case["expected_answer"]
            assert verdict.question.actual == case["candidate"]


ROW = {"expected_answer": answer("ls -la\n"), "metadata": {"harness": "terminus_2"}}


@pytest.mark.parametrize(
    ("row", "config", "action", "reward"),
    [
        ({"threshold": 0.95}, {}, answer("ls -la"), 0.0),  # the row's threshold wins over 0.9
        ({"threshold": "0.5"}, {}, answer("ls -la"), 1.0),
        ({"threshold": "much"}, {}, answer("ls -la\n"), 0.0),
        ({"metadata": None}, {}, answer("ls -la\n"), 0.0),
        ({"metadata": {"harness": "terminus_3"}}, {}, answer("ls -la\n"), 0.0),
        ({"metadata": ["terminus_2"]}, {}, answer("ls -la\n"), 0.0),
        ({"expected_answer": "<think></think>" + answer("ls -la\n")}, {}, answer("ls -la\n"), 0.0),
        ({}, {"enable_string_similarity": False, "enable_llm_judge": False}, answer("rm -rf /\n"), 1.0),
        ({}, {}, answer("ls -la\n") + "</think>" + answer("ls -la\n"), 1.0),
        ({}, {}, answer("ls -la\n", analysis=float("nan")), 0.0),
        ({}, {}, answer("ls -la\n").replace("0.1", "NaN"), 1.0),  # Python's json reads it
        ({}, {}, answer("ls -la\n").replace("0.1", "9" * 5000), 0.0),  # and not this
        ({}, {}, answer("ls -la\n").replace("0.1", "true"), 0.0),
        ({}, {}, "", 0.0),
    ],
)
def test_nemo_gym_terminus_rows(row, config, action, reward):
    string_only = {"enable_string_similarity": True, "string_similarity_threshold": 0.9}
    config = {**string_only, "enable_llm_judge": False, **config}
    case = {"id": "1", "row": {**ROW, **row}, "candidate": action, "config": config}
    assert score(RELEASED, case).reward == reward


SEARCH = {"type": "function", "function": {"name": "web_search", "parameters": {"type": "object"}}}
FINISH = {"name": "finish", "parameters": {"properties": {"paths": {"type": "array"}}}}
EDIT = {"name": "edit", "parameters": {"type": "object"}}
PATHS = {"reason": "all done", "paths": ["/b ", "/a"]}


@pytest.mark.parametrize(
    ("harness", "tool", "gold", "actual", "reward"),
    [
        (
            "stirrup",
            FINISH,
            PATHS,
            {"reason": "All done ", "paths": '["/a", "/b"]'},
            1.0,
        ),  # a list as a string
        ("stirrup", FINISH, PATHS, {"reason": "all done", "paths": ["/a"]}, 0.0),
        ("stirrup", FINISH, PATHS, {"reason": "failed", "paths": ["/a", "/b"]}, 0.0),
        ("stirrup", FINISH, PATHS, {"reason": "all done", "paths": []}, 0.0),
        ("stirrup", FINISH, PATHS, {"reason": "9" * 5000, "paths": []}, 0.0),
        ("stirrup", SEARCH, {"query": "q"}, {"query": ""}, 0.0),
        ("Stirrup", SEARCH, {"query": "q"}, {"query": "anything"}, 1.0),  # a capital letter: no rule
        ("opencode", EDIT, {"filePath": "a"}, {"filePath": "a"}, 0.0),  # the edit changes nothing
        ("opencode", {"name": "edit", "parameters": {"type": "objekt"}}, {}, {}, 0.0),
        ("opencode", {"name": "other", "parameters": {}}, {}, {}, 0.0),
    ],
)
def test_nemo_gym_rules_of_tools(harness, tool, gold, actual, reward):
    name = {id(SEARCH): "web_search", id(FINISH): "finish"}.get(id(tool), "edit")
    call = {"type": "function_call", "name": name}
    case = {
        "id": "1",
        "harness": harness,
        "expected_action": {**call, "arguments": json.dumps(gold)},
        "candidate": [{**call, "arguments": json.dumps(actual)}],
        "tools": [tool],
    }
    assert score(RELEASED, case).reward == reward


def test_similar_is_difflib():
    rng = random.Random(0)
    for _ in range(400):
        alphabet = rng.choice(["ab", "abcdef \n", "grep -rn foo src/ | head\n"])
        first = "".join(rng.choice(alphabet) for _ in range(rng.choice([0, 3, 20, 190, 230, 400])))
        second = "".join(c for c in first if rng.random() < 0.9) + rng.choice(["", "x", first[:20]])
        for a, b in ((first, second), (second, first), (first, first)):
            ratio = SequenceMatcher(None, a, b).ratio()
            for threshold in (0.3, 0.9, ratio, 1.0, 1.1):
                assert terminus_lib.similar(a, b, threshold)[0] == (ratio >= threshold)
