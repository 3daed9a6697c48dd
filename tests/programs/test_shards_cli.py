"""A profile made by two jobs, merged and scored again: `train` goes on from it as from one that it made."""

import json

import pytest
from support.paths import TESTS
from support.train_cli import CONFIG, MICRO, subprocess_of

pytestmark = pytest.mark.slow

# SAMPLES is how many files of rollouts were sampled
PROGRAM = """
import atexit, sys
sys.path.insert(0, {tests!r})
from support import tiny_run
from pivotrl_jax import {name}
from pivotrl_jax.pivots import profiling
from pivotrl_jax.run import cli
tiny_run.flip_coins()
sample, calls = profiling._sample_shard, []
def counted(*args):
    calls.append(1)
    return sample(*args)
profiling._sample_shard = counted
atexit.register(lambda: print("SAMPLES", len(calls)))
cli.start({name}.main) if {config} else {name}.main()
"""


def program(name, *arguments):
    """What a program prints; the toolbox's verifier flips coins in it."""
    config = any(argument.startswith("--config=") for argument in arguments)
    code = PROGRAM.format(tests=str(TESTS), name=name, config=config)
    status, out, err = subprocess_of("", *arguments, code=code)
    assert status == 0, err
    return out


def test_train_goes_on_from_merged_and_rescored_profiles(checkpoint, tmp_path):  # noqa: F811, RUF100
    # without the final policy's rollouts: what is counted are those of a profile
    fixed = (f"--config={CONFIG}", f"model.checkpoint={checkpoint}", *MICRO, "evaluate.pivots=0")
    program("train", *fixed, f"workdir={tmp_path / 'alone'}")
    for n in (1, 2):
        out = program("find_pivots", *fixed, f"workdir={tmp_path / str(n)}", f"profile.shard={n}/2")
        assert f"this was shard {n}/2" in out and out.endswith("SAMPLES 1\n")
    program("merge_profiles", str(tmp_path / "1"), str(tmp_path / "2"), f"--out={tmp_path / 'merged'}")
    program("rescore", f"--workdir={tmp_path / 'merged'}", f"--out={tmp_path / 'rescored'}")
    for name in ("merged", "rescored"):
        out = program("train", *fixed, f"workdir={tmp_path / name}")
        assert out.endswith("SAMPLES 0\n")
        for file in ("pivots.jsonl", "profiles.jsonl", "hf/model.safetensors", "evaluation.json"):
            assert (tmp_path / name / file).read_bytes() == (tmp_path / "alone" / file).read_bytes(), file
        assert json.loads((tmp_path / name / "run.json").read_text("utf-8"))[name]
