"""What is asked of a mixture's routers beside the layers' output: choices that are recorded, replayed and
compared, and the load-balance loss.

Axis letters as in `model.py`; A experts per token, L only the layers that have experts. A choice of -1 is one
that nobody recorded.
"""

import dataclasses

import jax
import jax.numpy as jnp

from pivotrl_jax.models import sharding


@dataclasses.dataclass(frozen=True)
class RouterOutputs:
    """What a forward pass returns of its routers."""

    choices: bool = False  # int32 [L, R, T, A]: every router's own
    loads: bool = False  # float32 [L, E] each: "load", assignments, and "prob", probabilities; weighted sums


NOTHING = RouterOutputs()


Seen = dict[str, jax.Array]  # what was wanted, by name


def record_dtype(experts: int) -> jnp.dtype:
    """The smallest that holds the ids of so many experts, and -1."""
    return jnp.dtype(jnp.int8 if experts <= 128 else jnp.int16)


def seen_by(wanted: RouterOutputs, probs_ME, own_MA, used_MA, real_RT) -> Seen:
    """Inside `sharding.per_shard`: one layer's share of what is wanted. `real_RT` weighs the tokens."""
    found = {}
    if wanted.choices:
        found["choices"] = sharding.largest(own_MA, "tensor")  # the same everywhere along it
    if wanted.loads:
        weight_M = real_RT.reshape(-1)
        load_E = jnp.zeros_like(probs_ME[0]).at[used_MA].add(weight_M[:, None])
        found["load"], found["prob"] = _everywhere(load_E), _everywhere(weight_M @ probs_ME)
    return found


def _everywhere(x_E):
    """The sum over all tokens; devices along `tensor` hold the same ones."""
    mesh = sharding.current_mesh()
    return sharding.total(x_E, mesh.axis_names if mesh else None) / sharding.count("tensor")


def balance_loss(seen: Seen, real_RT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(E sum_e f_e p_e, the tokens' weight): f_e is the share of tokens that choose expert e, p_e their mean
    probability of it, both over all layers together; 1 x top_k when even. The gradient goes through p alone.

    Source: transformers' `load_balancing_loss_func` (Switch, arXiv 2101.03961, equation 4). There padding is
    masked; here padding weighs nothing, and a prefix that is shared is one set of tokens.
    """
    mass = real_RT.sum()
    load_E, prob_E = (seen[name].mean(0) / jnp.maximum(mass, 1e-30) for name in ("load", "prob"))
    return load_E.shape[0] * (jax.lax.stop_gradient(load_E) * prob_E).sum(), mass


def agreement(own_LRTA: jax.Array, recorded_LRTA: jax.Array, trained_RT: jax.Array):
    """(choices that agree, choices compared): of the trained slots with a record, how many of the recorded
    experts are among the router's own. These are the completions' tokens as decoding read them, all but the
    last; prompts, which both sides read in one piece, are not counted."""
    compared_RT = trained_RT & (recorded_LRTA[0, ..., 0] >= 0)
    same_LRTA = (recorded_LRTA[..., :, None] == own_LRTA[..., None, :]).any(-1)
    L, _, _, A = own_LRTA.shape
    return (same_LRTA & compared_RT[None, ..., None]).sum(), compared_RT.sum() * L * A
