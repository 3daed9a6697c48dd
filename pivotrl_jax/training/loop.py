"""The training loop that all methods share: a batch, one update, metrics, checkpoints; resumable.

A method supplies `make_batch`. What it does at a step must be a function of (seed, step, parameters) alone:
then a killed run that restarts from a checkpoint ends as one that was never killed, bit for bit on the same
machine.
"""

import dataclasses
import time
from collections.abc import Callable

import numpy as np

from pivotrl_jax.checkpoints.orbax import Checkpoints
from pivotrl_jax.models import decoder, lora
from pivotrl_jax.records import InputError
from pivotrl_jax.rollouts import progress
from pivotrl_jax.run.metrics import MetricsWriter
from pivotrl_jax.training import learner as learner_lib
from pivotrl_jax.training import losses


@dataclasses.dataclass(frozen=True)
class StepBatch:
    """One step's batch and what is to be said about it."""

    batch: losses.Batch
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    rollout_turns: int = 0


@dataclasses.dataclass(frozen=True)
class LoopIO:
    """Where a loop's checkpoints and metrics go, and whether it goes on from them.

    `validate(steps, params)` gives metrics of the policy after so many steps, adapters joined; like a batch
    they must be a function of (seed, steps, parameters) alone. `save_before(step)` says that a step begins
    with long work, before which a checkpoint is due.
    """

    checkpoints: Checkpoints
    save_every: int
    workdir: object
    resume: bool
    on_step: Callable[[int], None] = lambda step: None
    validate: Callable[[int, decoder.Params], dict[str, float]] = lambda steps, params: {}
    save_before: Callable[[int], bool] = lambda step: False


def _require_finite(step: int, values: dict[str, float]) -> None:
    """Raises InputError when a step's loss or gradient is not a number: before it is saved, not after."""
    if not np.isfinite([values["loss"], values["grad_norm"]]).all():
        raise InputError(
            f"step {step}: the loss is {values['loss']} and the gradient norm {values['grad_norm']}; "
            "training stops here, the latest checkpoint is whole; lower the learning rate"
        )


def start(
    learner: learner_lib.Learner, reference, keeping: LoopIO, steps: int
) -> tuple[learner_lib.TrainState, dict]:
    """(state, totals): of the latest checkpoint, or of step 0 with the reference parameters (of what is
    trained: under LoRA, fresh adapters), which are copied. Raises InputError for one past `steps`."""
    restored = None
    if keeping.resume:
        restored = keeping.checkpoints.restore_latest(learner.abstract_state(reference))
    else:
        keeping.checkpoints.clear()
    if restored:
        state, host = restored
        if int(state.step) > steps:
            raise InputError(
                f"the config asks for {steps} steps, but the latest checkpoint is of step {int(state.step)}; "
                "ask for at least that many, or start over with --config.resume=False"
            )
        return state, host["totals"]
    return learner.init_state(reference), {"rollout_turns": 0, "trained_tokens": 0, "seconds": 0.0}


def run(
    learner: learner_lib.Learner,
    state: learner_lib.TrainState,
    totals: dict,
    steps: int,
    make_batch: Callable[[int, decoder.Params], StepBatch],
    keeping: LoopIO,
    title: str,
) -> tuple[learner_lib.TrainState, dict]:
    """Train from where `start` says up to `steps` steps. Returns the state and totals ("rollout_turns",
    "trained_tokens", "seconds"), which run over resumes.

    `make_batch(step, params)` gets the current parameters, adapters joined, to sample with; it must not keep
    them, since the update takes their memory.
    """
    first = int(state.step)
    with MetricsWriter(keeping.workdir, first) as writer, progress.bar(steps, title, "steps") as bar:
        bar.update(first)
        for step in range(first, steps):
            began = time.perf_counter()
            if keeping.save_before(step):
                keeping.checkpoints.save(step, state, {"step": step, "totals": totals})
            try:
                made = make_batch(step, lora.join(learner.frozen, state.params))
            except InputError:  # a judge that is down: the steps so far are not lost
                if step > first and step % keeping.save_every:
                    keeping.checkpoints.save(step, state, {"step": step, "totals": totals})
                raise
            rolled = time.perf_counter()
            state, values = learner.step(state, made.batch)
            _require_finite(step, values)
            seconds = time.perf_counter() - began
            totals["rollout_turns"] += made.rollout_turns
            totals["trained_tokens"] += int(values["tokens"])
            totals["seconds"] += seconds
            fill = float((made.batch["subtree_end"] > 0).mean())
            timing = {"fill": fill, "seconds": seconds, "rollout_seconds": rolled - began}
            # a judge that is down here costs the steps since the last checkpoint; its replies are kept
            validated = keeping.validate(step + 1, lora.join(learner.frozen, state.params))
            writer.write(step, {**made.metrics, **values, **timing, **validated})
            shown = {
                k: f"{made.metrics[k]:.2f}" for k in ("reward_mean", "group_reward_std") if k in made.metrics
            }
            bar.set_postfix(shown or {"loss": f"{values['loss']:.3f}"}, refresh=False)
            bar.update(1)
            if (step + 1) % keeping.save_every == 0 or step + 1 == steps:
                keeping.checkpoints.save(step + 1, state, {"step": step + 1, "totals": totals})
            keeping.on_step(step + 1)
    return state, totals


def pivots_of_step(step: int, count: int, per_step: int, seed: int) -> list[int]:
    """Indices of the pivots of a step: every epoch is a fresh permutation, and no pivot is left out of
    one."""
    chosen = []
    for position in range(step * per_step, (step + 1) * per_step):
        epoch, at = divmod(position, count)
        chosen.append(int(np.random.default_rng([seed, epoch]).permutation(count)[at]))
    return chosen


Validate = Callable[[int, dict], dict[str, float]]  # as loop.Keeping has it
