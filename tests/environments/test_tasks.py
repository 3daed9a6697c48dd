"""Tasks: what is read, what is written back, and the sentence for each way a task can be wrong."""

import json

import pytest
from support.tiny_world import LATE, TASK, make_task, task_to_dict

from pivotrl_jax.environments.tasks import parse_call, scenario_of, task_from_dict
from pivotrl_jax.records import InputError


def test_a_task_survives_json():
    task = task_from_dict({**LATE, "replies": ["a", "b", "c"], "bundles": [[2, 1], [], []]}, "x:1")
    assert task_from_dict(json.loads(json.dumps(task_to_dict(task))), "x:1") == task
    assert task.missed_function == {1: ["open_folder"]}


def test_category_and_scenario_come_from_the_id_when_absent():
    task = task_from_dict({k: v for k, v in TASK.items() if k != "category"}, "x:1")
    assert (task.category, task.scenario) == ("tiny", "tiny_0")


def test_bfcl_categories_share_scenarios_by_number():
    ids = [f"multi_turn_{c}_49" for c in ("base", "miss_func", "miss_param", "long_context")]
    assert {scenario_of(id) for id in ids} == {"bfcl_multi_turn_49"}
    assert scenario_of("multi_turn_base_4") != scenario_of("multi_turn_base_49")


def test_late_functions_are_offered_from_their_turn_on_and_announced_there():
    task = task_from_dict(LATE, "x:1")
    names = [[doc["name"] for doc in task.offered(turn)] for turn in range(3)]
    assert "open_folder" not in names[0] and "open_folder" in names[1] and names[1] == names[2]
    (message,) = task.messages(1)
    assert message["role"] == "user"
    assert message["content"].startswith("[{'name': 'open_folder'")
    assert message["content"].endswith(
        "\nI have updated some more functions you can choose from. What about now?"
    )
    assert task.messages(0) == TASK["question"][0]


def test_calls_are_parsed_as_literals():
    text = """f(1, 'a b', x={'k': [1, -2.5, None]}, y=True)"""
    assert parse_call(text) == ("f", [1, "a b"], {"x": {"k": [1, -2.5, None]}, "y": True})


@pytest.mark.parametrize(
    "text",
    ["f", "f(", "a.f(1)", "f(g())", "f(x=1+y)", "__import__('os').getpid()", "f(**{'a': 1})", "f(); g()", "",
     "f(" + "[" * 10_000 + ")"],
)  # fmt: skip
def test_anything_but_a_plain_call_is_refused(text):
    with pytest.raises(InputError, match="write it as"):
        parse_call(text)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", 3),
        ("question", []),
        ("question", [["hello"], [], []]),
        ("question", [[{"role": "robot", "content": "x"}], [], []]),
        ("initial_config", {"Notes": 3}),
        ("involved_classes", []),
        ("ground_truth", [[], []]),
        ("ground_truth", [["add_note(x)"], [], []]),
        ("function", []),
        ("function", [{"name": "f"}]),
        ("missed_function", {"9": ["open_folder"]}),
        ("missed_function", {"1": ["fly"]}),
        ("missed_function", [1]),
        ("replies", ["one"]),
        ("bundles", [[1, 1], [], []]),
        ("bundles", [[3, 0], [], [1]]),
    ],
)
def test_a_wrong_field_is_named_with_file_and_line(field, value):
    with pytest.raises(InputError, match=r"^rows\.jsonl:7") as error:
        make_task(**{field: value})
    assert field in str(error.value) or "call" in str(error.value)


@pytest.mark.parametrize(
    "field", ["id", "question", "initial_config", "involved_classes", "ground_truth", "function"]
)
def test_a_missing_field_is_named(field):
    with pytest.raises(InputError, match=f"^x:1.*{field}"):
        task_from_dict({k: v for k, v in TASK.items() if k != field}, "x:1")
