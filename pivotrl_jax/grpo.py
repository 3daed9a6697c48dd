"""Advantages and weights of samples (numpy, on the host), GRPO's losses and SFT's as functions of log-probs.
A loss never sees a model.

What the field calls variants are combinations of these: Dr.GRPO (arXiv 2503.20783) divides neither by a
standard deviation nor by a length that was sampled; RLOO (arXiv 2402.14740) takes the leave-one-out baseline,
undivided; DAPO (arXiv 2503.14476) clips higher above than below, draws groups anew until enough of them are
mixed, and leaves cut completions out of the loss.

Axis letters: P pivots of a batch, G rollouts of a group, R rows, T slots.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


def mixed_groups(reward_PG: np.ndarray) -> np.ndarray:
    """bool [P]: groups whose rewards differ, the only ones that teach (Proposition 3.1). NaN is an absent
    reward.

    NeMo-RL's dynamic sampling asks this of every sample instead: with a leave-one-out baseline it drops a
    lone success, whose others are all equal, and keeps the failures around it (NVIDIA-NeMo/RL#4158). Here a
    group is kept or dropped whole.
    """
    reward_PG = np.asarray(reward_PG, np.float64)
    high = np.fmax.reduce(reward_PG, axis=1)  # fmax and fmin pass over NaN, and of nothing else make NaN
    return high > np.fmin.reduce(reward_PG, axis=1)  # not std > 0: a mean rounds, a range does not


def advantages(reward_PG: np.ndarray, baseline: str, normalise: str, eps: float) -> np.ndarray:
    """(r_i - baseline_i) / (std_i + eps) within each group, or with `normalise` "none" undivided. float64
    [P, G].

    baseline "mean": mean and population std of the group (PivotRL, section 3; GRPO, arXiv 2402.03300).
    "leave_one_out": mean and sample std of the other rewards of the group, as in NeMo-RL; where that std is 0
    the difference stays undivided, so a lone success among failures gets 1.

    A group of equal rewards gives exactly zero: no gradient (Proposition 3.1). NaN is an absent reward: it
    counts nowhere, and gets zero.
    """
    reward_PG = np.asarray(reward_PG, np.float64)
    of_group = BASELINES[baseline]
    out = np.zeros_like(reward_PG)
    for p in np.flatnonzero(mixed_groups(reward_PG)):
        there = ~np.isnan(reward_PG[p])
        difference, std = of_group(reward_PG[p, there])
        if normalise == "std":
            difference = np.divide(difference, std + eps, out=difference.copy(), where=std > 0)
        out[p, there] = difference
    return out


def _mean_of_all(reward_G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(differences from the mean, std) of one group."""
    return reward_G - reward_G.mean(), np.full(len(reward_G), reward_G.std())


def _mean_of_others(reward_G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(differences from the mean of the others, the others' sample std) of one group."""
    others = np.stack([np.delete(reward_G, i) for i in range(len(reward_G))])
    equal = np.ptp(others, axis=1) == 0  # exactly 0 then, which rounding would not leave
    std = others.std(axis=1) * np.sqrt(others.shape[1] / max(others.shape[1] - 1, 1))
    return reward_G - others.mean(axis=1), np.where(equal, 0.0, std)


BASELINES = {"mean": _mean_of_all, "leave_one_out": _mean_of_others}


def group_advantages(reward_PG: np.ndarray, eps: float) -> np.ndarray:
    """GRPO's own: `advantages` over the group's mean and std."""
    return advantages(reward_PG, "mean", "std", eps)


def token_weights(length: np.ndarray, aggregation: str, max_tokens: int) -> np.ndarray:
    """The loss's weight of every token of a sample, from the samples' numbers of trained tokens: float64 of
    any shape to the same. A sample that is left out has length 0, and weight 0.

    "token_mean": every token of the batch weighs the same (DAPO). "sequence_mean": every sample weighs the
    same, its tokens share that (GRPO as published; GSPO). "fixed_length": 1 / (all samples times
    `max_tokens`), left out or not: a constant, so that no length changes what a token weighs (Dr.GRPO).

    The denominators are the whole batch's, whatever rows and microbatches it is cut into. Raises KeyError.
    """
    length = np.asarray(length)
    kept = length > 0
    total = {
        "token_mean": length.sum(),
        "sequence_mean": kept.sum() * length,
        "fixed_length": length.size * max_tokens,
    }[aggregation]
    return np.divide(1.0, total, out=np.zeros(length.shape), where=kept)


def sums_to_go(value_RT: np.ndarray, sequence_RT: np.ndarray) -> np.ndarray:
    """For every slot the sum of the values from it to the end of its sequence: float64 [R, T]. Sequences are
    runs of slots with one number above 0; slots of number 0 have 0."""
    slots = np.arange(sequence_RT.shape[1])
    follows = np.pad(sequence_RT[:, 1:], ((0, 0), (0, 1)), constant_values=-1) == sequence_RT
    end = np.where(follows, slots[-1], slots)  # of a slot's run, once the smallest that comes after is taken
    end = np.minimum.accumulate(end[:, ::-1], axis=1)[:, ::-1]
    value_RT = np.where(sequence_RT > 0, value_RT, 0.0).astype(np.float64)
    so_far = value_RT.cumsum(axis=1)
    return np.where(sequence_RT > 0, np.take_along_axis(so_far, end, axis=1) - so_far + value_RT, 0.0)


def kl_penalty(behaviour: np.ndarray, reference: np.ndarray, sequence: np.ndarray) -> np.ndarray:
    """What KL(policy || reference) takes off a token's advantage when it is part of the reward: k1 =
    log(policy / reference) of the token and of those that follow in its sequence. [R, T] to float64 [R, T].

    On policy the expected gradient is exactly that of the KL between distributions over whole completions,
    which `kl_loss` is not: it compares next tokens, and leaves out that a token decides what is met later.
    With k2 or k3 in place of k1 this would not be so: as a reward, k3 has the gradient of KL(policy ||
    reference) - KL(reference || policy).
    """
    return sums_to_go(behaviour.astype(np.float64) - reference, sequence)


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


def sft_loss(log_prob: jax.Array) -> jax.Array:
    """Per-token negative log-likelihood."""
    return -log_prob
