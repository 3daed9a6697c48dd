"""Objectives of policy gradients, written as the few numbers that a test is about."""

from types import SimpleNamespace

from pivotrl_jax.training import objectives


def policy_gradient(
    clip_low: float, clip_high: float, kl_coefficient: float, **fields
) -> objectives.Objective:
    """`objectives.policy_gradient` of a config with these fields; the others are the base config's."""
    plain = {
        "loss": "grpo",
        "importance": "ratio",
        "importance_cap": 2.0,
        "kl_estimator": "k3",
        "kl_in": "loss",
    }
    numbers = {"clip_low": clip_low, "clip_high": clip_high, "kl_coefficient": kl_coefficient}
    return objectives.policy_gradient(SimpleNamespace(**numbers, **{**plain, **fields}))
