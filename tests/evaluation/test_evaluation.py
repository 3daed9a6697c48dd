"""Evaluation: experts succeed and garbage fails, intervals by hand, results read back for the same identity
only."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from support import tiny_run
from support.configs import CONFIGS
from support.forests import MOE

from pivotrl_jax import pipeline
from pivotrl_jax.chat import template
from pivotrl_jax.environments import toolbox
from pivotrl_jax.evaluation import evaluation, intervals, measures, skills
from pivotrl_jax.records import InputError, Trajectory
from pivotrl_jax.rollouts.actor import Completion
from pivotrl_jax.rollouts.rollout import Rollouts
from pivotrl_jax.trajectories import extract, sources
from pivotrl_jax.verifiers.cases import calls_message

STREAM = jax.random.key(0)
UNFINISHED = 1  # a scripted completion that ends in this id was cut at the token limit
GARBAGE = ("zq zq zq", "", '<tool_call>\n{"name": "made_up", "arguments": {}}\n</tool_call>', "<tool_call>{")


@pytest.fixture(scope="module")
def chat():
    return template.load_chat(tiny_run.ASSETS, False)


class Scripted:
    """An actor that answers as `answer(name, prompt)` says, in text; it keeps every request it got."""

    def __init__(self, chat, answer):
        self.chat, self.answer, self.requests = chat, answer, []

    def place(self, params):
        return params

    def act(self, params, requests, stream, on_batch=lambda done: None):
        self.requests += requests
        on_batch(len(requests))
        return [[self._one(r) for _ in range(r.samples)] for r in requests]

    def _one(self, request):
        ids = self.answer(request.name, list(request.prompt))
        ids = ids if isinstance(ids, list) else [*self.chat.encode(ids), self.chat.stop_ids[0]]
        return Completion(ids, [0.0] * len(ids), [0.0] * len(ids), ids[-1:] != [UNFINISHED])


def expert(chat, tasks):
    """An actor that plays the experts' trajectories by prompt: a prompt it does not know is an error."""
    answers = {}
    for task in tasks:
        t = toolbox.demonstrate(task)
        for i, message in enumerate(t.messages):
            if message["role"] == "assistant":
                prompt = chat.prompt_ids(t.messages[:i], t.tools)
                answers[tuple(prompt)] = chat.completion_ids(t.messages[:i], t.tools, message)
    return Scripted(chat, lambda name, prompt: answers[tuple(prompt)])


def play(actor, chat, tasks, attempts=1, max_steps=20, max_prompt=10_000):
    return evaluation.play_episodes(
        Rollouts(actor, chat), None, tasks, attempts, max_steps, max_prompt, STREAM
    )


def assert_experts_succeed(chat, tasks):
    found = play(expert(chat, tasks), chat, tasks)
    assert [e["row"] for e in found] == [task.id for task in tasks]
    assert {(e["success"], e["reason"]) for e in found} == {(1.0, "ok")}
    actions = [sum(m["role"] == "assistant" for m in toolbox.demonstrate(task).messages) for task in tasks]
    assert [e["turns"] for e in found] == actions


# ---- episodes


def test_experts_succeed(chat):
    """Also: a played episode renders to the very prompts that the expert's trajectory was cut at."""
    assert_experts_succeed(chat, toolbox.tasks("test", 12, 0))


@pytest.mark.slow
def test_experts_succeed_on_every_held_out_row(chat):
    assert_experts_succeed(chat, toolbox.tasks("test", 200, 0))


@pytest.mark.parametrize("text", GARBAGE)
def test_garbage_fails(chat, text):
    tasks = toolbox.tasks("test", 8, 0)
    found = play(Scripted(chat, lambda name, prompt: text), chat, tasks, max_steps=3)
    assert [e["success"] for e in found] == [0.0] * 8
    assert all(e["reason"] in ("no_call", "too_many_steps", "state") for e in found)


def test_one_wrong_action_fails_its_episode_alone(chat):
    tasks = toolbox.tasks("test", 4, 0)
    actor = expert(chat, tasks)
    right = actor.answer
    actor.answer = lambda name, prompt: "no" if name.startswith(tasks[1].id) else right(name, prompt)
    assert [e["success"] for e in play(actor, chat, tasks)] == [1.0, 0.0, 1.0, 1.0]


def test_an_id_that_belongs_to_no_token_fails_its_episode(chat):
    """Its text is the expert's."""
    tasks = toolbox.tasks("test", 4, 0)
    actor = expert(chat, tasks)
    right, nothing = actor.answer, len(chat.tokenizer) + 7
    actor.answer = lambda name, prompt: (
        [nothing, *right(name, prompt)] if name.startswith(tasks[1].id) else right(name, prompt)
    )
    found = play(actor, chat, tasks)
    assert [e["success"] for e in found] == [1.0, 0.0, 1.0, 1.0]
    assert found[1]["reason"] == "malformed" and found[1]["turns"] == 1


def test_a_completion_cut_at_the_token_limit_fails_its_episode(chat):
    """Its text begins with the expert's action, and goes on to the limit."""
    tasks = toolbox.tasks("test", 4, 0)
    actor = expert(chat, tasks)
    right = actor.answer
    actor.answer = lambda name, prompt: (
        [*right(name, prompt)[:-1], UNFINISHED] if name.startswith(tasks[2].id) else right(name, prompt)
    )
    found = play(actor, chat, tasks)
    assert [e["success"] for e in found] == [1.0, 1.0, 0.0, 1.0]
    assert found[2]["reason"] == "unfinished" and found[2]["turns"] == 1


def test_an_episode_that_outgrows_the_prompt_limit_fails_as_too_long(chat):
    tasks = toolbox.tasks("test", 3, 0)
    actor = expert(chat, tasks)
    play(actor, chat, tasks)
    lengths = [len(r.prompt) for r in actor.requests]
    short = play(expert(chat, tasks), chat, tasks, max_prompt=min(lengths) - 1)
    assert {(e["success"], e["reason"], e["turns"]) for e in short} == {(0.0, "too_long", 0)}
    limited = expert(chat, tasks)
    cut = play(limited, chat, tasks, max_prompt=max(lengths) - 1)
    assert sum(e["reason"] == "too_long" for e in cut) == 1
    assert max(len(r.prompt) for r in limited.requests) < max(lengths)


def test_attempts_are_episodes_of_their_own(chat):
    tasks = toolbox.tasks("test", 2, 0)
    actor = expert(chat, tasks)
    found = play(actor, chat, tasks, attempts=2)
    assert [e["id"] for e in found] == [f"{task.id}#{n}" for task in tasks for n in range(2)]
    names = [r.name for r in actor.requests]
    assert len(set(names)) == len(names), "every action has a key of its own"


# ---- turns and skills


def test_turns_and_skills_are_scored_by_what_was_said(chat):
    tasks = toolbox.tasks("test", 3, 0)
    candidates = extract.extract([toolbox.demonstrate(task) for task in tasks])
    prompts = extract.render(chat, candidates)
    found = evaluation.score_turns(Rollouts(expert(chat, tasks), chat), None, prompts, 2, STREAM)
    assert [t["id"] for t in found] == [c.id for c in candidates]
    assert {t["mean"] for t in found} == {1.0}
    assert [t["is_call"] for t in found] == [c.is_call for c in candidates]
    assert [t["verifier"] for t in found] == [c.verifier for c in candidates]
    talk = Scripted(chat, lambda name, prompt: "certainly")
    found = evaluation.score_turns(Rollouts(talk, chat), None, prompts, 1, STREAM)
    assert [t["mean"] for t in found] == [float(not c.is_call) for c in candidates]
    for turn in found:
        (reply,) = turn["replies"]
        assert reply["text"] == "certainly" and reply["reward"] == turn["mean"] and reply["reason"]

    items = [item for family in skills.families()[:4] for item in skills.items(family, "test", 3, 0)]
    answers = {item.id: item.answer for item in items}
    right = Rollouts(Scripted(chat, lambda name, prompt: answers[name]), chat)
    assert {a["correct"] for a in evaluation.score_skills(right, None, items, STREAM)} == {1.0}
    wrong = Rollouts(Scripted(chat, lambda *_: "zq"), chat)
    wrong = evaluation.score_skills(wrong, None, items, STREAM)
    assert [(a["id"], a["correct"]) for a in wrong] == [(item.id, 0.0) for item in items]


def test_turns_that_no_policy_can_pass_are_left_out_and_counted(chat, capsys):
    """The first call holds a stop token: whatever is sampled ends there."""
    tool = {"name": "f", "description": "", "parameters": {"type": "object", "properties": {"x": {}}}}
    said = [{"role": "user", "content": "u"}, calls_message([("f", {"x": "<|im_end|> on"})])]
    said += [{"role": "user", "content": "and?"}, calls_message([("f", {"x": "on"})])]
    trajectory = Trajectory("t", said, [tool], "openai", "s", "tool_call")
    run = SimpleNamespace(config=CONFIGS.get_config().copy_and_resolve_references(), chat=chat, facts={})
    run.config.evaluate.skill_items = 0
    held_out = pipeline._make_held_out(run, sources.Data([], [trajectory], [], {}))
    assert [prompt.candidate.id for prompt in held_out.prompts] == ["t@3"]
    checked = pipeline._checked_validation(run, sources.ValidationSet([trajectory], []))
    assert [c.id for c in extract.extract(checked.trajectories)] == ["t@3"]
    assert (run.facts["held_out_self_check"], run.facts["validation_self_check"]) == (1, 1)
    out = capsys.readouterr().out
    assert "left out of held-out turns t@1: the demonstration holds" in out
    assert "left out of validation t@1: the demonstration holds" in out


def test_tasks_and_keys_are_the_same_before_and_after(chat):
    """Two policies get the same requests under the same names while they act alike; tasks ignore the seed."""
    data = CONFIGS.get_config().data
    data.demonstrations, data.held_out_tasks = 2, 4
    one, other = sources.load(data, seed=0), sources.load(data, seed=1)
    assert one.held_out_tasks == other.held_out_tasks
    assert [t.id for t in one.held_out] == [t.id for t in other.held_out]
    assert one.demonstrations != other.demonstrations
    prompts = extract.render(chat, extract.extract(one.held_out))
    items = skills.items(skills.families()[0], "test", 2, 0)
    held_out = evaluation.HeldOut(one.held_out_tasks, prompts, items)

    def evaluate():
        actor = expert(chat, one.held_out_tasks)
        inner = actor.answer
        item_prompts = {tuple(chat.prompt_ids(i.messages, [])) for i in held_out.skills}
        actor.answer = lambda name, p: "x" if tuple(p) in item_prompts else inner(name, p)
        streams = []
        act = actor.act
        actor.act = lambda params, requests, stream, *rest: (
            streams.append(jax.random.key_data(stream).tolist()) or act(params, requests, stream, *rest)
        )
        sizes = {"attempts": 1, "samples": 2, "max_steps": 20, "max_prompt": 9999}
        results = evaluation.evaluate(Rollouts(actor, chat), None, held_out, key=STREAM, **sizes)
        return results, actor.requests, streams

    before, after = evaluate(), evaluate()
    assert (before[0], before[2]) == (after[0], after[2])
    with np.printoptions(threshold=10**6):  # requests hold arrays, which have no truth value
        assert repr(before[1]) == repr(after[1])
    results = before[0]
    assert results["rollout_turns"] == sum(e["turns"] for e in results["episodes"]) + 2 * len(prompts) + 2
    assert len({str(s) for s in before[2]}) == 3, "episodes, turns and skills draw from streams of their own"
    assert measures.compare(results, after[0])["episode_success"] == {
        **{"value": 0, "low": 0, "high": 0},
        **{"n": 4, "clusters": 4},
    }


# ---- intervals


def results(successes, turns=(), answers=(), attempts=1):
    return {
        "episodes": [{"row": f"r{i // attempts}", "success": s, "turns": 1} for i, s in enumerate(successes)],
        "turns": [{"scenario": s, "verifier": "tool_call", "is_call": c, "mean": m} for s, c, m in turns],
        "skills": [{"id": f"i{i}", "family": f, "correct": c} for i, (f, c) in enumerate(answers)],
    }


def test_intervals_by_hand():
    """Wilson for 8 of 10 is [0.490, 0.943]; each measure has its own n; families are nested."""
    turns = [("a", True, 0.5), ("a", True, 1.0), ("b", True, 0.0), ("b", False, 1.0)]
    answers = [("add", 1.0), ("add", 0.0), ("sort", 1.0)]
    found = measures.summarise(results([1.0] * 8 + [0.0] * 2, turns, answers))
    success = found["episode_success"]
    assert (success["value"], success["n"]) == (0.8, 10)
    assert (round(success["low"], 3), round(success["high"], 3)) == (0.49, 0.943)
    assert found["call_turn_pass"] == {"value": 0.5, "low": 0.0, "high": 0.75, "n": 3, "clusters": 2}
    assert found["text_turn_pass"]["n"] == 1
    assert found["out_of_domain"]["value"] == pytest.approx(2 / 3)
    assert {f: v["value"] for f, v in found["families"].items()} == {"add": 0.5, "sort": 1.0}


def test_measures_without_tasks_are_left_out():
    assert set(measures.summarise(results([1.0, 0.0]))) == {"episode_success"}


def test_paired_differences_by_hand():
    """Every task gained a quarter: the difference has no width, whatever the tasks' own spread."""
    before = [("a", True, 0.0), ("b", True, 0.5), ("c", True, 0.75)]
    after = [(s, c, m + 0.25) for s, c, m in before]
    found = measures.compare(results([0.0, 1.0], before), results([1.0, 1.0], after))
    assert found["call_turn_pass"] == {"value": 0.25, "low": 0.25, "high": 0.25, "n": 3, "clusters": 3}
    assert found["episode_success"] == {"value": 0.5, "low": 0.0, "high": 1.0, "n": 2, "clusters": 2}


def test_other_tasks_are_not_compared():
    with pytest.raises(InputError, match=r"not of the same tasks \(episode_success"):
        measures.compare(results([1.0, 0.0]), results([1.0]))


def test_attempts_at_one_task_are_one_cluster():
    """Ten attempts at each of two tasks, one always and one never done: two draws' width, not twenty's."""
    found = measures.summarise(results([1.0] * 10 + [0.0] * 10, attempts=10))["episode_success"]
    assert (found["low"], found["high"], found["n"], found["clusters"]) == (0.0, 1.0, 20, 2)


def test_where_all_values_are_alike_the_interval_is_wilsons_over_clusters():
    """Twenty wins at two tasks are no more certain than two wins at two tasks."""
    found = measures.summarise(results([1.0] * 20, attempts=10))["episode_success"]
    assert tuple(found[name] for name in ("value", "low", "high")) == intervals.wilson(2, 2)
    assert (found["n"], found["clusters"]) == (20, 2)


def test_a_difference_says_of_how_many_turns_it_is():
    """Each side decided eight of the ten turns; six were decided on both."""
    means = [[None, None, *[0.0] * 8], [*[1.0] * 8, None, None]]
    sides = [results([], [("a", True, mean) for mean in side]) for side in means]
    found = measures.compare(*sides)["call_turn_pass"]
    assert (found["value"], found["n"], found["clusters"]) == (1.0, 6, 1)
    assert [measures.summarise(side)["call_turn_pass"]["n"] for side in sides] == [8, 8]


# ---- results on disk


def test_results_are_read_back_for_the_same_identity_only(tmp_path):
    path, made = tmp_path / "evaluations" / "before.json", []

    def compute():
        made.append(1)
        return {"episodes": [], "made": len(made)}

    identity = {"policy": "pi", "seed": 0, "rows": ["a", "b"]}
    assert evaluation.read_or_compute(path, identity, compute, True)["made"] == 1
    assert evaluation.read_or_compute(path, dict(identity), compute, True)["made"] == 1
    assert evaluation.read_or_compute(path, {**identity, "seed": 1}, compute, True)["made"] == 2
    assert evaluation.read_or_compute(path, identity, compute, True)["made"] == 3
    assert evaluation.read_or_compute(path, identity, compute, False)["made"] == 4
    assert json.loads(path.read_text("utf-8"))["results"]["made"] == 4
    assert [file.name for file in path.parent.iterdir()] == ["before.json"]


def test_what_replaces_stored_results_says_why(tmp_path, capsys):
    """Of an identity that had fewer fields, too."""
    path = tmp_path / "x.json"
    evaluation.read_or_compute(path, {"seed": 0}, dict, True)
    assert capsys.readouterr().out == ""
    evaluation.read_or_compute(path, {"seed": 1, "chat": "qwen"}, dict, True)
    assert capsys.readouterr().out == (
        f"{path} holds another evaluation (seed is 0 there and 1 here; chat is absent there and 'qwen' "
        "here), so it is computed again\n"
    )


def test_results_depend_on_template_and_tokenizer(chat):
    """Episodes and skills have no prompts in the identity."""
    tokenizer = template.load_chat(tiny_run.ASSETS, False).tokenizer
    tokenizer.add_tokens(["zqzq"])
    other = template.load_chat(tiny_run.ASSETS, False, chat_template="smollm2_hermes").tokenizer
    chats = [
        chat,
        dataclasses.replace(chat, keep_thinking=True),
        dataclasses.replace(chat, template_arguments={"enable_thinking": False}),
        dataclasses.replace(chat, tokenizer=tokenizer),
        dataclasses.replace(chat, tokenizer=other),
    ]
    found = [json.dumps(evaluation._chat_identity(chat)) for chat in chats]
    assert len(set(found)) == len(found)
    chat.tokenizer(["a", "a b c"], padding=True, truncation=True, max_length=2)
    again = evaluation._chat_identity(template.load_chat(tiny_run.ASSETS, False))
    assert found[0] == json.dumps(again) == json.dumps(evaluation._chat_identity(chat))


def test_results_depend_on_the_scenarios_of_turns(chat):
    prompts = extract.render(chat, extract.extract([toolbox.demonstrate(toolbox.tasks("test", 1, 0)[0])]))
    moved = [
        dataclasses.replace(p, candidate=dataclasses.replace(p.candidate, scenario="other")) for p in prompts
    ]
    run = SimpleNamespace(config=CONFIGS.get_config(), model_config=MOE, chat=chat, judge=None)
    one, other = (
        evaluation._identity(run, evaluation.HeldOut([], of, []), False, "pi") for of in (prompts, moved)
    )
    assert [name for name in one if one[name] != other[name]] == ["scenarios"]


def test_tuples_in_an_identity_are_the_lists_they_become_on_disk(tmp_path):
    """`batch` of a config and the like: an identity that went through JSON is the same identity."""
    path = tmp_path / "x.json"
    found = [
        evaluation.read_or_compute(path, {"sizes": (1, 2)}, lambda n=n: {"made": n}, True)["made"]
        for n in range(2)
    ]
    assert found == [0, 0]


def test_a_blend_is_summarised_by_verifier():
    turn = {"is_call": True, "samples": 1, "abstained": 0}
    turns = [
        {**turn, "id": f"t{i}", "scenario": f"s{i}", "verifier": verifier, "mean": mean}
        for i, (verifier, mean) in enumerate([("swe", 1.0), ("swe", 0.0), ("search:nemo_gym", 1.0)])
    ]
    results = {"episodes": [], "turns": turns, "skills": [], "rollout_turns": 3}
    found = measures.summarise(results)["verifiers"]
    assert {name: (v["value"], v["n"]) for name, v in found.items()} == {
        "swe": (0.5, 2),
        "search:nemo_gym": (1.0, 1),
    }
    of_one = {**results, "turns": turns[:2]}
    assert "verifiers" not in measures.summarise(of_one)
