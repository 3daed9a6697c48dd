"""terminal, in both modes: no action makes it raise, or takes it long."""

import json
import random
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.fuzzing import cases
from support.hostile_actions import check as check_action
from support.hostile_actions import hostile
from support.terminal_cases import (
    BASH,
    RELEASED,
    STRICT,
    WRITE,
    answer,
    demonstrated,
    score,
    terminus,
    tools,
)

from pivotrl_jax.chat.actions import parse_action
from pivotrl_jax.records import Action, Call
from pivotrl_jax.verifiers.cases import calls_message

HOSTILE = {
    "one character": "a" * 1_000_000,
    "quotes": "'" * 1_000_001,
    "open quote": 'echo "' + "a\\" * 499_999,
    "heredocs": "cat << A\n" * 100_000,
    "words": "a b " * 250_000,
    "flags": "ls " + "-a " * 300_000 + "\n",
    "dollars": "$((" * 300_000,
    "braces": "{" * 1_000_000,
    "shuffled": "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz\n ", k=60_000)),
    "numbers": "".join(f"{i} " for i in range(150_000)),
    "rare": "".join(chr(200 + i % 150) for i in range(30_000)),
}


@pytest.mark.parametrize("verifier", [STRICT, RELEASED], ids=lambda v: v.name)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_keystrokes_are_decided_within_five_seconds(verifier, name):
    text = HOSTILE[name]
    rng = random.Random(1)
    shuffled = "".join(rng.sample(text, len(text)))  # same characters: no cheap bound decides
    judged = [lambda: terminus(answer(text), answer(shuffled), verifier)]
    judged += [lambda: terminus(answer(text[:500]), answer(text), verifier)]
    judged += [
        lambda: tools([("bash", {"command": text})], ("bash", {"command": shuffled}), verifier=verifier)
    ]
    for verdict in judged:
        start = time.process_time()
        assert verdict().reward in (0.0, 1.0)
        assert time.process_time() - start < 5


TRICKS = hostile("bash", "command", {"description": "search"})


@pytest.mark.parametrize("verifier", [STRICT, RELEASED], ids=lambda v: v.name)
def test_hostile_actions_are_rejected(verifier):
    docs = [{"name": "bash", "parameters": {"type": "object", "properties": {"command": {"type": "string"}}}}]
    candidate = demonstrated(calls_message([("bash", BASH)]), docs, {"harness": "opencode"})
    text = demonstrated({"role": "assistant", "content": answer("ls\n")})
    for action in TRICKS.values():
        assert check_action(verifier, candidate, action) == 0.0
        assert check_action(verifier, text, action) == 0.0


DEEP = "[" * 100_000
UNUSUAL = [
    DEEP,
    '{"commands": ' + DEEP,
    '{"analysis": ' + "9" * 5000 + "}",
    '{"analysis": ' + '{"a":' * 500 + "1" + "}" * 501,
    answer(*["x"] * 30_000),
    "</think>{" * 100_000,
    answer("\ud800\n"),
    "\ufeff" + answer("ls\n"),
    "null",
]


@pytest.mark.parametrize("verifier", [STRICT, RELEASED], ids=lambda v: v.name)
@pytest.mark.parametrize("text", UNUSUAL, ids=range(len(UNUSUAL)))
def test_unusual_json_is_rejected_within_five_seconds(verifier, text):
    start = time.process_time()
    assert terminus(answer("ls\n"), text, verifier).reward == 0.0
    case = {"id": "1", "expected_action": {"type": "function_call", "name": "bash", "arguments": "{}"}}
    case |= {"tools": [{"name": "bash", "parameters": {}}], "harness": "opencode"}
    case["candidate"] = [{"type": "function_call", "name": "bash", "arguments": text}]
    assert score(verifier, case).reward == 0.0
    nested: dict = {}
    for _ in range(5000):
        nested = {"command": nested}
    for value in (nested, {"command": 10**5000}, {"command": float("inf")}, None, [DEEP]):
        assert tools([("bash", {"command": "ls"})], ("bash", value), verifier=verifier).reward == 0.0
    assert time.process_time() - start < 5


GOLDS = [
    answer("cat << 'EOF' > a.py\nx = 1\nEOF\n", "python a.py | head -n 5\n"),
    answer('grep -rn "foo bar" src/ && ls -la\n', "C-c", done=True),
    answer(),
]
TOOL_GOLDS = [
    [("bash", BASH)],
    [("write", WRITE), ("bash", {"command": "ls -la"})],
    [("todowrite", {"todos": []})],
]
json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
shell_like = st.text("ab -/.'\"\\$`(){}<>|&;#!*\n0EOF\t", max_size=40)


@st.composite
def mutated(draw, texts):
    """One of `texts`, with pieces cut out, doubled or replaced."""
    text = draw(st.sampled_from(texts))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        end = min(len(text), at + draw(st.integers(0, 5)))
        text = text[:at] + draw(shell_like | st.text(max_size=3) | st.just(text[at:end] * 2)) + text[end:]
    return text


texts = st.text(max_size=60) | mutated(GOLDS) | json_like.map(json.dumps) | shell_like.map(answer)
arguments = json_like | st.dictionaries(st.sampled_from([*BASH, *WRITE, "todos"]), json_like | shell_like)
names = st.sampled_from(["bash", "write", "todowrite", ""])
calls = st.lists(st.builds(Call, names, arguments), max_size=3)


def check(verifier, data):
    """No exception, a reward in [0, 1], and the same verdict twice."""
    if data.draw(st.booleans()):
        candidate = demonstrated({"role": "assistant", "content": data.draw(st.sampled_from(GOLDS))})
        action = parse_action(data.draw(texts))
    else:
        candidate = demonstrated(
            calls_message(data.draw(st.sampled_from(TOOL_GOLDS))), case={"harness": "opencode"}
        )
        action = Action(data.draw(st.text(max_size=9)), calls=tuple(data.draw(calls)))
    verdict = verifier.verify(candidate, action)
    assert 0.0 <= verdict.reward <= 1.0 and verdict.reason
    assert verifier.verify(candidate, action) == verdict


@pytest.mark.parametrize("verifier", [STRICT, RELEASED], ids=lambda v: v.name)
def test_no_action_makes_a_verifier_raise(verifier):
    @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.data())
    def run(data):
        check(verifier, data)

    run()


@pytest.mark.slow
@pytest.mark.parametrize("verifier", [STRICT, RELEASED], ids=lambda v: v.name)
def test_no_action_makes_a_verifier_raise_slow(verifier):
    @settings(max_examples=cases(4_000), deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def run(data):
        check(verifier, data)

    run()
