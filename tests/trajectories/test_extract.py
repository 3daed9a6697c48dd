"""Candidates are the assistant turns of a trajectory."""

from pivotrl_jax.records import Prompt, Trajectory
from pivotrl_jax.trajectories.extract import extract, limit_prompts

USER = {"role": "user", "content": "what is here?"}
DONE = {"role": "assistant", "content": "Only a."}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "ls", "arguments": {}}}],
}
RESULT = {"role": "tool", "tool_call_id": "c1", "name": "ls", "content": "[]"}


def test_every_assistant_turn_is_a_candidate():
    trajectory = Trajectory("t", [USER, CALL, RESULT, DONE], [], "openai", "t", "tool_call")
    first, second = extract([trajectory])
    assert (first.id, first.turn, first.is_call) == ("t@1", 0, True)
    assert first.messages == trajectory.messages[:1] and first.demonstration == trajectory.messages[1]
    assert (second.id, second.turn, second.is_call) == ("t@3", 1, False)
    assert second.messages == trajectory.messages[:3]
    assert (second.trajectory_id, second.scenario, second.verifier) == ("t", "t", "tool_call")


def test_cases_go_to_their_turns_and_a_greeting_gives_no_candidate():
    messages = [DONE, USER, DONE, USER, DONE]
    trajectory = Trajectory("t", messages, [], "bfcl", "s", "bfcl_multi_turn", {4: {"k": 1}})
    assert [(c.id, c.turn, c.case) for c in extract([trajectory])] == [("t@2", 1, {}), ("t@4", 2, {"k": 1})]


def test_a_long_prompt_is_left_out_with_its_length():
    trajectory = Trajectory("t", [USER, DONE, USER, DONE], [], "openai", "s", "tool_call")
    candidates = extract([trajectory])
    kept, skipped = limit_prompts([Prompt(c, [1] * 10 * len(c.messages)) for c in candidates], 10)
    assert [prompt.candidate.id for prompt in kept] == ["t@1"]
    assert list(skipped) == ["t@3"] and "30 tokens, more than the limit of 10" in skipped["t@3"]
