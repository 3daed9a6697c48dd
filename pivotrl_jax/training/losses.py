"""The losses of policy gradients, and SFT's, as functions of log-probs: a loss never sees a model.

A loss is a function `(tokens, config) -> (loss of every token, metrics of every token)`; `config` is the
run's `config.grpo`. To add one, write such a function and name it in LOSSES, or in a config as
"my_package.module:function":

    def reinforce(tokens, config):
        ratio = jnp.exp(tokens.log_prob - tokens.behaviour_log_prob)
        return -ratio * tokens.advantage, {"ratio": ratio}

What the field calls variants are combinations of a loss with the fields of `config.grpo`: Dr.GRPO (arXiv
2503.20783) divides neither by a standard deviation (normalise="none") nor by a sampled length
(aggregation="fixed_length"); RLOO (arXiv 2402.14740) takes baseline="leave_one_out" with normalise="none";
DAPO (arXiv 2503.14476) clips higher above than below, draws groups anew until enough of them are mixed
(dynamic_rounds), and leaves cut completions out of the loss (mask_unfinished).

Axis letters: R rows, T slots.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pivotrl_jax import plugins

# arrays [R, T]: tokens, position, parent, subtree_end, weight, and what the loss reads; experts [R, T, L, A]
Batch = dict[str, Any]
# (log_prob, entropy, batch) -> (what is minimised, sums over trained tokens)
Objective = Callable[[jax.Array, jax.Array, Batch], tuple[jax.Array, dict[str, jax.Array]]]


class Tokens(NamedTuple):
    """What a loss sees of a batch: arrays [R, T], zero in slots that are not trained."""

    log_prob: jax.Array  # float32, of the policy, at the sampler's temperature
    behaviour_log_prob: jax.Array  # float32, as the sampler recorded it for this very token
    advantage: jax.Array  # float32
    sequence: jax.Array | None  # int32: 0 where nothing is trained, else the sample's number within its row

    @property
    def log_ratio(self) -> jax.Array:
        """log(policy / sampler): how far the policy has moved, and how the two programs' numbers differ."""
        return self.log_prob - self.behaviour_log_prob


def grpo(tokens: Tokens, config: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The clipped ratio of tokens (PPO; GRPO, arXiv 2402.03300)."""
    weight, log_ratio, metrics = importance(tokens.log_ratio, config)
    loss, clipped = clipped_ratio_loss(log_ratio, tokens.advantage, config.clip_low, config.clip_high)
    return weight * loss, {"clip_fraction": clipped, **metrics}


def gspo(tokens: Tokens, config: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The clipped ratio of whole sequences (GSPO, arXiv 2507.18071). Take it with aggregation
    "sequence_mean"."""
    weight, log_ratio, metrics = importance(sequence_log_ratio(tokens.log_ratio, tokens.sequence), config)
    loss, clipped = clipped_ratio_loss(log_ratio, tokens.advantage, config.clip_low, config.clip_high)
    return weight * loss, {"clip_fraction": clipped, **metrics}


def cispo(tokens: Tokens, config: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    """A clipped constant ratio times the log-prob (CISPO: MiniMax-M1, arXiv 2506.13585, equations 4 and 5).

    Clipping bounds how much a token counts; unlike PPO's it never silences one. The paper clips above alone:
    that is clip_low = 1.
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


# ---- objectives: what a learner minimises


def policy_gradient(config: Any) -> Objective:
    """The objective of `config.grpo`: its loss with every token's weight, and the KL to the reference where
    `kl_in` is "loss".

    Batch fields: `advantage`, `behaviour_log_prob`, `sequence`, and with a KL `reference_log_prob`. Raises
    InputError when `config.loss` names nothing.
    """
    token_loss = plugins.find("losses", config.loss, LOSSES, "config.grpo.loss")
    kl_coefficient = config.kl_coefficient if config.kl_in == "loss" else 0.0

    def objective(log_prob, entropy, batch):
        weight, trained = batch["weight"], batch["weight"] > 0
        tokens = Tokens(log_prob, batch["behaviour_log_prob"], batch["advantage"], batch.get("sequence"))
        loss, metrics = token_loss(tokens, config)
        sums = {
            "loss": (weight * loss).sum(),
            "tokens": trained.sum(),
            "entropy": (entropy * trained).sum(),
            "log_prob_drift": (jnp.abs(tokens.log_ratio) * trained).sum(),
            **{name: (value * trained).sum() for name, value in metrics.items()},
        }
        total = sums["loss"]
        if kl_coefficient:
            cap = config.importance_cap if config.importance == "tis" else None
            reference = batch["reference_log_prob"]
            kl = kl_loss(log_prob, tokens.behaviour_log_prob, reference, config.kl_estimator, cap)
            sums["kl"] = (kl * trained).sum()
            total = total + kl_coefficient * (weight * kl).sum()
        return total, sums

    return objective


def negative_log_likelihood(
    log_prob: jax.Array, entropy: jax.Array, batch: Batch
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The objective of supervised fine-tuning: weighted negative log-likelihood of the trained tokens."""
    trained = batch["weight"] > 0
    total = (batch["weight"] * -log_prob).sum()
    sums = {"loss": total, "tokens": trained.sum(), "nll": -(log_prob * trained).sum()}
    return total, {**sums, "entropy": (entropy * trained).sum()}


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

    "ratio": the ratio is to the sampler, and the weight is 1. "tis": the ratio is to the policy itself, 1 in
    value, and what policy and sampler differ by is a constant weight up to `config.importance_cap`; then no
    token is clipped, as is right with one update per batch.
    """
    if config.importance != "tis":
        return 1.0, log_ratio, {}
    weight = truncated_weight(log_ratio, config.importance_cap)
    return weight, unit(log_ratio), {"importance_capped": weight >= config.importance_cap}


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
