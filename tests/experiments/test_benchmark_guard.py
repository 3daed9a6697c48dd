"""experiments/benchmarks/run_all.py: what it compares, with invented ratios."""

import importlib.util
import json
import sys

import pytest
from support.paths import ROOT

FOLDER = ROOT / "experiments" / "benchmarks"


@pytest.fixture(scope="module")
def guard():
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("benchmarks_run_all", FOLDER / "run_all.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module


def test_a_ratio_lower_by_more_than_15_percent_is_lost(guard):
    before = {"step: TRL / ours": 10.0, "experts: forward": 1.0}
    assert guard.lost({"step: TRL / ours": 8.51, "experts: forward": 2.0}, before) == []
    assert guard.lost({"step: TRL / ours": 8.49, "experts: forward": 1.0}, before) == ["step: TRL / ours"]
    assert guard.lost({"roofline: forward": 0.1}, before) == []


def test_the_latest_value_of_each_ratio_on_the_same_machine_counts(guard, tmp_path):
    entries = [
        {"machine": "a", "ratios": {"x": 1.0, "y": 2.0}},
        {"machine": "b", "ratios": {"x": 9.0}},
        {"machine": "a", "ratios": {"x": 3.0}},
    ]
    history = tmp_path / "history.jsonl"
    history.write_text("".join(json.dumps(e) + "\n" for e in entries))
    assert guard.earlier(history, "a") == {"x": 3.0, "y": 2.0}
    assert guard.earlier(tmp_path / "none.jsonl", "a") == {}


def test_the_table_names_what_was_not_recorded(guard):
    text = guard.table({"x": 1.5, "z": 2.0}, {"x": 1.0})
    assert "| x | 1.5 | 1 | +50% |" in text and "| z | 2 | none |  |" in text


def test_every_benchmark_is_a_program_that_is_there(guard):
    for program, _, _, paths in guard.BENCHMARKS.values():
        assert (FOLDER / f"{program}.py").is_file() and paths


def test_an_unknown_name_is_refused(guard, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["run_all.py", "--only=fast"])
    with pytest.raises(SystemExit, match="the benchmarks are roofline"):
        guard.main()


def test_the_history_is_of_the_benchmarks_that_there_are(guard):
    known = {f"{name}: {ratio}" for name, (*_, paths) in guard.BENCHMARKS.items() for ratio in paths}
    for line in guard.HISTORY.read_text().splitlines():
        entry = json.loads(line)
        assert set(entry) == {"date", "commit", "machine", "ratios"} and set(entry["ratios"]) <= known
