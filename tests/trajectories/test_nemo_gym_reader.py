"""NeMo Gym's pivot rows as trajectories: the demonstrated turn, its verifier, what is refused."""

import json

import pytest
from support.nemo_gym_samples import AGENT, CONFIG, TERMINUS, TOOL, TWO, read_one, theirs

from pivotrl_jax.chat.actions import message_to_action
from pivotrl_jax.records import InputError
from pivotrl_jax.trajectories import reading
from pivotrl_jax.trajectories.readers import nemo_gym
from pivotrl_jax.verifiers import VERIFIERS


def test_a_released_row_is_one_candidate_with_its_history_as_context():
    made = nemo_gym.trajectory(theirs(), "rows.jsonl:3")
    assert (made.skip, made.scenario, made.id) == ({2: "context"}, "17", "rows:3")
    candidate = read_one(theirs())
    assert [m["role"] for m in candidate.messages] == ["system", "user", "assistant", "user"]
    assert candidate.messages[2] == {
        "role": "assistant",
        "content": "Which?",
        "reasoning_content": "which?",
    }
    assert candidate.demonstration["tool_calls"][0]["function"] == {
        "name": "get_order",
        "arguments": {"id": 1},
    }
    assert (candidate.verifier, candidate.turn) == ("tool_call:nemo_gym", 1)
    assert candidate.tools == [{"type": "function", "function": {"strict": True, **TOOL}}]
    assert candidate.case["nemo_gym"]["responses_create_params"] == {"parallel_tool_calls": False}


@pytest.mark.parametrize(
    "change",
    [
        {"agent_ref": None},
        {"expected_action": {"type": "function_call", "name": "get_order", "arguments": {"id": 1}}},
        {"expected_action": {"name": "get_order", "arguments": {"id": 1}}},
        {
            "expected_action": {
                "type": "function_call_batch",
                "calls": [{"type": "function_call", "name": "get_order", "arguments": '{"id": 1}'}],
            }
        },
    ],
)
def test_published_quirks_change_nothing(change):
    assert read_one(theirs(**change)).demonstration == read_one(theirs()).demonstration
    nested = theirs(**change)
    nested["responses_create_params"]["tools"] = [{"type": "function", "function": TOOL}]
    assert read_one(nested).tools == [{"type": "function", "function": TOOL}]


@pytest.mark.parametrize(
    "fields, verifier, holds",
    [
        ({}, "tool_call:nemo_gym", {}),
        ({"agent_ref": {"name": f"search_pivot_{AGENT}"}}, "search:nemo_gym", {}),
        ({"agent_ref": {"name": "swe_pivot_tool_simulation_agent"}}, "swe:nemo_gym", {}),
        (
            {"agent_ref": {"name": "single_step_tool_use_with_argument_comparison_swe"}},
            "tool_call:nemo_gym",
            {"config": {CONFIG: {"word_count_similarity_threshold": 0.0}}},
        ),
        (
            {"harness": "codex", "declared_tools": [TOOL], "threshold": 0.7, "metadata": None},
            "terminal:nemo_gym",
            {"harness": "codex", "threshold": 0.7, "expected_action": theirs()["expected_action"]},
        ),
        (
            {
                "expected_action": None,
                "expected_answer": TERMINUS,
                "metadata": {"harness": "terminus_2"},
                "threshold": 0.8,
            },
            "terminal:nemo_gym",
            {"expected_answer": TERMINUS, "metadata": {"harness": "terminus_2"}, "threshold": 0.8},
        ),
        (
            {"expected_action": None, "expected_answers": [{"name": "get_order", "arguments": {"id": 1}}]},
            "tool_call:nemo_gym",
            {"server": "xlam_fc"},
        ),
    ],
)
def test_agent_and_shape_say_which_verifier(fields, verifier, holds):
    candidate = read_one(theirs(**fields))
    assert candidate.verifier == verifier
    assert holds.items() <= candidate.case.items()
    if verifier in VERIFIERS:  # the demonstration verifies against itself by the row's own rules
        assert VERIFIERS[verifier].verify(candidate, message_to_action(candidate.demonstration)).reward == 1


def test_the_reader_is_recognised_and_reads_files(tmp_path):
    path = tmp_path / "rows.jsonl"
    lines = [theirs(), theirs(expected_action={"type": "oops"}), theirs(expected_action=TWO)]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert reading.recognise(path) == "nemo_gym"
    made, named = reading.read([path])
    assert [len(t.messages) for t in made] == [5, 5]
    assert list(named) == [f"{path}:2"] and '"expected_action" has the type' in named[f"{path}:2"]
    assert made[0].scenario == made[1].scenario and made[0].id != made[1].id
    with pytest.raises(InputError, match=r"rows\.jsonl:2: "):
        reading.read(path, on_bad_row="stop")


@pytest.mark.parametrize(
    "change, says",
    [
        ({"responses_create_params": 3}, '"responses_create_params" is a int'),
        ({"responses_create_params": {"input": []}}, "input is empty"),
        ({"responses_create_params": {"input": [{"type": "computer_call"}]}}, r"input\[0\]: the type is"),
        ({"responses_create_params": {"input": [{"role": "user", "content": [{"image": 1}]}]}}, "not text"),
        ({"expected_action": None, "expected_answer": "Paris"}, "scores no single action"),
        ({"expected_action": {"type": "function_call", "name": "f", "arguments": "{"}}, "cannot be read"),
        ({"pivotrl": {"version": 1}}, '"pivotrl" cannot be read'),
    ],
)
def test_what_cannot_be_read_is_said(change, says):
    with pytest.raises(InputError, match=says):
        nemo_gym.trajectory(theirs(**change), "rows.jsonl:1")


def test_thinking_at_the_end_of_the_state_belongs_to_the_action():
    row = theirs()
    row["responses_create_params"]["input"].append(
        {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "so 1"}]}
    )
    candidate = read_one(row)
    assert candidate.demonstration["reasoning_content"] == "so 1"
    assert candidate.messages[-1] == {"role": "user", "content": "the first"}
