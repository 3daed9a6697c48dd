"""The screen: who is sorted out before anything is sampled, and that a profile resumes from the disk."""

import dataclasses
import json
import math
import shutil

import jax
import jax.numpy as jnp
import pytest
from support import profiles
from support.configs import CONFIGS

from pivotrl_jax import verifiers
from pivotrl_jax.models import decoder
from pivotrl_jax.pivots import adaptive, merging, profiling, rescoring, rollout_files, screening
from pivotrl_jax.pivots.rescoring import Flags
from pivotrl_jax.records import Candidate, InputError, Profile, Rollout, Verdict, read_records
from pivotrl_jax.report.report import write_report
from pivotrl_jax.rollouts.rollout import Rollouts, make_rollouts
from pivotrl_jax.run import check_config
from pivotrl_jax.run import run as run_lib
from pivotrl_jax.trajectories import extract

SCREEN = {"profile__screen__probability": 0.5}


@pytest.fixture(scope="module")
def screened(tmp_path_factory):
    """The work directory of a finished find_pivots with the screen."""
    workdir = tmp_path_factory.mktemp("screen") / "screened"
    profiles.find_pivots(workdir, **SCREEN)
    return workdir


def decisions_in(workdir) -> dict[str, screening.Decision]:
    files = sorted((workdir / "rollouts").glob(f"*{screening.SUFFIX}"))
    found = [screening.Decision(**x) for file in files for x in json.loads(file.read_text("utf-8"))]
    return {decision.candidate_id: decision for decision in found}


def rollouts_in(workdir) -> dict[str, list[Rollout]]:
    files = sorted((workdir / "rollouts").glob("*.jsonl"))
    groups = [group for file in files for group in rollout_files.groups_of(rollout_files.read(file))]
    return {group[0].candidate_id: group for group in groups}


def profiles_in(workdir) -> dict[str, Profile]:
    return {p.candidate_id: p for p in read_records(workdir / "profiles.jsonl", Profile)}


# ---- who is screened


def test_p_is_the_chance_of_the_demonstration_under_the_plain_model(screened):
    """Token for token, every sequence alone; screened are exactly those at or above the threshold."""
    run = run_lib.open_run(profiles.config_of(screened, **SCREEN))
    candidates, decisions = read_records(screened / "candidates.jsonl", Candidate), decisions_in(screened)
    assert [*decisions] == [c.id for c in candidates]
    forward = jax.jit(lambda ids: decoder.logits(run.model_config, run.params, ids)[0])
    for prompt in extract.render(run.chat, candidates)[::5]:
        c = prompt.candidate
        completion = run.chat.completion_ids(c.messages, c.tools, c.demonstration)
        ids = [*prompt.ids.tolist(), *completion]
        padded = jnp.array([ids + [0] * (1024 - len(ids))])
        each = jax.nn.log_softmax(forward(padded))[jnp.arange(len(ids) - 1), jnp.array(ids[1:])]
        want = float(each[len(prompt.ids) - 1 :].sum())
        assert decisions[c.id].log_prob == pytest.approx(want, abs=2e-3)
    for decision in decisions.values():
        assert decision.screened == (decision.log_prob is not None and decision.log_prob >= math.log(0.5))
    assert 3 < sum(d.screened for d in decisions.values()) < len(decisions) - 3


def test_what_is_screened_has_no_rollout_and_an_outcome_of_its_own(whole, screened):
    decisions, found = decisions_in(screened), profiles_in(screened)
    out = {id for id, decision in decisions.items() if decision.screened}
    assert {id for id, p in found.items() if p.early == "screened"} == out
    assert {id for id, p in found.items() if not p.rewards} == out
    assert set(rollouts_in(screened)) == set(found) - out
    before = profiles_in(whole)
    assert all(p.mean >= 0.5 for id, p in before.items() if id in out), "they are easy"
    selection = profiles.find_pivots(screened, **SCREEN)
    assert selection.counts()["screened"] == len(out)
    assert "screened" in selection.table()[0]
    kept = [p for p in found.values() if p.rewards]
    assert selection.uninformative() == sum(p.variance == 0 for p in kept) / len(kept)


def test_what_is_left_is_sampled_as_without_it(whole, screened):
    """Keys come from candidate and sample, so that rollouts of one candidate do not depend on its neighbours;
    sums are rounded otherwise where rows are packed otherwise."""
    before, after = rollouts_in(whole), rollouts_in(screened)
    same = [[r.token_ids for r in group] == [r.token_ids for r in before[id]] for id, group in after.items()]
    assert len(same) == len(after) and sum(same) >= 0.9 * len(same)


def test_turns_that_only_talk_can_be_screened_unscored(whole, tmp_path):
    more = {"profile__screen__text_turns": True}
    selection = profiles.find_pivots(tmp_path / "talk", **more)
    text = sum(not p.is_call for p in profiles_in(whole).values())
    assert selection.counts(is_call=False)["screened"] == selection.counts()["screened"] == text > 0
    assert not any(d.log_prob for d in decisions_in(tmp_path / "talk").values())
    config = profiles.config_of(tmp_path / "served", **more)
    config.rollouts.base_url, config.rollouts.model = "http://localhost/v1", "served"
    check_config.check(config)  # needs no weights


def test_a_demonstration_that_the_rules_do_not_accept_is_not_screened(screened, monkeypatch):
    """Where they leave it to a judge, and where it is longer than the policy may write."""
    run = run_lib.open_run(profiles.config_of(screened, **SCREEN))
    (first,) = [d for d in decisions_in(screened).values() if d.screened][:1]
    c = next(c for c in read_records(screened / "candidates.jsonl", Candidate) if c.id == first.candidate_id)
    rollouts = make_rollouts(run, run.config.profile.batch)
    assert screening.accepts(rollouts, c)
    leave_to_a_judge(monkeypatch)
    assert not screening.accepts(rollouts, c)
    screen = screening.Screen(screening.Rule(0.5, False), rollouts, None, None)
    assert not screen._screened(c, 0.0)
    run.config.sampling.max_tokens = 3
    screen = screening.Screen(screen.rule, make_rollouts(run, run.config.profile.batch), None, None)
    assert screen._log_probs(extract.render(run.chat, [c])) == {}


def leave_to_a_judge(monkeypatch):
    real = verifiers.VERIFIERS["bfcl_multi_turn"]

    def verify(candidate, action):
        verdict = real.verify(candidate, action)
        return Verdict(None, "asks", "") if verdict.reward == 1 else verdict

    monkeypatch.setitem(
        verifiers.VERIFIERS, "bfcl_multi_turn", dataclasses.replace(real, version="asks", verify=verify)
    )


# ---- on disk


def test_a_finished_one_is_read_back(screened, monkeypatch):
    before = profiles.files(screened)
    monkeypatch.setattr(Rollouts, "sample", profiles.no_sampling)
    monkeypatch.setattr(screening.Screen, "_log_probs", profiles.no_sampling)
    profiles.find_pivots(screened, **SCREEN)
    assert profiles.files(screened) == before


@pytest.mark.parametrize("lost", [".jsonl", screening.SUFFIX])
def test_a_killed_one_ends_as_one_that_was_not(screened, tmp_path, lost):
    """Killed after the screen and before the rollouts of a file; and, by hand, the other way round."""
    copy = shutil.copytree(screened, tmp_path / "copy")
    (copy / "rollouts" / f"00002{lost}").unlink()
    profiles.find_pivots(copy, **SCREEN)
    assert profiles.files(copy) == profiles.files(screened)


def test_another_threshold_is_another_profile_and_off_is_what_it_was(whole, screened):
    with pytest.raises(InputError, match=r"profile\.screen\.probability is 0\.5 there and 0\.6 here"):
        profiles.find_pivots(screened, profile__screen__probability=0.6)
    assert "screen" not in json.loads((whole / "rollouts/settings.json").read_text("utf-8"))
    assert not [*(whole / "rollouts").glob(f"*{screening.SUFFIX}")]


def test_without_resume_the_decisions_are_made_anew(screened, tmp_path):
    copy = shutil.copytree(screened, tmp_path / "copy")
    profiling.prepare_directory(copy / "rollouts", {"seed": 7}, resume=False)
    assert [file.name for file in (copy / "rollouts").iterdir()] == ["settings.json"]


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda rows: rows.pop(), "decides on other candidates than those of 00001.jsonl"),
        (lambda rows: rows[0].pop("screened"), "00001.screen.json: not the screen's decisions"),
    ],
)
def test_a_damaged_file_is_refused_by_name(screened, tmp_path, change, sentence):
    copy = shutil.copytree(screened, tmp_path / "copy")
    profiles.edit(copy / "rollouts/00001.screen.json", change)
    with pytest.raises(InputError, match=sentence):
        profiles.find_pivots(copy, **SCREEN)
    with pytest.raises(InputError, match=sentence):
        rescoring.rescore(copy, tmp_path / "out", Flags())


# ---- with the rest


def test_with_adaptive_profiling_both_save(screened, adaptive_whole, tmp_path):
    both = tmp_path / "both"
    profiles.find_pivots(both, **SCREEN, **profiles.ADAPTIVE)
    counts = [sum(map(len, rollouts_in(x).values())) for x in (both, screened, adaptive_whole)]
    assert counts[0] < min(counts[1:])
    assert decisions_in(both) == decisions_in(screened)


def test_shards_merge_into_the_profile_of_one_job(screened, tmp_path):
    runs = [tmp_path / str(i) for i in (1, 2)]
    for i, run in enumerate(runs, 1):
        profiles.find_pivots(run, **SCREEN, profile__shard=f"{i}/2")
    merging.merge(runs, tmp_path / "all")
    assert profiles.files(tmp_path / "all") == profiles.files(screened)


def test_scored_again_the_screen_holds(screened, tmp_path, monkeypatch):
    out = tmp_path / "out"
    rescoring.rescore(screened, out, Flags())
    said = ("rescored.txt", "rollouts/rescored.json")
    assert {k: v for k, v in profiles.files(out).items() if k not in said} == profiles.files(screened)
    monkeypatch.setattr(Rollouts, "sample", profiles.no_sampling)
    assert profiles.find_pivots(out, **SCREEN).counts()["screened"] > 0
    assert "candidates were screened" in write_report(out).read_text("utf-8")


@pytest.mark.parametrize("more", [{}, profiles.ADAPTIVE])
def test_scored_again_by_rules_that_ask_a_judge_the_screened_are_undecided(tmp_path, monkeypatch, more):
    run = tmp_path / "run"
    profiles.find_pivots(run, **SCREEN, **more)
    out = {id for id, decision in decisions_in(run).items() if decision.screened}
    leave_to_a_judge(monkeypatch)
    rescoring.rescore(run, tmp_path / "out", Flags())
    found = profiles_in(tmp_path / "out")
    assert out and {found[id].early for id in out} == {"undecided"}


def test_candidates_that_leave_take_their_decision_with_them(screened, tmp_path):
    """A verifier that rejects some demonstrations: other candidates stand in other files."""
    out = tmp_path / "out"
    rescoring.rescore(screened, out, Flags("exact"))
    assert {c.id for c in read_records(out / "candidates.jsonl", Candidate)} == set(decisions_in(out))


def test_pass_rates_are_those_of_what_was_sampled():
    assert adaptive.pass_rates([[], [1.0, 0.0]]).tolist() == adaptive.pass_rates([[1.0, 0.0]]).tolist()


# ---- what it cannot be combined with


@pytest.mark.parametrize(
    "section, field, value, sentence",
    [
        ("rollouts", "base_url", "http://localhost/v1", "needs the weights"),
        ("sampling", "temperature", 0.0, "sample with a temperature above 0"),
        ("sampling", "top_p", 0.9, "sample with a temperature above 0"),
    ],
)
def test_where_there_is_no_such_chance_it_is_refused(section, field, value, sentence):
    config = CONFIGS.get_config()
    config.rollouts.model = "served"
    config[section][field] = value
    check_config.check(config)
    config.profile.screen.probability = 0.9
    with pytest.raises(InputError, match=sentence):
        check_config.check(config)
