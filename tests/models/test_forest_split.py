"""Trees cut to fit small rows and merged branches equal the naive padded batch: log-probs and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.forests import collect, groups_of_pieces, padded, per_token, spread, widen

from pivotrl_jax.models import decoder
from pivotrl_jax.models.forest import Piece, pack
from pivotrl_jax.training import learner

ROWS, SLOTS = 12, 24  # of a forest; 13 slots hold any prompt and one completion
SEQUENCES, LENGTH = 12, 13  # of the padded batch
COMPUTE = learner.Compute(attention_chunk=8, log_prob_chunk=8, remat="nothing")


@pytest.fixture(scope="module", params=["moe", "dense"])
def compare(request):
    """compare(groups, slots): both batches with random coefficients for every completion token. One compiled
    program each, whatever is packed. Tolerances: float32 sums in another order."""
    config, params = (request.getfixturevalue(name) for name in (request.param, request.param + "_params"))

    def forest_loss(params, batch, coefficient):
        log_prob, _ = learner.forest_log_probs(config, COMPUTE, params, batch, 1.0)
        return (log_prob * coefficient).sum(), log_prob

    def padded_loss(params, tokens, coefficient):
        log_probs = jax.nn.log_softmax(decoder.logits(config, params, tokens)[:, :-1])
        log_prob = jnp.take_along_axis(log_probs, tokens[:, 1:, None], axis=-1)[..., 0]
        log_prob = jnp.pad(log_prob, ((0, 0), (1, 0)))
        return (log_prob * coefficient).sum(), log_prob

    on_forest, on_padded = (jax.jit(jax.value_and_grad(f, has_aux=True)) for f in (forest_loss, padded_loss))

    def run(groups, slots):
        coefficient = per_token(groups, np.random.default_rng(0))
        lengths = {key: len(x) for key, x in coefficient.items()}
        packed = pack(groups, slots, 0)
        forest, naive = widen(packed, ROWS, SLOTS), padded(groups, SEQUENCES, LENGTH)
        batch = {**forest.arrays(), "weight": spread(forest, {k: np.ones(n) for k, n in lengths.items()})}
        (_, got), grads = on_forest(params, batch, spread(forest, coefficient))
        (_, want), naive_grads = on_padded(params, naive.tokens, spread(naive, coefficient))
        got, want = collect(forest, got, lengths), collect(naive, want, lengths)
        assert got.keys() == want.keys()
        for key in got:
            np.testing.assert_allclose(got[key], want[key], atol=2e-5)
        for (path, a), b in zip(jax.tree.leaves_with_path(grads), jax.tree.leaves(naive_grads)):
            scale = np.abs(b).max()
            np.testing.assert_allclose(a, b, atol=2e-4 * scale + 1e-6, err_msg=jax.tree_util.keystr(path))
        return packed

    return run


def turns(merge: bool) -> list[Piece]:
    """A trajectory whose third prompt rewrites the second turn, and a demonstration given twice."""
    ids = [
        ([1, 2, 3], [4, 5]),
        ([1, 2, 3, 4, 5, 9], [7, 7]),
        ([1, 2, 3, 4, 5, 9, 7, 2], [6]),
        ([1, 2, 3], [4, 5]),
    ]
    return [Piece(i, prompt, [completion], merge=merge) for i, (prompt, completion) in enumerate(ids)]


@pytest.mark.parametrize("slots, trees", [(24, 1), (11, 1), (9, 2)])
def test_merged_turns(compare, slots, trees):
    forest = compare([turns(merge=True)], slots)
    assert ((forest.subtree_end > 0) & (forest.parent < 0)).sum() == trees
    if slots == 11:  # 9 for the third turn, and what the second wrote last
        assert (forest.subtree_end > 0).sum() == 10


@pytest.mark.parametrize("slots", [9, 13])
def test_turns_apart_and_a_group_cut_between_its_completions(compare, slots):
    group = [*turns(merge=False), Piece(4, [1, 2, 3, 4], [[5, 6, 7], [], [5], [5, 6, 7], [2]])]
    parts = [p for p in compare([group], slots).placed if p.key == 4]
    assert len(parts) == (2 if slots == 9 else 1)


@settings(max_examples=8, deadline=None)
@given(
    groups_of_pieces(groups=2, pieces=3, branches=2, kinds="branches merged"), st.sampled_from([13, 16, 20])
)
def test_random_split_forests(compare, groups, slots):
    assert {p.key for p in compare(groups, slots).placed} == {p.key for group in groups for p in group}


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    groups_of_pieces(groups=2, pieces=3, branches=2, kinds="branches merged"), st.sampled_from([13, 16, 20])
)
def test_many_random_split_forests(compare, groups, slots):
    assert {p.key for p in compare(groups, slots).placed} == {p.key for group in groups for p in group}
