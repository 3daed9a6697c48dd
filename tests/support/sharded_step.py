"""Worker of test_sharding.py: logits, gradients, one step and samples on each mesh of simulated devices
against one device, and the collectives of the compiled programs. Prints JSON.

XLA_FLAGS=--xla_force_host_platform_device_count=8 python tests/support/sharded_step.py '[{"data": 8}]'
"""

import collections
import dataclasses
import json
import re
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh

from pivotrl_jax.models import decoder, sharding
from pivotrl_jax.models.forest import pack
from pivotrl_jax.rollouts.sampler import Sampler
from pivotrl_jax.rollouts.sampling import Sampling
from pivotrl_jax.training import learner as learner_lib
from pivotrl_jax.training import losses
from support.forests import (
    MIXED,
    often_seen_gradient,
    per_token,
    random_groups,
    sharp_params,
    spread,
)
from support.objectives import policy_gradient

# a dense layer, then one with experts; every axis divides by the largest mesh axis that may split it
CONFIG = dataclasses.replace(
    MIXED,
    **{"num_layers": 2, "dense_layers": (0,), "vocab_size": 64, "num_experts": 8, "expert_size": 16},
    **{"num_heads": 16, "num_kv_heads": 8, "mlp_size": 24, "tie_embeddings": False},
)

if "llama" in sys.argv:  # dense, with every bias; no layer has experts
    CONFIG = dataclasses.replace(CONFIG, model_type="llama", num_experts=0, dense_layers=(), mlp_bias=True)
if "qwen2" in sys.argv:
    CONFIG = dataclasses.replace(CONFIG, model_type="qwen2", num_experts=0, dense_layers=())

COMPUTE = learner_lib.Compute(attention_chunk=4, log_prob_chunk=8, remat="full")
COLLECTIVES = "all-reduce all-gather reduce-scatter all-to-all collective-permute".split()


def grpo_batch() -> losses.Batch:
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
    return {**forest.arrays(), **{name: spread(forest, v) for name, v in values.items()}}


def run(mesh: Mesh, batch: losses.Batch) -> dict:
    """Logits, log-probs, samples, metrics, parameters and momentum after one step. A momentum of the
    gradient, not Adam's sign of it, moves the parameters: rounding must not decide a direction."""
    optimizer = optax.chain(optax.trace(0.9), optax.scale(-1.0))
    loss = policy_gradient(0.2, 0.2, 0.05)
    learner = learner_lib.Learner(
        CONFIG, dataclasses.replace(COMPUTE, rows=8, mesh=mesh), optimizer, loss, 0.7
    )
    state = learner.init_state(sharp_params(CONFIG))
    log_prob = learner.score(state.params, batch)
    with jax.set_mesh(mesh):
        tokens = sharding.put(batch["tokens"], learner.batch_sharding)
        logits = np.asarray(jax.jit(lambda p, t: decoder.logits(CONFIG, p, t))(state.params, tokens))
    drawn = samples(mesh, state.params, batch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state, means = learner.step(state, batch)
    placed = jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), state, learner.state_sharding)
    experts = state.params["layers_1" if CONFIG.num_experts else "layers"]["gate"]
    return {
        "logits": logits,
        "log_prob": log_prob,
        "samples": drawn,
        "means": means,
        "state": jax.tree.map(np.asarray, state),
        "placed": all(jax.tree.leaves(placed)),
        "share": experts.addressable_shards[0].data.size / experts.size,
    }


def samples(mesh: Mesh, params, batch: losses.Batch):
    """Two sampled branches of every row, from its first tree's last prompt token."""
    sampler = Sampler(CONFIG, Sampling(1.0, 1.0, 0, 0.0, 4, ()), 1, 8, mesh)
    rows = dataclasses.make_dataclass("Rows", ["tokens", "position", "subtree_end"])
    forest = rows(*(batch[name] for name in ("tokens", "position", "subtree_end")))
    branch = np.full((8, 2), 4, np.int32)
    numbers = np.arange(32, dtype=np.int32).reshape(8, 2, 2)
    return sampler(sampler.place(params), forest, branch, jax.random.key(0), numbers)


def difference(a, b) -> float:
    """Largest absolute difference, as a share of the largest value of each array."""
    pairs = [(x * 1.0, y * 1.0) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b))]
    return max(float(np.abs(x - y).max() / max(np.abs(x).max(), 1e-6)) for x, y in pairs)


def collectives(mesh: Mesh, batch: losses.Batch) -> dict[str, int]:
    """How often each collective stands in the compiled gradient of a microbatch."""
    learner = learner_lib.Learner(
        CONFIG,
        dataclasses.replace(COMPUTE, rows=8, mesh=mesh),
        optax.sgd(1.0),
        policy_gradient(0.2, 0.2, 0.0),
        0.7,
    )
    state = learner.init_state(sharp_params(CONFIG))
    with jax.set_mesh(mesh):
        piece = next(learner._microbatches(batch))
        grads = learner._zeros(state.params)
        text = learner.accumulate.lower(state.params, {}, grads, piece).compile().as_text()
    names = re.findall(rf"= \S+ ({'|'.join(COLLECTIVES)})\(", text)
    return dict(collections.Counter(names))


def main():
    devices = np.array(jax.devices()[:1]).reshape(1, 1, 1, 1)
    batch = grpo_batch()
    one = run(Mesh(devices, sharding.MESH_AXES, axis_types=(AxisType.Auto,) * 4), batch)
    assert jnp.isfinite(one["logits"]).all()
    out = {}
    for sizes in json.loads(sys.argv[1]):
        mesh = sharding.make_mesh(sizes)
        many = run(mesh, batch)
        names = ("logits", "log_prob", "samples", "means", "state")
        out[json.dumps(sizes)] = {
            **{name: difference(one[name], many[name]) for name in names},
            **{"placed": many["placed"], "share": many["share"]},
        }
        if "bfloat16" in sys.argv:
            got, want = often_seen_gradient(mesh, "bfloat16"), often_seen_gradient(mesh, "float32")
            error = {
                name: np.linalg.norm(got[name] - want[name]) / np.linalg.norm(want[name]) for name in got
            }
            out[json.dumps(sizes)]["bfloat16"] = float(max(error.values()))
        if "collectives" in sys.argv and mesh.size in sizes.values():  # all devices along one axis
            out[json.dumps(sizes)]["collectives"] = collectives(mesh, batch)
    print(json.dumps(out))


if __name__ == "__main__":
    main()
