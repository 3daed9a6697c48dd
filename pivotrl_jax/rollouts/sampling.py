"""Drawing a token from logits: temperature, top-k, nucleus and min-p, and the log-prob of what was drawn.

Axis letters as in `models/decoder.py`; B counts rows, each with logits of its own.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are sampled. `top_k` = 0, `top_p` = 1 and `min_p` = 0 do not truncate the distribution."""

    temperature: float  # 0: the most likely token
    top_p: float
    top_k: int
    min_p: float  # as a fraction of the most likely token's probability
    max_tokens: int
    stop_ids: tuple[int, ...]

    @property
    def plain(self) -> bool:
        """Whether tokens are drawn from the model's own distribution."""
        return self.temperature == 1 and self.top_p >= 1 and not self.top_k and not self.min_p


def restrict(scores: jax.Array, top_p: float, top_k: int, min_p: float) -> jax.Array:
    """Scores [..., V] with -inf for tokens that top-k, then the nucleus, then min-p leave out.

    The nucleus is the smallest set of most likely tokens whose mass reaches `top_p`; it always holds at least
    one token. `min_p` leaves out tokens less likely than that fraction of the most likely one's probability.
    The order is that of transformers.
    """
    if top_k:
        smallest = jax.lax.top_k(scores, min(top_k, scores.shape[-1]))[0][..., -1:]
        scores = jnp.where(scores < smallest, -jnp.inf, scores)
    if top_p < 1:
        scores = nucleus(scores, jnp.sort(scores, axis=-1)[..., ::-1], top_p)
    if min_p:
        smallest = scores.max(-1, keepdims=True) + np.log(min_p)
        scores = jnp.where(scores < smallest, -jnp.inf, scores)
    return scores


def nucleus(scores: jax.Array, ordered: jax.Array, top_p: float | jax.Array) -> jax.Array:
    """Scores [..., V] with -inf outside of the nucleus; `ordered` has them in falling order. Of equal scores
    as many stay as belong to it, the first ones."""
    probs = jax.nn.softmax(ordered, axis=-1)
    inside = jnp.cumsum(probs, axis=-1) - probs < top_p
    smallest = jnp.min(jnp.where(inside, ordered, jnp.inf), axis=-1, keepdims=True)
    above, equal = scores > smallest, scores == smallest
    room = inside.sum(-1, keepdims=True) - above.sum(-1, keepdims=True)
    return jnp.where(above | (equal & (jnp.cumsum(equal, axis=-1) <= room)), scores, -jnp.inf)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Drawn:
    """One sampled token per sample, and its log-probs as `Samples` defines them."""

    token: jax.Array
    log_prob: jax.Array
    model_log_prob: jax.Array


def log_prob_of(scores_BV: jax.Array, token_B: jax.Array) -> jax.Array:
    """Log-prob [B] of one token per row under softmax(scores)."""
    score = jnp.take_along_axis(scores_BV, token_B[:, None], axis=-1)[:, 0]
    return score - jax.nn.logsumexp(scores_BV, axis=-1)


def draw_token(scores_BV: jax.Array, key_B: jax.Array) -> jax.Array:
    """One token per row, int32 [B], drawn from softmax(scores): where a uniform number falls among the
    cumulated probabilities. A random number for every token (the Gumbel trick) costs a CPU as much as the
    model. First a block of tokens is found, then the token in it."""
    B, V = scores_BV.shape
    Q = max(1, math.isqrt(V))
    weights = jnp.exp(scores_BV - scores_BV.max(-1, keepdims=True))
    weights = jnp.pad(weights, ((0, 0), (0, -V % Q))).reshape(B, -1, Q)
    blocks = weights.sum(-1)
    total = jnp.cumsum(blocks, axis=-1)
    at = jax.vmap(lambda key: jax.random.uniform(key, dtype=jnp.float32))(key_B) * total[:, -1]
    block = _first_above(total, blocks, at)
    before = jnp.take_along_axis(total - blocks, block[:, None], axis=-1)[:, 0]
    weights = jnp.take_along_axis(weights, block[:, None, None], axis=1)[:, 0]
    return block * Q + _first_above(jnp.cumsum(weights, axis=-1), weights, at - before)


def _first_above(total: jax.Array, weights: jax.Array, at: jax.Array) -> jax.Array:
    """The first index of each row at which the running `total` [B, X] of `weights` [B, X] exceeds `at` [B];
    if rounding left none, the last one that has weight."""
    found = (total <= at[:, None]).sum(-1)
    last = weights.shape[-1] - 1 - jnp.argmax(weights[:, ::-1] > 0, axis=-1)
    return jnp.minimum(found, last).astype(jnp.int32)


def draw(logits_BV: jax.Array, key_B: jax.Array, sampling: Sampling) -> Drawn:
    """Sample one token per row, with its log-probs. At temperature 0, `log_prob` is 0 by definition."""
    if sampling.temperature == 0:
        token = jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
        return Drawn(token, jnp.zeros(token.shape, jnp.float32), log_prob_of(logits_BV, token))
    scores = logits_BV / sampling.temperature
    scores = restrict(scores, sampling.top_p, sampling.top_k, sampling.min_p)
    token = draw_token(scores, key_B)
    log_prob = log_prob_of(scores, token)
    return Drawn(token, log_prob, log_prob if sampling.plain else log_prob_of(logits_BV, token))
