"""Advantages and weights of samples (numpy, on the host), GRPO's losses and SFT's as functions of log-probs.
A loss never sees a model.

What the field calls variants are combinations of these: Dr.GRPO (arXiv 2503.20783) divides neither by a
standard deviation nor by a length that was sampled; RLOO (arXiv 2402.14740) takes the leave-one-out baseline,
undivided; DAPO (arXiv 2503.14476) clips higher above than below, draws groups anew until enough of them are
mixed, and leaves cut completions out of the loss.

Axis letters: P pivots of a batch, G rollouts of a group, R rows, T slots.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# ---- losses


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


def clipped_weight_loss(
    log_prob: jax.Array, log_ratio: jax.Array, advantage: jax.Array, clip_low: float, clip_high: float
) -> tuple[jax.Array, jax.Array]:
    """CISPO (MiniMax-M1, arXiv 2506.13585, equations 4 and 5): per-token -clip(ratio) * A * log_prob, with no
    gradient through the ratio, and whether it was clipped.

    Clipping bounds how much a token counts; unlike PPO's it never silences one. The paper clips above alone:
    that is clip_low = 1.
    """
    ratio = jax.lax.stop_gradient(jnp.exp(log_ratio))
    clipped = jnp.clip(ratio, 1 - clip_low, 1 + clip_high)
    return -clipped * advantage * log_prob, clipped != ratio


def sequence_log_ratio(log_ratio_RT: jax.Array, sequence_RT: jax.Array) -> jax.Array:
    """GSPO's log ratio in its per-token form (arXiv 2507.18071, equations 7 and 14): in value the mean of the
    tokens' log ratios over a sequence, in gradient the token's own. [R, T].

    sequence_RT: int32, 0 for slots that are not trained, else a number of the sequence within its row.

    Under "sequence_mean" weights the clipped loss of it has GSPO's value and its gradient: the 1 / length
    that the geometric mean would bring is the weight's.
    """

    def mean(x_T, sequence_T):
        at = {"num_segments": x_T.shape[0] + 1}
        total = jax.ops.segment_sum(x_T, sequence_T, **at)
        count = jax.ops.segment_sum(jnp.ones_like(x_T), sequence_T, **at)
        return (total / jnp.maximum(count, 1))[sequence_T]

    return jax.vmap(mean)(jax.lax.stop_gradient(log_ratio_RT), sequence_RT) + unit(log_ratio_RT)


def unit(log_ratio: jax.Array) -> jax.Array:
    """Zero, with the gradient of `log_ratio`: the log of a policy's ratio to itself."""
    return log_ratio - jax.lax.stop_gradient(log_ratio)


def truncated_weight(log_ratio: jax.Array, cap: float) -> jax.Array:
    """Truncated importance sampling: min(policy / sampler, cap), a constant to gradients (Ionides 2008; TIS
    of Yao et al. 2025 for samplers whose numbers are not quite the learner's)."""
    return jnp.minimum(jax.lax.stop_gradient(jnp.exp(log_ratio)), cap)


def kl_loss(
    log_prob: jax.Array,
    behaviour_log_prob: jax.Array,
    reference_log_prob: jax.Array,
    estimator: str = "k3",
    cap: float | None = None,
) -> jax.Array:
    """Per-token KL(policy || reference) over next tokens, from tokens that the sampler drew. With every
    estimator the expected gradient under the sampler is exactly that of the true KL.

    d = reference - policy (Schulman, "Approximating KL divergence", 2020), ratio = policy / sampler:

        k1  ratio * -d                  exact in value; noisy, and negative for many tokens
        k2  constant(ratio) * d^2 / 2   biased in value: it is the KL to second order in d alone
        k3  ratio * (exp(d) - d - 1)    exact in value, and never negative

    The ratio adds the score term. Without its gradient k1's is zero in expectation, and k3's is that of
    KL(reference || policy) (transformers' peers fixed this as huggingface/trl#6503). k2 has the right one as
    it stands, and would have it twice. With a `cap` the ratio is truncated there, and where it is, value and
    gradient are too small.
    """
    d = reference_log_prob - log_prob
    log_ratio = log_prob - behaviour_log_prob
    ratio = jnp.exp(log_ratio)
    if cap is not None:  # in value min(ratio, cap); in gradient that value times log_prob's
        ratio = truncated_weight(log_ratio, cap) * jnp.exp(unit(log_ratio))
    return KL_ESTIMATORS[estimator](ratio, d)


KL_ESTIMATORS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "k1": lambda ratio, d: ratio * -d,
    "k2": lambda ratio, d: jax.lax.stop_gradient(ratio) * d**2 / 2,
    "k3": lambda ratio, d: ratio * (jnp.exp(d) - d - 1),
}


def negative_log_likelihood(log_prob: jax.Array) -> jax.Array:
    """Per-token negative log-likelihood."""
    return -log_prob


# arrays [R, T]: tokens, position, parent, subtree_end, weight, and what the loss reads; experts [R, T, L, A]
Batch = dict[str, Any]


Loss = Callable[[jax.Array, jax.Array, Batch], tuple[jax.Array, dict[str, jax.Array]]]


def grpo_loss(
    clip_low: float,
    clip_high: float,
    kl_coefficient: float,
    *,
    surrogate: str = "grpo",
    importance: str = "ratio",
    importance_cap: float = math.inf,
    kl_estimator: str = "k3",
) -> Loss:
    """Weighted policy-gradient loss with optional KL to the reference. Batch fields: `advantage`,
    `behaviour_log_prob`, for "gspo" `sequence` and, when the coefficient is not zero, `reference_log_prob`.

    surrogate: "grpo", the clipped ratio of tokens; "gspo", that of whole sequences; "cispo", a clipped
    constant ratio times the log-prob. The ratio is to the sampler ("ratio": one number holds both how far the
    policy has moved and how the learner's numbers differ from the sampler's). Or ("tis") it is to the policy
    itself, 1 in value, and what the two differ by is a constant weight, policy / sampler up to
    `importance_cap`: then no token is clipped, as is right with one update per batch.
    """

    def loss(log_prob, entropy, batch):
        weight, behaviour = batch["weight"], batch["behaviour_log_prob"]
        trained = weight > 0
        # untrained slots hold zeros in every field: exp(0) = 1, weight 0
        log_ratio = log_prob - behaviour
        if surrogate == "gspo":  # under "tis" a sequence has one weight, too, as it has one ratio
            log_ratio = sequence_log_ratio(log_ratio, batch["sequence"])
        if importance == "tis":
            correction, log_ratio = truncated_weight(log_ratio, importance_cap), unit(log_ratio)
        if surrogate == "cispo":
            terms = clipped_weight_loss(log_prob, log_ratio, batch["advantage"], clip_low, clip_high)
        else:
            terms = clipped_ratio_loss(log_ratio, 0.0, batch["advantage"], clip_low, clip_high)
        token_loss, clipped = terms
        if importance == "tis":
            token_loss = correction * token_loss
        drift = jnp.abs(log_prob - behaviour)
        sums = {
            "loss": (weight * token_loss).sum(),
            "tokens": trained.sum(),
            "entropy": (entropy * trained).sum(),
            "clip_fraction": (clipped & trained).sum(),
            "log_prob_drift": (drift * trained).sum(),
        }
        if importance == "tis":
            sums["importance_capped"] = ((correction >= importance_cap) & trained).sum()
        total = sums["loss"]
        if kl_coefficient:
            cap = importance_cap if importance == "tis" else None
            kl = kl_loss(log_prob, behaviour, batch["reference_log_prob"], kl_estimator, cap)
            sums["kl"] = (kl * trained).sum()
            total = total + kl_coefficient * (weight * kl).sum()
        return total, sums

    return loss


def sft_loss(log_prob: jax.Array, entropy: jax.Array, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Weighted negative log-likelihood of the trained tokens."""
    trained = batch["weight"] > 0
    total = (batch["weight"] * negative_log_likelihood(log_prob)).sum()
    sums = {"loss": total, "tokens": trained.sum(), "nll": -(log_prob * trained).sum()}
    return total, {**sums, "entropy": (entropy * trained).sum()}
