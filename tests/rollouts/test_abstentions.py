"""A judge's answers and abstentions in rollouts, profiles, training, evaluation and the report."""

import dataclasses
import importlib.util
import json
import math
import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from support import endpoint, tiny_run
from support.endpoint import OTHER, SAME, TEMPLATES, serve
from support.fabricated_run import data_in
from support.learning import config_of, fit
from support.paths import ROOT
from support.profiles import rollouts_in

from pivotrl_jax import records, verifiers
from pivotrl_jax.checkpoints.orbax import Checkpoints
from pivotrl_jax.evaluation import measures
from pivotrl_jax.pivots import profiling
from pivotrl_jax.pivots import selection as selection_lib
from pivotrl_jax.records import InputError, Profile, Prompt, Question, Rollout, Verdict
from pivotrl_jax.report import report
from pivotrl_jax.run import check_config
from pivotrl_jax.training import advantages as advantages_lib
from pivotrl_jax.training import batches, loop, reprofile
from pivotrl_jax.verifiers import judge
from pivotrl_jax.verifiers.base import Verifier
from pivotrl_jax.verifiers.judge import Judge


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    endpoint.quick(monkeypatch)


# ---- abstentions further down


def profiled(*values) -> Profile:
    candidate = tiny_run.candidate("t")
    return selection_lib.make_profile(candidate, values, "pi", "v/1", 1.0, 0)


def test_a_profile_is_of_the_decided_rewards():
    p = profiled(1.0, None, 0.0, None)
    assert (p.rewards, p.mean, p.variance, p.abstained) == ([1.0, 0.0], 0.5, 0.25, 2)
    assert profiled(1.0, 0.0).abstained == 0
    assert selection_lib.outcome(p, 0.6) == "pivot"
    assert selection_lib.outcome(profiled(1.0, None), 0.6) == "all_pass"


def test_a_candidate_that_nobody_could_decide_is_undecided_and_in_no_mean():
    empty = profiled(None, None)
    assert (empty.rewards, empty.mean, empty.variance, empty.abstained) == ([], 0.0, 0.0, 2)
    others = [dataclasses.replace(profiled(1.0, 0.0, 1.0, 1.0), candidate_id="x")]
    selection = selection_lib.select([empty, *others], 0.6)
    assert selection.outcomes == {"t@0": "undecided", "x": "too_easy"}
    assert (selection.mean(), selection.uninformative()) == (0.75, 0.0)
    assert selection.table()[0].split()[7:10] == ["too", "easy", "undecided"]
    assert selection.table()[2].split()[1:] == ["2", "0", "0", "0", "1", "1", "0", "%", "0.750"]
    assert "undecided" not in selection_lib.select(others, 0.6).table()[0]
    assert math.isnan(selection_lib.select([empty], 0.6).mean())


def test_advantages_are_those_of_the_decided_rewards():
    none = float("nan")
    got = advantages_lib.group_advantages(
        [[1, none, 0, 0], [none] * 4, [none, 1, none, none], [1, 0, 0, 0]], 1e-6
    )
    alone = advantages_lib.group_advantages([[1, 0, 0]], 1e-6)[0]
    assert got[0, [0, 2, 3]].tolist() == alone.tolist() and got[0, 1] == 0
    assert not got[1:3].any()
    assert got[3].tolist() == advantages_lib.group_advantages([[1, 0, 0, 0]], 1e-6)[0].tolist()


def sampled(reward, tokens=3, g=0) -> Rollout:
    lower = [-1.0 - g] * tokens
    return Rollout("c", g, list(range(5, 5 + tokens)), lower, lower, True, "", reward, "r")


def test_metrics_are_of_the_decided_rewards():
    seen = batches.group_metrics([[sampled(1.0), sampled(None)], [sampled(None), sampled(None)]])
    assert (seen["reward_mean"], seen["reward_std"], seen["mixed_groups"]) == (1.0, 0.0, 0.0)
    assert seen["abstained"] == 3
    nothing = batches.group_metrics([[sampled(None)]])
    assert math.isnan(nothing["reward_mean"]) and nothing["abstained"] == 1


def batch_of(group):
    prompts = [Prompt(tiny_run.candidate("t"), [1, 2, 3])]
    grpo = config_of().grpo
    trained_PG = advantages_lib.trained_of([group], grpo)
    lengths = np.array([[len(r.token_ids) for r in group]])
    weights = advantages_lib.token_weights(lengths * trained_PG, "token_mean", 0)
    advantages = advantages_lib.advantages_of([group], grpo)
    return batches.grpo_batch(prompts, [group], advantages, weights, tiny_run.TRAIN_SLOTS, tiny_run.ROWS)


def test_an_abstention_teaches_nothing_and_is_in_no_denominator():
    group = [sampled(1.0, 3, 0), sampled(None, 4, 1), sampled(0.0, 5, 2)]
    batch = batch_of(group)
    weights = batch["weight"][batch["weight"] > 0]
    assert weights.tolist() == [np.float32(1 / 8)] * 8
    for field in ("advantage", "behaviour_log_prob"):
        assert not batch[field][batch["weight"] == 0].any(), "an untrained slot holds zeros in every field"
    learner = tiny_run.learner()
    with_it = learner.step(learner.init_state(tiny_run.policy()), batch)[1]
    without = learner.step(learner.init_state(tiny_run.policy()), batch_of([group[0], group[2]]))[1]
    assert with_it["tokens"] == 8
    assert with_it["loss"] == pytest.approx(without["loss"], rel=1e-5)
    assert with_it["grad_norm"] == pytest.approx(without["grad_norm"], rel=1e-4)


def test_a_batch_of_abstentions_alone_has_no_gradient():
    learner = tiny_run.learner()
    state = learner.init_state(tiny_run.policy())
    _, values = learner.step(state, batch_of([sampled(None), sampled(None, 2, 1)]))
    assert (values["loss"], values["grad_norm"]) == (0, 0)


def open_verifier() -> Verifier:
    """Asks about every action; a malformed one would be 0."""

    def verify(candidate, action):
        return Verdict(0.0, "unlike", "", Question("answer", candidate.id, "gold", action.text))

    return Verifier("open", "1", verify, lambda case: None)


def test_rollouts_come_back_settled(monkeypatch, tmp_path):
    prompts = opened(2, monkeypatch)

    def behave(n, prompt):
        first = int(prompt.split("<b>\n")[1].split()[0])
        return {0: SAME, 1: OTHER, 2: "who knows"}[first % 3]

    def roll_out(asks):
        return tiny_run.rollouts(judge=asks).sample(tiny_run.policy(), prompts, 4, jax.random.key(10))

    with serve(behave) as (heard, url):
        groups = roll_out(Judge(url, "m", TEMPLATES, swap=False, cache=tmp_path))
        count = len(heard.requests)
        assert roll_out(Judge(url, "m", TEMPLATES, swap=False, cache=tmp_path)) == groups
        assert len(heard.requests) == count, "the same rollouts ask nothing"
    flat = [r for group in groups for r in group]
    assert [r.candidate_id for r in flat] == [p.candidate.id for p in prompts for _ in range(4)]
    assert [r.sample for r in flat] == [0, 1, 2, 3] * len(prompts)
    finished = [r for r in flat if r.finished]
    assert [r.reward for r in finished] == [(1.0, 0.0, None)[r.token_ids[0] % 3] for r in finished]
    assert {r.reason for r in flat if r.reward is None} <= {"judge_abstained"}
    assert all(r.reason == "unfinished" for r in flat if not r.finished), "never asked about"
    assert {r.reason for r in finished} >= {"judge_equal", "judge_different"}
    unsettled = [r for group in roll_out(None) for r in group]
    assert {r.reason for r in unsettled if r.finished} == {"unlike"}


def turn(id, mean, is_call=True):
    return {
        "id": id,
        "scenario": id,
        "verifier": "terminal",
        "is_call": is_call,
        "mean": mean,
        "samples": 1,
        "abstained": mean is None,
    }


def test_evaluation_leaves_abstentions_out_and_pairs_what_both_decided():
    def results(*means):
        turns = [turn(f"t{i}", mean) for i, mean in enumerate(means)]
        return {"episodes": [], "turns": turns, "skills": [], "rollout_turns": len(turns)}

    before, after = results(0.0, 1.0, None, 0.0), results(1.0, None, 1.0, 0.0)
    assert measures.summarise(before)["call_turn_pass"]["value"] == pytest.approx(1 / 3)
    assert measures.summarise(before)["call_turn_pass"]["n"] == 3
    assert measures.compare(before, after)["call_turn_pass"]["value"] == 0.5
    assert measures.abstentions(before) == 1


# ---- profiling and training with a judge


def by_first_token(n, prompt):
    tags = ("<a>\n", "<b>\n")
    (first,) = {prompt.split(tag)[1].split()[0] for tag in tags} - {"gold"}
    return SAME if int(first) % 2 else OTHER


def opened(count, monkeypatch):
    monkeypatch.setitem(verifiers.VERIFIERS, "open", open_verifier())
    return [
        Prompt(dataclasses.replace(p.candidate, verifier="open"), p.ids)
        for p in tiny_run.conversations(count)
    ]


def test_profiles_say_who_judged_and_take_no_other_judge(monkeypatch, tmp_path):
    prompts = opened(1, monkeypatch)
    profile_settings = profiling.Settings("pi", {}, group_size=4, seed=0, trajectories_per_shard=2)

    def profile(directory, asks=None):
        return profiling.profile_candidates(
            tiny_run.rollouts(judge=asks), tiny_run.policy(), prompts, profile_settings, directory, True
        )

    def settings(directory):
        return json.loads((directory / "settings.json").read_text())

    with serve(by_first_token) as (_, url):
        asks = Judge(url, "m", TEMPLATES, cache=tmp_path / "judge")
        profiles, rollouts = profile(tmp_path / "with", asks), rollouts_in(tmp_path / "with")
        assert {r.reason for r in rollouts if r.finished} <= {"judge_equal", "judge_different"}
        said = settings(tmp_path / "with")
        assert said["judge"] == asks.settings and "model" in said["judge"] and url not in json.dumps(said)
        moved = dataclasses.replace(asks, base_url="http://127.0.0.1:9/v1", concurrency=1, retries=0)
        assert profile(tmp_path / "with", moved) == profiles, "another place and pace is the same judge"
        for other in (None, dataclasses.replace(asks, model="m2"), dataclasses.replace(asks, swap=False)):
            with pytest.raises(InputError, match=r"holds rollouts of another run: judge\."):
                profile(tmp_path / "with", other)
    profile(tmp_path / "without")
    assert "judge" not in settings(tmp_path / "without")


def test_a_judge_that_goes_down_in_training_costs_no_step(monkeypatch, tmp_path):
    prompts = opened(2, monkeypatch)

    def learn(name, url, on_step=lambda step: None):
        workdir = tmp_path / name
        asks = Judge(url, "m", TEMPLATES, swap=False, retries=0, cache=workdir / "judge")
        with Checkpoints(workdir / "checkpoints", {}, 2) as checkpoints:
            io = loop.LoopIO(checkpoints, workdir, True, on_step=on_step)
            rollouts, phases = tiny_run.rollouts(judge=asks), reprofile.OnePhase(prompts)
            state, totals = fit(config_of(), rollouts, tiny_run.learner(), phases, io, 100)
        return jax.tree.map(np.asarray, jax.device_get(state.params)), totals

    steps = []
    with serve(by_first_token) as (heard, url):
        whole, totals = learn("whole", url)

        def down(step):
            heard.behave = lambda n, prompt: (503, {}, b"")

        with pytest.raises(InputError, match=r"did not answer .* are stored in"):
            learn("cut", url, lambda step: (steps.append(step), down(step) if step == 3 else None))
        heard.behave = by_first_token
        again, totals_again = learn("cut", url, steps.append)
    assert steps == [1, 2, 3, 4], "it goes on where it stopped"
    assert jax.tree.all(jax.tree.map(lambda x, y: x.tobytes() == y.tobytes(), again, whole))
    assert totals_again["rollout_turns"] == totals["rollout_turns"] == 4 * 2 * 4


# ---- the config, and several processes


def config():
    spec = importlib.util.spec_from_file_location("bfcl", ROOT / "configs/bfcl.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def test_a_config_without_an_address_has_no_judge(tmp_path):
    c = config()
    assert judge.make_judge(c.judge, tmp_path) is None
    c.judge.base_url, c.judge.model, c.judge.retries = "http://host/v1", "m", 2
    made = judge.make_judge(c.judge, tmp_path)
    assert made == Judge(
        "http://host/v1", "m", TEMPLATES, retries=2, cache=tmp_path, on_first_process=made.on_first_process
    )
    c.judge.model = ""
    with pytest.raises(InputError, match="no model is named"):
        judge.make_judge(c.judge, tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("base_url", "localhost:8000", "want the address of an OpenAI-compatible endpoint"),
        ("concurrency", 0, "want a whole number from 1 up"),
        ("timeout", 0.0, "want a number above 0"),
        ("retries", -1, "want a whole number from 0 up"),
        ("reward_if_swap_fails", math.nan, "want a finite number"),
    ],
)
def test_judge_settings_that_cannot_work_are_refused(name, value, sentence):
    c = config()
    c.judge[name] = value
    with pytest.raises(InputError, match=rf"config\.judge\.{name} is .*{sentence}"):
        check_config.check(c)


ONCE = """
import sys
from absl import flags
from pivotrl_jax.run import hosts; from pivotrl_jax import records
flags.FLAGS(sys.argv)
hosts.join()
import jax
def compute():
    return [jax.process_index(), None, "\\u00fc"]
def fail():
    raise records.InputError("down")
said = [hosts.on_first_process(compute)]
try:
    hosts.on_first_process(fail)
except records.InputError as e:
    said.append(str(e))
print(ascii(said), file=sys.stderr)
hosts.leave()
"""


def test_the_first_process_asks_for_all():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        shared = [f"--coordinator=127.0.0.1:{s.getsockname()[1]}", "--processes=2"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("XLA_")}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ONCE, *shared, f"--process_id={i}"],
            **{"cwd": ROOT, "stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL, "text": True},
            env=environment,
        )
        for i in (0, 1)
    ]
    for process in processes:
        _, err = process.communicate(timeout=120)
        assert "[[0, None, '\\xfc'], 'down']" in err and process.returncode == 0, err[-2000:]


def test_the_report_shows_what_nobody_could_decide(tmp_path):
    candidates = [tiny_run.candidate("t", turn) for turn in range(2)]
    values = ([None, 1.0, 0.0, None], [None] * 4)
    profiles = [selection_lib.make_profile(c, v, "pi", "v/1", 1.0, 0) for c, v in zip(candidates, values)]
    selection = selection_lib.select(profiles, 0.6)
    records.write_json(tmp_path / "run.json", {"config": {"name": "x", "profile": {"lambda_diff": 0.6}}})
    records.write_records(tmp_path / "profiles.jsonl", profiles)
    records.write_records(tmp_path / "pivots.jsonl", selection.pivots(candidates))
    rollouts = [
        Rollout(c.id, i, [1], [0.0], [0.0], True, f"said {i}", r, judge.ABSTAINED if r is None else "r")
        for c, v in zip(candidates, values)
        for i, r in enumerate(v)
    ]
    records.write_records(tmp_path / "rollouts" / "00000.jsonl", rollouts)
    page = report.write_report(tmp_path).read_text("utf-8")
    (detail,) = data_in(page)["00000"]
    said = {action[5]: (action[0], action[1], action[3]) for action in detail["actions"]}
    assert set(said) == {f"said {i}" for i in range(4)}, "abstentions shift no one out"
    assert said["said 0"] == said["said 3"] == ("open", None, judge.ABSTAINED)
    assert "mean 0.500, variance 0.250" in detail["about"] and detail["about"].endswith(" · 2 undecided")
    assert "undecided actions</span><b>6</b>" in page and "undecided" in page
