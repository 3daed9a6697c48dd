"""Variants of the toolbox world: a foreign expert, shared words, long episodes."""

import json
import re
from collections import Counter

import pytest
from support.configs import CONFIGS

from pivotrl_jax import verifiers
from pivotrl_jax.chat.actions import message_to_action
from pivotrl_jax.environments import find_task
from pivotrl_jax.environments.episode import ScriptedEpisode, expert_of
from pivotrl_jax.environments.toolbox import all_words, foreign, phrases, values
from pivotrl_jax.environments.toolbox.demonstrations import demonstrate
from pivotrl_jax.environments.toolbox.docs import DEFAULTS
from pivotrl_jax.environments.toolbox.users import Variant, foreign_task, tasks
from pivotrl_jax.records import InputError
from pivotrl_jax.trajectories import extract, sources

LONG = Variant(shared_words=True, user_turns=(6, 8))


@pytest.fixture(scope="module")
def pairs():
    """(task, the same task of a foreign expert)."""
    return [(task, foreign_task(task)) for task in tasks("train", 200, seed=0)]


def candidates_of(task, style):
    return extract.extract([demonstrate(task, style=style)])


def calls_in(trajectory):
    for message in trajectory.messages:
        if message.get("tool_calls"):
            yield [call["function"] for call in message["tool_calls"]]


def user_texts(task):
    return [message["content"] for turn in task.user_turns for message in turn]


# ---- a foreign expert


def test_a_foreign_expert_serves_the_same_users_and_leaves_the_same_worlds(pairs):
    for task, other in pairs:
        assert (other.user_turns, other.initial_config, other.docs) == (
            task.user_turns,
            task.initial_config,
            task.docs,
        )
        assert find_task(other.id) == other and other.scenario == task.scenario
        here, there = expert_of(task.id), expert_of(other.id)
        assert not there.failures
        assert all(a.same_state(b) for a, b in zip(here.ends, there.ends, strict=True))
        assert list(map(sorted, here.outputs)) == list(map(sorted, there.outputs))


def test_a_foreign_demonstration_has_the_tasks_id_and_none_of_pretrainings_habits(pairs):
    turned = swapped = 0
    for task, other in pairs:
        trajectory = demonstrate(task, style="foreign")
        assert (trajectory.id, trajectory.scenario, trajectory.origin) == (task.id, task.scenario, task.id)
        made = list(calls_in(trajectory))
        assert all(len(calls) == 1 for calls in made), "never bundled"
        for call in (calls[0] for calls in made):
            names = list(DEFAULTS[call["name"]])
            spelled = {name for name, default in DEFAULTS[call["name"]].items() if default is not None}
            assert spelled <= set(call["arguments"]), "defaults are written out"
            assert list(call["arguments"]) == [n for n in reversed(names) if n in call["arguments"]]
            turned += len(names) > 1
        for texts, others in zip(task.ground_truth, other.ground_truth):
            order = [re.match(r"\w+", text)[0] for text in texts]
            other_order = [re.match(r"\w+", text)[0] for text in others]
            assert sorted(order) == sorted(other_order)
            swapped += order != other_order
        said = [m["content"] for m in trajectory.messages if m["role"] == "assistant" and m["content"]]
        assert not set(said) & set(task.replies)
    assert turned > 300 and swapped > 40


def test_the_verifier_accepts_all_that_a_foreign_expert_does_and_what_the_other_would(pairs):
    verify, accepted = verifiers.get("bfcl_multi_turn").verify, Counter()
    for task, other in pairs[:100]:
        for candidate in candidates_of(task, "foreign"):
            assert candidate.case["row"] == other.id
            assert verify(candidate, message_to_action(candidate.demonstration)).reward == 1
            accepted[candidate.is_call] += 1
        first = {c.case["turn"]: c for c in candidates_of(task, "foreign") if c.case["k"] == 0}
        for candidate in candidates_of(task, "diverse"):
            if candidate.case["k"] == 0:  # before the first call of a turn both are in the same world
                action = message_to_action(candidate.demonstration)
                assert verify(first[candidate.case["turn"]], action).reward == 1
                theirs = message_to_action(first[candidate.case["turn"]].demonstration)
                assert verify(candidate, theirs).reward == 1
    assert min(accepted.values()) > 100


def test_a_foreign_demonstration_is_another_string_than_the_other_experts(pairs):
    """What exact_string measures: few of the usual expert's calls are those of the foreign one."""
    names, same = ("exact_string", "exact"), Counter()
    for task, _ in pairs:
        first = {c.case["turn"]: c for c in candidates_of(task, "foreign") if c.case["k"] == 0}
        for candidate in candidates_of(task, "diverse"):
            if candidate.is_call and candidate.case["k"] == 0:
                action = message_to_action(candidate.demonstration)
                same["calls"] += 1
                for name in names:
                    same[name] += verifiers.get(name).verify(first[candidate.case["turn"]], action).reward
    shares = [same[name] / same["calls"] for name in names]
    assert shares[0] < 0.55 and shares[1] < 0.7


def test_a_foreign_demonstration_wins_the_episode(pairs):
    for task, _ in pairs:
        episode = ScriptedEpisode(task)
        for message in demonstrate(task, style="foreign").messages:
            if message["role"] == "assistant":
                episode.step(message_to_action(message))
        assert episode.check().reward == 1


def test_a_foreign_expert_uses_known_words_alone_and_has_a_text_for_every_intent():
    known = set(all_words())
    for text in [*foreign.REPLIES.values(), *foreign.QUESTIONS.values()]:
        assert set(re.findall("[a-z]+", re.sub(r"\{\w+\}", " ", text))) <= known, text
    assert {name for name, p in phrases.PHRASES.items() if p.reply} == set(foreign.REPLIES)
    assert {name for name, p in phrases.PHRASES.items() if p.ask} == set(foreign.QUESTIONS)
    for name, phrase in phrases.PHRASES.items():
        assert not phrase.reply or foreign.REPLIES[name] != phrase.reply


def test_detours_of_a_foreign_expert_end_well():
    for task in tasks("train", 30, seed=5):
        trajectory = demonstrate(task, style="foreign", detours=0.5)
        episode = ScriptedEpisode(task)
        for message in trajectory.messages:
            if message["role"] == "assistant":
                episode.step(message_to_action(message))
        assert episode.check().reward == 1


# ---- shared words, long episodes


def test_shared_words_are_those_of_pretraining_and_test_still_holds_phrases_out():
    own = {split: {w for kind in values.WORDS.values() for w in kind[split]} for split in values.SPLITS}
    clauses = {}
    for split in ("train", "test"):
        some = tasks(split, 200, 0, Variant(shared_words=True))
        words = {w for task in some for text in user_texts(task) for w in text.split()}
        assert len(words & own["pretrain"]) > 100
        assert not words & (own["train"] | own["test"]) - own["pretrain"] - {"phone", "home"}
        clauses[split] = [
            re.sub(rf"\b({'|'.join(own['pretrain'])})\b|\d+", "_", text)
            for task in some
            for text in user_texts(task)
        ]
    move = {"train": "to _day push event _", "test": "push event _ to _day"}
    days = "|".join(values.DAYS)
    found = {
        split: {t for text in texts for t in move.values() if t in re.sub(rf"\b({days})\b", "_day", text)}
        for split, texts in clauses.items()
    }
    assert found["train"] != found["test"] and not found["train"] & found["test"]


def test_long_episodes_have_six_to_eight_user_turns_and_can_be_won():
    sizes = Counter()
    for split in ("train", "test"):
        for task in tasks(split, 100, 0, LONG):
            assert find_task(task.id) == task and task.id.endswith("_shared_6to8")
            assert not expert_of(task.id).failures
            sizes[len(task.user_turns)] += 1
            for style in ("diverse", "clean", "foreign"):
                episode, turns = ScriptedEpisode(task), 0
                for message in demonstrate(task, style=style).messages:
                    if message["role"] == "assistant":
                        episode.step(message_to_action(message))
                        turns += 1
                assert episode.check().reward == 1 and 10 <= turns <= 30
    assert set(sizes) == {6, 7, 8} and min(sizes.values()) > 40


def test_the_longest_tasks_can_be_written():
    """No pool of words runs dry."""
    assert all(len(task.user_turns) == 9 for task in tasks("test", 200, 0, Variant(user_turns=(9, 9))))


@pytest.mark.parametrize("wrong", ["_1to3", "_8to6", "_6to8_shared", "_foreign_shared", "_12to14", "_x"])
def test_ids_of_no_variant_are_refused(wrong):
    with pytest.raises(InputError, match="ids look like"):
        find_task(f"toolbox_train_0_1{wrong}")


def test_a_world_of_its_own_for_each_variant_and_the_usual_one_unchanged():
    usual, shared, long = (tasks("train", 5, 0, v) for v in (Variant(), Variant(shared_words=True), LONG))
    texts = [[user_texts(task) for task in some] for some in (usual, shared, long)]
    assert texts[0] != texts[1] != texts[2]
    assert [task.id for task in usual] == [f"toolbox_train_0_{i}" for i in range(5)]


# ---- by the config


def test_a_config_asks_for_all_of_it_and_all_its_sets_follow():
    config = CONFIGS.get_config().copy_and_resolve_references()
    config.data.update({"style": "foreign", "words": "shared", "user_turns": (6, 8), "demonstrations": 3})
    config.data.held_out_tasks, config.validation.every, config.validation.tasks = 2, 5, 2
    data, validation = sources.load_with_validation(config)
    ids = [t.id for t in (*data.demonstrations, *data.held_out, *validation.trajectories)]
    assert ids[0] == "toolbox_train_0_0_shared_6to8" and all(id.endswith("_shared_6to8") for id in ids)
    assert [t.id for t in data.train_tasks] == ids[:3]
    rows = {case["row"] for case in data.demonstrations[0].cases.values()}
    assert rows == {f"{ids[0]}_foreign"}, "demonstrated by the foreign expert"
    held_out = {case["row"] for t in (*data.held_out, *validation.trajectories) for case in t.cases.values()}
    assert not any(row.endswith("_foreign") for row in held_out), "judged in the usual way"


def test_large_pools_hold_different_tasks():
    some = tasks("train", 832, seed=0)
    assert len({json.dumps(user_texts(task)) for task in some}) == len({task.id for task in some}) == 832
