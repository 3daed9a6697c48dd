"""The losses of policy gradients, and SFT's, as functions of log-probs: a loss never sees a model.

A loss is a function `(tokens, config) -> (loss of every token, metrics of every token)`; `config` is the
run's `config.grpo`, and no other metric of a step may have the names of these. To add one, write such a
function and name it in LOSSES, or in a config as "my_package.module:function":

    def reinforce(tokens, config):
        ratio = jnp.exp(tokens.log_prob - tokens.behaviour_log_prob)
        return -ratio * tokens.advantage, {"ratio": ratio}

Published variants are combinations of a loss with fields of `config.grpo`: Dr.GRPO (arXiv 2503.20783) divides
neither by a standard deviation (normalise="none") nor by a sampled length (aggregation="fixed_length"); RLOO
(arXiv 2402.14740) takes baseline="leave_one_out" with normalise="none"; DAPO (arXiv 2503.14476) clips higher
above than below, samples further groups until enough of them are mixed (dynamic_rounds), and masks unfinished
completions (mask_unfinished).

Axis letters: R rows, T slots.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# arrays [R, T]: tokens, position, parent, subtree_end, weight, and what the loss reads; experts [R, T, L, A]
Batch = dict[str, Any]


class Tokens(NamedTuple):
    """What a loss sees of a batch: arrays [R, T], zero in slots that are not trained."""

    log_prob: jax.Array  # float32, of the policy, at the sampler's temperature
    behaviour_log_prob: jax.Array  # float32, as the sampler recorded it for this very token
    advantage: jax.Array  # float32
    sequence: jax.Array | None  # int32: 0 where nothing is trained, else the sample's number within its row

    @property
    def log_ratio(self) -> jax.Array:
        """log(policy / sampler): how far the policy has moved, plus what the two programs differ by."""
        return self.log_prob - self.behaviour_log_prob


def grpo(tokens: Tokens, config: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The clipped ratio of tokens (PPO; GRPO, arXiv 2402.03300)."""
    weight, log_ratio, metrics = importance(tokens.log_ratio, config)
    loss, clipped = clipped_ratio_loss(log_ratio, tokens.advantage, config.clip_low, config.clip_high)
    return weight * loss, {"clip_fraction": clipped, **metrics}


def gspo(tokens: Tokens, config: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The clipped ratio of whole sequences (GSPO, arXiv 2507.18071). Use it with aggregation
    "sequence_mean"."""
    weight, log_ratio, metrics = importance(sequence_log_ratio(tokens.log_ratio, tokens.sequence), config)
    loss, clipped = clipped_ratio_loss(log_ratio, tokens.advantage, config.clip_low, config.clip_high)
    return weight * loss, {"clip_fraction": clipped, **metrics}


def cispo(tokens: Tokens, config: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    """A clipped constant ratio times the log-prob (CISPO: MiniMax-M1, arXiv 2506.13585, equations 4 and 5).

    Clipping bounds how much a token counts; unlike in PPO, every token keeps a gradient. The paper clips only
    from above: that is clip_low = 1.
    """
    weight, log_ratio, metrics = importance(tokens.log_ratio, config)
    ratio = jax.lax.stop_gradient(jnp.exp(log_ratio))
    clipped = jnp.clip(ratio, 1 - config.clip_low, 1 + config.clip_high)
    loss = -clipped * tokens.advantage * tokens.log_prob
    return weight * loss, {"clip_fraction": clipped != ratio, **metrics}


LOSSES: dict[str, Callable[[Tokens, Any], tuple[jax.Array, dict[str, jax.Array]]]] = {
    "grpo": grpo,
    "gspo": gspo,
    "cispo": cispo,
}


# ---- what losses are made of


def clipped_ratio_loss(
    log_ratio: jax.Array, advantage: jax.Array, clip_low: float, clip_high: float
) -> tuple[jax.Array, jax.Array]:
    """Per-token PPO loss -min(ratio * A, clip(ratio, 1 - clip_low, 1 + clip_high) * A), and whether it was
    clipped."""
    ratio = jnp.exp(log_ratio)
    plain, clipped = ratio * advantage, jnp.clip(ratio, 1 - clip_low, 1 + clip_high) * advantage
    return -jnp.minimum(plain, clipped), clipped < plain


def importance(log_ratio: jax.Array, config: Any) -> tuple[jax.Array | float, jax.Array, dict]:
    """(weight of the loss, log ratio that the loss clips, metrics) as `config.importance` says.

    "ratio": the ratio is policy / sampler, and the weight is 1. "tis": the ratio is policy / policy, which is
    1 in value, and min(policy / sampler, `config.importance_cap`) becomes a constant weight; then no token is
    clipped, as is right with one update per batch.
    """
    if config.importance != "tis":
        return 1.0, log_ratio, {}
    weight = truncated_weight(log_ratio, config.importance_cap)
    return weight, unit(log_ratio), {"importance_capped": weight >= config.importance_cap}


def sequence_log_ratio(log_ratio_RT: jax.Array, sequence_RT: jax.Array) -> jax.Array:
    """GSPO's log ratio in its per-token form (arXiv 2507.18071, equations 7 and 14): its value is the mean of
    the tokens' log ratios over a sequence, its gradient is that of the token's own log ratio. [R, T].

    sequence_RT: int32, 0 for slots that are not trained, else a number of the sequence within its row.

    With "sequence_mean" weights, its clipped loss has GSPO's value and gradient: the factor 1 / length that
    the geometric mean would bring is already in the weight.
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
