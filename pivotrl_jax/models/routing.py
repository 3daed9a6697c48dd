"""What a mixture's routers return beside the layers' output: choices, which are recorded, replayed and
compared, and loads, for the load-balance loss.

Axis letters as in `decoder.py`; A experts per token, L only the layers that have experts. A choice of -1 was
not recorded.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from pivotrl_jax.models import sharding


@dataclasses.dataclass(frozen=True)
class RouterOutputs:
    """What a forward pass returns of its routers."""

    choices: bool = False  # int32 [L, R, T, A]: the top k of every router, whatever is replayed
    loads: bool = False  # float32 [L, E] each: "load", assignments, and "prob", probabilities; weighted sums

    def specs(self) -> dict[str, P]:
        """How one layer's `router_stats` lie on the mesh."""
        specs = {"choices": sharding.BATCH} if self.choices else {}
        return specs | ({"load": P(), "prob": P()} if self.loads else {})


NOTHING = RouterOutputs()
RouterStats = dict[str, jax.Array]  # the outputs that were asked for, by name


def record_dtype(experts: int) -> jnp.dtype:
    """The smallest dtype that holds the ids of so many experts and -1."""
    return jnp.dtype(jnp.int8 if experts <= 128 else jnp.int16)


def router_stats(
    outputs: RouterOutputs, probs_ME, choices_RTA, used_MA, token_weight_RT: jax.Array | None
) -> RouterStats:
    """Inside `sharding.per_shard`: one layer's share of `outputs`. `choices` are the router's own, `used` the
    experts that compute, which may be replayed."""
    stats = {}
    if outputs.choices:
        stats["choices"] = sharding.largest(choices_RTA, "tensor")  # equal on all devices along it
    if outputs.loads:
        weight_M = token_weight_RT.reshape(-1)
        load_E = jnp.zeros_like(probs_ME[0]).at[used_MA].add(weight_M[:, None])
        stats["load"], stats["prob"] = _over_all_tokens(load_E), _over_all_tokens(weight_M @ probs_ME)
    return stats


def _over_all_tokens(x_E):
    """The sum over all devices' tokens; devices along `tensor` hold the same ones."""
    mesh = sharding.current_mesh()
    return sharding.total(x_E, mesh.axis_names if mesh else None) / sharding.count("tensor")


def balance_loss(stats: RouterStats, token_weight_RT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(E sum_e f_e p_e, the tokens' weight): f_e is the share of tokens that choose expert e, p_e their mean
    probability of it, both over all layers together. It is top_k when routing is even. The gradient goes
    through p alone.

    Source: transformers' `load_balancing_loss_func` (Switch, arXiv 2101.03961, equation 4). Padding has
    weight 0, and the tokens of a shared prefix count once.
    """
    mass = token_weight_RT.sum()
    load_E, prob_E = (stats[name].mean(0) / jnp.maximum(mass, 1e-30) for name in ("load", "prob"))
    return load_E.shape[0] * (jax.lax.stop_gradient(load_E) * prob_E).sum(), mass


def agreement(choices_LRTA: jax.Array, recorded_LRTA: jax.Array, trained_RT: jax.Array):
    """(choices that agree, choices compared): how many of the recorded experts are among the router's own,
    over the trained slots with a record. Those are the tokens of completions except the last, which was never
    decoded from. Prompts are not counted: sampler and learner both read them in one pass."""
    compared_RT = trained_RT & (recorded_LRTA[0, ..., 0] >= 0)
    same_LRTA = (recorded_LRTA[..., :, None] == choices_LRTA[..., None, :]).any(-1)
    L, _, _, A = choices_LRTA.shape
    return (same_LRTA & compared_RT[None, ..., None]).sum(), compared_RT.sum() * L * A
