"""The public pivot sets: recognised, their pass rates kept and filtered by, end-to-end tasks refused."""

import copy
import json

import pytest
from support.configs import load
from support.nemo_gym_samples import END_TO_END, FUNCTION_CALLING, TERMINAL, TERMINAL_TURN, read_one, theirs
from support.paths import ROOT

from pivotrl_jax.chat.actions import message_to_action
from pivotrl_jax.records import InputError
from pivotrl_jax.trajectories import extract, filters, reading, sources
from pivotrl_jax.trajectories.readers import nemo_gym
from pivotrl_jax.verifiers import VERIFIERS

SAMPLE = ROOT / "configs" / "samples" / "tool_use_pivots.jsonl"


def written(tmp_path, *rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "row, verifier, scenario, demonstration",
    [
        (FUNCTION_CALLING, "tool_call:nemo_gym", "3", "Order 5 is not here yet."),
        (TERMINAL, "terminal:nemo_gym", "list-srv", TERMINAL_TURN),
    ],
)
def test_a_row_of_each_set_is_one_candidate(tmp_path, row, verifier, scenario, demonstration):
    path = written(tmp_path, row)
    assert reading.recognise(path) == "nemo_gym"
    made, left_out = reading.read(path)
    (candidate,) = extract.extract(made)
    assert (candidate.verifier, candidate.scenario, left_out) == (verifier, scenario, {})
    assert candidate.demonstration["content"] == demonstration
    gold = message_to_action(candidate.demonstration)
    assert VERIFIERS[verifier].verify(candidate, gold).reward == 1


def test_conversational_rows_keep_their_pass_rates():
    made, left_out = reading.read(SAMPLE)
    found = extract.extract(made)
    assert (len(found), sum(c.is_call for c in found), left_out) == (11, 7, {})
    fields = found[0].case["nemo_gym"]
    assert (fields["pass_rate"], fields["pass_rate_total"], fields["pass_rate_passed"]) == (0.1875, 16, 3)
    assert fields["qwen_235b_info"]["reward_mean"] == 0.25
    assert len({c.scenario for c in found}) == 4


def test_end_to_end_tasks_are_refused_in_one_sentence(tmp_path):
    bare = {**END_TO_END, "responses_create_params": {"input": [], "metadata": {}}, "expected_action": None}
    path = written(tmp_path, END_TO_END, bare)
    assert reading.recognise(path) == "nemo_gym"
    with pytest.raises(InputError, match=r"SWE-Pivot-v1 .*; use pivot rows .*Terminal-Pivot-v1") as refused:
        reading.read(path)
    assert "\n" not in str(refused.value)
    made, left_out = reading.read(written(tmp_path, END_TO_END, theirs()))
    assert len(made) == 1 and "end-to-end task" in left_out[f"{path}:1"]


# ---- pass rates


@pytest.mark.parametrize(
    "row, field, rate",
    [
        ({"pass_rate": 0.25, "qwen_235b_info": {"reward_mean": 0.5}}, "", 0.25),
        ({"pass_rate": 0.25, "qwen_235b_info": {"reward_mean": 0.5}}, "qwen_235b_info", 0.5),
        ({"pass_rate": 0.25}, "qwen_235b_info", None),
        ({"pass_rate_passed": 3, "pass_rate_total": 12}, "", 0.25),
        ({"pass_rate_passed": 0, "pass_rate_total": 0}, "", None),
        ({"pass_rate": 0}, "", 0.0),
        ({"pass_rate": 25, "pass_rate_passed": 1, "pass_rate_total": 4}, "", 0.25),  # no share
        ({"pass_rate": True}, "", None),
        ({"pass_rate": "0.5"}, "", None),
        ({"pass_rate": float("nan")}, "", None),
        ({"source_model_info": {"reward_mean": 0.75}, "a_info": {"reward_mean": 0.5}}, "", 0.75),
        ({"a_info": {"turn": 1}, "b_info": {"reward_mean": 0.5}}, "", 0.5),
        ({}, "", None),
    ],
)
def test_the_pass_rate_of_a_row(row, field, rate):
    assert nemo_gym.pass_rate(row, field) == rate


@pytest.mark.parametrize(
    "low, high, field, kept, unknown",
    [
        (0.0, 1.0, "", 11, 0),
        (0.0, 0.6, "", 9, 1),
        (0.0, 0.6, "qwen_235b_info", 8, 1),
        (0.0, 0.5625, "", 9, 1),  # both ends belong to the range
        (0.0625, 0.5625, "", 8, 1),
        (0.9, 0.95, "", 2, 1),
    ],
)
def test_rows_outside_the_rates_are_left_out_and_those_without_are_kept(low, high, field, kept, unknown):
    made, _ = reading.read(SAMPLE)
    inside, left_out, without = filters.within_pass_rates(made, low, high, field)
    assert (len(inside), without) == (kept, unknown) and len(inside) + len(left_out) == len(made)


def test_a_config_filters_and_names_what_it_leaves_out():
    config = load(ROOT / "configs" / "tau2.py").get_config("nemotron").data
    with config.unlocked():
        config.source, config.max_pass_rate, config.min_pass_rate = str(SAMPLE), 0.6, 0.1
    data = sources.load(config, seed=0)
    assert len(data.demonstrations) == 7 and data.unrated == 1
    assert data.skipped["tool_use_pivots:2"] == "pass_rate_high: its published pass rate is 1, above 0.6"
    assert data.skipped["tool_use_pivots:7"] == "pass_rate_low: its published pass rate is 0, below 0.1"


# ---- nulls of Arrow


def arrow(**declared):
    """A row whose calls hold an argument of another function, as Arrow writes them."""
    row = theirs(expected_action={"type": "function_call", "name": "get_order", "content": None})
    row["expected_action"]["arguments"] = {"id": 1, "limit": None, "where": {"city": "Oslo", "path": None}}
    properties = {
        "id": {"type": "integer", "enum": None},
        "where": {"type": "object"},
        "path": None,
        **declared,
    }
    doc = {"name": "get_order", "parameters": {"type": "object", "properties": properties}, "strict": None}
    row["responses_create_params"]["tools"] = [{"type": "function", **doc}]
    return row


def test_nulls_that_no_property_declares_are_dropped():
    candidate = read_one(arrow())
    (made,) = candidate.demonstration["tool_calls"]
    assert made["function"]["arguments"] == {"id": 1, "where": {"city": "Oslo"}}
    (tool,) = candidate.tools
    assert tool["function"]["parameters"]["properties"] == {
        "id": {"type": "integer"},
        "where": {"type": "object"},
    }
    declared = read_one(arrow(limit={"type": ["integer", "null"]})).demonstration["tool_calls"][0]
    assert declared["function"]["arguments"]["limit"] is None


def test_nulls_that_are_no_arrow_s_stay():
    row = theirs(
        expected_action={
            "type": "function_call",
            "name": "get_order",
            "arguments": '{"limit": null, "x": null}',
        }
    )
    properties = {"limit": {"type": "integer", "default": None}, "filter": {"type": "object"}}
    row["responses_create_params"]["tools"][0]["parameters"] = {"type": "object", "properties": properties}
    candidate = read_one(row)
    assert candidate.demonstration["tool_calls"][0]["function"]["arguments"] == {"limit": None, "x": None}
    assert candidate.tools[0]["function"]["parameters"]["properties"] == properties
    row["expected_action"]["arguments"] = {"filter": {"status": None}}
    assert read_one(row).demonstration["tool_calls"][0]["function"]["arguments"] == {
        "filter": {"status": None}
    }


def test_a_message_of_a_harness_with_the_keys_of_a_call_is_a_message():
    row = theirs(harness="codex", declared_tools=[])
    row["expected_action"] = {"type": "message", "content": "Done.", "name": None, "arguments": None}
    candidate = read_one(row)
    gold = message_to_action(candidate.demonstration)
    assert VERIFIERS["terminal:nemo_gym"].verify(candidate, gold).reward == 1


def test_a_row_is_not_changed_by_reading_it():
    for row in (arrow(), FUNCTION_CALLING, TERMINAL):
        before = copy.deepcopy(row)
        nemo_gym.trajectory(row, "rows.jsonl:1")
        assert row == before


def test_calls_without_usable_ids_are_answered_in_order():
    row = copy.deepcopy(FUNCTION_CALLING)
    call, answer = row["responses_create_params"]["input"][3:]
    for made, output in ((None, None), ("", ""), (3, 3), ({"a": 1}, [2])):
        call["call_id"] = call["id"] = made
        answer["call_id"] = output
        messages = read_one(row).messages
        assert messages[-1]["content"] == "not yet" and messages[-1]["name"] == "get_order"


@pytest.mark.parametrize(
    "content", ['<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>', "Go.\n<function=f>\n</function>"]
)
def test_a_call_that_was_left_in_an_expected_text_is_no_talk(content):
    trajectory = nemo_gym.trajectory(theirs(expected_action={"type": "message", "content": content}), "x:1")
    assert trajectory.skip[4] == "unparseable_call" and not extract.extract([trajectory])


def test_what_is_said_beside_an_expected_call_is_kept():
    row = theirs()
    row["expected_action"]["content"] = "Let me look."
    demonstration = read_one(row).demonstration
    assert demonstration["content"] == "Let me look." and demonstration["tool_calls"]


def test_every_field_of_a_row_is_used_or_kept():
    row = theirs(category="airline", reward=0.5, info={"depth": 1}, num_unique_actions=3, surprise=[1])
    kept = read_one(row).case["nemo_gym"]
    assert {"category", "reward", "info", "num_unique_actions", "surprise", "trajectory_id"} <= kept.keys()
