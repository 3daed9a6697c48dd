"""Profiling in shards: read back on a resume, identical after a kill, refused for other settings."""

import json
import types

import jax
import numpy as np
import pytest
from support import tiny_run
from support.profiles import rollouts_in

from pivotrl_jax import verifiers
from pivotrl_jax.pivots import adaptive, profiling, rollout_files
from pivotrl_jax.pivots import selection as selection_lib
from pivotrl_jax.records import InputError, Prompt
from pivotrl_jax.rollouts.rollout import Rollouts
from pivotrl_jax.run import options
from pivotrl_jax.trajectories import extract

GROUP = 4
PROMPTS = tiny_run.conversations(5)
CANDIDATES = [prompt.candidate for prompt in PROMPTS]


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setitem(verifiers.VERIFIERS, "toy", tiny_run.verifier(tiny_run.odd_first))


def profile(directory, prompts=PROMPTS, resume=True, verifier=None, **changes):
    numbers = {"group_size": GROUP, "seed": 0, "trajectories_per_shard": 2, **changes}
    settings = profiling.Settings(**{"policy": "pi", "model": {"dtype": "float32"}, **numbers})
    rollouts = tiny_run.rollouts(verifier=verifier)
    found = profiling.profile_candidates(rollouts, tiny_run.policy(), prompts, settings, directory, resume)
    place = {prompt.candidate.id: i for i, prompt in enumerate(prompts)}
    return found, sorted(rollouts_in(directory), key=lambda r: (place[r.candidate_id], r.sample))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(directory, profiles, rollouts) of a profiling that was not interrupted."""
    directory = tmp_path_factory.mktemp("whole") / "rollouts"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(verifiers.VERIFIERS, "toy", tiny_run.verifier(tiny_run.odd_first))
        return directory, *profile(directory)


def files(directory):
    return {file.name: file.read_bytes() for file in sorted(directory.iterdir())}


def no_sampling(*_, **__):
    raise AssertionError("nothing is left to sample")


def test_every_candidate_has_its_profile(whole):
    directory, profiles, rollouts = whole
    names = [f"0000{i}.{suffix}" for i in range(3) for suffix in ("jsonl", "npz")]
    assert sorted(files(directory)) == [*names, "settings.json"]
    assert [p.candidate_id for p in profiles] == [c.id for c in CANDIDATES]
    assert len(rollouts) == len(CANDIDATES) * GROUP
    for i, p in enumerate(profiles):
        group = rollouts[i * GROUP : (i + 1) * GROUP]
        assert {r.candidate_id for r in group} == {p.candidate_id}
        assert p.rewards == [r.reward for r in group]
        mean = sum(p.rewards) / GROUP
        assert p.mean == mean and abs(p.variance - mean * (1 - mean)) < 1e-12
        assert (p.policy, p.verifier, p.temperature, p.seed) == ("pi", "toy/1", 1.0, 0)
    assert any(p.variance > 0 for p in profiles)


def test_finished_shards_are_read_back(whole, monkeypatch):
    directory, profiles, rollouts = whole
    monkeypatch.setattr(Rollouts, "sample", no_sampling)
    assert profile(directory) == (profiles, rollouts)


def test_a_killed_profiling_ends_as_one_that_was_not(whole, tmp_path, monkeypatch):
    calls, sample = [], Rollouts.sample

    def killed_after_one(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return sample(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Rollouts, "sample", killed_after_one)
        with pytest.raises(KeyboardInterrupt):
            profile(tmp_path)
    assert sorted(files(tmp_path)) == ["00000.jsonl", "00000.npz", "settings.json"]
    (tmp_path / "00001.jsonl.tmp").write_text('{"torn')  # what a kill in the middle of writing leaves
    (tmp_path / "00001.npz").write_bytes(b"of other rollouts")
    assert profile(tmp_path) == whole[1:]
    (tmp_path / "00001.jsonl.tmp").unlink(missing_ok=True)
    assert files(tmp_path) == files(whole[0])


def test_processes_but_the_first_find_the_same_and_keep_no_rollouts(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert profile(tmp_path) == (whole[1], [])
    assert sorted(files(tmp_path)) == ["settings.json"]


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"policy": "other"}, "policy is 'pi' there and 'other' here"),
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"group_size": 2}, "group_size is 4 there and 2 here"),
        ({"trajectories_per_shard": 3}, "trajectories_per_shard is 2 there and 3 here"),
        ({"verifier": "exact"}, r"verifiers is \['toy/1'\] there and \['exact/3'\] here"),
        ({"prompts": PROMPTS[:-1]}, "candidates is '[0-9a-f]{16}' there and '[0-9a-f]{16}' here"),
    ],
)
def test_other_settings_are_refused_by_name(whole, change, difference, monkeypatch):
    monkeypatch.setattr(Rollouts, "sample", no_sampling)
    before = files(whole[0])
    with pytest.raises(InputError, match=f"holds rollouts of another run: {difference}; undo the change"):
        profile(whole[0], **change)
    assert files(whole[0]) == before, "nothing already computed is lost"


def test_rewards_of_another_version_are_to_be_scored_again(whole, monkeypatch):
    monkeypatch.setattr(Rollouts, "sample", no_sampling)
    monkeypatch.setattr(profiling, "REPLY_PARSER", "none yet")
    said = "reply_parser is '.*' there and 'none yet' here; score a finished profile again with `pivotrl resc"
    with pytest.raises(InputError, match=said):
        profile(whole[0])
    with pytest.raises(InputError, match="holds rollouts of another run: seed is 0 there"):
        profile(whole[0], seed=1)


def test_without_resume_it_starts_over(whole, tmp_path):
    profiling.prepare_directory(tmp_path, {"seed": 7}, True)
    for name in ("00009.jsonl", "00009.npz"):
        (tmp_path / name).write_text("of another run\n")
    assert profile(tmp_path, resume=False) == whole[1:]
    assert files(tmp_path) == files(whole[0])


def test_shards_hold_whole_trajectories_in_order():
    candidates = [tiny_run.candidate(t, i) for i, t in enumerate("abacbd")]
    assert profiling.shards_of(candidates, 2) == [[0, 2, 1, 4], [3, 5]]
    assert profiling.shards_of(candidates, 9) == [[0, 2, 1, 4, 3, 5]]


def test_an_adaptive_profile_shuffles_trajectories_so_that_its_first_shards_are_a_random_sample():
    candidates = [tiny_run.candidate(f"t{t}", i) for i, t in enumerate(np.repeat(np.arange(400), 2))]
    shards = profiling.shards_of(candidates, 40, shuffle=3)
    assert shards == profiling.shards_of(candidates, 40, shuffle=3)
    assert sorted(i for shard in shards for i in shard) == list(range(800))
    assert all(shard[k + 1] == shard[k] + 1 for shard in shards for k in range(0, 80, 2)), (
        "whole trajectories"
    )
    assert all(300 < np.mean(shard) < 500 for shard in shards), "sorted data would give 39.5, 119.5, ..."
    assert shards != profiling.shards_of(candidates, 40, shuffle=4)
    order = [i for shard in shards for i in shard]
    fewer = [candidates[i] for i in range(800) if i % 20 > 1]  # a rescoring reads old files in the new order
    now = [fewer[i].id for shard in profiling.shards_of(fewer, 40, shuffle=3) for i in shard]
    assert now == [candidates[i].id for i in order if i % 20 > 1]


def test_adaptive_shards_are_cut_from_the_shuffled_order(whole, tmp_path):
    rule = adaptive.StoppingRule(GROUP, 0.6, 1, 0.0)
    profiles, _ = profile(tmp_path, stopping=rule, trajectories_per_shard=1)
    assert [p.candidate_id for p in profiles] == [c.id for c in CANDIDATES]
    read = [
        [r.candidate_id for r in rollout_files.summaries(file) if not r.sample]
        for file in sorted(tmp_path.glob("*.jsonl"))
    ]
    want = [[CANDIDATES[i].id for i in shard] for shard in profiling.shards_of(CANDIDATES, 1, shuffle=0)]
    assert read == want != [[CANDIDATES[i].id for i in s] for s in profiling.shards_of(CANDIDATES, 1)]


def test_a_profile_with_the_stopping_rule_of_another_version_is_refused(tmp_path, monkeypatch):
    rule = adaptive.StoppingRule(GROUP, 0.6, 1, 0.02)
    profile(tmp_path, stopping=rule)
    settings = json.loads((tmp_path / "settings.json").read_text("utf-8"))
    settings["stopping"]["error"] = settings["stopping"].pop("max_missed")
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    monkeypatch.setattr(Rollouts, "sample", no_sampling)
    with pytest.raises(InputError, match=r"rollouts of another run: stopping.max_missed is absent there"):
        profile(tmp_path, stopping=rule)


def test_profiles_come_in_the_order_of_the_candidates(tmp_path):
    """Also when trajectories are interleaved and a shard's order is another."""
    order = [0, 2, 1, 4, 3, 5]
    found, _ = profile(tmp_path, [PROMPTS[i] for i in order], group_size=2)
    assert [p.candidate_id for p in found] == [CANDIDATES[i].id for i in order]


def test_the_digest_sees_every_word():
    first, rest, digest = PROMPTS[0], PROMPTS[1:], extract.digest
    assert digest(PROMPTS) == digest(tuple(PROMPTS))
    other = tiny_run.candidate("t0", 0, demonstration="2")
    assert digest([Prompt(other, first.ids), *rest]) != digest(PROMPTS)
    assert digest(PROMPTS[::-1]) != digest(PROMPTS)
    another_tokenizer = Prompt(first.candidate, first.ids[::-1])
    assert digest([another_tokenizer, *rest]) != digest(PROMPTS)


def test_settings_are_plain_json(whole):
    settings = json.loads((whole[0] / "settings.json").read_text("utf-8"))
    assert settings["sampling"]["stop_ids"] == list(tiny_run.STOPS)
    assert settings["group_size"] == GROUP


def test_adaptive_profiling_draws_the_first_of_a_full_profile_and_decides_as_it(whole, tmp_path, monkeypatch):
    _, full, rollouts = whole
    rule = adaptive.StoppingRule(GROUP, 0.6, 1, 0.0)
    profiles, fewer = profile(tmp_path, stopping=rule)
    drawn = {(r.candidate_id, r.sample): r.token_ids for r in rollouts}
    assert all(drawn[r.candidate_id, r.sample] == r.token_ids for r in fewer)
    assert len(fewer) < len(rollouts)
    is_pivot = lambda some: [selection_lib.outcome(p, 0.6) == "pivot" for p in some]  # noqa: E731
    assert is_pivot(profiles) == is_pivot(full)
    assert [bool(p.early) for p in profiles] == [len(p.rewards) < GROUP for p in profiles]
    with pytest.raises(InputError, match="stopping"):
        profile(tmp_path)
    monkeypatch.setattr(Rollouts, "sample", no_sampling)
    assert profile(tmp_path, stopping=rule) == (profiles, fewer)


@pytest.mark.parametrize("seed, expected", [(-1, 3), (0, 0), (5, 5)])
def test_a_profile_may_have_a_seed_of_its_own(seed, expected):
    config = options.defaults()
    config.seed, config.profile.seed = 3, seed
    run = types.SimpleNamespace(config=config, model_config=tiny_run.random_config())
    assert profiling.settings_of(run, "pi").seed == expected
