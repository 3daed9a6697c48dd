"""Qwen3, dense and mixture-of-experts, as functions of (config, params).

Axis letters, here and everywhere:

    R rows of a batch      T slots of a row       S branches of a row    C tokens of a branch
    D hidden               H query heads          N key/value heads      K head_dim
    E experts              F an expert's width    I a dense MLP's width  V vocabulary
    L layers               U rank of an adapter

A parameter is declared by its letters; `sharding.py` maps letters to mesh axes. Linen only declares
parameters and scans over layers: there are no mutable collections, caches are arguments and results. Traced
under `jax.set_mesh` the functions run on that mesh; without one, on one device.

Parity: `transformers` Qwen3ForCausalLM and Qwen3MoeForCausalLM (tests/test_parity.py).
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from pivotrl_jax.models import attention, experts, routing, sharding
from pivotrl_jax.models.config import ModelConfig
from pivotrl_jax.models.log_probs import logits_of

Params = dict[str, Any]


# What the backward pass of a layer computes again. Kept per layer and token: under `full` D numbers, under
# `dots` the results of the projections, too (not of the experts), under `nothing` every intermediate.
REMAT = {
    "nothing": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


def _param(module: nn.Module, name: str, letters: str, scale: float | None) -> jax.Array:
    """Declare a parameter by its axis letters; `scale` is the init's standard deviation (None: ones, for
    norms). In the compute dtype, where products need it."""
    return sharding.use(_raw(module, name, letters, scale).astype(module.config.dtype), letters)


def _raw(module: nn.Module, name: str, letters: str, scale: float | None) -> jax.Array:
    sizes = module.config.sizes()
    init = nn.initializers.ones if scale is None else nn.initializers.normal(scale)
    boxed = nn.with_logical_partitioning(init, tuple(letters))
    return module.param(name, boxed, tuple(sizes[letter] for letter in letters), jnp.float32)


def _adapter(module: nn.Module, name: str, inputs: str, outputs: str, of: str = ""):
    """A and B of a matrix's low-rank adapter, B times the adapter's scale. B starts at zero, A with the
    variance of PEFT's initialiser. `of` is "E" for experts, which gather their own."""
    c, sizes = module.config, module.config.sizes()
    fan_in = math.prod(sizes[letter] for letter in inputs)
    a, b = f"{of}{inputs}U", f"{of}U{outputs}"
    down = _raw(module, f"{name}_lora_a", a, (3 * fan_in) ** -0.5).astype(c.dtype)
    up = _raw(module, f"{name}_lora_b", b, 0.0)
    up = (up.astype(jnp.float32) * c.lora.scale).astype(c.dtype)  # the ratio may not be one of bfloat16's
    return (down, up) if of else (sharding.use(down, a), sharding.use(up, b))


def rms_norm(x: jax.Array, weight: jax.Array, eps: float) -> jax.Array:
    """x / rms(x) * weight over the last axis. The mean square is taken in float32: a bfloat16 sum over
    thousands of squares loses the small ones."""
    x32 = x.astype(jnp.float32)
    return (x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, -1, keepdims=True) + eps)).astype(x.dtype) * weight


def rope_angles(config: ModelConfig, position: jax.Array) -> tuple[jax.Array, jax.Array]:
    """cos and sin of RoPE's angles, float32 [..., 1, K/2] for positions [...]."""
    angle = position[..., None, None].astype(jnp.float32) * config.rope_frequencies()
    factor = config.yarn.attention_factor if config.yarn else 1.0
    return jnp.cos(angle) * factor, jnp.sin(angle) * factor


def rope(x: jax.Array, turn: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotate [..., heads, K] by `turns`: pairs are (i, i + K/2), as transformers' rotate_half. In float32."""
    half = x.shape[-1] // 2
    cos, sin = turn
    a, b = x[..., :half].astype(jnp.float32), x[..., half:].astype(jnp.float32)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


class Layer(nn.Module):
    """One decoder layer. `attend(q, k, v, cache, context) -> (mixed values, what to keep)` decides what sees
    what; `column` of sharding.TABLE says how the parameters lie; `wanted` is what the router returns."""

    config: ModelConfig
    attend: Callable
    column: int
    moe: bool
    wanted: routing.RouterOutputs

    def project(self, x, name: str, inputs: str, outputs: str):
        """x W [+ x A B] [+ bias] over the axes `inputs` of `x` [R, T, inputs], to [R, T, outputs]."""
        i, o = inputs.lower(), outputs.lower()
        y = jnp.einsum(f"rt{i},{i}{o}->rt{o}", x, _param(self, name, inputs + outputs, 0.02))
        if self.config.lora:
            a, b = _adapter(self, name, inputs, outputs)
            y = y + jnp.einsum(f"rtu,u{o}->rt{o}", jnp.einsum(f"rt{i},{i}u->rtu", x, a), b)
        if self.config.attention_bias and name in ("q", "k", "v", "o"):
            y = y + _param(self, f"{name}_bias", outputs, 0.02)
        return sharding.constrain(y, "RT" + outputs)

    @nn.compact
    def __call__(self, x, own, turn, context, real):
        c, (cache, recorded) = self.config, own
        h = rms_norm(x, _param(self, "attn_norm", "D", None), c.rms_norm_eps)
        q, k, v = (
            self.project(h, name, "D", letters) for name, letters in (("q", "HK"), ("k", "NK"), ("v", "NK"))
        )
        q = rope(rms_norm(q, _param(self, "q_norm", "K", None), c.rms_norm_eps), turn)
        k = rope(rms_norm(k, _param(self, "k_norm", "K", None), c.rms_norm_eps), turn)
        mixed, kept = self.attend(q, k, v, cache, context)
        x = x + self.project(mixed, "o", "HK", "D")

        h = rms_norm(x, _param(self, "mlp_norm", "D", None), c.rms_norm_eps)
        if self.moe:
            mixed, seen = self.mixture(h, recorded, real)
            return x + mixed, (kept, seen)
        gate, up = self.project(h, "gate", "D", "I"), self.project(h, "up", "D", "I")
        return x + self.project(jax.nn.silu(gate) * up, "down", "I", "D"), (kept, {})

    def mixture(self, h, recorded, real):
        """The experts' share of the layer, on every device's own tokens, and what is wanted of the router.
        Choices `recorded` [R, T, A] are replayed; `real` [R, T] weighs tokens in its loads."""
        c, mesh = self.config, sharding.current_mesh()
        declared = self.expert_matrices()
        letters, matrices = [tuple(g) for g in declared], [tuple(g.values()) for g in declared]
        specs = [
            tuple(sharding.spec(mesh, n, w.shape, self.column) for n, w in g.items()) if mesh else None
            for g in declared
        ]
        spread = sharding.axes_of(mesh, "E", c.num_experts, self.column) if mesh else None
        split = sharding.TABLE["D"][self.column]

        def whole(group, names, along_experts):  # as products need it: D whole, experts over fewer axes
            out = []
            for w, name in zip(group, names):
                w = sharding.gather(w, split, name.index("D")) if "D" in name else w
                out.append(sharding.gather(w, along_experts, 0))
            return tuple(out) if c.lora else out[0]

        def compute(h, rows, router, *matrices):
            h, rows, router, matrices = sharding.varying((h, rows, router, matrices))
            tokens = h.reshape(-1, c.hidden_size)
            router = sharding.gather(router, split, 0)
            probs = experts.probabilities(tokens, router)
            replayed = rows["recorded"].reshape(-1, c.experts_per_token) if "recorded" in rows else None
            weight, expert, own = experts.choose(probs, c.experts_per_token, c.norm_topk_prob, replayed)
            seen = routing.seen_by(
                self.wanted, probs, own.reshape(*h.shape[:2], -1), expert, rows.get("real")
            )
            axes, along = spread, None
            if isinstance(spread, tuple) and experts.cheaper_to_move_weights(c, tokens.shape[0]):
                axes, along = "expert", "fsdp"
            matrices = [whole(group, names, along) for group, names in zip(matrices, letters)]
            return experts.spread_mlp(tokens, weight, expert, *matrices, axes).reshape(h.shape), seen

        # the router keeps the precision of its parameter: it is compared, not only multiplied
        router = _raw(self, "router", "DE", 0.02)
        rows = {name: x for name, x in (("recorded", recorded), ("real", real)) if x is not None}
        in_specs = (sharding.BATCH, dict.fromkeys(rows, sharding.BATCH), P(split), *specs)
        seen_specs = {"choices": sharding.BATCH} if self.wanted.choices else {}
        seen_specs |= {"load": P(), "prob": P()} if self.wanted.loads else {}
        return sharding.per_shard(compute, in_specs, (sharding.BATCH, seen_specs))(h, rows, router, *matrices)

    def expert_matrices(self) -> list[dict[str, jax.Array]]:
        """Gate, up and down, each with its adapter, by axis letters."""
        out = []
        for name, inputs, outputs in (("gate", "D", "F"), ("up", "D", "F"), ("down", "F", "D")):
            letters = f"E{inputs}{outputs}"
            group = {letters: _raw(self, name, letters, 0.02).astype(self.config.dtype)}
            if self.config.lora:
                a, b = _adapter(self, name, inputs, outputs, "E")
                group |= {f"E{inputs}U": a, f"EU{outputs}": b}
            out.append(group)
        return out


class Qwen3(nn.Module):
    """Embedding, layers under `nn.scan`, final norm. Returns the final hidden states, what each layer kept,
    and what is wanted of the routers. `recorded` [L, R, T, A] and `real` are `Layer.mixture`'s."""

    config: ModelConfig
    attend: Callable
    column: int
    remat: str  # a key of REMAT
    wanted: routing.RouterOutputs = routing.NOTHING

    @nn.compact
    def __call__(self, tokens, cache, position, context, recorded=None, real=None):
        c = self.config
        x = self.embed(tokens)
        turn = rope_angles(c, position)
        policy = REMAT[self.remat]
        layer = Layer if policy is None else nn.remat(Layer, prevent_cse=False, policy=policy)
        kept, seen, routers = [], [], 0
        for name, first, end, moe in c.segments():
            scan = nn.scan(
                layer,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
                length=end - first,
                metadata_params={nn.PARTITION_NAME: "L"},
            )
            own = jax.tree.map(lambda whole: whole[first:end], cache)  # noqa: B023
            replayed = recorded[routers : routers + end - first] if moe and recorded is not None else None
            layers = scan(c, self.attend, self.column, moe, self.wanted, name=name)
            x, (more, told) = layers(x, (own, replayed), turn, context, real)
            kept.append(more)
            if moe:
                seen.append(told)
                routers += end - first
        if not c.tie_embeddings:
            _raw(self, "unembed", "DV", 0.02)
        x = rms_norm(x, _param(self, "final_norm", "D", None), c.rms_norm_eps)
        join = lambda *parts: jnp.concatenate(parts) if len(parts) > 1 else parts[0]  # noqa: E731
        return x, jax.tree.map(join, *kept), jax.tree.map(join, *seen) if seen else {}

    def embed(self, tokens):
        c, mesh = self.config, sharding.current_mesh()
        table = _raw(self, "embed", "VD", 0.02)
        at_rest = sharding.spec(mesh, "VD", table.shape, self.column) if mesh else None

        def look_up(table, tokens):
            if mesh is None:
                return table[tokens].astype(c.dtype)
            table, tokens = sharding.varying((table.astype(c.dtype), tokens))
            # looked up in float32: the gradient sums over a token's occurrences, which bfloat16 would lose
            table = sharding.gather(table, at_rest[1], 1).astype(jnp.float32)
            here = tokens - sharding.index("tensor") * table.shape[0]
            here = jnp.where(here < 0, table.shape[0], here)  # not from the end
            return sharding.total(table.at[here].get(mode="fill", fill_value=0).astype(c.dtype), "tensor")

        return sharding.per_shard(look_up, (at_rest, sharding.BATCH), sharding.BATCH)(table, tokens)


def _attend_forest(chunk: int, keep: bool) -> Callable:
    def attend(q, k, v, cache, subtree_end):
        def compute(q, k, v, subtree_end):
            q, k, v, subtree_end = sharding.varying((q, k, v, subtree_end))
            return attention.forest_attention(q, k, v, subtree_end, chunk)

        heads = P(sharding.BATCH_AXES, None, "tensor")
        run = sharding.per_shard(compute, (heads, heads, heads, sharding.BATCH), heads)
        out = run(q, k, v, subtree_end)
        # kept as [R, N, T, K]: the layout decode reads, so that it is transposed once and not per token
        return out, (k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)) if keep else None

    return attend


def _attend_decode(q, k, v, cache, context):
    """A branch axis stands where a forest has slots: q is [R, S, H, K]. The new keys and values are the
    result."""
    prefix_k, prefix_v, own_k, own_v = cache
    prefix_mask, own_mask = context
    heads, prefix = P(sharding.BATCH_AXES, None, "tensor"), P(sharding.BATCH_AXES, "tensor")
    in_specs = (heads, heads, heads, (prefix, prefix), sharding.BATCH, (heads, heads), sharding.BATCH)
    run = sharding.per_shard(attention.decode_attention, in_specs, heads)
    return run(q, k, v, (prefix_k, prefix_v), prefix_mask, (own_k, own_v), own_mask), (k, v)


def _init(config: ModelConfig, key: jax.Array):
    module = Qwen3(config, _attend_forest(1, False), sharding.LEARNER, "nothing")
    slots = jnp.zeros((1, 1), jnp.int32)
    return module.init(key, slots, None, slots, slots)["params"]


@functools.cache
def abstract_params(config: ModelConfig) -> Params:
    """Parameters as ShapeDtypeStructs boxed with their axis letters, nothing allocated. One tree for all
    callers: map over it, do not change it."""
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ())):
        return jax.eval_shape(lambda key: _init(config, key), jax.random.key(0))


def param_shapes(config: ModelConfig) -> Params:
    """Parameters as ShapeDtypeStructs (float32), nothing allocated."""
    return nn.unbox(abstract_params(config))


def init_params(config: ModelConfig, key: jax.Array) -> Params:
    """Random parameters, float32: normals of standard deviation 0.02, ones for norms."""
    return nn.unbox(_init(config, key))


def hidden_states(
    config: ModelConfig,
    params: Params,
    tokens_RT: jax.Array,
    position_RT: jax.Array,
    subtree_end_RT: jax.Array,
    attention_chunk: int,
    remat: str,
) -> jax.Array:
    """Final-norm hidden states [R, T, D] of a packed forest. Parameters lie as the learner keeps them."""
    rows = tokens_RT, position_RT, subtree_end_RT
    return routed_states(config, params, *rows, attention_chunk, remat, routing.NOTHING)[0]


def routed_states(
    config: ModelConfig,
    params: Params,
    tokens_RT: jax.Array,
    position_RT: jax.Array,
    subtree_end_RT: jax.Array,
    attention_chunk: int,
    remat: str,
    wanted: routing.RouterOutputs,
    recorded_LRTA: jax.Array | None = None,
    real_RT: jax.Array | None = None,
) -> tuple[jax.Array, routing.Seen]:
    """`hidden_states`, and what is `wanted` of the routers. They replay what is `recorded`; `real` weighs the
    tokens of their loads."""
    module = Qwen3(config, _attend_forest(attention_chunk, False), sharding.LEARNER, remat, wanted)
    rows = tokens_RT, None, position_RT, subtree_end_RT
    hidden, _, seen = module.apply({"params": params}, *rows, recorded_LRTA, real_RT)
    return hidden, seen


def prefill(
    config, params, tokens_RT, position_RT, subtree_end_RT, attention_chunk: int, wanted=routing.NOTHING
):
    """Hidden states [R, T, D], the prefix cache: keys and values, each [L, R, N, T, K], and what is wanted of
    the routers. Parameters lie as the sampler keeps them."""
    module = Qwen3(config, _attend_forest(attention_chunk, True), sharding.SAMPLER, "nothing", wanted)
    return module.apply({"params": params}, tokens_RT, None, position_RT, subtree_end_RT)


def decode_step(
    config,
    params,
    tokens_RS,
    position_RS,
    prefix,
    prefix_mask_RST,
    own,
    own_mask_RSC,
    wanted: routing.RouterOutputs = routing.NOTHING,
):
    """One token for every branch. `prefix` [L, R, N, T, K] pair, `own` [L, R, S, N, C, K] pair, and what of
    them each branch sees. Parameters lie as the sampler keeps them.

    Returns hidden states [R, S, D], the new token's keys and values, each [L, R, S, N, K], and what is wanted
    of the routers.
    """
    module = Qwen3(config, _attend_decode, sharding.SAMPLER, "nothing", wanted)
    return module.apply(
        {"params": params}, tokens_RS, (*prefix, *own), position_RS, (prefix_mask_RST, own_mask_RSC)
    )


def logits(config: ModelConfig, params: Params, tokens_RT: jax.Array) -> jax.Array:
    """float32 [R, T, V] of plain left-aligned sequences: for tests and small inputs."""
    R, T = tokens_RT.shape
    position = jnp.broadcast_to(jnp.arange(T), (R, T))
    hidden = hidden_states(config, params, tokens_RT, position, jnp.full((R, T), T), T, "nothing")
    return logits_of(config, params, hidden)
