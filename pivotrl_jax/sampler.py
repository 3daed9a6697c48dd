"""Prefill a forest once, then branch samples off it: decode loop, sampling, log-probs as sampled.

A row's trunk is prefilled one time and every sample of that row decodes against it, so G samples at each of
K turns of a trajectory cost one prefill of the trajectory. Keys are given per branch and folded with the
token index: what a branch draws depends on its key and its prompt, not on its neighbours.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pivotrl_jax import attention, model, sharding


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. `top_k` 0 and `top_p` 1 leave the distribution whole."""

    temperature: float  # 0: the most likely token
    top_p: float
    top_k: int
    max_tokens: int
    stop_ids: tuple[int, ...]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Samples:
    """Drawn completions. Slots from `length` on hold zeros."""

    tokens: jax.Array  # int32 [R S C]
    log_probs: jax.Array  # float32 [R S C], under the distribution drawn from
    length: jax.Array  # int32 [R S], stop token included
    finished: jax.Array  # bool [R S], a stop token was drawn; False: cut at max_tokens


def restrict(scores: jax.Array, top_p: float, top_k: int) -> jax.Array:
    """Scores [..., V] with everything outside top-k, then outside the nucleus, at -inf.

    The nucleus is the smallest set of most likely tokens whose mass reaches `top_p`; it always holds one
    token.
    """
    if top_k:
        smallest = jax.lax.top_k(scores, min(top_k, scores.shape[-1]))[0][..., -1:]
        scores = jnp.where(scores < smallest, -jnp.inf, scores)
    if top_p < 1:
        ordered = jnp.sort(scores, axis=-1)[..., ::-1]
        probs = jax.nn.softmax(ordered, axis=-1)
        inside = jnp.cumsum(probs, axis=-1) - probs < top_p
        smallest = jnp.min(jnp.where(inside, ordered, jnp.inf), axis=-1, keepdims=True)
        scores = jnp.where(scores < smallest, -jnp.inf, scores)
    return scores


def draw(logits_BV: jax.Array, key_B: jax.Array, sampling: Sampling) -> tuple[jax.Array, jax.Array]:
    """One token per row and its log-prob under the distribution drawn from. Greedy has log-prob 0 by
    definition."""
    if sampling.temperature == 0:
        token = jnp.argmax(logits_BV, axis=-1)
        return token.astype(jnp.int32), jnp.zeros(token.shape, jnp.float32)
    scores = restrict(logits_BV / sampling.temperature, sampling.top_p, sampling.top_k)
    noise = jax.vmap(lambda key: jax.random.gumbel(key, scores.shape[-1:], jnp.float32))(key_B)
    token = jnp.argmax(scores + noise, axis=-1)
    chosen = jnp.take_along_axis(scores, token[:, None], axis=-1)[:, 0]
    return token.astype(jnp.int32), chosen - jax.nn.logsumexp(scores, axis=-1)


def sample(
    config: model.ModelConfig,
    sampling: Sampling,
    attention_chunk: int,
    params: model.Params,
    tokens_RT: jax.Array,
    position_RT: jax.Array,
    subtree_end_RT: jax.Array,
    branch_RS: jax.Array,
    key_RS: jax.Array,
) -> Samples:
    """Draw one completion from each branch point. `branch_RS` is the slot of the prompt's last token, -1 for
    none.

    `key_RS` holds typed PRNG keys. The loop ends when every branch has stopped.
    """
    (R, S), C = branch_RS.shape, sampling.max_tokens
    N, K, L = config.num_kv_heads, config.head_dim, config.num_layers
    slot_RS = jnp.maximum(branch_RS, 0)
    hidden_RTD, trunk = model.prefill(config, params, tokens_RT, position_RT, subtree_end_RT, attention_chunk)
    trunk = jax.tree.map(lambda x: sharding.constrain(x, "LRNTK"), trunk)
    mask_RST = attention.visible(slot_RS, subtree_end_RT)
    position_RS = jnp.take_along_axis(position_RT, slot_RS, axis=1)
    stops = jnp.asarray(sampling.stop_ids, jnp.int32)

    def next_token(hidden_RSD, i):
        logits = model.logits_of(config, params, hidden_RSD).reshape(R * S, -1)
        keys = jax.vmap(jax.random.fold_in, (0, None))(key_RS.reshape(-1), i)
        token, log_prob = draw(logits, keys, sampling)
        return token.reshape(R, S), log_prob.reshape(R, S)

    def record(i, out, running, token, log_prob):
        tokens, log_probs, length, finished = out
        tokens = tokens.at[:, :, i].set(jnp.where(running, token, 0))
        log_probs = log_probs.at[:, :, i].set(jnp.where(running, log_prob, 0.0))
        stopped = running & (token[..., None] == stops).any(-1)
        return (tokens, log_probs, length + running, finished | stopped), running & ~stopped

    def more(carry):
        i, running = carry[0], carry[1]
        return (i < C) & running.any()

    def step(carry):
        i, running, token, out, own = carry
        # token i-1 goes in, token i comes out
        hidden, new = model.decode_step(config, params, token, position_RS + i, trunk, mask_RST, own, i - 1)
        own = jax.tree.map(lambda all, one: all.at[:, :, :, :, i - 1].set(one), own, new)
        token, log_prob = next_token(hidden, i)
        out, running = record(i, out, running, token, log_prob)
        return i + 1, running, token, out, own

    branch_hidden = jnp.take_along_axis(hidden_RTD, slot_RS[..., None], axis=1)
    token, log_prob = next_token(branch_hidden, 0)
    zeros = jnp.zeros((R, S), jnp.int32)
    out = (jnp.zeros((R, S, C), jnp.int32), jnp.zeros((R, S, C), jnp.float32), zeros, zeros > 0)
    out, running = record(0, out, branch_RS >= 0, token, log_prob)
    own = tuple(sharding.constrain(jnp.zeros((L, R, S, N, C, K), config.dtype), "LRSNCK") for _ in range(2))
    carry = jax.lax.while_loop(more, step, (jnp.int32(1), running, token, out, own))
    return Samples(*carry[3])


class Sampler:
    """The compiled `sample` of one model on one mesh; one program per shape of its inputs."""

    def __init__(self, config: model.ModelConfig, sampling: Sampling, attention_chunk: int, mesh: Mesh):
        self.sampling, self._mesh, self._dtype = sampling, mesh, config.dtype
        self.row_sharding = NamedSharding(mesh, sharding.BATCH)
        self.places = sharding.param_shardings(model.abstract_params(config), mesh, sharding.SAMPLER)

        def run(params, tokens, position, subtree_end, branch, stream, numbers):
            keys = jax.vmap(jax.vmap(lambda n: fold_all(stream, n)))(numbers)
            return sample(
                config, sampling, attention_chunk, params, tokens, position, subtree_end, branch, keys
            )

        # whole on every device: each process reads all of them
        self.run = jax.jit(run, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def place(self, params: model.Params) -> model.Params:
        """Parameters as decoding reads them: in the compute dtype, not split over `fsdp`. Once per batch of
        rollouts; a decode step would otherwise convert and gather them for every token. Leaves that lie so
        already are shared, not copied: let go of the result before the parameters are donated."""

        def moved(path, x, place):
            # routers keep their precision: rounded, they flip near-ties
            dtype = x.dtype if path[-1].key == "router" else self._dtype
            placed = isinstance(x, jax.Array) and x.sharding.is_equivalent_to(place, x.ndim)
            if placed and x.dtype == dtype:
                return x
            return _move(x, dtype, place)

        return jax.tree.map_with_path(moved, params, self.places)

    def __call__(
        self, params: model.Params, forest, branch_RS: np.ndarray, stream: jax.Array, numbers_RSX: np.ndarray
    ) -> Samples:
        """Sample every branch of a packed forest, as numpy. Branch keys are `stream` folded with `numbers`
        in turn. `params` as `place` returns them."""
        rows = (forest.tokens, forest.position, forest.subtree_end, branch_RS)
        rows = [sharding.put(x, self.row_sharding) for x in rows]
        with jax.set_mesh(self._mesh):
            drawn = self.run(params, *rows, stream, sharding.put(numbers_RSX, self.row_sharding))
        return jax.tree.map(np.asarray, jax.device_get(drawn))


@functools.partial(jax.jit, static_argnums=(1, 2))
def _move(x, dtype, place):
    return jax.lax.with_sharding_constraint(x.astype(dtype), place)


def fold_all(key: jax.Array, numbers: jax.Array) -> jax.Array:
    """fold_in of every number, in order: (candidate, sample) and the like."""
    for i in range(numbers.shape[0]):
        key = jax.random.fold_in(key, numbers[i])
    return key
