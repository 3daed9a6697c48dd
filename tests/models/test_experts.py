"""Experts: both grouped products equal a per-token loop, values and gradients; the router as Qwen3 has it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pivotrl_jax.models import experts

D, F, E = 6, 5, 4


def routing(kind: str, tokens: int) -> np.ndarray:
    rng = np.random.default_rng(tokens)
    if kind == "skewed":  # every token to experts 2 and 0: the others stay empty
        return np.tile([2, 0], (tokens, 1)).astype(np.int32)
    if kind == "balanced":
        return ((np.arange(tokens)[:, None] + np.arange(2)) % E).astype(np.int32)
    return np.stack([rng.permutation(E)[:2] for _ in range(tokens)]).astype(np.int32)


def arrays(expert_MA, seed=0):
    rng = np.random.default_rng(seed)
    M, A = expert_MA.shape
    shapes = [(M, D), (M, A), (E, D, F), (E, D, F), (E, F, D), (M, D)]
    x, weight, gate, up, down, g = (rng.normal(size=s).astype(np.float32) for s in shapes)
    return x, weight, gate, up, down, g


def loop(x, weight, expert_MA, gate, up, down, g):
    """Token by token, expert by expert, in float64: the output, and the gradients for the cotangent `g`."""
    x, weight, gate, up, down, g = (np.asarray(a, np.float64) for a in (x, weight, gate, up, down, g))
    out, dx, dweight = np.zeros_like(x), np.zeros_like(x), np.zeros_like(weight)
    dgate, dup, ddown = np.zeros_like(gate), np.zeros_like(up), np.zeros_like(down)
    for m, a in np.ndindex(expert_MA.shape):
        e, w = expert_MA[m, a], weight[m, a]
        before, scale = x[m] @ gate[e], x[m] @ up[e]
        sigmoid = 1 / (1 + np.exp(-before))
        inner = before * sigmoid * scale
        out[m] += w * (inner @ down[e])
        dweight[m, a] = g[m] @ (inner @ down[e])
        ddown[e] += w * np.outer(inner, g[m])
        dinner = w * (down[e] @ g[m])
        dbefore = dinner * scale * (sigmoid + before * sigmoid * (1 - sigmoid))
        dscale = dinner * before * sigmoid
        dgate[e] += np.outer(x[m], dbefore)
        dup[e] += np.outer(x[m], dscale)
        dx[m] += gate[e] @ dbefore + up[e] @ dscale
    return out, dx, dweight, dgate, dup, ddown


def values_and_gradients(f, expert_MA, x, weight, gate, up, down, g):
    out, vjp = jax.vjp(lambda x, w, *rest: f(x, w, expert_MA, *rest), x, weight, gate, up, down)
    return out, *vjp(g)


@pytest.fixture(scope="module")
def compiled():
    def make(f):
        return jax.jit(functools.partial(values_and_gradients, f))

    return {"blocked": make(experts.blocked_mlp), "ragged": make(experts.ragged_mlp)}


CASES = [(kind, tokens) for kind in ("balanced", "skewed", "random") for tokens in (1, 3, 40)]


@pytest.mark.parametrize("kind, tokens", CASES)
def test_grouped_products_equal_a_per_token_loop(compiled, kind, tokens):
    expert_MA = routing(kind, tokens)
    x, weight, gate, up, down, g = arrays(expert_MA)
    reference = loop(x, weight, expert_MA, gate, up, down, g)
    for name, run in compiled.items():
        got = run(expert_MA, x, weight, gate, up, down, g)
        for label, a, b in zip(("out", "x", "weight", "gate", "up", "down"), got, reference):
            assert a.dtype == jnp.float32
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5, err_msg=f"{name} {label}")


def test_no_row_is_dropped_when_blocks_are_as_many_as_can_be():
    # 68 rows in blocks of 32: experts of 33, 33, 1 and 1 take 6 blocks, the bound 68 // 32 + 4
    expert_MA = np.repeat(np.arange(E, dtype=np.int32), [33, 33, 1, 1])[:, None]
    assert experts.block_rows(68, E) == 32
    args = arrays(expert_MA)
    got = jax.jit(functools.partial(values_and_gradients, experts.blocked_mlp))(expert_MA, *args)
    for a, b in zip(got, loop(*args[:2], expert_MA, *args[2:])):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=5e-5)


def test_an_infinite_row_stays_with_its_own_expert():
    """A block reaches into the next expert's rows: what is there must not come through."""
    expert_MA = np.repeat(np.arange(E, dtype=np.int32), 3)[:, None]
    x, weight, gate, up, down, g = arrays(expert_MA)
    x[3:6] = np.inf  # expert 1's
    got = jax.jit(functools.partial(values_and_gradients, experts.blocked_mlp))(
        expert_MA, x, weight, gate, up, down, g
    )
    out, dx, _, *d_matrices = (np.asarray(a) for a in got)
    others, their_rows = [0, 2, 3], [0, 1, 2, *range(6, 12)]
    assert np.isfinite(out[their_rows]).all() and np.isfinite(dx[their_rows]).all()
    assert all(np.isfinite(d[others]).all() for d in d_matrices)


def test_expert_mlp_takes_the_platforms_product():
    expert_MA = routing("random", 3)
    x, weight, gate, up, down, g = arrays(expert_MA)
    args = (x, weight, expert_MA, gate, up, down)
    want = loop(*args, g)[0]
    np.testing.assert_allclose(jax.jit(experts.expert_mlp)(*args), want, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("normalise", [True, False])
def test_router_is_a_softmax_over_all_experts_then_the_top(normalise):
    rng = np.random.default_rng(0)
    x, router = rng.normal(size=(9, D)).astype(np.float32), rng.normal(size=(D, E)).astype(np.float32)
    weight, expert, _ = experts.choose(experts.probabilities(x, router), 2, normalise)
    logits = x.astype(np.float64) @ router
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    order = np.argsort(-probs, axis=1)[:, :2]
    want = np.take_along_axis(probs, order, axis=1)
    want = want / want.sum(1, keepdims=True) if normalise else want
    assert (np.asarray(expert) == order).all()
    np.testing.assert_allclose(weight, want, rtol=1e-5)


def test_router_keeps_float32_under_bfloat16():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(64, D)), jnp.bfloat16)
    router = jnp.asarray(rng.normal(size=(D, E)), jnp.bfloat16)
    weight, expert, _ = experts.choose(experts.probabilities(x, router), 2, True)
    probs = experts.probabilities(x.astype(jnp.float32), router.astype(jnp.float32))
    want_weight, want_expert, _ = experts.choose(probs, 2, True)
    assert weight.dtype == jnp.float32 and (expert == want_expert).all()
    np.testing.assert_array_equal(weight, want_weight)


def test_bfloat16_products_stay_near_float32():
    expert_MA = routing("random", 40)
    x, weight, gate, up, down, _ = arrays(expert_MA)
    x, gate, up, down = (jnp.asarray(a, jnp.bfloat16) for a in (x, gate, up, down))
    got = jax.jit(experts.blocked_mlp)(x, weight, expert_MA, gate, up, down)
    want = loop(x, weight, expert_MA, gate, up, down, x)[0]
    assert got.dtype == jnp.bfloat16
    assert np.abs(np.asarray(got, np.float64) - want).max() < 0.03 * np.abs(want).max()


def test_rows_of_other_devices_reach_neither_output_nor_gradient(monkeypatch):
    """What `ragged_dot` leaves in rows past its groups is not defined; here it is NaN, both ways."""
    real = jax.lax.ragged_dot

    @jax.custom_vjp
    def careless(rows, w, sizes):
        mine = jnp.arange(len(rows))[:, None] < sizes.sum()
        return jnp.where(mine, real(rows, w, sizes), jnp.nan)

    def backward(saved, g):
        rows, w, sizes = saved
        mine = jnp.arange(len(rows))[:, None] < sizes.sum()
        drows, dw = jax.vjp(lambda r, w: real(r, w, sizes), rows, w)[1](jnp.where(mine, g, 0))
        return jnp.where(mine, drows, jnp.nan), dw, None

    careless.defvjp(lambda *a: (careless(*a), a), backward)
    expert_MA = routing("random", 12)
    x, weight, gate, up, down, g = arrays(expert_MA)
    foreign = expert_MA >= 2  # experts 2 and 3 live elsewhere
    want = loop(x, np.where(foreign, 0, weight), expert_MA, gate, up, down, g)
    monkeypatch.setattr(jax.lax, "ragged_dot", careless)
    for f in (experts.ragged_mlp, experts.blocked_mlp):
        local = np.where(foreign, 2, expert_MA)  # ids from E on
        args = (jnp.asarray(a) for a in (local, x, weight, gate[:2], up[:2], down[:2], g))
        got = values_and_gradients(f, *args)
        for a, b in zip(got, (want[0], want[1], np.where(foreign, 0, want[2]), *(w[:2] for w in want[3:]))):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)
