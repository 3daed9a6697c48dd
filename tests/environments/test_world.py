"""Worlds: what a call may do, what it may not, and what never leaks between two worlds."""

import json
import math

import pytest
from support import tiny_world
from support.tiny_world import BACKENDS, make_task

from pivotrl_jax.environments.world import World
from pivotrl_jax.records import Call, InputError


@pytest.fixture
def world():
    return World(make_task(), BACKENDS)


def test_results_read_as_bfcls_executor_prints_them(world):
    assert world.call(Call("add_note", {"text": "milk"})) == '{"id": 1}'
    assert world.call(Call("describe", {})) == "some notes"
    assert world.call(Call("open_folder", {"folder": "work"})) == "None"


def test_a_backends_own_error_is_a_failed_call(world):
    assert world.execute(Call("add_note", {"text": "tea"})) == ('{"error": "tea exists"}', True)


@pytest.mark.parametrize(
    "name",
    [
        "wipe",
        "_load_scenario",
        "__init__",
        "notes",
        "__import__('os').getpid",
        "eval",
        "",
        None,
        3,
        ["a"],
        "\ud800",
    ],
)
def test_only_documented_functions_can_be_called(world, name):
    before = json.dumps(world.state()["Notes"]["notes"])
    assert "error" in json.loads(world.call(Call(name, {})))
    assert json.dumps(world.state()["Notes"]["notes"]) == before


def _nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "arguments",
    [
        None, "text", ["milk"], 3, {}, {"text": 3}, {"text": None}, {"self": 1, "text": "x"}, {"txt": "x"},
        {3: "x"}, {"text": ["x"]}, {"text": _nested(100_000)}, {"text": "x", "tags": _nested(100_000)},
        {"text": "x", "tags": 5}, {"\ud800": 1},
    ],
)  # fmt: skip
def test_bad_arguments_are_a_failed_call_not_an_exception(world, arguments):
    text, failed = world.execute(Call("add_note", arguments))
    assert failed and "error" in json.loads(text)


@pytest.mark.parametrize(
    "arguments",
    [
        {"base": 2, "exponent": 10**9},
        {"base": 10**4000, "exponent": 900},
        {"base": 2, "exponent": 1e300},
        {"base": 2, "exponent": math.nan},
        {"base": "x" * 10, "exponent": 10**12},
    ],
)
def test_a_call_that_would_run_away_is_refused_at_once(world, arguments):
    assert world.execute(Call("power", arguments))[1]


def test_odd_texts_come_back_as_text_that_utf8_can_hold(world):
    world.call(Call("add_note", {"text": "\ud800"}))
    assert b"ud800" in world.call(Call("list_notes", {})).encode("utf-8")


def test_numbers_that_json_cannot_print_are_a_failed_call(world):
    assert world.execute(Call("list_notes", {"limit": math.inf}))[1]
    assert world.execute(Call("power", {"base": 10**18, "exponent": 900}))[1]  # 16,201 digits


def test_mutable_defaults_do_not_leak_between_calls_or_worlds(world):
    world.call(Call("add_note", {"text": "a"}))
    world.call(Call("add_note", {"text": "b"}))
    other = World(make_task(), BACKENDS)
    other.call(Call("add_note", {"text": "c"}))
    tags = [note["tags"] for w in (world, other) for note in w.state()["Notes"]["notes"][1:]]
    assert tags == [["new"], ["new"], ["new"]]


def test_neither_task_nor_module_nor_the_models_arguments_are_changed(world):
    task, arguments = make_task(), {"text": "x", "tags": ["t"]}
    World(task, BACKENDS).call(Call("add_note", arguments))
    assert arguments == {"text": "x", "tags": ["t"]}
    assert task == make_task()
    assert tiny_world.SHARED == {"total": 0}


def test_a_copy_and_a_snapshot_go_their_own_way(world):
    snapshot, copied = world.snapshot(), world.copy()
    world.call(Call("add_note", {"text": "x"}))
    assert copied.same_state(snapshot.world()) and not copied.same_state(world)
    copied.call(Call("add_note", {"text": "x"}))
    assert copied.same_state(world)


def test_state_is_public_attributes_and_the_working_directory(world):
    world.call(Call("open_folder", {"folder": "work"}))
    assert set(world.state()["Notes"]) == {"notes", "shared", "long_context", "_current_dir"}
    assert world.state()["Notes"]["_current_dir"] == ["work", "home"]
    assert "_current_dir" not in world.state(private=False)["Notes"]
    fresh = World(make_task(), BACKENDS)
    assert world.same_state(fresh, private=False) and not world.same_state(fresh)


def test_long_context_is_told_to_the_backend():
    assert World(make_task(category="tiny_long_context"), BACKENDS).state()["Notes"]["long_context"]


def test_positional_ground_truth_gets_its_names_from_the_signature(world):
    assert world.expert_call("add_note('milk', ['a'])") == Call("add_note", {"text": "milk", "tags": ["a"]})
    with pytest.raises(InputError, match="fits no documented function"):
        world.expert_call("wipe()")


def test_equal_calls_have_equal_keys(world):
    key = world.key(Call("list_notes", {}))
    assert (
        key == world.key(Call("list_notes", {"limit": 10})) == world.key(Call("list_notes", {"limit": 10.0}))
    )
    assert key != world.key(Call("list_notes", {"limit": 9})) != world.key(Call("list_notes", {"limit": "9"}))
    assert world.key(Call("list_notes", {"max": 9})) is None
    assert world.key(Call("add_note", {"text": _nested(100_000)})) is None


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"involved_classes": ["Os"]}, "'involved_classes' names 'Os'"),
        (
            {"function": [tiny_world.doc("fly")], "ground_truth": [[], [], []]},
            "'fly' names no public function",
        ),
        ({"initial_config": {"Notes": {"notes": {}}}, "involved_classes": ["Broken"]}, "does not load"),
    ],
)
def test_a_task_that_does_not_fit_its_backends_is_refused(changes, what):
    class Broken:
        def _load_scenario(self, config, long_context=False):
            raise KeyError("root")

    with pytest.raises(InputError, match=what):
        World(make_task(**changes), {**BACKENDS, "Broken": Broken})
