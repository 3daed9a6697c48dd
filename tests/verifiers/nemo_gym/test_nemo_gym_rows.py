"""What the released servers do with a row's own threshold and config, and with messages without text."""

import json
import subprocess
import sys

import pytest
from support.hostile_actions import act
from support.nemo_gym_samples import CONFIG, TERMINAL, TOOL, read_one, theirs

from pivotrl_jax.chat.actions import parse_action
from pivotrl_jax.verifiers import VERIFIERS

WORDS = {"type": "function_call", "name": "get_order", "arguments": '{"note": "a b c d e"}'}
FAR = ("get_order", {"note": "A v w x y"})  # one common word of ten: 0.1


def tool_row(agent="a_single_step_tool_use_with_argument_comparison_agent", **fields):
    return theirs(expected_action=WORDS, agent_ref={"name": agent}, **fields)


def reward(row, action):
    candidate = read_one(row)
    return VERIFIERS[candidate.verifier].verify(candidate, action).reward


@pytest.mark.parametrize(
    "agent, fields, rewarded",
    [
        ("", {}, 1),
        # the server reads neither of the two from a row
        ("", {"threshold": 0.2}, 1),
        ("", {"config": {"threshold": 0.2}}, 1),
        ("", {"config": "telecom"}, 1),
        ("search_pivot_agent", {}, 0),
        ("search_pivot_agent", {"threshold": 0.0, "config": {"threshold": 0.0}}, 0),
        ("swe_pivot_single_step_tool_use_with_argument_comparison_agent", {"config": {"threshold": 0.9}}, 1),
        ("parallel_tool_calls_agent", {"config": {"threshold": 0.9}}, 1),
        # what `verify` takes as the server's configuration
        ("", {"config": {CONFIG: {"word_count_similarity_threshold": 0.2}}}, 0),
    ],
)
def test_a_row_s_threshold_is_not_the_tool_use_server_s(agent, fields, rewarded):
    assert reward(tool_row(agent, **fields), act(FAR)) == rewarded


def test_a_row_s_comparator_is_added_to_its_agent_s():
    row = tool_row("swe_pivot_single_step_agent", config={CONFIG: {"parallel_tool_call_rewarding": True}})
    assert reward(row, act(("get_order", {"note": "v w x y z"}))) == 1  # the agent's threshold is 0
    assert reward(row, act(FAR, FAR)) == 0


def typed(keys):
    return json.dumps({"analysis": "", "plan": "", "commands": [{"keystrokes": keys}]})


NEAR = "ls -la /sr\n"  # of "ls -la /srv\n": similarity 0.96
APART = "ls -l /\n"  # 0.8


@pytest.mark.parametrize(
    "fields, near, apart",
    [
        ({}, 1, 0),
        ({"threshold": 0.97}, 0, 0),
        ({"threshold": 0.7}, 1, 1),
        ({"threshold": 0}, 1, 1),
        ({"threshold": None}, 1, 0),
        ({"threshold": "0.7"}, 1, 1),  # the released request coerces it
        ({"threshold": "much"}, 0, 0),
        ({"config": {"threshold": 0.7}}, 1, 1),
        ({"config": {"threshold": 0.97}}, 0, 0),
        ({"threshold": 0.97, "config": {"threshold": 0.7}}, 0, 0),
        ({"config": {"model": "x"}}, 1, 0),
    ],
)
def test_a_row_s_threshold_is_that_of_the_terminal_servers(fields, near, apart):
    row = {**TERMINAL, **fields}
    assert reward(row, parse_action(typed(NEAR))) == near
    assert reward(row, parse_action(typed(APART))) == apart
    schema = {"type": "object", "properties": {"cmd": {"type": "string"}}}
    gold = {"type": "function_call", "name": "exec_command", "arguments": '{"cmd": "ls -la /srv"}'}
    row = theirs(expected_action=gold, harness="codex", declared_tools=[{**TOOL, "name": "exec_command"}])
    row["responses_create_params"]["tools"] = [
        {"type": "function", "name": "exec_command", "parameters": schema}
    ]
    row |= fields
    assert reward(row, act(("exec_command", {"cmd": NEAR}))) == near
    assert reward(row, act(("exec_command", {"cmd": APART}))) == apart


def test_an_agent_with_a_judge_leaves_what_is_not_similar_to_it():
    row = {**TERMINAL, "agent_ref": {"name": "terminus_judge_simple_agent"}}
    candidate = read_one(row)
    verify = VERIFIERS[candidate.verifier].verify
    assert verify(candidate, parse_action(typed(NEAR))).reward == 1
    assert verify(candidate, parse_action(typed(APART))).question is not None


# ---- messages without text


def message(content):
    return [{"type": "message", "role": "assistant", "content": content}]


SAID = {"type": "message", "content": "Hi"}

# the items of a response -> the rewards of (tool use, multi-harness) where a message is expected
EMPTY = [
    ([], 0, 0),
    (message(None), 0, 0),
    (message([]), 0, 0),
    (message([{"type": "output_text", "text": None}]), 0, 0),
    (message([{"type": "refusal", "refusal": "no"}]), 0, 0),
    (message(""), 1, 0),
    (message([{"type": "output_text", "text": ""}]), 1, 0),
    (message([{"type": "output_text", "text": " \n"}]), 1, 0),
    (message([{"type": "output_text", "text": ""}]) + message("Hi"), 1, 1),
    (message([{"type": "output_text", "text": "no"}]), 1, 1),
    ([{"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}], 0, 0),
]


def verify(verifier, rows):
    command = [sys.executable, "-m", "pivotrl_jax.verify", f"--verifier={verifier}", "--mode=nemo_gym"]
    lines = "".join(json.dumps({"id": str(i), **row}) + "\n" for i, row in enumerate(rows))
    done = subprocess.run(command, input=lines, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["reward"] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("verifier, column", [("tool_call", 1), ("search", 1), ("terminal", 2)])
def test_an_empty_message_is_a_message_for_the_tool_use_servers_alone(verifier, column):
    harness = {"harness": "codex", "tools": []} if verifier == "terminal" else {}
    for expected in (SAID, {"type": "message", "content": ""}):
        rows = [{"expected_action": expected, "candidate": case[0], **harness} for case in EMPTY]
        assert verify(verifier, rows) == [case[column] for case in EMPTY]
    rows = [{"expected_action": WORDS, "candidate": case[0], **harness} for case in EMPTY]
    assert verify(verifier, rows) == [0] * len(EMPTY)


def test_no_empty_message_is_an_action_of_terminus_or_an_edit():
    row = {"expected_answer": TERMINAL["expected_answer"], "metadata": TERMINAL["metadata"]}
    assert verify("terminal", [{**row, "candidate": case[0]} for case in EMPTY]) == [0] * len(EMPTY)
    rows = [
        {"expected_action": expected, "candidate": case[0]} for expected in (WORDS, SAID) for case in EMPTY
    ]
    assert verify("swe", rows) == [0] * len(rows)


@pytest.mark.parametrize("content", [None, "", " \n"])
def test_a_row_that_expects_an_empty_message_is_no_candidate(content):
    with pytest.raises(ValueError, match="not enough values"):
        read_one(theirs(expected_action={"type": "message", "content": content}))


def test_a_completion_without_text_is_no_action():
    row = theirs(expected_action=SAID)
    assert reward(row, parse_action("")) == 0
    assert reward(row, parse_action("<think>\nhm\n</think>\n\n")) == 0
    assert reward(row, parse_action("\n")) == 1
