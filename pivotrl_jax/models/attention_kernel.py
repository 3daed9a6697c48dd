"""Attention over a forest as Pallas kernels: what `attention.forest_attention` runs on TPUs.

Flash attention (Dao 2023, arXiv 2307.08691, algorithms 1 and 2): a running maximum, sum and output; one
log-sum-exp per query is kept, and the backward pass computes scores again. A row is cut into blocks of B
slots, and a pair of blocks is visited only when a query of the one may see a key of the other: causality
leaves half of the pairs, subtrees that have ended fewer. The visits of a row are a list made before the
kernel starts, along which the innermost axis of its grid runs: a pair left out costs no arithmetic and no
copy from memory.

Scores lie as [keys, queries]. Sums and maxima over keys then combine whole registers, where along lanes they
would be shuffles, and what there is one of per query lies along lanes. The heads that share a key head are
met one after the other while its block of keys stays.
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
_QUERY_BYTES = 2**20  # at most of a block of queries: with its gradients (all twice) and scores, it fits VMEM
_MOST_VISITS = 2**17  # of all rows together: 4 bytes each of the 1 MiB of scalar memory


def usable(q_RTHK: jax.Array, k_RTNK: jax.Array) -> bool:
    """Whether there is a kernel for arrays of these shapes. There is one for bfloat16 and float32, K a
    multiple of 64, T at least 128, a block of 128 slots that fits VMEM (to a key head at most 32 query heads
    with K 128 in bfloat16), and lists of visits that fit scalar memory (63 rows of 32k slots, in blocks of
    512). The environment variable PIVOTRL_ATTENTION=loop turns the kernels off."""
    R, T, _, K = q_RTHK.shape
    if os.environ.get("PIVOTRL_ATTENTION") == "loop":
        return False
    if q_RTHK.dtype not in (jnp.bfloat16, jnp.float32) or K % 64 or T < 128:
        return False
    B = block_size(q_RTHK, k_RTNK)
    return B > 0 and R * _longest(-(-T // B)) <= _MOST_VISITS


def block_size(q_RTHK: jax.Array, k_RTNK: jax.Array) -> int:
    """B: the largest of 512, 256 and 128 that fits VMEM and pads a row by an eighth at most, if one does; 0
    when none fits."""
    _, T, H, K = q_RTHK.shape
    slot_bytes = H // k_RTNK.shape[2] * K * q_RTHK.dtype.itemsize
    sizes = [B for B in (512, 256, 128) if B * slot_bytes <= _QUERY_BYTES]
    return next((B for B in sizes if -T % B <= T // 8), sizes[-1] if sizes else 0)


def _longest(blocks: int) -> int:
    """Pairs of blocks that causality leaves."""
    return blocks * (blocks + 1) // 2


def visits(end_RT: jax.Array, B: int, by_keys: bool) -> jax.Array:
    """int32 [R, V]: the pairs of blocks to visit, V = T/B (T/B + 1) / 2 at most; shorter lists repeat their
    last pair.

    A pair is `owner << 16 | other`: a block of queries that owns a block of output, with one of keys, or
    (`by_keys`) the reverse. Owners ascend; the pairs of one owner are neighbours, the last that with itself.
    """
    blocks = end_RT.shape[1] // B
    query, key = jnp.arange(blocks)[:, None], jnp.arange(blocks)
    end = end_RT.reshape(-1, 1, blocks, B).max(-1)
    # every block meets itself, padding, too: all of the output is written
    meets = (key == query) | (key < query) & (query * B < end)
    # numbers in the order of visits; queries count down to their key
    pair, last = (key << 16 | blocks - query, 1) if by_keys else (query << 16 | key, blocks - 1)
    pair = jnp.where(meets, pair, jnp.iinfo(jnp.int32).max).reshape(len(end), -1)
    pair = jnp.minimum(jnp.sort(pair)[:, : _longest(blocks)], (blocks - 1) << 16 | last)
    pair = pair & ~0xFFFF | blocks - (pair & 0xFFFF) if by_keys else pair
    return pair.astype(jnp.int32)


def forward(q_RTHK, k_RTNK, v_RTNK, end_RT, interpret: bool = False) -> tuple[jax.Array, jax.Array]:
    """Output [R, T, H, K] in the dtype of q, which is scaled already, and log-sum-exps float32 [R, H, T]; at
    a slot that sees nothing 1e30, for which exp(score - 1e30) is 0."""
    inputs = [("GBK", q_RTHK), ("BK", k_RTNK), ("KB", v_RTNK)]
    outputs = [("GBK", q_RTHK.dtype), ("GB", jnp.float32)]
    kernel = _Kernel(_forward, inputs, outputs, ["GB", "GB", "GKB"], by_keys=False, products=2)
    return _run(kernel, q_RTHK, k_RTNK, end_RT, interpret)


def backward(
    q_RTHK, k_RTNK, v_RTNK, end_RT, out_RTHK, log_total_RHT, g_RTHK, interpret: bool = False
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of q, k and v, given that of the output and what `forward` returned."""
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


# A kernel meets blocks of one row and key head, named here by their axes: GBK of queries, BK and KB of keys,
# GB where there is one number per query. Whole, with T' slots, they are [R, N, G, T', K] and so on.


@dataclasses.dataclass(frozen=True)
class _Kernel:
    """A kernel and the blocks it meets: `body(visit, pairs, end, inputs, outputs, scratch)`, the last three
    tuples of references."""

    body: Callable
    inputs: list[tuple[str, jax.Array]]  # axes, whole array
    outputs: list[tuple[str, jnp.dtype]]  # axes, dtype
    scratch: list[str]  # axes of what is kept, float32, from one visit of an owner to the next
    by_keys: bool  # a block of output belongs to one of keys; else to one of queries
    products: int  # matrix products for a pair of blocks and a head


def _laid(axes, x, N, padding):
    """[R, T, N * G, K] (GB: [R, H, T]) as the blocks of those axes want it."""
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
    """A kernel's outputs over all rows, key heads and visits."""
    (R, T, H, K), N, B = q_RTHK.shape, k_RTNK.shape[2], block_size(q_RTHK, k_RTNK)
    sizes = {"G": H // N, "B": B, "K": K, "1": 1}
    end = jnp.pad(end_RT, ((0, 0), (0, -T % B)))
    by_keys = kernel.by_keys
    pairs = visits(end, B, by_keys)
    steps = pairs.shape[1]
    # in a shard_map results vary over the mesh as the arrays do
    result = functools.partial(jax.ShapeDtypeStruct, manual_axis_type=jax.typeof(q_RTHK).manual_axis_type)

    def block(axes):
        return tuple(sizes[axis] for axis in axes)

    def whole(axes):
        return R, N, *(end.shape[1] if axis == "B" else sizes[axis] for axis in axes)

    def spec(axes, of_head=True):
        owns = ("G" in axes) != by_keys  # G: of queries

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
        # as for rows of one sequence: the compiler cannot know the forest
        cost_estimate=pl.CostEstimate(
            flops=2 * kernel.products * scores * K,
            transcendentals=scores,
            bytes_accessed=R * N * steps * read,
        ),
        interpret=interpret,
        name=f"forest_attention{kernel.body.__name__}",
    )
    # pairs in one dimension: of two, scalar memory pads the second
    out = call(pairs.reshape(-1), end.reshape(R, 1, 1, -1), *(x for _, x in inputs))
    return tuple(_slots(axes, x, T) for (axes, _), x in zip(kernel.outputs, out))


def _visit(steps, by_keys, pairs):
    """Blocks of queries and of keys to meet now; whether it is the owner's first pair, a pair at all (not a
    repetition at the end of the list), and the owner's last one."""
    step = pl.program_id(2)
    at = pl.program_id(0) * steps + step
    pair, before = pairs[at], pairs[jnp.maximum(at - 1, 0)]
    first = (step == 0) | (pair >> 16 != before >> 16)
    new = (step == 0) | (pair != before)
    i, j = (pair & 0xFFFF, pair >> 16) if by_keys else (pair >> 16, pair & 0xFFFF)
    return i, j, first, new, new & (i == j)


def _walk(visit, pairs, end, G, begin, head, finish):
    """What the kernels share: set each of `begin`, (reference, value), at an owner's first pair; at each pair
    call head(g, row, mask) for every head, where `row` picks what there is one of per query and mask float32
    [keys, queries] is to be added to scores; finish() at the last."""
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
        # until a query meets a key that it sees, its weights are all 1; then `keep` is 0 and drops them
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
    """[keys, queries]: probabilities, and the gradient of scores."""
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
