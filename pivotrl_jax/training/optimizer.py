"""AdamW as the recipes use it, and two ways to make its state smaller on the device."""

import jax
import jax.numpy as jnp
import optax

from pivotrl_jax.records import InputError


def make_optimizer(
    learning_rate: float,
    warmup_steps: int,
    weight_decay: float,
    b1: float,
    b2: float,
    max_grad_norm: float,
    state_dtype: str = "float32",
    decay_steps: int = 0,
) -> optax.GradientTransformation:
    """AdamW with clipping by the global norm and, after a linear warm-up, a constant rate, or one that falls
    linearly: at step s, from 0, of `decay_steps` it is (decay_steps - s) / (decay_steps - warmup_steps) of
    the rate.

    The first step takes 1 / warmup_steps of the rate; optax's own schedule starts at 0, which would waste the
    first step's rollouts. `state_dtype` is the dtype of both moments between steps; the update itself is
    computed in float32. Weight decay leaves out norms, biases and routers (`decayed`).
    """

    def schedule(step):
        falling = max(decay_steps - warmup_steps, 1)
        left = jnp.maximum(0.0, (decay_steps - step) / falling) if decay_steps else 1.0
        return learning_rate * jnp.minimum(left, (step + 1) / max(warmup_steps, 1))

    adamw = optax.adamw(schedule, b1=b1, b2=b2, weight_decay=weight_decay, mask=decayed)
    if state_dtype != "float32":
        adamw = kept_in(adamw, state_dtype)
    return optax.chain(optax.clip_by_global_norm(max_grad_norm), adamw)


def decayed(params):
    """A tree of bools: which parameters weight decay moves towards zero, by the last key of their path. These
    are matrices, embeddings and adapters. A norm belongs near one, and biases and routers are left alone."""

    def decays(path, _):
        name = path[-1].key
        return not name.endswith(("norm", "bias")) and name != "router"

    return jax.tree.map_with_path(decays, params)


def without(optimizer: optax.GradientTransformation, name: str) -> optax.GradientTransformation:
    """The optimizer, with every parameter of this name (the last key of its path) left unchanged.

    Their gradients do not count for the norm by which the others are clipped, and their moments stay zero.
    The metric `grad_norm` still includes them.
    """

    def still(tree):
        return jax.tree.map_with_path(lambda p, x: jnp.zeros_like(x) if p[-1].key == name else x, tree)

    def update(grads, state, params=None):
        updates, state = optimizer.update(still(grads), state, params)
        return still(updates), state  # weight decay would move them without a gradient

    return optax.GradientTransformation(optimizer.init, update)


def kept_in(optimizer: optax.GradientTransformation, dtype: str) -> optax.GradientTransformation:
    """The optimizer with the floating-point arrays of its state kept in `dtype`: in bfloat16 Adam's moments
    take half the memory and lose 16 bits. With b2 = 0.999 a moment would never fall, since a step of decay is
    less than half a bfloat16 step; check_config.py refuses that, and 0.95 is well."""

    def cast(state, to):
        return jax.tree.map(lambda x: x.astype(to) if jnp.issubdtype(x.dtype, jnp.floating) else x, state)

    def update(grads, state, params=None):
        updates, state = optimizer.update(grads, cast(state, jnp.float32), params)
        return updates, cast(state, dtype)

    return optax.GradientTransformation(lambda params: cast(optimizer.init(params), dtype), update)


def host_memory(places):
    """The same NamedShardings in pinned host memory. Raises InputError where the platform has none."""
    device = next(iter(jax.tree.leaves(places)[0].mesh.devices.flat))
    kinds = {memory.kind for memory in device.addressable_memories()}
    if "pinned_host" not in kinds:
        raise InputError(
            f"config.grpo.offload_optimizer: {device.device_kind} has no pinned host memory (it has "
            f"{sorted(kinds)}); turn it off"
        )
    return jax.tree.map(lambda place: place.with_memory_kind("pinned_host"), places)
