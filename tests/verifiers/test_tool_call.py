"""tool_call: tables of accepted and rejected actions."""

import json

import pytest
from support.booking import ACCEPTED, BOOK, CANCEL, GOLD, candidate, changed
from support.hostile_actions import act
from support.paths import SHARED

from pivotrl_jax.records import Action, InputError
from pivotrl_jax.verifiers import VERIFIERS

NEMO_GYM = SHARED / "conformance/nemo_gym/tool_use.jsonl"


REJECTED = {
    "other name": (("Book", GOLD), "name"),
    "another known function": (("cancel", GOLD), "name"),
    "required argument missing": (changed(hours=...), "arguments"),
    "optional argument missing": (changed(note=...), "arguments"),
    "unknown argument": (changed(floor=1), "arguments"),
    "another default": (changed(quiet=True), "arguments"),
    "false for zero is no default": (changed(quiet=0), "arguments"),
    "true for a number": (changed(hours=True), "arguments"),
    "a string for a number": (changed(hours="2"), "arguments"),
    "almost the number": (changed(price=9.5000001), "arguments"),
    "case of one word": (changed(room="b12"), "arguments"),
    "space after one word": (changed(room="B12 "), "arguments"),
    "other words": (changed(note="bring a projector"), "arguments"),
    "order of words": (changed(note="the projector bring"), "arguments"),
    "a line break": (changed(note="Bring the\nProjector"), "arguments"),
    "case of an enum": (changed(layout="Rows"), "arguments"),
    "a list for a string": (changed(room=["B12"]), "arguments"),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_tool_call_accepts(name):
    assert VERIFIERS["tool_call"].verify(candidate(BOOK), act(ACCEPTED[name])).reward == 1


@pytest.mark.parametrize("name", REJECTED)
def test_tool_call_rejects(name):
    call, reason = REJECTED[name]
    verdict = VERIFIERS["tool_call"].verify(candidate(BOOK), act(call))
    assert (verdict.reward, verdict.reason) == (0, reason)
    assert verdict.details


def test_parallel_calls_match_one_to_one_in_any_order():
    verify = VERIFIERS["tool_call"].verify
    gold = candidate(BOOK, CANCEL, CANCEL)
    assert verify(gold, act(CANCEL, BOOK, CANCEL)).reward == 1
    assert verify(gold, act(BOOK, CANCEL)).reason == "count"
    assert verify(gold, act(BOOK, CANCEL, CANCEL, CANCEL)).reason == "count"
    assert verify(gold, act(BOOK, BOOK, CANCEL)).reason == "name"
    assert verify(gold, act(BOOK, CANCEL, ("cancel", {"room": "A2"}))).reason == "arguments"


def test_defaults_and_numbers_count_inside_lists_of_objects():
    verify = VERIFIERS["tool_call"].verify
    gold = candidate(("book", {"room": "B", "hours": 1, "guests": [{"vip": 0}, {"vip": 1}]}))
    same = ("book", {"room": "B", "hours": 1, "guests": [{}, {"vip": 1.0}]})
    swapped = ("book", {"room": "B", "hours": 1, "guests": [{"vip": 1}, {}]})
    assert verify(gold, act(same)).reward == 1
    assert verify(gold, act(swapped)).reason == "arguments"


def test_without_a_schema_arguments_compare_by_value_alone():
    verify = VERIFIERS["tool_call"].verify
    gold = candidate(("unknown", {"a": 1, "b": None}))
    assert verify(gold, act(("unknown", {"a": 1.0, "b": None}))).reward == 1
    assert verify(gold, act(("unknown", {"a": 1}))).reward == 0
    assert verify(candidate(("f", {"n": 2**53})), act(("f", {"n": 2**53 + 1}))).reward == 0


@pytest.mark.parametrize("name", ["tool_call", "exact"])
def test_call_or_talk(name):
    verify = VERIFIERS[name].verify
    talks, calls = candidate(content="Done."), candidate(BOOK)
    assert verify(talks, act(content="Done.")).reward == 1
    assert verify(talks, act(BOOK)).reason == "called"
    assert verify(talks, act(BOOK, content="Done.")).reason == "called"
    assert verify(talks, act(content=" \n")).reason == "empty"
    assert verify(talks, Action("Done.", malformed="a <tool_call> is never closed")).reason == "malformed"
    assert verify(calls, act(content="Done.")).reason == "no_call"
    assert verify(calls, act(BOOK, content="I will.")).reward == 1


# NeMo Gym's verdict, where ours differs on purpose; its `defect` cases need no reason.
STRICTER = {
    "tool_use/str/space_multi": "a line break counts",
    "tool_use/str/newline_code": "a line break counts",
    "tool_use/example/4/upper": "capitals may be a code",
    "tool_use/str/word_order": "words are not a bag",
    "tool_use/str/thr_multiplicity": "words are not a bag",
    "tool_use/str/search_pivot/query_reworded": "words are not a bag",
    "tool_use/nested/deep": "words are not a bag",
    "tool_use/multi/matching_needs_augmenting": "words are not a bag",
    "tool_use/multi/batch_surplus_default": "surplus calls are not free",
    "tool_use/multi/f1_missing": "no partial credit",
    "tool_use/multi/fractional_two_of_three": "no partial credit",
    "tool_use/multi/fractional_subset": "no partial credit",
    "tool_use/parallel_example/1/first_only_f1": "no partial credit",
    "tool_use/parallel_example/2/first_only_f1": "no partial credit",
}


@pytest.mark.skipif(not NEMO_GYM.is_file(), reason="the conformance data is not here")
def test_nemo_gyms_cases_differ_only_where_ours_is_stricter():
    tool_call, different = VERIFIERS["tool_call"], set()
    for line in map(json.loads, NEMO_GYM.read_text().splitlines()):
        try:
            reward = tool_call.verify(*tool_call.read_case(line)).reward
        except InputError:  # a demonstration that is no JSON
            assert "{bad" in str(line)
            continue
        assert reward <= (line["reward"] or 0) or line["defect"] == "false_reject"
        if reward != line["reward"] and "defect" not in line:
            different.add(line["id"])
    assert different == set(STRICTER)
