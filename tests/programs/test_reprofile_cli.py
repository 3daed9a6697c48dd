"""The main job with validation and a profile on the way: what it leaves, and that a kill in the middle of
that profile changes nothing."""

import concurrent.futures
import json
import signal

import pytest
from support.hosts import free_port
from support.paths import TESTS
from support.train_cli import lines_of, micro, whole_run

from pivotrl_jax.records import Pivot, read_records

pytestmark = pytest.mark.slow

VALIDATED = (
    "validation.every=1",
    "validation.tasks=2",
    "validation.batch.rows=1",
    "validation.batch.samples_per_row=32",
)
# no validation gains a whole 1: after the second the policy is profiled again, before step 2
AGAIN = (*VALIDATED, "grpo.steps=4", "reprofile.patience=1", "reprofile.min_gain=1.0")

WRAPPER = """
import os, sys
sys.path.insert(0, {tests!r})
from support import tiny_run
from pivotrl_jax import train
from pivotrl_jax.pivots import rollout_files
from pivotrl_jax.run import cli
tiny_run.flip_coins()
write = rollout_files.write
def write_and_die(path, rollouts):
    write(path, rollouts)
    if os.environ.get("DIE_AT") and str(path).endswith(os.environ["DIE_AT"]):
        os.kill(os.getpid(), {signal})
rollout_files.write = write_and_die
cli.start(train.main)
"""
CODE = WRAPPER.format(tests=str(TESTS), signal=int(signal.SIGKILL))


@pytest.fixture(scope="module")
def whole(checkpoint, tmp_path_factory):  # noqa: F811, RUF100
    return whole_run(tmp_path_factory, checkpoint, AGAIN, CODE)


def test_it_leaves_its_pivots_and_says_so(whole):
    workdir, out = whole
    lines = lines_of(workdir)
    assert all(0 <= line["validation/call_turn_pass"] <= 1 for line in lines)
    assert [line["step"] for line in lines if "reprofiled" in line] == [2]
    assert "profiling again after step 2: no gain of more than 1 on a validation of" in out
    counts = json.loads((workdir / "run.json").read_text("utf-8"))["counts"]
    found = int(lines[2]["pivots"])
    assert f"after step 2: {counts['pivot']} -> {found} pivots" in " ".join(out.split())
    assert len(read_records(workdir / "reprofiled/1/pivots.jsonl", Pivot)) == found > 0
    assert counts["profiling_rollout_turns"] == 2 * 4 * counts["candidates"]
    assert counts["validation_rollout_turns"] == 4 * lines[0]["validation/rollout_turns"] > 0
    assert "Validation: call-turn pass rate" in (workdir / "report.html").read_text("utf-8")


def test_a_run_killed_in_that_profile_ends_bit_identical(whole, checkpoint, tmp_path):  # noqa: F811, RUF100
    workdir, shard = tmp_path / "run", "reprofiled/1/rollouts/00000.jsonl"
    code, _, err = micro(workdir, checkpoint, *AGAIN, code=CODE, env={"DIE_AT": shard})
    assert code == -signal.SIGKILL and (workdir / shard).is_file(), err
    assert not (workdir / "reprofiled/1/pivots.jsonl").exists()
    code, _, err = micro(workdir, checkpoint, *AGAIN, code=CODE)
    assert code == 0, err
    for name in ("hf/model.safetensors", "reprofiled/1/pivots.jsonl", "pivots.jsonl", "evaluation.json"):
        assert (workdir / name).read_bytes() == (whole[0] / name).read_bytes(), name
    assert lines_of(workdir) == lines_of(whole[0])


def test_two_processes_take_the_same_decision(whole, checkpoint, tmp_path):  # noqa: F811, RUF100
    """The one that does not keep the files finds the same pivots, and both go on from the profile."""
    workdir, address = tmp_path / "run", f"127.0.0.1:{free_port()}"

    def together(steps):
        env = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            jobs = [
                pool.submit(
                    micro, workdir, checkpoint, *AGAIN, f"grpo.steps={steps}", code=CODE,
                    env={**env, "JAX_PROCESS_ID": str(i)},
                )
                for i in (0, 1)
            ]  # fmt: skip
            return [job.result() for job in jobs]

    for steps in (3, 4):  # the second pair reads the pivots of the first
        (code, _, err), (other, _, more) = together(steps)
        assert (code, other) == (0, 0), err + more
    lines, alone = lines_of(workdir), lines_of(whole[0])
    assert [line["step"] for line in lines if "reprofiled" in line] == [2]
    for name in ("validation/turn_pass", "reward_mean", "loss"):
        assert [line[name] for line in lines] == pytest.approx(
            [line[name] for line in alone], rel=1e-3, abs=1e-5
        ), name


@pytest.mark.parametrize("method", ["random_turns", "sft", "e2e_rl"])
def test_every_method_validates(checkpoint, tmp_path, method):  # noqa: F811, RUF100
    more = [f"method={method}", "sft.epochs=1", "sft.trajectories_per_step=1", "e2e.tasks_per_step=1"]
    more += ["e2e.max_steps=1", "e2e.batch.rows=1", "validation.attempts=1", "evaluate.max_steps=1"]
    code, _, err = micro(tmp_path, checkpoint, *VALIDATED, *more, code=CODE)
    assert code == 0, err
    lines = lines_of(tmp_path)
    assert len(lines) == 2
    for line in lines:
        assert {"turn_pass", "call_turn_pass", "text_turn_pass", "episode_success"} <= {
            name.removeprefix("validation/") for name in line
        }
