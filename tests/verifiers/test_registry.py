"""Verifiers by name; and none of them raises on any action."""

import pytest
from hypothesis import strategies as st
from support.booking import BOOK, CANCEL, GOLD, candidate
from support.hostile_actions import act, deep, fast_and_slow

from pivotrl_jax import verifiers
from pivotrl_jax.records import Action, Call, InputError
from pivotrl_jax.verifiers import VERIFIERS


def test_every_verifier_has_a_name_and_a_version():
    assert {"tool_call", "exact", "bfcl_ast", "bfcl_multi_turn"} <= set(VERIFIERS)
    assert all(v.name == name and v.version for name, v in VERIFIERS.items())
    assert VERIFIERS["exact"].label == f"exact/{VERIFIERS['exact'].version}"


def test_an_unknown_verifier_lists_the_known_ones():
    with pytest.raises(InputError, match=r"exact, .*tool_call"):
        verifiers.get("tool_cal")


# ---- actions of any kind


HOSTILE = [
    Action(),
    Action(malformed="x"),
    act(("book", None)),
    act(("book", [])),
    act(("book", "{}")),
    act((None, {})),
    act(([], {})),
    act(("book", {1: 2})),
    act(("book", {"room": deep(100_000)})),
    act(("book", {"room": 10**5000})),
    act(("book", {"hours": float("nan"), "price": float("inf")})),
    act(("book", {"room": "\ud800", "note": "\ud800 \udfff"})),
    act(("book", {"room": {"a": b"bytes"}})),
    act(("book", {"room": object()})),
    act(("\ud800", {})),
    act(content="\ud800"),
    act(("__import__('os').getpid", {})),
    act(("__init__", {"self": 1})),
    act(*[("book", GOLD)] * 1000),
]

AST_CASE = {
    "category": "parallel",
    "function_docs": [
        {
            "name": "book",
            "parameters": {
                "type": "dict",
                "properties": {
                    "room": {"type": "string"},
                    "hours": {"type": "float"},
                    "note": {"type": "any"},
                    "guests": {"type": "array", "items": {"type": "dict"}},
                    "price": {"type": "tuple", "items": {"type": "float"}},
                    "quiet": {"type": "dict"},
                },
                "required": ["room"],
            },
        }
    ],
    "possible_answer": [
        {
            "book": {
                "room": ["B12"],
                "hours": ["", 2.0],
                "note": ["", 3],
                "guests": ["", [{"vip": [1]}]],
                "price": ["", [1.5], "x"],
                "quiet": ["", {"a": [1, ""], "b": ["x"]}],
            }
        }
    ],
}
CANDIDATES = [
    candidate(BOOK),
    candidate(BOOK, CANCEL),
    candidate(content="Done."),
    candidate(BOOK, case=AST_CASE),
    candidate(BOOK, case={**AST_CASE, "category": "simple_java"}),
    candidate(BOOK, case={**AST_CASE, "category": "simple_javascript"}),
    candidate(content="no", case={"category": "irrelevance"}),
    candidate(BOOK, case={"category": "live_relevance"}),
]
WORD = [v for n, v in VERIFIERS.items() if n != "bfcl_multi_turn"]  # that one needs a world: tested beside it


def never_raises(action):
    for verifier in WORD:
        for state in CANDIDATES:
            if verifier.name == "bfcl_ast" and not state.case:
                continue
            verdict = verifier.verify(state, action)
            assert verdict.reward in (0, 1) and (verdict.reward == 1) == (verdict.reason == "ok")
            verdict.details.encode("utf-8")  # can be written to a file


@pytest.mark.parametrize("index", range(len(HOSTILE)))
def test_no_hostile_action_makes_a_verifier_raise(index):
    never_raises(HOSTILE[index])


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["B12", 2, "2", "x"]),
)
KEYS = st.one_of(
    st.sampled_from(["room", "hours", "price", "note", "quiet", "guests", "vip", "a", "b"]), st.text()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=10,
)
ACTIONS = st.builds(
    lambda content, calls, malformed: Action(content, "", tuple(Call(*c) for c in calls), malformed, content),
    st.text(max_size=5),
    st.lists(
        st.tuples(
            st.one_of(st.sampled_from(["book", "cancel"]), VALUES),
            st.one_of(st.dictionaries(KEYS, VALUES, max_size=6), VALUES),
        ),
        max_size=3,
    ),
    st.sampled_from(["", "", "", "bad"]),
)


test_no_action_makes_a_verifier_raise, test_no_action_makes_a_verifier_raise_slow = fast_and_slow(
    ACTIONS, never_raises
)
