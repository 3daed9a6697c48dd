"""Random rows of NeMo Gym: read or refused in a sentence, calls stay calls, and the export comes back.

PIVOTRL_FUZZ sets how many; 100,000 take a few minutes.
"""

import dataclasses
import json
import random

import pytest
from support import nemo_gym_fuzz as fuzz
from support.fuzzing import cases

from pivotrl_jax.chat.actions import message_to_action, parse_action
from pivotrl_jax.chat.json_text import read_value
from pivotrl_jax.exchange import contract, rows
from pivotrl_jax.pivots.selection import mean_and_variance
from pivotrl_jax.records import Action, Call, InputError, Profile, to_json
from pivotrl_jax.trajectories import extract, filters, reading
from pivotrl_jax.trajectories.readers import nemo_gym
from pivotrl_jax.verifiers import VERIFIERS

STRICT = ("tool_call", "search", "swe", "terminal", "tau2", "exact")
COUNT = cases(1200)
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


def checked(row, r):
    """The candidates of a row; None where it is refused. Whatever they hold can be verified and exported."""
    try:
        trajectory = nemo_gym.trajectory(row, "rows.jsonl:1")
    except InputError as e:
        assert str(e) and "\n" not in str(e)
        return None
    filters.within_pass_rates([trajectory], 0.1, 0.9)
    found = extract.extract([trajectory])
    for candidate in found:
        verified(candidate, r)
        exported(candidate, None)
        ours = dataclasses.replace(
            candidate, verifier=r.choice(STRICT), case=r.choice([{}, {"level": "name"}])
        )
        rewards = [float(r.random() < 0.5) for _ in range(4)]
        mean, variance = mean_and_variance(rewards)
        profile = Profile(
            ours.id, rewards, mean, variance, ours.is_call, "abc", "v/1", 1.0, r.randrange(9), 0
        )
        exported(ours, profile)
    return found


def exported(candidate, profile):
    """A candidate goes out and comes back as it was, and its call as a call."""
    line = json.loads(json.dumps(rows.row_of(candidate, profile, "agent"), ensure_ascii=False))
    contract.validate(line, "agent")
    if profile is not None or "expected_answer" not in line:
        kind = line.get("expected_action", {}).get("type", "message")
        assert kind.startswith("function_call") == candidate.is_call
    try:
        same, kept = rows.record_of(line, "rows.jsonl:1")
    except InputError as e:
        assert '.rewards" holds something' in str(e)  # of a damaged profile
        return
    assert to_json(same) == to_json(candidate)
    assert profile is None or kept == profile


def verified(candidate, r):
    """A verdict on the demonstration and on random completions; only a broken case raises, an InputError."""
    broken = json.dumps(fuzz.call(r))[: r.randrange(60)]
    said = f"{r.choice(fuzz.WORDS)}<tool_call>{r.choice([json.dumps(fuzz.call(r)), broken])}</tool_call>"
    actions = [
        message_to_action(candidate.demonstration),
        parse_action(r.choice(["", "<think>x</think>"]) + r.choice([said, r.choice(fuzz.WORDS)])),
        Action(calls=(Call(r.choice(fuzz.NAMES), fuzz.value(r)),)),
    ]
    for action in actions:
        try:
            reward = VERIFIERS[candidate.verifier].verify(candidate, action).reward
        except InputError:
            continue
        assert reward is None or 0 <= reward <= 1


@pytest.mark.parametrize("part", range(PARTS))
def test_whole_rows_are_read_and_their_calls_come_back(part):
    read = 0
    for seed in range(part, COUNT, PARTS):
        r = random.Random(seed)
        row = as_read(fuzz.row(r))
        assert nemo_gym.recognise(row, "rows.jsonl")
        found = checked(row, r)
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
        found = checked(row, r)
        refused += found is None
        expected = row.get("expected_action")
        if (
            found
            and isinstance(expected, dict)
            and expected.get("type") in ("function_call", "function_call_batch")
        ):
            assert all(c.is_call for c in found), seed
    assert refused > COUNT // PARTS // 20


def test_every_row_of_a_file_is_read_or_named(tmp_path):
    lines = []
    for seed in range(COUNT // 4):
        r = random.Random(f"file {seed}")
        row = fuzz.row(r)
        lines.append(json.dumps(fuzz.damaged(r, row) if seed % 2 else row))
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    made, left_out = reading.read(path, "nemo_gym")
    assert len(made) + len(left_out) == len(lines) and all(left_out.values())
    places = {t.origin for t in made} | left_out.keys()
    assert places == {f"{path}:{number}" for number in range(1, len(lines) + 1)}
