"""How far a policy is from another: the KL per turn on its own samples, and the log-prob of given turns."""

from collections.abc import Sequence

import jax
import numpy as np

from pivotrl_jax.models import decoder, forest
from pivotrl_jax.records import Prompt
from pivotrl_jax.rollouts.rollout import Rollouts
from pivotrl_jax.rollouts.scoring import Scorer


def log_ratios(
    rollouts: Rollouts,
    scorer: Scorer,
    params: decoder.Params,
    reference: decoder.Params,
    prompts: Sequence[Prompt],
    key: jax.Array,
) -> list[float]:
    """Per prompt log pi(y) - log pi_ref(y), in nats, of one turn y that `rollouts` samples from pi, whose
    parameters are `params`. Their mean estimates the KL per turn, if `rollouts` samples at temperature 1
    without truncation. `reference` is sharded as in the learner; `key` is a PRNG key."""
    groups = rollouts.sample(rollouts.actor.place(params), prompts, 1, key)
    turns = [group[0].token_ids for group in groups]
    under_reference = log_probs(scorer, reference, prompts, turns)
    return [sum(group[0].model_log_probs) - total for group, total in zip(groups, under_reference)]


def log_probs(
    scorer: Scorer, params: decoder.Params, prompts: Sequence[Prompt], turns: Sequence[Sequence[int]]
) -> list[float]:
    """The log-prob in nats of a given turn after each prompt: a sum over its tokens, stop token included."""
    trees = [
        [forest.Piece(i, prompt.ids, [np.asarray(turn, np.int32)])]
        for i, (prompt, turn) in enumerate(zip(prompts, turns, strict=True))
    ]
    return [total for (total,) in scorer(params, trees)]
