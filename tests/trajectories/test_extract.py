"""Candidates are the assistant turns of a trajectory."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
from support.qwen3_chat import QWEN3, save_tokenizer

from pivotrl_jax.chat.template import load_chat
from pivotrl_jax.records import InputError, Prompt, Trajectory
from pivotrl_jax.trajectories import extract as extract_lib
from pivotrl_jax.trajectories.extract import digest, extract, limit_prompts, render

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


# ---- prompts


def many():
    """Candidates of three trajectories, and some with messages of their own between them."""
    messages = [USER, CALL, RESULT, DONE, USER, CALL, RESULT, {**DONE, "reasoning_content": "so"}, USER, DONE]
    made = [
        Trajectory(id, [*messages], [{"name": id}], "openai", id, "exact", {3: {"z": 1, "a": "é"}})
        for id in "abc"
    ]
    first, second, third = (extract([t]) for t in made)
    alone = [dataclasses.replace(c, messages=list(c.messages)) for c in second]
    return [*first, *alone, *third, first[1]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tokenizer(tmp_path_factory.mktemp("qwen3"), QWEN3)


@pytest.mark.parametrize("keep", [False, True])
def test_prompts_are_those_of_the_candidates_one_by_one(folder, keep):
    chat = load_chat(folder, keep)
    prompts = render(chat, many())
    assert [p.candidate for p in prompts] == many()
    assert [p.ids.tolist() for p in prompts] == [chat.prompt_ids(c.messages, c.tools) for c in many()]
    assert all(p.ids.dtype == np.int32 for p in prompts)


def test_a_refused_prompt_stands_among_the_others_and_stops_a_run(folder):
    chat, odd = load_chat(folder, False), many()
    odd[2] = dataclasses.replace(odd[2], messages=[{"role": "critic", "content": ""}])
    found = list(extract_lib.encode(chat, odd))
    assert [c for c, _ in found] == odd
    assert [i for i, (_, ids) in enumerate(found) if isinstance(ids, InputError)] == [2]
    with pytest.raises(InputError, match="the chat template refuses"):
        render(chat, odd)


def test_the_digest_is_that_of_every_prompt_written_out(folder):
    """Runs of earlier versions resume, so the digest must stay what it was."""
    prompts, h = render(load_chat(folder, False), many()), hashlib.sha256()
    for prompt in prompts:
        c = prompt.candidate
        content = [c.id, list(c.messages), c.tools, c.demonstration, c.verifier, c.case, prompt.ids.tolist()]
        h.update(json.dumps(content, sort_keys=True).encode())
    assert digest(prompts) == h.hexdigest()[:16]
