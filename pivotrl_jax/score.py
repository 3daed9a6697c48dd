"""Log-probs of token sequences under a checkpoint: the same numbers that training would compute.

    python -m pivotrl_jax.score --model=DIR [--dtype=float32] < in.jsonl > out.jsonl

Reads {"id", "token_ids": [...]} or {"id", "messages": [...], "tools": [...]} per line. The checkpoint's chat
template renders all messages, without a generation prompt. Writes {"id", "logprobs": [...]} per line in the
same order: the natural log-probabilities of tokens 1.., each given all tokens before it. A line that cannot
be scored is reported on stderr with its number and gives no output line; the exit status is then 1.
"""

import dataclasses
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import optax
from absl import flags

from pivotrl_jax import terminal
from pivotrl_jax.chat import template
from pivotrl_jax.chat.json_text import read_object
from pivotrl_jax.chat.messages import read_messages
from pivotrl_jax.chat.tools import read_tools
from pivotrl_jax.checkpoints import hf, hf_config, locate
from pivotrl_jax.models import decoder, forest, sharding
from pivotrl_jax.records import InputError
from pivotrl_jax.rollouts import progress
from pivotrl_jax.run import hosts
from pivotrl_jax.run import run as run_lib
from pivotrl_jax.training import learner, objectives

MODEL = flags.DEFINE_string("model", None, "Checkpoint directory or name on the Hugging Face hub.")

DTYPE = flags.DEFINE_enum(
    "dtype", None, ["float32", "bfloat16"], "Compute in this dtype; the checkpoint's own if not given."
)

CHAT_TEMPLATE = flags.DEFINE_string(
    "chat_template",
    "",
    "Renders messages instead of the checkpoint's own: a name, e.g. smollm2_hermes, or a file.",
)

LINES = 256  # lines that are read and packed into rows at a time
BUCKETS = tuple(2**n for n in range(10, 21))  # row lengths, one program each; short sequences share a row


class Scorer:
    """A checkpoint on all devices, with rows split over them. Prefixes that sequences of one call have in
    common can be computed once."""

    def __init__(self, checkpoint: Path, dtype: str | None):
        self.config = hf_config.load_config(checkpoint, dtype)
        mesh = sharding.make_mesh({"fsdp": -1})
        places = sharding.param_shardings(decoder.abstract_params(self.config), mesh)
        self.params = hf.load_params(checkpoint, self.config, self.config.dtype, places)
        self._rows = sharding.row_shards(mesh)
        compute = learner.Compute(attention_chunk=512, log_prob_chunk=512, remat="nothing")
        self._learner = learner.Learner(
            self.config,
            dataclasses.replace(compute, rows=self._rows, mesh=mesh),
            optax.identity(),
            objectives.negative_log_likelihood,
            1.0,
        )

    def __call__(self, sequences: list[list[int]]) -> list[list[float]]:
        """The log-probs of tokens 1.. of every sequence."""
        log_probs: list[list[float]] = [[] for _ in sequences]
        long_first = sorted(range(len(sequences)), key=lambda i: -len(sequences[i]))
        for row_length, members in itertools.groupby(
            long_first, lambda i: forest.round_up(len(sequences[i]), BUCKETS)
        ):
            packed = self._pack(sequences, list(members), row_length)
            batch = packed.arrays()
            batch["weight"] = np.zeros(packed.tokens.shape, np.float32)
            for placement in packed.placed:
                packed.write(batch["weight"], placement, 0, np.ones(len(sequences[placement.key]) - 1))
            log_prob = self._learner.score(self.params, batch)
            for placement in packed.placed:
                count = len(sequences[placement.key]) - 1
                log_probs[placement.key] = packed.read(log_prob, placement, 0, count).tolist()
        return log_probs

    def _pack(self, sequences: list[list[int]], members: list[int], row_length: int) -> forest.Forest:
        """The packing with fewer rows of two: one tree that holds shared prefixes once, or a tree for each
        sequence. Long sequences that share little fill rows better when each may go into any row."""
        pieces = [forest.Piece(i, sequences[i][:1], [sequences[i][1:]], merge=True) for i in members]
        packings = [
            forest.pack(x, row_length, 0, self._rows) for x in ([pieces], [[piece] for piece in pieces])
        ]
        return min(packings, key=lambda packed: len(packed.tokens))


def read_line(raw: bytes, vocabulary: int, chat) -> tuple[str, list[int]]:
    """(id, token ids) of one input line. Raises InputError."""
    row = read_object(raw)
    if "id" not in row:
        raise InputError('"id" is missing; give every line one')
    ids = row.get("token_ids")
    if ("messages" in row) == (ids is not None):
        raise InputError('want either "token_ids" or "messages"')
    if ids is None:
        messages, tools = read_messages(row["messages"]), read_tools(row.get("tools"))
        ids = chat().encode(chat().render(messages, tools, add_generation_prompt=False))
    if not isinstance(ids, list) or not ids:
        raise InputError('"token_ids" must be a non-empty list of token ids')
    for i, token in enumerate(ids):
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < vocabulary:
            raise InputError(f"token_ids[{i}] is {token!r}; want a whole number from 0 to {vocabulary - 1}")
    if len(ids) > BUCKETS[-1]:
        raise InputError(f"{len(ids)} tokens, more than {BUCKETS[-1]}; cut the line")
    return row["id"], ids


def batches(lines, scorer: Scorer, chat, refuse) -> Iterator[list[tuple[str, list[int]]]]:
    """The readable lines, from LINES lines at a time; `refuse(number, error)` is called for the others."""
    numbered = enumerate(lines, 1)
    while chunk := list(itertools.islice(numbered, LINES)):
        good = []
        for number, raw in chunk:
            if not raw.strip():
                continue
            try:
                good.append(read_line(raw, scorer.config.vocab_size, chat))
            except InputError as e:
                refuse(number, e)
        yield good


def main(arguments: list[str]) -> None:
    """Exit status 1 if a line was bad or the checkpoint cannot be read."""
    if arguments:
        raise InputError(f"unexpected argument {arguments[0]!r}; give the lines on standard input")
    hosts.refuse()
    if MODEL.value is None:
        raise InputError("no model; name one, e.g. --model=runs/bfcl/hf")
    run_lib.use_compilation_cache()
    # float32 is computed in full precision on TPUs and GPUs too
    jax.config.update("jax_default_matmul_precision", "highest")
    checkpoint = locate.locate(MODEL.value, "--model")
    scorer = Scorer(checkpoint, DTYPE.value)
    cache: list = []

    def chat():  # a checkpoint without a tokenizer can still score token ids
        if not cache:
            cache.append(template.load_chat(checkpoint, False, chat_template=CHAT_TEMPLATE.value))
        return cache[0]

    bad = []
    with progress.bar(None, "scoring", "tokens") as bar:

        def refuse(number: int, e: InputError) -> None:
            bad.append(number)
            bar.write(f"score: line {number}: {e}", file=sys.stderr)  # on a line of its own

        for good in batches(sys.stdin.buffer, scorer, chat, refuse):
            for (id, ids), log_probs in zip(good, scorer([ids for _, ids in good])):
                print(json.dumps({"id": id, "logprobs": log_probs}))
                bar.update(len(ids))
            sys.stdout.flush()
    if bad:
        sys.exit(1)


if __name__ == "__main__":
    terminal.run("score", main)
