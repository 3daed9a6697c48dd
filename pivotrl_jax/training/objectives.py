"""What a learner minimises: the losses of a batch with their weights and the KL, or SFT's likelihood."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pivotrl_jax import plugins
from pivotrl_jax.records import InputError
from pivotrl_jax.training.losses import LOSSES, Batch, Tokens, truncated_weight, unit

# names of a step's metrics (docs/metrics.md), or what stands before a slash in them, that no loss may use
TAKEN = frozenset(
    "loss tokens nll entropy log_prob_drift kl kl_per_turn grad_norm update_norm routing_agreement "
    "balance_loss reward_mean reward_std group_reward_std mixed_groups completion_tokens unfinished "
    "malformed abstained turns_per_episode too_long sampled_groups trained_groups skipped_candidates "
    "rollouts_per_mixed_group demonstrated_groups step fill seconds rollout_seconds tokens_per_second "
    "memory_gib validation reprofiled pivots profiling_rollout_turns profiling_seconds".split()
)
# (log_prob, entropy, batch) -> (what is minimised, sums over trained tokens)
Objective = Callable[[jax.Array, jax.Array, Batch], tuple[jax.Array, dict[str, jax.Array]]]


def policy_gradient(config: Any) -> Objective:
    """The objective of `config.grpo`: its loss with every token's weight, and the KL to the reference where
    `kl_in` is "loss".

    Batch fields: `advantage`, `behaviour_log_prob`, `sequence`, and with a KL `reference_log_prob`. Raises
    InputError when `config.loss` names no loss; the objective does for a loss that is not one number a token,
    or whose metric has the name of another.
    """
    token_loss = plugins.find("losses", config.loss, LOSSES, "config.grpo.loss")
    kl_coefficient = config.kl_coefficient if config.kl_in == "loss" else 0.0

    def objective(log_prob, entropy, batch):
        weight, trained = batch["weight"], batch["weight"] > 0
        tokens = Tokens(log_prob, batch["behaviour_log_prob"], batch["advantage"], batch.get("sequence"))
        loss, metrics = token_loss(tokens, config)
        _check_loss(config.loss, loss, metrics, log_prob)
        sums = {
            "tokens": trained.sum(),
            "entropy": (entropy * trained).sum(),
            "log_prob_drift": (jnp.abs(tokens.log_ratio) * trained).sum(),
            **{name: (value * trained).sum() for name, value in metrics.items()},
        }
        total = (weight * loss).sum()
        if kl_coefficient:
            cap = config.importance_cap if config.importance == "tis" else None
            reference = batch["reference_log_prob"]
            kl = kl_loss(log_prob, tokens.behaviour_log_prob, reference, config.kl_estimator, cap)
            sums["kl"] = (kl * trained).sum()
            total = total + kl_coefficient * (weight * kl).sum()
        return total, sums

    return objective


def _check_loss(name: str, loss: jax.Array, metrics: dict[str, jax.Array], log_prob: jax.Array) -> None:
    if jnp.shape(loss) != log_prob.shape:
        raise InputError(
            f"config.grpo.loss: {name} returned a loss of shape {jnp.shape(loss)} for log-probs of shape "
            f"{log_prob.shape}; return one number a token, and no mean"
        )
    if taken := sorted(metric for metric in metrics if metric.partition("/")[0] in TAKEN):
        raise InputError(
            f"config.grpo.loss: {name} returned metrics called {', '.join(taken)}, as others are that every "
            "step logs; rename them"
        )


def negative_log_likelihood(
    log_prob: jax.Array, entropy: jax.Array, batch: Batch
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The objective of supervised fine-tuning: weighted negative log-likelihood of the trained tokens."""
    trained = batch["weight"] > 0
    total = (batch["weight"] * -log_prob).sum()
    sums = {"tokens": trained.sum(), "nll": -(log_prob * trained).sum()}
    return total, {**sums, "entropy": (entropy * trained).sum()}


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
        k2  constant(ratio) * d^2 / 2   biased in value: it is the KL only to second order in d
        k3  ratio * (exp(d) - d - 1)    exact in value, and never negative

    The ratio adds the score term to the gradient. Without it the expected gradient of k1 is zero, and that of
    k3 is the one of KL(reference || policy) (fixed in TRL by huggingface/trl#6503). k2 has the right gradient
    without the term and would count it twice, so its ratio is a constant. With a `cap` the ratio is
    truncated; where that happens, value and gradient are too small.
    """
    d = reference_log_prob - log_prob
    log_ratio = log_prob - behaviour_log_prob
    ratio = jnp.exp(log_ratio)
    if cap is not None:  # value: min(ratio, cap); gradient: this value times that of log_prob
        ratio = truncated_weight(log_ratio, cap) * jnp.exp(unit(log_ratio))
    return KL_ESTIMATORS[estimator](ratio, d)


KL_ESTIMATORS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "k1": lambda ratio, d: ratio * -d,
    "k2": lambda ratio, d: jax.lax.stop_gradient(ratio) * d**2 / 2,
    "k3": lambda ratio, d: ratio * (jnp.exp(d) - d - 1),
}
