"""Token routing and grouped matrix products of a mixture of experts. Dropless: every token reaches its
experts.

Axis letters: M tokens, D hidden, E experts, F one expert's width, A experts per token ("top k"), B block of
rows, U rank of an adapter. On TPU and GPU the products are `jax.lax.ragged_dot`. On CPU that is 10x to 100x
off the machine's peak, so there the rows of each expert are padded to whole blocks and multiplied as one
batched product.

On a mesh, `spread_mlp` brings tokens to experts: tokens are gathered over the mesh axes that split the
experts, every device computes its own experts' share of them, and the shares are summed and scattered back.
Each token crosses the wire e - 1 times each way among e devices, an all-to-all about top_k (e - 1) / e times:
up to e = top_k gathering is no worse, moves no permuted copies, and needs no capacity, so nothing is dropped.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from pivotrl_jax import sharding

# A weight matrix, or (matrix, A, B): x W + x A B, the adapter's scale already in B.
Matrix = jax.Array | tuple[jax.Array, jax.Array, jax.Array]

# Tokens that one pass of `spread_mlp` handles on a device: the rows of its grouped products number at most
# top_k times that, whatever the length of a row and the mesh. At Qwen3-30B-A3B's width a pass takes 1.5 GiB.
PASS = 16_384


def route(x_MD: jax.Array, router_DE: jax.Array, top_k: int, normalise: bool) -> tuple[jax.Array, jax.Array]:
    """Softmax over all experts in float32, then the top k. Returns weights float32 [M, A] and ids int32 [M,
    A].

    `normalise` is Qwen3's `norm_topk_prob`: the chosen weights are divided by their sum.
    """
    # float32: a bfloat16 router flips near-ties, and sampler and learner then disagree about experts
    logits_ME = jnp.matmul(
        x_MD.astype(jnp.float32), router_DE.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST
    )
    weight_MA, expert_MA = jax.lax.top_k(jax.nn.softmax(logits_ME, axis=-1), top_k)
    if normalise:
        weight_MA = weight_MA / weight_MA.sum(-1, keepdims=True)
    return weight_MA, expert_MA


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

    Ids from E on are experts that live elsewhere: they add nothing here.
    """
    args = (x_MD, weight_MA, expert_MA, gate_EDF, up_EDF, down_EFD)
    return jax.lax.platform_dependent(*args, cpu=blocked_mlp, default=ragged_mlp)


def cheaper_to_move_weights(config, tokens: int) -> bool:
    """Whether experts split over `fsdp`, too, had better be gathered there than tokens, given the tokens of
    a device: a prefill has many, a decode step few. Per layer and device of the axis, tokens move 2 M e D
    numbers, gathered over `expert` as they are, and weights 3 E / e D F / fsdp."""
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
    """`expert_mlp` inside `sharding.per_shard`: tokens are this device's, experts its share along
    `expert_axes`, F its share along `tensor`. Tokens go in passes of at most PASS gathered ones."""
    M, devices = x_MD.shape[0], sharding.count(expert_axes)
    held = (gate_EDF if isinstance(gate_EDF, jax.Array) else gate_EDF[0]).shape[0]
    first = sharding.index(expert_axes) * held

    def one_pass(x, weight, expert):
        x, weight, expert = (sharding.gather(a, expert_axes, 0) for a in (x, weight, expert))
        here = (expert >= first) & (expert < first + held)
        local = jnp.where(here, expert - first, held)
        out = expert_mlp(x, jnp.where(here, weight, 0.0), local, gate_EDF, up_EDF, down_EFD)
        return sharding.total(sharding.scatter_sum(out, expert_axes, 0), "tensor")

    passes = -(-M * devices // PASS)
    if passes == 1:
        return one_pass(x_MD, weight_MA, expert_MA)
    rows = -(-M // passes)
    pieces = [
        jnp.pad(a, ((0, passes * rows - M), (0, 0)), constant_values=fill).reshape(passes, rows, -1)
        for a, fill in ((x_MD, 0), (weight_MA, 0), (expert_MA, held * devices))
    ]
    # recomputed in the backward pass: kept, its rows would be as many as without passes
    step = jax.checkpoint(one_pass, prevent_cse=False)
    _, out = jax.lax.scan(lambda _, piece: (None, step(*piece)), None, tuple(pieces))
    return out.reshape(passes * rows, -1)[:M]


def _mlp(product: Callable, rows, gate, up, down):
    """down(silu(gate rows) * up rows), where product(rows, w) is grouped by expert."""

    def times(rows, w: Matrix):
        if isinstance(w, tuple):
            w, a, b = w
            return product(rows, w) + product(product(rows, a), b)
        return product(rows, w)

    return times(jax.nn.silu(times(rows, gate)) * times(rows, up), down)


def _experts(gate: Matrix) -> int:
    return (gate[0] if isinstance(gate, tuple) else gate).shape[0]


def ragged_mlp(x_MD, weight_MA, expert_MA, gate_EDF, up_EDF, down_EFD):
    """`expert_mlp` by `jax.lax.ragged_dot` over tokens sorted by expert, those of other devices last."""
    (M, A), E = expert_MA.shape, _experts(gate_EDF)
    flat = expert_MA.reshape(-1)
    order = jnp.argsort(flat)
    sizes_E = jnp.bincount(flat, length=E + 1)[:E].astype(jnp.int32)
    mine = jnp.arange(M * A)[:, None] < sizes_E.sum()  # what a product leaves in other rows is not defined
    rows = jnp.where(mine, x_MD[order // A], 0)  # and so in the gradient
    out = _mlp(lambda rows, w: jax.lax.ragged_dot(rows, w, sizes_E), rows, gate_EDF, up_EDF, down_EFD)
    out = jnp.where(mine, out, 0)
    out = jnp.zeros_like(out).at[order].set(out, unique_indices=True).reshape(M, A, -1)
    return jnp.einsum("mad,ma->md", out, weight_MA.astype(out.dtype)).astype(x_MD.dtype)


def _block_rows(assignments: int, experts: int) -> int:
    """Rows per block: large enough to feed a matrix unit, small enough that padding stays a fraction of the
    work."""
    return int(np.clip(2 ** np.floor(np.log2(max(assignments / experts, 1) / 2)), 8, 128))


def blocked_mlp(x_MD, weight_MA, expert_MA, gate_EDF, up_EDF, down_EFD):
    """`expert_mlp` as one batched product over blocks of rows that share an expert."""
    (M, A), E = expert_MA.shape, _experts(gate_EDF)
    B = _block_rows(M * A, E)
    blocks = M * A // B + E  # static bound: every expert wastes less than one block
    flat = expert_MA.reshape(-1)
    order = jnp.argsort(flat)
    sizes_E = jnp.bincount(flat, length=E + 1)  # the last one: experts of other devices
    padded_E = (sizes_E[:E] + B - 1) // B * B
    start_E = jnp.append(jnp.cumsum(padded_E) - padded_E, blocks * B)  # theirs lie past the end
    rank = jnp.arange(M * A) - (jnp.cumsum(sizes_E) - sizes_E)[flat[order]]
    slot_of_sorted = (start_E[flat[order]] + rank).astype(jnp.int32)
    slot_MA = jnp.zeros_like(flat).at[order].set(slot_of_sorted, unique_indices=True).reshape(M, A)
    token_of_slot = jnp.full_like(flat, M, shape=blocks * B)
    token_of_slot = token_of_slot.at[slot_of_sorted].set((order // A).astype(jnp.int32), mode="drop")
    expert_of_block = jnp.clip(
        jnp.searchsorted(jnp.cumsum(padded_E), jnp.arange(blocks) * B, side="right"), 0, E - 1
    )

    def product(rows_NBX, w_EXY):
        return jnp.einsum("nbx,nxy->nby", rows_NBX, _per_block(w_EXY, expert_of_block))

    rows = _spread(x_MD, token_of_slot, slot_MA).reshape(blocks, B, -1)
    out = _mlp(product, rows, gate_EDF, up_EDF, down_EFD)
    out_MAD = _collect(out.reshape(blocks * B, -1), slot_MA, token_of_slot)
    return jnp.einsum("mad,ma->md", out_MAD, weight_MA.astype(out.dtype)).astype(x_MD.dtype)


# The layout is a permutation with padding, so each of the moves below has the other as its transpose.
# Written out, because XLA's own transpose of a gather is a scatter-add, serial on CPU. Slots past the end
# belong to experts of other devices: zeros come from there and nothing goes there.


def _take(x, index):
    return x.at[index].get(mode="fill", fill_value=0)


@jax.custom_vjp
def _spread(x_MD, token_of_slot, slot_MA):
    """Rows by slot: x[token_of_slot], zeros in padding slots."""
    return _take(x_MD, token_of_slot)


def _spread_fwd(x_MD, token_of_slot, slot_MA):
    return _spread(x_MD, token_of_slot, slot_MA), slot_MA


def _spread_bwd(slot_MA, g):
    return _take(g, slot_MA).sum(1), None, None


_spread.defvjp(_spread_fwd, _spread_bwd)


@jax.custom_vjp
def _collect(out_PD, slot_MA, token_of_slot):
    """Rows by assignment: out[slot_MA], shape [M, A, D]."""
    return _take(out_PD, slot_MA)


def _collect_fwd(out_PD, slot_MA, token_of_slot):
    return _take(out_PD, slot_MA), (slot_MA, token_of_slot)


def _collect_bwd(residual, g_MAD):
    slot_MA, token_of_slot = residual
    M, A = slot_MA.shape
    assignment = jnp.full_like(token_of_slot, M * A)
    assignment = assignment.at[slot_MA.reshape(-1)].set(
        jnp.arange(M * A, dtype=jnp.int32), unique_indices=True, mode="drop"
    )
    return _take(g_MAD.reshape(M * A, -1), assignment), None, None


_collect.defvjp(_collect_fwd, _collect_bwd)


@jax.custom_vjp
def _per_block(w_EXY, expert_of_block):
    """The weight matrix of each block: w[expert_of_block]."""
    return w_EXY[expert_of_block]


def _per_block_fwd(w_EXY, expert_of_block):
    return w_EXY[expert_of_block], (expert_of_block, w_EXY.shape[0])


def _per_block_bwd(residual, g_NXY):
    expert_of_block, E = residual
    return jax.ops.segment_sum(g_NXY, expert_of_block, E, indices_are_sorted=True), None


_per_block.defvjp(_per_block_fwd, _per_block_bwd)
