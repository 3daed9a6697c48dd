"""The toolbox world: tasks replay, pass, and mean one thing; alternatives are accepted, mistakes are not."""

import hashlib
import json
import re
from collections import Counter

import pytest
from support.tiny_world import task_to_dict

from pivotrl_jax.environments import find_task
from pivotrl_jax.environments.episode import ScriptedEpisode, expert_of, replay
from pivotrl_jax.environments.tasks import task_from_dict
from pivotrl_jax.environments.toolbox import all_words, phrases, users, values
from pivotrl_jax.environments.toolbox import docs as docs_lib
from pivotrl_jax.environments.toolbox.demonstrations import demonstrate
from pivotrl_jax.environments.toolbox.docs import DOCS
from pivotrl_jax.environments.toolbox.services import BACKENDS
from pivotrl_jax.environments.toolbox.users import tasks
from pivotrl_jax.environments.world import World
from pivotrl_jax.records import Action, Call, Candidate, InputError
from pivotrl_jax.verifiers.bfcl_multi_turn import verify


@pytest.fixture(scope="module")
def held_out_tasks():
    return tasks("test", 200, seed=0)


@pytest.fixture(scope="module")
def train_tasks():
    return tasks("train", 200, seed=0)


def expert_actions(task, trajectory=None):
    """The actions of the expert's replay, in order."""
    for message in (trajectory or replay(task)).messages:
        if message["role"] == "assistant":
            calls = message.get("tool_calls", [])
            calls = tuple(Call(c["function"]["name"], c["function"]["arguments"]) for c in calls)
            yield Action(content=message["content"], calls=calls)


def play(task, actions):
    episode = ScriptedEpisode(task)
    for action in actions:
        if not episode.done:
            episode.step(action)
    return episode.check()


def judge(task, turn, k, *calls):
    case = {"row": task.id, "turn": turn, "k": k}
    demonstration = {"role": "assistant", "content": ""}
    candidate = Candidate("c", task.id, 0, [], [], demonstration, "bfcl_multi_turn", case, task.scenario)
    return verify(candidate, Action(content="" if calls else "ok", calls=tuple(calls))).reward


def points(some_tasks, wanted):
    """(task, turn, the turn's calls) for call turns of which `wanted(calls)` holds."""
    found = [
        (task, turn, calls)
        for task in some_tasks
        for turn, calls in enumerate(expert_of(task.id).calls)
        if calls and wanted(calls)
    ]
    assert len(found) >= 5
    return found


@pytest.mark.parametrize("split", values.SPLITS)
def test_ground_truth_replays_and_passes_and_the_empty_episode_fails(split):
    for task in tasks(split, 150, seed=3):
        assert expert_of(task.id).failures == []
        assert play(task, expert_actions(task)).reward == 1
        assert play(task, [Action(content="ok")] * 9).reward == 0


def test_tasks_survive_json_and_come_back_from_their_id(held_out_tasks):
    for task in held_out_tasks[:50]:
        assert task_from_dict(json.loads(json.dumps(task_to_dict(task))), "here:1") == task
        assert find_task(task.id) == task
    for bad in ("toolbox_dev_0_1", "toolbox_train_0", "toolbox_train_-1_2"):
        with pytest.raises(InputError, match="ids look like"):
            users.find_task(bad)
    with pytest.raises(InputError, match="use one of pretrain, train, test"):
        tasks("dev", 1, seed=0)


def test_tasks_are_the_same_on_every_machine():
    text = json.dumps([task_to_dict(task) for split in values.SPLITS for task in tasks(split, 20, seed=7)])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "010d233fdc9e741f"


def test_the_expert_is_accepted_at_every_point_and_a_skipped_call_is_not(held_out_tasks):
    for task in held_out_tasks[:80]:
        for turn, calls in enumerate(expert_of(task.id).calls):
            for k, call in enumerate(calls):
                assert judge(task, turn, k, call) == 1
                assert judge(task, turn, k) == 0
            assert judge(task, turn, len(calls)) == 1
            if calls:
                assert judge(task, turn, 0, *calls) == 1, "the whole turn merged into one action"
                assert judge(task, turn, len(calls), calls[-1]) == 0, "a call too many"
        for skipped in range(sum(map(len, task.ground_truth))):
            actions, number = [], 0
            for action in expert_actions(task):
                kept = [c for i, c in enumerate(action.calls, number) if i != skipped]
                number += len(action.calls)
                if kept or not action.calls:
                    actions.append(Action(content="", calls=tuple(kept)))
            assert play(task, actions).reward == 0


def test_explicit_and_omitted_defaults_and_argument_order_are_equal(held_out_tasks):
    with_defaults = {doc["name"]: _defaults(doc) for docs in DOCS.values() for doc in docs}
    tried = Counter()
    for task, turn, calls in points(held_out_tasks, lambda calls: True):
        for k, call in enumerate(calls):
            full = with_defaults[call.name] | call.arguments
            short = {n: v for n, v in full.items() if with_defaults[call.name].get(n, object()) != v}
            for other in (full, short, dict(reversed(call.arguments.items()))):
                tried[json.dumps(other) != json.dumps(call.arguments)] += 1
                assert judge(task, turn, k, Call(call.name, other)) == 1
    assert tried[True] > 200


def _defaults(doc):
    properties = doc["parameters"]["properties"]
    return {name: p["default"] for name, p in properties.items() if "default" in p}


def test_independent_calls_may_swap(held_out_tasks):
    independent = ("add_event", "make_file", "add_tasks", "set_heat", "set_light", "play_song", "add_person")
    swapped = points(
        held_out_tasks, lambda calls: len(calls) == 2 and all(c.name in independent for c in calls)
    )
    for task, turn, (first, second) in swapped:
        assert judge(task, turn, 0, second) == 1
        assert judge(task, turn, 0, second, first) == 1


def test_two_tasks_may_be_added_one_by_one(held_out_tasks):
    pairs = points(held_out_tasks, lambda calls: len(calls[0].arguments.get("titles", [])) == 2)
    for task, turn, calls in pairs:
        arguments = calls[0].arguments
        singles = [Call("add_tasks", arguments | {"titles": [title]}) for title in arguments["titles"]]
        turned = Call("add_tasks", arguments | {"titles": arguments["titles"][::-1]})
        assert judge(task, turn, 0, *singles) == 1
        assert judge(task, turn, 0, turned) == 1
        assert judge(task, turn, 0, singles[0]) == 0


def test_a_read_is_harmless_beside_the_needed_call_and_useless_alone(held_out_tasks):
    tried = 0
    for task in held_out_tasks:
        if "cart_total" not in {doc["name"] for doc in task.docs}:
            continue
        for turn, calls in enumerate(expert_of(task.id).calls):
            if calls and all(call.name != "cart_total" for call in calls):
                assert judge(task, turn, 0, Call("cart_total", {}), calls[0]) == 1
                assert judge(task, turn, 0, Call("cart_total", {})) == 0
                tried += 1
    assert tried > 50


def test_every_wrong_value_fails(held_out_tasks):
    tried = Counter()
    for task in held_out_tasks:
        for turn, calls in enumerate(expert_of(task.id).calls):
            for k, call in enumerate(calls):
                for name, value in call.arguments.items():
                    for wrong in _wrong(task, value):
                        changed = Call(call.name, call.arguments | {name: wrong})
                        if changed in calls[k + 1 :]:  # not wrong, only early
                            continue
                        tried[call.name, name] += 1
                        assert judge(task, turn, k, changed) == 0, (task.id, turn, k, changed)
    documented = {
        (doc["name"], name)
        for docs in DOCS.values()
        for doc in docs
        for name in doc["parameters"]["properties"]
    }
    assert set(tried) == documented


def _wrong(task, value):
    """Other values of the same kind, those of the task's own world among them."""
    if isinstance(value, bool):
        return [not value, "yes"]
    if isinstance(value, int):
        return [value + 1 if value < 98 else value - 1, -1, 1000, True, str(value)]
    if isinstance(value, list):
        return [value[:-1], [*value, "sunday" if "sunday" not in value else "monday"], "monday"]
    for words in (values.DAYS, values.ROOMS, values.PLACES, values.CARDS):
        if value in words:
            return [w for w in words if w != value]
    world = json.dumps(task.initial_config)
    return [w for w in re.findall(r'"([a-z]+)": \{', world) if w not in (value, *BACKENDS)] + ["zzz", None, 7]


def test_services_answer_nonsense_with_an_error():
    for name in BACKENDS:
        task = next(r for r in tasks("train", 60, seed=0) if name in r.involved_classes)
        world = World(task)
        before = json.dumps(world.state())
        for doc in DOCS[name]:
            parameters = list(doc["parameters"]["properties"])
            for nonsense in (None, -1, 10**30, 1.5, float("nan"), "", "\ud800", [], [[]], {"a": []}, True):
                if doc["name"] in {d["name"] for d in task.docs} and parameters:
                    output, failed = world.execute(Call(doc["name"], dict.fromkeys(parameters, nonsense)))
                    assert failed, (doc["name"], nonsense, output)
        assert json.dumps(world.state()) == before


def test_splits_share_no_value_and_no_clause():
    for splits in values.WORDS.values():
        assert all(len(words) == 60 for words in splits.values())
    every = [w for splits in values.WORDS.values() for words in splits.values() for w in words]
    assert len(set(every)) == len(every)
    closed = {*values.DAYS, *values.ROOMS, *values.PLACES, *values.CARDS}
    assert not set(every) & closed
    assert all(re.fullmatch("[a-z]+", word) for word in every)
    for phrase in phrases.PHRASES.values():
        said = [
            *phrase.verbs,
            *phrase.frames,
            *phrase.miss_verbs,
            *phrase.miss_frames,
            phrase.reply,
            phrase.ask,
        ]
        assert not _words(said) & set(every)
        for verbs, frames in ((phrase.verbs, phrase.frames), (phrase.miss_verbs, phrase.miss_frames)):
            train, test = (phrases.combinations(verbs, frames, split) for split in ("train", "test"))
            assert not set(train) & set(test)
            assert len(train) + len(test) == len(verbs) * len(frames)
            assert _words(test) <= _words(train), "an unseen word"
            if verbs:
                assert test and len(train) + len(test) >= 6


def _words(templates):
    return set(re.findall(r"[a-z]+", re.sub(r"\{\w+\}", " ", " ".join(templates))))


def test_test_tasks_are_distinct_from_each_other_and_from_train(held_out_tasks, train_tasks):
    def content(task):
        return json.dumps([task.user_turns, task.ground_truth, task.initial_config])

    assert len({content(task) for task in held_out_tasks}) == 200
    held = {w for splits in values.WORDS.values() for w in splits["test"]}
    assert not held & set(re.findall("[a-z]+", " ".join(map(content, train_tasks))))


def test_all_words_covers_whatever_a_task_holds(held_out_tasks, train_tasks):
    words = set(all_words())
    assert len(words) < 850
    assert len(words - {w for s in values.WORDS.values() for ws in s.values() for w in ws}) < 270
    for task in held_out_tasks + train_tasks:
        trajectory = replay(task)
        text = json.dumps([trajectory.tools, [m["content"] for m in trajectory.messages]])
        found = set(re.findall("[a-z]+", text.replace("_", " ").replace("\\n", " ")))
        assert found - words <= {"description", "parameters", "properties", "required", "default", "type"} | {
            "dict",
            "items",
        }


def test_docs_are_small():
    assert [len(docs) for docs in DOCS.values()] == [5] * 6
    names = [doc["name"] for docs in DOCS.values() for doc in docs]
    assert len(set(names)) == 30
    for docs in DOCS.values():
        for doc in docs:
            assert len(doc["description"].split()) <= 9
            assert {p["type"] for p in doc["parameters"]["properties"].values()} <= {
                "string",
                "integer",
                "boolean",
                "array",
            }


def test_statistics_are_what_the_world_was_made_for(held_out_tasks, train_tasks):
    call_actions = text_actions = calls = bundled = 0
    categories, sizes = Counter(), Counter()
    for task in held_out_tasks + train_tasks:
        categories[task.category] += 1
        assert 2 <= len(task.user_turns) <= 5
        assert 8 <= len(task.docs) <= 12
        for turn, truth in zip(task.user_turns, task.ground_truth):
            assert 6 <= len(turn[0]["content"].split()) <= 14
            assert len(truth) <= 3
            sizes[len(truth)] += 1
            calls += len(truth)
        for action in expert_actions(task):
            call_actions += bool(action.calls)
            text_actions += not action.calls
            bundled += len(action.calls) > 1
        assert any(task.ground_truth)
    assert 0.55 < call_actions / (call_actions + text_actions) < 0.75
    assert 3.5 < calls / 400 < 7.5
    assert 0.2 < categories["toolbox_miss_param"] / 400 < 0.4
    assert 0.05 < bundled / call_actions < 0.3
    assert min(sizes[n] for n in range(4)) > 50


def actions_of(trajectory):
    """(message index, its calls) of every calling action."""
    for i, message in enumerate(trajectory.messages):
        if message["role"] == "assistant" and "tool_calls" in message:
            yield i, [Call(c["function"]["name"], c["function"]["arguments"]) for c in message["tool_calls"]]


def test_by_default_a_demonstration_is_the_replay(train_tasks):
    assert [demonstrate(task) for task in train_tasks] == [replay(task, "toolbox") for task in train_tasks]


def test_a_clean_expert_has_one_habit_and_does_the_same(train_tasks):
    for task in train_tasks:
        trajectory = demonstrate(task, style="clean")
        calls = [call for _, made in actions_of(trajectory) for call in made]
        assert all(len(made) == 1 for _, made in actions_of(trajectory))
        assert Counter(map(World(task).key, calls)) == Counter(
            World(task).key(call) for turn in expert_of(task.id).calls for call in turn
        )
        for call in calls:
            defaults = docs_lib.DEFAULTS[call.name]
            assert list(call.arguments) == [name for name in defaults if name in call.arguments]
            assert all(default is None or call.arguments.get(n) != default for n, default in defaults.items())
        assert play(task, expert_actions(task, trajectory)).reward == 1


def test_detours_end_well_and_are_actions_that_the_verifier_rejects(train_tasks):
    straight = slips = looks = 0
    for task in train_tasks:
        trajectory = demonstrate(task, detours=0.5)
        assert play(task, expert_actions(task, trajectory)).reward == 1
        for i, calls in actions_of(trajectory):
            case = trajectory.cases[i]
            if judge(task, case["turn"], case["k"], *calls):
                straight += 1
            elif "error" in json.loads(trajectory.messages[i + 1]["content"]):
                slips += 1
            else:
                looks += 1
    planned = sum(1 for task in train_tasks for _ in actions_of(replay(task)))
    assert planned <= straight <= planned + 2  # a look may return the very text that the expert needs
    assert 0.4 < (slips + looks) / planned < 0.6
    assert min(slips, looks) > 0.3 * (slips + looks)


def test_a_demonstrator_that_does_not_exist_is_refused(train_tasks):
    with pytest.raises(InputError, match="use one of diverse, clean, foreign"):
        demonstrate(train_tasks[0], style="slow")
    with pytest.raises(InputError, match=r"data\.detours is 1\.5"):
        demonstrate(train_tasks[0], detours=1.5)
