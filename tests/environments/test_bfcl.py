"""BFCL's tasks: found without downloading, replayed exactly, and never split across a scenario."""

import importlib.util
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
from support.bfcl_reference import ast_checker, bfcl_outputs, bfcl_passes, need_bfcl
from support.paths import ROOT

from pivotrl_jax.environments import find_task
from pivotrl_jax.environments.bfcl import demonstrations, environment, tasks
from pivotrl_jax.environments.episode import ScriptedEpisode, play_expert, replay
from pivotrl_jax.environments.world import World
from pivotrl_jax.records import Action, Call, InputError

# reference/bfcl.md, section 3: user turns, calls, final texts, abstentions
REPLAYED = {
    "multi_turn_base": (734, 1142, 731, 3),
    "multi_turn_miss_func": (934, 1140, 731, 203),
    "multi_turn_miss_param": (934, 1140, 731, 203),
    "multi_turn_long_context": (734, 1203, 731, 3),
}


@pytest.fixture
def installed():
    need_bfcl()


def test_without_bfcl_the_error_quotes_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("BFCL_ROOT", str(tmp_path))
    with pytest.raises(InputError) as error:
        tasks.root.__wrapped__()
    assert "pip install --no-deps bfcl-eval==2026.3.23 mpmath==1.3.0" in str(error.value)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("id", ["multi_turn_base_900", "multi_turn_x_1", "weather_3"])
def test_an_unknown_task_is_one_sentence(installed, id):
    with pytest.raises(InputError, match=id):
        find_task(id)


@pytest.mark.parametrize("read", [tasks.tasks, tasks.read_category])
def test_an_unknown_category_is_one_sentence(installed, read):
    with pytest.raises(InputError, match=r"'web_search' .* known: "):
        read("web_search")


@pytest.mark.parametrize("read", [demonstrations.single_turn, demonstrations.excluded])
def test_an_unknown_single_turn_category_is_one_sentence(installed, read):
    with pytest.raises(InputError, match=r"'web_search' .* known: "):
        read(["web_search"])


@pytest.mark.parametrize("category", tasks.MULTI_TURN)
def test_every_task_of_a_category_replays(installed, category):
    trajectories = [replay(task) for task in tasks.tasks(category)]
    count = Counter()
    for trajectory in trajectories:
        task = find_task(trajectory.id)
        assert not any('{"error":' in m["content"] for m in trajectory.messages if m["role"] == "tool")
        count["turns"] += len(task.user_turns)
        for i, case in trajectory.cases.items():
            call, due = trajectory.messages[i].get("tool_calls"), task.ground_truth[case["turn"]]
            count["call" if call else "final" if due else "abstain"] += 1
    assert len(trajectories) == 200
    assert tuple(count[k] for k in ("turns", "call", "final", "abstain")) == REPLAYED[category]


def test_outputs_are_those_of_bfcls_executor(installed):
    for category in tasks.MULTI_TURN:
        for task in tasks.tasks(category)[::10]:
            assert play_expert(task).outputs == bfcl_outputs(task), task.id


@pytest.mark.slow
def test_outputs_of_all_tasks_are_those_of_bfcls_executor(installed):
    for category in tasks.MULTI_TURN:
        for task in tasks.tasks(category):
            assert play_expert(task).outputs == bfcl_outputs(task), task.id


def test_the_four_categories_share_200_scenarios(installed):
    scenarios = [{task.scenario for task in tasks.tasks(category)} for category in tasks.MULTI_TURN]
    assert all(len(s) == 200 for s in scenarios) and set.union(*scenarios) == scenarios[0]


def test_new_functions_are_announced_as_bfcl_announces_them(installed):
    task = find_task("multi_turn_miss_func_0")
    assert task.missed_function == {3: ["sort"]} and task.user_turns[3] == []
    assert "sort" not in [doc["name"] for doc in task.offered(2)]
    assert task.messages(3)[0]["content"].startswith("[{'name': 'sort', 'description': ")


def test_response_schemas_are_left_out(installed):
    tools = tasks.tasks("multi_turn_base")[0].offered(0)
    assert all(set(tool) == {"name", "description", "parameters"} for tool in tools)


def test_no_vendor_module_and_no_network_backend_is_imported(installed):
    code = """
import sys
from pivotrl_jax.environments.bfcl import tasks
from pivotrl_jax.environments.episode import replay
for category in tasks.MULTI_TURN:
    replay(tasks.tasks(category)[0])
banned = ("web_search", "memory_vector", "memory_kv", "eval_config", "bfcl_eval.utils")
print([name for name in sys.modules if name.startswith("bfcl_eval") and name.endswith(banned)])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stdout + done.stderr


def test_worlds_do_not_leak_into_each_other(installed):
    """The two leaks of reference/bfcl.md: shared credit cards, and default lists of post_tweet."""
    task = next(r for r in tasks.tasks("multi_turn_long_context") if "TravelAPI" in r.involved_classes)
    a, fresh = World(task), World(task).state()["TravelAPI"]
    cards = a.state()["TravelAPI"]["credit_card_list"]
    for card in cards.values():
        card["balance"] = -1
    assert World(task).state()["TravelAPI"]["credit_card_list"] == fresh["credit_card_list"] != cards

    task = find_task("multi_turn_base_0")
    a, b = World(task), World(task)
    login = Call("authenticate_twitter", {"username": "analyst_pro", "password": "Kj8#mP9$vL2"})
    for world in (a, b):
        world.call(login)
    a.call(Call("post_tweet", {"content": "x"}))
    a.call(Call("mention", {"tweet_id": 3, "mentioned_usernames": ["@bob"]}))
    assert '"mentions": []' in b.call(Call("post_tweet", {"content": "y"}))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("power", {"base": 9, "exponent": 10**9}),
        ("round_number", {"number": 5, "decimal_places": -(10**9)}),
        ("logarithm", {"value": 2, "base": 3, "precision": 10**9}),
        ("square_root", {"number": 2, "precision": 10**9}),
    ],
)
def test_sampled_mathematics_cannot_hang_the_run(installed, name, arguments):
    task = next(r for r in tasks.tasks("multi_turn_base") if "MathAPI" in r.involved_classes)
    assert World(task).execute(Call(name, arguments))[1]


def test_a_directory_that_contains_itself_breaks_nothing(installed):
    world = World(find_task("multi_turn_base_0"))
    world.call(Call("mkdir", {"dir_name": "a"}))
    world.call(Call("cp", {"source": "a", "destination": "a"}))
    assert not world.copy().same_state(world)  # comparing would never end
    for name in ("du", "ls", "find"):
        world.call(Call(name, {}))


def _variants(expert):
    """The expert's episode, and episodes with one call left out, made twice, or made later."""
    turns = [[[call] for call in calls] for calls in expert.calls]
    yield turns
    for t, calls in enumerate(turns):
        for i in range(len(calls)):
            for other in (calls[:i] + calls[i + 1 :], [*calls, calls[i]], [*calls[i + 1 :], calls[i]]):
                yield [*turns[:t], other, *turns[t + 1 :]]


def _agreement(step: int) -> Counter:
    count = Counter()
    for category in tasks.MULTI_TURN:
        for task in tasks.tasks(category)[::step]:
            for turns in _variants(play_expert(task)):
                episode = ScriptedEpisode(task)
                for action in [a for turn in turns for a in [*turn, []]]:
                    if not episode.done:
                        episode.step(Action(content="" if action else "ok", calls=tuple(action)))
                ours, theirs = bool(episode.check().reward), bfcl_passes(task, turns)
                assert ours == theirs, (task.id, turns)
                count[ours] += 1
    return count


def test_episodes_are_judged_as_by_bfcls_checker(installed):
    count = _agreement(50)
    assert count[True] > 50 and count[False] > 50


@pytest.mark.slow
def test_many_episodes_are_judged_as_by_bfcls_checker(installed):
    count = _agreement(5)
    assert count[True] > 500 and count[False] > 500


def test_every_single_turn_demonstration_passes_bfcls_checker(installed):
    valid, count = ast_checker(), Counter()
    for trajectory in demonstrations.single_turn():
        ((index, case),) = trajectory.cases.items()
        message = trajectory.messages[index]
        count[case["category"]] += 1
        assert message is trajectory.messages[-1] and trajectory.verifier == "bfcl_ast"
        if case["category"].endswith("irrelevance"):
            assert message["content"] and "tool_calls" not in message
            continue
        made = [{c["function"]["name"]: c["function"]["arguments"]} for c in message["tool_calls"]]
        assert valid(case["function_docs"], made, case["possible_answer"], case["category"]), trajectory.id
    assert count == {
        "simple_python": 400, "multiple": 200, "parallel": 200, "parallel_multiple": 200, "live_simple": 256,
        "live_multiple": 1051, "live_parallel": 16, "live_parallel_multiple": 24, "irrelevance": 240,
        "live_irrelevance": 876,
    }  # fmt: skip


def test_a_limit_takes_rows_of_every_category(monkeypatch):
    monkeypatch.setattr(tasks, "tasks", lambda category: tuple(f"{category}_{i}" for i in range(5)))
    monkeypatch.setattr(
        demonstrations, "single_turn", lambda names, limit: [f"{names[0]}_{i}" for i in range(3)][:limit]
    )
    data = SimpleNamespace(categories=("multi_turn_base", "parallel"), limit=4)
    first = ["multi_turn_base_0", "parallel_1", "multi_turn_base_2", "parallel_0"]
    assert environment.train_tasks(data, 0) == first
    data.limit = 7
    assert environment.train_tasks(data, 0)[4:] == ["multi_turn_base_4", "parallel_2", "multi_turn_base_1"]
    data.limit = 0
    whole = [*(f"multi_turn_base_{i}" for i in range(5)), *(f"parallel_{i}" for i in range(3))]
    assert environment.train_tasks(data, 0) == whole


def test_few_rows_of_the_multi_turn_categories_are_as_many_scenarios(installed):
    found = environment.train_tasks(SimpleNamespace(categories=tasks.MULTI_TURN, limit=8), 0)
    assert Counter(task.category for task in found) == dict.fromkeys(tasks.MULTI_TURN, 2)
    assert len({task.scenario for task in found}) == 8


def test_tasks_that_cannot_be_demonstrated_are_counted(installed):
    reasons = Counter(demonstrations.excluded().values())
    assert sorted(reasons.values()) == [4, 8, 16]
    assert demonstrations.excluded(["live_simple"]) == {
        id: "its possible_answer accepts no answer" for id in ("live_simple_106-63-0", "live_simple_112-68-0")
    }


def test_single_turn_tasks_with_the_same_functions_share_a_scenario(installed):
    sides = {}
    for trajectory in demonstrations.single_turn():
        names = tuple(sorted(tool["name"] for tool in trajectory.tools))
        assert sides.setdefault(names, trajectory.scenario) == trajectory.scenario
    assert len(set(sides.values())) == len(sides)
