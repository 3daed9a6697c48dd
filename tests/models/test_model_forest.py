"""A forest equals the naive padded batch: log-probs and gradients, dense and MoE. Log-probs in chunks are
exact."""

import dataclasses
import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from support.forests import (
    collect,
    groups_of_pieces,
    often_seen_gradient,
    padded,
    per_token,
    random_groups,
    spread,
    widen,
)

from pivotrl_jax.models import decoder, sharding
from pivotrl_jax.models import log_probs as log_probs_lib
from pivotrl_jax.models.forest import Piece, pack
from pivotrl_jax.training import learner

ROWS, SLOTS = 6, 44  # of a forest
SEQUENCES, LENGTH = 18, 14  # of the padded batch
TEMPERATURE = 0.7
COMPUTE = learner.Compute(attention_chunk=16, log_prob_chunk=16, remat="nothing")


class Policy(NamedTuple):
    params: decoder.Params
    on_forest: Callable
    on_padded: Callable

    def __repr__(self):  # hypothesis prints its arguments
        return "policy"


@pytest.fixture(scope="module", params=["moe", "dense"])
def policy(request):
    """(params, forest program, padded program): each gives log-probs [R, T] and the gradient of their sum
    weighted by `coefficient`. The padded one is plain: full logits, log_softmax, gather."""
    config, params = (request.getfixturevalue(name) for name in (request.param, request.param + "_params"))

    def forest_loss(params, batch, coefficient):
        log_prob, _ = learner.forest_log_probs(config, COMPUTE, params, batch, TEMPERATURE)
        return (log_prob * coefficient).sum(), log_prob

    def padded_loss(params, tokens, coefficient):
        scores = decoder.logits(config, params, tokens) / TEMPERATURE
        log_probs = jax.nn.log_softmax(scores[:, :-1], axis=-1)
        log_prob = jnp.take_along_axis(log_probs, tokens[:, 1:, None], axis=-1)[..., 0]
        log_prob = jnp.pad(log_prob, ((0, 0), (1, 0)))
        return (log_prob * coefficient).sum(), log_prob

    programs = [jax.jit(jax.value_and_grad(f, has_aux=True)) for f in (forest_loss, padded_loss)]
    return Policy(params, *programs)


def compare(policy, groups, slots):
    """Run both, on random coefficients of every completion token, and return the keys of what was placed.
    Tolerances: float32 sums in another order."""
    params, on_forest, on_padded = policy
    coefficient = per_token(groups, np.random.default_rng(0))
    lengths = {key: len(x) for key, x in coefficient.items()}
    forest = widen(pack(groups, slots, 0), ROWS, SLOTS)
    naive = padded(groups, SEQUENCES, LENGTH)
    weight = spread(forest, {key: np.ones(n, np.float32) for key, n in lengths.items()})
    (_, got), grads = on_forest(params, {**forest.arrays(), "weight": weight}, spread(forest, coefficient))
    (_, want), naive_grads = on_padded(params, naive.tokens, spread(naive, coefficient))
    got_by, want_by = collect(forest, got, lengths), collect(naive, want, lengths)
    assert got_by.keys() == want_by.keys()
    for key in got_by:
        np.testing.assert_allclose(got_by[key], want_by[key], atol=2e-5)
    assert not np.asarray(got)[weight == 0].any()
    for (path, a), b in zip(jax.tree.leaves_with_path(grads), jax.tree.leaves(naive_grads)):
        scale = np.abs(b).max()
        np.testing.assert_allclose(a, b, atol=2e-4 * scale + 1e-6, err_msg=jax.tree_util.keystr(path))
    return {p.key for p in forest.placed}


def keys(groups):
    return {piece.key for group in groups for piece in group}


def test_a_trajectory_with_branches_off_every_turn(policy):
    turns = [[1, 2, 3], [1, 2, 3, 2, 2], [1, 2, 3, 2, 2, 1, 1, 1, 3]]
    groups = [[Piece(i, t, [[3, 1], [2], [3, 1]]) for i, t in enumerate(turns)]]
    assert compare(policy, groups, SLOTS) == keys(groups)


def test_a_split_tree_single_tokens_empty_completions_and_a_branch_off_a_branch(policy):
    group = [
        Piece(0, [1, 2, 3], [[4, 5], [6]]),
        Piece(1, [1, 2, 3, 4, 5, 9], [[7], []]),  # its prompt repeats the first completion
        Piece(2, [1, 2, 3], [[], [4, 5]]),
        Piece(3, [8], [[8, 8, 8]]),
    ]
    assert len({p.row for p in pack([group], 12, 0).placed}) > 1
    compare(policy, [group], 12)


@settings(max_examples=6, deadline=None)
@given(groups_of_pieces())
def test_random_forests(policy, groups):
    assert compare(policy, groups, SLOTS) == keys(groups)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(groups_of_pieces())
def test_many_random_forests(policy, groups):
    assert compare(policy, groups, SLOTS) == keys(groups)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(groups_of_pieces())
def test_many_random_forests_in_small_rows(policy, groups):
    assert compare(policy, groups, 24) == keys(groups)


def test_remat_and_chunks_change_nothing(moe, moe_params):
    groups = random_groups(np.random.default_rng(1), groups=2, pieces=2, branches=2, prompt=6, branch=3)
    forest = widen(pack(groups, SLOTS, 0), 2, SLOTS)
    batch = {**forest.arrays(), "weight": spread(forest, per_token(groups, None, np.ones))}

    def run(compute):
        def total(params):
            return learner.forest_log_probs(moe, compute, params, batch, 1.0)[0].sum()

        return jax.jit(jax.value_and_grad(total))(moe_params)

    value, grads = run(learner.Compute(64, 64, "nothing"))
    for compute in (learner.Compute(7, 5, "full"), learner.Compute(64, 64, "dots")):
        other, other_grads = run(compute)
        np.testing.assert_allclose(other, value, rtol=1e-6)
        for a, b in zip(jax.tree.leaves(other_grads), jax.tree.leaves(grads)):
            np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max() + 1e-6)


def gradient_program(config, remat: str, slots: int = 64):
    """The lowered gradient of hidden states, for one row."""
    row = jax.ShapeDtypeStruct((1, slots), jnp.int32)

    def total(params, tokens, position, end):
        return decoder.hidden_states(config, params, decoder.Rows(tokens, position, end), 16, remat).sum()

    return jax.jit(jax.grad(total)).lower(decoder.param_shapes(config), row, row, row)


def test_remat_keeps_less_the_more_it_computes_again(dense):
    deep = dataclasses.replace(dense, num_layers=12)
    kept = {
        remat: gradient_program(deep, remat, 512).compile().memory_analysis().temp_size_in_bytes
        for remat in decoder.REMAT
    }
    # a layer's input is 512 x D numbers; its projections give H K + 2 N K + D + 2 I + D more
    assert kept["full"] < kept["dots"] < kept["nothing"], kept
    sizes = deep.sizes()
    dots = sizes["H"] * sizes["K"] + 2 * sizes["N"] * sizes["K"] + 2 * sizes["D"] + 2 * sizes["I"]
    assert kept["dots"] - kept["full"] > 0.5 * 12 * 512 * 4 * dots, kept


def test_depth_does_not_grow_the_program(moe):
    """What compile time depends on; experiments/benchmarks/compile_time.py has the seconds."""
    few, many = (
        gradient_program(dataclasses.replace(moe, num_layers=layers), "full").as_text() for layers in (4, 48)
    )
    assert len(many) < 1.02 * len(few)


# token_log_probs alone


@pytest.fixture(scope="module")
def slots(dense):
    """Random hidden states, tokens, parents and wanted slots [3, 20]; the last row wants nothing."""
    rng = np.random.default_rng(5)
    hidden = rng.normal(size=(3, 20, dense.hidden_size)).astype(np.float32)
    tokens = rng.integers(0, dense.vocab_size, (3, 20)).astype(np.int32)
    parent = np.stack([[int(rng.integers(-1, max(i, 1))) for i in range(20)] for _ in range(3)])
    wanted = rng.random((3, 20)) < 0.4
    wanted[2], wanted[0, 0], parent[0, 0] = False, True, -1
    return hidden, tokens, parent.astype(np.int32), wanted & (parent >= 0)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_entropy_and_gradients_equal_a_plain_log_softmax(dense, dense_params, slots, temperature):
    hidden, tokens, parent, wanted = slots
    coefficient = np.random.default_rng(6).normal(size=tokens.shape)

    def plain(hidden, unembed):  # float64
        scores = jnp.take_along_axis(hidden, jnp.maximum(parent, 0)[..., None], axis=1) @ unembed
        log_probs = jax.nn.log_softmax(scores / temperature)
        taken = jnp.take_along_axis(log_probs, tokens[..., None], axis=-1)[..., 0]
        entropy = -(jnp.exp(log_probs) * log_probs).sum(-1)
        return (taken * wanted * coefficient).sum(), (taken * wanted, entropy * wanted)

    with jax.enable_x64(True):
        exact = [jnp.asarray(x, jnp.float64) for x in (hidden, dense_params["unembed"])]
        (_, truth), true_grads = jax.jit(jax.value_and_grad(plain, (0, 1), has_aux=True))(*exact)
        truth, true_grads = jax.tree.map(np.asarray, (truth, true_grads))

    for chunk in (6, 64):

        def total(hidden, unembed, chunk=chunk):
            params = {**dense_params, "unembed": unembed}
            out = log_probs_lib.token_log_probs(
                dense, params, hidden, tokens, parent, wanted, temperature, chunk
            )
            return (out[0] * coefficient).sum() + out[1].sum(), out  # entropy must add no gradient

        run = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))
        (_, (log_prob, entropy)), grads = run(hidden, dense_params["unembed"])
        assert log_prob.dtype == entropy.dtype == jnp.float32
        np.testing.assert_allclose(log_prob, truth[0], atol=1e-5)
        np.testing.assert_allclose(entropy, truth[1], atol=1e-5)
        assert not np.asarray(log_prob)[~wanted].any() and not np.asarray(entropy)[~wanted].any()
        for a, b in zip(grads, true_grads):
            np.testing.assert_allclose(a, b, atol=2e-5 * max(np.abs(b).max(), 1))


def test_no_array_of_slots_by_vocabulary_is_compiled(dense):
    V, D, R, T, chunk = 5003, 4, 2, 96, 8
    config = dataclasses.replace(dense, vocab_size=V, hidden_size=D)
    shape = jax.ShapeDtypeStruct

    def loss(hidden, unembed, tokens, parent, wanted):
        out = log_probs_lib.token_log_probs(
            config, {"unembed": unembed}, hidden, tokens, parent, wanted, 1.0, chunk
        )
        return out[0].sum()

    slots = shape((R, T), jnp.int32)
    arguments = shape((R, T, D), jnp.float32), shape((D, V), jnp.float32), slots, slots, shape((R, T), bool)
    text = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(*arguments).compile().as_text()
    shapes = {s for s in re.findall(r"\[([\d,]+)\]", text) if str(V) in s.split(",")}
    others = {s: np.prod([int(n) for n in s.split(",")]) // V for s in shapes}
    assert max(others.values()) == R * chunk, others  # the logits of one chunk, and nothing larger


def test_plain_logits_are_causal(moe, moe_params):
    tokens = np.random.default_rng(0).integers(0, 61, (1, 10)).astype(np.int32)
    changed = tokens.copy()
    changed[0, 6] = (tokens[0, 6] + 1) % 61
    run = jax.jit(lambda t: decoder.logits(moe, moe_params, t))
    before, after = np.asarray(run(tokens)), np.asarray(run(changed))
    np.testing.assert_allclose(after[:, :6], before[:, :6], atol=1e-5)
    assert (np.abs(after[:, 6:] - before[:, 6:]).max(-1) > 1e-2).all()


def test_bfloat16_gradients_do_not_lose_what_is_seen_often():
    """A table's gradient is a sum over a token's occurrences, an unembedding's over all tokens in chunks: in
    bfloat16 sums of thousands would stop growing. (On two devices: test_sharding.py.)"""
    mesh = sharding.make_mesh({})
    got, want = (often_seen_gradient(mesh, dtype) for dtype in ("bfloat16", "float32"))
    for name in ("embed", "unembed"):
        error = np.linalg.norm(got[name] - want[name]) / np.linalg.norm(want[name])
        assert error < 0.03, (name, error)
