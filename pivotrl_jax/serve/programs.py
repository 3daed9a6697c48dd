"""The compiled programs of the engine: tokens into the prefix cache, and decode steps for all decode slots.

The cache has R rows. A row holds the keys and values of prompts in T slots, in any order and shared by all
samples of the row, and of J samples in C columns each. A program works on a `View`, the part of the cache
that is in use, so that few and short samples do not pay for many and long ones. The host says in masks what
each token sees.

A sample begins with the last token of its prompt, whose keys and values are its own first ones: so a prompt
that is in the cache needs no other computation, and first tokens need no program.

Axis letters as in `decoder.py` and `sampler.py`; X counts the steps of a call. With parameters
`decoder.by_layer`, the cache is a list of pairs without L, one for each layer.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from pivotrl_jax.models import decoder
from pivotrl_jax.models import log_probs as log_probs_lib
from pivotrl_jax.models.config import ModelConfig
from pivotrl_jax.rollouts import sampling as sampling_lib

STEPS = 32  # most decode steps of a call
TOP = 20  # most likely tokens that are reported beside a sampled one, if asked for


@dataclasses.dataclass(frozen=True)
class Capacity:
    """The size of the cache."""

    rows: int
    slots: int  # decode slots of a row
    row_tokens: int  # prompt tokens that a row holds
    completion_tokens: int  # of the longest completion


@dataclasses.dataclass(frozen=True)
class View:
    """The part of the cache that a program works on, and what it computes beside tokens."""

    rows: int
    slots: int
    row_tokens: int
    columns: int
    restricted: bool  # whether a sample has top_p, top_k or min_p
    top: bool  # whether a sample asks for the log-probs of the TOP most likely tokens


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """Keys and values of prompts [L R N T K] and of samples [L R J N C K], or by layer."""

    prefix: tuple | list
    branch: tuple | list


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Slots:
    """What each decode slot [R J] is generating, how far it is, and how it samples."""

    busy: np.ndarray  # bool
    token: np.ndarray  # int32: the next token of the sample to compute
    age: np.ndarray  # int32: tokens of the sample in the cache, which is also the index of the next new one
    position: np.ndarray  # int32: of the prompt's last token
    limit: np.ndarray  # int32: most tokens of the completion
    ignore_stop: np.ndarray  # bool: stop tokens do not end the sample
    seed: np.ndarray  # uint32 [R J 2]
    index: np.ndarray  # int32: number of the sample among those of its seed
    temperature: np.ndarray  # float32
    top_p: np.ndarray  # float32
    top_k: np.ndarray  # int32
    min_p: np.ndarray  # float32

    @staticmethod
    def idle(rows: int, slots: int) -> "Slots":
        arrays = {}
        for name in ("token", "age", "position", "limit", "index", "top_k"):
            arrays[name] = np.zeros((rows, slots), np.int32)
        for name in ("temperature", "top_p", "min_p"):
            arrays[name] = np.zeros((rows, slots), np.float32)
        for name in ("busy", "ignore_stop"):
            arrays[name] = np.zeros((rows, slots), bool)
        return Slots(**arrays, seed=np.zeros((rows, slots, 2), np.uint32))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Steps:
    """What a call of `decode` sampled. A slot's tokens are the first ones; their number is how much older it
    has become."""

    token: jax.Array  # int32 [X R J]
    log_prob: jax.Array  # float32 [X R J], under the distribution sampled from
    model_log_prob: jax.Array  # float32 [X R J], under the model
    top_token: jax.Array  # int32 [X R J TOP]; no tokens unless the view has them
    top_log_prob: jax.Array  # float32 [X R J TOP], under the model


def empty_cache(config: ModelConfig, capacity: Capacity, by_layer: bool) -> Cache:
    c, size = config, capacity
    prefix = (size.rows, c.num_kv_heads, size.row_tokens, c.head_dim)
    branch = (size.rows, size.slots, c.num_kv_heads, size.completion_tokens, c.head_dim)
    pair = lambda *shape: tuple(jnp.zeros(shape, c.dtype) for _ in range(2))  # noqa: E731
    if by_layer:
        return Cache(*([pair(*shape) for _ in range(c.num_layers)] for shape in (prefix, branch)))
    return Cache(pair(c.num_layers, *prefix), pair(c.num_layers, *branch))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Chunk:
    """Prompt tokens to compute, Q in each of B rows."""

    tokens: np.ndarray  # int32 [B Q]
    position: np.ndarray  # int32 [B Q]
    slots: np.ndarray  # int32 [B Q]: where their keys and values go; padding is past the row's end
    mask: np.ndarray  # bool [B Q T]: the slots that each one sees, its own among them


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def extend(config: ModelConfig, params, cache: Cache, rows_B, chunk: Chunk) -> Cache:
    """The cache with a chunk in the first T slots, which the chunk's mask has, of each of B rows."""
    T = chunk.mask.shape[-1]
    seen = jax.tree.map(lambda x: x[..., rows_B, :, :T, :], cache.prefix)
    new = decoder.extend(config, params, chunk.tokens, chunk.position, seen, chunk.slots, chunk.mask)

    def written(whole, part_BQNK):
        at = whole.at[..., rows_B[:, None], :, chunk.slots, :]
        return at.set(jnp.moveaxis(part_BQNK, (-4, -3), (0, 1)), mode="drop")

    return dataclasses.replace(cache, prefix=jax.tree.map(written, cache.prefix, new))


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=(3,))
def decode(
    config: ModelConfig, view: View, params, cache: Cache, slots: Slots, mask_RJT, stops, call
) -> tuple[Cache, Slots, Steps]:
    """Up to `call[1]` decode steps, fewer if all samples end before, for the rows from `call[0]` on.

    `slots` and `mask_RJT`, what the samples see of their row's prompts, have the shape of the view; `stops`
    are the stop tokens.
    """
    first_row, count = call
    v = view
    seen = jax.tree.map(
        lambda x: jax.lax.dynamic_slice_in_dim(x[..., : v.row_tokens, :], first_row, v.rows, -4), cache.prefix
    )
    mine = jax.tree.map(
        lambda x: jax.lax.dynamic_slice_in_dim(x[..., : v.slots, :, : v.columns, :], first_row, v.rows, -5),
        cache.branch,
    )
    seeds = jax.random.wrap_key_data(slots.seed, impl="threefry2x32").reshape(-1)
    keys = jax.vmap(jax.random.fold_in)(seeds, slots.index.reshape(-1))

    def step(state):
        at, slots, mine, out = state
        own = jnp.arange(v.columns) < slots.age[..., None]
        seen_by = decoder.DecodeCache(seen, mask_RJT, mine, own)
        hidden, new, _ = decoder.decode_step(config, params, slots.token, slots.position + slots.age, seen_by)
        mine = jax.tree.map(functools.partial(_append, slots.age), mine, new)
        drawn, top = _draw(config, params, view, hidden, keys, slots)
        values = Steps(drawn.token, drawn.log_prob, drawn.model_log_prob, *top)
        out = jax.tree.map(lambda whole, one: whole.at[at].set(one), out, values)
        age = slots.age + slots.busy
        stopped = (drawn.token[..., None] == stops).any(-1) & ~slots.ignore_stop
        busy = slots.busy & ~stopped & (age < slots.limit)
        token = jnp.where(slots.busy, drawn.token, slots.token)
        return at + 1, dataclasses.replace(slots, busy=busy, token=token, age=age), mine, out

    def unfinished(state):
        return (state[0] < count) & state[1].busy.any()

    shape, top = (STEPS, v.rows, v.slots), (STEPS, v.rows, v.slots, TOP if v.top else 0)
    ints, floats = (
        functools.partial(jnp.zeros, dtype=jnp.int32),
        functools.partial(jnp.zeros, dtype=jnp.float32),
    )
    out = Steps(ints(shape), floats(shape), floats(shape), ints(top), floats(top))
    slots = jax.tree.map(jnp.asarray, slots)
    _, slots, mine, out = jax.lax.while_loop(unfinished, step, (jnp.int32(0), slots, mine, out))
    branch = jax.tree.map(
        lambda whole, part: jax.lax.dynamic_update_slice(
            whole, part, (*[0] * (whole.ndim - 5), first_row, 0, 0, 0, 0)
        ),
        cache.branch,
        mine,
    )
    return dataclasses.replace(cache, branch=branch), slots, out


def _append(age_RJ, cache_RJNCK, new_RJNK):
    """The samples' cache with a new column, number `age` of each. Idle slots write where nobody reads."""
    R, J = age_RJ.shape
    at = cache_RJNCK.at[..., jnp.arange(R)[:, None], jnp.arange(J), :, age_RJ, :]
    return at.set(jnp.moveaxis(new_RJNK, (-4, -3), (0, 1)), mode="drop")


def _draw(config, params, view: View, hidden_RJD, keys, slots: Slots):
    """(one token per slot with its log-probs [R J], (most likely tokens, their log-probs))."""
    shape = slots.age.shape
    logits = log_probs_lib.logits_of(config, params, hidden_RJD)
    logits = logits.reshape(-1, logits.shape[-1])
    keys = jax.vmap(jax.random.fold_in)(keys, slots.age.reshape(-1))
    temperature, top_p, top_k, min_p = (
        x.reshape(-1, 1) for x in (slots.temperature, slots.top_p, slots.top_k, slots.min_p)
    )
    greedy = temperature[:, 0] == 0
    scores = logits / jnp.where(temperature == 0, 1, temperature)
    if view.restricted:
        scores = restrict_each(scores, top_p, top_k, min_p)
    token = jnp.where(
        greedy, jnp.argmax(logits, axis=-1).astype(jnp.int32), sampling_lib.draw_token(scores, keys)
    )
    log_prob = jnp.where(greedy, 0.0, sampling_lib.log_prob_of(scores, token))
    drawn = sampling_lib.Drawn(token, log_prob, sampling_lib.log_prob_of(logits, token))
    if view.top:
        values, tokens = jax.lax.top_k(logits, TOP)
        top = tokens.astype(jnp.int32), values - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    else:
        top = jnp.zeros((len(logits), 0), jnp.int32), jnp.zeros((len(logits), 0), jnp.float32)
    return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), (drawn, top))


def restrict_each(scores_BV, top_p_B1, top_k_B1, min_p_B1) -> jax.Array:
    """`sampling_lib.restrict` with settings of its own for every row."""
    V = scores_BV.shape[-1]
    ordered = jnp.sort(scores_BV, axis=-1)[:, ::-1]
    last = jnp.where(top_k_B1 > 0, jnp.minimum(top_k_B1, V), V) - 1
    smallest = jnp.take_along_axis(ordered, last, axis=-1)
    scores_BV, ordered = (jnp.where(x < smallest, -jnp.inf, x) for x in (scores_BV, ordered))
    # rounding may put the mass of the last tokens past 1, and a top_p of 1 leaves none out
    scores_BV = sampling_lib.nucleus(scores_BV, ordered, jnp.where(top_p_B1 < 1, top_p_B1, jnp.inf))
    smallest = ordered[:, :1] + jnp.log(min_p_B1)  # log 0 leaves nothing out
    return jnp.where(scores_BV < smallest, -jnp.inf, scores_BV)
