"""Prefill a forest once, then branch samples off it: decode loop, sampling, log-probs as sampled.

A row's prefix is prefilled one time and every sample of that row decodes against it, so G samples at each of
K turns of a trajectory cost one prefill of the trajectory. Samples queue for the decode slots of their row: a decode slot
whose sample has ended takes the next one in the same step (continuous batching), so one long completion
holds up one decode slot and not the batch. Keys are given per branch and folded with the token index: what a branch
draws depends on its key and its prompt, not on its decode slot or its neighbours.

Axis letters as in `model.py`; S counts the samples of a row, and J its decode slots.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pivotrl_jax.models import attention, decoder, routing, sharding
from pivotrl_jax.models import config as model_config
from pivotrl_jax.models import log_probs as log_probs_lib


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. `top_k` 0, `top_p` 1 and `min_p` 0 leave the distribution whole."""

    temperature: float  # 0: the most likely token
    top_p: float
    top_k: int
    min_p: float  # of the most likely token's probability
    max_tokens: int
    stop_ids: tuple[int, ...]

    @property
    def plain(self) -> bool:
        """Whether tokens are drawn from the model's own distribution."""
        return self.temperature == 1 and self.top_p >= 1 and not self.top_k and not self.min_p


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Samples:
    """Drawn completions. Slots from `length` on hold zeros."""

    tokens: jax.Array  # int32 [R S C]
    log_probs: jax.Array  # float32 [R S C], under the distribution drawn from
    model_log_probs: jax.Array  # float32 [R S C], under the model: temperature 1, nothing cut off
    length: jax.Array  # int32 [R S], stop token included
    finished: jax.Array  # bool [R S], a stop token was drawn; False: cut at max_tokens
    steps: jax.Array  # int32 scalar: decode steps it took
    # experts of a mixture's layers, where they are recorded; -1 for the last token, which nothing read
    experts: jax.Array | None = None  # routing.record_dtype [R S C L A]
    prefix_experts: jax.Array | None = None  # [R T L A], of the prompts


def restrict(scores: jax.Array, top_p: float, top_k: int, min_p: float) -> jax.Array:
    """Scores [..., V] with everything outside top-k, then the nucleus, then min-p, at -inf.

    The nucleus is the smallest set of most likely tokens whose mass reaches `top_p`; it always holds one
    token. `min_p` drops tokens less than that likely as the most likely one. The order is transformers'.
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
    if min_p:
        smallest = scores.max(-1, keepdims=True) + np.log(min_p)
        scores = jnp.where(scores < smallest, -jnp.inf, scores)
    return scores


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Drawn:
    """One token per branch, as `Samples` has them."""

    token: jax.Array
    log_prob: jax.Array
    model_log_prob: jax.Array


def draw(logits_BV: jax.Array, key_B: jax.Array, sampling: Sampling) -> Drawn:
    """One token per row and its log-probs. Under greedy, `log_prob` is 0 by definition."""

    def log_prob_of(scores, token):
        chosen = jnp.take_along_axis(scores, token[:, None], axis=-1)[:, 0]
        return chosen - jax.nn.logsumexp(scores, axis=-1)

    if sampling.temperature == 0:
        token = jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
        return Drawn(token, jnp.zeros(token.shape, jnp.float32), log_prob_of(logits_BV, token))
    scores = logits_BV / sampling.temperature
    scores = restrict(scores, sampling.top_p, sampling.top_k, sampling.min_p)
    noise = jax.vmap(lambda key: jax.random.gumbel(key, scores.shape[-1:], jnp.float32))(key_B)
    token = jnp.argmax(scores + noise, axis=-1).astype(jnp.int32)
    log_prob = log_prob_of(scores, token)
    return Drawn(token, log_prob, log_prob if sampling.plain else log_prob_of(logits_BV, token))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Lanes:
    """What decodes now."""

    sample: jax.Array  # int32 [R J]: index of the decode slot's sample in its row
    busy: jax.Array  # bool [R J]
    age: jax.Array  # int32 [R J]: tokens of the sample in the cache
    token: jax.Array  # int32 [R J]: the last one drawn, not yet in the cache


def sample(
    config: model_config.ModelConfig,
    sampling: Sampling,
    decode_slots: int,
    attention_chunk: int,
    params: decoder.Params,
    tokens_RT: jax.Array,
    position_RT: jax.Array,
    subtree_end_RT: jax.Array,
    branch_RS: jax.Array,
    key_RS: jax.Array,
    record_experts: bool = False,
) -> Samples:
    """Draw one completion from each branch point, `decode_slots` of a row at a time. `branch_RS` is the slot of the
    prompt's last token, -1 for none; a row's samples stand at its front.

    `key_RS` holds typed PRNG keys. The loop ends when every branch has stopped.
    """
    (R, S), C = branch_RS.shape, sampling.max_tokens
    J, N, K, L = min(decode_slots, S), config.num_kv_heads, config.head_dim, config.num_layers
    slot_RS = jnp.maximum(branch_RS, 0)
    wanted = routing.RouterOutputs(choices=record_experts)
    hidden_RTD, prefix, told = decoder.prefill(
        config, params, tokens_RT, position_RT, subtree_end_RT, attention_chunk, wanted
    )
    prefix = jax.tree.map(lambda x: sharding.constrain(x, "LRNTK"), prefix)
    position_RS = _of_row(position_RT, slot_RS)
    total_R = (branch_RS >= 0).sum(1)
    stops = jnp.asarray(sampling.stop_ids, jnp.int32)

    next_token = functools.partial(_next_token, config, sampling, params)

    def more(carry):
        return carry[1].busy.any() | (carry[2] < total_R).any()

    def step(carry):
        out, decode_slot, taken_R, own = carry
        # all decode slots write the same column, so that it is one slice: a sample's tokens stand in the `age`
        # columns before it, around the end, and keys do not mind their order
        column = out.steps % C
        behind = (column - 1 - jnp.arange(C)) % C
        own_mask = behind < decode_slot.age[..., None]
        prefix_mask = attention.visible(_of_row(slot_RS, decode_slot.sample), subtree_end_RT)
        position = _of_row(position_RS, decode_slot.sample) + 1 + decode_slot.age
        hidden, new, told = decoder.decode_step(
            config, params, decode_slot.token, position, prefix, prefix_mask, own, own_mask, wanted
        )
        if record_experts:
            at = jnp.where(decode_slot.busy, decode_slot.sample, S)  # past the end: dropped
            out = dataclasses.replace(
                out, experts=_put(out.experts, at, decode_slot.age, _choices(config, told))
            )
        own = jax.tree.map(lambda all, one: all.at[:, :, :, :, column].set(one), own, new)
        decode_slot = dataclasses.replace(decode_slot, age=decode_slot.age + 1)
        drawn = next_token(hidden, _of_row(key_RS, decode_slot.sample), decode_slot.age)
        out, decode_slot = _record(out, decode_slot, drawn, decode_slot.busy, stops)
        out = dataclasses.replace(out, steps=out.steps + 1)
        return *_refill(out, decode_slot, taken_R, total_R, first, stops), own

    first = _first_tokens(next_token, hidden_RTD, slot_RS, key_RS, J)
    idle = jnp.zeros((R, J), jnp.int32)
    nobody, none_R = _Lanes(idle, idle > 0, idle, idle), jnp.zeros_like(total_R)
    nothing = _no_samples(R, S, C, _choices(config, told) if record_experts else None)
    out, decode_slot, taken_R = _refill(nothing, nobody, none_R, total_R, first, stops)
    own = tuple(sharding.constrain(jnp.zeros((L, R, J, N, C, K), config.dtype), "LRSNCK") for _ in range(2))
    return jax.lax.while_loop(more, step, (out, decode_slot, taken_R, own))[0]


def _next_token(config, sampling: Sampling, params, hidden_RXD, key_RX, index_RX) -> Drawn:
    """[R X]: token number `index` of every sample, after those hidden states."""
    logits = log_probs_lib.logits_of(config, params, hidden_RXD)
    keys = jax.vmap(jax.random.fold_in)(key_RX.reshape(-1), index_RX.reshape(-1))
    drawn = draw(logits.reshape(-1, logits.shape[-1]), keys, sampling)
    return jax.tree.map(lambda x: x.reshape(index_RX.shape), drawn)


def _first_tokens(next_token, hidden_RTD, slot_RS, key_RS, decode_slots: int) -> Drawn:
    """[R S]: every sample's first token, whose hidden state the prefill has; so many at a time."""
    R, S = slot_RS.shape

    def some(first):
        at = jnp.minimum(first + jnp.arange(decode_slots), S - 1)
        slot = slot_RS[:, at]
        return next_token(_of_row(hidden_RTD, slot), key_RS[:, at], jnp.zeros_like(slot))

    drawn = jax.lax.map(some, jnp.arange(0, S, decode_slots))
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(R, -1)[:, :S], drawn)


def _no_samples(R: int, S: int, C: int, prefix_experts: jax.Array | None) -> Samples:
    """Nothing drawn yet."""
    tokens, floats = jnp.zeros((R, S, C), jnp.int32), jnp.zeros((R, S, C), jnp.float32)
    counts, experts = jnp.zeros((R, S), jnp.int32), None
    if prefix_experts is not None:
        experts = jnp.full((R, S, C, *prefix_experts.shape[2:]), -1, prefix_experts.dtype)
    return Samples(tokens, floats, floats, counts, counts > 0, jnp.int32(0), experts, prefix_experts)


def _choices(config, seen: routing.Seen) -> jax.Array:
    """[R, X, L, A], as they are recorded."""
    return jnp.moveaxis(seen["choices"], 0, 2).astype(routing.record_dtype(config.num_experts))


def _put(out_RSC, at_RJ, age_RJ, values_RJ):
    """`out` with the values of every decode slot at its sample and age; dropped where that is past the end."""
    return jax.vmap(lambda o, s, c, v: o.at[s, c].set(v, mode="drop"))(out_RSC, at_RJ, age_RJ, values_RJ)


def _record(out: Samples, decode_slot: _Lanes, drawn: Drawn, where, stops) -> tuple[Samples, _Lanes]:
    """`drawn` becomes token number `age` of the samples of the decode slots in `where`; ended ones fall idle."""
    S, C = out.tokens.shape[1:]
    at = jnp.where(where, decode_slot.sample, S)  # past the end: dropped

    def note(out_RS, values):
        return jax.vmap(lambda o, s, v: o.at[s].set(v, mode="drop"))(out_RS, at, values)

    stopped = where & (drawn.token[..., None] == stops).any(-1)
    full = where & (decode_slot.age + 1 == C)
    out = dataclasses.replace(
        out,
        tokens=_put(out.tokens, at, decode_slot.age, drawn.token),
        log_probs=_put(out.log_probs, at, decode_slot.age, drawn.log_prob),
        model_log_probs=_put(out.model_log_probs, at, decode_slot.age, drawn.model_log_prob),
        length=note(out.length, decode_slot.age + 1),
        finished=note(out.finished, stopped),
    )
    token = jnp.where(where, drawn.token, decode_slot.token)
    return out, dataclasses.replace(decode_slot, token=token, busy=decode_slot.busy & ~stopped & ~full)


def _refill(out: Samples, decode_slot: _Lanes, taken_R, total_R, first: Drawn, stops):
    """Idle decode slots take the next of their row's `total_R` samples, whose `first` tokens [R S] are drawn
    already. Returns `out`, the decode slots and how many samples are taken now."""
    sample = taken_R[:, None] + jnp.cumsum(~decode_slot.busy, axis=1) - 1
    fresh = ~decode_slot.busy & (sample < total_R[:, None])
    decode_slot = _Lanes(
        jnp.where(fresh, sample, decode_slot.sample),
        decode_slot.busy | fresh,
        jnp.where(fresh, 0, decode_slot.age),
        decode_slot.token,
    )
    drawn = jax.tree.map(lambda x: _of_row(x, decode_slot.sample), first)
    out, decode_slot = _record(out, decode_slot, drawn, fresh, stops)
    return out, decode_slot, taken_R + fresh.sum(1)


def _of_row(x, index_RX):
    """x [R, Y, ...] at the indices [R, X] of its own row."""
    return jax.vmap(lambda row, at: row[at])(x, index_RX)


class Sampler:
    """The compiled `sample` of one model on one mesh; one program per shape of its inputs."""

    def __init__(
        self,
        config: model_config.ModelConfig,
        sampling: Sampling,
        decode_slots: int,
        attention_chunk: int,
        mesh: Mesh,
        record_experts: bool = False,
    ):
        self.sampling, self._mesh, self._dtype = sampling, mesh, config.dtype
        self.row_sharding = NamedSharding(mesh, sharding.BATCH)
        self.places = sharding.param_shardings(decoder.abstract_params(config), mesh, sharding.SAMPLER)

        def run(params, tokens, position, subtree_end, branch, stream, numbers):
            keys = jax.vmap(jax.vmap(lambda n: fold_all(stream, n)))(numbers)
            rows = (tokens, position, subtree_end, branch, keys)
            return sample(config, sampling, decode_slots, attention_chunk, params, *rows, record_experts)

        run.__name__ = "sample"  # as profiles and logs show it

        # whole on every device: each process reads all of them
        self.run = jax.jit(run, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def place(self, params: decoder.Params) -> decoder.Params:
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
        self,
        params: decoder.Params,
        forest,
        branch_RS: np.ndarray,
        stream: jax.Array,
        numbers_RSX: np.ndarray,
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
