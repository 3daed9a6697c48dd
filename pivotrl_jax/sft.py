"""Supervised fine-tuning on whole trajectories: their assistant turns -> one packed batch for
`update.sft_loss`.

Where a turn's prompt repeats the turns before it, token for token, the trajectory is one path and every
token of it is computed once. Where the chat template rewrites history, the trie shares what is really shared.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pivotrl_jax import forest, update
from pivotrl_jax.records import InputError


class Turn(NamedTuple):
    """One assistant turn, as token ids."""

    trajectory_id: str
    prompt: Sequence[int]  # all before the turn, as rendered for it
    completion: Sequence[int]  # the turn itself, stop token included


def sft_batch(turns: Sequence[Turn], slots: Sequence[int], rows: int) -> update.Batch:
    """A packed forest of whole trajectories with the loss's weights, in rows of one of the lengths `slots`,
    their number a multiple of `rows`.

    Token-mean: every completion token weighs 1 / (their number), wherever it is packed, prompt tokens 0. A
    slot that several turns train (equal completions of equal prompts) has the sum of their weights, so that
    sharing does not change the loss; the loss's token count then counts it once. Raises InputError when there
    is nothing to train, and for a turn that fits no row.
    """
    total = sum(len(turn.completion) for turn in turns)
    if not total:
        raise InputError(f"{len(turns)} turns have no token to train; check what was read and filtered")
    trees: dict[str, list[forest.Piece]] = {}
    for i, turn in enumerate(turns):
        piece = forest.Piece(i, turn.prompt, [turn.completion], merge=True)
        trees.setdefault(turn.trajectory_id, []).append(piece)
    packed = forest.pack_shortest(list(trees.values()), slots, rows)
    weight = np.zeros(packed.tokens.shape, np.float32)
    for placed in packed.placed:
        count = len(turns[placed.key].completion)
        packed.add(weight, placed, 0, np.full(count, 1 / total, np.float32))
    arrays = {name: getattr(packed, name) for name in ("tokens", "position", "parent", "subtree_end")}
    return {**arrays, "weight": weight}
