"""When the training loop writes checkpoints: after updates, or, with a stopping rule, one state behind."""

import jax
import jax.numpy as jnp

from pivotrl_jax.checkpoints.orbax import Checkpoints
from pivotrl_jax.run import disk, hosts
from pivotrl_jax.training.learner import TrainState
from pivotrl_jax.training.method import Job

UNWRITTEN = "unwritten"  # in a checkpoint's totals: metrics of its last step, which has no line yet


class AfterUpdates:
    """Every `save_every` updates, and after the last."""

    def __init__(self, job: Job, checkpoints: Checkpoints):
        self._job, self._checkpoints = job, checkpoints

    def due(self, step: int) -> bool:
        return step % self._job.section.save_every == 0 or step == self._job.steps

    def save(self, step: int, state: TrainState, totals: dict) -> None:
        if step != self._checkpoints.latest_step():
            directory, what = self._checkpoints.directory, f"the checkpoint of step {step}"
            size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
            hosts.on_first_process(lambda: disk.require_space(directory, size, what))
        self._checkpoints.save(step, state, {"step": step, "totals": totals})

    def drawn(self, step: int, state: TrainState, totals: dict) -> None:
        """A batch was drawn from the state after `step` updates, and its update comes next."""

    def updated(self, step: int, state: TrainState, totals: dict) -> None:
        """The state after `step` updates is there."""
        if self.due(step):
            self.save(step, state, totals)

    def interrupted(self, step: int, state: TrainState, totals: dict, unwritten: dict | None = None) -> int:
        """The run ends with the state after `step` updates. `unwritten` are metrics of the last of them, if
        its validation is not done yet. Returns the steps that are saved."""
        if unwritten is not None:
            totals = {**totals, UNWRITTEN: {name: float(value) for name, value in unwritten.items()}}
        self.save(step, state, totals)
        return step

    def stopped(self, state: TrainState) -> TrainState:
        """The stopping rule has refused a state: the state that training ends with."""
        return state


class OneBehind(AfterUpdates):
    """A state is saved once the stopping rule has let it pass, so no checkpoint is beyond it. The last such
    state is kept in memory: as much as the parameters and the optimizer's moments, little with adapters.

    A run that stopped and starts again repeats the steps past its checkpoint, and stops at the same place.
    """

    def __init__(self, job: Job, checkpoints: Checkpoints):
        super().__init__(job, checkpoints)
        self._last: tuple[int, TrainState, dict] | None = None
        self._copy = jax.jit(
            lambda state: jax.tree.map(jnp.copy, state), out_shardings=job.learner.state_sharding
        )

    def drawn(self, step: int, state: TrainState, totals: dict) -> None:
        if step and self.due(step):
            self.save(step, state, totals)
        self._last = step, self._copy(state), dict(totals)  # the update reuses the state's memory

    def updated(self, step: int, state: TrainState, totals: dict) -> None:
        pass

    def interrupted(self, step: int, state: TrainState, totals: dict, unwritten: dict | None = None) -> int:
        if self._last is None:  # nothing was drawn since the checkpoint
            return step
        self.save(*self._last)
        return self._last[0]

    def stopped(self, state: TrainState) -> TrainState:
        if self._last is None:  # the first state of this process; a checkpoint, so it passed once
            return state
        self.save(*self._last)
        return self._last[1]


def of(job: Job, checkpoints: Checkpoints) -> AfterUpdates:
    """How the checkpoints of a job are written."""
    return (OneBehind if job.stops else AfterUpdates)(job, checkpoints)
