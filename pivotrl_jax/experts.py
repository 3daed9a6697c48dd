"""Token routing and grouped matrix products of a mixture of experts. Dropless: every token reaches its
experts.

Axis letters: M tokens, D hidden, E experts, F one expert's width, A experts per token ("top k"), B block of
rows. On TPU and GPU the products are `jax.lax.ragged_dot`. On CPU that is 10x to 100x off the machine's
peak, so there the rows of each expert are padded to whole blocks and multiplied as one batched product.
"""

import jax
import jax.numpy as jnp
import numpy as np


def route(x_MD: jax.Array, router_DE: jax.Array, top_k: int, normalise: bool) -> tuple[jax.Array, jax.Array]:
    """Softmax over all experts in float32, then the top k. Returns weights float32 [M, A] and ids int32 [M,
    A].

    `normalise` is Qwen3's `norm_topk_prob`: the chosen weights are divided by their sum.
    """
    # float32: a bfloat16 router flips near-ties, and sampler and learner then disagree about experts
    logits_ME = x_MD.astype(jnp.float32) @ router_DE.astype(jnp.float32)
    weight_MA, expert_MA = jax.lax.top_k(jax.nn.softmax(logits_ME, axis=-1), top_k)
    if normalise:
        weight_MA = weight_MA / weight_MA.sum(-1, keepdims=True)
    return weight_MA, expert_MA


def expert_mlp(
    x_MD: jax.Array,
    weight_MA: jax.Array,
    expert_MA: jax.Array,
    gate_EDF: jax.Array,
    up_EDF: jax.Array,
    down_EFD: jax.Array,
) -> jax.Array:
    """Sum over each token's experts of weight * down(silu(gate x) * up x). Returns [M, D] in the dtype of
    `x`."""
    args = (x_MD, weight_MA, expert_MA, gate_EDF, up_EDF, down_EFD)
    return jax.lax.platform_dependent(*args, cpu=blocked_mlp, default=ragged_mlp)


def ragged_mlp(x_MD, weight_MA, expert_MA, gate_EDF, up_EDF, down_EFD):
    """`expert_mlp` by `jax.lax.ragged_dot` over tokens sorted by expert."""
    M, A = expert_MA.shape
    order = jnp.argsort(expert_MA.reshape(-1))
    sizes_E = jnp.bincount(expert_MA.reshape(-1), length=gate_EDF.shape[0]).astype(jnp.int32)
    rows = x_MD[order // A]
    gate, up = jax.lax.ragged_dot(rows, gate_EDF, sizes_E), jax.lax.ragged_dot(rows, up_EDF, sizes_E)
    out = jax.lax.ragged_dot(jax.nn.silu(gate) * up, down_EFD, sizes_E)
    out = jnp.zeros_like(out).at[order].set(out).reshape(M, A, -1)
    return jnp.einsum("mad,ma->md", out, weight_MA.astype(out.dtype)).astype(x_MD.dtype)


def _block_rows(assignments: int, experts: int) -> int:
    """Rows per block: large enough to feed a matrix unit, small enough that padding stays a fraction of the
    work."""
    return int(np.clip(2 ** np.floor(np.log2(max(assignments / experts, 1) / 2)), 8, 128))


def blocked_mlp(x_MD, weight_MA, expert_MA, gate_EDF, up_EDF, down_EFD):
    """`expert_mlp` as one batched product over blocks of rows that share an expert."""
    (M, A), E = expert_MA.shape, gate_EDF.shape[0]
    B = _block_rows(M * A, E)
    blocks = M * A // B + E  # static bound: every expert wastes less than one block
    flat = expert_MA.reshape(-1)
    order = jnp.argsort(flat)
    sizes_E = jnp.bincount(flat, length=E)
    padded_E = (sizes_E + B - 1) // B * B
    start_E = jnp.cumsum(padded_E) - padded_E
    rank = jnp.arange(M * A) - (jnp.cumsum(sizes_E) - sizes_E)[flat[order]]
    slot_of_sorted = (start_E[flat[order]] + rank).astype(jnp.int32)
    slot_MA = jnp.zeros(M * A, jnp.int32).at[order].set(slot_of_sorted, unique_indices=True).reshape(M, A)
    token_of_slot = jnp.full(blocks * B, M, jnp.int32).at[slot_of_sorted].set((order // A).astype(jnp.int32))
    expert_of_block = jnp.clip(
        jnp.searchsorted(jnp.cumsum(padded_E), jnp.arange(blocks) * B, side="right"), 0, E - 1
    )

    rows = _spread(x_MD, token_of_slot, slot_MA).reshape(blocks, B, -1)
    gate = jnp.einsum("nbd,ndf->nbf", rows, _per_block(gate_EDF, expert_of_block))
    up = jnp.einsum("nbd,ndf->nbf", rows, _per_block(up_EDF, expert_of_block))
    out = jnp.einsum("nbf,nfd->nbd", jax.nn.silu(gate) * up, _per_block(down_EFD, expert_of_block))
    out_MAD = _collect(out.reshape(blocks * B, -1), slot_MA, token_of_slot)
    return jnp.einsum("mad,ma->md", out_MAD, weight_MA.astype(out.dtype)).astype(x_MD.dtype)


# The layout is a permutation with padding, so each of the moves below has the other as its transpose.
# Written out, because XLA's own transpose of a gather is a scatter-add, serial on CPU.


@jax.custom_vjp
def _spread(x_MD, token_of_slot, slot_MA):
    """Rows by slot: x[token_of_slot], zeros in padding slots."""
    return x_MD.at[token_of_slot].get(mode="fill", fill_value=0)


def _spread_fwd(x_MD, token_of_slot, slot_MA):
    return _spread(x_MD, token_of_slot, slot_MA), slot_MA


def _spread_bwd(slot_MA, g):
    return g[slot_MA].sum(1), None, None


_spread.defvjp(_spread_fwd, _spread_bwd)


@jax.custom_vjp
def _collect(out_PD, slot_MA, token_of_slot):
    """Rows by assignment: out[slot_MA], shape [M, A, D]."""
    return out_PD[slot_MA]


def _collect_fwd(out_PD, slot_MA, token_of_slot):
    return out_PD[slot_MA], (slot_MA, token_of_slot)


def _collect_bwd(residual, g_MAD):
    slot_MA, token_of_slot = residual
    M, A = slot_MA.shape
    assignment = jnp.full(token_of_slot.shape, M * A, jnp.int32)
    assignment = assignment.at[slot_MA.reshape(-1)].set(
        jnp.arange(M * A, dtype=jnp.int32), unique_indices=True
    )
    return g_MAD.reshape(M * A, -1).at[assignment].get(mode="fill", fill_value=0), None, None


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
