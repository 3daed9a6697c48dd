"""Log-probs of given continuations under a policy, by one pass over packed trees; nothing is sampled."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pivotrl_jax.models import config as model_config
from pivotrl_jax.models import decoder, forest, sharding
from pivotrl_jax.models import log_probs as log_probs_lib


class Scorer:
    """The compiled programs of one model on one mesh, one for each row length. `compute` is the run's
    `config.compute`."""

    def __init__(self, config: model_config.ModelConfig, compute: Any, mesh: Mesh, temperature: float = 1.0):
        self._row_lengths, self._mesh, self._rows = compute.row_lengths, mesh, sharding.row_shards(mesh)

        def compute_rows(params, batch):
            packed = decoder.Rows(batch["tokens"], batch["position"], batch["subtree_end"])
            hidden = decoder.hidden_states(config, params, packed, compute.attention_chunk, "nothing")
            arrays = hidden, batch["tokens"], batch["parent"], batch["wanted"]
            more = temperature, compute.log_prob_chunk
            return log_probs_lib.token_log_probs(config, params, *arrays, *more)[0]

        self._program = jax.jit(compute_rows, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def __call__(self, params: decoder.Params, trees: Sequence[Sequence[forest.Piece]]) -> list[list[float]]:
        """The natural log-prob of every branch of every piece, given the piece's prompt: sums over tokens.

        Pieces are keyed by their index, counted over all trees. `params` are sharded as in the learner.
        Raises InputError for a piece longer than any row.
        """
        pieces = {piece.key: piece for tree in trees for piece in tree}
        packed = forest.pack_shortest(trees, self._row_lengths, self._rows)
        batch = {**packed.arrays(), "wanted": np.zeros(packed.tokens.shape, bool)}
        spans = [
            (placed, i, len(pieces[placed.key].branches[placed.first + i]))
            for placed in packed.placed
            for i in range(len(placed.branch_slots))
        ]
        for placed, i, count in spans:
            packed.write(batch["wanted"], placed, i, np.ones(count, bool))
        place = sharding.batch_sharding(self._mesh, self._rows)
        with jax.set_mesh(self._mesh):
            found = [
                self._program(
                    params,
                    {k: sharding.put(x[start : start + self._rows], place) for k, x in batch.items()},
                )
                for start in range(0, len(packed.tokens), self._rows)
            ]
        log_prob = np.concatenate([np.asarray(x, np.float64) for x in found])
        totals = [[0.0] * len(pieces[i].branches) for i in range(len(pieces))]
        for placed, i, count in spans:
            totals[placed.key][placed.first + i] = float(packed.read(log_prob, placed, i, count).sum())
        return totals
