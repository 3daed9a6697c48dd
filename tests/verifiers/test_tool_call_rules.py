"""tool_call: what a schema and a case may say of values and counts; conformance; actions of any kind."""

import json

import pytest
from support.hostile_actions import act, actions, check, completions, fast_and_slow, hostile
from support.paths import SHARED

from pivotrl_jax.chat.actions import parse_action
from pivotrl_jax.records import Candidate, InputError
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
        ({"retries": None}, 0),  # allowed, and another value than the default 3
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


NULLABLE = {"anyOf": [{"type": "string"}, {"type": "null"}]}
BOOK = {
    "type": "object",
    "properties": {
        "guest": {"$ref": "#/$defs/Name", "default": "anon"},
        "host": {"anyOf": [{"$ref": "#/$defs/Name"}, {"type": "integer"}], "default": "anon"},
        "room": {"oneOf": [{"$ref": "#/$defs/Single"}, {"$ref": "#/$defs/Suite"}]},
    },
    "$defs": {
        "Name": NULLABLE,
        "Single": {"type": "object", "properties": {"kind": {"const": "single"}, "beds": {"default": 1}}},
        "Suite": {"type": "object", "properties": {"kind": {"const": "suite"}, "beds": {"default": 2}}},
    },
}


@pytest.mark.parametrize(
    ("want", "got", "reward"),
    [
        ({}, {"guest": "anon"}, 1),
        ({}, {"guest": None}, 0),  # Name allows null
        ({}, {"host": None}, 0),
        ({"room": {"kind": "suite"}}, {"room": {"kind": "suite", "beds": 2}}, 1),
        ({"room": {"kind": "suite"}}, {"room": {"kind": "suite", "beds": 1}}, 0),
        ({"room": {"kind": "single"}}, {"room": {"kind": "single", "beds": 1}}, 1),
        ({"room": {"kind": "suite"}}, {"room": {"kind": "single"}}, 0),
        ({"room": {}}, {"room": {"beds": 2}}, 0),
    ],
)
def test_a_default_and_a_null_of_schemas_elsewhere(want, got, reward):
    state = Candidate(
        *("t@1", "t", 0, [], [{"name": "book", "parameters": BOOK}], calls_message([("book", want)])),
        *("tool_call", {}, "t"),
    )
    assert STRICT.verify(state, act(("book", got))).reward == reward


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


# ---- conformance


def rows(name):
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


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


test_any_action_gets_a_verdict, test_any_action_gets_a_verdict_slow = fast_and_slow(ACTIONS, any_action)


COMPLETIONS = completions(['{"name": "look", "arguments": {"at": "a"}}', "Hi", '"a"', "[", "NaN", "\\ud800"])


def any_completion(text):
    for opened in (False, True):
        action = parse_action(text, opened)
        assert action == parse_action(text, opened) and action.text == text
        any_action(action)


test_any_completion_gets_a_verdict, test_any_completion_gets_a_verdict_slow = fast_and_slow(
    COMPLETIONS, any_completion
)


HOSTILE = hostile("send", "subject", GOLD)


@pytest.mark.parametrize("trick", HOSTILE)
def test_no_trick_makes_a_verifier_raise_or_take_long(trick):
    any_action(HOSTILE[trick])
