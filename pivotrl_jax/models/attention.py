"""Attention over a forest, and decode attention over a prefix and a branch.

Axis letters as in `decoder.py`. The visibility rule is that of `forest.py`: slot i sees slot j exactly when
`j <= i < subtree_end[j]`. Softmax runs in float32, because a bfloat16 sum over thousands of keys loses the
small terms.
"""

import functools
import warnings

import jax
import jax.numpy as jnp
from jax import lax

from pivotrl_jax.models import attention_kernel

_MASKED = -1e30  # finite, so that a row without any visible key (padding) stays free of NaN


def visible(query_slot: jax.Array, subtree_end: jax.Array) -> jax.Array:
    """bool [..., Q, T]: whether the token at each query slot [..., Q] sees each slot, given subtree_end
    [..., T]."""
    key_slot = jnp.arange(subtree_end.shape[-1])
    query = query_slot[..., :, None]
    return (key_slot <= query) & (query < subtree_end[..., None, :])


def forest_attention(
    q_RTHK: jax.Array, k_RTNK: jax.Array, v_RTNK: jax.Array, subtree_end_RT: jax.Array, chunk: int
) -> jax.Array:
    """Grouped-query attention of every slot to the slots it sees. Returns [R, T, H, K] in the dtype of `q`.

    On a TPU this runs the kernels of `attention_kernel.py`, which choose their own block size. They support
    bfloat16 and float32, head sizes that are a multiple of 64, and rows of 128 slots or more (for the exact
    conditions see `attention_kernel.usable`). Elsewhere, and for other shapes, it runs the following loop.

    A row is cut into blocks of `chunk` slots. The outer loop goes over blocks of queries, the inner loop over
    the blocks of keys that any of these queries sees; the softmax is a running maximum, sum and output. So
    the program is no larger for 32k slots than for 1k, and a block of keys is skipped when it lies above the
    diagonal, in another tree or in a branch that has ended. The backward pass stores one log-sum-exp per
    query and recomputes scores: memory is O(T), plus O(chunk x chunk) for the scores of two blocks. Padding
    slots (subtree_end 0) see nothing: they return the mean of some values (finite, and never read) and pass
    no gradient on.
    """
    q = q_RTHK * jnp.asarray(q_RTHK.shape[3] ** -0.5, q_RTHK.dtype)
    return _attend(q, k_RTNK, v_RTNK, subtree_end_RT, chunk)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(q, k, v, end, chunk):
    return _attend_fwd(q, k, v, end, chunk)[0]


def _attend_fwd(q, k, v, end, chunk):
    looped = functools.partial(_forward, chunk)
    out, log_total = _by_platform(attention_kernel.forward, looped, q, k, v, end)
    return out, (q, k, v, end, out, log_total)


def _attend_bwd(chunk, residual, g):
    looped = functools.partial(_backward, chunk)
    return *_by_platform(attention_kernel.backward, looped, *residual, g), None


def _by_platform(kernel, looped, q, k, *rest):
    # this choice is made inside the custom derivative: if JAX differentiated it, it would store the residuals
    # of both branches
    if not attention_kernel.usable(q, k):
        if jax.default_backend() == "tpu":
            warnings.warn(
                f"attention over {q.shape} {q.dtype} runs as a loop: no kernel supports it", stacklevel=2
            )
        return looped(q, k, *rest)
    return lax.platform_dependent(q, k, *rest, tpu=kernel, default=looped)


_attend.defvjp(_attend_fwd, _attend_bwd)


# Below, a row is B blocks of Q slots. Keys and values are [B, R, N, Q, K]. Queries are [B, R, Q, N, G, K]
# outside of a loop and [R, N, G * Q, K] in it: those that share a key head form one matrix. `end` is
# subtree_end as [B, R, Q]. i numbers blocks of queries, j blocks of keys.
#
# Axes are exchanged in a loop over blocks: outside of one, XLA does it while it computes what is exchanged
# (RoPE, for one), element by element, which takes a CPU ten times as long as both do apart.


def _blocks(x, N, Q):
    """[R, T, N * G, ...] -> [B, R, Q, N, G, ...], padded to whole blocks."""
    R, T = x.shape[:2]
    x = jnp.pad(x, ((0, 0), (0, -T % Q), *((0, 0),) * (x.ndim - 2)))
    return x.reshape(R, -1, Q, N, x.shape[2] // N, *x.shape[3:]).swapaxes(0, 1)


def _slots(x, T):
    """The inverse of `_blocks`: [B, R, Q, N, G, ...] -> [R, T, N * G, ...]."""
    B, R, Q, N, G = x.shape[:5]
    return x.swapaxes(0, 1).reshape(R, B * Q, N * G, *x.shape[5:])[:, :T]


def _matrix(x):
    """[R, Q, N, G, K] -> [R, N, G * Q, K]."""
    R, Q, N, G, K = x.shape
    return x.transpose(0, 2, 3, 1, 4).reshape(R, N, G * Q, K)


def _of_matrix(x, Q):
    """The inverse of `_matrix`."""
    R, N, rows, K = x.shape
    return x.reshape(R, N, rows // Q, Q, K).transpose(0, 3, 1, 2, 4)


def _key_blocks(x, Q):
    """[R, T, N, K] -> [B, R, N, Q, K]."""
    return lax.map(_matrix, _blocks(x, x.shape[2], Q))


def _dtype_in_loops(dtype):
    """In which dtype a loop over blocks returns what is `dtype` outside: float32 on a CPU, which writes all
    blocks for each one in bfloat16."""
    return jnp.float32 if jax.default_backend() == "cpu" else dtype


def _blocks_of_end(end, Q):
    """[R, T] -> [B, R, Q]."""
    return jnp.pad(end, ((0, 0), (0, -end.shape[1] % Q))).reshape(len(end), -1, Q).swapaxes(0, 1)


def _earlier(end):
    """(int [B, B], int [B]): for each block of queries, the earlier blocks of keys that it attends to, listed
    first, and how many they are. A block of keys is skipped when all its subtrees end before the queries
    begin."""
    B, _, Q = end.shape
    block = jnp.arange(B)
    meets = (block < block[:, None]) & (block[:, None] * Q < end.max((1, 2)))
    return jnp.argsort(~meets, axis=-1, stable=True), meets.sum(-1)


def _product(spec, x, y):
    return jnp.einsum(spec, x, y, preferred_element_type=jnp.float32)


def _scores(q, k, end, i, j):
    """float32 [R, N, G * Q, Q]: scores of the queries of block i with the keys of block j, masked where a
    query does not see the key."""
    scores = _product("rnqk,rntk->rnqt", q, k[j])
    R, N, _, Q = scores.shape
    # visibility only compares slots, so all of them can be counted from the first key of the block
    mask = visible((i - j) * Q + jnp.arange(Q), end[j] - j * Q)
    return jnp.where(mask[:, None, None], scores.reshape(R, N, -1, Q, Q), _MASKED).reshape(scores.shape)


def _add(total, j, x):
    """`total` with x added to block j. This writes a slice in place; `.at[j].add` would be a scatter."""
    return lax.dynamic_update_index_in_dim(total, total[j] + x, j, 0)


def _forward(chunk, q, k, v, end):
    """Output [R, T, H, K] and log-sum-exps float32 [R, H, T]."""
    T, N, Q, dtype = q.shape[1], k.shape[2], min(chunk, q.shape[1]), q.dtype
    q, k, v = _blocks(q, N, Q), _key_blocks(k, Q), _key_blocks(v, Q)
    end = _blocks_of_end(end, Q)

    def step(_, block):
        i, qi, earlier, count = block
        qi = _matrix(qi)

        def weigh(scores, top, j):
            weights = jnp.exp(scores - top)
            out = _product("rnqt,rntk->rnqk", weights.astype(v.dtype), v[j])
            return weights.sum(-1, keepdims=True), out

        def meet(n, carry):
            top, total, out = carry
            scores = _scores(qi, k, end, i, earlier[n])
            new_top = jnp.maximum(top, scores.max(-1, keepdims=True))
            more_total, more_out = weigh(scores, new_top, earlier[n])
            keep = jnp.exp(top - new_top)
            return new_top, total * keep + more_total, out * keep + more_out

        # a block attends to itself first: every query sees itself, so the running maximum starts as a score
        scores = _scores(qi, k, end, i, i)
        top = scores.max(-1, keepdims=True)
        top, total, out = lax.fori_loop(0, count, meet, (top, *weigh(scores, top, i)))
        out = (out / total).astype(_dtype_in_loops(dtype))
        return None, (_of_matrix(out, Q), _of_matrix(top + jnp.log(total), Q)[..., 0])

    _, (out, log_total) = lax.scan(step, None, (jnp.arange(len(q)), q, *_earlier(end)))
    return _slots(out, T).astype(dtype), _slots(log_total, T).swapaxes(1, 2)


def _backward(chunk, q, k, v, end, out, log_total, g):
    """Gradients of q, k and v, given what `_forward` returned and the gradient of the output."""
    T, N, Q, dtype = q.shape[1], k.shape[2], min(chunk, q.shape[1]), q.dtype
    # sum_t p dp, which softmax's gradient subtracts, equals g . out
    centre = jnp.einsum(
        "rthk,rthk->rth", g, out, precision=lax.Precision.HIGHEST, preferred_element_type=jnp.float32
    )
    log_total = log_total.swapaxes(1, 2)
    q, g, centre, log_total = (_blocks(x, N, Q) for x in (q, g, centre, log_total))
    k, v, end = _key_blocks(k, Q), _key_blocks(v, Q), _blocks_of_end(end, Q)

    def step(grads, block):
        i, qi, gi, centre_i, log_total_i, earlier, count = block
        qi, gi, centre_i, log_total_i = map(_matrix, (qi, gi, centre_i[..., None], log_total_i[..., None]))
        # turned once per block of queries, so that no product below sums over rows of its first matrix
        q_turned, g_turned = qi.swapaxes(2, 3), gi.swapaxes(2, 3)

        def meet(j, carry):
            dq, dk, dv = carry
            scores = _scores(qi, k, end, i, j)
            # a padding query has only masked scores, which exp alone would turn into uniform probs
            probs = jnp.where(scores > _MASKED, jnp.exp(scores - log_total_i), 0.0)
            d_scores = probs * (_product("rnqk,rntk->rnqt", gi, v[j]) - centre_i)
            probs, d_scores = probs.astype(dtype), d_scores.astype(dtype)
            dq = dq + _product("rnqt,rntk->rnqk", d_scores, k[j])
            dk = _add(dk, j, _product("rnkq,rnqt->rnkt", q_turned, d_scores))
            return dq, dk, _add(dv, j, _product("rnkq,rnqt->rnkt", g_turned, probs))

        carry = meet(i, (jnp.zeros_like(qi, jnp.float32), *grads))
        dq, *grads = lax.fori_loop(0, count, lambda n, carry: meet(earlier[n], carry), carry)
        return tuple(grads), _of_matrix(dq.astype(_dtype_in_loops(dtype)), Q)

    # float32, because they sum over blocks; zeros_like, so that in a shard_map they vary over the mesh as
    # the arrays do; [B, R, N, K, Q]
    zeros = tuple(jnp.zeros_like(x.swapaxes(3, 4), jnp.float32) for x in (k, v))
    blocks = (jnp.arange(len(q)), q, g, centre, log_total, *_earlier(end))
    (dk, dv), dq = lax.scan(step, zeros, blocks)
    dk, dv = (
        _slots(lax.map(lambda x: _of_matrix(x.swapaxes(2, 3), Q), total), T).astype(dtype)
        for total in (dk, dv)
    )
    return _slots(dq, T).astype(dtype), dk, dv


def decode_attention(
    q_RSHK: jax.Array,
    k_RSNK: jax.Array,
    v_RSNK: jax.Array,
    prefix: tuple[jax.Array, jax.Array],
    prefix_mask_RST: jax.Array,
    own: tuple[jax.Array, jax.Array],
    own_mask_RSC: jax.Array,
) -> jax.Array:
    """Attention of one new token per branch to the shared prefix, to the branch's earlier tokens, and to
    itself. Returns [R, S, H, K].

    `prefix` holds keys and values [R, N, T, K], read once per row for all S branches. `own` holds those of
    each branch [R, S, N, C, K], in any order. The masks say which prefix slots and which of its own positions
    a branch sees. `k_RSNK` and `v_RSNK` belong to the new token.
    """
    R, S, H, K = q_RSHK.shape
    N = k_RSNK.shape[2]
    q = (q_RSHK * jnp.asarray(K**-0.5, q_RSHK.dtype)).reshape(R, S, N, H // N, K)
    (prefix_k, prefix_v), (branch_k, branch_v) = prefix, own
    # scores are [R, N, S, G, ...] for the prefix, where all queries of a key head form one matrix, and
    # [R, S, N, G, ...] for a branch's own tokens: only sums over keys are transposed, never keys or values
    # keys come first in these products, because the other way round takes a CPU two to four times as long;
    # without the barriers XLA turns them round again
    on_prefix = _product("rntk,rnqk->rntq", prefix_k, q.swapaxes(1, 2).reshape(R, N, -1, K))
    on_prefix = lax.optimization_barrier(on_prefix).swapaxes(2, 3).reshape(R, N, S, H // N, -1)
    on_prefix = jnp.where(prefix_mask_RST[:, None, :, None], on_prefix, _MASKED)
    on_branch = _product("rsnck,rsngk->rsncg", branch_k, q)
    on_branch = lax.optimization_barrier(on_branch).swapaxes(3, 4)
    on_branch = jnp.where(own_mask_RSC[:, :, None, None], on_branch, _MASKED)
    on_self = _product("rsngk,rsnk->rsng", q, k_RSNK)

    top = jnp.maximum(jnp.maximum(on_prefix.max(-1).swapaxes(1, 2), on_branch.max(-1)), on_self)
    w_prefix = jnp.exp(on_prefix - top.swapaxes(1, 2)[..., None])
    w_branch, w_self = jnp.exp(on_branch - top[..., None]), jnp.exp(on_self - top)
    total = w_prefix.sum(-1).swapaxes(1, 2) + w_branch.sum(-1) + w_self
    out = _product(
        "rnqt,rntk->rnqk", w_prefix.reshape(R, N, -1, w_prefix.shape[-1]).astype(prefix_v.dtype), prefix_v
    )
    out = out.reshape(R, N, S, H // N, K).swapaxes(1, 2)
    out = out + _product("rsngc,rsnck->rsngk", w_branch, branch_v.astype(jnp.float32))
    out = out + w_self[..., None] * v_RSNK[:, :, :, None].astype(jnp.float32)
    return (out / total[..., None]).astype(q_RSHK.dtype).reshape(R, S, H, K)


def cached_attention(q_RQHK: jax.Array, cache: tuple[jax.Array, jax.Array], mask_RQT: jax.Array) -> jax.Array:
    """Attention of several new tokens per row to the keys and values [R, N, T, K] of a cache, their own among
    them; the mask says which slots each one sees. Returns [R, Q, H, K]."""
    R, Q, H, K = q_RQHK.shape
    keys, values = cache
    N = keys.shape[1]
    q = (q_RQHK * jnp.asarray(K**-0.5, q_RQHK.dtype)).reshape(R, Q, N, H // N, K)
    q = q.transpose(0, 2, 1, 3, 4).reshape(R, N, -1, K)
    scores = _product("rnqk,rntk->rnqt", q, keys).reshape(R, N, Q, H // N, -1)
    scores = jnp.where(mask_RQT[:, None, :, None], scores, _MASKED)
    weights = jax.nn.softmax(scores, axis=-1).reshape(R, N, Q * (H // N), -1)
    out = _product("rnqt,rntk->rnqk", weights.astype(values.dtype), values)
    out = out.reshape(R, N, Q, H // N, K).transpose(0, 2, 1, 3, 4)
    return out.astype(q_RQHK.dtype).reshape(R, Q, H, K)
