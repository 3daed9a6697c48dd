"""The TPU kernels of forest attention: interpreted here against a masked softmax in float64, and compiled by
the TPU's own compiler."""

import collections
import dataclasses
import functools
import importlib.util
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec
from support.forests import DENSE, ancestors, random_groups, widen

from pivotrl_jax.models import attention, attention_kernel, decoder
from pivotrl_jax.models.forest import Piece, pack
from pivotrl_jax.plan import chips, programs
from pivotrl_jax.training import learner as learner_lib
from pivotrl_jax.training import objectives

H, N, K = 4, 2, 64


def turns():
    """Two turns of one trajectory, so that a branch leaves a branch; trees of one slot; a longer tree."""
    first, answer = [1] * 70 + [2] * 80, [3] * 40
    return [
        [Piece(0, first, [answer, [4] * 60]), Piece(1, [*first, *answer, *[5] * 9], [[6] * 20, [7] * 30])],
        [Piece(2, [8], [])],
        [Piece(3, [9] * 130, [[1] * 30, [2] * 50])],
        [Piece(4, [6], [])],
    ]


def drawn():
    rng = np.random.default_rng(1)
    return random_groups(rng, groups=4, pieces=2, branches=3, prompt=60, branch=45)


# (groups, slots of a row): 3.3 blocks of 128, and 3 of 256; each gets a row of padding alone
FORESTS = {"turns": (turns, 420), "drawn": (drawn, 768)}


@pytest.fixture(scope="module", params=FORESTS)
def forest(request):
    groups, slots = FORESTS[request.param]
    out = pack(groups(), slots, 0)
    return widen(out, len(out.tokens) + 1, slots)


@pytest.fixture(scope="module")
def arrays(forest):
    """q, k, v, and a cotangent that is zero at padding: nobody reads what a padding slot attends to."""
    rng = np.random.default_rng(0)
    q, k, v, g = (rng.normal(size=(*forest.tokens.shape, n, K)).astype(np.float32) for n in (H, N, N, H))
    return q * 2, k * 2, v, g * (forest.subtree_end > 0)[..., None, None]


@pytest.fixture(scope="module")
def truth(forest, arrays):
    """float64 output and gradients of a softmax over the ancestors."""
    taken = forest.subtree_end > 0
    mask = np.stack([ancestors(p) for p in forest.parent]) & taken[:, :, None] & taken[:, None, :]

    def naive(q, k, v):
        k, v = (jnp.repeat(x, H // N, axis=2) for x in (k, v))
        scores = jnp.einsum("rthk,rshk->rhts", q, k) * K**-0.5
        probs = jax.nn.softmax(jnp.where(mask[:, None], scores, -1e30), axis=-1)
        return jnp.einsum("rhts,rshk->rthk", probs, v)

    with jax.enable_x64(True):
        q, k, v, g = (jnp.asarray(x, jnp.float64) for x in arrays)
        out, vjp = jax.vjp(naive, q, k, v)
        return np.asarray(out), [np.asarray(x) for x in vjp(g)]


@pytest.fixture
def on_tpu(monkeypatch):
    """What a TPU would choose, interpreted: output and gradients by `attention.forest_attention`."""

    def choose(*args, tpu, default):
        return tpu(*args, interpret=True)

    monkeypatch.setattr(attention.lax, "platform_dependent", choose)

    def run(q, k, v, g, subtree_end):
        out, vjp = jax.vjp(lambda *x: attention.forest_attention(*x, subtree_end, 1), q, k, v)
        return out, vjp(g)

    return jax.jit(run)


def test_output_and_gradients_equal_a_masked_softmax(on_tpu, forest, arrays, truth):
    out, grads = on_tpu(*arrays, forest.subtree_end)
    taken = forest.subtree_end > 0
    assert np.abs(np.asarray(out) - truth[0])[taken].max() < 1e-5
    for got, want in zip(grads, truth[1]):
        assert np.abs(got - want).max() < 2e-5
    assert np.isfinite(out).all()
    # a padding slot passes no gradient on and gets none, whatever is said of its output
    _, more = on_tpu(*arrays[:3], np.where(taken[..., None, None], arrays[3], 1), forest.subtree_end)
    for got, want in zip(more, grads):
        np.testing.assert_array_equal(got, want)
        assert not np.asarray(got)[~taken].any()


def test_bfloat16_stays_near_float32(on_tpu, forest, arrays, truth):
    out, grads = on_tpu(*(jnp.asarray(x, jnp.bfloat16) for x in arrays), forest.subtree_end)
    taken = forest.subtree_end > 0
    assert np.abs(np.asarray(out, np.float32) - truth[0])[taken].max() < 0.05
    for got, want in zip(grads, truth[1]):
        assert np.abs(np.asarray(got, np.float32) - want).max() < 0.02 * np.abs(want).max()
    assert all(x.dtype == jnp.bfloat16 for x in (out, *grads))


@pytest.mark.parametrize("by_keys", [False, True])
def test_the_pairs_of_blocks_visited_are_those_in_which_a_query_sees_a_key(forest, by_keys):
    B = 32
    T = forest.tokens.shape[1] // B * B
    end = np.minimum(forest.subtree_end[:, :T], T)
    blocks, fewer = T // B, 0
    lists = np.asarray(attention_kernel.visits(jnp.asarray(end), B, by_keys))
    for row, got in enumerate(lists):
        seen = np.asarray(attention.visible(jnp.arange(T), jnp.asarray(end[row])))
        seen = seen.reshape(blocks, B, blocks, B).any((1, 3)) | np.eye(blocks, dtype=bool)
        queries, keys = np.nonzero(seen)
        # in order: runs of one owner, each ending with the owner and itself
        want = sorted(zip(keys, -queries)) if by_keys else sorted(zip(queries, keys))
        want = [owner << 16 | abs(other) for owner, other in want]
        assert got.tolist() == want + want[-1:] * (len(got) - len(want))
        fewer += len(got) - len(want)
    assert fewer > len(lists) * blocks  # the forest ends subtrees


def test_blocks_that_no_query_of_a_block_sees_are_not_read(on_tpu):
    """NaN times a weight of zero is NaN: only reading the first tree could bring it into the second."""
    q, k, v, g = (jax.random.normal(jax.random.key(i), (1, 640, n, K)) for i, n in enumerate((H, N, N, H)))
    end = np.repeat(np.array([[200, 640]]), [200, 440], axis=1)
    want = on_tpu(q, k, v, g, end)
    k, v = (x.at[:, :128].set(jnp.nan) for x in (k, v))  # slots 128-199 share a block with the second tree
    got = on_tpu(q, k, v, g, end)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
        np.testing.assert_array_equal(a[:, 256:], b[:, 256:])
    assert not jnp.isfinite(got[0][:, :128]).any()


def shaped(T, H, N, K, dtype="bfloat16", R=1):
    return (jax.ShapeDtypeStruct((R, T, n, K), dtype) for n in (H, N))


@pytest.mark.parametrize(
    "T, H, N, K, dtype, B",
    [
        (8192, 32, 4, 128, "bfloat16", 512),
        (8192, 32, 4, 64, "bfloat16", 512),
        (8192, 64, 4, 128, "bfloat16", 256),  # a block of queries is of all heads that share keys
        (8192, 32, 4, 128, "float32", 256),
        (8320, 32, 4, 128, "bfloat16", 512),  # padded to 8,704
        (600, 32, 4, 128, "bfloat16", 128),  # not to 1,024 nor to 768
        (8192, 33 * 2, 2, 128, "bfloat16", 0),  # 33 heads do not fit
        (8192, 32, 4, 96, "bfloat16", 0),
        (8192, 32, 4, 128, "float16", 0),
        (127, 32, 4, 128, "bfloat16", 0),
    ],
)
def test_blocks_fit_memory_and_pad_little(T, H, N, K, dtype, B):
    q, k = (jax.ShapeDtypeStruct((1, T, n, K), dtype) for n in (H, N))
    assert attention_kernel.usable(q, k) == bool(B)
    assert not B or attention_kernel.block_size(q, k) == B


def test_lists_of_visits_fit_scalar_memory():
    for rows, usable in (63, True), (64, False):
        x = jax.ShapeDtypeStruct((rows, 2**15, 4, 128), jnp.bfloat16)
        assert attention_kernel.usable(x, x) == usable


def test_it_is_typed_per_shard():
    """With the types of shard_map checked. Slots vary over fewer axes than heads do."""

    def loss(q, k, v, end):
        attend = jax.checkpoint(lambda q, k, v, end: attention.forest_attention(q, k, v, end, 8))
        heads, slots = PartitionSpec("a", None, "b"), PartitionSpec("a")
        sharded = jax.shard_map(attend, in_specs=(heads, heads, heads, slots), out_specs=heads)
        return sharded(q, k, v, end).sum()

    q, k, v = (jax.ShapeDtypeStruct((4, 140, n, K), jnp.float32) for n in (H, N, N))
    end = jax.ShapeDtypeStruct((4, 140), jnp.int32)
    with jax.sharding.use_abstract_mesh(AbstractMesh((2, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)):
        text = str(jax.make_jaxpr(jax.grad(loss, (0, 1, 2)))(q, k, v, end))
    assert "pallas_call" in text and "platform_index" in text


needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="pip install -e '.[plan]'"
)


def tpu_mesh(device: str, sizes: dict):
    return chips.target_mesh(*chips.parse_device(device, sizes), sizes)


def kernels(text: str) -> dict[str, int]:
    """How often each kernel is called in a compiled program."""
    calls = re.findall(r'%forest_attention_([a-z_]+)[.\d]* = .*custom_call_target="tpu_custom_call"', text)
    return dict(collections.Counter(calls))


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize("device, T", [("v4", 8192), ("v5e", 8192), ("v5p", 16384), ("v6e", 8192)])
def test_it_compiles_for_a_tpu_in_memory_linear_in_slots(device, T):
    place = NamedSharding(tpu_mesh(device, {"fsdp": 1}), PartitionSpec())
    struct = functools.partial(jax.ShapeDtypeStruct, sharding=place)

    def run(q, k, v, g, end):
        out, vjp = jax.vjp(lambda *x: attention.forest_attention(*x, end, 512), q, k, v)
        return out, vjp(g)

    q, k = (struct((1, T, n, 128), jnp.bfloat16) for n in (32, 4))
    compiled = jax.jit(run).lower(q, k, k, q, struct((1, T), jnp.int32)).compile()
    text = compiled.as_text()
    assert kernels(text) == {"forward": 1, "of_queries": 1, "of_keys": 1} and " while(" not in text
    assert compiled.memory_analysis().temp_size_in_bytes < 3 * q.size * 2  # scores of one head: T x T x 4


@needs_libtpu
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Error reading persistent")  # libtpu cannot read it back here
@pytest.mark.parametrize("remat", ["full", "dots"])
def test_the_gradient_of_a_model_over_several_tpus_compiles_with_it(remat):
    mesh = tpu_mesh("v5e", {"fsdp": 2, "tensor": 2})
    config = dataclasses.replace(DENSE, hidden_size=128, vocab_size=512, head_dim=128, dtype="bfloat16")
    compute = learner_lib.Compute(attention_chunk=512, log_prob_chunk=512, remat=remat)
    learner = learner_lib.Learner(
        config,
        dataclasses.replace(compute, rows=2, mesh=mesh),
        optax.sgd(1.0),
        objectives.negative_log_likelihood,
        1.0,
    )
    params = programs.structs(decoder.param_shapes(config), learner.param_sharding)
    types = dict.fromkeys(("tokens", "position", "parent", "subtree_end"), jnp.int32) | {
        "weight": jnp.float32
    }
    batch = {name: programs.struct((2, 2048), dtype, learner.batch_sharding) for name, dtype in types.items()}
    with jax.set_mesh(mesh):
        text = learner.accumulate.trace(params, {}, params, batch).lower().compile().as_text()
    # once in the loop over layers, and forward once more in the one that goes back
    assert kernels(text) == {"forward": 2, "of_queries": 1, "of_keys": 1}
