"""Stored rollouts scored again: without sampling, as a fresh profile would be, and a run goes on from it."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import endpoint, profiles, tiny_run
from support.paths import ROOT

from pivotrl_jax import verifiers
from pivotrl_jax.pivots import adaptive, candidates, changes, profiling, rescoring, rollout_files
from pivotrl_jax.pivots import selection as selection_lib
from pivotrl_jax.pivots.rescoring import Flags
from pivotrl_jax.records import (
    Candidate,
    InputError,
    Pivot,
    Profile,
    Question,
    Rollout,
    Verdict,
    read_records,
)
from pivotrl_jax.report.report import write_report
from pivotrl_jax.rollouts.rollout import Rollouts
from pivotrl_jax.verifiers.base import Verifier

SAID = ("rescored.txt", "rollouts/rescored.json")  # what a fresh profile does not write


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """A registry that forgets what a test adds."""
    monkeypatch.setattr(verifiers, "VERIFIERS", type(verifiers.VERIFIERS)(verifiers.VERIFIERS))


def profile_of(workdir) -> dict[str, bytes]:
    return {name: text for name, text in profiles.files(workdir).items() if name not in SAID}


def summary_of(workdir) -> dict:
    return json.loads((workdir / "run.json").read_text("utf-8"))["rescored"]


def goes_on(workdir, monkeypatch, **changes) -> None:
    """find_pivots takes the directory up, samples nothing and changes nothing."""
    before = profiles.files(workdir)
    with monkeypatch.context() as patch:
        patch.setattr(Rollouts, "sample", profiles.no_sampling)
        profiles.find_pivots(workdir, **changes)
    assert profiles.files(workdir) == before


def refusal(workdir, out, *flags) -> str:
    before = profiles.files(workdir)
    with pytest.raises(InputError) as error:
        rescoring.rescore(workdir, out, Flags(*flags))
    assert profiles.files(workdir) == before and (out is None or not out.exists())
    return str(error.value)


def own_verifier(monkeypatch, verify, version="new"):
    """Let `verify` decide in place of the toolbox's verifier."""
    real = verifiers.VERIFIERS["bfcl_multi_turn"]
    new = dataclasses.replace(real, version=version, verify=verify)
    monkeypatch.setitem(verifiers.VERIFIERS, "bfcl_multi_turn", new)
    return real.verify


# ---- the same verdicts


def test_the_same_verifiers_change_nothing_and_need_no_device(whole, tmp_path, monkeypatch):
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-m", "pivotrl_jax", "rescore", f"--workdir={whole}", f"--out={out}"],
        **{"cwd": ROOT, "capture_output": True, "text": True},
        env={**os.environ, "JAX_PLATFORMS": "none_at_all"},  # any use of a device would fail
    )
    assert done.returncode == 0, done.stderr
    assert "0 of 148 rewards changed" in done.stdout and "pivots gained: 0" in done.stdout
    assert f"run's own command with --config.workdir={out}" in done.stdout
    assert profile_of(out) == profile_of(whole)
    goes_on(out, monkeypatch)
    assert summary_of(out)["pivots lost"] == 0, "what it says outlasts a resume"


def test_another_reward_is_that_of_a_fresh_profile(tmp_path, monkeypatch):
    """Byte for byte: the rollouts are the same, and so are the verdicts, profiles and pivots."""
    whole, out, fresh = tmp_path / "whole", tmp_path / "out", tmp_path / "fresh"
    seed = {"profile__seed": 2}  # of its samples, exact match gains pivots and loses some
    profiles.find_pivots(whole, **seed)
    lines = rescoring.rescore(whole, out, Flags("exact"))
    profiles.find_pivots(fresh, reward="exact", **seed)
    assert profile_of(out) == profile_of(fresh) != profile_of(whole)
    assert "--config.reward=exact" in lines[-1]
    goes_on(out, monkeypatch, reward="exact", **seed)
    found = summary_of(out)
    before, after = ({p.candidate.id for p in pivots(x)} for x in (whole, fresh))
    assert found["pivots gained"] == len(after - before) > 0
    assert found["pivots lost"] == len(before - after) > 0
    text = (out / "rescored.txt").read_text("utf-8")
    assert all(id in text for id in after ^ before), "all are named in the file"
    changed = sum(
        a.reward != b.reward
        for a, b in zip(
            profiles.rollouts_in(whole / "rollouts"), profiles.rollouts_in(fresh / "rollouts"), strict=True
        )
    )
    assert f"{changed} of 148 rewards changed" in text and found["rollouts"]["pass -> fail"] == changed
    assert "bfcl_multi_turn/2 -> exact/3" in text and "want 'task crisis is done now'" in text
    # and back
    rescoring.rescore(out, tmp_path / "back", Flags("functional"))
    assert profile_of(tmp_path / "back") == profile_of(whole)


def pivots(workdir):
    return read_records(workdir / "pivots.jsonl", Pivot)


def test_what_did_not_finish_stays_0_and_unknown_ids_stay_malformed(whole, tmp_path, monkeypatch):
    run = shutil.copytree(whole, tmp_path / "run")
    file = run / "rollouts" / "00000.jsonl"
    first, second, *others = rollout_files.read(file)
    second.token_ids.insert(0, 1_000_000)
    rollout_files.write(file, [dataclasses.replace(first, finished=False), second, *others])
    tiny_run.flip_coins()
    rescoring.rescore(run, tmp_path / "out", Flags())
    found = profiles.rollouts_in(tmp_path / "out" / "rollouts")
    assert (found[0].reward, found[0].reason) == (0.0, "unfinished")
    assert (found[1].reward, found[1].reason) == (0.0, "malformed") and "1000000" in found[1].details
    assert {r.reason for r in found if r.finished} == {"coin", "malformed"}
    assert {r.reason for r in found if not r.finished} == {"unfinished"}


# ---- verifiers that changed


def test_a_new_version_of_the_verifiers_is_recorded_and_the_run_goes_on(whole, tmp_path, monkeypatch):
    tiny_run.flip_coins()
    out = tmp_path / "out"
    rescoring.rescore(whole, out, Flags())
    assert json.loads((out / "rollouts/settings.json").read_text("utf-8"))["verifiers"] == [
        "bfcl_multi_turn/coin"
    ]
    assert {p.verifier for p in read_records(out / "profiles.jsonl", Profile)} == {"bfcl_multi_turn/coin"}
    kept = {c.id for c in read_records(out / "candidates.jsonl", Candidate)}
    stayed = [rollout for rollout in profiles.rollouts_in(whole / "rollouts") if rollout.candidate_id in kept]
    for old, new in zip(stayed, profiles.rollouts_in(out / "rollouts"), strict=True):
        assert dataclasses.replace(new, reward=old.reward, reason=old.reason, details=old.details) == old
    goes_on(out, monkeypatch)
    assert "The rollouts were scored again: " in write_report(out).read_text("utf-8")
    # the old directory is refused by the new verifiers, which is what re-scoring is for
    with pytest.raises(InputError, match=r"of another version: verifiers is .* with `pivotrl rescore"):
        profiles.find_pivots(shutil.copytree(whole, tmp_path / "old"))


@pytest.mark.parametrize("there", ["0", None])
def test_rewards_of_another_reply_parser_are_scored_again(whole, tmp_path, monkeypatch, there):
    """None: a profile that was made before the parser had a version."""
    old, out = shutil.copytree(whole, tmp_path / "old"), tmp_path / "out"

    def set_version(identity):
        identity.pop("reply_parser")
        identity.update({"reply_parser": there} if there else {})

    profiles.edit(old / "rollouts/settings.json", set_version)
    with pytest.raises(InputError, match=r"of another version: reply_parser is .* with `pivotrl rescore"):
        profiles.find_pivots(old)
    lines = rescoring.rescore(old, out, Flags())
    assert any(f"version {there}" in x or "before there were" in x for x in lines if "replies were read" in x)
    assert profile_of(out) == profile_of(whole)
    goes_on(out, monkeypatch)
    assert not any("replies were read" in line for line in rescoring.rescore(out, tmp_path / "2", Flags()))


def test_candidates_that_fail_the_self_check_now_are_left_out_as_train_would(whole, tmp_path, monkeypatch):
    """A whole trajectory among them, so that files of rollouts hold other trajectories."""
    every = read_records(whole / "candidates.jsonl", Candidate)
    gone = {c.id for c in every if c.trajectory_id == every[0].trajectory_id} | {every[-1].id}
    ids = {c.id: c for c in every}

    def verify(candidate, action):
        if candidate.id in gone:
            return Verdict(0.0, "impossible")
        return real(candidate, action)

    real = own_verifier(monkeypatch, verify)
    out = tmp_path / "out"
    lines = rescoring.rescore(whole, out, Flags())
    assert any(line.startswith(f"left out by the self-check: {len(gone)} ") for line in lines)
    assert [c.id for c in read_records(out / "candidates.jsonl", Candidate)] == [
        i for i in ids if i not in gone
    ]
    assert "rejects the demonstration itself" in (out / "skipped.jsonl").read_text("utf-8")
    assert len(list((out / "rollouts").glob("*.jsonl"))) == 5
    kept = [r for r in profiles.rollouts_in(whole / "rollouts") if r.candidate_id not in gone]
    assert profiles.rollouts_in(out / "rollouts") == kept
    page = json.loads((out / "run.json").read_text("utf-8"))
    assert page["skipped"]["self_check"] == len(gone)
    goes_on(out, monkeypatch)


def test_a_verifier_that_no_demonstration_passes_is_refused(whole, tmp_path, monkeypatch):
    own_verifier(monkeypatch, lambda candidate, action: Verdict(0.0, "never"))
    found = refusal(whole, tmp_path / "out")
    assert "no candidate would pass the self-check" in found and "rejects the demonstration itself" in found


def test_a_verifier_of_the_users_own(whole, tmp_path, monkeypatch):
    (tmp_path / "rescoring_pkg.py").write_text(
        "from pivotrl_jax import verifiers\n"
        "from pivotrl_jax.records import Verdict\n"
        "def strict(candidate, action):\n"
        "    own = verifiers.get(candidate.verifier).verify(candidate, action)\n"
        "    return own if candidate.is_call else verifiers.get('exact').verify(candidate, action)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    name, out = "rescoring_pkg:strict", tmp_path / "out"
    rescoring.rescore(whole, out, Flags(name))
    assert {p.verifier for p in read_records(out / "profiles.jsonl", Profile)} == {f"{name}/0"}
    before, after = (
        {r.candidate_id: r.reward for r in profiles.rollouts_in(x / "rollouts")} for x in (whole, out)
    )
    talk = {c.id for c in read_records(out / "candidates.jsonl", Candidate) if not c.is_call}
    assert {id for id in after if before[id] != after[id]} <= talk
    goes_on(out, monkeypatch, reward=name)
    assert "is 'nope', which is none of the verifiers" in refusal(whole, tmp_path / "x", "nope")


# ---- a judge


def test_a_judge_decides_what_the_rules_leave_open_and_is_asked_once(whole, tmp_path, monkeypatch):
    endpoint.quick(monkeypatch)

    def verify(candidate, action):
        rules = real(candidate, action)
        said = candidate.demonstration["content"]
        if candidate.is_call or rules.reward != 1 or action.content == said:
            return rules
        return Verdict(0.0, "other", "", Question("answer", candidate.id, "gold", action.content))

    real = own_verifier(monkeypatch, verify)
    run = shutil.copytree(whole, tmp_path / "run")
    with endpoint.serve(lambda n, prompt: endpoint.SAME) as (heard, url):
        rescoring.rescore(run, tmp_path / "out", Flags(judge_url=url, judge_model="m"))
        count = len(heard.requests)
        assert count > 0
        found = profiles.rollouts_in(tmp_path / "out" / "rollouts")
        assert {r.reward for r in found if r.reason == "judge_equal"} == {1.0}
        settings = json.loads((tmp_path / "out/rollouts/settings.json").read_text("utf-8"))
        assert settings["judge"]["model"] == "m"
        rescoring.rescore(run, tmp_path / "again", Flags(judge_url=url, judge_model="m"))
        assert len(heard.requests) == count, "replies are stored with the run"
        assert profile_of(tmp_path / "again") == profile_of(tmp_path / "out")
        goes_on(tmp_path / "out", monkeypatch, judge__base_url=url, judge__model="m")
        # without flags, the run's own judge
        rescoring.rescore(tmp_path / "out", tmp_path / "third", Flags())
        assert profiles.rollouts_in(tmp_path / "third" / "rollouts") == found and len(heard.requests) == count
    assert "needs --judge_url" in refusal(whole, tmp_path / "x", "", "", "m")


# ---- adaptive profiling


def test_groups_that_old_rewards_cut_short_and_new_ones_would_not_are_undecided(
    adaptive_whole, tmp_path, monkeypatch
):
    tiny_run.flip_coins()
    out = tmp_path / "out"
    lines = rescoring.rescore(adaptive_whole, out, Flags())
    old, new = ({}, {})
    for workdir, groups in ((adaptive_whole, old), (out, new)):
        for rollout in profiles.rollouts_in(workdir / "rollouts"):
            groups.setdefault(rollout.candidate_id, []).append(rollout.reward)
    rule = adaptive.StoppingRule(4, 1.0, 2, 0.2)
    old_plan, plan = (rule.plan(adaptive.pass_rates(list(groups.values()))) for groups in (old, new))
    undecided = [
        id for id in new if not plan.decided(new[id]) and (old[id] != new[id] or old_plan.decided(old[id]))
    ]
    assert undecided, "the coin must leave some open, or this tests nothing"
    assert json.loads((out / "rollouts/rescored.json").read_text("utf-8"))["undecided"] == undecided
    assert any(f"now {len(undecided)} of them would have gone on" in line for line in lines)
    found = {p.candidate_id: p for p in read_records(out / "profiles.jsonl", Profile)}
    assert all(found[id].early == "undecided" for id in undecided)
    assert {id for id, p in found.items() if p.early == "undecided"} == set(undecided)
    selection = selection_lib.select(list(found.values()), 1.0, 4)
    assert selection.counts()["undecided"] == len(undecided)
    assert not set(undecided) & {p.candidate.id for p in pivots(out)}
    goes_on(out, monkeypatch, **profiles.ADAPTIVE)
    write_report(out)


def test_a_profile_with_the_stopping_rule_of_another_version_is_refused(adaptive_whole, tmp_path):
    run = shutil.copytree(adaptive_whole, tmp_path / "run")
    with_old_rule = lambda settings: settings.update(stopping={"round": 2, "error": 0.02})  # noqa: E731
    profiles.edit(run / "rollouts" / "settings.json", with_old_rule)
    assert "stopping is the rule of another version: use that version" in refusal(run, tmp_path / "out")


def test_an_adaptive_profile_with_the_same_rewards_stays_as_it_is(adaptive_whole, tmp_path):
    rescoring.rescore(adaptive_whole, tmp_path / "out", Flags())
    assert profile_of(tmp_path / "out") == profile_of(adaptive_whole)
    assert profiling.undecided_in(tmp_path / "out" / "rollouts") == frozenset()


def test_rewards_that_are_not_0_or_1_in_a_short_group_are_undecided(tmp_path, monkeypatch):
    def verify(candidate, action):
        verdict = real(candidate, action)
        gold = candidates.message_to_action(candidate.demonstration)
        same = (action.calls, action.content) == (gold.calls, gold.content)
        return verdict if not verdict.reward or same else dataclasses.replace(verdict, reward=0.5)

    # of this seed's samples, some in a short group pass and are not the demonstration
    seed = {"profile__seed": 1}
    profiles.find_pivots(tmp_path / "run", **profiles.ADAPTIVE, **seed)
    real = own_verifier(monkeypatch, verify)
    out = tmp_path / "out"
    rescoring.rescore(tmp_path / "run", out, Flags())
    found = read_records(out / "profiles.jsonl", Profile)
    partial = [p for p in found if 0.5 in p.rewards]
    assert any(len(p.rewards) < 4 for p in partial)
    assert all(p.early == ("undecided" if len(p.rewards) < 4 else "") for p in partial)
    goes_on(out, monkeypatch, **profiles.ADAPTIVE, **seed)


# ---- where it is written


def test_in_place_the_old_files_are_kept_beside(whole, tmp_path, monkeypatch):
    run = shutil.copytree(whole, tmp_path / "run")
    before = profiles.files(run)
    lines = rescoring.rescore(run, None, Flags("exact"))
    assert f"the files of before are in {run / 'before_rescoring_1'}" in lines
    assert profiles.files(run / "before_rescoring_1") == before
    assert sorted(p.name for p in run.iterdir() if p.name.startswith(".")) == []
    rescoring.rescore(run, None, Flags("functional"))
    assert (run / "before_rescoring_2" / "rescored.txt").is_file()
    assert profiles.files(run / "before_rescoring_1") == before
    assert {name: text for name, text in profile_of(run).items() if "before_" not in name} == before
    goes_on(run, monkeypatch)
    (run / "checkpoints").mkdir()
    assert "was trained on its pivots is there (checkpoints)" in refusal(run, None)


def test_nothing_is_written_over_what_is_there(whole, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is there already, and nothing is written over it"):
        rescoring.rescore(whole, tmp_path, Flags())


# ---- what is needed, and said when it is missing


def test_the_tokenizer_and_template_of_the_run_are_needed(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    profiles.edit(run / "run.json", lambda page: page["config"]["model"].update(checkpoint="/nosuch"))
    found = refusal(run, tmp_path / "out")
    assert "which cannot be read" in found and "/nosuch" in found and "--checkpoint" in found
    rescoring.rescore(run, tmp_path / "out", Flags(checkpoint="embedded"))
    assert profile_of(tmp_path / "out") == profile_of(whole)
    page = json.loads((tmp_path / "out" / "run.json").read_text("utf-8"))
    assert page["config"]["model"]["checkpoint"] == "embedded"
    other = shutil.copytree(tiny_run.ASSETS, tmp_path / "other")
    text = (other / "chat_template.jinja").read_text("utf-8")
    (other / "chat_template.jinja").write_text(
        text + "{{ '' if add_generation_prompt else '\\n' }} ", "utf-8"
    )
    found = refusal(run, tmp_path / "x", "", "", "", str(other))
    assert "do not write the prompts that were profiled" in found


def test_what_is_no_finished_profile_is_named(whole, tmp_path):
    out = tmp_path / "out"
    assert "/nosuch/run.json: no such file" in refusal(Path("/nosuch"), out)
    run = shutil.copytree(whole, tmp_path / "run")
    (run / "rollouts" / "00003.jsonl").unlink()
    assert "1 of 6 files of rollouts are missing (00003.jsonl)" in refusal(run, out)
    profiles.edit(run / "rollouts/settings.json", lambda x: x.update(shard={"name": "1/2", "files": [0, 1]}))
    assert "holds a shard of a profile; put all shards together" in refusal(run, out)
    profiles.edit(run / "run.json", lambda page: page["config"].update(strange=1))
    profiles.edit(run / "rollouts/settings.json", lambda x: x.pop("shard"))
    shutil.copyfile(whole / "rollouts/00003.jsonl", run / "rollouts/00003.jsonl")
    assert "has fields that are not known here: strange" in refusal(run, out)


# ---- the table


def test_the_table_counts_every_change():
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    one = dataclasses.replace(tiny_run.candidate("a"), demonstration=call)
    two = tiny_run.candidate("b")

    def group(*rewards):
        return [
            Rollout(one.id, i, [], [], [], True, "text\x1b[2J", r, f"r{r}") for i, r in enumerate(rewards)
        ]

    verdicts = changes.Verdicts()
    verdicts.add(one, ("v/1", "v/2"), group(0.0, 1.0, 1.0, None), group(1.0, 0.0, 1.0, 0.0))
    verdicts.add(two, ("v/1", "v/2"), group(1.0, 0.5), group(None, 0.7))
    assert verdicts.total == {
        **{"rollouts": 6, "passed before": 4, "passed now": 3, "same": 1, "fail -> pass": 1},
        **{"pass -> fail": 1, "undecided -> fail": 1, "pass -> undecided": 1, "other reward": 1},
    }
    text = "\n".join(verdicts.lines())
    assert text.startswith("5 of 6 rewards changed") and "v/1 -> v/2" in text
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}
    assert rows["f"][:3] == ["4", "2", "2"] and rows["(talk)"][:3] == ["2", "2", "1"]
    assert "fail -> pass       r0.0           r1.0               1" in text
    examples = "\n".join(verdicts.example_lines())
    assert "'text\\x1b[2J'" in examples and "\x1b" not in examples, "what a model wrote is escaped"


def test_outcomes_gained_lost_and_left_out():
    before = {"a": "pivot", "b": "all_fail", "c": "pivot", "d": "all_pass"}
    after = {"a": "pivot", "b": "pivot", "d": "too_easy"}
    assert changes.gained_and_lost(before, after) == (["b"], ["c"])
    lines = changes.outcome_lines(before, after)
    assert [line.split() for line in lines[1:]] == [
        ["all", "fail", "pivots", "1"],
        ["pivots", "left", "out", "1"],
        ["all", "pass", "too", "easy", "1"],
        ["the", "same:", "1"],
    ]
    assert changes.outcome_lines(after, after) == ["no outcome changed"]


def test_a_verifier_that_rewards_all_candidates_goes_through_the_self_check():
    lenient = Verifier("lenient", "1", lambda candidate, action: Verdict(1.0, "ok"))
    verifiers.VERIFIERS["lenient"] = lenient
    verifiers.VERIFIERS["toy"] = tiny_run.verifier(lambda ids: True)
    some = [dataclasses.replace(tiny_run.candidate("a"), verifier="exact")]
    assert candidates.self_check(some).kept == candidates.self_check(some, rewarding="exact").kept == some
    left_out = candidates.self_check(some, rewarding="lenient").left_out
    assert left_out == {"a@0": "lenient/1 gives an empty action a reward of 1"}
