"""Replay, agreement and the load-balance loss on simulated devices: `python tests/support/routed_step.py` prints, for every
mesh, how far a step and the sampler's record are from one device's."""  # noqa: E501

import dataclasses
import json
import os

from support import xla
from support.objectives import policy_gradient

os.environ["XLA_FLAGS"] = xla.flags(devices=4)

import jax
import numpy as np
import optax
from jax.sharding import AxisType, Mesh

from pivotrl_jax.models import sharding
from pivotrl_jax.rollouts.sampler import Sampler
from pivotrl_jax.rollouts.sampling import Sampling
from pivotrl_jax.training import learner as learner_lib
from pivotrl_jax.training import losses
from support import sharded_step
from support.forests import sharp_params

CONFIG = sharded_step.CONFIG
MESHES = ({"data": 1, "fsdp": 1, "expert": 2, "tensor": 2}, {"data": 2, "fsdp": 2, "expert": 1, "tensor": 1})


def run(mesh: Mesh, batch: losses.Batch):
    routers = learner_lib.Routers(replay=True, agreement=True, balance=0.3)
    loss = policy_gradient(0.2, 0.2, 0.0)
    learner = learner_lib.Learner(
        CONFIG,
        dataclasses.replace(sharded_step.COMPUTE, rows=8, mesh=mesh),
        optax.sgd(1.0),
        loss,
        0.7,
        routers=routers,
    )
    state = learner.init_state(sharp_params(CONFIG))
    sampler = Sampler(CONFIG, Sampling(1.0, 1.0, 0, 0.0, 4, ()), 1, 8, mesh, record_experts=True)
    rows = dataclasses.make_dataclass("Rows", ["tokens", "position", "subtree_end"])
    forest = rows(*(batch[name] for name in ("tokens", "position", "subtree_end")))
    numbers = np.arange(32, dtype=np.int32).reshape(8, 2, 2)
    branch = np.full((8, 2), 4, np.int32)
    drawn = sampler(sampler.place(state.params), forest, branch, jax.random.key(0), numbers)
    state, means = learner.step(state, batch)
    return means, jax.tree.map(np.asarray, state.params), (drawn.experts, drawn.prefix_experts)


def main():
    batch, rng = sharded_step.grpo_batch(), np.random.default_rng(0)
    layers = sum(last - first for _, first, last, moe in CONFIG.segments() if moe)
    shape = (*batch["tokens"].shape, layers)
    chosen = [rng.permutation(CONFIG.num_experts)[: CONFIG.experts_per_token] for _ in range(np.prod(shape))]
    batch["experts"] = np.int16(chosen).reshape(*shape, -1)
    batch["experts"][:, ::5] = -1  # not recorded
    devices = np.array(jax.devices()[:1]).reshape(1, 1, 1, 1)
    one = run(Mesh(devices, sharding.MESH_AXES, axis_types=(AxisType.Auto,) * 4), batch)
    for sizes in MESHES:
        many = run(sharding.make_mesh(sizes), batch)
        means, params = (sharded_step.difference(a, b) for a, b in zip(one[:2], many[:2]))
        same = all(np.array_equal(a, b) for a, b in zip(one[2], many[2]))
        print(json.dumps({"means": means, "params": params, "same_record": same, **one[0]}))


if __name__ == "__main__":
    main()
