"""Reading files, folders and hub datasets: what cannot be read is named and never another exception."""

import bz2
import copy
import gzip
import json
import lzma
import re
import sys
import types

import pytest
from support.reader_samples import MINI, OPENAI, SAMPLES, TERMINUS, only, read

from pivotrl_jax.records import InputError
from pivotrl_jax.trajectories import extract, filters, reading
from pivotrl_jax.trajectories.readers import files

# ---- files, folders, hub datasets


def test_parquet(tmp_path):
    parquet, pyarrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    rows = [
        {"messages": [{**m, "tool_calls": m.get("tool_calls")} for m in OPENAI["messages"]]},
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        {"messages": None},
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    trajectories, named = reading.read(tmp_path)
    assert trajectories[0].messages == only(tmp_path, OPENAI).messages
    assert list(named) == [f"{tmp_path / 'rows.parquet'}:3"]
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="no readable parquet file"):
        reading.read(tmp_path / "bad.parquet")


def test_a_small_parquet_file_that_unpacks_to_more_than_the_memory_is_refused(tmp_path, monkeypatch):
    parquet, pyarrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    file = tmp_path / "bomb.parquet"
    parquet.write_table(pyarrow.table({"text": ["a" * 2**22, "b" * 2**22]}), file, use_dictionary=False)
    assert file.stat().st_size < 2**20
    monkeypatch.setattr(files, "LARGEST_ROW_GROUP", 2**22)
    with pytest.raises(
        InputError, match=r"bomb\.parquet: a row group takes .* once unpacked, .* smaller row"
    ):
        reading.read(file)


def test_missing_packages_are_named(tmp_path, monkeypatch):
    (tmp_path / "rows.parquet").write_bytes(b"")
    for package, path in (("pyarrow", tmp_path / "rows.parquet"), ("datasets", "hf:owner/name")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(InputError, match=r"pip install -e '.\[datasets\]'"):
            reading.read(path)


def hub(monkeypatch, load):
    """Stand in for the package datasets."""
    module = types.ModuleType("datasets")
    module.load_dataset = load
    module.exceptions = types.SimpleNamespace(DatasetsError=type("DatasetsError", (Exception,), {}))
    monkeypatch.setitem(sys.modules, "datasets", module)


def test_hub_datasets(monkeypatch):
    asked = []

    def load(name, split):
        asked.append((name, split))
        return [TERMINUS, {"conversations": "?"}, {**TERMINUS, "episode": None}]

    hub(monkeypatch, load)
    trajectories, named = reading.read("hf:owner/name:test")
    assert asked == [("owner/name", "test")] and [t.source for t in trajectories] == ["terminus"] * 2
    assert [t.id for t in trajectories] == ["name:test:1", "name:test:3"]
    assert list(named) == ["hf:owner/name:test:2"]


def test_a_hub_dataset_that_cannot_be_loaded_is_named(monkeypatch):
    def load(name, split):
        raise ValueError(f"Unknown split {split!r}\nand much more")

    hub(monkeypatch, load)
    with pytest.raises(
        InputError, match=r"hf:owner/name: the dataset cannot be loaded \(Unknown split 'train'\)"
    ):
        reading.read("hf:owner/name")
    with pytest.raises(InputError, match='want "hf:owner/name"'):
        reading.read("hf:name")


def test_ids_are_unique_and_the_same_every_time(tmp_path):
    for folder in ("b", "a"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.traj.json").write_text(json.dumps(MINI), encoding="utf-8")
    trajectories, _ = reading.read([tmp_path, tmp_path / "a" / "x.traj.json"])  # a file counts once
    assert [(t.id, t.origin) for t in trajectories] == [
        ("x", str(tmp_path / "a" / "x.traj.json")),
        ("x~2", str(tmp_path / "b" / "x.traj.json")),
    ]
    assert {t.scenario for t in trajectories} == {"x"}


def test_unknown_formats_are_refused_by_name_and_named_in_folders(tmp_path):
    with pytest.raises(InputError, match=r"x.json: the format is not known; known are .*atif, tau_bench"):
        read(tmp_path, {"what": 1}, "x.json")
    (tmp_path / "notes.txt").write_text("hello", encoding="utf-8")
    with pytest.raises(InputError, match=r"notes.txt: not valid JSON"):
        reading.read(tmp_path / "notes.txt")
    trajectories, named = read(tmp_path, OPENAI, "good.json")
    trajectories, named = reading.read(tmp_path)
    assert len(trajectories) == 1 and set(named) == {str(tmp_path / n) for n in ("notes.txt", "x.json")}
    with pytest.raises(InputError, match=r"notes.txt: a file that does not end in"):
        reading.read(tmp_path, on_bad_row="stop")


def test_bad_rows_are_named_or_stop(tmp_path):
    lines = "\n".join([json.dumps(OPENAI), "{", json.dumps({"messages": [{"role": "user", "content": "?"}]})])
    trajectories, named = read(tmp_path, lines, "rows.jsonl")
    path = tmp_path / "rows.jsonl"
    assert [t.id for t in trajectories] == ["o"] and list(named) == [f"{path}:2", f"{path}:3"]
    with pytest.raises(InputError, match=r"rows.jsonl:2: not valid JSON"):
        reading.read(path, on_bad_row="stop")
    with pytest.raises(InputError, match="on_bad_row is 'never'"):
        reading.read(path, on_bad_row="never")
    with pytest.raises(InputError, match="no such file or folder"):
        reading.read(tmp_path / "none")
    with pytest.raises(
        InputError, match="format is 'xml', which is none of the readers; known are anthropic, atif, "
    ):
        reading.read(path, format="xml")


def test_the_verifier_can_be_chosen(tmp_path):
    assert only(tmp_path, MINI, verifier="exact").verifier == "exact"


# ---- malformed input: an InputError or a name, never another exception

WRONG = (None, 0, -1.5, True, "", "x", "{", [], [None], {}, {"x": []}, [[]], float("nan"), "\ud800")


def places(value, path=()):
    """Every place in a JSON value, outermost first."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inner:
        yield from places(child, (*path, key))


def with_wrong(value, path, wrong):
    if not path:
        return wrong
    value = copy.deepcopy(value)
    at = value
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = wrong
    return value


@pytest.mark.parametrize("sample", SAMPLES)
def test_wrong_values_anywhere_are_named(tmp_path, sample):
    value, name = SAMPLES[sample]
    cases = [(path, wrong) for path in places(value) for wrong in WRONG]
    path = tmp_path / "x.jsonl"
    for start in range(0, len(cases), 500):
        lines = [json.dumps(with_wrong(value, *case)) for case in cases[start : start + 500]]
        path.write_text("\n".join([*lines, json.dumps(value)]), encoding="utf-8")
        for trajectory in reading.read(path, format=name)[0]:
            json.dumps(trajectory.messages).encode()
            extract.extract(filters.cap_repeats(filters.skip_errors([trajectory]), 1))
    for place in [p for p in places(value) if len(p) < 3]:
        for wrong in WRONG:
            try:
                read(tmp_path, json.dumps(with_wrong(value, place, wrong)), "x.json")
            except InputError as e:
                assert "x.json" in str(e)


@pytest.mark.parametrize("sample", SAMPLES)
def test_truncated_files_are_named(tmp_path, sample):
    text = json.dumps(SAMPLES[sample][0])
    for end in range(0, len(text), 97):
        with pytest.raises(InputError, match=r"x.json: "):
            read(tmp_path, text[:end], "x.json")


def lines_of(places):
    """The lines of x.jsonl at which places are."""
    return {int(re.search(r"x\.jsonl:(\d+)", place)[1]) for place in places}


@pytest.mark.parametrize("sample", SAMPLES)
def test_deep_nesting_anywhere_is_named(tmp_path, sample):
    value, name = SAMPLES[sample]
    deep = "[" * 700 + "]" * 700
    path = tmp_path / "x.jsonl"
    lines = [
        json.dumps(with_wrong(value, place, "DEEP")).replace('"DEEP"', form)
        for place in places(value)
        for form in (deep, '{"type": ' * 500 + "1" + "}" * 500)
    ]
    path.write_text("\n".join([*lines, json.dumps(value)]), encoding="utf-8")
    found, named = reading.read(path, format=name)
    for trajectory in found:
        json.dumps(trajectory.messages).encode()
    read_lines, named_lines = map(lines_of, ((t.origin for t in found), named))
    assert read_lines | named_lines == set(range(1, len(lines) + 2)) and named_lines
    assert len(lines) + 1 in read_lines, "the line without damage"


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b"", b"\x00", b"1" * 5000])
def test_hostile_bytes_are_named(tmp_path, raw):
    for name in ("x.json", "x.jsonl", "x.traj"):
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(InputError, match=name):
            reading.read(tmp_path / name)


def test_a_file_of_several_formats_is_read_document_by_document(tmp_path):
    call = {"tool_call_id": "a", "function_name": "ls", "arguments": {}}
    steps = [{"source": "user", "message": "go"}, {"source": "agent", "message": "", "tool_calls": [call]}]
    chat = {"messages": [{"role": "user", "content": "go"}, {"role": "assistant", "content": "Done."}]}
    path = tmp_path / "mixed.jsonl"
    rows = [{"schema_version": "ATIF-v1.7", "steps": steps}, chat, {"neither": 1}]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    trajectories, left_out = reading.read(path)
    assert [t.source for t in trajectories] == ["atif", "openai", "atif"]
    assert list(left_out) == [f"{path}:3"]


CHAT_ROW = (
    '{"messages": [{"role": "user", "content": "caf\u00e9"}, {"role": "assistant", "content": "Yes."}]}\n'
)


@pytest.mark.parametrize(
    "pack", [gzip.compress, bz2.compress, lzma.compress, lambda b: b"\x28\xb5\x2f\xfd" + b]
)
def test_a_packed_file_is_called_packed(pack, tmp_path):
    for name in ("a.jsonl", "a.jsonl.gz"):
        (tmp_path / name).write_bytes(pack(CHAT_ROW.encode()))
        with pytest.raises(
            InputError, match=f"{name}.*: packed by (gzip|bzip2|xz|zstd), which is not read; unpack"
        ):
            reading.read(tmp_path / name)


@pytest.mark.parametrize("encoding, byte", [("latin-1", "47 is 0xe9"), ("utf-16", "1 is 0xff")])
def test_text_in_another_encoding_is_said_to_be_that(encoding, byte, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(CHAT_ROW.encode(encoding))
    with pytest.raises(InputError, match=rf"not text in UTF-8 \(byte {byte}\); convert it"):
        reading.read(tmp_path / "a.jsonl")
