"""A KL budget as a stopping rule: training ends with the last state whose KL to pi_0 was within it.

The KL is measured on the rollouts that a step trains on, in nats per turn: the mean over turns of

    sum over tokens of exp(d) - 1 - d        d = log pi_0(token) - log pi(token)

Both log-probs are the learner's: the sampler's differ by what its program rounds (`log_prob_drift`), which is
no KL. For tokens that the policy drew, the expectation is exactly KL(pi || pi_0) of whole turns, by its chain
rule; no term is negative ("k3"; Schulman, "Approximating KL divergence", 2020). Demonstrations, which it did
not draw, are left out. The rollouts come from the state before the update, so a state is known to be within
the budget only when the next step has drawn from it; saving.py keeps the one before.
"""

import numpy as np

from pivotrl_jax.training.losses import Batch


def per_turn(batch: Batch, log_prob_RT: np.ndarray, drawn_RT: np.ndarray) -> float:
    """The KL per turn of a batch with `reference_log_prob`. `log_prob_RT` are the policy's, of the same
    program; `drawn_RT` says which tokens it drew. NaN if it drew none."""
    drawn = drawn_RT & (batch["sequence"] > 0)
    d = (batch["reference_log_prob"].astype(np.float64) - log_prob_RT)[drawn]
    rows = np.broadcast_to(np.arange(len(drawn))[:, None], drawn.shape)[drawn]
    turns = len(set(zip(rows.tolist(), batch["sequence"][drawn].tolist())))
    return float((np.expm1(d) - d).sum() / turns) if turns else np.nan


def why_stop(step: int, kl: float, budget: float) -> str:
    """Why training must end, `kl` being that of the state after `step` steps; "" if it need not. A KL that
    could not be measured stops nothing."""
    if not kl > budget:
        return ""
    return (
        f"the KL to pi_0 after {step} steps is {kl:.3g} nats per turn, beyond config.grpo.kl_budget, "
        f"{budget:g}: training stops, and the result is the state after {max(step - 1, 0)} steps"
    )
