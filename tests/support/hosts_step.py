"""Worker of test_hosts.py: training steps in one or several processes, from the latest checkpoint to `last`.

python tests/support/hosts_step.py --directory=DIR --last=3 [--coordinator=127.0.0.1:9000 --processes=2 ...]
"""

import dataclasses
import json
import sys

import jax
import numpy as np
from absl import flags

from pivotrl_jax.checkpoints.orbax import Checkpoints
from pivotrl_jax.models import sharding
from pivotrl_jax.models.forest import pack
from pivotrl_jax.run import hosts
from pivotrl_jax.training import learner as learner_lib
from pivotrl_jax.training import losses as losses_lib
from pivotrl_jax.training import objectives
from pivotrl_jax.training.optimizer import make_optimizer
from support.forests import MOE, per_token, random_groups, sharp_params, spread

DIRECTORY = flags.DEFINE_string("directory", None, "Of checkpoints.")
LAST = flags.DEFINE_integer("last", 3, "Steps when it stops.")


def batch_of(step: int) -> losses_lib.Batch:
    rng = np.random.default_rng(step)
    groups = random_groups(rng, groups=4, pieces=1, branches=2, prompt=5, branch=4)
    forest = pack(groups, 16, 0, 4)
    weight = spread(forest, {key: np.full(len(x), 1 / 32) for key, x in per_token(groups, rng).items()})
    return {**forest.arrays(), "weight": weight}


def main():
    flags.FLAGS(sys.argv)
    hosts.join()
    mesh = sharding.make_mesh({"data": -1, "fsdp": 2} if len(jax.devices()) > 1 else {})
    compute = learner_lib.Compute(attention_chunk=8, log_prob_chunk=8, remat="nothing")
    optimizer = make_optimizer(1e-3, 0, 0.0, 0.9, 0.95, 1.0)
    learner = learner_lib.Learner(
        MOE,
        dataclasses.replace(compute, rows=4, mesh=mesh),
        optimizer,
        objectives.negative_log_likelihood,
        1.0,
    )
    state, losses = learner.init_state(sharp_params(MOE)), []
    with Checkpoints(DIRECTORY.value, {"model": "tiny"}, 1) as checkpoints:
        if restored := checkpoints.restore_latest(state):
            state = restored[0]
        for step in range(int(state.step), LAST.value):
            state, means = learner.step(state, batch_of(step))
            losses.append(means["loss"])
        checkpoints.save(LAST.value, state, {"losses": losses})
    print(json.dumps({"devices": mesh.size, "losses": losses}), flush=True)
    hosts.leave()


if __name__ == "__main__":
    main()
