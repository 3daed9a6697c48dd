"""swe:nemo_gym: the released rewards."""

import json

import pytest
from support.paths import SHARED
from support.swe_cases import (
    FIX,
    PATCH,
    PYTEST,
    VIEW,
    act,
    bash,
    candidate,
    codex,
    edit,
)

from pivotrl_jax.verifiers import get

NEMO = get("swe", "nemo_gym")
CONFORMANCE = SHARED / "conformance/nemo_gym/swe_pivot.jsonl"


def rows():
    if not CONFORMANCE.exists():
        pytest.skip("../shared, with NeMo Gym's conformance cases, is not here")
    return [json.loads(line) for line in CONFORMANCE.read_text().splitlines()]


def test_nemo_gym_rewards_are_reproduced():
    for row in rows():
        verdict = NEMO.verify(*NEMO.read_case(row))
        assert verdict.reward == pytest.approx(row["reward"], abs=1e-12), (row["id"], verdict)
        named = {"ok": "none", "partial": "none"}.get(verdict.reason, verdict.reason)
        assert named == row["failure_reason"], row["id"]


def nemo(gold, actual, **config):
    return NEMO.verify(candidate(gold, config=config), act(actual)).reward


def test_nemo_gym_rules_beyond_the_sample():
    assert nemo(PYTEST, ("terminal", "garbage")) == 1
    assert nemo(PYTEST, ("terminal", "[]")) == 1 and nemo(PYTEST, ("terminal", "3")) == 0
    assert nemo(FIX, ("edit", "[]")) == 0 and nemo(VIEW, edit("view")) == 1
    assert nemo(edit("view", view_range=[50, -1]), edit("view", view_range=[50, -1])) == 0
    assert nemo(VIEW, edit("view", view_range=[48, 90])) == 1
    assert nemo(VIEW, edit("view", view_range=[49, 90])) == 0
    assert nemo(PATCH, codex("another patch")) == 1
    assert nemo(bash("python a.py"), bash("python3 a.py")) == 0
    assert nemo(bash("pytest a/b/c.py x"), bash("pytest z/b/c.py x")) == 0
    assert nemo(bash("pytest /w/a/b/c.py x"), bash("pytest /z/a/b/c.py x")) == 1
    assert nemo(FIX, FIX, reward_mode="continuous") == pytest.approx(1 - 0.1 * 41 / 500)
    assert nemo(FIX, FIX, reward_mode="continuous", diff_size_alpha=1.0) == pytest.approx(1 - 41 / 500)
    assert nemo(("a_tool", {}), ("A_TOOL", {"x": 1})) == 1
    assert NEMO.verify(candidate(FIX, PYTEST), act(FIX)).reason == "expected_action_invalid"
    huge = "{" + '"command": ' + "1" * 5000 + "}"
    assert NEMO.verify(candidate(PYTEST), act(("bash", huge))).reason == "unknown_error"
