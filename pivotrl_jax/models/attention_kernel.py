"""Attention over a forest as Pallas kernels: what `attention.forest_attention` runs on TPUs.

This is flash attention (Dao 2023, arXiv 2307.08691, algorithms 1 and 2): a running maximum, sum and output;
one log-sum-exp per query is stored, and the backward pass recomputes scores. A row is cut into blocks of B
slots, and a pair of blocks is visited only when a query of one may see a key of the other. Causality rules
out half of the pairs, subtrees that have ended rule out more. The visits of a row are listed before the
kernel starts, and the innermost axis of its grid runs along this list, so a skipped pair costs no arithmetic
and no copy from memory.

Scores are laid out as [keys, queries]. Sums and maxima over keys then combine whole registers (along lanes
they would need shuffles), and per-query numbers lie along lanes. The query heads that share a key head are
processed one after another while its block of keys stays in memory.
"""

import dataclasses
import functools
import math
import os
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

_MASKED = -1e30  # finite, so that a query without any visible key (padding) stays free of NaN
# Largest block of queries in bytes: VMEM also holds its gradients (everything twice) and its scores.
_QUERY_BYTES = 2**20
_MOST_VISITS = 2**17  # in all rows together: each takes 4 bytes of the 1 MiB of scalar memory


def usable(q_RTHK: jax.Array, k_RTNK: jax.Array) -> bool:
    """Whether the kernels support arrays of these shapes and dtypes.

    They need bfloat16 or float32, K a multiple of 64 and T at least 128. A block of 128 slots must fit VMEM
    (at most 32 query heads per key head, for K 128 in bfloat16), and the lists of visits must fit scalar
    memory (at most 63 rows of 32k slots, in blocks of 512). The environment variable PIVOTRL_ATTENTION=loop
    turns the kernels off.
    """
    R, T, _, K = q_RTHK.shape
    if os.environ.get("PIVOTRL_ATTENTION") == "loop":
        return False
    if q_RTHK.dtype not in (jnp.bfloat16, jnp.float32) or K % 64 or T < 128:
        return False
    B = block_size(q_RTHK, k_RTNK)
    return B > 0 and R * _longest(-(-T // B)) <= _MOST_VISITS


def block_size(q_RTHK: jax.Array, k_RTNK: jax.Array) -> int:
    """B: the largest of 512, 256 and 128 that fits VMEM and pads a row by at most an eighth. If all that fit
    pad more, the smallest; if none fits, 0."""
    _, T, H, K = q_RTHK.shape
    slot_bytes = H // k_RTNK.shape[2] * K * q_RTHK.dtype.itemsize
    sizes = [B for B in (512, 256, 128) if B * slot_bytes <= _QUERY_BYTES]
    return next((B for B in sizes if -T % B <= T // 8), sizes[-1] if sizes else 0)


def _longest(blocks: int) -> int:
    """How many pairs of blocks causality allows."""
    return blocks * (blocks + 1) // 2


def visits(end_RT: jax.Array, B: int, by_keys: bool) -> jax.Array:
    """int32 [R, V]: the pairs of blocks to visit, where V = T/B (T/B + 1) / 2; shorter lists repeat their
    last pair.

    A pair is `owner << 16 | other`. The owner is the block to which the output belongs: a block of queries,
    paired with blocks of keys, or (`by_keys`) the reverse. Owners ascend. The pairs of an owner are adjacent,
    and the last one pairs it with itself.
    """
    blocks = end_RT.shape[1] // B
    query, key = jnp.arange(blocks)[:, None], jnp.arange(blocks)
    end = end_RT.reshape(-1, 1, blocks, B).max(-1)
    # every block is paired with itself, even a block of padding, so that all of the output is written
    meets = (key == query) | (key < query) & (query * B < end)
    # sorting these numbers gives the order of visits; with `by_keys`, queries count down to their key
    pair, last = (key << 16 | blocks - query, 1) if by_keys else (query << 16 | key, blocks - 1)
    pair = jnp.where(meets, pair, jnp.iinfo(jnp.int32).max).reshape(len(end), -1)
    pair = jnp.minimum(jnp.sort(pair)[:, : _longest(blocks)], (blocks - 1) << 16 | last)
    pair = pair & ~0xFFFF | blocks - (pair & 0xFFFF) if by_keys else pair
    return pair.astype(jnp.int32)


def forward(q_RTHK, k_RTNK, v_RTNK, end_RT, interpret: bool = False) -> tuple[jax.Array, jax.Array]:
    """(output [R, T, H, K] in the dtype of q, log-sum-exps float32 [R, H, T]). `q` must be scaled already.
    The log-sum-exp of a slot that sees nothing is 1e30, so that exp(score - 1e30) is 0."""
    inputs = [("GBK", q_RTHK), ("BK", k_RTNK), ("KB", v_RTNK)]
    outputs = [("GBK", q_RTHK.dtype), ("GB", jnp.float32)]
    kernel = _Kernel(_forward, inputs, outputs, ["GB", "GB", "GKB"], by_keys=False, products=2)
    return _run(kernel, q_RTHK, k_RTNK, end_RT, interpret)


def backward(
    q_RTHK, k_RTNK, v_RTNK, end_RT, out_RTHK, log_total_RHT, g_RTHK, interpret: bool = False
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of q, k and v, given what `forward` returned and the gradient `g` of the output."""
    # sum_t p dp, which softmax's gradient subtracts, equals g . out
    centre_RHT = (g_RTHK.astype(jnp.float32) * out_RTHK.astype(jnp.float32)).sum(-1).swapaxes(1, 2)
    inputs = [("GBK", q_RTHK), ("GBK", g_RTHK), ("GB", log_total_RHT), ("GB", centre_RHT)]
    inputs += [("BK", k_RTNK), ("BK", v_RTNK)]
    outputs, with_last = [("GBK", q_RTHK.dtype)], [*inputs, ("KB", k_RTNK)]
    of_queries = _Kernel(_of_queries, with_last, outputs, ["GKB"], by_keys=False, products=3)
    (dq,) = _run(of_queries, q_RTHK, k_RTNK, end_RT, interpret)
    outputs = [("BK", k_RTNK.dtype), ("BK", v_RTNK.dtype)]
    of_keys = _Kernel(_of_keys, inputs, outputs, ["BK", "BK"], by_keys=True, products=4)
    dk, dv = _run(of_keys, q_RTHK, k_RTNK, end_RT, interpret)
    return dq, dk, dv


# A kernel works on blocks of one row and key head. They are named by their axes: GBK for queries, BK and KB
# for keys, GB for one number per query. The whole arrays, with T' slots, are [R, N, G, T', K] and so on.


@dataclasses.dataclass(frozen=True)
class _Kernel:
    """A kernel and its blocks. The kernel is `body(visit, pairs, end, inputs, outputs, scratch)`; the last
    three are tuples of references."""

    body: Callable
    inputs: list[tuple[str, jax.Array]]  # axes, whole array
    outputs: list[tuple[str, jnp.dtype]]  # axes, dtype
    scratch: list[str]  # axes of the float32 buffers that last over all visits of an owner
    by_keys: bool  # whether blocks of keys own the output; otherwise blocks of queries do
    products: int  # matrix products per pair of blocks and head


def _laid(axes, x, N, padding):
    """An array [R, T, N * G, K] (for GB: [R, H, T]), padded, in the layout of blocks with those axes."""
    if axes == "GB":
        x = jnp.pad(x, ((0, 0), (0, 0), (0, padding)))
        return x.reshape(len(x), N, -1, x.shape[2])
    x = jnp.pad(x, ((0, 0), (0, padding), (0, 0), (0, 0)))
    if axes == "GBK":
        return x.reshape(*x.shape[:2], N, -1, x.shape[3]).transpose(0, 2, 3, 1, 4)
    return x.transpose(0, 2, 1, 3) if axes == "BK" else x.transpose(0, 2, 3, 1)


def _slots(axes, x, T):
    """The inverse of `_laid`."""
    if axes == "GB":
        return x.reshape(len(x), -1, x.shape[3])[:, :, :T]
    return x.reshape(len(x), -1, *x.shape[-2:]).swapaxes(1, 2)[:, :T]


def _run(kernel: _Kernel, q_RTHK, k_RTNK, end_RT, interpret: bool) -> tuple[jax.Array, ...]:
    """Run a kernel over all rows, key heads and visits. Returns its outputs."""
    (R, T, H, K), N, B = q_RTHK.shape, k_RTNK.shape[2], block_size(q_RTHK, k_RTNK)
    sizes = {"G": H // N, "B": B, "K": K, "1": 1}
    end = jnp.pad(end_RT, ((0, 0), (0, -T % B)))
    by_keys = kernel.by_keys
    pairs = visits(end, B, by_keys)
    steps = pairs.shape[1]
    # in a shard_map the results vary over the mesh as the arrays do
    result = functools.partial(jax.ShapeDtypeStruct, manual_axis_type=jax.typeof(q_RTHK).manual_axis_type)

    def block(axes):
        return tuple(sizes[axis] for axis in axes)

    def whole(axes):
        return R, N, *(end.shape[1] if axis == "B" else sizes[axis] for axis in axes)

    def spec(axes, of_head=True):
        owns = ("G" in axes) != by_keys  # arrays with the axis G belong to queries

        def index(row, n, step, pairs):
            pair = pairs[row * steps + step]
            place = pair >> 16 if owns else pair & 0xFFFF
            return row, n if of_head else 0, *(place if axis == "B" else 0 for axis in axes)

        return pl.BlockSpec((None, None, *block(axes)), index)

    inputs = [(axes, _laid(axes, x, N, -T % B)) for axes, x in kernel.inputs]
    n, m = len(inputs), len(inputs) + len(kernel.outputs)

    def body(pairs, end, *refs):
        visit = functools.partial(_visit, steps, by_keys)
        kernel.body(visit, pairs, end, refs[:n], refs[n:m], refs[m:])

    scores = R * H * steps * B * B
    read = sum(math.prod(block(axes)) * x.dtype.itemsize for axes, x in inputs)
    call = pl.pallas_call(
        body,
        out_shape=[result(whole(axes), dtype) for axes, dtype in kernel.outputs],
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(R, N, steps),
            in_specs=[spec("1B", of_head=False), *(spec(axes) for axes, _ in inputs)],
            out_specs=[spec(axes) for axes, _ in kernel.outputs],
            scratch_shapes=[pltpu.VMEM(block(axes), jnp.float32) for axes in kernel.scratch],
        ),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")),
        # counted as if each row were one sequence: the compiler cannot know the forest
        cost_estimate=pl.CostEstimate(
            flops=2 * kernel.products * scores * K,
            transcendentals=scores,
            bytes_accessed=R * N * steps * read,
        ),
        interpret=interpret,
        name=f"forest_attention{kernel.body.__name__}",
    )
    # pairs have one dimension, because scalar memory would pad a second
    out = call(pairs.reshape(-1), end.reshape(R, 1, 1, -1), *(x for _, x in inputs))
    return tuple(_slots(axes, x, T) for (axes, _), x in zip(kernel.outputs, out))


def _visit(steps, by_keys, pairs):
    """(i, j, first, new, last) of the current visit: its blocks of queries and keys, whether it is the
    owner's first, whether it is new (not a repetition at the end of the list), whether it is the owner's
    last."""
    step = pl.program_id(2)
    at = pl.program_id(0) * steps + step
    pair, before = pairs[at], pairs[jnp.maximum(at - 1, 0)]
    first = (step == 0) | (pair >> 16 != before >> 16)
    new = (step == 0) | (pair != before)
    i, j = (pair & 0xFFFF, pair >> 16) if by_keys else (pair >> 16, pair & 0xFFFF)
    return i, j, first, new, new & (i == j)


def _walk(visit, pairs, end, G, begin, head, finish):
    """The loop that all kernels share.

    At an owner's first pair, set each (reference, value) of `begin`. At each pair, call head(g, row, mask)
    for every head: `row` selects the per-query numbers of head g, and `mask` float32 [keys, queries] is added
    to scores. At the owner's last pair, call finish().
    """
    i, j, first, new, last = visit(pairs)

    @pl.when(first)
    def _():
        for reference, value in begin:
            reference[...] = jnp.full_like(reference, value)

    @pl.when(new)
    def _():
        B = end.shape[1]
        key = j * B + lax.broadcasted_iota(jnp.int32, (B, B), 0)
        query = i * B + lax.broadcasted_iota(jnp.int32, (B, B), 1)
        mask = jnp.where((key <= query) & (query < end[...].T), 0.0, _MASKED)
        lax.fori_loop(0, G, lambda g, _: head(g, pl.ds(g, 1), mask), None)

    pl.when(last)(finish)


def _product(x, y):
    return lax.dot_general(x, y, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32)


def _product_t(x, y):
    """x y^T"""
    return lax.dot_general(x, y, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)


def _forward(visit, pairs, end, inputs, outputs, scratch):
    (q, k, v_last), (out, log_total), (top, total, sums) = inputs, outputs, scratch

    def head(g, row, mask):
        scores = _product_t(k[...], q[g]) + mask
        old = top[row]
        # until a query sees a key, its weights are all 1; at the first key that it sees, `keep` is 0, which
        # drops them
        top[row] = new = jnp.maximum(old, scores.max(0, keepdims=True))
        keep, weights = jnp.exp(old - new), jnp.exp(scores - new)
        total[row] = total[row] * keep + weights.sum(0, keepdims=True)
        sums[g] = sums[g] * keep + _product(v_last[...], weights.astype(v_last.dtype))

    def finish():
        log_total[...] = jnp.where(top[...] > _MASKED, top[...] + jnp.log(total[...]), -_MASKED)
        for g in range(len(q)):
            out[g] = (sums[g] / total[pl.ds(g, 1)]).T.astype(out.dtype)

    _walk(visit, pairs, end, len(q), [(top, _MASKED), (total, 0), (sums, 0)], head, finish)


def _probs(g, row, mask, inputs):
    """(probabilities, gradient of scores), both [keys, queries]."""
    q, d_out, log_total, centre, k, v = inputs
    probs = jnp.exp(_product_t(k[...], q[g]) + mask - log_total[row])
    return probs, probs * (_product_t(v[...], d_out[g]) - centre[row])


def _of_queries(visit, pairs, end, inputs, outputs, scratch):
    q, k_last, (dq,), (sums,) = inputs[0], inputs[-1], outputs, scratch

    def head(g, row, mask):
        _, d_scores = _probs(g, row, mask, inputs[:-1])
        sums[g] += _product(k_last[...], d_scores.astype(k_last.dtype))

    def finish():
        for g in range(len(q)):
            dq[g] = sums[g].T.astype(dq.dtype)

    _walk(visit, pairs, end, len(q), [(sums, 0)], head, finish)


def _of_keys(visit, pairs, end, inputs, outputs, scratch):
    (q, d_out), (dk, dv), (dk_sums, dv_sums) = inputs[:2], outputs, scratch

    def head(g, row, mask):
        probs, d_scores = _probs(g, row, mask, inputs)
        dk_sums[...] += _product(d_scores.astype(q.dtype), q[g])
        dv_sums[...] += _product(probs.astype(q.dtype), d_out[g])

    def finish():
        dk[...], dv[...] = dk_sums[...].astype(dk.dtype), dv_sums[...].astype(dv.dtype)

    _walk(visit, pairs, end, len(q), [(dk_sums, 0), (dv_sums, 0)], head, finish)
