"""Attention over a forest, and decode attention over a trunk and a branch.

Axis letters as in `model.py`. Visibility is the one rule of `forest.py`: slot i sees slot j exactly when
`j <= i < subtree_end[j]`. Softmax runs in float32: bfloat16 sums over thousands of keys lose the small ones.
"""

import functools

import jax
import jax.numpy as jnp

_MASKED = -1e30  # finite, so that a row without any visible key (padding) stays free of NaN


def visible(query_slot: jax.Array, subtree_end: jax.Array) -> jax.Array:
    """bool [..., Q, T]: whether the token at each query slot [..., Q] sees slot j, given subtree_end [...,
    T]."""
    key_slot = jnp.arange(subtree_end.shape[-1])
    query = query_slot[..., :, None]
    return (key_slot <= query) & (query < subtree_end[..., None, :])


def forest_attention(
    q_RTHK: jax.Array, k_RTNK: jax.Array, v_RTNK: jax.Array, subtree_end_RT: jax.Array, chunk: int
) -> jax.Array:
    """Grouped-query attention of every slot to the slots it sees. Returns [R, T, H, K] in the dtype of `q`.

    Queries go in chunks of `chunk` slots and each chunk only meets the keys at or before its own end, so the
    causal upper half is never computed. The backward pass keeps one log-sum-exp per query and recomputes
    scores, so memory is O(T x chunk), not O(T x T). Padding slots (subtree_end 0) see nothing and return the
    mean of the values: finite, and never read.
    """
    R, T, H, K = q_RTHK.shape
    N = k_RTNK.shape[2]
    q_RNGTK = q_RTHK.reshape(R, T, N, H // N, K).transpose(0, 2, 3, 1, 4) * jnp.asarray(K**-0.5, q_RTHK.dtype)
    k_RNTK, v_RNTK = k_RTNK.transpose(0, 2, 1, 3), v_RTNK.transpose(0, 2, 1, 3)
    out_RNGTK = _attend(q_RNGTK, k_RNTK, v_RNTK, subtree_end_RT, chunk)
    return out_RNGTK.transpose(0, 3, 1, 2, 4).reshape(R, T, H, K)


def _scores(q, k, subtree_end, start):
    """float32 [R, N, G, C, t]: scores of the query chunk at `start` with the first t keys, masked where
    unseen."""
    R, N, G, C, _ = q.shape
    scores = jnp.einsum("rnqk,rntk->rnqt", _fold(q), k, preferred_element_type=jnp.float32)
    mask = visible(jnp.broadcast_to(start + jnp.arange(C), (R, C)), subtree_end)
    return jnp.where(mask[:, None, None], scores.reshape(R, N, G, C, -1), _MASKED)


def _fold(x):
    """[R, N, G, C, X] -> [R, N, G * C, X]: queries that share a key head, as one matrix."""
    return x.reshape(*x.shape[:2], -1, x.shape[-1])


def _chunks(T: int, chunk: int) -> list[tuple[int, int]]:
    return [(start, min(start + chunk, T)) for start in range(0, T, chunk)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(q, k, v, subtree_end, chunk):
    return _attend_fwd(q, k, v, subtree_end, chunk)[0]


def _attend_fwd(q, k, v, subtree_end, chunk):
    outs, totals = [], []
    for start, stop in _chunks(q.shape[3], chunk):
        scores = _scores(q[:, :, :, start:stop], k[:, :, :stop], subtree_end[:, :stop], start)
        top = scores.max(-1, keepdims=True)
        weights = jnp.exp(scores - top)
        total = weights.sum(-1, keepdims=True)
        out = jnp.einsum("rnqt,rntk->rnqk", _fold(weights.astype(v.dtype)), v[:, :, :stop])
        outs.append((out.reshape(*weights.shape[:4], -1) / total).astype(q.dtype))
        totals.append((top + jnp.log(total))[..., 0])
    out, log_total = jnp.concatenate(outs, axis=3), jnp.concatenate(totals, axis=3)
    return out, (q, k, v, subtree_end, out, log_total)


def _attend_bwd(chunk, residual, g):
    q, k, v, subtree_end, out, log_total = residual
    # sum_t p dp, which softmax's gradient subtracts, equals g . out
    centre = (g.astype(jnp.float32) * out.astype(jnp.float32)).sum(-1)
    dk, dv, dqs = jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32), []
    for start, stop in _chunks(q.shape[3], chunk):
        here = slice(start, stop)
        qc, gc, kc, vc = q[:, :, :, here], g[:, :, :, here], k[:, :, :stop], v[:, :, :stop]
        scores = _scores(qc, kc, subtree_end[:, :stop], start)
        probs = jnp.exp(scores - log_total[:, :, :, here, None])
        d_probs = jnp.einsum("rnqk,rntk->rnqt", _fold(gc), vc, preferred_element_type=jnp.float32)
        d_probs = d_probs.reshape(probs.shape)
        # a padding query has uniform probs over masked scores: its d_scores must not leak through the mask
        d_scores = jnp.where(scores > _MASKED, probs * (d_probs - centre[:, :, :, here, None]), 0.0)
        probs, d_scores = probs.astype(q.dtype), d_scores.astype(q.dtype)
        dqs.append(jnp.einsum("rnqt,rntk->rnqk", _fold(d_scores), kc).reshape(qc.shape))
        dk = dk.at[:, :, :stop].add(jnp.einsum("rnqt,rnqk->rntk", _fold(d_scores), _fold(qc)))
        dv = dv.at[:, :, :stop].add(jnp.einsum("rnqt,rnqk->rntk", _fold(probs), _fold(gc)))
    return jnp.concatenate(dqs, axis=3), dk.astype(k.dtype), dv.astype(v.dtype), None


_attend.defvjp(_attend_fwd, _attend_bwd)


def decode_attention(
    q_RSHK: jax.Array,
    k_RSNK: jax.Array,
    v_RSNK: jax.Array,
    trunk: tuple[jax.Array, jax.Array],
    trunk_mask_RST: jax.Array,
    own: tuple[jax.Array, jax.Array],
    length: jax.Array,
) -> jax.Array:
    """One new token per branch against the shared trunk, the branch's own past, and itself. Returns [R, S,
    H, K].

    `trunk` holds keys and values [R, N, T, K], read once per row for all S branches; `own` holds [R, S, C,
    N, K], of which the first `length` positions are filled; `k_RSNK`, `v_RSNK` belong to the new token.
    """
    R, S, H, K = q_RSHK.shape
    N = k_RSNK.shape[2]
    G = H // N
    q = q_RSHK.reshape(R, S, N, G, K) * jnp.asarray(K**-0.5, q_RSHK.dtype)
    trunk_k, trunk_v = trunk
    own_k, own_v = own
    q_RNSG = q.transpose(0, 2, 1, 3, 4).reshape(R, N, S * G, K)
    on_trunk = jnp.einsum("rnqk,rntk->rnqt", q_RNSG, trunk_k, preferred_element_type=jnp.float32)
    on_trunk = on_trunk.reshape(R, N, S, G, -1).transpose(0, 2, 1, 3, 4)  # [R, S, N, G, T]
    on_trunk = jnp.where(trunk_mask_RST[:, :, None, None], on_trunk, _MASKED)
    on_own = jnp.einsum("rsngk,rsnck->rsngc", q, own_k, preferred_element_type=jnp.float32)
    on_own = jnp.where(jnp.arange(own_k.shape[3]) < length, on_own, _MASKED)
    on_self = jnp.einsum("rsngk,rsnk->rsng", q, k_RSNK, preferred_element_type=jnp.float32)[..., None]

    top = jnp.maximum(jnp.maximum(on_trunk.max(-1), on_own.max(-1)), on_self[..., 0])[..., None]
    w_trunk, w_own, w_self = jnp.exp(on_trunk - top), jnp.exp(on_own - top), jnp.exp(on_self - top)
    total = w_trunk.sum(-1) + w_own.sum(-1) + w_self[..., 0]
    w_RNSG = w_trunk.transpose(0, 2, 1, 3, 4).reshape(R, N, S * G, -1).astype(trunk_v.dtype)
    out = jnp.einsum("rnqt,rntk->rnqk", w_RNSG, trunk_v, preferred_element_type=jnp.float32)
    out = out.reshape(R, N, S, G, K).transpose(0, 2, 1, 3, 4)
    out = out + jnp.einsum("rsngc,rsnck->rsngk", w_own, own_v.astype(jnp.float32))
    out = out + w_self * v_RSNK[:, :, :, None].astype(jnp.float32)
    return (out / total[..., None]).astype(q_RSHK.dtype).reshape(R, S, H, K)
