"""A small train state and the identity it is saved under."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

IDENTITY = {"model": {"hidden_size": 3, "num_layers": 2}, "learning_rate": 1e-3, "betas": (0.9, 0.95)}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    step: jax.Array
    params: dict
    opt_state: optax.OptState


def make_state(fill=1.0, hidden=3):
    rng = np.random.default_rng(0)
    params = {
        "embed": jnp.asarray(rng.normal(size=(5, hidden)) * fill, jnp.float32),
        "layers": {"q": jnp.asarray(rng.normal(size=(2, hidden)) * fill, jnp.bfloat16)},
    }
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    _, opt_state = optimizer.update(params, optimizer.init(params), params)  # moments that are not zero
    return State(jnp.int32(7), params, opt_state)
