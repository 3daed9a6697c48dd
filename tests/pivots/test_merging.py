"""Profiling in independent shards: merged, they are the profile of one job. Other sets are refused."""

import json
import shutil
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import profiles, tiny_run

from pivotrl_jax import merge_profiles
from pivotrl_jax.pivots import adaptive, merging, profiling, shares
from pivotrl_jax.records import Candidate, InputError, Profile, Prompt, read_records
from pivotrl_jax.rollouts.rollout import Rollouts
from pivotrl_jax.run import check_config

COUNT = 4


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """The work directories of four jobs."""
    top = tmp_path_factory.mktemp("shards")
    for i in range(1, COUNT + 1):
        profiles.find_pivots(top / str(i), profile__shard=f"{i}/{COUNT}")
    return [top / str(i) for i in range(1, COUNT + 1)]


@pytest.fixture
def copies(shards, tmp_path):
    """Copies that a test may damage."""
    return [shutil.copytree(shard, tmp_path / "shards" / shard.name) for shard in shards]


def refusal(runs, out) -> str:
    with pytest.raises(InputError) as error:
        merging.merge(runs, out)
    assert not out.exists() or out.is_file(), "nothing is written"
    return str(error.value)


def test_shards_of_several_served_models_are_merged_with_a_warning(copies, tmp_path):
    for i, shard in enumerate(copies):
        for file in sorted((shard / "rollouts").glob("*.jsonl")):
            rollouts = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
            served = {"mode": "completions", "model": "m", "fingerprint": "ab"[i % 2]}
            file.write_text("".join(json.dumps(r | {"served": served}) + "\n" for r in rollouts), "utf-8")
    lines = merging.merge(copies, tmp_path / "all")
    assert lines[1].startswith("warning: 2 models gave these rollouts: m (a), m (b); their rewards are not")


def test_four_shards_are_the_profile_of_one_job_byte_for_byte(whole, shards, tmp_path, monkeypatch):
    out = tmp_path / "all"
    lines = merging.merge([shards[i] for i in (2, 0, 3, 1)], out)
    assert lines[0] == f"4 shards with 6 files of rollouts are merged into {out}"
    assert profiles.files(out) == profiles.files(whole)
    found, alone = (json.loads((x / "run.json").read_text("utf-8")) for x in (out, whole))
    assert found["config"] == {**alone["config"], "workdir": str(out)}
    assert found["policy"] == alone["policy"] and found["merged"] == {"shards": COUNT}
    pages = [json.loads((x / "run.json").read_text("utf-8")) for x in shards]
    assert found["seconds"]["profiling"] == pytest.approx(sum(p["seconds"]["profiling"] for p in pages))
    # the run goes on from it
    monkeypatch.setattr(Rollouts, "sample", profiles.no_sampling)
    assert profiles.find_pivots(out).counts()["pivot"] > 0
    assert profiles.files(out) == profiles.files(whole)
    assert json.loads((out / "run.json").read_text("utf-8"))["merged"] == {"shards": COUNT}


def test_every_job_has_its_own_files_and_the_same_candidates(whole, shards):
    names = [sorted(path.name for path in (x / "rollouts").glob("*.jsonl")) for x in shards]
    assert all(names)
    assert sorted(name for some in names for name in some) == [f"{n:05d}.jsonl" for n in range(6)]
    for shard in shards:
        assert (shard / "candidates.jsonl").read_bytes() == (whole / "candidates.jsonl").read_bytes()
        profiled = {p.candidate_id for p in read_records(shard / "profiles.jsonl", Profile)}
        sampled = [r.candidate_id for r in profiles.rollouts_in(shard / "rollouts")]
        assert profiled == set(sampled) and len(sampled) == 4 * len(profiled)


def test_a_job_resumes_and_another_one_may_not_use_its_directory(copies, monkeypatch):
    before = profiles.files(copies[1])
    monkeypatch.setattr(Rollouts, "sample", profiles.no_sampling)
    profiles.find_pivots(copies[1], profile__shard="2/4")
    assert profiles.files(copies[1]) == before
    for other in ("3/4", "2/3", ""):
        with pytest.raises(InputError, match=f"profile.shard is '2/4' there and '{other}' here"):
            profiles.find_pivots(copies[1], profile__shard=other)
    (copies[1] / "run.json").unlink()  # killed before the first stage ended
    with pytest.raises(InputError, match=r"shard.name is '2/4' there and '3/4' here"):
        profiles.find_pivots(copies[1], profile__shard="3/4")
    assert profiles.files(copies[1]) == before


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=40), st.integers(1, 40), st.integers(1, 5))
def test_files_are_dealt_once_evenly_and_alike_in_all_jobs(tokens, count, per_file):
    prompts = [Prompt(tiny_run.candidate(str(i)), np.zeros(n, np.int32)) for i, n in enumerate(tokens)]
    files = profiling.shards_of([p.candidate for p in prompts], per_file)
    count = min(count, len(files))
    dealt = [shares.files_of(f"{i}/{count}", files, prompts) for i in range(1, count + 1)]
    assert sorted(number for some in dealt for number in some) == list(range(len(files)))
    assert all(some and some == sorted(some) for some in dealt)
    size = [sum(tokens[i] for i in members) for members in files]
    load = [sum(size[number] for number in some) for some in dealt]
    assert max(load) - min(load) <= max(size)


def test_more_shards_than_files_are_refused():
    prompts = [Prompt(tiny_run.candidate(t), [1]) for t in "abc"]
    with pytest.raises(InputError, match=r"'1/3', but the 3 candidates make only 2 files.*lower"):
        shares.files_of("1/3", [[0, 1], [2]], prompts)


@pytest.mark.parametrize("shard", ["0/4", "5/4", "4", "1/0", "a/b", "1/4/2", " 1/4", "-1/4", "01/4", 3])
def test_what_is_no_shard_is_refused(shard, tmp_path):
    config = profiles.config_of(tmp_path)
    with config.unlocked(), config.profile.ignore_type():
        config.profile.shard = shard
    with pytest.raises(InputError, match=r"config.profile.shard is .*; want '' or a shard and their number"):
        check_config.check(config)


def test_a_shard_is_not_trained_on(tmp_path):
    with pytest.raises(InputError, match=r"'2/4': a share of a profile is not trained on.*merge_profiles"):
        check_config.check_training(profiles.config_of(tmp_path, profile__shard="2/4"))


# ---- what cannot be merged


def test_missing_and_doubled_shards_are_named(copies, tmp_path):
    out = tmp_path / "all"
    assert "2 of 4 shards are missing: 2/4, 4/4; make them" in refusal([copies[0], copies[2]], out)
    found = refusal([*copies, copies[2]], out)
    assert f"shard 3/4 is there 2 times, in {copies[2]} and {copies[2]}" in found


def test_an_unfinished_shard_is_named(copies, tmp_path):
    file = sorted((copies[3] / "rollouts").glob("*.jsonl"))[0]
    file.unlink()
    found = refusal(copies, tmp_path / "all")
    assert found.startswith(f"{copies[3]}: its profile is not finished: 1 of ") and file.name in found
    (copies[2] / "rollouts" / "settings.json").unlink()
    assert f"{copies[2]}/rollouts/settings.json: no such file" in refusal(copies, tmp_path / "all")


def test_a_damaged_file_is_named(copies, tmp_path):
    file = sorted((copies[1] / "rollouts").glob("*.jsonl"))[0]
    lines = file.read_text("utf-8").splitlines(keepends=True)
    for damaged in (lines[:-1], [lines[1], lines[0], *lines[2:]], lines[4:], [*lines, lines[-1]]):
        file.write_text("".join(damaged), "utf-8")
        said = refusal(copies, tmp_path / "all")
        assert f"{file}: does not hold 4 rollouts of each of its" in said or (
            f"{file.with_suffix('.npz')}: holds the arrays of other rollouts than {file.name}" in said
        )


@pytest.mark.parametrize("shard", ["2/4", {"name": "2/4"}, {"name": "9/4", "files": []}, {"files": [1]}, {}])
def test_damaged_settings_are_named(copies, tmp_path, shard):
    file = copies[1] / "rollouts" / "settings.json"
    files = json.loads(file.read_text("utf-8"))["shard"]["files"]
    profiles.edit(file, lambda x: x.update(shard=shard))
    assert f"{file}: not the settings of a profile: shard is " in refusal(copies, tmp_path / "all")
    profiles.edit(file, lambda x: x.update(shard={"name": "2/4", "files": [*files, 77]}))
    assert "are not the 6 of this profile, each once" in refusal(copies, tmp_path / "all")
    file.write_text("{", "utf-8")
    assert f"{file}: cannot be read" in refusal(copies, tmp_path / "all")


def test_a_whole_profile_and_other_divisions_are_named(whole, copies, tmp_path):
    assert f"{whole}: holds a whole profile" in refusal([*copies[:3], whole], tmp_path / "all")
    profiles.edit(copies[0] / "rollouts/settings.json", lambda x: x["shard"].update(name="1/5"))
    assert "not of one division: 1/5 in " in refusal(copies, tmp_path / "all")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("policy", "other", "policy is 'ed61aa51fc399c18' in {first} and 'other' here"),
        ("seed", 1, "seed is 0 in {first} and 1 here"),
        ("group_size", 8, "group_size is 4 in {first} and 8 here"),
        ("candidates", "other", "and 'other' here"),
        (
            "verifiers",
            ["tool_call/7"],
            "verifiers is ['bfcl_multi_turn/2'] in {first} and ['tool_call/7'] here",
        ),
    ],
)
def test_shards_of_other_profiles_are_refused_by_name(copies, tmp_path, name, value, words):
    profiles.edit(copies[2] / "rollouts/settings.json", lambda x: x.update({name: value}))
    if name == "group_size":
        words = words.format(first=copies[0])
    found = refusal(copies, tmp_path / "all")
    assert found.startswith(f"{copies[2]}: its shard is of another profile: ")
    assert words.format(first=copies[0]) in found


def test_another_sampling_or_filter_is_refused_and_another_place_is_not(copies, tmp_path):
    settings, page = copies[1] / "rollouts/settings.json", copies[1] / "run.json"
    profiles.edit(settings, lambda x: x["sampling"].update(temperature=0.5))
    assert "sampling.temperature is 1.0 in" in refusal(copies, tmp_path / "all")
    profiles.edit(settings, lambda x: x["sampling"].update(temperature=1.0))
    profiles.edit(page, lambda x: x["config"]["profile"].update(lambda_diff=0.5))
    assert "profile.lambda_diff is 1.0 in" in refusal(copies, tmp_path / "all")
    profiles.edit(page, lambda x: x["config"]["profile"].update(lambda_diff=1.0))
    profiles.edit(page, lambda x: x["config"]["model"].update(checkpoint="/elsewhere/the/same"))
    merging.merge(copies, tmp_path / "all")


def test_the_program_says_what_it_did_or_one_sentence(shards, tmp_path, monkeypatch, capsys):
    def program(*runs):
        monkeypatch.setattr(sys, "argv", ["merge_profiles", *map(str, runs), f"--out={tmp_path / 'all'}"])
        merge_profiles.main()

    with pytest.raises(InputError, match=r"^3 of 4 shards are missing: 2/4, 3/4, 4/4; make"):
        program(shards[0])
    capsys.readouterr()
    program(*shards)
    assert capsys.readouterr().out.startswith("4 shards with 6 files of rollouts are merged into")


def test_nothing_is_written_over_what_is_there(shards, tmp_path):
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"is there already, and nothing is written over it"):
        merging.merge(shards, tmp_path / "all")
    assert [path.name for path in (tmp_path / "all").iterdir()] == ["notes.txt"]


# ---- adaptive profiling


def test_adaptive_shards_make_a_profile_that_is_well_defined(whole, tmp_path, monkeypatch):
    runs = [tmp_path / "1", tmp_path / "2"]
    for i, run in enumerate(runs, 1):
        profiles.find_pivots(run, profile__shard=f"{i}/2", **profiles.ADAPTIVE)
    lines = merging.merge(runs, tmp_path / "all")
    full = {(r.candidate_id, r.sample): r for r in all_rollouts(whole)}
    drawn = all_rollouts(tmp_path / "all")
    assert len(drawn) < len(full) and all(
        full[r.candidate_id, r.sample].token_ids == r.token_ids for r in drawn
    )
    page = json.loads((tmp_path / "all" / "run.json").read_text("utf-8"))["merged"]["adaptive"]
    assert page["rollouts"] == len(drawn) and page["full"] == len(full)
    assert f"adaptive profiling drew {len(drawn)} of {len(full)} rollouts" in lines[-1]
    # outcomes of groups that ended early are those under the pass rates of all
    found = read_records(tmp_path / "all" / "profiles.jsonl", Profile)
    candidates = read_records(tmp_path / "all" / "candidates.jsonl", Candidate)
    assert [p.candidate_id for p in found] == [c.id for c in candidates]
    plan = adaptive.StoppingRule(4, 1.0, 2, 0.2).plan(adaptive.pass_rates([p.rewards for p in found]))
    early = [p for p in found if len(p.rewards) < 4]
    assert early and len(early) == page["ended_early"]
    assert all(p.early == plan.outcome(p.rewards) for p in early)
    assert page["not_yet_decided"] == sum(not plan.decided(p.rewards) for p in early)
    before = profiles.files(tmp_path / "all")
    monkeypatch.setattr(Rollouts, "sample", profiles.no_sampling)
    profiles.find_pivots(tmp_path / "all", **profiles.ADAPTIVE)
    assert profiles.files(tmp_path / "all") == before


def all_rollouts(workdir):
    return profiles.rollouts_in(workdir / "rollouts")
