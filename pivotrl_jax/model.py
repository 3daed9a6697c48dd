"""Qwen3, dense and mixture-of-experts, as functions of (config, params).

Axis letters, here and everywhere:

    R rows of a batch      T slots of a row       S branches of a row    C tokens of a branch
    D hidden               H query heads          N key/value heads      K head_dim
    E experts              F mlp width            V vocabulary           L layers

A parameter is declared by its letters; `sharding.py` maps letters to mesh axes. Linen only declares
parameters and scans over layers: there are no mutable collections, caches are arguments and results.

Parity: `transformers` Qwen3ForCausalLM and Qwen3MoeForCausalLM (tests/test_hf.py).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from pivotrl_jax import attention, experts

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The numbers of a checkpoint's config.json. None has a default: they differ between checkpoints."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_size: int  # dense: intermediate_size; MoE: one expert's width (moe_intermediate_size)
    num_experts: int  # 0: dense
    experts_per_token: int  # 0: dense
    norm_topk_prob: bool
    rope_theta: float
    rms_norm_eps: float
    tie_embeddings: bool
    dtype: str  # compute dtype: "float32" or "bfloat16"

    def sizes(self) -> dict[str, int]:
        """Axis letter -> size."""
        return {
            "D": self.hidden_size,
            "H": self.num_heads,
            "N": self.num_kv_heads,
            "K": self.head_dim,
            "E": self.num_experts,
            "F": self.mlp_size,
            "V": self.vocab_size,
        }


def _param(module: nn.Module, config: ModelConfig, name: str, letters: str, scale: float | None) -> jax.Array:
    """Declare a parameter by its axis letters; `scale` is the init's standard deviation (None: ones, for
    norms)."""
    shape = tuple(config.sizes()[letter] for letter in letters)
    init = nn.initializers.ones if scale is None else nn.initializers.normal(scale)
    value = module.param(name, nn.with_logical_partitioning(init, tuple(letters)), shape, jnp.float32)
    return value.astype(config.dtype)


def rms_norm(x: jax.Array, weight: jax.Array, eps: float) -> jax.Array:
    """x / rms(x) * weight over the last axis. The mean square is taken in float32: squares overflow
    bfloat16's 8 bits."""
    x32 = x.astype(jnp.float32)
    return (x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, -1, keepdims=True) + eps)).astype(x.dtype) * weight


def rope(x: jax.Array, position: jax.Array, theta: float) -> jax.Array:
    """Rotate [..., heads, K] by position [...]: pairs are (i, i + K/2), as transformers' rotate_half.
    Float32 angles."""
    half = x.shape[-1] // 2
    frequency = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = position[..., None, None].astype(jnp.float32) * frequency
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    a, b = x[..., :half].astype(jnp.float32), x[..., half:].astype(jnp.float32)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


class Layer(nn.Module):
    """One decoder layer. `attend(q, k, v, cache, context) -> (mixed values, what to keep)` decides what sees
    what."""

    config: ModelConfig
    attend: Callable

    @nn.compact
    def __call__(self, x, cache, position, context):
        c = self.config
        h = rms_norm(x, _param(self, c, "attn_norm", "D", None), c.rms_norm_eps)
        q = jnp.einsum("rtd,dhk->rthk", h, _param(self, c, "q", "DHK", 0.02))
        k = jnp.einsum("rtd,dnk->rtnk", h, _param(self, c, "k", "DNK", 0.02))
        v = jnp.einsum("rtd,dnk->rtnk", h, _param(self, c, "v", "DNK", 0.02))
        q = rope(rms_norm(q, _param(self, c, "q_norm", "K", None), c.rms_norm_eps), position, c.rope_theta)
        k = rope(rms_norm(k, _param(self, c, "k_norm", "K", None), c.rms_norm_eps), position, c.rope_theta)
        mixed, kept = self.attend(q, k, v, cache, context)
        x = x + jnp.einsum("rthk,hkd->rtd", mixed, _param(self, c, "o", "HKD", 0.02))

        h = rms_norm(x, _param(self, c, "mlp_norm", "D", None), c.rms_norm_eps)
        if c.num_experts:
            tokens = h.reshape(-1, c.hidden_size)
            router = _param(self, c, "router", "DE", 0.02)
            weight, expert = experts.route(tokens, router, c.experts_per_token, c.norm_topk_prob)
            gate, up = _param(self, c, "gate", "EDF", 0.02), _param(self, c, "up", "EDF", 0.02)
            out = experts.expert_mlp(tokens, weight, expert, gate, up, _param(self, c, "down", "EFD", 0.02))
            return x + out.reshape(h.shape), kept
        gate = jnp.einsum("rtd,df->rtf", h, _param(self, c, "gate", "DF", 0.02))
        up = jnp.einsum("rtd,df->rtf", h, _param(self, c, "up", "DF", 0.02))
        return x + jnp.einsum(
            "rtf,fd->rtd", jax.nn.silu(gate) * up, _param(self, c, "down", "FD", 0.02)
        ), kept


class Qwen3(nn.Module):
    """Embedding, layers under `nn.scan`, final norm. Returns the final hidden states and what each layer
    kept."""

    config: ModelConfig
    attend: Callable
    remat: bool

    @nn.compact
    def __call__(self, tokens, cache, position, context):
        c = self.config
        x = _param(self, c, "embed", "VD", 0.02)[tokens]
        layer = nn.remat(Layer, prevent_cse=False) if self.remat else Layer
        layers = nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast, nn.broadcast),
            length=c.num_layers,
            metadata_params={nn.PARTITION_NAME: "L"},
        )
        x, kept = layers(c, self.attend, name="layers")(x, cache, position, context)
        if not c.tie_embeddings:
            _param(self, c, "unembed", "DV", 0.02)
        return rms_norm(x, _param(self, c, "final_norm", "D", None), c.rms_norm_eps), kept


def _attend_forest(chunk: int, keep: bool) -> Callable:
    def attend(q, k, v, cache, subtree_end):
        out = attention.forest_attention(q, k, v, subtree_end, chunk)
        # kept as [R, N, T, K]: the layout decode reads, so that it is transposed once and not per token
        return out, (k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)) if keep else None

    return attend


def _attend_decode(q, k, v, cache, context):
    """A branch axis stands where a forest has slots: q is [R, S, H, K]. The new keys and values are the
    result."""
    trunk_k, trunk_v, own_k, own_v = cache
    trunk_mask, length = context
    out = attention.decode_attention(q, k, v, (trunk_k, trunk_v), trunk_mask, (own_k, own_v), length)
    return out, (k, v)


def abstract_params(config: ModelConfig) -> Params:
    """Parameters as ShapeDtypeStructs boxed with their axis letters, nothing allocated."""
    module = Qwen3(config, _attend_forest(1, False), False)
    slots = jnp.zeros((1, 1), jnp.int32)
    return jax.eval_shape(lambda key: module.init(key, slots, None, slots, slots), jax.random.key(0))[
        "params"
    ]


def param_shapes(config: ModelConfig) -> Params:
    """Parameters as ShapeDtypeStructs (float32), nothing allocated."""
    return nn.unbox(abstract_params(config))


def init_params(config: ModelConfig, key: jax.Array) -> Params:
    """Random parameters, float32: normals of standard deviation 0.02, ones for norms."""
    module = Qwen3(config, _attend_forest(1, False), False)
    slots = jnp.zeros((1, 1), jnp.int32)
    return nn.unbox(module.init(key, slots, None, slots, slots)["params"])


def hidden_states(
    config: ModelConfig,
    params: Params,
    tokens_RT: jax.Array,
    position_RT: jax.Array,
    subtree_end_RT: jax.Array,
    attention_chunk: int,
    remat: bool,
) -> jax.Array:
    """Final-norm hidden states [R, T, D] of a packed forest."""
    module = Qwen3(config, _attend_forest(attention_chunk, False), remat)
    return module.apply({"params": params}, tokens_RT, None, position_RT, subtree_end_RT)[0]


def prefill(config, params, tokens_RT, position_RT, subtree_end_RT, attention_chunk: int):
    """Hidden states [R, T, D] and the trunk cache: keys and values, each [L, R, N, T, K]."""
    module = Qwen3(config, _attend_forest(attention_chunk, True), False)
    return module.apply({"params": params}, tokens_RT, None, position_RT, subtree_end_RT)


def decode_step(config, params, tokens_RS, position_RS, trunk, trunk_mask_RST, own, length):
    """One token for every branch. `trunk` [L, R, N, T, K] pair, `own` [L, R, S, N, C, K] pair, `length`
    filled.

    Returns hidden states [R, S, D] and the new token's keys and values, each [L, R, S, N, K].
    """
    module = Qwen3(config, _attend_decode, False)
    return module.apply({"params": params}, tokens_RS, (*trunk, *own), position_RS, (trunk_mask_RST, length))


def unembedding(config: ModelConfig, params: Params) -> jax.Array:
    """[D, V] in the compute dtype; the transposed embedding when tied."""
    return (params["embed"].T if config.tie_embeddings else params["unembed"]).astype(config.dtype)


def logits_of(config: ModelConfig, params: Params, hidden: jax.Array) -> jax.Array:
    """float32 [..., V] for a few hidden states [..., D]; whole forests go through `token_log_probs`
    instead."""
    return jnp.einsum(
        "...d,dv->...v", hidden, unembedding(config, params), preferred_element_type=jnp.float32
    )


def logits(config: ModelConfig, params: Params, tokens_RT: jax.Array) -> jax.Array:
    """float32 [R, T, V] of plain left-aligned sequences: for tests and small inputs."""
    R, T = tokens_RT.shape
    position = jnp.broadcast_to(jnp.arange(T), (R, T))
    hidden = hidden_states(config, params, tokens_RT, position, jnp.full((R, T), T), T, False)
    return logits_of(config, params, hidden)


def token_log_probs(
    config: ModelConfig,
    params: Params,
    hidden_RTD: jax.Array,
    tokens_RT: jax.Array,
    parent_RT: jax.Array,
    wanted_RT: jax.Array,
    temperature: float,
    chunk: int,
) -> tuple[jax.Array, jax.Array]:
    """log p(token | its parent's hidden state) and that distribution's entropy, float32 [R, T]; 0 where not
    `wanted`.

    Wanted slots are gathered to the front of each row and taken `chunk` per row at a time, forward and
    backward, so no [tokens, vocabulary] array exists and a chunk without wanted slots costs nothing.
    Temperature divides logits, not log-probs. The entropy carries no gradient.
    """
    R, T = tokens_RT.shape
    chunk = min(chunk, T)
    steps = -(-T // chunk)
    order = jnp.argsort(~wanted_RT, axis=-1, stable=True)
    order = jnp.pad(order, ((0, 0), (0, steps * chunk - T)), mode="edge")

    def take(x_RT):
        return jnp.take_along_axis(x_RT, order, axis=1).reshape(R, steps, chunk).swapaxes(0, 1)

    source = jnp.take_along_axis(jnp.maximum(parent_RT, 0), order, axis=1)
    hidden = (
        jnp.take_along_axis(hidden_RTD, source[..., None], axis=1).reshape(R, steps, chunk, -1).swapaxes(0, 1)
    )
    unembed = unembedding(config, params)

    def compute(h, target):
        scores = jnp.einsum("rcd,dv->rcv", h, unembed, preferred_element_type=jnp.float32) / temperature
        total = jax.nn.logsumexp(scores, axis=-1)
        log_prob = jnp.take_along_axis(scores, target[..., None], axis=-1)[..., 0] - total
        probs = jax.lax.stop_gradient(jax.nn.softmax(scores, axis=-1))
        return log_prob, jax.lax.stop_gradient(total - (probs * scores).sum(-1))

    def skip(h, target):
        return jnp.zeros((R, chunk)), jnp.zeros((R, chunk))

    # around the cond: inside it, the scan would keep a copy of the unembedding for every chunk
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def chunk_outputs(h, target, wanted):
        return jax.lax.cond(wanted.any(), compute, skip, h, target)

    def step(_, xs):
        h, target, wanted = xs
        log_prob, entropy = chunk_outputs(h, target, wanted)
        return None, (jnp.where(wanted, log_prob, 0.0), jnp.where(wanted, entropy, 0.0))

    _, outputs = jax.lax.scan(step, None, (hidden, take(tokens_RT), take(wanted_RT)))
    back = jnp.argsort(order[:, :T], axis=-1)

    def restore(x):
        return jnp.take_along_axis(x.swapaxes(0, 1).reshape(R, -1)[:, :T], back, axis=1)

    return restore(outputs[0]), restore(outputs[1])
