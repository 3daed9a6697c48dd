"""Forest and decode attention against a masked softmax in float64."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec
from support.forests import ancestors, random_groups

from pivotrl_jax.models.attention import decode_attention, forest_attention
from pivotrl_jax.models.forest import Piece, pack

H, N, K = 4, 2, 6


@pytest.fixture(scope="module")
def forest():
    """Two rows of 37 slots: two trees in the first, one and a tail of padding in the second."""
    rng = np.random.default_rng(3)
    groups = random_groups(rng, groups=3, pieces=2, branches=2, prompt=4, branch=2, vocab=3)
    out = pack(groups, 37, 0)
    assert out.tokens.shape[0] == 2 and (out.subtree_end == 0).any(1).any()
    return out


@pytest.fixture(scope="module")
def arrays(forest):
    """q, k, v, and a cotangent that is zero at padding: nobody reads what a padding slot attends to."""
    R, T = forest.tokens.shape
    rng = np.random.default_rng(0)
    q, k, v, g = (rng.normal(size=(R, T, n, K)).astype(np.float32) * 2 for n in (H, N, N, H))
    return q, k, v, g * (forest.subtree_end > 0)[..., None, None]


def naive(q, k, v, mask):
    """[T, T] softmax over the ancestors, in whatever precision the arrays have."""
    k, v = jnp.repeat(k, H // N, axis=2), jnp.repeat(v, H // N, axis=2)
    scores = jnp.einsum("rthk,rshk->rhts", q, k) * K**-0.5
    probs = jax.nn.softmax(jnp.where(mask[:, None], scores, -1e30), axis=-1)
    return jnp.einsum("rhts,rshk->rthk", probs, v)


@pytest.fixture(scope="module")
def truth(forest, arrays):
    """float64 output and gradients."""
    taken = forest.subtree_end > 0
    mask = np.stack([ancestors(p) for p in forest.parent]) & taken[:, :, None] & taken[:, None, :]
    with jax.enable_x64(True):
        q, k, v, g = (jnp.asarray(x, jnp.float64) for x in arrays)
        out, vjp = jax.vjp(lambda q, k, v: naive(q, k, v, jnp.asarray(mask)), q, k, v)
        return np.asarray(out), [np.asarray(x) for x in vjp(g)]


@functools.partial(jax.jit, static_argnames="chunk")
def output_and_gradients(q, k, v, g, subtree_end, chunk):
    out, vjp = jax.vjp(lambda *x: forest_attention(*x, subtree_end, chunk), q, k, v)
    return out, vjp(g)


# slots that are whole blocks (1, 37) and not (5, 8); one block (37) and more than the row has (64)
@pytest.mark.parametrize("chunk", [1, 5, 8, 37, 64])
def test_output_and_gradients_equal_a_masked_softmax(forest, arrays, truth, chunk):
    out, grads = output_and_gradients(*arrays, forest.subtree_end, chunk)
    taken = forest.subtree_end > 0
    assert np.abs(np.asarray(out) - truth[0])[taken].max() < 1e-5
    for got, want in zip(grads, truth[1]):
        assert np.abs(got - want).max() < 2e-5
        assert not np.asarray(got)[~taken].any()  # padding: exactly zero
    assert np.isfinite(out).all()


def test_bfloat16_stays_near_float32(forest, arrays, truth):
    arrays = [jnp.asarray(x, jnp.bfloat16) for x in arrays]
    out, grads = output_and_gradients(*arrays, forest.subtree_end, 8)
    taken = forest.subtree_end > 0
    assert np.abs(np.asarray(out, np.float32) - truth[0])[taken].max() < 0.1
    for got, want in zip(grads, truth[1]):
        assert np.abs(np.asarray(got, np.float32) - want).max() < 0.05 * np.abs(want).max()
    assert all(x.dtype == jnp.bfloat16 for x in (out, *grads))


def test_a_row_of_padding_alone_is_finite_with_zero_gradient():
    x = jax.random.normal(jax.random.key(0), (1, 5, N, K))
    out, grads = output_and_gradients(x, x, x, jnp.ones_like(x), jnp.zeros((1, 5), jnp.int32), 3)
    assert jnp.isfinite(out).all() and not any(grad.any() for grad in grads)


def test_blocks_that_no_query_of_a_block_sees_are_not_read():
    """NaN times a weight of zero is NaN: only reading the first tree could bring it into the second."""
    q, k, v, g = (jax.random.normal(jax.random.key(i), (1, 32, n, K)) for i, n in enumerate((H, N, N, H)))
    end = jnp.repeat(jnp.array([[13, 32]]), jnp.array([13, 19]), axis=1, total_repeat_length=32)
    want = output_and_gradients(q, k, v, g, end, 8)
    k, v = (x.at[:, :8].set(jnp.nan) for x in (k, v))  # slots 8-12 share a block with the second tree
    got = output_and_gradients(q, k, v, g, end, 8)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
        np.testing.assert_array_equal(a[:, 16:], b[:, 16:])
    assert not jnp.isfinite(got[0][:, :8]).any()


def program(T, chunk):
    """The text of forward and backward over rows of T slots."""
    shapes = [jax.ShapeDtypeStruct((1, T, n, K), jnp.float32) for n in (H, N, N, H)]
    end = jax.ShapeDtypeStruct((1, T), jnp.int32)
    return str(jax.make_jaxpr(output_and_gradients, static_argnums=5)(*shapes, end, chunk))


def test_nothing_of_size_slots_by_slots_is_kept():
    T, chunk = 4096, 32
    sizes = [
        np.prod([int(n) for n in s.split(",")]) for s in re.findall(r":\w+\[([\d,]+)\]", program(T, chunk))
    ]
    assert H * chunk * chunk in sizes  # the scores of two blocks
    assert max(sizes) == T * H * K < T * T  # the queries


def test_the_program_is_as_large_for_long_rows_as_for_short_ones():
    assert program(32768, 512).count(" = ") == program(1024, 512).count(" = ") > 50


@pytest.mark.parametrize(
    "heads, slots",
    [
        (PartitionSpec(("a", "b")), PartitionSpec(("a", "b"))),
        (PartitionSpec("a", None, "b"), PartitionSpec("a")),
    ],
    ids=["rows", "rows and heads"],
)
def test_it_runs_per_shard(heads, slots):
    """With the types of shard_map checked: a loop must not turn what is equal on all devices into what
    varies. Values on devices: test_sharding.py."""

    def loss(q, k, v, end):
        attend = jax.checkpoint(lambda q, k, v, end: forest_attention(q, k, v, end, 8))
        sharded = jax.shard_map(attend, in_specs=(heads, heads, heads, slots), out_specs=heads)
        return sharded(q, k, v, end).sum()

    q, k, v = (jax.ShapeDtypeStruct((4, 20, n, K), jnp.float32) for n in (H, N, N))
    end = jax.ShapeDtypeStruct((4, 20), jnp.int32)
    with jax.sharding.use_abstract_mesh(AbstractMesh((2, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)):
        grads = jax.eval_shape(jax.grad(loss, (0, 1, 2)), q, k, v, end)
    assert [x.shape for x in grads] == [x.shape for x in (q, k, v)]


def test_decode_equals_forest_attention_of_the_extended_sequence():
    prefixes, C = [[1, 2, 3], [1, 2, 4, 5], [6]], 3
    ends = [0, 1, 1, 2]  # the prefix of each of four branches
    branches = [ends.count(i) * [[7] * C] for i in range(3)]
    full = pack([[Piece(i, t, b) for i, (t, b) in enumerate(zip(prefixes, branches))]], 24, 0)
    prefix = pack([[Piece(i, t, samples=1) for i, t in enumerate(prefixes)]], 24, 9)
    rng = np.random.default_rng(1)
    q, k, v = (rng.normal(size=(1, 24, n, K)).astype(np.float32) for n in (H, N, N))
    want = np.asarray(forest_attention(q, k, v, full.subtree_end, 8))

    start_S = np.array([slot for p in full.placed for slot in p.branch_slots])
    in_branch = np.isin(np.arange(24), (start_S[:, None] + np.arange(C)).ravel())
    of_prefix = np.flatnonzero(~in_branch & (full.subtree_end[0] > 0))  # depth-first order is kept
    size = len(of_prefix)
    assert full.tokens[0, of_prefix].tolist() == prefix.tokens[0, :size].tolist()

    def cache(x):  # [1, N, T, K], with rubbish in the padding
        out = rng.normal(size=(1, N, 24, K)).astype(np.float32)
        out[0, :, :size] = x[0, of_prefix].transpose(1, 0, 2)
        return out

    end_S = [next(p.prompt_slot for p in prefix.placed if p.key == i) for i in ends]
    mask = ancestors(prefix.parent[0])[end_S][None]
    prefix_kv = cache(k), cache(v)
    decode = jax.jit(decode_attention)
    for t in range(C):
        own = rng.normal(size=(2, 1, 4, N, C, K)).astype(np.float32)  # rubbish where unseen
        for c in range(t):
            own[0, 0, :, :, c], own[1, 0, :, :, c] = k[0, start_S + c], v[0, start_S + c]
        own_mask = np.broadcast_to(np.arange(C) < t, (1, 4, C))
        at = start_S + t
        got = decode(q[:, at], k[:, at], v[:, at], prefix_kv, mask, (own[0], own[1]), own_mask)
        assert np.abs(got[0] - want[0, at]).max() < 2e-6
