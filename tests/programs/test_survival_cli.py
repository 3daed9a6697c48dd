"""A main job that is killed nine times (experiments/survival, but small); a full disk; a slow host."""

import importlib.util
import json
import shlex
import signal
import subprocess
import sys
import time

import pytest
from support.paths import ROOT

from pivotrl_jax.run import ownership

pytestmark = pytest.mark.slow

spec = importlib.util.spec_from_file_location("survival", ROOT / "experiments" / "survival" / "run.py")
survival = importlib.util.module_from_spec(spec)
sys.modules["survival"] = survival
spec.loader.exec_module(survival)

KILLS = (
    *(("SIGKILL", "profiling"), ("SIGINT", "evaluation before")),
    *(("SIGTERM", "training step"), ("SIGKILL", "checkpoint"), ("SIGTERM", "re-profiling")),
    *(("SIGKILL", "re-profiling"), ("SIGINT", "export")),
    *(("SIGKILL", "evaluation after"), ("SIGKILL", "report")),
)


@pytest.fixture(scope="module")
def calm(checkpoint, tmp_path_factory):
    """(facts, what is left) of a run that nothing disturbs; starting over would delete all of it."""
    base = tmp_path_factory.mktemp("calm")
    found = survival.calm_run(base, checkpoint, 1)
    ownership.delete_results(base / "calm_1")
    assert not list((base / "calm_1").iterdir()), "run/ownership.py does not know a file"
    return found


def test_a_run_that_is_killed_at_every_stage_equals_one_that_is_not(calm, checkpoint, tmp_path):
    found = survival.run_chain(survival.Chain("kills", KILLS, 0), tmp_path, checkpoint, *calm)
    assert [kill["stage"] for kill in found["kills"] if kill["died"]] == [stage for _, stage in KILLS]
    assert found["different"] == [] and found["lost_or_doubled"] == [] and found["files"] > 20
    for kill in found["kills"]:
        if kill["signal"] != "SIGKILL":
            (said,) = kill["said"]
            assert said.startswith(f"stopped by {kill['signal']}; ") and said.endswith("goes on from there")
    assert "9 kills; 1 of 1 runs equal the calm one." in survival.table([found])


def test_the_comparison_sees_a_lost_rollout_and_a_changed_file(tmp_path):
    line = json.dumps({"trajectory_id": "t", "candidates": [{"id": "t@1"}, {"id": "t@3"}]})
    (tmp_path / "candidates.jsonl").write_text(line + "\n")
    (tmp_path / "rollouts").mkdir()
    rollouts = [
        {"candidate_id": id, "sample": n} for id, count in (("t@1", 2), ("t@3", 1)) for n in range(count)
    ]
    (tmp_path / "rollouts" / "00000.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rollouts))
    assert survival.lost_or_doubled(tmp_path, 2) == ["t@3"]
    (tmp_path / "rollouts" / "00001.jsonl").write_text(json.dumps(rollouts[0]) + "\n")
    assert sorted(survival.lost_or_doubled(tmp_path, 2)) == ["t@1", "t@3"]
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "loss": 1, "seconds": 2}\n')
    (tmp_path / "run.json").write_text('{"counts": {}}')
    before = survival.what_is_left(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "loss": 1, "seconds": 3}\n')
    assert survival.what_is_left(tmp_path) == before
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "loss": 2, "seconds": 3}\n')
    assert survival.what_is_left(tmp_path) != before


def test_a_full_disk_stops_the_run_with_a_sentence_and_room_lets_it_end(calm, checkpoint, tmp_path):
    """On a disk of 1,100 kB, in a name space of its own: there is room for one checkpoint of two."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=1100k tmpfs {disk}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("this machine mounts nothing for a test")
    job = survival.Job(disk / "run", checkpoint, log=tmp_path / "full.log")
    run = shlex.join(job.command)
    again = f"mount -o remount,size=100m {disk} && {run} && cp -r {disk}/run {tmp_path / 'run'}"
    script = f"{mount} && ({run}; {again})"
    found = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, env=job.environment()
    )
    assert found.returncode == 0 and "Traceback" not in found.stderr, found.stderr
    (sentence,) = [line for line in found.stderr.splitlines() if "error: " in line]
    assert "MB are free, and the checkpoint of step 4 takes" in sentence
    assert survival.what_is_left(tmp_path / "run") == calm[1]


SHORT = "grpo.steps=2 validation.every=0 reprofile.patience=0 evaluate.turn_trajectories=1".split()


def of_two(workdir, checkpoint):
    """A shorter main job in two processes."""
    job = survival.Job(workdir, checkpoint, processes=2)
    job.command += [f"--config.{option}" for option in SHORT]
    return job


def statuses(processes, slow=None):
    """The exit statuses; a process that is slow stands still for three quarters of the time."""
    while slow and slow.poll() is None:
        for number, seconds in ((signal.SIGSTOP, 1.5), (signal.SIGCONT, 0.5)):
            slow.send_signal(number)
            time.sleep(seconds)
    return [process.wait(timeout=survival.LONG) for process in processes]


@pytest.fixture(scope="module")
def calm_of_two(checkpoint, tmp_path_factory):
    """What is left of a job in two processes of the same speed."""
    job = of_two(tmp_path_factory.mktemp("calm_of_two") / "run", checkpoint)
    assert statuses(job.start()) == [0, 0], job.said()
    return survival.what_is_left(job.workdir)


def test_a_slow_process_changes_nothing(calm_of_two, checkpoint, tmp_path):
    job = of_two(tmp_path / "run", checkpoint)
    processes = job.start()
    assert statuses(processes, slow=processes[0]) == [0, 0], job.said() + job.said(1)
    assert survival.what_is_left(job.workdir) == calm_of_two and len(calm_of_two) > 15
