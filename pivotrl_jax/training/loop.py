"""The training loop that all methods share: a batch, one update, metrics, checkpoints; resumable.

A method supplies a Job (method.py).
"""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pivotrl_jax.checkpoints.orbax import Checkpoints
from pivotrl_jax.models import decoder, lora
from pivotrl_jax.records import InputError
from pivotrl_jax.rollouts import progress
from pivotrl_jax.run import interrupts
from pivotrl_jax.run import run as run_lib
from pivotrl_jax.run.memory import peak_gib
from pivotrl_jax.run.metrics import MetricsWriter, Validate, read_metrics
from pivotrl_jax.training import saving as saving_lib
from pivotrl_jax.training import symptoms
from pivotrl_jax.training.learner import TrainState
from pivotrl_jax.training.method import Job, StepBatch
from pivotrl_jax.training.nonfinite import require_finite


@dataclasses.dataclass(frozen=True)
class LoopIO:
    """Where a loop writes checkpoints and metrics, and whether it resumes from them."""

    checkpoints: Checkpoints
    workdir: Path
    resume: bool
    validate: Validate = lambda steps, params: {}
    on_step: Callable[[int], None] = lambda step: None  # called after every step, with the steps so far


def train(run: run_lib.Run, job: Job, validate: Validate) -> tuple[decoder.Params, dict]:
    """Train from pi_0 or the run's latest checkpoint. Returns (parameters, totals); with LoRA the parameters
    are the base and its adapters. Without LoRA the run no longer holds pi_0 afterwards. Raises InputError."""
    with Checkpoints(run.shared / "checkpoints", job.identity, job.section.keep_checkpoints) as checkpoints:
        io = LoopIO(checkpoints, run.workdir, run.config.resume, validate, lambda step: run.tracking.step())
        state, totals = start(job, run.initial_params(), io)
        if not run.trained_config.lora:
            run.params = None  # pi_0 need not stay in memory beside the state
        state, totals = loop(job, state, totals, io)
    if "stopped" in totals:
        run.facts["stopped"] = totals["stopped"]
        print(totals["stopped"])
    run.facts["warnings"] = symptoms.story(read_metrics(run.workdir))
    return lora.join(job.learner.frozen, state.params), totals


def start(job: Job, initial: decoder.Params, io: LoopIO) -> tuple[TrainState, dict]:
    """(state, totals) of the latest checkpoint, or of step 0 with a copy of the `initial` parameters (under
    LoRA, the adapters). Raises InputError for a checkpoint past the job's steps."""
    learner, restored = job.learner, None
    if io.resume:
        restored = io.checkpoints.restore_latest(learner.abstract_state(initial))
    else:
        io.checkpoints.clear()
    if restored:
        state, host = restored
        if int(state.step) > job.steps:
            raise InputError(
                f"the config asks for {job.steps} steps, but the latest checkpoint is of step "
                f"{int(state.step)}; ask for at least that many, or start over with --config.resume=False"
            )
        return state, host["totals"]
    return learner.init_state(initial), {"rollout_turns": 0, "trained_tokens": 0, "seconds": 0.0}


def loop(job: Job, state: TrainState, totals: dict, io: LoopIO) -> tuple[TrainState, dict]:
    """Train from the state that `start` returns up to the job's number of steps, or until a batch says stop.
    Returns the state and totals ("rollout_turns", "trained_tokens", "seconds"), which add up over resumes;
    "stopped" says why training ended early. If batches may say stop, one more is drawn at the end, so that
    the last state is judged, too."""
    learner, first, saving = job.learner, int(state.step), saving_lib.of(job, io.checkpoints)
    end = job.steps + 1 if job.stops and first < job.steps else job.steps
    unwritten = totals.pop(saving_lib.UNWRITTEN, None)
    with (
        MetricsWriter(io.workdir, first if unwritten is None else first - 1) as writer,
        progress.bar(job.steps, job.title, "steps") as bar,
        interrupts.deferred(),
    ):
        bar.update(first)
        if unwritten is not None:  # the run was interrupted before it had validated this state
            with _saved_if_interrupted(saving, first, state, totals, unwritten):
                validated = io.validate(first, lora.join(learner.frozen, state.params))
            writer.write(first - 1, {**unwritten, **validated})
        watch = symptoms.Watch(read_metrics(io.workdir))
        for step in range(first, end):
            step_start = time.perf_counter()
            if job.save_before(step):
                saving.save(step, state, totals)
            with _saved_if_interrupted(saving, step, state, totals):
                step_batch = job.make_batch(step, lora.join(learner.frozen, state.params))
            if step_batch.stop or step == job.steps:  # drawn, but not trained on
                totals["rollout_turns"] += step_batch.rollout_turns
            if step_batch.stop:
                return saving.stopped(state), {**totals, "stopped": step_batch.stop}
            saving.drawn(step, state, totals)
            if step == job.steps:
                break
            rollout_end = time.perf_counter()
            state, values = learner.step(state, step_batch.batch)
            require_finite(step, values, step_batch.batch, io.checkpoints, io.workdir)
            seconds = time.perf_counter() - step_start
            totals["rollout_turns"] += step_batch.rollout_turns
            totals["trained_tokens"] += int(values["tokens"])
            totals["seconds"] += seconds
            line = {
                **step_batch.metrics,
                **values,
                **_measured(step_batch, seconds, rollout_end - step_start),
            }
            with _saved_if_interrupted(saving, step + 1, state, totals, line):
                validated = io.validate(step + 1, lora.join(learner.frozen, state.params))
            line = writer.write(step, {**line, **validated})
            for sentence in () if bar.disable else watch.see(line):  # the first process speaks for all
                bar.write(f"warning, step {step}: {sentence}", sys.stderr)
            names = [n for n in ("reward_mean", "group_reward_std") if n in step_batch.metrics]
            rewards = {name: f"{step_batch.metrics[name]:.2f}" for name in names}
            bar.set_postfix(rewards or {"loss": f"{values['loss']:.3f}"}, refresh=False)
            bar.update(1)
            saving.updated(step + 1, state, totals)
            io.on_step(step + 1)
    return state, totals


def _measured(step_batch: StepBatch, seconds: float, rollout_seconds: float) -> dict[str, float]:
    """Metrics of a step's speed and memory. `tokens_per_second` counts every computed token of the update,
    prompts included, once."""
    real = step_batch.batch["subtree_end"] > 0
    return {
        "fill": float(real.mean()),
        "seconds": seconds,
        "rollout_seconds": rollout_seconds,
        "tokens_per_second": float(real.sum()) / max(seconds - rollout_seconds, 1e-9),
        "memory_gib": peak_gib(),
    }


@contextlib.contextmanager
def _saved_if_interrupted(
    saving: saving_lib.AfterUpdates, step: int, state: TrainState, totals: dict, unwritten: dict | None = None
) -> Iterator[None]:
    """A block that a signal, or an InputError such as of a judge that is down, may end: the state after
    `step` updates is saved then. `unwritten` as in `saving.interrupted`."""
    try:
        with interrupts.allowed():
            yield
    except (InputError, KeyboardInterrupt) as e:
        saved = saving.interrupted(step, state, totals, unwritten) if step else 0
        if saved and isinstance(e, interrupts.Interrupted):
            e.saved = f"training is saved after {saved} {'steps' if saved > 1 else 'step'}"
        raise
