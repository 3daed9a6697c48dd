"""Pivots sampled again by the final policy: which and how, and that a kill anywhere changes nothing."""

from types import SimpleNamespace

import jax
import pytest
from support import tiny_run
from support.configs import CONFIGS
from support.forests import MOE
from support.profiles import no_sampling, rollouts_in

from pivotrl_jax import pipeline, verifiers
from pivotrl_jax.evaluation import evaluation
from pivotrl_jax.pivots import profiling, resampling, selection
from pivotrl_jax.records import Pivot, Profile, read_records, write_records
from pivotrl_jax.rollouts import rollout
from pivotrl_jax.rollouts.rollout import Rollouts

PROMPTS = tiny_run.conversations(4)
GROUP, SOME = 4, 5
FOLDER = "resampled"


def substitute(patch):
    """Verifiers of token ids, and the tiny policy's sampler in the place of a run's own."""
    patch.setitem(verifiers.VERIFIERS, "toy", tiny_run.verifier(tiny_run.odd_first))
    patch.setitem(verifiers.VERIFIERS, "easy", tiny_run.verifier(lambda ids: True, "easy"))
    patch.setattr(rollout, "make_actor", lambda *_: tiny_run.actor())


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    substitute(monkeypatch)


def a_run(workdir, verifier=None, **changes):
    config = CONFIGS.get_config()
    config.profile.update({"group_size": GROUP, "lambda_diff": 1.0, "trajectories_per_shard": 2})
    config.evaluate.pivots = SOME
    config.update_from_flattened_dict({name.replace("__", "."): v for name, v in changes.items()})
    return SimpleNamespace(
        config=config, workdir=workdir, shared=workdir, chat=tiny_run.Known(PROMPTS), policy="pi",
        model_config=MOE, trained_config=MOE, verifier=verifier, judge=None, facts={},
    )  # fmt: skip


def pivots_of(policy="pi", verifier="toy/1", temperature=1.0):
    """A pivot at every prompt."""
    rewards = [1.0, 0.0, 0.0, 0.0]
    return [
        Pivot(
            prompt.candidate,
            selection.make_profile(prompt.candidate, rewards, policy, verifier, temperature, seed=0),
        )
        for prompt in PROMPTS
    ]


def resample(workdir, policy="final", **changes):
    return resampling.resample(a_run(workdir, **changes), tiny_run.policy(), policy, pivots_of())


def files(workdir):
    return {p.relative_to(workdir).as_posix(): p.read_bytes() for p in workdir.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(workdir, profiles) of a resampling that was not interrupted."""
    workdir = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        substitute(patch)
        return workdir, resample(workdir)


def killed_at_shard(patch, number):
    """Let the sampling of this shard, from 1, end the run. Returns the calls."""
    calls, sample = [], Rollouts.sample

    def sample_or_die(*args, **kwargs):
        calls.append(1)
        if len(calls) == number:
            raise KeyboardInterrupt
        return sample(*args, **kwargs)

    patch.setattr(Rollouts, "sample", sample_or_die)
    return calls


# ---- which pivots, and how


def test_some_pivots_are_chosen_at_random_in_their_order():
    pivots = pivots_of()
    of = {n: [p.candidate.id for p in resampling.choose(pivots, n, 0)] for n in (0, 3, 5, 99)}
    every = [p.candidate.id for p in pivots]
    assert of[0] == [] and of[99] == every and len(of[3]) == 3 and set(of[3]) < set(of[5])
    assert [every.index(id) for id in of[5]] == sorted(every.index(id) for id in of[5])
    seeds = {tuple(p.candidate.id for p in resampling.choose(pivots, 3, seed)) for seed in range(9)}
    assert len(seeds) > 3


def test_they_are_profiled_under_the_final_policy_as_profiles_are(whole):
    workdir, profiles = whole
    chosen = [p.candidate.id for p in resampling.choose(pivots_of(), SOME, 0)]
    assert [p.candidate_id for p in profiles] == chosen
    assert {(len(p.rewards), p.policy, p.verifier, p.temperature) for p in profiles} == {
        (GROUP, "final", "toy/1", 1.0)
    }
    assert read_records(workdir / FOLDER / "profiles.jsonl", Profile) == profiles
    rollouts = rollouts_in(workdir / FOLDER / "rollouts")
    assert len(rollouts) == GROUP * SOME and all(r.token_ids and r.log_probs for r in rollouts)
    rewards = {
        p.candidate_id: [r.reward for r in rollouts if r.candidate_id == p.candidate_id] for p in profiles
    }
    assert rewards == {p.candidate_id: p.rewards for p in profiles}
    assert {reward for p in profiles for reward in p.rewards} == {0.0, 1.0}


def test_the_draws_are_others_than_those_of_the_first_profile(whole):
    """The same parameters: with the first profile's keys, all samples would be the same."""
    workdir, profiles = whole
    chosen = [p for p in PROMPTS if p.candidate.id in {profile.candidate_id for profile in profiles}]
    key = profiling.settings_of(a_run(workdir), "pi").key
    first = tiny_run.rollouts().sample(tiny_run.policy(), chosen, GROUP, key)
    again = rollouts_in(workdir / FOLDER / "rollouts")
    here = {(r.candidate_id, r.sample): r.token_ids for r in again}
    same = [here[r.candidate_id, r.sample] == r.token_ids for group in first for r in group]
    assert len(same) == GROUP * SOME and not all(same)


def test_the_reward_is_the_runs_and_groups_are_whole_where_profiling_was_adaptive(tmp_path):
    profiles = resample(tmp_path, verifier="easy", profile__adaptive__round=1)
    assert {p.verifier for p in profiles} == {"easy/1"}
    assert all(len(p.rewards) == GROUP and not p.early for p in profiles)
    rollouts = rollouts_in(tmp_path / FOLDER / "rollouts")
    assert {(r.finished, r.reward) for r in rollouts} == {(True, 1.0), (False, 0.0)}


def test_none_are_sampled_where_none_are_asked_for_or_there_are_none(tmp_path, monkeypatch):
    monkeypatch.setattr(Rollouts, "sample", no_sampling)
    assert resample(tmp_path, evaluate__pivots=0) == []
    assert resampling.resample(a_run(tmp_path), None, "final", []) == []
    assert files(tmp_path) == {}


# ---- on disk


def test_a_finished_one_is_read_back(whole, monkeypatch):
    before = files(whole[0])
    monkeypatch.setattr(Rollouts, "sample", no_sampling)
    assert resample(whole[0]) == whole[1] and files(whole[0]) == before


def test_a_killed_one_ends_as_one_that_was_not_and_samples_no_shard_twice(whole, tmp_path, monkeypatch):
    shards = len(list((whole[0] / FOLDER / "rollouts").glob("*.jsonl")))
    assert shards > 1
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        killed_at_shard(patch, 2)
        resample(tmp_path)
    assert not (tmp_path / FOLDER / "profiles.jsonl").exists()
    with monkeypatch.context() as patch:
        calls = killed_at_shard(patch, None)
        assert resample(tmp_path) == whole[1]
    assert len(calls) == shards - 1 and files(tmp_path) == files(whole[0])


@pytest.mark.parametrize(
    "changes", [{"policy": "longer"}, {"evaluate__pivots": 3}, {"verifier": "easy"}, {"resume": False}]
)
def test_those_of_another_policy_number_or_reward_are_replaced(whole, tmp_path, monkeypatch, changes):
    """More steps make another final policy. Killed in between, a run leaves no profiles of the old one."""
    for name, content in files(whole[0]).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        killed_at_shard(patch, 1)
        resample(tmp_path, **changes)
    assert list(files(tmp_path)) == [f"{FOLDER}/rollouts/settings.json"]
    profiles = resample(tmp_path, **changes)
    assert {p.policy for p in profiles} == {changes.get("policy", "final")}
    assert len(rollouts_in(tmp_path / FOLDER / "rollouts")) == GROUP * len(profiles)


def test_processes_but_the_first_find_the_same_and_keep_no_rollouts(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert resample(tmp_path) == whole[1]
    assert set(files(tmp_path)) == {f"{FOLDER}/profiles.jsonl", f"{FOLDER}/rollouts/settings.json"}


# ---- in a run


def test_methods_that_do_not_profile_take_the_pivots_of_find_pivots(tmp_path):
    run = a_run(tmp_path / "copy_of_a_process")
    run.shared = tmp_path
    assert resampling.own_pivots(run) == []
    own, foreign = pivots_of(), [*pivots_of(policy="other"), *pivots_of(temperature=0.5)]
    write_records(tmp_path / "pivots.jsonl", [*own, *foreign, *pivots_of(verifier="exact/2")])
    assert resampling.own_pivots(run) == own
    run.verifier = "easy"
    assert resampling.own_pivots(run) == []


@pytest.mark.parametrize("profiled", [True, False])
def test_run_json_says_what_came_of_it(tmp_path, profiled):
    """Of pivotrl, which has a selection, and of other methods, which may find pivots in the directory."""
    run, pivots = a_run(tmp_path), pivots_of()
    run.facts["resampled"] = {"of": "an earlier policy"}
    assert pipeline._resample(run, tiny_run.policy(), "final", None, []) == 0 and run.facts == {}
    chosen = None
    if profiled:
        chosen = selection.select([p.profile for p in pivots], 1.0)
    else:
        write_records(tmp_path / "pivots.jsonl", pivots)
    candidates = [prompt.candidate for prompt in PROMPTS]
    assert pipeline._resample(run, tiny_run.policy(), "final", chosen, candidates) == GROUP * SOME
    found = run.facts["resampled"]
    assert (found["pivots"], found["rollouts"], found["mean_before"]) == (SOME, GROUP * SOME, 0.25)
    assert found["rose"] + found["fell"] + found["same"] == SOME


def test_stored_evaluations_do_not_depend_on_the_number_of_pivots(tmp_path):
    held_out = evaluation.HeldOut([], [], [])
    found = [
        evaluation._identity(a_run(tmp_path, **changes), held_out, False, "pi")
        for changes in ({}, {"evaluate__pivots": 0}, {"evaluate__samples": 2})
    ]
    assert found[0] == found[1] != found[2] and "pivots" not in found[0]["evaluate"]
