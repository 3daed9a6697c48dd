"""What the routers of a mixture of experts return in addition to the layers' output: choices, which are
recorded, replayed and compared, and loads, for the load-balance loss.

Axis letters as in `decoder.py`; also A experts per token, and L counts only the layers with experts. A choice
of -1 means that none was recorded.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from pivotrl_jax.models import sharding


@dataclasses.dataclass(frozen=True)
class RouterOutputs:
    """Which router outputs a forward pass returns."""

    choices: bool = False  # "choices", int32 [L, R, T, A]: the top k of every router, even in a replay
    # float32 [L, E] each: "load" and "prob", the weighted sums over tokens of assignments and probabilities
    loads: bool = False

    def specs(self) -> dict[str, P]:
        """The PartitionSpecs of one layer's `router_stats`."""
        specs = {"choices": sharding.BATCH} if self.choices else {}
        return specs | ({"load": P(), "prob": P()} if self.loads else {})


NOTHING = RouterOutputs()
RouterStats = dict[str, jax.Array]  # the requested outputs, by name


def record_dtype(experts: int) -> jnp.dtype:
    """The smallest dtype that holds the ids of this many experts and -1."""
    return jnp.dtype(jnp.int8 if experts <= 128 else jnp.int16)


def router_stats(
    outputs: RouterOutputs, probs_ME, choices_RTA, used_MA, token_weight_RT: jax.Array | None
) -> RouterStats:
    """One layer's share of `outputs`; called inside `sharding.per_shard`. `choices_RTA` is the router's top
    k; `used_MA` are the experts that compute, which a replay may have changed."""
    stats = {}
    if outputs.choices:
        stats["choices"] = sharding.largest(choices_RTA, "tensor")  # equal on all devices along it
    if outputs.loads:
        weight_M = token_weight_RT.reshape(-1)
        load_E = jnp.zeros_like(probs_ME[0]).at[used_MA].add(weight_M[:, None])
        stats["load"], stats["prob"] = _over_all_tokens(load_E), _over_all_tokens(weight_M @ probs_ME)
    return stats


def _over_all_tokens(x_E):
    """The sum over the tokens of all devices; devices along `tensor` have the same tokens."""
    mesh = sharding.current_mesh()
    return sharding.total(x_E, mesh.axis_names if mesh else None) / sharding.count("tensor")


def balance_loss(stats: RouterStats, token_weight_RT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(E sum_e f_e p_e, the total weight of tokens): f_e is the share of tokens that choose expert e, p_e
    their mean probability of it, both over all layers together. The loss is top_k when routing is even. Its
    gradient flows only through p.

    Source: transformers' `load_balancing_loss_func` (Switch, arXiv 2101.03961, equation 4). Padding has
    weight 0, and the tokens of a shared prefix count once.
    """
    mass = token_weight_RT.sum()
    load_E, prob_E = (stats[name].mean(0) / jnp.maximum(mass, 1e-30) for name in ("load", "prob"))
    return load_E.shape[0] * (jax.lax.stop_gradient(load_E) * prob_E).sum(), mass


def agreement(choices_LRTA: jax.Array, recorded_LRTA: jax.Array, trained_RT: jax.Array):
    """(choices that agree, choices compared): how many of the recorded experts are in the router's top k,
    over trained slots with recorded choices. These are the tokens of completions except the last, which the
    sampler never took as input. Prompts are not counted: sampler and learner both read them in one pass."""
    compared_RT = trained_RT & (recorded_LRTA[0, ..., 0] >= 0)
    same_LRTA = (recorded_LRTA[..., :, None] == choices_LRTA[..., None, :]).any(-1)
    L, _, _, A = choices_LRTA.shape
    return (same_LRTA & compared_RT[None, ..., None]).sum(), compared_RT.sum() * L * A
