"""tool_call, strict and as released: rules beyond test_verifiers.py, conformance, and actions of any kind."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from support.hostile_actions import actions, check, completions, few, hostile, many
from support.paths import SHARED

from pivotrl_jax.chat.actions import parse_action
from pivotrl_jax.records import Action, Call, Candidate, InputError
from pivotrl_jax.verifiers import VERIFIERS, get
from pivotrl_jax.verifiers.cases import calls_message
from pivotrl_jax.verifiers.compare.arguments import matched

DATA = SHARED / "conformance/nemo_gym"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the conformance data is not here")
STRICT, RELEASED = VERIFIERS["tool_call"], VERIFIERS["tool_call:nemo_gym"]

SCHEMA = {
    "type": "object",
    "properties": {
        "to": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
        "steps": {"type": "array", "items": {"type": "string"}},
        "subject": {"type": "string"},
        "retries": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": 3},
        "owner": {"$ref": "#/$defs/Person"},
        "either": {"anyOf": [{"type": "string"}, {"type": "array", "uniqueItems": True}]},
    },
    "required": ["subject"],
    "$defs": {"Person": {"type": "object", "properties": {"name": {}, "role": {"default": "guest"}}}},
}
TOOLS = [{"type": "function", "function": {"name": "send", "parameters": SCHEMA}}, {"name": "look"}]
GOLD = {
    "to": ["a", "b", "b"],
    "steps": ["x", "y"],
    "subject": "Re: All Hands",
    "owner": {"name": "Ann"},
    "either": [1, 2],
}
SEND = ("send", GOLD)


def candidate(*calls, case=None, content="", verifier="tool_call"):
    message = calls_message(list(calls)) if calls else {"role": "assistant", "content": content}
    return Candidate("t@1", "t", 0, [], TOOLS, message, verifier, case or {}, "t")


def act(*calls, content=""):
    return Action(content, "", tuple(Call(*c) for c in calls), "", content)


def changed(**arguments):
    return ("send", {k: v for k, v in {**GOLD, **arguments}.items() if v is not ...})


# ---- strict: values


@pytest.mark.parametrize(
    ("arguments", "reward"),
    [
        ({}, 1),
        ({"to": ["b", "a", "b"]}, 1),  # uniqueItems: no order, but how often counts
        ({"to": ["a", "a", "b"]}, 0),
        ({"to": ["a", "b"]}, 0),
        ({"steps": ["y", "x"]}, 0),
        ({"retries": 3}, 1),
        ({"retries": 3.0}, 1),
        ({"retries": None}, 1),
        ({"retries": 4}, 0),
        ({"owner": {"name": "Ann", "role": "guest"}}, 1),  # the default of a $ref's property
        ({"owner": {"name": "Ann", "role": "host"}}, 0),
        ({"either": [2, 1]}, 1),  # the branch of the union that the value is of
        ({"either": "[2, 1]"}, 0),
        ({"subject": "re:  all hands"}, 1),
        ({"subject": "re all hands"}, 0),
        ({"subject": "Re: All Hand"}, 0),
    ],
)
def test_values_are_compared_under_the_schema(arguments, reward):
    assert STRICT.verify(candidate(SEND), act(changed(**arguments))).reward == reward


FIELD_RULES = [
    ({"subject": {"punctuation": False}}, {"subject": "re all, hands!"}, 1),
    ({"subject": {"punctuation": False}}, {"subject": "re all feet"}, 0),
    ({"subject": {"case": True}}, {"subject": "Re:  All Hands"}, 1),
    ({"subject": {"case": True}}, {"subject": "re: all hands"}, 0),
    ({"subject": {"space": True}}, {"subject": "re: all hands"}, 1),
    ({"subject": {"space": True}}, {"subject": "Re:  All Hands"}, 0),
    ({"subject": {"space": False}}, {"subject": "re:ALLhands"}, 1),
    ({"subject": {"space": False, "case": True}}, {"subject": "re:ALLhands"}, 0),
    ({"subject": {"space": False, "case": True}}, {"subject": "Re:AllHands"}, 1),
    ({"steps": {"case": False}}, {"steps": ["X", "y"]}, 1),
    ({"steps": {"order": False}}, {"steps": ["y", "x"]}, 1),
    ({"steps": {"order": False}}, {"steps": ["y", "y"]}, 0),
    ({"to": {"order": True}}, {"to": ["b", "b", "a"]}, 0),
    ({"owner.name": {"case": False}}, {"owner": {"name": "ANN"}}, 1),
    ({"name": {"case": False}}, {"owner": {"name": "ANN"}}, 0),  # a path from the top, no name at any depth
    ({"subject": {"compared": False}}, {"subject": "x"}, 1),
    ({"subject": {"compared": False}}, {"subject": ...}, 1),
    ({"subject": {"compared": False}}, {"steps": ["y"]}, 0),
    ({"send.subject": {"case": False}, "subject": {"case": True}}, {"subject": "RE: All hands"}, 1),
    ({"look.subject": {"compared": False}}, {"subject": "x"}, 0),
]


@pytest.mark.parametrize(("fields", "arguments", "reward"), FIELD_RULES)
def test_a_field_may_have_rules_of_its_own(fields, arguments, reward):
    state = candidate(SEND, case={"fields": fields})
    assert STRICT.verify(state, act(changed(**arguments))).reward == reward


@pytest.mark.parametrize(
    "case",
    [
        {"fields": []},
        {"fields": {"a": {"cases": True}}},
        {"fields": {"a": {"case": 1}}},
        {"calls": "some"},
        {"calls": "f1", "max_extra": -1},
        {"calls": "f1", "max_extra": True},
    ],
)
def test_a_case_that_cannot_be_used_is_said(case):
    with pytest.raises(InputError, match=r"case|field"):
        STRICT.verify(candidate(SEND, case=case), act(SEND))


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "[1, NaN]"])
def test_a_demonstration_verifies_against_itself_whatever_it_holds(value):
    call = {"type": "function_call", "name": "f", "arguments": f'{{"x": {value}}}'}
    row = {"id": "r", "expected_action": call, "candidate": [call]}
    assert STRICT.verify(*STRICT.read_case(row)).reward == 1
    other = {**row, "candidate": [{**call, "arguments": '{"x": 0}'}]}
    assert STRICT.verify(*STRICT.read_case(other)).reward == 0
    listed = {**call, "arguments": f"[{value}]"}
    row = {"id": "r", "expected_action": listed, "candidate": [listed]}
    assert STRICT.verify(*STRICT.read_case(row)).reward == 1
    assert STRICT.verify(*STRICT.read_case({**row, "candidate": [call]})).reward == 0


# ---- strict: several calls

A, B, C, X = (("look", {"at": at}) for at in "abcx")


@pytest.mark.parametrize(
    ("case", "made", "reward", "reason"),
    [
        ({}, [B, A, C], 1, "ok"),
        ({}, [A, B], 0, "count"),
        ({}, [A, B, C, X], 0, "count"),
        ({}, [A, B, X], 0, "arguments"),
        ({}, [A, B, ("send", {})], 0, "name"),
        ({"calls": "subset"}, [A], 1, "ok"),
        ({"calls": "subset"}, [A, A], 0, "arguments"),
        ({"calls": "subset"}, [A, X], 0, "arguments"),
        ({"calls": "subset"}, [A, B, C, X], 0, "count"),
        ({"calls": "superset"}, [A, B, C, X], 1, "ok"),
        ({"calls": "superset"}, [A, B], 0, "count"),
        ({"calls": "superset"}, [A, B, C, X, X], 0, "spray"),
        ({"calls": "superset", "max_extra": 2}, [A, B, C, X, X], 1, "ok"),
        ({"calls": "superset"}, [A, B, X, X], 0, "arguments"),
        ({"calls": "f1"}, [A, B, C], 1, "ok"),
        ({"calls": "f1"}, [A], 0.5, "partial"),
        ({"calls": "f1"}, [A, X], 0.4, "partial"),
        ({"calls": "f1"}, [X], 0, "arguments"),
        ({"calls": "f1"}, [A, B, C, X, X], 0, "spray"),
    ],
)
def test_several_calls_are_counted_as_the_case_says(case, made, reward, reason):
    verdict = STRICT.verify(candidate(A, B, C, case=case), act(*made))
    assert (verdict.reward, verdict.reason) == (reward, reason)


def test_one_right_guess_among_many_is_no_answer():
    guesses = [("look", {"at": str(i)}) for i in range(8)]
    for case in ({}, {"calls": "subset"}, {"calls": "superset"}, {"calls": "f1"}):
        assert STRICT.verify(candidate(guesses[3], case=case), act(*guesses)).reward == 0
    assert RELEASED.verify(candidate(guesses[3]), act(*guesses)).reward == 1


def test_the_matching_is_maximal():
    assert matched([[0, 1], [0]]) == {0: 1, 1: 0}
    assert matched([[0], [0, 1], [1, 2]]) == {0: 0, 1: 1, 2: 2}
    assert matched([[], [0], [0]]) == {1: 0}
    chain = [[i, i + 1] for i in range(2000)] + [[0]]  # every pair moves on by one
    assert len(matched(chain)) == 2001


# ---- as released


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


@needs_data
@pytest.mark.parametrize("name", ["tool_call", "search", "tau2"])
def test_strict_closes_the_holes(name):
    verifier, wanted = get(name), {"false_accept": 0, "false_reject": 1}
    for row in rows("tool_use.jsonl"):
        if row.get("defect") in wanted:
            reward = verifier.verify(*verifier.read_case(row)).reward
            assert reward == wanted[row["defect"]], row["id"]


@needs_data
@pytest.mark.parametrize("name", ["tool_call", "search", "tau2"])
def test_every_readable_demonstration_verifies_against_itself(name):
    verifier, unreadable = get(name), []
    for row in rows("tool_use.jsonl"):
        expected = row["expected_action"]
        given = expected.get("calls", [expected])
        try:
            verdict = verifier.verify(*verifier.read_case({**row, "candidate": given}))
        except InputError:
            unreadable.append(row["id"])
            continue
        assert verdict.reward == 1, row["id"]
    assert all("invalid_json" in id for id in unreadable)


# ---- any action at all

STATES = [
    candidate(SEND),
    candidate(A, B, C, case={"calls": "f1"}),
    candidate(A, case={"fields": {"at": {"punctuation": False, "case": False}}}),
    candidate(content="Hi"),
    candidate(("look", {"x": float("nan")})),
]
ACTIONS = actions(["send", "look", "think"], [*GOLD, "at", "x", "name"], ["a", "b c", "Re: All Hands", "Ann"])
BOTH_MODES = [STRICT, RELEASED]


def any_action(action):
    for verifier in BOTH_MODES:
        for state in STATES:
            check(verifier, state, action)


@given(ACTIONS)
@few()
def test_any_action_gets_a_verdict(action):
    any_action(action)


@pytest.mark.slow
@given(ACTIONS)
@many()
def test_any_action_gets_a_verdict_slow(action):
    any_action(action)


COMPLETIONS = completions(['{"name": "look", "arguments": {"at": "a"}}', "Hi", '"a"', "[", "NaN", "\\ud800"])


def any_completion(text):
    for opened in (False, True):
        action = parse_action(text, opened)
        assert action == parse_action(text, opened) and action.text == text
        any_action(action)


@given(COMPLETIONS)
@few()
def test_any_completion_is_parsed_and_gets_a_verdict(text):
    any_completion(text)


@pytest.mark.slow
@given(COMPLETIONS)
@many()
def test_any_completion_is_parsed_and_gets_a_verdict_slow(text):
    any_completion(text)


HOSTILE = hostile("send", "subject", GOLD)


@pytest.mark.parametrize("trick", HOSTILE)
def test_no_trick_makes_a_verifier_raise_or_dawdle(trick):
    any_action(HOSTILE[trick])
