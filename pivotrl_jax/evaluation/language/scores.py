"""Asks a policy the items of the suite: greedy replies, and log-probs of continuations.

Questions are sampled through the actor at temperature 0, `REPLY_TOKENS` at most. Choices and passages are
scored by the model itself, all ends of a prompt in one token tree.
"""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from pivotrl_jax.evaluation.language.items import Choice, Item, Passage, Question
from pivotrl_jax.models import decoder, forest, lora, sharding
from pivotrl_jax.models import log_probs as log_probs_lib
from pivotrl_jax.rollouts import progress
from pivotrl_jax.rollouts.actor import Request, make_actor
from pivotrl_jax.rollouts.rollout import Rollouts
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


def _continue(run: Run, config, params: decoder.Params, known: Sequence[Choice | Passage]) -> dict[str, dict]:
    """Item id -> {"correct"} or {"bits_per_byte"}."""
    prompts, ends = [], []
    for item in known:
        if isinstance(item, Choice):
            prompt = run.chat.render(_said(item.question), []) + item.sentence
            prompts.append(prompt)
            ends.append([f" {end}" for end in item.ends])
        else:
            prompts.append(item.beginning)
            ends.append([item.rest])
    encode = run.chat.encode
    pieces = [
        forest.Piece(i, encode(prompt), [encode(end) for end in group])
        for i, (prompt, group) in enumerate(zip(prompts, ends))
    ]
    totals = log_probs(run, config, params, pieces) if pieces else []
    results = {}
    for item, group, total in zip(known, ends, totals):
        per_byte = [log_prob / len(end.encode()) for log_prob, end in zip(total, group)]
        if isinstance(item, Choice):
            results[item.id] = {"correct": float(int(np.argmax(per_byte)) == item.answer)}
        else:
            results[item.id] = {"bits_per_byte": -per_byte[0] / float(np.log(2))}
    return results


def log_probs(run: Run, config, params: decoder.Params, pieces: Sequence[forest.Piece]) -> list[list[float]]:
    """The natural log-prob of every branch of every piece, given the piece's prompt: sums over tokens, at
    temperature 1. Pieces are keyed by their index. Raises InputError for a piece longer than any row."""
    compute = run.config.compute
    rows = sharding.row_shards(run.mesh)

    def compute_rows(params, batch):
        packed = decoder.Rows(batch["tokens"], batch["position"], batch["subtree_end"])
        hidden = decoder.hidden_states(config, params, packed, compute.attention_chunk, "nothing")
        arrays = hidden, batch["tokens"], batch["parent"], batch["wanted"]
        return log_probs_lib.token_log_probs(config, params, *arrays, 1.0, compute.log_prob_chunk)[0]

    program = jax.jit(compute_rows, out_shardings=NamedSharding(run.mesh, PartitionSpec()))
    packed = forest.pack_shortest([[piece] for piece in pieces], compute.row_lengths, rows)
    batch = {**packed.arrays(), "wanted": np.zeros(packed.tokens.shape, bool)}
    spans = [
        (placed, i, len(pieces[placed.key].branches[placed.first + i]))
        for placed in packed.placed
        for i in range(len(placed.branch_slots))
    ]
    for placed, i, count in spans:
        packed.write(batch["wanted"], placed, i, np.ones(count, bool))
    place = sharding.batch_sharding(run.mesh, rows)
    with jax.set_mesh(run.mesh):
        found = [
            program(params, {k: sharding.put(x[start : start + rows], place) for k, x in batch.items()})
            for start in range(0, len(packed.tokens), rows)
        ]
    log_prob = np.concatenate([np.asarray(x, np.float64) for x in found])
    totals = [[0.0] * len(piece.branches) for piece in pieces]
    for placed, i, count in spans:
        totals[placed.key][placed.first + i] = float(packed.read(log_prob, placed, i, count).sum())
    return totals
