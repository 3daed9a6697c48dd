"""Candidates and actions of the terminal verifiers, in both modes, and their conformance cases."""

import json

import pytest

from pivotrl_jax import verifiers
from pivotrl_jax.chat.actions import parse_action
from pivotrl_jax.records import Action, Call, Candidate
from pivotrl_jax.verifiers.cases import calls_message
from support.paths import SHARED

CASES = SHARED / "conformance" / "nemo_gym"
FILES = ("terminus", "terminal_multi_harness", "terminus_judge_scripted")
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="needs ../shared/data/conformance/nemo_gym")

STRICT = verifiers.get("terminal")
RELEASED = verifiers.get("terminal", "nemo_gym")


def cases(name):
    path = CASES / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def score(verifier, case):
    return verifier.verify(*verifier.read_case(case))


def answer(*strokes, done=False, **extra):
    """A Terminus-2 action that types `strokes`."""
    commands = [{"keystrokes": s, "duration": 0.1} for s in strokes]
    return json.dumps({"analysis": "a", "plan": "p", "commands": commands, "task_complete": done, **extra})


def demonstrated(message, tools=(), case=None):
    """A candidate as in training: the demonstration is the gold."""
    return Candidate("t@1", "t", 0, [], list(tools), message, "terminal", case or {}, "t")


def terminus(gold, action, verifier=STRICT):
    return verifier.verify(demonstrated({"role": "assistant", "content": gold}), parse_action(action))


def tools(gold, *calls, verifier=STRICT, docs=()):
    action = Action(calls=tuple(Call(*call) for call in calls))
    docs = docs or [{"name": name, "parameters": {"type": "object"}} for name, _ in gold]
    candidate = demonstrated(calls_message(gold), docs, {"harness": "opencode"})
    return verifier.verify(candidate, action)


BASH = {"command": "grep -rn foo src/", "description": "search"}
WRITE = {"filePath": "/w/a.py", "content": "x = 1\n"}
PATCH = {"input": "*** Begin Patch\n*** Update File: a.py\n-x = 1\n+x = 2\n*** End Patch"}
