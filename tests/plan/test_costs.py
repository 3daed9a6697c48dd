"""FLOPs counted from a jaxpr equal those of the formulas."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from pivotrl_jax.models import attention, experts, products
from pivotrl_jax.plan import costs

B, D, F, L = 32, 64, 128, 3  # tokens, width, inner width, layers
ONE = 2 * B * D * F  # one product of the MLP


def count(f, *shapes, trips=1.0, platform="tpu", ragged_share=1.0) -> costs.Costs:
    args = [
        x if isinstance(x, jax.ShapeDtypeStruct) else jax.ShapeDtypeStruct(x, jnp.float32) for x in shapes
    ]
    return costs.flops(jax.make_jaxpr(f)(*args), trips, platform, ragged_share)


def ints(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def stack(remat: bool):
    """Sum of squares after L layers of x + relu(x W) V."""

    def layer(x, w):
        return x + jax.nn.relu(x @ w[0]) @ w[1], None

    def loss(w, v, x):
        return (jax.lax.scan(jax.checkpoint(layer) if remat else layer, x, (w, v))[0] ** 2).sum()

    return loss


SHAPES = (L, D, F), (L, F, D), (B, D)


def test_a_scan_counts_every_layer():
    assert count(stack(False), *SHAPES) == costs.Costs(2 * L * ONE, {"dot_general": 2 * L * ONE})


def test_a_gradient_is_twice_the_forward_pass_more():
    assert count(jax.grad(stack(False), argnums=(0, 1)), *SHAPES).flops == 6 * L * ONE


def test_remat_adds_what_it_recomputes():
    """The second product of a layer is not needed again."""
    assert count(jax.grad(stack(True), argnums=(0, 1)), *SHAPES).flops == 7 * L * ONE


def test_jit_and_a_traced_program_count_alike():
    structs = [jax.ShapeDtypeStruct(s, jnp.float32) for s in SHAPES]
    traced = jax.jit(jax.jit(stack(True))).trace(*structs)
    assert costs.flops(traced.jaxpr, 1, "tpu").flops == 2 * L * ONE


def test_a_batched_product():
    spec = "bhqk,bhtk->bhqt"
    assert (
        count(lambda q, k: jnp.einsum(spec, q, k), (2, 4, 16, 8), (2, 4, 24, 8)).flops
        == 2 * 2 * 4 * 16 * 24 * 8
    )


def test_custom_derivatives_count_once():
    @jax.custom_vjp
    def square(x):
        return x @ x

    square.defvjp(lambda x: (square(x), x), lambda x, g: (g @ x,))

    @jax.custom_jvp
    def cube(x):
        return x @ x @ x

    cube.defjvps(lambda t, out, x: t @ x)
    assert count(lambda x: square(x) + cube(x), (8, 8)).flops == 3 * 2 * 8**3
    assert count(jax.value_and_grad(lambda x: square(x).sum()), (8, 8)).flops == 2 * 2 * 8**3


def test_a_while_runs_as_often_as_is_said():
    def f(x, n):
        return jax.lax.fori_loop(0, n, lambda i, x: x @ x, x)

    assert count(f, (8, 8), ints(), trips=5).flops == 5 * 2 * 8**3


def test_a_while_in_a_scan_can_be_told_from_another():
    def f(xs, n):
        inner = lambda x: jax.lax.fori_loop(0, n, lambda i, x: x @ x, x)  # noqa: E731
        return jax.lax.scan(lambda _, x: (None, jax.jit(inner)(x)), None, xs)[1], inner(xs[0])

    asked = []
    count(f, (7, 8, 8), ints(), trips=lambda blocks: asked.append(blocks) or 1)
    assert sorted(asked) == [0, 7]
    assert count(f, (7, 8, 8), ints(), trips=costs.causal(100)).flops == (7 * 3 + 100) * 2 * 8**3


def test_a_while_without_products_is_not_asked_about():
    def never(blocks):
        raise AssertionError

    assert (
        count(lambda x, n: jax.lax.fori_loop(0, n, lambda i, x: x + 1, x), (8,), ints(), trips=never).flops
        == 0
    )


def test_a_conditional_counts_as_its_dearest_branch():
    def f(x, i):
        return jax.lax.switch(i, [lambda x: x, lambda x: x @ x @ x, lambda x: x @ x], x)

    assert count(f, (8, 8), ints()).flops == 2 * 2 * 8**3


def test_a_platforms_branch_is_the_one_that_runs_there():
    def f(x):
        return jax.lax.platform_dependent(x, cpu=lambda x: x @ x @ x, default=lambda x: x @ x)

    for grad, factor in ((False, 1), (True, 3)):
        g = jax.value_and_grad(lambda x: f(x).sum()) if grad else f
        assert count(g, (8, 8), platform="tpu").flops == factor * 2 * 8**3
        assert count(g, (8, 8), platform="cuda").flops == factor * 2 * 8**3
        assert count(g, (8, 8), platform="cpu").flops == factor * 2 * 2 * 8**3


def test_a_ragged_product_counts_rows_once_whatever_the_number_of_groups():
    M, K, N, E = 24, 8, 16, 4
    f = jax.lax.ragged_dot
    assert count(f, (M, K), (E, K, N), ints(E)).by_product == {"ragged_dot_general": 2 * M * K * N}
    gradient = jax.value_and_grad(lambda x, w, s: f(x, w, s).sum(), argnums=(0, 1))
    assert count(gradient, (M, K), (E, K, N), ints(E)).flops == 3 * 2 * M * K * N
    assert count(gradient, (M, K), (E, K, N), ints(E), ragged_share=0.25).flops == 3 * 2 * M * K * N / 4


def test_a_shard_map_counts_every_shard_of_its_manual_axes():
    mesh = AbstractMesh((2, 4), ("a", "b"), axis_types=(AxisType.Auto,) * 2)

    def f(x, manual):
        per_shard = jax.shard_map(lambda x, y: x @ y, mesh=mesh, in_specs=(P("a"), P()), out_specs=P("a"),
                                  axis_names=manual, check_vma=False)  # fmt: skip
        return per_shard(x, x)

    with jax.sharding.use_abstract_mesh(mesh):
        assert count(lambda x: f(x, {"a"}), (8, 8)).flops == 2 * 8**3
        # along b the work is done four times over
        assert count(lambda x: f(x, {"a", "b"}), (8, 8)).flops == 4 * 2 * 8**3


def test_a_pallas_kernel_counts_every_program_of_its_grid():
    pl = pytest.importorskip("jax.experimental.pallas")

    def kernel(x, y, out):
        out[...] = x[...] @ y[...]

    whole = pl.BlockSpec((16, 16), lambda i: (0, 0))
    rows = pl.BlockSpec((8, 16), lambda i: (i, 0))
    out = jax.ShapeDtypeStruct((32, 16), jnp.float32)
    f = pl.pallas_call(kernel, out, grid=(4,), in_specs=[rows, whole], out_specs=rows)
    assert count(f, (32, 16), (16, 16)).flops == 2 * 32 * 16 * 16


def test_attention_counts_the_blocks_that_causality_leaves():
    """Forward: scores and outputs of B (B + 1) / 2 pairs of blocks. Backward: five products for each."""
    R, T, H, N, K, chunk = 2, 64, 4, 2, 8, 16
    shapes = (R, T, H, K), (R, T, N, K), (R, T, N, K)
    pairs = (T // chunk) * (T // chunk + 1) / 2
    one = 2 * R * H * K * chunk**2

    def f(q, k, v):
        return attention.forest_attention(q, k, v, jnp.full((R, T), T), chunk).sum()

    assert count(f, *shapes, trips=costs.causal(0)).flops == 2 * pairs * one
    assert count(jax.grad(f, argnums=(0, 1, 2)), *shapes, trips=costs.causal(0)).flops == 7 * pairs * one


def test_the_gradient_of_a_frozen_matrix_counts_nothing():
    """The products of layers have a gradient of their own in bfloat16, which computes both."""

    def f(x, w):
        return products.matmul(x, w).astype(jnp.float32).sum()

    shapes = jax.ShapeDtypeStruct((8, 16), jnp.bfloat16), jax.ShapeDtypeStruct((16, 4), jnp.bfloat16)
    one = 2 * 8 * 16 * 4
    for argnums, times in ((0, 1), (1, 1), ((0, 1), 2)):
        # the gradient of a sum needs no product of the forward pass
        assert count(jax.grad(f, argnums), *shapes).flops == times * one


def test_elementwise_products_written_as_products_count_nothing():
    shapes = (4, 8, 16), (4, 8, 16)
    assert count(lambda x, y: jnp.einsum("rtd,rtd->rt", x, y), *shapes).flops == 0
    assert count(lambda x, y: jnp.einsum("rtd,rt->rtd", x, y[..., 0]), *shapes).flops == 0
    assert count(lambda x, y: jnp.einsum("rtd,rd->rt", x, y[:, 0]), *shapes).flops == 2 * 4 * 8 * 16


def test_experts_count_the_rows_of_the_tokens():
    M, D, F, E, A = 16, 8, 24, 6, 2
    shapes = (M, D), (M, A), ints(M, A), (E, D, F), (E, D, F), (E, F, D)
    got = count(experts.expert_mlp, *shapes)
    assert got.by_product["ragged_dot_general"] == 3 * 2 * M * A * D * F
    # on a CPU a loop of as many blocks as there turn out to be: the body counts once; weights go into it
    block = 3 * 2 * experts.block_rows(M * A, E) * D * F
    assert count(experts.expert_mlp, *shapes, platform="cpu").flops == block


def test_attention_kernels_count_their_grid():
    R, T, H, N, K = 2, 1024, 4, 2, 64
    blocks, B = T // 512, 512
    pairs = R * H * (blocks * (blocks + 1) // 2) * B * B  # of query and key

    def loss(q, k, v):
        return attention.forest_attention(q, k, v, jnp.full((R, T), T), 128).sum()

    shapes = (R, T, H, K), (R, T, N, K), (R, T, N, K)
    got = count(jax.grad(loss, (0, 1, 2)), *shapes)
    assert got.flops == 2 * pairs * K * (2 + 3 + 4)
