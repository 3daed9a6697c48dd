"""A candidate of ours and a row as NVIDIA released them, for the tests of reader, rows and program."""

import json

from pivotrl_jax.records import Candidate, Profile
from pivotrl_jax.trajectories import extract
from pivotrl_jax.trajectories.readers import nemo_gym

AGENT = "a_single_step_tool_use_with_argument_comparison_agent"


def call(name, call_id, **arguments):
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


TOOL = {"name": "get_order", "description": "d", "parameters": {"type": "object", "properties": {}}}

HISTORY = [
    {"role": "system", "content": "Be brief.\n\n  Indented."},
    {"role": "user", "content": "Where are 1 and 2?"},
    {
        "role": "assistant",
        "content": "Let me look.",
        "reasoning_content": "two orders,\n\ntwo calls",
        "tool_calls": [call("get_order", "c1", id=1), call("get_order", "c2", id=2, note="a\nb")],
    },
    {"role": "tool", "tool_call_id": "c1", "name": "get_order", "content": "here"},
    {"role": "tool", "tool_call_id": "c2", "name": "get_order", "content": ""},
    {"role": "assistant", "content": "Both are here."},
    {"role": "user", "content": "And 3?"},
]

CANDIDATE = Candidate(
    "t@7",
    "t",
    2,
    HISTORY,
    [TOOL],
    {"role": "assistant", "content": "", "tool_calls": [call("get_order", "c3", id=3)]},
    "tool_call",
    {"fields": {}},
    "s",
)

PROFILE = Profile("t@7", [0.0, 1.0, 1.0, 0.0], 0.5, 0.25, True, "abc", "tool_call/2", 0.7, 3, 1)


def theirs(**fields):
    """A released row of conversational tool use, with other fields."""
    return {
        "responses_create_params": {
            "input": [
                {"role": "system", "content": "policy"},
                {"role": "user", "content": [{"type": "input_text", "text": "cancel it"}]},
                {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "which?"}]},
                {
                    "type": "message",
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": "Which?"}],
                },
                {"role": "user", "content": "the first", "type": "message"},
            ],
            "tools": [{"type": "function", "strict": True, **TOOL}],
            "metadata": None,
            "parallel_tool_calls": False,
        },
        "expected_action": {"type": "function_call", "name": "get_order", "arguments": '{"id": 1}'},
        "trajectory_id": 17,
        "scenario": None,
        "agent_ref": {"type": "responses_api_agents", "name": AGENT},
        **fields,
    }


TERMINUS = json.dumps({"analysis": "a", "plan": "p", "commands": [{"keystrokes": "ls -la /srv\n"}]})
TWO = {"type": "function_call_batch", "calls": [theirs()["expected_action"]] * 2}
CONFIG = "tool_call_comparator_config"


def read_one(row):
    (candidate,) = extract.extract([nemo_gym.trajectory(row, "rows.jsonl:3")])
    return candidate


# ---- rows in the form of the public sets

FUNCTION_CALLING = {
    "trajectory_id": 3,
    "info": {"turn": 1, "step": 0, "depth": 1},
    "responses_create_params": {
        "input": [
            {"role": "system", "content": "You have tools."},
            {"role": "user", "content": "Is order 5 here?"},
            {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "look"}]},
            {
                "type": "function_call",
                "name": "get_order",
                "arguments": '{"id": 5}',
                "call_id": "c0",
                "id": "c0",
            },
            {"type": "function_call_output", "call_id": "c0", "output": "not yet"},
        ],
        "tools": [{"type": "function", "strict": True, **TOOL}],
        "parallel_tool_calls": True,
    },
    "expected_action": {"type": "message", "content": "Order 5 is not here yet."},
    "agent_ref": {
        "type": "responses_api_agents",
        "name": "toolcall_schema_single_step_tool_use_with_argument_comparison_agent",
    },
}

TERMINAL_TURN = json.dumps(
    {"analysis": "a", "plan": "p", "commands": [{"keystrokes": "ls -la /srv\n", "duration": 0.5}]}
)

TERMINAL = {
    "responses_create_params": {
        "input": [
            {"role": "user", "content": "List /srv. Answer as JSON."},
            {"role": "assistant", "content": TERMINAL_TURN.replace("/srv", "/")},
            {"role": "user", "content": "srv"},
        ],
        "tools": [],
    },
    "expected_answer": TERMINAL_TURN,
    "metadata": {
        "harness": "terminus_2",
        "task_name": "list-srv",
        "source_trajectory_uid": "list-srv-1",
        "tool_name": "bash_command",
    },
    "agent_ref": {"type": "responses_api_agents", "name": "terminus_judge_string_only_simple_agent"},
}

END_TO_END = {
    "responses_create_params": {
        "input": [{"role": "user", "content": "Fix the bug."}],
        "metadata": {"instance_id": "x__y-1", "problem_statement": "It fails."},
    },
    "agent_ref": {"type": "responses_api_agents", "name": "swe_agents_train"},
}
