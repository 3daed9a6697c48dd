"""A demonstration as the policy would write it: its token ids, and its verdict."""

import math

from pivotrl_jax.records import Candidate, Rollout, Verdict
from pivotrl_jax.rollouts.actor import Completion
from pivotrl_jax.rollouts.rollout import Rollouts, verdict_of


def ids_of(rollouts: Rollouts, candidate: Candidate) -> list[int]:
    """The demonstration's token ids, stop token included."""
    return rollouts.chat.completion_ids(candidate.messages, candidate.tools, candidate.demonstration)


def verdict_on(rollouts: Rollouts, candidate: Candidate, ids: list[int]) -> Verdict:
    """What the verifier's rules say of these token ids; no judge is asked."""
    sampled = Completion(ids, [], [], finished=True)
    text = rollouts.chat.decode(ids)
    return verdict_of(rollouts.chat, rollouts.verifier_of(candidate), candidate, sampled, text)


def rollout_of(rollouts: Rollouts, candidate: Candidate, sample: int) -> Rollout | None:
    """The demonstration as a rollout, with NaN for log-probs, since nobody drew it. None where the policy
    cannot write it within its token limit, and where the verifier's rules give it no reward."""
    ids = ids_of(rollouts, candidate)
    if len(ids) > rollouts.actor.sampling.max_tokens:
        return None
    verdict = verdict_on(rollouts, candidate, ids)
    if not verdict.reward:
        return None
    unknown = [math.nan] * len(ids)
    return Rollout(
        candidate_id=candidate.id,
        sample=sample,
        token_ids=ids,
        log_probs=unknown,
        model_log_probs=unknown,
        finished=True,
        text=rollouts.chat.decode(ids),
        reward=verdict.reward,
        reason="demonstration",
    )
