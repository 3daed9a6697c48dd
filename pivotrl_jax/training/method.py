"""What a training method gives to the training loop; read this and sft.py to write one.

A method is a module with a function `train(run, ..., validate)`. It makes a learner (recipe.py), says what
each step trains on, and hands both to `loop.train` as a Job. What a method does at a step must be a function
of (seed, step, parameters) alone: then a killed run that restarts from a checkpoint gives the result of one
that was never killed, bit for bit on the same machine. `config.method` names the method: add the name to
run/options.py and the call to train.py.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from pivotrl_jax.models import decoder
from pivotrl_jax.training import losses
from pivotrl_jax.training.learner import Learner

FREE = ("save_every", "keep_checkpoints")  # fields of a training section that change no result


@dataclasses.dataclass(frozen=True)
class StepBatch:
    """What one step trains on, and the metrics to log with it."""

    batch: losses.Batch
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    rollout_turns: int = 0
    stop: str = ""  # why training must end with an earlier state; "" goes on


MakeBatch = Callable[[int, decoder.Params], StepBatch]


@dataclasses.dataclass(frozen=True)
class Job:
    """What a method gives the loop.

    `make_batch(step, params)` gets the current parameters, adapters joined, to sample with; it must not keep
    them, since the update reuses their memory. `section` is the method's section of the config, whose
    `save_every` and `keep_checkpoints` are read. `save_before(step)` tells whether a step begins with long
    work, so that a checkpoint is written first. `stops` tells whether a batch may say `stop`.
    """

    title: str
    steps: int
    learner: Learner
    make_batch: MakeBatch
    identity: dict  # what must be equal for a checkpoint to be continued
    section: Any
    save_before: Callable[[int], bool] = lambda step: False
    stops: bool = False


def items_of_step(step: int, count: int, per_step: int, seed: int) -> list[int]:
    """Indices, below `count`, of the items (pivots, tasks, trajectories) of a step. Every epoch is a fresh
    permutation of all items."""
    positions = range(step * per_step, (step + 1) * per_step)
    orders = {
        epoch: np.random.default_rng([seed, epoch]).permutation(count)
        for epoch in {position // count for position in positions}
    }
    return [int(orders[position // count][position % count]) for position in positions]
