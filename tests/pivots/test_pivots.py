"""The self-check, profiles, and the filter."""

import dataclasses
import math

import pytest

from pivotrl_jax.pivots.candidates import self_check
from pivotrl_jax.pivots.selection import OUTCOMES, make_profile, outcome, select
from pivotrl_jax.records import Action, Candidate, InputError, Pivot, Verdict
from pivotrl_jax.verifiers import VERIFIERS
from pivotrl_jax.verifiers.base import Verifier
from pivotrl_jax.verifiers.cases import calls_message

TOOL_CALL = VERIFIERS["tool_call"]


def candidate(id, *calls, content="Done.", verifier="tool_call", case=None):
    message = calls_message(list(calls)) if calls else {"role": "assistant", "content": content}
    return Candidate(id, id, 0, [], [], message, verifier, case or {}, id)


CALL = candidate("call", ("f", {"a": 1}))
TEXT = candidate("text")


def always(reward):
    return Verifier("always", "1", lambda candidate, action: Verdict(reward, "ok" if reward else "no"), None)


# ---- self-check


def test_sound_candidates_pass():
    check = self_check([CALL, TEXT])
    assert check.kept == [CALL, TEXT] and check.left_out == {}
    assert check.table() == ["self-check: 2 of 2 candidates kept, 1 call turns and 1 talk turns"]


def test_a_demonstration_that_fails_against_itself_is_left_out_with_the_reason():
    silent = candidate("silent", content="")
    check = self_check([CALL, silent])
    assert check.kept == [CALL]
    assert "rejects the demonstration itself (empty" in check.left_out["silent"]
    assert check.table()[1].startswith("  left out silent: tool_call/7 rejects")


def test_a_verifier_that_takes_anything_is_found_out(monkeypatch):
    monkeypatch.setitem(VERIFIERS, "always", always(1.0))
    check = self_check([candidate("lazy", ("f", {}), verifier="always")])
    assert check.left_out == {"lazy": "always/1 gives an empty action a reward of 1"}


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (candidate("c", ("f", {}), verifier="v"), "garbage text"),
        (candidate("c", content="ok", verifier="v"), ""),  # any text may do where the demonstration talks
    ],
)
def test_garbage_text_matters_only_where_the_demonstration_calls(state, why, monkeypatch):
    def verify(candidate, action: Action) -> Verdict:
        made_up = any(call.name != "f" for call in action.calls)
        good = not made_up and (action.calls or action.content)
        return Verdict(1.0, "ok") if good else Verdict(0.0, "no")

    monkeypatch.setitem(VERIFIERS, "v", Verifier("v", "1", verify, None))
    check = self_check([state])
    assert why in check.left_out.get("c", "") and bool(why) == bool(check.left_out)


def test_a_made_up_call_must_fail_where_the_demonstration_talks(monkeypatch):
    def verify(candidate, action: Action) -> Verdict:
        return Verdict(float(bool(action.calls or action.content)), "ok")

    monkeypatch.setitem(VERIFIERS, "v", Verifier("v", "1", verify, None))
    check = self_check([candidate("c", verifier="v")])
    assert "a call to a made-up function" in check.left_out["c"]


def test_an_unusable_case_is_left_out_and_an_unknown_verifier_stops():
    check = self_check([candidate("c", ("f", {}), verifier="bfcl_ast")])
    assert 'the case cannot be used: the field "category" is missing' in check.left_out["c"]
    with pytest.raises(InputError, match=r"no verifier .*'nope'.*tool_call"):
        self_check([candidate("c", verifier="nope")])


# ---- profile


def profiled(state, rewards):
    return make_profile(state, rewards, policy="pi_0", verifier=TOOL_CALL.label, temperature=1.0, seed=3)


def test_mean_and_population_variance():
    p = profiled(CALL, [1, 0, 0, 0])
    assert (p.mean, p.variance) == (0.25, 0.1875)  # 3/4 * 1/16 + 1/4 * 9/16
    assert (p.candidate_id, p.is_call, p.policy, p.verifier, p.temperature, p.seed) == (
        "call",
        True,
        "pi_0",
        "tool_call/7",
        1.0,
        3,
    )
    assert profiled(TEXT, [1]).is_call is False


def test_equal_rewards_have_no_variance_even_in_floating_point():
    assert profiled(CALL, [0.1] * 7).variance == 0.0
    assert profiled(CALL, [1 / 3] * 3).mean == 1 / 3


@pytest.mark.parametrize("rewards", [[], [math.nan, 0.0], [math.inf]])
def test_rewards_that_are_none_fail_at_the_place(rewards):
    with pytest.raises(ValueError, match="call: rewards"):
        profiled(CALL, rewards)


# ---- the filter

PROFILES = [
    profiled(candidate("a", ("f", {})), [0, 0, 0, 0]),
    profiled(candidate("b", ("f", {})), [1, 0, 0, 0]),
    profiled(candidate("c", ("f", {})), [1, 1, 1, 0]),
    profiled(candidate("d", ("f", {})), [1, 1, 0, 0]),
    profiled(candidate("e"), [1, 1, 1, 1]),
    profiled(candidate("g"), [0, 1, 0, 0]),
]


def test_the_outcome_of_every_candidate():
    selection = select(PROFILES, lambda_diff=0.6)
    assert selection.outcomes == {
        "a": "all_fail",
        "b": "pivot",
        "c": "too_easy",
        "d": "pivot",
        "e": "all_pass",
        "g": "pivot",
    }
    assert selection.counts() == dict(zip(OUTCOMES, (3, 1, 1, 1, 0, 0)))
    assert selection.counts(is_call=True) == dict(zip(OUTCOMES, (2, 1, 0, 1, 0, 0)))
    assert selection.counts(is_call=False) == dict(zip(OUTCOMES, (1, 0, 1, 0, 0, 0)))
    assert (selection.uninformative(True), selection.uninformative(False)) == (0.25, 0.5)
    assert selection.mean(True) == pytest.approx(0.375)


@pytest.mark.parametrize(
    "rewards, early, want",
    [
        ([0.5, 0.5], "", "all_pass"),  # partial rewards without variance
        ([0, 0], "", "all_fail"),
        ([], "", "undecided"),
        ([1, 0], "too_easy", "too_easy"),  # adaptive profiling stopped early: its decision is final
        ([0, 0], "pivot", "pivot"),
    ],
)
def test_the_outcome_of_odd_groups(rewards, early, want):
    profile = dataclasses.replace(PROFILES[1], rewards=rewards, early=early)
    assert outcome(profile, 0.6) == want


def test_the_mean_must_be_below_lambda_diff_not_at_it():
    assert select(PROFILES, lambda_diff=0.5).outcomes["d"] == "too_easy"
    assert select(PROFILES, lambda_diff=1.0).outcomes["c"] == "pivot"


def test_the_table_splits_call_turns_from_text_turns():
    lines = [line.split() for line in select(PROFILES, 0.6).table()]
    assert lines[1] == ["call", "4", "2", "1", "0", "1", "25", "%", "0.375"]
    assert lines[2] == ["text", "2", "1", "0", "1", "0", "50", "%", "0.625"]
    assert lines[3] == ["all", "6", "3", "1", "1", "1", "33", "%", "0.458"]
    assert select(PROFILES[:1], 0.6).table()[2].split() == ["text", "0", "0", "0", "0", "0", "-", "-"]


def test_an_empty_pivot_set_stops_in_a_sentence():
    select(PROFILES, 0.6).require_pivots()
    nothing = select(PROFILES[:1], 0.6)
    with pytest.raises(InputError, match="no pivot among 1 candidates") as stopped:
        nothing.require_pivots()
    assert "\n" not in str(stopped.value), "the table was printed before"
    with pytest.raises(InputError):
        select([], 0.6).require_pivots()


def test_pivots_come_with_their_candidates():
    states = [candidate(id, ("f", {})) for id in "dba"]
    selection = select([p for p in PROFILES if p.candidate_id in "abd"], 0.6)
    assert selection.pivots(states) == [Pivot(states[0], PROFILES[3]), Pivot(states[1], PROFILES[1])]
    with pytest.raises(ValueError, match="2 pivots, but 1"):
        selection.pivots(states[:1])


@pytest.mark.parametrize("lambda_diff", [0, -1, 1.01, math.nan])
def test_lambda_diff_is_a_mean_reward(lambda_diff):
    with pytest.raises(InputError, match="lambda_diff is"):
        select(PROFILES, lambda_diff)
