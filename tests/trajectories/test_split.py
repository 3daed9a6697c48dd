"""Training and held-out trajectories share no scenario, and filters of one side do not see the other."""

import dataclasses
import json

import pytest
from support.configs import CONFIGS

from pivotrl_jax.records import InputError, Trajectory
from pivotrl_jax.run.check_config import check
from pivotrl_jax.trajectories import reading, sources
from pivotrl_jax.trajectories.readers.building import opening
from pivotrl_jax.trajectories.split import split, split_folds, split_turns

MESSAGES = [{"role": "user", "content": "what is here?"}, {"role": "assistant", "content": "Only a."}]


def many(count, per_scenario=3):
    return [
        Trajectory(f"t{i}", MESSAGES, [], "openai", f"s{i // per_scenario}", "tool_call")
        for i in range(count)
    ]


def test_no_scenario_is_on_both_sides():
    trajectories = many(60)
    train, held_out = split(trajectories, 0.25, seed=0)
    assert {t.scenario for t in train}.isdisjoint(t.scenario for t in held_out)
    assert len({t.scenario for t in held_out}) == 5 and len(train) + len(held_out) == 60
    assert train == [t for t in trajectories if t in train]


def test_the_split_depends_on_the_seed_and_on_nothing_else():
    trajectories = many(60)
    held_out = {t.id for t in split(trajectories, 0.25, seed=0)[1]}
    assert held_out == {t.id for t in split(trajectories[::-1], 0.25, seed=0)[1]}
    assert held_out != {t.id for t in split(trajectories, 0.25, seed=1)[1]}
    assert {t.scenario for t in split(many(12), 0.25, 0)[1]} == {"s1"}  # the same on every machine


def test_shares_at_the_edges():
    assert split(many(6), 0, seed=0) == (many(6), [])
    assert [len(side) for side in split(many(6), 0.01, seed=0)] == [3, 3]
    assert [len(side) for side in split(many(6), 0.99, seed=0)] == [3, 3]
    with pytest.raises(InputError, match="cannot be split"):
        split(many(3), 0.5, seed=0)
    with pytest.raises(InputError, match="held_out_share is 1"):
        split(many(6), 1, seed=0)


# ---- scenarios of rows that name none


def said(role, content="", **more):
    return {"role": role, "content": content, **more}


def call(name="ls"):
    function = {"name": name, "arguments": {}}
    return said("assistant", tool_calls=[{"id": "c", "type": "function", "function": function}])


SYSTEM, TASK, RESULT = (
    said("system", "Be brief."),
    said("user", "List a."),
    said("tool", "x", tool_call_id="c"),
)
ANSWERS = (said("assistant", "Only b."), said("assistant", "I do not know."), call(), call("dir"))


@pytest.mark.parametrize(
    "begin",
    [
        [TASK],
        [SYSTEM, TASK],
        [SYSTEM],  # the system message holds the task
        [TASK, TASK],
        [said("assistant", "Hello!"), TASK],
        [SYSTEM, said("assistant", "Hello!"), TASK],
    ],
)
def test_attempts_at_one_task_share_a_scenario(begin):
    attempts = [[*begin, answer, *more] for answer in ANSWERS for more in ([], [RESULT, ANSWERS[0]], [TASK])]
    if begin == [SYSTEM]:  # talk before a user's first words is a greeting
        attempts = [a for a in attempts if a[1] not in ANSWERS[:2] or TASK not in a]
    assert len({opening(attempt) for attempt in attempts}) == 1
    other = [*begin[:-1], {**begin[-1], "content": "List b."}]
    assert opening([*other, ANSWERS[0]]) != opening(attempts[0])


def test_another_greeting_is_not_another_task():
    hello, hi = ([said("assistant", text), TASK, ANSWERS[0]] for text in ("Hello!", "Hi."))
    assert opening(hello) == opening(hi)
    assert opening([said("user", "List a."), ANSWERS[0]]) != opening([said("system", "List a."), ANSWERS[0]])


def config_of(tmp_path, rows, **changes):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = CONFIGS.get_config()
    config.data.source = str(file)
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return config


def test_rows_without_names_are_split_by_their_task(tmp_path):
    """50 tasks, 8 attempts at each, as chat rows without ids."""
    rows = [
        {"messages": [SYSTEM, said("user", f"Task {t}"), said("assistant", f"Attempt {a} at {t}")]}
        for a in range(8)
        for t in range(50)
    ]
    config = config_of(tmp_path, rows, data__held_out_share=0.25)
    data = sources.load(config.data, 0)
    tasks = [{t.messages[1]["content"] for t in side} for side in (data.demonstrations, data.held_out)]
    assert list(map(len, tasks)) == [38, 12] and tasks[0].isdisjoint(tasks[1])
    assert [len(side) for side in (data.demonstrations, data.held_out)] == [38 * 8, 12 * 8]


def test_a_scenario_that_is_named_wins(tmp_path):
    rows = [{"messages": MESSAGES, "scenario": i % 2, "id": f"x{i}"} for i in range(4)]
    rows += [{"messages": MESSAGES, "id": f"y{i}"} for i in range(2)]
    made, _ = reading.read(config_of(tmp_path, rows).data.source)
    assert [t.scenario for t in made] == ["0", "1", "0", "1", opening(MESSAGES), opening(MESSAGES)]


def test_rows_that_all_begin_alike_cannot_be_split(tmp_path):
    config = config_of(tmp_path, [{"messages": MESSAGES}] * 4, data__held_out_share=0.25)
    with pytest.raises(InputError, match="rows that name no scenario share one if they begin with the same"):
        sources.load(config.data, 0)


# ---- the cap on repeats


def repeats(side):
    return [list(t.skip.values()) for t in side]


@pytest.mark.parametrize("every", [0, 5])
def test_repeats_are_counted_on_the_training_side_alone(tmp_path, every):
    """40 tasks with one and the same answer: whatever is held out, 5 of the rest are trained on."""
    rows = [{"messages": [said("user", f"Task {t}"), said("assistant", "ls -la")]} for t in range(40)]
    changes = {"data__held_out_share": 0.5, "data__max_repeats": 5, "validation__every": every}
    config = config_of(tmp_path, rows, **changes, validation__share=0.25)
    data, validation = sources.load_with_validation(config)
    assert len(data.held_out) == 20 and len(validation.trajectories) == (5 if every else 0)
    assert repeats(data.held_out) == [[]] * 20 and repeats(validation.trajectories) in ([], [[]] * 5)
    train = repeats(data.demonstrations)
    assert train == [[]] * 5 + [["repeated"]] * (len(train) - 5) and len(train) == (15 if every else 20)
    config.data.max_repeats = 0
    assert repeats(sources.load_with_validation(config)[0].demonstrations) == [[]] * len(train)


def test_scenarios_are_set_aside_until_they_hold_the_turns():
    trajectories = many(60, 5)  # 12 scenarios of 5 turns
    for turns in (1, 5, 6, 55):
        train, held_out = split_turns(trajectories, turns, seed=0)
        scenarios = {t.scenario for t in held_out}
        assert scenarios.isdisjoint(t.scenario for t in train) and len(train) + len(held_out) == 60
        assert len(scenarios) == -(-turns // 5), "as few as hold them"
        assert scenarios == {t.scenario for t in split_turns(trajectories[::-1], turns, seed=0)[1]}
        assert scenarios == {t.scenario for t in split(trajectories, len(scenarios) / 12, seed=0)[1]}
    for turns in (56, 10_000):
        with pytest.raises(InputError, match=rf"config\.validation\.turns is {turns}, but the 12 training"):
            split_turns(trajectories, turns, seed=0)


def test_skipped_turns_do_not_count():
    trajectories = many(4, 1)
    trajectories[:2] = [dataclasses.replace(t, skip={1: "context"}) for t in trajectories[:2]]
    with pytest.raises(InputError, match="4 training scenarios hold 2 turns"):
        split_turns(trajectories, 3, seed=0)


def test_folds_are_disjoint_whole_and_the_same_for_every_seed_and_any_rows():
    trajectories = many(600, 5)  # 120 scenarios
    sides = [split_folds(trajectories, 3, [fold], [(fold + 1) % 3]) for fold in range(3)]
    assert [held_out for _, held_out in sides] == [sides[(fold + 1) % 3][0] for fold in range(3)]
    scenarios = [{t.scenario for t in train} for train, _ in sides]
    assert set.union(*scenarios) == {t.scenario for t in trajectories}
    assert sum(map(len, scenarios)) == 120 and min(map(len, scenarios)) > 25
    fewer = trajectories[::2]
    assert split_folds(fewer, 3, [0, 2], [])[0] == [t for t in fewer if t.scenario not in scenarios[1]]


def test_a_run_is_divided_by_its_folds(tmp_path):
    rows = [{"messages": [said("user", f"Task {t}"), said("assistant", "ls -la")]} for t in range(40)]
    folds = {"data__folds": 2, "data__train_folds": (0,), "data__held_out_folds": (1,)}
    config = config_of(tmp_path, rows, **folds)
    check(config)
    data, again = sources.load(config.data, 0), sources.load(config.data, 1)
    assert data == again and len(data.demonstrations) + len(data.held_out) == 40
    assert len(data.held_out) > 10 and len(data.demonstrations) > 10


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"train_folds": (0,)}, "want different numbers below config.data.folds"),
        ({"folds": 3}, "train_folds is empty, so nothing is trained on"),
        ({"folds": 3, "train_folds": (0, 3)}, "want different numbers below"),
        ({"folds": 3, "train_folds": (0, 1), "held_out_folds": (1,)}, "want different numbers below"),
        ({"folds": 3, "train_folds": (-1,)}, r"numbers of folds, e.g. \(0, 1\)"),
    ],
)
def test_folds_that_cannot_be_are_refused(tmp_path, changes, message):
    config = config_of(tmp_path, [], **{f"data__{name}": value for name, value in changes.items()})
    with pytest.raises(InputError, match=message):
        check(config)


def test_folds_without_a_scenario_are_refused():
    with pytest.raises(InputError, match="hold none of the 1 scenarios"):
        split_folds(many(5, 5), 10_000, [0], [])
