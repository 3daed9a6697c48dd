"""Whatever a model writes, the executing verifier and a played episode give a verdict, and change nothing."""

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fuzzing import cases

from pivotrl_jax.environments import episode, find_task
from pivotrl_jax.environments.toolbox import docs as docs_lib
from pivotrl_jax.environments.toolbox import users
from pivotrl_jax.records import Action, Call, Verdict
from pivotrl_jax.trajectories.extract import extract
from pivotrl_jax.verifiers import VERIFIERS

DOCS = [doc for docs in docs_lib.DOCS.values() for doc in docs]
NAMES = [doc["name"] for doc in DOCS]
FIELDS = sorted({name for doc in DOCS for name in doc["parameters"]["properties"]})
ATTACKS = ["__init__", "_load_scenario", "__class__", "eval", "__import__('os').getpid", "find_file()", ""]

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 99),
    st.integers(),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(["monday", "home", "kitchen", "\ud800", "a" * 3000]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)
ARGUMENTS = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=6), VALUES, max_size=4) | VALUES
CALLS = st.builds(Call, st.sampled_from(NAMES) | st.sampled_from(ATTACKS) | VALUES, ARGUMENTS)
ACTIONS = st.builds(
    lambda calls, content: Action(content, "", tuple(calls), "", content),
    st.lists(CALLS, max_size=3),
    st.text(max_size=5),
)


@functools.cache
def candidates():
    return extract([episode.replay(task) for task in users.tasks("train", 12, seed=5)])


def judge(index: int, action: Action) -> Verdict:
    candidate = candidates()[index % len(candidates())]
    verify = VERIFIERS["bfcl_multi_turn"].verify
    verdict = verify(candidate, action)
    assert verify(candidate, action) == verdict, "a verification leaves nothing behind"
    return verdict


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 1000), ACTIONS)
def test_no_action_makes_the_executing_verifier_raise(index, action):
    verdict = judge(index, action)
    assert verdict.reward in (0.0, 1.0) and isinstance(verdict.reason, str) and verdict.reason


@pytest.mark.slow
@settings(max_examples=cases(4_000), deadline=None)
@given(st.integers(0, 1000), ACTIONS)
def test_no_action_makes_the_executing_verifier_raise_slow(index, action):
    verdict = judge(index, action)
    assert verdict.reward in (0.0, 1.0) and isinstance(verdict.reason, str) and verdict.reason


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 11), st.lists(ACTIONS, max_size=6))
def test_no_action_makes_an_episode_raise(index, actions):
    played = episode.ScriptedEpisode(find_task(users.tasks("train", 12, seed=5)[index].id), max_steps=6)
    for action in actions:
        if not played.done:
            played.step(action)
    assert played.check().reward in (0.0, 1.0)


def test_gold_is_still_accepted_after_all_that():
    for candidate in candidates():
        calls = tuple(
            Call(c["function"]["name"], c["function"]["arguments"])
            for c in candidate.demonstration.get("tool_calls", [])
        )
        gold = Action(candidate.demonstration["content"], "", calls)
        assert VERIFIERS["bfcl_multi_turn"].verify(candidate, gold).reward == 1
