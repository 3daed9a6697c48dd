"""Validation while training: on items of its own, with the numbers that evaluation gives, the same after a
kill."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from support import tiny_run
from support.configs import CONFIGS
from support.forests import MOE
from support.learning import Killed, equal, fit, metrics
from support.learning import config_of as training_config

from pivotrl_jax import verifiers
from pivotrl_jax.checkpoints.orbax import Checkpoints
from pivotrl_jax.evaluation import evaluation, validation
from pivotrl_jax.records import InputError, Trajectory
from pivotrl_jax.rollouts.rollout import Rollouts
from pivotrl_jax.run import check_config
from pivotrl_jax.training import loop, reprofile
from pivotrl_jax.trajectories import extract, sources

PROMPTS = tiny_run.conversations(3)


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setitem(verifiers.VERIFIERS, "toy", tiny_run.verifier(tiny_run.odd_first))
    monkeypatch.setattr(
        evaluation, "make_rollouts", lambda run, batch, trained: Rollouts(tiny_run.actor(), run.chat)
    )


def config_of(**changes):
    config = CONFIGS.get_config()
    config.data.demonstrations, config.data.held_out_tasks = 6, 8
    config.validation.every, config.validation.tasks = 2, 5
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return config


# ---- which items


def said(tasks):
    return {str(task.user_turns) for task in tasks}


def test_the_toolbox_writes_other_tasks():
    config = config_of(data__held_out_tasks=200, validation__tasks=200)
    found, held = sources.load_with_validation(config)
    assert found == sources.load(config.data, config.seed), "nothing is taken from training"
    assert len(held.tasks) == len(held.trajectories) == 200
    assert not said(held.tasks) & (said(found.held_out_tasks) | said(found.train_tasks))
    assert not {t.id for t in held.trajectories} & {t.id for t in [*found.held_out, *found.demonstrations]}
    assert (
        sources.load_with_validation(config_of(validation__seed=2))[1].tasks
        != sources.load_with_validation(config_of())[1].tasks
    )


def trajectory(id, scenario, count=1):
    turns = [m for n in range(count) for m in user_and_assistant(f"{id} {n}")]
    return Trajectory(id, turns, [], "made up", scenario, "toy")


def user_and_assistant(text):
    return [{"role": "user", "content": text}, {"role": "assistant", "content": "1"}]


def test_other_sources_give_scenarios_that_are_not_trained_on(tmp_path):
    file = tmp_path / "data.jsonl"
    rows = [{"messages": user_and_assistant(f"{s} {n}"), "scenario": s} for s in "abcdefgh" for n in range(2)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = config_of(data__source=str(file), validation__share=0.5)
    plain, (found, held) = sources.load(config.data, config.seed), sources.load_with_validation(config)
    parts = [{t.scenario for t in part} for part in (found.demonstrations, held.trajectories, found.held_out)]
    assert [len(part) for part in parts] == [3, 3, 2] and len(set.union(*parts)) == 8
    assert found.held_out == plain.held_out and held.tasks == []
    assert len(held.trajectories) == 6, "whole scenarios"
    config.validation.every = 0
    assert sources.load_with_validation(config) == (plain, sources.ValidationSet([], []))


def test_a_number_of_turns_can_be_asked_for(tmp_path):
    file = tmp_path / "data.jsonl"
    rows = [{"messages": user_and_assistant(f"{s} {n}"), "scenario": s} for s in "abcdefgh" for n in range(2)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = config_of(data__source=str(file), data__held_out_share=0.0, validation__turns=3)
    found, held = sources.load_with_validation(config)
    assert len(held.trajectories) == 4, "whole scenarios"
    assert {t.scenario for t in held.trajectories}.isdisjoint(t.scenario for t in found.demonstrations)


def test_tasks_that_can_be_played_go_with_their_trajectories(monkeypatch):
    demonstrations = [trajectory(name, name) for name in "abcdef"]
    tasks = [SimpleNamespace(id=name) for name in "abcd"]  # not all sources' turns can be played
    loaded = sources.Data(demonstrations, [], [], {}, tasks)
    monkeypatch.setattr(sources, "load", lambda *_: loaded)
    found, held = sources.load_with_validation(config_of(data__source="bfcl", validation__share=0.5))
    taken = {t.id for t in held.trajectories}
    assert len(taken) == 3 and taken.isdisjoint(t.id for t in found.demonstrations)
    assert {task.id for task in held.tasks} == taken & set("abcd")
    assert {task.id for task in found.train_tasks} == set("abcd") - taken


def test_one_scenario_cannot_be_divided(monkeypatch):
    monkeypatch.setattr(sources, "load", lambda *_: sources.Data([trajectory("a", "s")], [], [], {}))
    with pytest.raises(InputError, match=r"config\.validation\.share is 0\.1, but 1 training scenario"):
        sources.load_with_validation(config_of(data__source="x.jsonl"))


# ---- the numbers


class Chat(tiny_run.Numbers):
    """Five tokens for every message."""

    tokenizer = None

    def render_all(self, conversations, tools):
        return ["\n".join(message["content"] for message in messages) for messages in conversations]

    def encode(self, text):
        def ids(line):
            return np.random.default_rng(list(line.encode())).integers(1, MOE.vocab_size, 5).tolist()

        return [token for line in text.split("\n") for token in ids(line)]


HELD = sources.ValidationSet([trajectory(f"v{n}", f"v{n}", 3) for n in range(6)], [])


def a_run(**changes):
    return SimpleNamespace(
        config=config_of(**changes),
        chat=Chat(),
        trained_config=MOE,
        judge=None,
        facts={},
    )


def test_it_is_what_evaluation_says_of_the_same_parameters_and_stream():
    run = a_run(validation__samples=2, seed=7)
    validate = validation.make(run, HELD)
    params = tiny_run.policy()
    assert validate(1, params) == validate(3, params) == {}
    prompts = extract.render(Chat(), extract.extract(HELD.trajectories))
    found = []
    for steps in (2, 4):
        stream = jax.random.fold_in(validation.key_of(7, steps), 1)  # evaluation's second: of turns
        rollouts = Rollouts(tiny_run.actor(), Chat())
        scored = evaluation.score_turns(rollouts, rollouts.actor.place(params), prompts, 2, stream)
        values = validate(steps, params)
        mean = np.mean([turn["mean"] for turn in scored])
        assert values.pop("validation/seconds") >= 0
        assert values == {
            "validation/turn_pass": pytest.approx(mean, abs=1e-12),
            "validation/text_turn_pass": pytest.approx(mean, abs=1e-12),
            "validation/rollout_turns": 2 * len(prompts),
        }
        found.append([turn["mean"] for turn in scored])
    assert found[0] != found[1], "every validation draws anew"
    assert run.facts["validation"] == {"turns": 18, "prompts_too_long": 0}


def test_means_by_hand():
    turn = {"scenario": "s", "verifier": "swe", "is_call": True}
    turns = [
        {**turn, "mean": 1.0},
        {**turn, "mean": 0.5},
        {**turn, "mean": None},
        {**turn, "mean": 0.0, "is_call": False, "verifier": "search"},
    ]
    episodes = [{"row": "r", "success": s} for s in (1.0, 0.0)]
    results = {"episodes": episodes, "turns": turns, "skills": [], "rollout_turns": 9}
    assert validation.metrics_of(results) == {
        "validation/turn_pass": 0.5,
        "validation/episode_success": 0.5,
        "validation/call_turn_pass": 0.75,
        "validation/text_turn_pass": 0.0,
        "validation/verifier/swe": 0.75,
        "validation/verifier/search": 0.0,
        "validation/rollout_turns": 9,
    }
    nobody = {**results, "episodes": [], "turns": [{**turn, "mean": None}]}
    assert np.isnan(validation.metrics_of(nobody)["validation/turn_pass"])


def test_prompts_that_are_all_too_long_are_one_sentence():
    with pytest.raises(InputError, match="no turn is left for validation: 18 prompts are longer than"):
        validation.make(a_run(data__max_prompt_tokens=4), HELD)


def test_a_set_without_any_turn_is_one_sentence():
    nothing = [dataclasses.replace(t, skip=dict.fromkeys(range(9), "self_check")) for t in HELD.trajectories]
    with pytest.raises(InputError, match="no turn is left for validation: the self-check accepts none"):
        validation.make(a_run(), sources.ValidationSet(nothing, []))


# ---- in the loop


def learn(workdir, validate, steps=4, on_step=lambda step: None):
    with Checkpoints(workdir / "checkpoints", {}, 2) as checkpoints:
        io = loop.LoopIO(checkpoints, workdir, True, validate, on_step)
        phases = reprofile.OnePhase(PROMPTS)
        state, _ = fit(training_config(steps=steps), tiny_run.rollouts(), tiny_run.learner(), phases, io)
    return jax.tree.map(np.asarray, jax.device_get(state.params))


def test_it_changes_no_step_and_a_killed_run_has_the_same_numbers(tmp_path):
    params = learn(tmp_path / "with", validation.make(a_run(validation__every=1), HELD))
    lines = metrics(tmp_path / "with")
    passed = [line["validation/turn_pass"] for line in lines]
    assert len(passed) == 4 and len(set(passed)) > 1
    off = validation.make(a_run(validation__every=0), HELD)
    assert equal(learn(tmp_path / "without", off), params)
    kept = [{k: v for k, v in line.items() if "validation" not in k} for line in lines]
    assert metrics(tmp_path / "without") == kept

    def kill(step):
        if step == 3:
            raise Killed

    with pytest.raises(Killed):
        learn(tmp_path / "cut", validation.make(a_run(validation__every=1), HELD), on_step=kill)
    assert equal(learn(tmp_path / "cut", validation.make(a_run(validation__every=1), HELD)), params)
    assert metrics(tmp_path / "cut") == lines


def test_a_line_holds_the_validation_of_the_parameters_after_its_step(tmp_path):
    """Also after the last one: line 1 is of a state that took 2 steps."""
    validate = validation.make(a_run(), HELD)
    params = learn(tmp_path, validate, steps=2)
    lines = metrics(tmp_path)
    assert "validation/turn_pass" not in lines[0]
    again = validate(2, jax.tree.map(jax.numpy.asarray, params))
    assert lines[1]["validation/turn_pass"] == again["validation/turn_pass"]


# ---- the config


@pytest.mark.parametrize(
    "changes, sentence",
    [
        (
            {"validation__seed": 0},
            r"config\.validation\.seed is 0, the same as config\.data\.held_out_seed, so",
        ),
        ({"validation__share": 1.0}, r"config\.validation\.share is 1\.0; want a number above 0 and below 1"),
        ({"validation__tasks": 0}, r"config\.validation\.tasks is 0; want a whole number from 1 up"),
        ({"reprofile__std_fraction": 1.0}, r"config\.reprofile\.std_fraction is 1\.0; want a number from 0"),
        (
            {"reprofile__patience": 3, "validation__every": 0},
            r"config\.reprofile\.patience is 3 and config\.validation\.every is 0, so there is no validation",
        ),
        (
            {"reprofile__std_fraction": 0.5, "method": "sft"},
            r"config\.reprofile\.std_fraction is 0\.5, which config\.method 'sft' does not do: it has",
        ),
        ({"reprofile__patience": 3, "method": "random_turns"}, r"config\.reprofile\.patience is 3, which"),
        ({"validation__every": 41}, r"config\.validation\.every is 41 and config\.grpo\.steps is 40"),
        (
            {"reprofile__std_fraction": 0.5, "reprofile__std_window": 40},
            r"config\.reprofile\.std_window is 40 and config\.grpo\.steps is 40, so training ends",
        ),
    ],
)
def test_configs_that_cannot_work_are_refused_by_name(changes, sentence):
    config = config_of(**changes)
    with pytest.raises(InputError, match=sentence):
        check_config.check(config)
        check_config.check_training(config)


@pytest.mark.parametrize(
    "changes",
    [
        {"reprofile__patience": 3},
        {"reprofile__std_fraction": 0.5, "validation__every": 0},
        {"validation__seed": 0, "data__source": "bfcl"},
        {"validation__seed": 0, "validation__every": 0},
        {"method": "sft"},
        {"method": "sft", "validation__every": 41},
        {"validation__every": 40},
        {"reprofile__std_fraction": 0.5, "reprofile__std_window": 39},
    ],
)
def test_configs_that_work_pass(changes):
    check_config.check(config_of(**changes))
    check_config.check_training(config_of(**changes))
