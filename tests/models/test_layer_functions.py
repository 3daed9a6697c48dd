"""Products, norms and rotations of layers against float64, with the gradients that they define themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pivotrl_jax.models import layers, products


def _random(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("inner, outer", [(48, 20), (20, 48)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_product_and_its_gradients_are_those_in_float64_rounded_once(dtype, inner, outer):
    shapes = (33, inner), (inner, outer), (33, outer)
    x, w, g = (jnp.asarray(_random(*s, seed=i), dtype) for i, s in enumerate(shapes))
    y, pull = jax.vjp(products.matmul, x, w)
    x64, w64, g64 = (np.asarray(a, np.float64) for a in (x, w, g))
    for got, exact in zip((y, *pull(g)), (x64 @ w64, g64 @ w64.T, x64.T @ g64), strict=True):
        assert got.dtype == dtype
        half_a_step = float(jnp.finfo(dtype).eps) / 2
        tolerance = half_a_step * np.abs(exact) * 1.01 + 2e-5  # the sum itself is in float32
        assert (np.abs(np.asarray(got, np.float64) - exact) <= tolerance).all()


def test_in_float32_a_product_is_the_plain_one():
    x, w = jnp.asarray(_random(9, 16, seed=0), jnp.float32), jnp.asarray(_random(16, 5, seed=1), jnp.float32)
    np.testing.assert_array_equal(products.matmul(x, w), x @ w)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_norm_and_its_gradients_are_those_in_float64(rows):
    eps, shape = 1e-5, (rows, 7, 40)
    x, w, g = _random(*shape, seed=0), _random(40, seed=1), _random(*shape, seed=2)
    y, pull = jax.vjp(lambda x, w: layers.rms_norm(x, w, eps), *(jnp.asarray(a, jnp.float32) for a in (x, w)))
    scale = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + eps)
    dx = scale * (g * w - x * scale**2 * (g * w * x).mean(-1, keepdims=True))
    exact = x * scale * w, dx, (g * x * scale).sum((0, 1))
    for got, want in zip((y, *pull(jnp.asarray(g, jnp.float32))), exact, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_a_rotation_is_that_of_complex_numbers_and_its_gradient_turns_back():
    x, g = _random(2, 5, 3, 8, seed=0), _random(2, 5, 3, 8, seed=1)
    angle = _random(2, 5, 1, 4, seed=2)

    def turned(a, by):
        z = (a[..., :4] + 1j * a[..., 4:]) * np.exp(1j * by)
        return np.concatenate([z.real, z.imag], -1)

    angles = tuple(jnp.asarray(f(angle), jnp.float32) for f in (np.cos, np.sin))
    y, pull = jax.vjp(lambda x: layers.rope(x, angles), jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(y, turned(x, angle), atol=1e-6)
    np.testing.assert_allclose(pull(jnp.asarray(g, jnp.float32))[0], turned(g, -angle), atol=1e-6)


def test_other_backends_get_one_product_without_a_float32_result():
    x = jax.ShapeDtypeStruct((64, 32), jnp.bfloat16)
    w = jax.ShapeDtypeStruct((32, 16), jnp.bfloat16)
    lowered = {
        name: jax.jit(products.matmul).trace(x, w).lower(lowering_platforms=(name,)).as_text()
        for name in ("cpu", "tpu")
    }
    assert "-> tensor<64x16xf32>" in lowered["cpu"]
    assert "xf32>" not in lowered["tpu"] and "-> tensor<64x16xbf16>" in lowered["tpu"]
