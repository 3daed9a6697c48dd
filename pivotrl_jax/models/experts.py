"""Token routing and grouped matrix products of a mixture of experts. No token is dropped: each one reaches
all its experts.

Axis letters: M tokens, D hidden, E experts, F one expert's width, A experts per token ("top k"), B block of
rows, P = M A assignments, U rank of an adapter. On TPU and GPU the products are `jax.lax.ragged_dot`. On CPU
that runs at a tenth to a hundredth of the machine's peak, so there a loop multiplies blocks of rows that
share an expert.

On a mesh, `spread_mlp` brings tokens to experts: tokens are gathered over the mesh axes that split the
experts, every device computes what its own experts contribute, and the contributions are summed and scattered
back. With e devices, each token is sent e - 1 times each way; an all-to-all would send it about
top_k (e - 1) / e times. So gathering is no worse up to e = top_k. It makes no permuted copies and needs no
capacity limit, so nothing is dropped.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from pivotrl_jax.models import sharding

# A weight matrix, or (matrix, A, B): x W + x A B, the adapter's scale already in B.
Matrix = jax.Array | tuple[jax.Array, jax.Array, jax.Array]


# How many tokens one pass of `spread_mlp` handles on a device. Its grouped products have at most top_k times
# as many rows, whatever the row length and the mesh. At Qwen3-30B-A3B's width a pass takes 1.5 GiB.
PASS = 16_384


# The largest number of rows in a block of `blocked_mlp`. Large products run on several cores, small ones on
# one.
MOST_ROWS = 2048


def probabilities(x_MD: jax.Array, router_DE: jax.Array) -> jax.Array:
    """Softmax over all experts, float32 [M, E]."""
    # float32: in bfloat16 near-ties flip, and sampler and learner then choose different experts
    logits_ME = jnp.matmul(
        x_MD.astype(jnp.float32), router_DE.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST
    )
    return jax.nn.softmax(logits_ME, axis=-1)


def choose(
    probs_ME: jax.Array, top_k: int, normalise: bool, recorded_MA: jax.Array | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(weights float32 [M, A], experts int32 [M, A], the router's top k).

    The experts are the router's top k, except where a choice was recorded (not -1): then that one is used.
    The weights are the router's probabilities in both cases, so the router learns. `normalise` is Qwen3's
    `norm_topk_prob`: the weights are divided by their sum.
    """
    weight_MA, top_MA = jax.lax.top_k(probs_ME, top_k)
    expert_MA = top_MA
    if recorded_MA is not None:
        expert_MA = jnp.where(recorded_MA >= 0, recorded_MA.astype(jnp.int32), top_MA)
        weight_MA = jnp.take_along_axis(probs_ME, expert_MA, axis=-1)
    if normalise:
        weight_MA = weight_MA / weight_MA.sum(-1, keepdims=True)
    return weight_MA, expert_MA, top_MA


def expert_mlp(
    x_MD: jax.Array,
    weight_MA: jax.Array,
    expert_MA: jax.Array,
    gate_EDF: Matrix,
    up_EDF: Matrix,
    down_EFD: Matrix,
) -> jax.Array:
    """Sum over each token's experts of weight * down(silu(gate x) * up x). Returns [M, D] in the dtype of
    `x`.

    Expert ids of E and above belong to other devices and add nothing here.
    """
    args = (x_MD, weight_MA, expert_MA, gate_EDF, up_EDF, down_EFD)
    return jax.lax.platform_dependent(*args, cpu=blocked_mlp, default=ragged_mlp)


def cheaper_to_move_weights(config, tokens: int) -> bool:
    """Whether it is cheaper to gather weights than tokens over `fsdp`, when experts are also split over it.

    That depends on `tokens`, the number on a device: a prefill has many, a decode step few. Per layer and
    device of the axis, gathering tokens moves 2 M e D numbers (they are gathered over `expert` in any case),
    gathering weights 3 E / e D F / fsdp.
    """
    e, fsdp = sharding.count("expert"), sharding.count("fsdp")
    return 2 * tokens * e * fsdp > 3 * config.num_experts / e * config.expert_size


def spread_mlp(
    x_MD: jax.Array,
    weight_MA: jax.Array,
    expert_MA: jax.Array,
    gate_EDF: Matrix,
    up_EDF: Matrix,
    down_EFD: Matrix,
    expert_axes,
) -> jax.Array:
    """`expert_mlp` inside `sharding.per_shard`. Tokens are this device's, experts its share along
    `expert_axes`, F its share along `tensor`. A pass handles at most PASS gathered tokens."""
    M, devices = x_MD.shape[0], sharding.count(expert_axes)
    local_experts = (gate_EDF if isinstance(gate_EDF, jax.Array) else gate_EDF[0]).shape[0]
    first = sharding.index(expert_axes) * local_experts

    def one_pass(x, weight, expert):
        x, weight, expert = (sharding.gather(a, expert_axes, 0) for a in (x, weight, expert))
        here = (expert >= first) & (expert < first + local_experts)
        local = jnp.where(here, expert - first, local_experts)
        out = expert_mlp(x, jnp.where(here, weight, 0.0), local, gate_EDF, up_EDF, down_EFD)
        return sharding.total(sharding.scatter_sum(out, expert_axes, 0), "tensor")

    passes = -(-M * devices // PASS)
    if passes == 1:
        return one_pass(x_MD, weight_MA, expert_MA)
    rows = -(-M // passes)
    pieces = [
        jnp.pad(a, ((0, passes * rows - M), (0, 0)), constant_values=fill).reshape(passes, rows, -1)
        for a, fill in ((x_MD, 0), (weight_MA, 0), (expert_MA, local_experts * devices))
    ]
    # recomputed in the backward pass: storing the rows of every pass would undo what passes save
    step = jax.checkpoint(one_pass, prevent_cse=False)
    _, out = jax.lax.scan(lambda _, piece: (None, step(*piece)), None, tuple(pieces))
    return out.reshape(passes * rows, -1)[:M]


def _times(product: Callable, rows, w: Matrix):
    if isinstance(w, tuple):
        w, a, b = w
        return product(rows, w) + product(product(rows, a), b)
    return product(rows, w)


# down(silu(gate rows) * up rows) in two halves; product(rows, w) uses one expert's matrix or is grouped by
# expert


def _enter(product: Callable, rows, gate: Matrix, up: Matrix):
    return _times(product, rows, gate), _times(product, rows, up)


def _leave(product: Callable, gate_and_up, down: Matrix):
    gate, up = gate_and_up
    return _times(product, jax.nn.silu(gate) * up, down)


def _experts(gate: Matrix) -> int:
    return (gate[0] if isinstance(gate, tuple) else gate).shape[0]


def _by_expert(expert_P: jax.Array, experts: int) -> jax.Array:
    """int32 [P]: assignments sorted by expert; those of one expert keep their order."""
    P = len(expert_P)
    if P * (experts + 1) >= 2**31:
        return jnp.argsort(expert_P)
    # expert and assignment in one number: on CPU this sorts several times faster than pairs
    return jnp.sort(expert_P * P + jnp.arange(P)) % P


def ragged_mlp(x_MD, weight_MA, expert_MA, gate_EDF, up_EDF, down_EFD):
    """`expert_mlp` by `jax.lax.ragged_dot` over assignments sorted by expert, those of other devices last."""
    (M, A), E = expert_MA.shape, _experts(gate_EDF)
    flat = jnp.minimum(expert_MA.reshape(-1), E)  # E: of other devices
    order = _by_expert(flat, E)
    sizes_E = jnp.bincount(flat, length=E + 1)[:E].astype(jnp.int32)
    # ragged_dot leaves undefined values in other rows: masked here for the gradient and below for the output
    mine = jnp.arange(M * A)[:, None] < sizes_E.sum()
    rows = jnp.where(mine, x_MD[order // A], 0)
    product = lambda rows, w: jax.lax.ragged_dot(rows, w, sizes_E)  # noqa: E731
    out = _leave(product, _enter(product, rows, gate_EDF, up_EDF), down_EFD)
    out = jnp.where(mine, out, 0)
    out = jnp.zeros_like(out).at[order].set(out, unique_indices=True).reshape(M, A, -1)
    return jnp.einsum("mad,ma->md", out, weight_MA.astype(out.dtype)).astype(x_MD.dtype)


def block_rows(assignments: int, experts: int) -> int:
    """Rows per block: the mean number per expert plus two standard deviations, rounded up to a multiple of 16
    (matrix units). With even routing nearly every expert then needs one block. The number is limited, so that
    the last block of a busy expert is not mostly padding."""
    mean = assignments / experts
    return int(np.clip(-(-(mean + 2 * mean**0.5) // 16) * 16, 16, MOST_ROWS))


def blocked_mlp(x_MD, weight_MA, expert_MA, gate_EDF, up_EDF, down_EFD):
    """`expert_mlp` by a loop over blocks of assignments sorted by expert, those of other devices last."""
    return _blocked(x_MD, weight_MA, (gate_EDF, up_EDF), down_EFD, _cut(expert_MA, _experts(gate_EDF)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Blocks:
    """Assignments sorted by expert, one per row, cut into blocks of `rows` rows. Every expert starts a new
    block."""

    count: jax.Array  # int32 scalar: number of blocks
    expert: jax.Array  # int32 [N]: each block's expert; N is a bound on `count`
    start: jax.Array  # int32 [N]: each block's first row
    remaining: jax.Array  # int32 [N]: the expert's rows from `start` on, which can exceed the block
    row_MA: jax.Array  # int32: each assignment's row; past the end if its expert is on another device
    order: jax.Array  # int32 [P + rows]: each row's assignment; entries from P on only fill the last block
    rows: int = dataclasses.field(metadata={"static": True})


def _cut(expert_MA: jax.Array, E: int) -> _Blocks:
    P, rows = expert_MA.size, block_rows(expert_MA.size, E)
    flat = jnp.minimum(expert_MA.reshape(-1), E)  # E: of other devices
    order = _by_expert(flat, E)
    row = jnp.zeros_like(order).at[order].set(jnp.arange(P), unique_indices=True)
    row = jnp.where(flat < E, row, P + rows)
    sizes_E = jnp.bincount(flat, length=E + 1)[:E]
    ends_E = jnp.cumsum(-(-sizes_E // rows))
    block = jnp.arange(P // rows + E)
    expert = jnp.minimum(jnp.searchsorted(ends_E, block, side="right"), E - 1)
    within = (block - jnp.append(0, ends_E)[expert]) * rows
    start = (jnp.cumsum(sizes_E) - sizes_E)[expert] + within
    fields = ends_E[-1], expert, start, sizes_E[expert] - within
    fields += row.reshape(expert_MA.shape), jnp.pad(order, (0, rows))
    return _Blocks(*(x.astype(jnp.int32) for x in fields), rows)


# A block that is longer than its expert's rows also computes some rows of the next expert. Blocks run in
# order, so the next block overwrites them, and rows need no padding between experts. Gradients of weights are
# sums over rows, so for them these extra rows are masked. One loop does all products of a block, because the
# block is copied in and out of the loop's arrays, and on a CPU a copy costs about a third of a product.


def _read(arrays, blocks, i):
    """Block i of every array of rows."""
    return jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, blocks.start[i], blocks.rows), arrays)


def _masked(pieces, blocks, i):
    """`pieces` with zeros in the block's rows that belong to other experts."""
    mine = jnp.arange(blocks.rows)[:, None] < blocks.remaining[i]
    return jax.tree.map(lambda x: jnp.where(mine, x, 0), pieces)


def _rows(x_MD, row):
    return x_MD.at[row].get(mode="promise_in_bounds")


def _to_rows(weight_MA, blocks):
    """The weights by row, [P + rows, 1]."""
    return _rows(weight_MA.reshape(-1, 1), blocks.order)


def _from_rows(rows, blocks):
    """[M, A, ...]: the row of every assignment, or zeros if its expert is on another device."""
    return rows.at[blocks.row_MA].get(mode="fill", fill_value=0)


def _empty_rows(x_MD, width, blocks):
    # zeros_like, so that in a shard_map they vary over the mesh as `x` does
    return jnp.zeros_like(x_MD, shape=(len(blocks.order), width))


def _write(arrays, pieces, blocks, i):
    put = lambda a, x: jax.lax.dynamic_update_slice_in_dim(a, x, blocks.start[i], 0)  # noqa: E731
    return jax.tree.map(put, arrays, pieces)


def _of_expert(matrices, blocks, i):
    """The matrices of block i's expert, in float32, so that their gradients, which sum over blocks, are
    too."""
    return jax.tree.map(lambda w: w[blocks.expert[i]].astype(jnp.float32), matrices)


@jax.custom_vjp
def _product(x, w):
    return jnp.matmul(x, w.astype(x.dtype), preferred_element_type=jnp.float32).astype(x.dtype)


def _product_bwd(residual, g):
    x, w = residual
    # transposed before the product: on CPU a product with a transposed operand is a third slower
    x = jax.lax.optimization_barrier(x.T)
    return _product(g, w.T), jnp.matmul(x, g, preferred_element_type=jnp.float32)


_product.defvjp(lambda x, w: (_product(x, w), (x, w)), _product_bwd)


def _enter_block(x, gate: Matrix, up: Matrix):
    if isinstance(gate, tuple) or isinstance(up, tuple):
        return _enter(_product, x, gate, up)
    both = _product(x, jnp.concatenate([gate, up], -1))  # one product of twice the width is faster than two
    return tuple(jnp.split(both, 2, -1))


def _leave_block(gate_and_up, weight, down: Matrix):
    """Rows are multiplied by their weights before the product, so that the weights' gradient does not need
    its result."""
    gate, up = gate_and_up
    return _leave(_product, (gate, up * weight), down)


@jax.custom_vjp
def _blocked(x_MD, weight_MA, entering, leaving, blocks):
    return _blocked_fwd(x_MD, weight_MA, entering, leaving, blocks)[0]


def _blocked_fwd(x_MD, weight_MA, entering, leaving, blocks):
    top_k, width = weight_MA.shape[1], jax.tree.leaves(entering[0])[-1].shape[-1]
    weight_P1 = _to_rows(weight_MA, blocks).astype(x_MD.dtype)

    def step(i, arrays):
        order, weight = _read((blocks.order, weight_P1), blocks, i)
        inner = _enter_block(_rows(x_MD, order // top_k), *_of_expert(entering, blocks, i))
        return _write(arrays, (inner, _leave_block(inner, weight, _of_expert(leaving, blocks, i))), blocks, i)

    inner = _empty_rows(x_MD, width, blocks)
    arrays = (inner, inner), _empty_rows(x_MD, x_MD.shape[1], blocks)
    inner, out = jax.lax.fori_loop(0, blocks.count, step, arrays)
    return _from_rows(out, blocks).sum(1), (x_MD, weight_MA, weight_P1, inner, entering, leaving, blocks)


def _blocked_bwd(residual, g_MD):
    x_MD, weight_MA, weight_P1, inner, entering, leaving, blocks = residual
    top_k = weight_MA.shape[1]

    def step(i, carry):
        d_rows, totals = carry
        order, weight, before = _read((blocks.order, weight_P1, inner), blocks, i)
        x, g = _rows(x_MD, order // top_k), _rows(g_MD, order // top_k)
        # mask rows of other experts in all arrays: masking one is not enough, as zero times infinity is NaN
        x, g, weight, before = _masked((x, g, weight, before), blocks, i)
        _, leave_vjp = jax.vjp(_leave_block, before, weight, _of_expert(leaving, blocks, i))
        d_before, d_weight, d_leaving = leave_vjp(g)
        _, enter_vjp = jax.vjp(_enter_block, x, *_of_expert(entering, blocks, i))
        dx, *d_entering = enter_vjp(d_before)
        e = blocks.expert[i]
        add = lambda t, d: jax.lax.dynamic_update_index_in_dim(t, t[e] + d, e, 0)  # noqa: E731
        totals = jax.tree.map(add, totals, (tuple(d_entering), d_leaving))
        return _write(d_rows, (dx, d_weight), blocks, i), totals

    zeros = jax.tree.map(lambda w: jnp.zeros_like(w, jnp.float32), (entering, leaving))
    d_rows = _empty_rows(x_MD, x_MD.shape[1], blocks), jnp.zeros_like(weight_P1)
    d_rows, totals = jax.lax.fori_loop(0, blocks.count, step, (d_rows, zeros))
    dx, d_weight = (_from_rows(d, blocks) for d in d_rows)
    totals = jax.tree.map(lambda t, w: t.astype(w.dtype), totals, (entering, leaving))
    return dx.sum(1), d_weight[..., 0].astype(weight_MA.dtype), *totals, None


_blocked.defvjp(_blocked_fwd, _blocked_bwd)
