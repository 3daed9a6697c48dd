"""Worker of test_sharding.py: one step on each mesh of simulated devices against one device. Prints JSON.

XLA_FLAGS=--xla_force_host_platform_device_count=8 python tests/sharded_step.py '[{"data": 8}]'
"""

import dataclasses
import json
import sys
import warnings

import jax
import numpy as np
import optax
from forests import MOE, arrays_of, per_token, random_groups, sharp_params, spread
from jax.sharding import AxisType, Mesh

from pivotrl_jax import model, sharding, update
from pivotrl_jax.forest import pack

# every axis divides by the largest mesh axis that may split it
CONFIG = dataclasses.replace(
    MOE, vocab_size=64, num_experts=8, num_heads=8, num_kv_heads=4, mlp_size=16, num_layers=1
)


def grpo_batch() -> update.Batch:
    rng = np.random.default_rng(0)
    groups = random_groups(rng, groups=8, pieces=1, branches=2, prompt=5, branch=4)
    forest = pack(groups, 16, 0)
    behaviour = per_token(groups, rng, lambda n: -rng.uniform(0.5, 4, n))
    values = {
        "weight": {key: np.full(len(x), 1 / 64) for key, x in behaviour.items()},
        "behaviour_log_prob": behaviour,
        "reference_log_prob": {key: x - 0.2 for key, x in behaviour.items()},
        "advantage": {key: np.full(len(x), rng.normal()) for key, x in behaviour.items()},
    }
    return {**arrays_of(forest), **{name: spread(forest, v) for name, v in values.items()}}


def run(mesh: Mesh, batch: update.Batch) -> dict:
    """Log-probs, metrics, parameters and Adam moments after one step. A momentum of the gradient, not Adam's
    sign of it, moves the parameters: rounding must not decide a direction."""
    compute = update.Compute(attention_chunk=16, log_prob_chunk=16, remat=False)
    optimizer = optax.chain(optax.trace(0.9), optax.scale(-1.0))
    loss = update.grpo_loss(0.2, 0.2, 0.05)
    learner = update.Learner(CONFIG, compute, mesh, optimizer, loss, 0.7, 8)
    state = learner.init_state(sharp_params(CONFIG))
    log_prob = learner.score(state.params, batch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state, means = learner.step(state, batch)
    placed = jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), state, learner.state_sharding)
    largest = max(jax.tree.leaves(state.params), key=lambda x: x.size)
    return {
        "log_prob": log_prob,
        "means": means,
        "state": jax.tree.map(np.asarray, state),
        "placed": all(jax.tree.leaves(placed)),
        "share": largest.addressable_shards[0].data.size / largest.size,
    }


def difference(a, b) -> float:
    """Largest absolute difference, as a share of the largest value of each array."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b))
    return max(float(np.abs(x - y).max() / max(np.abs(x).max(), 1e-6)) for x, y in pairs)


def main():
    devices = np.array(jax.devices()[:1]).reshape(1, 1, 1, 1)
    batch = grpo_batch()
    one = run(Mesh(devices, sharding.MESH_AXES, axis_types=(AxisType.Auto,) * 4), batch)
    out = {"axes": str(model.param_shapes(CONFIG)["layers"]["gate"].shape)}
    for sizes in json.loads(sys.argv[1]):
        many = run(sharding.make_mesh(sizes), batch)
        out[json.dumps(sizes)] = {
            name: difference(one[name], many[name]) for name in ("log_prob", "means", "state")
        } | {"placed": many["placed"], "share": many["share"]}
    print(json.dumps(out))


if __name__ == "__main__":
    main()
