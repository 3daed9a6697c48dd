"""The compiled decode loop: prefill a forest once, then sample completions that branch off it.

A row's prefix is prefilled once and every sample of that row decodes against it, so G samples at each of K
turns of a trajectory cost one prefill of the trajectory. Samples queue for the decode slots of their row: a
slot whose sample has ended takes the next one in the same step (continuous batching), so one long completion
occupies one slot and does not hold up the batch. Each sample has a PRNG key, which is folded with the token
index: its tokens depend on its key and its prompt, not on its decode slot or on other samples.

On a CPU a step costs as much as it has slots, idle ones too, and half of the steps of a batch are for its few
longest samples. So the last samples of a batch move to fewer slots (`_narrowed`).

Axis letters as in `decoder.py`; S counts the samples of a row, and J its decode slots.
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
from pivotrl_jax.rollouts.sampling import Drawn, Sampling, draw


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Samples:
    """The completions. Columns from `length` on hold zeros."""

    tokens: jax.Array  # int32 [R S C]
    log_probs: jax.Array  # float32 [R S C], under the distribution sampled from
    model_log_probs: jax.Array  # float32 [R S C], under the model: temperature 1, not truncated
    length: jax.Array  # int32 [R S], stop token included
    finished: jax.Array  # bool [R S]: a stop token was sampled; False: cut at max_tokens
    steps: jax.Array  # int32 scalar: number of decode steps
    # experts chosen in a mixture's layers, if recorded; -1 for the last token, which is not fed to the model
    experts: jax.Array | None = None  # routing.record_dtype [R S C L A]
    prefix_experts: jax.Array | None = None  # [R T L A], for the prompts


@dataclasses.dataclass(frozen=True)
class Decoding:
    """The settings that a program of `sample` is compiled for."""

    config: model_config.ModelConfig
    sampling: Sampling
    decode_slots: int  # per row
    attention_chunk: int
    record_experts: bool
    by_layer: bool  # decode with `decoder.by_layer`: on a CPU
    narrow: bool  # end a batch with a quarter of its decode slots: on a CPU, where rows are not divided


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _DecodeSlots:
    """State of the decode slots: which sample each one is generating, and how far it is."""

    sample: jax.Array  # int32 [R J]: index of the sample in its row
    busy: jax.Array  # bool [R J]
    age: jax.Array  # int32 [R J]: tokens of the sample in the cache
    token: jax.Array  # int32 [R J]: the last one sampled, not yet in the cache


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _State:
    """What the decode loop carries from step to step."""

    out: Samples
    slots: _DecodeSlots
    taken: jax.Array  # int32, by the batch's rows: samples that have been given a decode slot so far
    cache: tuple | list  # keys and values [L R J N C K] of the samples in the decode slots, or by layer


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Prompts:
    """The result of the prefill, which the decode loop only reads."""

    branch: jax.Array  # int32 [R S]: slot of the prompt's last token
    position: jax.Array  # int32 [R S]: position of that token
    key: jax.Array  # typed keys [R S]
    total: jax.Array  # int32 [R]: samples to draw
    row: jax.Array | None  # int32 [R]: the row of the batch, where several share one; None: all differ
    subtree_end: jax.Array  # int32 [R T]
    prefix: tuple | list  # keys and values [L R N T K], or by layer
    stops: jax.Array  # int32 [stop tokens]


def sample(
    decoding: Decoding,
    params: decoder.Params,
    rows: decoder.Rows,
    branch_RS: jax.Array,
    key_RS: jax.Array,
) -> Samples:
    """Sample one completion from each branch point.

    `branch_RS` holds the slot of the prompt's last token, or -1 where there is no sample; in each row, the
    samples come first. `key_RS` holds typed PRNG keys.

    It ends when every sample has stopped or has `max_tokens` tokens.
    """
    c, (R, S), C = decoding.config, branch_RS.shape, decoding.sampling.max_tokens
    J = min(decoding.decode_slots, S)
    slot_RS = jnp.maximum(branch_RS, 0)
    hidden_RTD, prefix, stats = decoder.prefill(
        c, params, rows, decoding.attention_chunk, _router_outputs(decoding)
    )
    prefix = jax.tree.map(lambda x: sharding.constrain(x, "LRNTK"), prefix)
    prompts = _Prompts(
        branch=slot_RS,
        prefix=_unstacked(prefix) if decoding.by_layer else prefix,
        position=_of_row(rows.position, slot_RS),
        key=key_RS,
        total=(branch_RS >= 0).sum(1),
        row=None,
        subtree_end=rows.subtree_end,
        stops=jnp.asarray(decoding.sampling.stop_ids, jnp.int32),
    )
    first = _first_tokens(decoding, params, hidden_RTD, prompts, J)
    idle = jnp.zeros((R, J), jnp.int32)
    slots, taken_R = _DecodeSlots(idle, idle > 0, idle, idle), jnp.zeros_like(prompts.total)
    out = _no_samples(R, S, C, _choices(c, stats) if decoding.record_experts else None)
    out, slots, taken_R = _refill(out, slots, taken_R, prompts, first)
    shape = (c.num_layers, R, J, c.num_kv_heads, C, c.head_dim)
    if decoding.by_layer:
        params = decoder.by_layer(c, params)
        cache = [
            tuple(sharding.constrain(jnp.zeros(shape[1:], c.dtype), "RSNCK") for _ in range(2))
            for _ in range(c.num_layers)
        ]
    else:
        cache = tuple(sharding.constrain(jnp.zeros(shape, c.dtype), "LRSNCK") for _ in range(2))

    state = _State(out, slots, taken_R, cache)
    width = R * J // 4 if decoding.narrow else 0
    if not width:
        return _decoded(decoding, params, prompts, first, state, 0).out
    state = _decoded(decoding, params, prompts, first, state, width)
    prompts, first, last = _narrowed(prompts, first, state, width)
    last = _decoded(decoding, params, prompts, first, last, 0)
    return _joined(state.out, last.out, prompts.row)


def _needed(prompts: _Prompts, state: _State) -> jax.Array:
    """Which decode slots [R J] are busy, or have samples of their row waiting."""
    taken = state.taken if prompts.row is None else state.taken[prompts.row]
    return state.slots.busy | (taken < prompts.total)[:, None]


def _decoded(decoding: Decoding, params, prompts: _Prompts, first: Drawn, state: _State, left: int) -> _State:
    """The state after as many steps as it takes until no more than `left` decode slots are needed."""

    step = functools.partial(_step, decoding, params, prompts, first)
    return jax.lax.while_loop(lambda state: _needed(prompts, state).sum() > left, step, state)


def _narrowed(prompts: _Prompts, first: Drawn, state: _State, width: int) -> tuple[_Prompts, Drawn, _State]:
    """The batch with `width` rows of one decode slot in place of its decode slots, by layer; the needed ones
    are among them. Its samples are what they were before the first token."""
    (R, J), (_, S, C) = state.slots.busy.shape, state.out.tokens.shape
    chosen = jnp.argsort(~_needed(prompts, state).reshape(-1), stable=True)[:width]
    row = chosen // J

    def of_row(tree):
        return jax.tree.map(lambda x: x[row], tree)

    def of_slot(tree):
        return jax.tree.map(lambda x: x.reshape(R * J, *x.shape[2:])[chosen][:, None], tree)

    stops = prompts.stops
    prompts = dataclasses.replace(of_row(dataclasses.replace(prompts, stops=row)), stops=stops, row=row)
    out = dataclasses.replace(_no_samples(width, S, C, state.out.prefix_experts), steps=state.out.steps)
    return prompts, of_row(first), _State(out, of_slot(state.slots), state.taken, of_slot(state.cache))


def _joined(out: Samples, last: Samples, row_X) -> Samples:
    """`out` with what its rows `row_X` have been given since, of which every number was less before."""
    grown = {
        name: jax.tree.map(lambda x, more: x.at[row_X].max(more), getattr(out, name), getattr(last, name))
        for name in ("tokens", "length", "finished", "experts")
    }
    for name in ("log_probs", "model_log_probs"):
        grown[name] = getattr(out, name).at[row_X].add(getattr(last, name))
    return dataclasses.replace(out, steps=last.steps, **grown)


def _unstacked(pair: tuple[jax.Array, jax.Array]) -> list[tuple[jax.Array, jax.Array]]:
    """Pairs of arrays without their first axis."""
    return [(keys, values) for keys, values in zip(*pair)]


def _router_outputs(decoding: Decoding) -> routing.RouterOutputs:
    return routing.RouterOutputs(choices=decoding.record_experts)


def _step(decoding: Decoding, params: decoder.Params, prompts: _Prompts, first: Drawn, state: _State):
    """One token for every decode slot. Slots whose sample has ended take the next sample of their row."""
    out, slots = state.out, state.slots
    S, C = out.tokens.shape[1:]
    # All decode slots write to the same column, so that the write is one slice. A sample's tokens are in the
    # `age` columns before it, wrapped around the end: attention does not depend on the order of keys.
    column = out.steps % C
    behind = (column - 1 - jnp.arange(C)) % C
    branch_mask = behind < slots.age[..., None]
    prefix_mask = attention.visible(_of_row(prompts.branch, slots.sample), prompts.subtree_end)
    position = _of_row(prompts.position, slots.sample) + 1 + slots.age
    cache = decoder.DecodeCache(prompts.prefix, prefix_mask, state.cache, branch_mask)
    hidden, new_column, stats = decoder.decode_step(
        decoding.config, params, slots.token, position, cache, _router_outputs(decoding)
    )
    if decoding.record_experts:
        at = jnp.where(slots.busy, slots.sample, S)  # past the end: dropped
        experts = _put(out.experts, at, slots.age, _choices(decoding.config, stats))
        out = dataclasses.replace(out, experts=experts)
    new_cache = jax.tree.map(lambda all, one: all.at[..., column, :].set(one), state.cache, new_column)
    slots = dataclasses.replace(slots, age=slots.age + 1)
    draws = _next_token(decoding, params, hidden, _of_row(prompts.key, slots.sample), slots.age)
    out, slots = _record(out, slots, draws, slots.busy, prompts.stops)
    out = dataclasses.replace(out, steps=out.steps + 1)
    return _State(*_refill(out, slots, state.taken, prompts, first), new_cache)


def _next_token(decoding: Decoding, params, hidden_RXD, key_RX, index_RX) -> Drawn:
    """Token number `index` of every sample [R X], sampled from its hidden state."""
    logits = log_probs_lib.logits_of(decoding.config, params, hidden_RXD)
    keys = jax.vmap(jax.random.fold_in)(key_RX.reshape(-1), index_RX.reshape(-1))
    draws = draw(logits.reshape(-1, logits.shape[-1]), keys, decoding.sampling)
    return jax.tree.map(lambda x: x.reshape(index_RX.shape), draws)


def _first_tokens(decoding: Decoding, params, hidden_RTD, prompts: _Prompts, chunk: int) -> Drawn:
    """Every sample's first token [R S], from the prefill's hidden states; `chunk` per row at a time."""
    R, S = prompts.branch.shape

    def some(first):
        at = jnp.minimum(first + jnp.arange(chunk), S - 1)
        slot = prompts.branch[:, at]
        hidden = _of_row(hidden_RTD, slot)
        return _next_token(decoding, params, hidden, prompts.key[:, at], jnp.zeros_like(slot))

    draws = jax.lax.map(some, jnp.arange(0, S, chunk))
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(R, -1)[:, :S], draws)


def _no_samples(R: int, S: int, C: int, prefix_experts: jax.Array | None) -> Samples:
    """The `Samples` before any token is sampled."""
    tokens, floats = jnp.zeros((R, S, C), jnp.int32), jnp.zeros((R, S, C), jnp.float32)
    counts, experts = jnp.zeros((R, S), jnp.int32), None
    if prefix_experts is not None:
        experts = jnp.full((R, S, C, *prefix_experts.shape[2:]), -1, prefix_experts.dtype)
    return Samples(tokens, floats, floats, counts, counts > 0, jnp.int32(0), experts, prefix_experts)


def _choices(config, stats: routing.RouterStats) -> jax.Array:
    """The chosen experts [R, X, L, A], in the dtype in which they are recorded."""
    return jnp.moveaxis(stats["choices"], 0, 2).astype(routing.record_dtype(config.num_experts))


def _put(out_RSC, at_RJ, age_RJ, values_RJ):
    """`out` with every decode slot's value written at its sample and age; dropped if that is past the end."""
    return jax.vmap(lambda o, s, c, v: o.at[s, c].set(v, mode="drop"))(out_RSC, at_RJ, age_RJ, values_RJ)


def _record(out: Samples, slots: _DecodeSlots, draws: Drawn, where, stops) -> tuple[Samples, _DecodeSlots]:
    """Append `drawn` to the samples of the decode slots in `where`. Slots whose sample ends become idle."""
    S, C = out.tokens.shape[1:]
    at = jnp.where(where, slots.sample, S)  # past the end: dropped

    def note(out_RS, values):
        return jax.vmap(lambda o, s, v: o.at[s].set(v, mode="drop"))(out_RS, at, values)

    stopped = where & (draws.token[..., None] == stops).any(-1)
    full = where & (slots.age + 1 == C)
    out = dataclasses.replace(
        out,
        tokens=_put(out.tokens, at, slots.age, draws.token),
        log_probs=_put(out.log_probs, at, slots.age, draws.log_prob),
        model_log_probs=_put(out.model_log_probs, at, slots.age, draws.model_log_prob),
        length=note(out.length, slots.age + 1),
        finished=note(out.finished, stopped),
    )
    token = jnp.where(where, draws.token, slots.token)
    return out, dataclasses.replace(slots, token=token, busy=slots.busy & ~stopped & ~full)


def _refill(out: Samples, slots: _DecodeSlots, taken, prompts: _Prompts, first: Drawn):
    """Give idle decode slots the next samples of their row, and record those samples' `first` tokens [R S].
    Returns the samples, the decode slots and the new `taken`."""
    idle, row = ~slots.busy, prompts.row
    if row is None:
        sample = taken[:, None] + jnp.cumsum(idle, axis=1) - 1
    else:  # one decode slot each: those before it that share its row come first
        before = jnp.tril(row[:, None] == row, -1) & idle[:, 0]
        sample = (taken[row] + before.sum(1))[:, None]
    fresh = idle & (sample < prompts.total[:, None])
    slots = _DecodeSlots(
        jnp.where(fresh, sample, slots.sample),
        slots.busy | fresh,
        jnp.where(fresh, 0, slots.age),
        slots.token,
    )
    draws = jax.tree.map(lambda x: _of_row(x, slots.sample), first)
    out, slots = _record(out, slots, draws, fresh, prompts.stops)
    return out, slots, taken + fresh.sum(1) if row is None else taken.at[row].add(fresh.sum(1))


def _of_row(x, index_RX):
    """x [R, Y, ...] indexed by [R, X], row by row."""
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
        by_layer: bool | None = None,
    ):
        """`by_layer`: decode with `decoder.by_layer`; None: on a CPU."""
        self.sampling, self._mesh, self._dtype = sampling, mesh, config.dtype
        self.row_sharding = NamedSharding(mesh, sharding.BATCH)
        self.places = sharding.param_shardings(decoder.abstract_params(config), mesh, sharding.SAMPLER)

        if by_layer is None:
            by_layer = mesh.devices.flat[0].platform == "cpu"
        narrow = by_layer and sharding.row_shards(mesh) == 1
        decoding = Decoding(config, sampling, decode_slots, attention_chunk, record_experts, by_layer, narrow)

        def run(params, tokens, position, subtree_end, branch, stream, numbers):
            keys = jax.vmap(jax.vmap(lambda n: fold_all(stream, n)))(numbers)
            return sample(decoding, params, decoder.Rows(tokens, position, subtree_end), branch, keys)

        run.__name__ = "sample"  # the name in profiles and logs

        # samples are whole on every device, because every process reads all of them
        self.run = jax.jit(run, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def place(self, params: decoder.Params) -> decoder.Params:
        """Parameters as decoding reads them: in the compute dtype, not split over `fsdp`.

        Call it once per batch of rollouts; otherwise each decode step would convert and gather them. Leaves
        that need no change are shared, not copied: drop the result before the parameters are donated.
        """

        def moved(path, x, place):
            # Routers keep their precision: rounding would flip near-ties. So do the B of adapters, which are
            # rounded after they are scaled, as in the learner: once.
            kept = path[-1].key == "router" or path[-1].key.endswith("_lora_b")
            dtype = x.dtype if kept else self._dtype
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
        """Sample from every branch point of a packed forest; the result holds numpy arrays.

        A sample's PRNG key is `stream` folded with its `numbers` in order. `params` are as `place` returns
        them.
        """
        rows = (forest.tokens, forest.position, forest.subtree_end, branch_RS)
        rows = [sharding.put(x, self.row_sharding) for x in rows]
        with jax.set_mesh(self._mesh):
            samples = self.run(params, *rows, stream, sharding.put(numbers_RSX, self.row_sharding))
        return jax.tree.map(np.asarray, jax.device_get(samples))


@functools.partial(jax.jit, static_argnums=(1, 2))
def _move(x, dtype, place):
    return jax.lax.with_sharding_constraint(x.astype(dtype), place)


def fold_all(key: jax.Array, numbers: jax.Array) -> jax.Array:
    """`key` folded with every number in order, for example (candidate, sample)."""
    for i in range(numbers.shape[0]):
        key = jax.random.fold_in(key, numbers[i])
    return key
