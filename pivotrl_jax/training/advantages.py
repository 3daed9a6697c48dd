"""From the rewards of groups to advantages and token weights (numpy, on the host)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pivotrl_jax.records import Rollout
from pivotrl_jax.training import losses


def mixed_groups(reward_PG: np.ndarray) -> np.ndarray:
    """bool [P]: groups whose rewards differ, the only ones that teach (Proposition 3.1). NaN is an absent
    reward.

    NeMo-RL's dynamic sampling tests every sample instead: with a leave-one-out baseline it drops a lone
    success, because the others' rewards are all equal, and keeps the failures around it
    (NVIDIA-NeMo/RL#4158). Here a group is kept or dropped whole.
    """
    reward_PG = np.asarray(reward_PG, np.float64)
    high = np.fmax.reduce(reward_PG, axis=1)  # ignores NaN; a group of NaN alone gives NaN
    return high > np.fmin.reduce(reward_PG, axis=1)  # std > 0 would round; a range does not


def advantages(reward_PG: np.ndarray, baseline: str, normalise: str, eps: float) -> np.ndarray:
    """(r_i - baseline_i) / (std_i + eps) within each group; `normalise` "none" leaves out the division.
    float64 [P, G].

    baseline "mean": mean and population std of the group (PivotRL, section 3; GRPO, arXiv 2402.03300).
    "leave_one_out": mean and sample std of the other rewards of the group, as in NeMo-RL; where that std is 0
    the difference is not divided, so a lone success among failures gets 1.

    A group of equal rewards gives exactly zero: no gradient (Proposition 3.1). NaN is an absent reward: it
    enters no mean or std, and its advantage is zero.
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
    """The mean and std of the whole group: (differences from the mean, std)."""
    return reward_G - reward_G.mean(), np.full(len(reward_G), reward_G.std())


def _mean_of_others(reward_G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean and sample std of the others in the group: (differences from the mean, std)."""
    others = np.stack([np.delete(reward_G, i) for i in range(len(reward_G))])
    equal = np.ptp(others, axis=1) == 0  # their std is exactly 0, whatever rounding makes of it
    std = others.std(axis=1) * np.sqrt(others.shape[1] / max(others.shape[1] - 1, 1))
    return reward_G - others.mean(axis=1), np.where(equal, 0.0, std)


BASELINES = {"mean": _mean_of_all, "leave_one_out": _mean_of_others}


def group_advantages(reward_PG: np.ndarray, eps: float) -> np.ndarray:
    """GRPO's advantages: `advantages` with the group's mean and std."""
    return advantages(reward_PG, "mean", "std", eps)


def _token_mean(length: np.ndarray, max_tokens: int) -> np.ndarray:
    """Every token of the batch weighs the same (DAPO)."""
    return length.sum()


def _sequence_mean(length: np.ndarray, max_tokens: int) -> np.ndarray:
    """Every sample weighs the same, and its tokens share its weight (GRPO as published; GSPO)."""
    return (length > 0).sum() * length


def _fixed_length(length: np.ndarray, max_tokens: int) -> np.ndarray:
    """Every token weighs 1 / (all samples times `sampling.max_tokens`), whatever the lengths (Dr.GRPO)."""
    return length.size * max_tokens


# (trained tokens of each sample, sampling.max_tokens) -> the denominator of a token's weight
AGGREGATIONS = {
    "token_mean": _token_mean,
    "sequence_mean": _sequence_mean,
    "fixed_length": _fixed_length,
}


def token_weights(length: np.ndarray, aggregation: str, max_tokens: int) -> np.ndarray:
    """The weight in the loss of each token of a sample: float64, of the shape of `length`, which holds the
    samples' numbers of trained tokens. A sample that is left out has length 0 and weight 0; under
    "fixed_length" it still counts among the samples.

    The denominators are those of the whole batch, however it is cut into rows and microbatches. Raises
    KeyError unless `aggregation` is one of AGGREGATIONS.
    """
    length = np.asarray(length)
    total = AGGREGATIONS[aggregation](length, max_tokens)
    return np.divide(1.0, total, out=np.zeros(length.shape), where=length > 0)


def sums_to_go(value_RT: np.ndarray, sequence_RT: np.ndarray) -> np.ndarray:
    """For every slot, the sum of the values from it to the end of its sequence: float64 [R, T]. A sequence is
    a run of slots with the same number above 0; slots with number 0 get 0."""
    slots = np.arange(sequence_RT.shape[1])
    follows = np.pad(sequence_RT[:, 1:], ((0, 0), (0, 1)), constant_values=-1) == sequence_RT
    end = np.where(follows, slots[-1], slots)  # right at the last slot of each run
    end = np.minimum.accumulate(end[:, ::-1], axis=1)[:, ::-1]  # and now at every slot
    value_RT = np.where(sequence_RT > 0, value_RT, 0.0).astype(np.float64)
    so_far = value_RT.cumsum(axis=1)
    return np.where(sequence_RT > 0, np.take_along_axis(so_far, end, axis=1) - so_far + value_RT, 0.0)


def kl_penalty(policy: np.ndarray, reference: np.ndarray, sequence: np.ndarray) -> np.ndarray:
    """What KL(policy || reference) takes off a token's advantage when it is part of the reward: the sum of
    k1 = log(policy / reference) over the token and those that follow in its sequence. Float64 [R, T].

    On policy, the expected gradient is exactly that of the KL between distributions over whole completions.
    That of `kl_loss` is not: it compares next tokens, and ignores that a token decides what comes after it.
    This does not hold for k2 or k3 in place of k1: as a reward, k3 has the gradient of KL(policy ||
    reference) - KL(reference || policy).
    """
    return sums_to_go(policy.astype(np.float64) - reference, sequence)


def rewards_of(groups: Sequence[Sequence[Rollout]]) -> np.ndarray:
    """float64 [P, G]; an abstention (None) becomes NaN."""
    return np.array([[rollout.reward for rollout in group] for group in groups], np.float64)


def trained_of(groups: Sequence[Sequence[Rollout]], config: Any) -> np.ndarray:
    """bool [P, G]: the rollouts that are trained on: those with a reward, and under
    `config.mask_unfinished` those that finished. `config` is the run's `config.grpo`."""
    finished = np.array([[rollout.finished for rollout in group] for group in groups])
    return ~np.isnan(rewards_of(groups)) & (finished | (not config.mask_unfinished))


def advantages_of(groups: Sequence[Sequence[Rollout]], config: Any) -> np.ndarray:
    """float64 [P, G]: the advantages of `config.grpo`, clipped. A completion that cannot be parsed gets
    `malformed_advantage`, if that is set, whatever the rest of its group earned (NeMo-RL's penalty)."""
    advantage_PG = advantages(rewards_of(groups), config.baseline, config.normalise, config.advantage_eps)
    if config.advantage_clip:
        advantage_PG = advantage_PG.clip(-config.advantage_clip, config.advantage_clip)
    if config.malformed_advantage:
        malformed = [[rollout.reason == "malformed" for rollout in group] for group in groups]
        advantage_PG = np.where(malformed, config.malformed_advantage, advantage_PG)
    return advantage_PG


def teaching_groups(groups: Sequence[Sequence[Rollout]], config: Any) -> np.ndarray:
    """bool [P]: groups with a trained rollout whose advantage is not zero: mixed ones, and with
    `malformed_advantage` those with a completion that cannot be parsed."""
    return (advantages_of(groups, config) * trained_of(groups, config)).any(axis=1)


def subtract_kl(batch: losses.Batch, log_prob_RT: np.ndarray, coefficient: float) -> float:
    """Subtract the KL to the reference from the advantages of a batch, in place: the KL as a part of the
    reward. `log_prob_RT` are the policy's, of the same program as the reference's. The advantages are already
    divided by a std, so the coefficient means the same as in the loss. Returns the mean KL per trained
    token."""
    reference, trained = batch.pop("reference_log_prob"), batch["sequence"] > 0
    batch["advantage"] -= coefficient * kl_penalty(log_prob_RT, reference, batch["sequence"])
    return float((log_prob_RT - reference)[trained].mean()) if trained.any() else 0.0
