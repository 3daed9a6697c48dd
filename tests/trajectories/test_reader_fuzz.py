"""Random conversations come back from every format with the same calls and texts; damaged ones never raise
anything but InputError, and a call that is still written is never read as talk.

PIVOTRL_FUZZ sets how many cases each format gets.
"""

import json
import random

import pytest
from support import conversations
from support.damage import damaged
from support.fuzzing import cases

from pivotrl_jax.records import InputError
from pivotrl_jax.trajectories.readers import (
    anthropic,
    atif,
    claude_code,
    codex,
    inspect_log,
    langchain,
    mini_swe_agent,
    openhands,
    openhands_v1,
    swe_agent,
    tau_bench,
)
from pivotrl_jax.trajectories.readers.base import read_documents

CASES = cases(150)

# name -> (reader, whether every turn must be a shell command, what the format does not hold)
FORMATS = {
    "anthropic": (anthropic, False, {}),
    "claude_code": (claude_code, False, {"system": False}),
    "codex": (codex, False, {"errors": False}),
    "openhands_v1": (openhands_v1, False, {}),
    "inspect_log": (inspect_log, False, {}),
    "langchain": (langchain, False, {}),
    "tau2": (tau_bench, False, {"reasoning": False}),
    "atif": (atif, False, {}),
    "openhands": (openhands, False, {}),
    "mini_fence": (mini_swe_agent, True, {}),
    "mini_xml": (mini_swe_agent, True, {}),
    "mini_native": (mini_swe_agent, True, {}),
    "mini_responses": (mini_swe_agent, True, {}),
    "swe_calls": (swe_agent, False, {"errors": False}),
    "swe_fences": (swe_agent, True, {"errors": False, "reasoning": False}),
}


def case(name, seed):
    """(reader, conversation, document) of one random case."""
    rng = random.Random(f"{name} {seed}")
    reader, shell, _ = FORMATS[name]
    conversation = conversations.conversation(rng, shell)
    return rng, reader, conversation, getattr(conversations, name)(conversation)


@pytest.mark.parametrize("name", FORMATS)
def test_every_call_and_text_comes_back(name):
    for seed in range(CASES):
        _, reader, conversation, document = case(name, seed)
        (t,), named = read_documents(reader, [("x.json", document)])
        assert named == {}, seed
        assert conversations.read_back(t.messages) == conversations.told(conversation, **FORMATS[name][2]), (
            seed
        )
        assert t.skip == {} or name == "swe_calls", seed  # there, a turn without a call is no_action


def check_damaged(name, seed):
    rng, reader, conversation, document = case(name, seed)
    document = damaged(rng, document)
    try:
        trajectories, _ = read_documents(reader, [("x.json", document)])
    except InputError:
        return
    written = json.dumps(document, ensure_ascii=False)
    turns = [turn for _, answers in conversation.turns for turn in answers]
    for t in trajectories:
        json.dumps(t.messages, allow_nan=False).encode()
        for i, message in enumerate(t.messages):
            if message["role"] == "assistant" and i not in t.skip and not message.get("tool_calls"):
                for turn in turns:
                    if turn.text and turn.text == message["content"] and turn.calls:
                        for id, called, given, _, _ in turn.calls:
                            sign = given["command"] if called == "bash" else called
                            there = json.dumps(sign, ensure_ascii=False)[1:-1] in written
                            assert not there, (name, seed, id, message, document)


@pytest.mark.parametrize("name", FORMATS)
def test_damage_is_named_and_no_call_becomes_talk(name):
    for seed in range(CASES):
        check_damaged(name, seed)
