"""Random rows of NeMo Gym: read or refused in a sentence, calls stay calls, and the export comes back.

NEMO_GYM_FUZZ_ROWS sets how many; 100,000 take a few minutes.
"""

import json
import os
import random

import pytest
from support import nemo_gym_fuzz as fuzz

from pivotrl_jax.chat.actions import message_to_action
from pivotrl_jax.chat.json_text import read_value
from pivotrl_jax.exchange import contract, rows
from pivotrl_jax.records import InputError, to_json
from pivotrl_jax.trajectories import extract, filters
from pivotrl_jax.trajectories.readers import nemo_gym
from pivotrl_jax.verifiers import VERIFIERS

COUNT = int(os.environ.get("NEMO_GYM_FUZZ_ROWS", "1200"))
PARTS = 4


def as_read(row):
    """The row as a reader of files gets it; None if it cannot stand in a file."""
    try:
        return read_value(json.dumps(row).encode())
    except InputError:
        return None


def written_calls(expected):
    """(name, arguments) of the calls that a whole row's expected action makes."""
    items = expected.get("calls", [expected])
    made = [i for i in items if i.get("type", "function_call") == "function_call"]
    return [(i["name"], i["arguments"]) for i in made]


def read_calls(message):
    return [(c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls") or []]


def spoken_call(candidate):
    """Whether a demonstration that the tool-use servers score is talk with a call in it."""
    return "expected_answer" not in candidate.case and "<tool_call>" in candidate.demonstration["content"]


def checked(row):
    """The candidates of a row; None where it is refused. Whatever they hold can be verified and exported."""
    try:
        trajectory = nemo_gym.trajectory(row, "rows.jsonl:1")
    except InputError as e:
        assert str(e) and "\n" not in str(e)
        return None
    filters.within_pass_rates([trajectory], 0.1, 0.9)
    found = extract.extract([trajectory])
    for candidate in found:
        line = json.loads(json.dumps(rows.row_of(candidate, None, "agent"), ensure_ascii=False))
        contract.validate(line, "agent")
        try:
            same, _ = rows.record_of(line, "rows.jsonl:1")
            assert to_json(same) == to_json(candidate)
        except InputError as e:
            assert '.rewards" holds something' in str(e)  # of a damaged profile
        try:
            VERIFIERS[candidate.verifier].verify(candidate, message_to_action(candidate.demonstration))
        except InputError:
            pass
    return found


@pytest.mark.parametrize("part", range(PARTS))
def test_whole_rows_are_read_and_their_calls_come_back(part):
    read = 0
    for seed in range(part, COUNT, PARTS):
        r = random.Random(seed)
        row = as_read(fuzz.row(r))
        assert nemo_gym.recognise(row, "rows.jsonl")
        found = checked(row)
        gold = row.get("expected_action") or {"calls": row.get("expected_answers") or []}
        wanted = written_calls(gold)
        if found is None:
            continue
        read += 1
        items = row["responses_create_params"]["input"]
        for candidate in found:
            assert sum(len(read_calls(m)) for m in candidate.messages) == sum(
                item.get("type") == "function_call" for item in items
            )
            made = read_calls(candidate.demonstration)
            assert [name for name, _ in made] == [name for name, _ in wanted], seed
            for (_, got), (_, want) in zip(made, wanted):
                assert got == (
                    json.loads(want) if isinstance(want, str) else without_undeclared(row, got, want)
                )
        assert found or not wanted, "a call is never left out without a word"
        assert all(c.is_call or not spoken_call(c) for c in found)
    assert read > COUNT // PARTS // 2


def without_undeclared(row, got, want):
    """Nulls that no property declares may be missing; nothing else may."""
    assert all(k in got or v is None for k, v in want.items())
    return got if got.keys() <= want.keys() else want


@pytest.mark.parametrize("part", range(PARTS))
def test_damaged_rows_are_read_or_refused_and_never_turned_into_talk(part):
    refused = 0
    for seed in range(part, COUNT, PARTS):
        r = random.Random(-seed - 1)
        row = as_read(fuzz.damaged(r, fuzz.row(r)))
        if row is None:
            continue
        nemo_gym.recognise(row, "rows.jsonl")
        nemo_gym.pass_rate(row), nemo_gym.pass_rate(row, "qwen_235b_info")
        found = checked(row)
        refused += found is None
        expected = row.get("expected_action")
        if (
            found
            and isinstance(expected, dict)
            and expected.get("type") in ("function_call", "function_call_batch")
        ):
            assert all(c.is_call for c in found), seed
    assert refused > COUNT // PARTS // 20
