"""Asks a policy the items of the suite: greedy replies, and log-probs of continuations.

Questions are sampled through the actor at temperature 0, `REPLY_TOKENS` at most. Choices and passages are
scored by the model itself, all ends of a prompt in one token tree.
"""

from collections.abc import Sequence

import jax
import numpy as np

from pivotrl_jax.chat.template import Chat
from pivotrl_jax.evaluation.language.items import Choice, Item, Passage, Question
from pivotrl_jax.models import decoder, forest, lora
from pivotrl_jax.rollouts import progress
from pivotrl_jax.rollouts.actor import Request, make_actor
from pivotrl_jax.rollouts.rollout import Rollouts
from pivotrl_jax.rollouts.scoring import Scorer
from pivotrl_jax.run.run import Run

REPLY_TOKENS = 64


def score(run: Run, params: decoder.Params, items: Sequence[Item], key: jax.Array) -> list[dict]:
    """One result per item, in order: id, family, and "correct" (1 or 0) or "bits_per_byte".

    A question's result has the reply, too. `params` are sharded as in the learner; `key` is a PRNG key, which
    changes nothing, since replies are greedy.
    """
    config = run.trained_config if lora.has_adapters(params) else run.model_config
    greedy = {"temperature": 0.0, "max_tokens": REPLY_TOKENS}
    actor = make_actor(run, run.config.evaluate.batch, config, sampling=greedy)
    questions = [item for item in items if isinstance(item, Question)]
    known = [item for item in items if not isinstance(item, Question)]
    results = {
        **ask(Rollouts(actor, run.chat), actor.place(params), questions, key),
        **_continue(run, config, params, known),
    }
    return [{"id": item.id, "family": item.family, **results[item.id]} for item in items]


def ask(
    rollouts: Rollouts, params: decoder.Params, questions: Sequence[Question], key: jax.Array
) -> dict[str, dict]:
    """Question id -> {"correct", "reply"}. A reply that calls or cannot be read is wrong. `params` are as
    `Actor.place` returns them."""
    chat = rollouts.chat
    requests = [Request(q.id, chat.prompt_ids(_said(q.question), []), q.id, 1) for q in questions]
    with progress.bar(len(questions), "language suite", "items") as bar:
        completions = rollouts.actor.act(params, requests, key, bar.update)
    results = {}
    for question, (completion,) in zip(questions, completions):
        text = chat.decode(completion.token_ids)
        action = chat.parse(text)
        is_talk = not (action.calls or action.malformed or chat.unknown_ids(completion.token_ids))
        whole = completion.finished or question.may_be_cut
        correct = is_talk and whole and question.judge(action.content)
        results[question.id] = {"correct": float(correct), "reply": text}
    return results


def _said(question: str) -> list[dict]:
    return [{"role": "user", "content": question}]


def continuations(chat: Chat, prompt: str, ends: Sequence[str]) -> tuple[list[int], list[list[int]]]:
    """(token ids that all texts begin with, the other ids of `prompt` with each end).

    A prompt and its end are tokenised as one text, as lm-evaluation-harness does: alone, an end may get other
    tokens (one more space at its front with a tokenizer like Llama's). Where a token holds the last character
    of the prompt and the first of an end, all ends are scored from that character on.
    """
    texts = [chat.encode(prompt), *(chat.encode(prompt + end) for end in ends)]
    shared = next((i for i, ids in enumerate(zip(*texts)) if len(set(ids)) > 1), min(map(len, texts)))
    return texts[0][:shared], [ids[shared:] for ids in texts[1:]]


def _start(chat: Chat) -> list[int]:
    """The token that the tokenizer puts in front of a text without a chat; [] if it puts none."""
    return [i for i in chat.tokenizer.encode("")[:1] if i == chat.tokenizer.bos_token_id]


def _piece(chat: Chat, number: int, item: Choice | Passage) -> forest.Piece:
    if isinstance(item, Choice):  # the template writes what a text starts with
        start, prompt = [], chat.render(_said(item.question), []) + item.sentence
    else:
        start, prompt = _start(chat), item.beginning
    trunk, branches = continuations(chat, prompt, _ends(item))
    return forest.Piece(number, [*start, *trunk], branches)


def _ends(item: Choice | Passage) -> list[str]:
    return [f" {end}" for end in item.ends] if isinstance(item, Choice) else [item.rest]


def _continue(run: Run, config, params: decoder.Params, known: Sequence[Choice | Passage]) -> dict[str, dict]:
    """Item id -> {"correct"} or {"bits_per_byte"}."""
    pieces = [_piece(run.chat, number, item) for number, item in enumerate(known)]
    if not pieces:
        return {}
    totals = Scorer(config, run.config.compute, run.mesh)(params, [[piece] for piece in pieces])
    results = {}
    for item, total in zip(known, totals):
        per_byte = [log_prob / len(end.encode()) for log_prob, end in zip(total, _ends(item))]
        if isinstance(item, Choice):
            results[item.id] = {"correct": float(int(np.argmax(per_byte)) == item.answer)}
        else:
            results[item.id] = {"bits_per_byte": -per_byte[0] / float(np.log(2))}
    return results
