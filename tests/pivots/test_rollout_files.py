"""Rollouts on disk: read back as written, whole or absent, and small."""

import dataclasses
import json
import math
import os

import numpy as np
import pytest

from pivotrl_jax.pivots import rollout_files
from pivotrl_jax.records import InputError, Rollout, write_records


def float32(*values: float) -> list[float]:
    return np.array(values, np.float32).tolist()


def sampled(candidate: str, sample: int, ids: list[int], **fields) -> Rollout:
    log_probs = float32(*(-0.1 * (i % 7) for i in ids))
    values = {"finished": True, "text": f"said {ids}", "reward": float(sample % 2), "reason": "ok", **fields}
    return Rollout(candidate, sample, ids, log_probs, values.pop("model_log_probs", log_probs), **values)


GROUPS = {
    "of the own sampler": [sampled(c, g, [9, 40_000, g][: g + 1]) for c in "ab" for g in range(3)],
    "with ids beyond 16 bits": [sampled("a", 0, [0, 151_935, 2**40])],
    "at another temperature": [sampled("a", 0, [3, 4], model_log_probs=float32(-1.5, -2.5))],
    "of a server, in float64": [
        dataclasses.replace(sampled("a", 0, [3]), log_probs=[-0.1], model_log_probs=[-0.1]),
        sampled("a", 1, [], served={"mode": "chat", "message": {"content": "<b>é\ud800"}}, reward=None),
    ],
    "with a log-prob of -inf": [dataclasses.replace(sampled("a", 0, [3]), log_probs=[-math.inf])],
    "with log-probs of some alone": [
        dataclasses.replace(sampled("a", 0, [3, 4]), model_log_probs=[]),
        dataclasses.replace(sampled("a", 1, [3, 4]), log_probs=[], model_log_probs=[-1.0]),
    ],
    "of nobody": [],
}


@pytest.mark.parametrize("kept", [(0, 2), (1, 2), (0, 1, 1, 2), (0, 1, 2, 0, 1, 2)])
def test_a_group_without_each_sample_once_is_refused(tmp_path, kept):
    file, group = tmp_path / "00000.jsonl", [sampled("a", g, [9]) for g in range(3)]
    rollout_files.write(file, [group[g] for g in kept])
    with pytest.raises(InputError, match=r"00000\.jsonl.*(put back|remove)"):
        rollout_files.rewards(file, ["a"])


def test_a_group_that_ends_early_is_one_of_adaptive_profiling(tmp_path):
    file = tmp_path / "00000.jsonl"
    rollout_files.write(file, [sampled("a", g, [9]) for g in range(3)])
    assert rollout_files.rewards(file, ["a"]) == rollout_files.rewards(file, ["a"], 3) == [[0.0, 1.0, 0.0]]
    with pytest.raises(InputError, match="a has not 4 rollouts"):
        rollout_files.rewards(file, ["a"], 4)


@pytest.mark.parametrize("name", GROUPS)
def test_what_is_written_is_read_back(tmp_path, name):
    file, rollouts = rollout_files.file_of(tmp_path / "rollouts", 3), GROUPS[name]
    rollout_files.write(file, rollouts)
    assert rollout_files.read(file) == rollouts
    empty = {"token_ids": [], "log_probs": [], "model_log_probs": []}
    assert list(rollout_files.summaries(file)) == [dataclasses.replace(r, **empty) for r in rollouts]
    assert sorted(path.name for path in file.parent.iterdir()) == ["00003.jsonl", "00003.npz"]
    before = {path: path.read_bytes() for path in file.parent.iterdir()}
    rollout_files.write(file, rollout_files.read(file))
    assert {path: path.read_bytes() for path in file.parent.iterdir()} == before


def test_lines_are_for_people_and_arrays_for_numpy(tmp_path):
    file = tmp_path / "00000.jsonl"
    rollout_files.write(file, GROUPS["of the own sampler"])
    line = json.loads(file.read_text("utf-8").splitlines()[1])
    assert list(line.items()) == [
        *[("candidate_id", "a"), ("sample", 1), ("reward", 1.0), ("reason", "ok"), ("tokens", 2)],
        *[("finished", True), ("text", "said [9, 40000]"), ("details", "")],
    ]
    with np.load(file.with_suffix(".npz")) as arrays:
        assert {name: arrays[name].dtype for name in arrays} == {
            "counts": np.int32,
            "token_ids": np.uint16,
            "log_probs": np.float32,
        }, "model_log_probs would be the same"
        assert arrays["counts"].tolist() == [[1] * 3, [2] * 3, [3] * 3] * 2
        assert arrays["token_ids"][:3].tolist() == [9, 9, 40_000]


def test_arrays_are_several_times_smaller_than_lines_even_where_nothing_repeats(tmp_path):
    rng = np.random.default_rng(0)
    rollouts = []
    for g in range(8):  # no token is certain
        log_probs = (-rng.exponential(1.0, 1024)).astype(np.float32).tolist()
        ids = rng.integers(0, 151_936, 1024).tolist()
        rollouts.append(Rollout("a", g, ids, log_probs, log_probs, True, "", 1.0, "ok"))
    write_records(tmp_path / "old.jsonl", rollouts)
    rollout_files.write(tmp_path / "new.jsonl", rollouts)
    size = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert 6 * size["new.npz"] < size["old.jsonl"] and size["new.jsonl"] < 8 * 200


def test_files_of_earlier_versions_are_read(tmp_path):
    file = tmp_path / "00000.jsonl"
    for rollouts in GROUPS.values():
        write_records(file, rollouts)
        assert rollout_files.read(file) == rollouts
        assert [r.reward for r in rollout_files.summaries(file)] == [r.reward for r in rollouts]


@pytest.mark.parametrize("write", [rollout_files.write, write_records])
def test_rewards_are_read_without_the_texts_whatever_is_in_these(tmp_path, write):
    hostile = 'a", "text": "", "sample": 0, "reward": 9'
    served = {"text": hostile, "reward": 9}
    fields = {"text": hostile, "details": hostile, "served": served, "reason": hostile}
    rollouts = [sampled(hostile + c, g, [g], **fields) for c in "ab" for g in range(3)]
    rollouts[1] = dataclasses.replace(rollouts[1], reward=None)
    file = tmp_path / "00000.jsonl"
    write(file, rollouts)
    names = [hostile + "a", hostile + "b"]
    assert rollout_files.rewards(file, names) == [[0.0, None, 0.0], [0.0, 1.0, 0.0]]
    for others in (names[:1], names[::-1], [*names, "c"]):
        with pytest.raises(InputError, match=r"00000\.jsonl: does not hold rollouts of its \d candidates"):
            rollout_files.rewards(file, others)
    assert [r.reward for r in rollout_files.rollouts_of(tmp_path, {hostile + "a"})] == [0.0, None, 0.0]
    assert rollout_files.read(file) == rollouts
    for line in ('{"sample": 0}', '{"sample": 1, "reward": 0.0}'):
        file.write_text("\n" + line + "\n", "utf-8")
        with pytest.raises(InputError, match=r"00000\.jsonl:2: not a Rollout"):
            rollout_files.rewards(file, ["a"])


def test_a_shard_is_whole_or_absent(tmp_path, monkeypatch):
    file, rollouts = tmp_path / "00000.jsonl", GROUPS["of the own sampler"]
    replace = os.replace
    for calls in (1, 2):  # killed before the arrays have their name; before the lines have theirs
        done = []

        def killed(*names, done=done, calls=calls):
            done.append(names)
            if len(done) == calls:
                raise KeyboardInterrupt
            replace(*names)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", killed)
            with pytest.raises(KeyboardInterrupt):
                rollout_files.write(file, rollouts)
        assert not file.exists()
    rollout_files.write(file, rollouts)
    assert rollout_files.read(file) == rollouts


def test_damage_is_named(tmp_path):
    file, rollouts = tmp_path / "00000.jsonl", GROUPS["of the own sampler"]
    rollout_files.write(file, rollouts)
    arrays = file.with_suffix(".npz")
    whole = arrays.read_bytes()
    for raw in (b"", whole[: len(whole) // 2], whole.replace(b"counts", b"amount"), b"x" * len(whole)):
        arrays.write_bytes(raw)
        with pytest.raises(InputError, match=r"00000\.npz: not the arrays of a shard \(.*put back"):
            rollout_files.read(file)
    for at in range(0, len(whole), 7):  # a bit that flips is found, or changes nothing
        arrays.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            assert rollout_files.read(file) == rollouts
        except InputError as e:
            assert str(arrays) in str(e)
    rollout_files.write(tmp_path / "00001.jsonl", rollouts[1:])
    arrays.write_bytes((tmp_path / "00001.npz").read_bytes())
    with pytest.raises(InputError, match=r"00000\.npz: holds the arrays of other rollouts than 00000\.jsonl"):
        rollout_files.read(file)
    arrays.unlink()
    with pytest.raises(InputError, match=r"00000\.npz: no such file; it has the token ids and log-probs of"):
        rollout_files.read(file)
    assert len(list(rollout_files.summaries(file))) == len(rollouts), "rewards and texts need no arrays"
    with pytest.raises(InputError, match=r"00009\.jsonl: no such file"):
        rollout_files.read(tmp_path / "00009.jsonl")


@pytest.mark.parametrize("write", [rollout_files.write, write_records])
def test_rollouts_of_some_candidates_are_read_in_order_without_their_tokens(tmp_path, write):
    rollouts = [sampled(c, g, [1], text="hé") for c in "ab" for g in (1, 0)]
    write(tmp_path / "1.jsonl", rollouts[2:])
    write(tmp_path / "0.jsonl", rollouts[:2])
    read = list(rollout_files.rollouts_of(tmp_path, {"b"}))
    assert [(r.candidate_id, r.sample, r.token_ids) for r in read] == [("b", 1, []), ("b", 0, [])]
    index = rollout_files.Index(tmp_path, {"a", "b"})
    assert index.read("b") == read and [r.sample for r in index.read("a")] == [1, 0]
    assert index.read("c") == rollout_files.Index(tmp_path, {"a"}).read("b") == []
    assert list(rollout_files.rollouts_of(tmp_path / "none", {"b"})) == []
    (tmp_path / "2.jsonl").write_text('\n{"candidate_id": "b", "sample": "x"}\n', encoding="utf-8")
    for read in (
        lambda: list(rollout_files.rollouts_of(tmp_path, {"b"})),
        lambda: rollout_files.Index(tmp_path, {"b"}).read("b"),
        lambda: rollout_files.read(tmp_path / "2.jsonl"),
    ):
        with pytest.raises(InputError, match=r"2\.jsonl:2: not a Rollout|2\.npz: no such file"):
            read()
