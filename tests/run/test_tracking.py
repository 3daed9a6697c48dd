"""Experiment trackers: what is reported, once, whatever happens to the run or to the tracker; and the real
libraries, offline."""

import json
from pathlib import Path

import pytest
from support import tiny_run

from pivotrl_jax.pivots.selection import make_profile
from pivotrl_jax.records import InputError, Pivot, write_records
from pivotrl_jax.run import tracking
from pivotrl_jax.run.metrics import MetricsWriter


class Book:
    """A tracker that writes down what it is told; `fails` names a method that raises."""

    told: list = []
    fails = ""

    def __init__(self, about):
        self.id = about.id or "new"
        self._say("open", about.id, about.name)

    def _say(self, method, *values):
        if method == Book.fails:
            raise ConnectionError("no route to host\nmore")
        Book.told.append((method, *values))

    def __getattr__(self, method):
        return lambda *values: self._say(method, *values)


@pytest.fixture
def book(monkeypatch):
    monkeypatch.setattr(Book, "told", [])
    monkeypatch.setitem(tracking.MAKERS, "wandb", Book)
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: name)
    return Book


def about(workdir: Path) -> tracking.About:
    return tracking.About("project", "name", {"seed": 0, "grpo.steps": 2}, workdir, None)


def write(workdir: Path, first: int, steps) -> None:
    with MetricsWriter(workdir, first) as writer:
        for step in steps:
            writer.write(step, {"reward_mean": step / 10, "kl": float("nan")})


def test_each_step_is_reported_once_also_by_a_resumed_run(book, tmp_path):
    first = tracking.Tracking(("wandb",), about(tmp_path))
    write(tmp_path, 0, [0])
    first.step()
    write(tmp_path, 1, [1, 2])
    first.step()
    first.close()
    again = tracking.Tracking(("wandb",), about(tmp_path))
    write(tmp_path, 2, [2, 3])  # step 2 is done again: its checkpoint was not there
    again.step()
    again.finish({"after/x": 0.5}, [tmp_path])
    logged = [told[1:] for told in book.told if told[0] == "log"]
    assert logged == [(step, {"reward_mean": step / 10}) for step in range(4)]
    assert [told for told in book.told if told[0] == "open"] == [
        ("open", None, "name"),
        ("open", "new", "name"),
    ]
    assert book.told[-3:] == [("summary", {"after/x": 0.5}), ("upload", tmp_path), ("close",)]


def test_the_pivots_are_a_table(book, tmp_path):
    candidate = tiny_run.candidate("t1", demonstration="<b>1</b>")
    profile = make_profile(candidate, [1.0, 0.0], "policy", "toy", 1.0, 0)
    write_records(tmp_path / "pivots.jsonl", [Pivot(candidate, profile)])
    tracking.Tracking(("wandb",), about(tmp_path)).finish({}, [])
    (table,) = [told for told in book.told if told[0] == "table"]
    assert table[1:3] == ("pivots", tracking.COLUMNS)
    assert table[3][0][:5] == ("t1@0", "t1", 0, 0.5, 2) and "<b>1</b>" in table[3][0][5]


@pytest.mark.parametrize("method", ["open", "log", "summary", "close"])
def test_a_tracker_that_fails_is_given_up_with_one_warning(book, tmp_path, monkeypatch, capsys, method):
    monkeypatch.setattr(Book, "fails", method)
    trackers = tracking.Tracking(("wandb",), about(tmp_path))
    write(tmp_path, 0, [0, 1])
    trackers.step()
    trackers.finish({"x": 1.0}, [])
    err = capsys.readouterr().err
    assert (
        err.count("warning: Weights & Biases failed and is not reported to any more (no route to host)") == 1
    )


def test_a_tracker_that_is_not_installed_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"names 'mlflow', and MLflow is not installed.*'\.\[mlflow\]'"):
        tracking.Tracking(("mlflow",), about(tmp_path))


def test_without_trackers_nothing_happens(tmp_path):
    trackers = tracking.none()
    trackers.step()
    trackers.finish({"x": 1.0}, [tmp_path])
    assert not list(tmp_path.iterdir())


def run_offline(name: str, workdir: Path) -> str:
    """Report a run in two processes' worth of calls; returns its id there."""
    (folder := workdir / "hf").mkdir()
    (folder / "config.json").write_text("{}")
    write(workdir, 0, [0, 1])
    first = tracking.Tracking((name,), about(workdir))
    first.step()
    first.close()
    write(workdir, 2, [2])
    tracking.Tracking((name,), about(workdir)).finish({"after/x": 0.5}, [folder])
    known = json.loads((workdir / tracking.FILE).read_text("utf-8"))[name]
    assert known["steps"] == 3
    return known["id"]


def test_weights_and_biases_offline(tmp_path, monkeypatch, capsys):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    name = run_offline("wandb", tmp_path)
    files = list((tmp_path / "wandb").glob(f"offline-run-*/run-{name}.wandb"))
    assert files and "warning" not in capsys.readouterr().err


def test_mlflow_in_a_local_database(tmp_path, monkeypatch, capsys):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    name = run_offline("mlflow", tmp_path)
    assert "warning" not in capsys.readouterr().err
    run = mlflow.get_run(name)
    assert run.data.params["grpo.steps"] == "2" and run.data.metrics["final/after/x"] == 0.5
    history = mlflow.MlflowClient().get_metric_history(name, "reward_mean")
    assert [(m.step, m.value) for m in history] == [(0, 0.0), (1, 0.1), (2, 0.2)]
    assert [a.path for a in mlflow.MlflowClient().list_artifacts(name)] == ["hf"]
