"""The main job with what goes beyond the paper: it says what it did, and a kill changes nothing."""

import json
import signal

import pytest
from support.paths import TESTS
from support.train_cli import lines_of, micro, whole_run

from pivotrl_jax.records import Pivot, Profile, read_records

pytestmark = pytest.mark.slow

OPTIONS = (
    *("profile.screen.text_turns=True", "profile.screen.probability=0.9", "profile.keep_all_fail=True"),
    *("grpo.steps=4", "grpo.dynamic_rounds=1", "grpo.skip_below=0.9"),
    *("grpo.demonstration_in_failed_groups=True", "grpo.kl_budget=1000.0"),
    *("data.max_prompt_tokens=980", "sampling.max_tokens=40"),  # room for demonstrations
)

WRAPPER = """
import os, sys
sys.path.insert(0, {tests!r})
from support import tiny_run
from pivotrl_jax import train
from pivotrl_jax.run import cli
from pivotrl_jax.run.metrics import MetricsWriter
tiny_run.flip_coins()
write = MetricsWriter.write
def write_and_die(self, step, values):
    line = write(self, step, values)
    if os.environ.get("DIE_AFTER") == str(step):
        os.kill(os.getpid(), {signal})
    return line
MetricsWriter.write = write_and_die
cli.start(train.main)
"""
CODE = WRAPPER.format(tests=str(TESTS), signal=int(signal.SIGKILL))


@pytest.fixture(scope="module")
def whole(checkpoint, tmp_path_factory):
    return whole_run(tmp_path_factory, checkpoint, OPTIONS, CODE)


def test_it_says_what_was_screened_kept_and_skipped(whole):
    workdir, out = whole
    counts = json.loads((workdir / "run.json").read_text("utf-8"))["counts"]
    profiles = read_records(workdir / "profiles.jsonl", Profile)
    text = sum(not p.is_call for p in profiles)
    assert counts["screened"] == text > 0 and f"the screen sorted out {text} of {len(profiles)}" in out
    assert counts["profiling_rollout_turns"] == 4 * (counts["candidates"] - text)
    kept = read_records(workdir / "pivots.jsonl", Pivot)
    assert len(kept) == counts["pivot"] + counts["all_fail"] > 0
    assert f"{len(kept)} are trained on" in out
    assert "candidates were screened" in (workdir / "report.html").read_text("utf-8")
    wanted = {"rollouts_per_mixed_group", "skipped_candidates", "demonstrated_groups", "kl_per_turn"}
    assert all(wanted <= set(line) for line in lines_of(workdir))
    assert lines_of(workdir)[-1]["kl_per_turn"] > 0 and "stopped early" not in out


def test_a_killed_run_ends_bit_identical(whole, checkpoint, tmp_path):
    workdir = tmp_path / "run"
    code, _, err = micro(workdir, checkpoint, *OPTIONS, code=CODE, env={"DIE_AFTER": "2"})
    assert code == -signal.SIGKILL, err
    code, _, err = micro(workdir, checkpoint, *OPTIONS, code=CODE)
    assert code == 0, err
    assert lines_of(workdir) == lines_of(whole[0])
    for name in ("trained_rewards.jsonl", "evaluation.json", "hf/model.safetensors"):
        assert (workdir / name).read_bytes() == (whole[0] / name).read_bytes(), name
