"""Prompts + sampler + verifier -> rollouts.

Verifiers score the text and the action of a completion; the loss gets the sampled token ids, untouched.
"""

import collections
import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np

from pivotrl_jax import verifiers
from pivotrl_jax.chat.replies import action_of, message_of, text_of
from pivotrl_jax.chat.template import Chat
from pivotrl_jax.models import decoder
from pivotrl_jax.records import Candidate, Prompt, Rollout, Verdict
from pivotrl_jax.rollouts.actor import Actor, Completion, Request, make_actor
from pivotrl_jax.verifiers.base import Verifier
from pivotrl_jax.verifiers.judge import Judge, resolve_with_judge


@dataclasses.dataclass(frozen=True)
class RoutedRollout(Rollout):
    """A rollout with the experts chosen for its tokens and its prompt, for replay. Never written to disk."""

    experts: np.ndarray | None = dataclasses.field(default=None, compare=False)
    prompt_experts: np.ndarray | None = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass(frozen=True)
class Rollouts:
    """Everything that turns prompts into verified rollouts, except the policy's parameters."""

    actor: Actor
    chat: Chat
    verifier: str | None = None  # for all candidates, instead of their own (the exact-match ablation)
    judge: Judge | None = None  # decides what the verifiers' rules leave open

    def verifier_of(self, candidate: Candidate) -> Verifier:
        """The verifier that scores this candidate's actions. Raises InputError for an unknown name."""
        return verifiers.get(self.verifier or candidate.verifier)

    def sample(
        self,
        params: decoder.Params,
        prompts: Sequence[Prompt],
        group_size: int,
        key: jax.Array,
        first: int = 0,
        on_batch: Callable[[int], None] = lambda done: None,
    ) -> list[list[Rollout]]:
        """`group_size` verified rollouts of every prompt, in order. `first` is the index of the first one if
        they are part of a larger group.

        `params` are as `Actor.place` returns them; `key` is a PRNG key; `on_batch` is called with the number
        of completions in each batch. A completion that is cut at the token limit gets reward 0, so that a
        policy earns nothing by never stopping. So does one with ids that belong to no token: its text does
        not show them. Questions that the rules leave open go to the judge together.
        Its replies are stored on disk: after a failure, the same rollouts ask only the remaining questions.
        """
        requests, repeats = [], collections.Counter()
        for prompt in prompts:
            c = prompt.candidate
            # a candidate that occurs twice is sampled twice, with different PRNG keys
            name = f"{c.id}#{repeats[c.id]}" if repeats[c.id] else c.id
            repeats[c.id] += 1
            requests.append(Request(name, prompt.ids, c.trajectory_id, group_size, first, c))
        completions = self.actor.act(params, requests, key, on_batch)
        flat = [
            (prompt.candidate, first + i, completion)
            for prompt, group in zip(prompts, completions)
            for i, completion in enumerate(group)
        ]
        texts = [self._text(completion) for _, _, completion in flat]
        verdicts = [
            verdict_of(self.chat, self.verifier_of(c), c, completion, text)
            for (c, _, completion), text in zip(flat, texts)
        ]
        rollouts = [
            _rollout(c, i, completion, text, verdict)
            for (c, i, completion), text, verdict in zip(
                flat, texts, resolve_with_judge(verdicts, self.judge)
            )
        ]
        ends = np.cumsum([len(group) for group in completions]).tolist()
        return [rollouts[end - len(group) : end] for group, end in zip(completions, ends)]

    def _text(self, completion: Completion) -> str:
        reply = message_of(completion.served)
        return self.chat.decode(completion.token_ids) if reply is None else text_of(reply)


def verdict_of(
    chat: Chat, verifier: Verifier, candidate: Candidate, sampled: Completion | Rollout, text: str
) -> Verdict:
    """The verdict on a completion with this text, sampled now or read from disk. No judge is asked yet."""
    reply, tokens = message_of(sampled.served), len(sampled.token_ids)
    if not sampled.finished:
        within = f"within {tokens} tokens" if reply is None else "before the server's limit"
        return Verdict(0.0, "unfinished", f"no stop token {within}")
    if unknown := chat.unknown_ids(sampled.token_ids):
        return Verdict(0.0, "malformed", f"ids that belong to no token: {unknown[:5]}")
    if reply is not None:
        return verifier.verify(candidate, action_of(reply, candidate.tools))
    return verifier.verify(candidate, chat.parse(text, candidate.tools))


def make_rollouts(run, batch, trained: bool = False, record_experts: bool = False) -> Rollouts:
    """The `Rollouts` of a run. `batch` is the batch shape of one of its config's sections, for example
    `config.profile.batch`.

    `trained`: sample from the model that is trained, which has adapters under LoRA, instead of the reference
    policy. `record_experts`: record the experts that a mixture chose, for replay.
    """
    config = run.trained_config if trained else run.model_config
    return Rollouts(make_actor(run, batch, config, record_experts), run.chat, run.verifier, run.judge)


def _rollout(
    candidate: Candidate, sample: int, completion: Completion, text: str, verdict: Verdict
) -> Rollout:
    fields = {
        "candidate_id": candidate.id,
        "sample": sample,
        "token_ids": completion.token_ids,
        "log_probs": completion.log_probs,
        "model_log_probs": completion.model_log_probs,
        "finished": completion.finished,
        "text": text,
        "reward": verdict.reward,
        "reason": verdict.reason,
        "details": verdict.details,
        "served": completion.served,
    }
    if completion.experts is None:
        return Rollout(**fields)
    return RoutedRollout(**fields, experts=completion.experts, prompt_experts=completion.prompt_experts)
