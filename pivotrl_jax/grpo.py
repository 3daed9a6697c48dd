"""GRPO and SFT losses as functions of log-probs, and group-normalised advantages. The loss never sees a
model.

Axis letters: P pivots of a batch, G rollouts of a group, R rows, T slots.
"""

import jax
import jax.numpy as jnp
import numpy as np


def group_advantages(reward_PG: np.ndarray, eps: float) -> np.ndarray:
    """A_i = (r_i - mean) / (std + eps) within each group; population std. float64 [P, G]. (PivotRL, section
    3.)

    A group of equal rewards gives exactly zero: no gradient (Proposition 3.1).
    """
    reward_PG = np.asarray(reward_PG, np.float64)
    centred = reward_PG - reward_PG.mean(axis=1, keepdims=True)
    scale = reward_PG.std(axis=1, keepdims=True) + eps
    mixed = np.ptp(reward_PG, axis=1, keepdims=True) > 0  # not std > 0: a mean rounds, a range does not
    return np.divide(centred, scale, out=np.zeros_like(centred), where=np.broadcast_to(mixed, centred.shape))


def clipped_ratio_loss(
    log_prob: jax.Array,
    behaviour_log_prob: jax.Array,
    advantage: jax.Array,
    clip_low: float,
    clip_high: float,
) -> tuple[jax.Array, jax.Array]:
    """Per-token PPO loss -min(ratio * A, clip(ratio, 1 - clip_low, 1 + clip_high) * A), and whether it was
    clipped.

    `behaviour_log_prob` is what the sampler recorded for the very token, under the distribution it drew from.
    """
    ratio = jnp.exp(log_prob - behaviour_log_prob)
    plain, clipped = ratio * advantage, jnp.clip(ratio, 1 - clip_low, 1 + clip_high) * advantage
    return -jnp.minimum(plain, clipped), clipped < plain


def kl_loss(log_prob: jax.Array, behaviour_log_prob: jax.Array, reference_log_prob: jax.Array) -> jax.Array:
    """Per-token KL(policy || reference): the k3 estimate times the importance ratio.

    k3 = exp(d) - d - 1 with d = reference - policy. Weighting by ratio = exp(log_prob - behaviour) adds the
    score term: the expected gradient under the sampler is that of the true KL. Without it k3 has a biased
    gradient (transformers' peers fixed this as huggingface/trl#6503).
    """
    d = reference_log_prob - log_prob
    return jnp.exp(log_prob - behaviour_log_prob) * (jnp.exp(d) - d - 1)


def sft_loss(log_prob: jax.Array) -> jax.Array:
    """Per-token negative log-likelihood."""
    return -log_prob
