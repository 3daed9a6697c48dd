"""Worker of test_lora.py: one LoRA step, samples and merged layers on each mesh of simulated devices against
one device. Prints JSON.

XLA_FLAGS=--xla_force_host_platform_device_count=2 python tests/support/lora_step.py '[{"fsdp": 2}]'
"""

import dataclasses
import json
import sys

import jax
import numpy as np
import optax
from jax.sharding import AxisType, Mesh

from pivotrl_jax.models import config as model_config
from pivotrl_jax.models import decoder, lora, sharding
from pivotrl_jax.training import learner as learner_lib
from pivotrl_jax.training import losses
from support import sharded_step
from support.forests import MIXED, sharp_params
from support.objectives import policy_gradient

# a dense layer, then one with experts; attention has biases
CONFIG = dataclasses.replace(
    MIXED, num_layers=2, dense_layers=(0,), vocab_size=64, num_experts=4, lora=model_config.Lora(2, 3.0)
)


def run(mesh: Mesh, batch: losses.Batch) -> dict:
    """Metrics, adapters and momentum (gradients) after one step; greedy samples; the merged layers."""
    params = sharp_params(CONFIG)
    base = jax.device_put(
        lora.base(params), sharding.param_shardings(lora.base(decoder.abstract_params(CONFIG)), mesh)
    )
    optimizer = optax.chain(optax.trace(0.9), optax.scale(-1.0))
    loss = policy_gradient(0.2, 0.2, 0.05)
    learner = learner_lib.Learner(
        CONFIG,
        dataclasses.replace(sharded_step.COMPUTE, rows=8, mesh=mesh),
        optimizer,
        loss,
        0.7,
        frozen=base,
    )
    state, means = learner.step(learner.init_state(lora.trained(CONFIG, params)), batch)
    whole = lora.join(base, state.params)
    views = [x for x in lora.merged(CONFIG, whole)["layers_1"].values() if isinstance(x, lora.Merged)]
    merged = [view[0] for view in views]
    beside = [x.sharding.is_equivalent_to(view.w[0].sharding, x.ndim) for x, view in zip(merged, views)]
    placed = jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), state, learner.state_sharding)
    return {
        "means": means,
        "state": jax.tree.map(np.asarray, state),
        "merged": [np.asarray(x) for x in merged],
        "samples": sharded_step.samples(mesh, whole, batch),
        "placed": all(jax.tree.leaves(placed)) and len(beside) == 7 and all(beside),
    }


def main():
    sharded_step.CONFIG = CONFIG
    batch = sharded_step.grpo_batch()
    devices = np.array(jax.devices()[:1]).reshape(1, 1, 1, 1)
    one = run(Mesh(devices, sharding.MESH_AXES, axis_types=(AxisType.Auto,) * 4), batch)
    out = {}
    for sizes in json.loads(sys.argv[1]):
        many = run(sharding.make_mesh(sizes), batch)
        names = ("means", "state", "merged", "samples")
        out[json.dumps(sizes)] = {
            **{name: sharded_step.difference(one[name], many[name]) for name in names},
            "placed": many["placed"],
        }
    print(json.dumps(out))


if __name__ == "__main__":
    main()
