"""tool_call:nemo_gym: the released rules, and the released reward of every conformance case."""

import json
import subprocess
import sys

import pytest
from support.hostile_actions import act
from support.paths import SHARED

from pivotrl_jax.chat.actions import parse_action
from pivotrl_jax.records import Action, Candidate, InputError
from pivotrl_jax.verifiers import get
from pivotrl_jax.verifiers.cases import calls_message

DATA = SHARED / "conformance/nemo_gym"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the conformance data is not here")
RELEASED = get("tool_call", "nemo_gym")
A, B, C, X = (("look", {"at": at}) for at in "abcx")


def candidate(*calls, case=None, content=""):
    message = calls_message(list(calls)) if calls else {"role": "assistant", "content": content}
    return Candidate("t@1", "t", 0, [], [], message, "tool_call:nemo_gym", case or {}, "t")


def config(**options):
    return {"config": {"tool_call_comparator_config": {"word_count_similarity_threshold": 0.1, **options}}}


@pytest.mark.parametrize(
    ("want", "got", "threshold", "reward", "reason"),
    [
        ({"n": 1}, {"n": True}, 0.1, 1, "ok"),
        ({"n": True}, {"n": 1}, 0.1, 0, "type"),
        ({"n": 1}, {"n": 1.0}, 0.1, 0, "type"),
        ({"n": 1.0}, {"n": 1}, 0.1, 0, "type"),
        ({"n": 1.0}, {"n": 1.0000009}, 0.1, 1, "ok"),
        ({"n": 1.0}, {"n": 1.000002}, 0.1, 0, "value"),
        ({"n": float("inf")}, {"n": float("inf")}, 0.1, 0, "value"),
        ({"n": None}, {"n": None}, 0.1, 1, "ok"),
        ({"n": None}, {}, 0.1, 0, "keys"),
        ({"n": [1, 2]}, {"n": [1]}, 0.1, 0, "length"),
        ({"n": [1, 2]}, {"n": [2, 1]}, 0.1, 0, "value"),
        ({"s": "a b"}, {"s": "a b"}, 0.5, 1, "ok"),
        ({"s": "a b"}, {"s": "a b"}, 0.51, 0, "value"),  # a released defect: no string reaches more than 0.5
        ({"s": "a a b c"}, {"s": "A x y z"}, 0.125, 1, "ok"),
        ({"s": "a a b c"}, {"s": "A x y z"}, 0.126, 0, "value"),
        ({"s": "a b"}, {"s": "c d"}, 0.0, 1, "ok"),
        ({"s": "a"}, {"s": "b"}, 0.0, 0, "value"),
        ({"s": "a"}, {"s": "a b"}, 0.0, 0, "value"),
        ({"s": "a"}, {"s": "a "}, 0.0, 0, "value"),
    ],
)
def test_released_rules_for_values(want, got, threshold, reward, reason):
    state = candidate(("f", want), case=config(word_count_similarity_threshold=threshold))
    verdict = RELEASED.verify(state, act(("f", got)))
    assert (verdict.reward, verdict.reason) == (reward, reason)


ON = {"parallel_tool_call_rewarding": True}
BOTH = {**ON, "allow_subset": True, "allow_superset": True}


@pytest.mark.parametrize(
    ("options", "made", "reward"),
    [
        ({}, [A, B, C, X, X], 1),
        ({}, [A, B], 0),
        ({"allow_subset": True, "parallel_tool_call_reward_mode": "f1"}, [A, B], 0),  # not on: without effect
        (ON, [C, A, B], 1),
        (ON, [A, B, C, X], 0),
        (ON, [A, B, X], 0),
        ({**ON, "allow_superset": True}, [A, B, C, X], 1),
        ({**ON, "allow_superset": True}, [A, B], 0),
        ({**ON, "allow_subset": True}, [A, B], 1),
        ({**ON, "allow_subset": True}, [A, X], 0),
        ({**ON, "parallel_tool_call_reward_mode": "fractional"}, [A, B, X], 2 / 3),
        ({**ON, "parallel_tool_call_reward_mode": "fractional"}, [A, B], 0),
        ({**BOTH, "parallel_tool_call_reward_mode": "fractional"}, [A, X], 1 / 2),
        ({**BOTH, "parallel_tool_call_reward_mode": "fractional"}, [A, B, X, X], 2 / 3),
        ({**BOTH, "parallel_tool_call_reward_mode": "f1"}, [A], 2 / 4),
        ({**BOTH, "parallel_tool_call_reward_mode": "f1"}, [A, B, C, X], 6 / 7),
        ({**BOTH, "parallel_tool_call_reward_mode": "f1"}, [X], 0),
    ],
)
def test_released_rules_for_counts(options, made, reward):
    verdict = RELEASED.verify(candidate(A, B, C, case=config(**options)), act(*made))
    assert verdict.reward == pytest.approx(reward)
    assert (verdict.reason == "ok") == (reward == 1)


def test_released_call_or_talk():
    talks, calls = candidate(content="Hi"), candidate(A)
    assert RELEASED.verify(talks, act(content="anything")).reward == 1
    assert (
        RELEASED.verify(talks, parse_action("<tool_call>{broken")).reward == 1
    )  # a server returns it as text
    assert RELEASED.verify(talks, act(A, content="Hi")).reason == "called"
    assert RELEASED.verify(talks, Action()).reason == "no_action"
    assert RELEASED.verify(talks, parse_action("<think>never closed")).reason == "no_action"
    assert RELEASED.verify(calls, act(content="Hi")).reason == "no_call"
    broken = 'x<tool_call>{"name": "look", "arguments": {"at": "a"}}</tool_call><tool_call>{</tool_call>'
    assert RELEASED.verify(calls, parse_action(broken)).reason == "no_call"


def test_an_option_that_the_released_code_has_not_is_said():
    for options in ({"threshold": 1}, {"word_count_similarity_threshold": "x"}, {"allow_subset": 1}):
        with pytest.raises(InputError):
            RELEASED.verify(candidate(A, case=config(**options)), act(A))
    with pytest.raises(InputError, match="f1"):
        RELEASED.verify(candidate(A, case=config(parallel_tool_call_reward_mode="half")), act(A))


# ---- conformance


def rows(name):
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


@needs_data
@pytest.mark.parametrize("name", ["tool_use.jsonl", "xlam_fc.jsonl"])
def test_released_rewards_agree_on_every_case(name):
    command = [sys.executable, "-m", "pivotrl_jax.verify", "--verifier=tool_call", "--mode=nemo_gym"]
    done = subprocess.run(command, input=(DATA / name).read_bytes(), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    verdicts = [json.loads(line) for line in done.stdout.splitlines()]
    assert [v["id"] for v in verdicts] == [row["id"] for row in rows(name)]
    for row, verdict in zip(rows(name), verdicts):
        crashed = row.get("defect") == "crash"
        assert verdict["reward"] == pytest.approx(0 if crashed else row["reward"]), row["id"]
        assert verdict["reason"] == "crash" if crashed else verdict["reason"]


def xlam(expected, *given):
    calls = [{"type": "function_call", "name": "f", "arguments": arguments} for arguments in given]
    answers = [{"name": "f", "arguments": arguments} for arguments in expected]
    verifier = get("tool_call:nemo_gym")
    return verifier.verify(
        *verifier.read_case({"id": "a", "expected_answers": answers, "candidate": calls})
    ).reward


def test_xlam_reads_json_in_json_and_fails_on_answers_that_are_no_object():
    assert xlam([{"a": 1}], json.dumps(json.dumps({"a": 1}))) == 1
    assert xlam([{"a": 1}], json.dumps(json.dumps({"a": 2}))) == 0
    assert xlam([{}], "5") == xlam([{}], '["a"]') == xlam([None], "{}") == 1
    assert xlam(["[1]"], "{}") == xlam(["null"], "{}") == 0  # as the released code raises
    assert xlam([{}], "1" * 5000) == 0
    assert xlam([{"a": 1}, {}], '["a"]', '{"a": 1}') == 1  # a list of JSON is read as {} the second time
    assert xlam([{"a": 1}, {}], json.dumps(json.dumps(["a"])), '{"a": 1}') == 0
