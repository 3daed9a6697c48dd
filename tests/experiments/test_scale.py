"""The experiment on size, made small: every stage runs, and a size that was stopped goes on."""

import importlib.util
import json
import subprocess
import sys

import pytest
from support.fabricated_run import data_in
from support.paths import ROOT

from pivotrl_jax.records import InputError, Pivot, read_records


@pytest.fixture(scope="module")
def scale():
    path = ROOT / "experiments" / "scale" / "run.py"
    spec = importlib.util.spec_from_file_location("scale_run", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.TOKENS, module.STEPS = 16, 1
    return module


def in_a_process(scale, runs) -> dict:
    """The export, which has a program's flags, and two programs' flags do not go together in one process."""
    command = [sys.executable, scale.__file__, "--stage=export", "--sizes=320", f"--runs={runs}"]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def test_every_stage_runs_and_says_what_it_took(scale, tmp_path):
    workdir = tmp_path / "320"
    workdir.mkdir()
    for stage in scale.STAGES:
        scale.Synthetic.seconds[:] = 0.0, 0.0  # every stage is a process of its own
        found = scale.measured(stage, 320, workdir) if stage != "export" else in_a_process(scale, tmp_path)
        assert found["peak_mib"] > 0 and found["cpu_seconds"] > 0
        assert stage in ("profile", "batches") or not found["making_rollouts_up"], stage
    pivots = read_records(workdir / "pivots.jsonl", Pivot)
    assert 0.05 < len(pivots) / 320 < 0.25
    page = (workdir / "report.html").read_text("utf-8")
    assert len(data_in(page)["index"]["rows"]) == 320
    lines = (workdir / "rows" / "rollouts_nemo_gym.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == 8 * len(pivots)


def test_a_resumed_profile_must_be_the_same(scale, tmp_path):
    scale.profile(20, tmp_path)
    scale.Synthetic.seconds[:] = 0.0, 0.0
    (tmp_path / "rollouts" / "00000.jsonl").unlink()
    with pytest.raises(SystemExit, match="the resumed profile is another"):
        scale.resume(20, tmp_path)
    (tmp_path / "rollouts" / "00000.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match=r"00000\.jsonl:1: not a Rollout"):
        scale.resume(20, tmp_path)


def test_a_size_goes_on_with_the_stages_that_are_missing_and_cleans_up(scale, tmp_path, monkeypatch):
    ran = []

    class Done:
        stdout = json.dumps({"cpu_seconds": 1.0})

    def run(command, **_):
        ran.append(command[2])
        return Done

    monkeypatch.setattr(scale.subprocess, "run", run)
    results = {"sizes": {"20": {"profile": {"cpu_seconds": 2.0}}}}
    (tmp_path / "20" / "rollouts").mkdir(parents=True)
    (tmp_path / "20" / "pivots.jsonl").touch()
    scale.run_size(20, ["profile", "resume"], tmp_path, results, lambda: None)
    assert ran == ["--stage=resume"] and (tmp_path / "20").is_dir()
    scale.run_size(20, list(scale.STAGES), tmp_path, results, lambda: None)
    assert ran[1:] == ["--stage=batches", "--stage=report", "--stage=export"]
    assert not (tmp_path / "20").exists(), "ten gigabytes of a large size are not left behind"
    scale.run_size(20, list(scale.STAGES), tmp_path, results, lambda: None)
    assert len(ran) == 4


def test_the_exponent_is_that_of_the_processors_seconds(scale):
    sizes = {"10": {"report": {"cpu_seconds": 3.0}}, "100": {"report": {"cpu_seconds": 300.0}}}
    assert scale.exponents(sizes) == {"report": {"10 to 100": 2.0}}
