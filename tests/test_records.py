"""Records survive the disk, whatever their text; a bad line is named by file and line."""

import dataclasses

import pytest

from pivotrl_jax.records import (
    Candidate,
    InputError,
    Pivot,
    Profile,
    Rollout,
    Trajectory,
    read_jsonl,
    read_records,
    read_rollouts,
    write_json,
    write_records,
)

TALK = {"role": "assistant", "content": "hello"}
CANDIDATE = Candidate("t@1", "t", 0, [{"role": "user", "content": "hi"}], [], TALK, "exact", {}, "s")
PROFILE = Profile("t@1", [0.0, 1.0], 0.5, 0.25, False, "abc", "exact/1", 1.0, 0)


@pytest.mark.parametrize(
    "record",
    [
        Trajectory(
            "t",
            [{"role": "user", "content": "grüße \u2028 \ud800"}],
            [],
            "openai",
            "s",
            "exact",
            {1: {"k": 2}},
        ),
        CANDIDATE,
        Rollout("t@1", 0, [1, 2], [-0.1, -1e-7], [-0.3, -2e-7], True, "a\nb", 1.0, "ok"),
        PROFILE,
        Pivot(CANDIDATE, PROFILE),
    ],
)
def test_a_record_comes_back_as_it_was(tmp_path, record):
    file = tmp_path / "records.jsonl"
    write_records(file, [record, record])
    assert read_records(file, type(record)) == [record, record]
    assert len(file.read_text("utf-8").split("\n")) == 3
    assert list(tmp_path.iterdir()) == [file], "no temporary file is left"


def test_a_failed_write_leaves_the_old_file(tmp_path):
    file = tmp_path / "records.jsonl"
    write_records(file, [PROFILE])

    def broken():
        yield PROFILE
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write_records(file, broken())
    assert read_records(file, Profile) == [PROFILE]


@pytest.mark.parametrize(
    "line, sentence",
    [
        (b"{", r"x.jsonl:3: not valid JSON"),
        (b"[1]", r"x.jsonl:3: a JSON list, want an object"),
        (b"\xff\xfe{}", r"x.jsonl:3: not valid JSON"),
        (
            b'{"candidate_id": "a", "colour": 1}',
            r"x.jsonl:3: not a Profile: missing fields .*unknown fields \['colour'\]",
        ),
    ],
)
def test_a_bad_line_is_named_by_file_and_line(tmp_path, line, sentence):
    file = tmp_path / "x.jsonl"
    write_records(file, [PROFILE])
    file.write_bytes(file.read_bytes() + b"\n" + line + b"\n")
    with pytest.raises(InputError, match=sentence):
        read_records(file, Profile)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nosuch\.jsonl: no such file"):
        list(read_jsonl(tmp_path / "nosuch.jsonl"))


def test_json_keeps_text(tmp_path):
    write_json(tmp_path / "x.json", {"a": "é"})
    assert (tmp_path / "x.json").read_text("utf-8") == '{\n "a": "é"\n}\n'


def test_call_turns_are_told_from_text_turns():
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    assert not CANDIDATE.is_call and dataclasses.replace(CANDIDATE, demonstration=call).is_call


def test_rollouts_of_some_candidates_are_read_in_order_without_their_tokens(tmp_path):
    rollouts = [Rollout(c, i, [1], [0.0], [0.0], True, "hi", 1.0, "ok") for c in "ab" for i in (1, 0)]
    write_records(tmp_path / "1.jsonl", rollouts[2:])
    write_records(tmp_path / "0.jsonl", rollouts[:2])
    read = list(read_rollouts(tmp_path, {"b"}))
    assert [(r.candidate_id, r.sample, r.token_ids) for r in read] == [("b", 1, []), ("b", 0, [])]
    assert list(read_rollouts(tmp_path / "none", {"b"})) == []
    (tmp_path / "2.jsonl").write_text('{"candidate_id": "b", "sample": "x"}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"2\.jsonl:1: not a Rollout"):
        list(read_rollouts(tmp_path, {"b"}))
