"""Records survive the disk, whatever their text; a bad line is named by file and line."""

import dataclasses
import json

import pytest

from pivotrl_jax.records import (
    Candidate,
    InputError,
    Pivot,
    Prefix,
    Profile,
    Rollout,
    Trajectory,
    count_candidates,
    read_jsonl,
    read_records,
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


# ---- candidates and pivots share a line


SAID = [{"role": r, "content": f"{r} {i}"} for i, r in enumerate(("user", "assistant") * 4)]
TOOLS = [{"name": "ls"}]


def places(id="t", said=SAID, tools=TOOLS, ends=(1, 3, 7)):
    """Candidates that point into one trajectory."""
    return [
        Candidate(f"{id}@{i}", id, i // 2, Prefix(said, i), tools, said[i], "exact", {"at": i}, "s")
        for i in ends
    ]


def whole(candidate):
    """The same candidate with a list of its own, as earlier versions made them."""
    return dataclasses.replace(candidate, messages=list(candidate.messages))


def test_a_prefix_is_the_list_that_it_stands_for():
    for length in range(len(SAID) + 1):
        prefix, plain = Prefix(SAID, length), SAID[:length]
        assert len(prefix) == length and list(prefix) == plain and prefix == plain and plain == prefix
        assert (
            repr(prefix) == repr(plain) and [*reversed(prefix)] == plain[::-1] and bool(prefix) == bool(plain)
        )
        for part in (slice(None), slice(-2, None), slice(1, 9), slice(None, None, -1)):
            assert prefix[part] == plain[part]
        for i in range(-10, 10):
            if -length <= i < length:
                assert prefix[i] is plain[i]
            else:
                with pytest.raises(IndexError):
                    prefix[i]
    assert Prefix(SAID, 2) != SAID[:3] and Prefix(SAID, 2) != tuple(SAID[:2])
    assert SAID[0] in Prefix(SAID, 1) and SAID[1] not in Prefix(SAID, 1)


def test_candidates_of_a_trajectory_share_a_line_and_come_back_in_order(tmp_path):
    file = tmp_path / "c.jsonl"
    other = [dict(message) for message in SAID]
    records = [
        *places(),
        *places("u", other, ends=(5, 1)),
        *map(whole, places("v")),
        *places("t2", ends=(3,)),
    ]
    records.append(
        dataclasses.replace(places("t2", ends=(5,))[0], demonstration=TALK)
    )  # not in the trajectory
    write_records(file, records)
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert [len(line["candidates"]) for line in lines] == [3, 2, 1, 1, 1, 1, 1]
    assert [len(line["messages"]) for line in lines] == [8, 6, 2, 4, 8, 4, 6], (
        "nothing past the last candidate"
    )
    read = read_records(file, Candidate)
    assert read == records and count_candidates(file) == len(records)
    assert read[0].messages.trajectory is read[2].messages.trajectory, "they share their messages again"
    write_records(tmp_path / "again.jsonl", read)
    assert (tmp_path / "again.jsonl").read_bytes() == file.read_bytes()


def test_candidates_of_another_trajectory_tools_or_scenario_do_not_share_a_line(tmp_path):
    a, b = places(ends=(1, 3))
    changes = [
        {"tools": [*TOOLS]},
        {"scenario": "z"},
        {"trajectory_id": "z"},
        {"messages": Prefix([*SAID], 3)},
    ]
    for change in changes:
        records = [a, dataclasses.replace(b, **change)]
        write_records(tmp_path / "c.jsonl", records)
        assert len((tmp_path / "c.jsonl").read_text("utf-8").splitlines()) == 2
        assert read_records(tmp_path / "c.jsonl", Candidate) == records


def test_lines_grow_with_the_trajectory_not_with_its_turns(tmp_path):
    said = [{"role": ("user", "assistant")[i % 2], "content": "x" * 1000} for i in range(80)]
    write_records(tmp_path / "c.jsonl", places(said=said, ends=range(1, 80, 2)))
    size = (tmp_path / "c.jsonl").stat().st_size
    assert size < 1.2 * len(json.dumps(said))


def test_pivots_share_lines_too_each_with_its_profile(tmp_path):
    profiles = [dataclasses.replace(PROFILE, candidate_id=c.id, seed=i) for i, c in enumerate(places())]
    records = [Pivot(c, p) for c, p in zip(places(), profiles)]
    write_records(tmp_path / "p.jsonl", records)
    assert len((tmp_path / "p.jsonl").read_text("utf-8").splitlines()) == 1
    assert read_records(tmp_path / "p.jsonl", Pivot) == records
    assert read_records(tmp_path / "p.jsonl", Pivot)[2].profile.seed == 2


def test_files_with_all_messages_in_every_line_are_read(tmp_path):
    records = [Pivot(whole(c), PROFILE) for c in places()]
    file = tmp_path / "old.jsonl"
    file.write_text("".join(json.dumps(dataclasses.asdict(r)) + "\n" for r in records), encoding="utf-8")
    assert read_records(file, Pivot) == records
    file.write_text("".join(json.dumps(dataclasses.asdict(r.candidate)) + "\n" for r in records), "utf-8")
    assert read_records(file, Candidate) == places()


@pytest.mark.parametrize(
    "change",
    [
        {"candidates": 3},
        {"candidates": [[]]},
        {"candidates": [{"id": "t@1"}]},
        {"candidates": [{**{"id": "x", "turn": 0, "verifier": "v", "case": {}}, "index": 8}]},
        {"candidates": [{**{"id": "x", "turn": 0, "verifier": "v", "case": {}}, "index": "1"}]},
        {"candidates": [{**{"id": "x", "turn": 0, "verifier": "v"}, "index": 1}]},
        {"messages": None},
        {"colour": 1},
    ],
)
def test_a_broken_line_of_candidates_is_named(tmp_path, change):
    file = tmp_path / "c.jsonl"
    write_records(file, places())
    line = json.loads(file.read_text("utf-8")) | change
    file.write_text(json.dumps(line), encoding="utf-8")
    with pytest.raises(InputError, match=r"c\.jsonl:1: not the candidates of a trajectory"):
        read_records(file, Candidate)


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
