"""The demonstration as one sample of an all-fail group.

A group whose rewards are all 0 has no gradient (Proposition 3.1), and most of what a policy cannot do lies at
such states. Here the last sample of such a group is replaced by the demonstration, which has the reward that
the verifier gives it. Nothing more is sampled.

Nobody drew these tokens from the policy. Their behaviour log-prob is the current policy's own, as the learner
computes it, so that their ratio is 1: the gradient is advantage * grad log pi(token), imitation with the
group's advantage for a weight, and clipping cuts nothing. Dividing by the true sampler, the expert, is not
possible, since its probabilities are unknown. Taking the expert for certain (a probability of 1, as LUFFY,
arXiv 2504.14945) would multiply every gradient by pi(token), which is smallest at the tokens that are to be
learnt. The price: the update no longer is the policy gradient of the expected reward, and pulls to the
expert's style as SFT does. Watch the KL (`config.grpo.kl_budget`).
"""

from collections.abc import Sequence

import numpy as np

from pivotrl_jax.models import decoder
from pivotrl_jax.records import Prompt, Rollout
from pivotrl_jax.rollouts import demonstrations
from pivotrl_jax.rollouts.rollout import Rollouts
from pivotrl_jax.training.learner import Learner
from pivotrl_jax.training.losses import Batch


class Demonstrations:
    """The demonstrations of a run's candidates as rollouts, each verified once."""

    def __init__(self, rollouts: Rollouts):
        self._rollouts, self._found = rollouts, {}

    def put_in(self, prompts: Sequence[Prompt], groups: Sequence[list[Rollout]]) -> list[list[Rollout]]:
        """The groups of these prompts, where the demonstration replaces the last sample if all rewards are 0.
        A group stays as it is if the verifier does not reward the demonstration."""
        return [self._replaced(prompt, group) for prompt, group in zip(prompts, groups, strict=True)]

    def _replaced(self, prompt: Prompt, group: list[Rollout]) -> list[Rollout]:
        if any(rollout.reward != 0 for rollout in group):
            return group
        c = prompt.candidate
        if c.id not in self._found:
            self._found[c.id] = demonstrations.rollout_of(self._rollouts, c, len(group) - 1)
        demonstration = self._found[c.id]
        return [*group[:-1], demonstration] if demonstration else group


def demonstrated(groups: Sequence[Sequence[Rollout]]) -> int:
    """How many groups hold a demonstration."""
    return sum(group[-1].reason == "demonstration" for group in groups)


def score(batch: Batch, learner: Learner, params: decoder.Params) -> np.ndarray:
    """Fill in the behaviour log-probs that are NaN, those of demonstrations, with the policy's own, in place.
    Returns where they were: bool [R, T]. Only rows that hold some are computed."""
    unknown = np.isnan(batch["behaviour_log_prob"])
    rows = np.flatnonzero(unknown.any(axis=1))
    if len(rows):
        own = learner.score(params, {name: x[rows] for name, x in batch.items()})
        batch["behaviour_log_prob"][rows] = np.where(unknown[rows], own, batch["behaviour_log_prob"][rows])
    return unknown
