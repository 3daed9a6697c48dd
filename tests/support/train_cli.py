"""A main job of two steps, and the programs in processes of their own."""

import json
import os
import subprocess
import sys

import pytest

from pivotrl_jax.run.metrics import MEASURED
from support import tiny_run
from support.paths import ROOT

CONFIG = str(ROOT / "configs" / "bfcl.py")

# two demonstrations, two tasks, two steps
MICRO = """
    data.demonstrations=2 data.held_out_tasks=2 data.max_prompt_tokens=1000
    compute.row_lengths=(1024,) sampling.max_tokens=4
    profile.group_size=4 profile.lambda_diff=1.0 profile.trajectories_per_shard=1
    profile.batch.rows=1 profile.batch.samples_per_row=32
    grpo.steps=2 grpo.pivots_per_step=2 grpo.group_size=4 grpo.save_every=1 grpo.learning_rate=0.01
    grpo.batch.rows=1 grpo.batch.samples_per_row=32 grpo.microbatch_rows=1
    evaluate.tasks=2 evaluate.turn_trajectories=2 evaluate.samples=1 evaluate.skill_items=1
    evaluate.batch.rows=1 evaluate.batch.samples_per_row=32
""".split()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return tiny_run.save_brief(tmp_path_factory.mktemp("checkpoint") / "hf")


def subprocess_of(name, *overrides, code=None, env=None):
    """(exit code, stdout, stderr) of `python -m pivotrl_jax.NAME`, or of a Python program."""
    start = ["-c", code] if code else ["-m", f"pivotrl_jax.{name}"]
    argv = [
        sys.executable,
        *start,
        *(f"--config.{o}" if "=" in o and o[:2] != "--" else o for o in overrides),
    ]
    found = subprocess.run(
        argv, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **(env or {})}, timeout=1200
    )
    return found.returncode, found.stdout, found.stderr


def micro(workdir, checkpoint, *overrides, code=None, env=None):
    fixed = [f"--config={CONFIG}", f"workdir={workdir}", f"model.checkpoint={checkpoint}"]
    return subprocess_of("train", *fixed, *MICRO, *overrides, code=code, env=env)


def whole_run(tmp_path_factory, checkpoint, options, code):
    """(workdir, stdout) of a run in one go."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    status, out, err = micro(workdir, checkpoint, *options, code=code)
    assert status == 0, err
    return workdir, out


def lines_of(workdir):
    """The lines of metrics.jsonl without what a clock says."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [{k: v for k, v in line.items() if k not in MEASURED} for line in lines]
