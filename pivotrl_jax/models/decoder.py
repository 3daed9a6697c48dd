"""A decoder over token forests, as functions of (config, params). The model family supplies its layer.

Axis letters, here and everywhere:

    R rows of a batch      T slots of a row       S branches of a row    C tokens of a branch
    D hidden               H query heads          N key/value heads      K head_dim
    E experts              F an expert's width    I a dense MLP's width  V vocabulary
    L layers               U rank of an adapter

A parameter is declared by its letters; `sharding.py` maps letters to mesh axes. Linen only declares
parameters and scans over layers: there are no mutable collections, and caches are arguments and results.
When traced under `jax.set_mesh`, the functions run on that mesh; otherwise they run on one device.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from pivotrl_jax.models import attention, layers, routing, sharding
from pivotrl_jax.models.config import ModelConfig
from pivotrl_jax.models.embedding import embed
from pivotrl_jax.models.families import family_of
from pivotrl_jax.models.log_probs import logits_of

Params = dict[str, Any]


# What the backward pass of a layer recomputes. `full` stores D numbers per layer and token; `dots` also
# stores the results of the projections (not of the experts); `nothing` stores every intermediate result.
REMAT = {
    "nothing": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
    """Packed rows to compute, as in `forest.py`. Each array is int32 [R T]."""

    tokens: jax.Array
    position: jax.Array
    subtree_end: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DecodeCache:
    """Keys and values that a decode step reads, and which of them each branch sees. With parameters
    `by_layer`, `prefix` and `branch` are lists: a pair of arrays without L for each layer."""

    prefix: tuple[jax.Array, jax.Array]  # [L R N T K] each, shared by the branches of a row
    prefix_mask: jax.Array  # bool [R S T]
    branch: tuple[jax.Array, jax.Array]  # [L R S N C K] each, tokens in any order
    branch_mask: jax.Array  # bool [R S C]


class Decoder(nn.Module):
    """Embedding, the family's layers under `nn.scan`, final norm. Returns the final hidden states, what each
    layer caches, and the routers' outputs. `recorded` [L, R, T, A] and `token_weight` are passed to
    `mixture`. Given parameters `by_layer`, it runs layer after layer instead: see there."""

    config: ModelConfig
    attend: Callable
    column: int
    remat: str  # a key of REMAT
    router_outputs: routing.RouterOutputs = routing.NOTHING
    unrolled: bool = False  # the parameters are `by_layer`, and so is the cache

    @nn.compact
    def __call__(self, tokens, cache, position, context, recorded=None, token_weight=None):
        c = self.config
        x = embed(self, tokens)
        angles = layers.rope_angles(c, position)
        layer, policy = family_of(c).layer, REMAT[self.remat]
        if policy is not None:
            layer = nn.remat(layer, prevent_cse=False, policy=policy)
        caches, stats, routers = [], [], 0
        join = lambda *parts: jnp.concatenate(parts) if len(parts) > 1 else parts[0]  # noqa: E731
        for name, first, end, moe in c.segments():
            if self.unrolled:
                fixed = c, self.attend, self.column, moe, self.router_outputs
                found = []
                for i in range(first, end):
                    one = layer(*fixed, name=f"{name}.{i - first}")
                    x, (new_cache, layer_stats) = one(x, (cache[i], None), angles, context, token_weight)
                    caches.append(new_cache)
                    found.append(layer_stats)
                if moe:
                    stats.append(jax.tree.map(lambda *parts: jnp.stack(parts), *found))
                continue
            scan = nn.scan(
                layer,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
                length=end - first,
                metadata_params={nn.PARTITION_NAME: "L"},
            )
            segment_cache = jax.tree.map(lambda whole: whole[first:end], cache)  # noqa: B023
            replayed = recorded[routers : routers + end - first] if moe and recorded is not None else None
            segment = scan(c, self.attend, self.column, moe, self.router_outputs, name=name)
            x, (new_cache, segment_stats) = segment(
                x, (segment_cache, replayed), angles, context, token_weight
            )
            caches.append(new_cache)
            if moe:
                stats.append(segment_stats)
                routers += end - first
        if not c.tie_embeddings:
            layers.declare(self, "unembed", "DV", 0.02)  # read by log_probs.py
        x = layers.rms_norm(x, layers.parameter(self, "final_norm", "D", None), c.rms_norm_eps)
        caches = caches if self.unrolled else jax.tree.map(join, *caches)
        return x, caches, jax.tree.map(join, *stats) if stats else {}


def _attend_forest(chunk: int, cached: bool) -> Callable:
    """Attention over a forest; the context is subtree_end [R, T]. `cached`: also return keys and values."""

    def attend(q, k, v, cache, subtree_end):
        def compute(q, k, v, subtree_end):
            q, k, v, subtree_end = sharding.varying((q, k, v, subtree_end))
            return attention.forest_attention(q, k, v, subtree_end, chunk)

        heads = P(sharding.BATCH_AXES, None, "tensor")
        run = sharding.per_shard(compute, (heads, heads, heads, sharding.BATCH), heads)
        out = run(q, k, v, subtree_end)
        # cached as [R, N, T, K], the layout that decoding reads, to transpose once here and not per token
        return out, (k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)) if cached else None

    return attend


def _attend_decode(q, k, v, cache, context):
    """Decode attention. q is [R, S, H, K]: its second axis is branches, which in a forest is slots. Returns
    the attended values, and the new keys and values to cache."""
    prefix_k, prefix_v, branch_k, branch_v = cache
    prefix_mask, branch_mask = context
    heads, prefix = P(sharding.BATCH_AXES, None, "tensor"), P(sharding.BATCH_AXES, "tensor")
    in_specs = (heads, heads, heads, (prefix, prefix), sharding.BATCH, (heads, heads), sharding.BATCH)
    run = sharding.per_shard(attention.decode_attention, in_specs, heads)
    return run(q, k, v, (prefix_k, prefix_v), prefix_mask, (branch_k, branch_v), branch_mask), (k, v)


def _attend_extend(q, k, v, cache, context):
    """Attention of new tokens [R, Q] to a prefix cache into which they are written first. Returns the
    attended values, and the new keys and values to cache."""
    slots, mask = context

    def compute(q, k, v, cache, slots, mask):
        def written(row, new, at):
            return row.at[:, at].set(new.swapaxes(0, 1), mode="drop")

        cache = jax.tree.map(lambda whole, new: jax.vmap(written)(whole, new, slots), cache, (k, v))
        return attention.cached_attention(q, cache, mask)

    heads, prefix = P(sharding.BATCH_AXES, None, "tensor"), P(sharding.BATCH_AXES, "tensor")
    in_specs = (heads, heads, heads, (prefix, prefix), sharding.BATCH, sharding.BATCH)
    return sharding.per_shard(compute, in_specs, heads)(q, k, v, cache, slots, mask), (k, v)


def _init(config: ModelConfig, key: jax.Array):
    module = Decoder(config, _attend_forest(1, False), sharding.LEARNER, "nothing")
    slots = jnp.zeros((1, 1), jnp.int32)
    return module.init(key, slots, None, slots, slots)["params"]


@functools.cache
def abstract_params(config: ModelConfig) -> Params:
    """Parameters as ShapeDtypeStructs boxed with their axis letters; allocates nothing. All callers share
    this tree, so do not modify it."""
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ())):
        return jax.eval_shape(lambda key: _init(config, key), jax.random.key(0))


def param_shapes(config: ModelConfig) -> Params:
    """Parameters as ShapeDtypeStructs (float32); allocates nothing."""
    return nn.unbox(abstract_params(config))


def init_params(config: ModelConfig, key: jax.Array) -> Params:
    """Random float32 parameters: normal with standard deviation 0.02, and ones for norms."""
    return nn.unbox(_init(config, key))


def hidden_states(
    config: ModelConfig, params: Params, rows: Rows, attention_chunk: int, remat: str
) -> jax.Array:
    """Hidden states [R, T, D] of a packed forest after the final norm. Parameters are sharded as in the
    learner."""
    return routed_states(config, params, rows, attention_chunk, remat)[0]


def routed_states(
    config: ModelConfig,
    params: Params,
    rows: Rows,
    attention_chunk: int,
    remat: str,
    router_outputs: routing.RouterOutputs = routing.NOTHING,
    recorded_LRTA: jax.Array | None = None,
    token_weight_RT: jax.Array | None = None,
) -> tuple[jax.Array, routing.RouterStats]:
    """(`hidden_states`, the routers' outputs). Recorded expert choices `recorded_LRTA`, if given, are
    replayed; `token_weight_RT` weighs tokens in the loads."""
    module = Decoder(config, _attend_forest(attention_chunk, False), sharding.LEARNER, remat, router_outputs)
    hidden, _, stats = module.apply(
        {"params": params},
        rows.tokens,
        None,
        rows.position,
        rows.subtree_end,
        recorded_LRTA,
        token_weight_RT,
    )
    return hidden, stats


def prefill(
    config: ModelConfig,
    params: Params,
    rows: Rows,
    attention_chunk: int,
    router_outputs: routing.RouterOutputs = routing.NOTHING,
):
    """(hidden states [R, T, D], the prefix cache (keys and values, each [L, R, N, T, K]), the routers'
    outputs). Parameters are sharded as in the sampler."""
    attend = _attend_forest(attention_chunk, True)
    module = Decoder(config, attend, sharding.SAMPLER, "nothing", router_outputs)
    return module.apply({"params": params}, rows.tokens, None, rows.position, rows.subtree_end)


def decode_step(
    config: ModelConfig,
    params: Params,
    tokens_RS: jax.Array,
    position_RS: jax.Array,
    cache: DecodeCache,
    router_outputs: routing.RouterOutputs = routing.NOTHING,
):
    """Compute one token for every branch. Parameters are sharded as in the sampler.

    Returns hidden states [R, S, D], the new token's keys and values (each [L, R, S, N, K]; with parameters
    `by_layer` a list of pairs [R, S, N, K]) and the routers' outputs.
    """
    unrolled = isinstance(cache.branch, list)
    module = Decoder(config, _attend_decode, sharding.SAMPLER, "nothing", router_outputs, unrolled)
    masks = cache.prefix_mask, cache.branch_mask
    both = (*cache.prefix, *cache.branch)
    if unrolled:
        both = [(*prefix, *branch) for prefix, branch in zip(cache.prefix, cache.branch, strict=True)]
    return module.apply({"params": params}, tokens_RS, both, position_RS, masks)


def by_layer(config: ModelConfig, params: Params) -> Params:
    """The parameters with an array for every layer in place of one of all layers, for `decode_step` and
    `extend`: the runs of `segments` become "layers.0", "layers.1", ... A CPU copies what a scan slices, every
    layer's parameters and cache for every token; of this, it copies nothing. On the way the parameters are in
    memory twice."""
    out = dict(params)
    for name, first, end, _ in config.segments():
        stacked = out.pop(name)
        for i in range(end - first):
            out[f"{name}.{i}"] = jax.tree.map(lambda x: x[i], stacked)  # noqa: B023
    return out


def is_by_layer(config: ModelConfig, params: Params) -> bool:
    """Whether the parameters are those of `by_layer`."""
    return config.segments()[0][0] not in params


def extend(
    config: ModelConfig,
    params: Params,
    tokens_RQ: jax.Array,
    position_RQ: jax.Array,
    prefix: tuple[jax.Array, jax.Array] | list,
    slots_RQ: jax.Array,
    mask_RQT: jax.Array,
) -> tuple[jax.Array, jax.Array] | list:
    """Compute tokens whose ancestors are in a prefix cache (keys and values [L, R, N, T, K] each), or are
    computed here with them. Parameters are sharded as in the sampler.

    `slots_RQ` says which slot of the cache each token will have; padding has T, which is nowhere. `mask_RQT`
    says which slots it sees, its own among them. Returns the new keys and values, [L, R, Q, N, K] each; the
    caller writes them into the cache. With parameters `by_layer`, `prefix` and the result are lists: a pair
    of arrays without L for each layer.
    """
    module = Decoder(config, _attend_extend, sharding.SAMPLER, "nothing", unrolled=isinstance(prefix, list))
    context = slots_RQ, mask_RQT
    return module.apply({"params": params}, tokens_RQ, prefix, position_RQ, context)[1]


def logits(config: ModelConfig, params: Params, tokens_RT: jax.Array) -> jax.Array:
    """Logits, float32 [R, T, V], of plain left-aligned sequences, for tests and small inputs."""
    R, T = tokens_RT.shape
    rows = Rows(tokens_RT, jnp.broadcast_to(jnp.arange(T), (R, T)), jnp.full((R, T), T))
    return logits_of(config, params, hidden_states(config, params, rows, T, "nothing"))
