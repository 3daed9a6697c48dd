"""Candidates + sampler + verifier -> rollouts.

Prompts become token ids here, completions become text and actions here, and the sampled ids themselves go on
to the loss untouched.
"""

import collections
import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np

from pivotrl_jax import verifiers
from pivotrl_jax.chat.template import Chat
from pivotrl_jax.models import decoder
from pivotrl_jax.records import Candidate, Rollout, Verdict
from pivotrl_jax.rollouts.actor import Actor, Completion, Request
from pivotrl_jax.verifiers.judge import Judge, resolve_with_judge


@dataclasses.dataclass(frozen=True)
class RoutedRollout(Rollout):
    """A rollout with the experts that its tokens and its prompt's were given, to replay. Not for disk."""

    experts: np.ndarray | None = dataclasses.field(default=None, compare=False)
    prompt_experts: np.ndarray | None = dataclasses.field(default=None, compare=False)


def roll_out(
    actor: Actor,
    params: decoder.Params,
    chat: Chat,
    candidates: Sequence[Candidate],
    prompts: Sequence[Sequence[int]],
    group_size: int,
    stream: jax.Array,
    verifier: str | None = None,
    on_batch: Callable[[int], None] = lambda done: None,
    judge: Judge | None = None,
    first: int = 0,
) -> list[list[Rollout]]:
    """G verified rollouts of every candidate, in order: those from number `first` on of a larger group.

    `prompts` are the candidates' prompt ids, rendered once by the caller. `verifier` overrides the
    candidates' own (the ablations). A completion cut at the token limit gets 0: a policy must not earn by
    never stopping. What verifiers leave open is asked of the `judge`, all at once; its replies are kept, so
    the same rollouts after a failure ask only for the rest.
    """
    requests, seen = [], collections.Counter()
    for c, prompt in zip(candidates, prompts):
        # a candidate that occurs twice is sampled twice, with keys of its own
        name = f"{c.id}#{seen[c.id]}" if seen[c.id] else c.id
        seen[c.id] += 1
        requests.append(Request(name, prompt, c.trajectory_id, group_size, first))
    drawn = actor.act(params, requests, stream, on_batch)
    flat = [(c, first + i, one) for c, group in zip(candidates, drawn) for i, one in enumerate(group)]
    texts = [chat.decode(one.token_ids) for _, _, one in flat]
    verdicts = [_verdict(chat, c, one, text, verifier) for (c, _, one), text in zip(flat, texts)]
    rollouts = [
        _rollout(c, i, one, text, verdict)
        for (c, i, one), text, verdict in zip(flat, texts, resolve_with_judge(verdicts, judge))
    ]
    ends = np.cumsum([len(group) for group in drawn]).tolist()
    return [rollouts[end - len(group) : end] for group, end in zip(drawn, ends)]


def _verdict(chat: Chat, candidate: Candidate, drawn: Completion, text: str, verifier: str | None) -> Verdict:
    if not drawn.finished:
        return Verdict(0.0, "unfinished", f"no stop token within {len(drawn.token_ids)} tokens")
    return verifiers.get(verifier or candidate.verifier).verify(candidate, chat.parse(text))


def _rollout(candidate: Candidate, sample: int, drawn: Completion, text: str, verdict: Verdict) -> Rollout:
    routed = (
        {} if drawn.experts is None else {"experts": drawn.experts, "prompt_experts": drawn.prompt_experts}
    )
    kind = RoutedRollout if routed else Rollout
    return kind(
        candidate_id=candidate.id,
        sample=sample,
        token_ids=drawn.token_ids,
        log_probs=drawn.log_probs,
        model_log_probs=drawn.model_log_probs,
        finished=drawn.finished,
        text=text,
        reward=verdict.reward,
        reason=verdict.reason,
        details=verdict.details,
        **routed,
    )
