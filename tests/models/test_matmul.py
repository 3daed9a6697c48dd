"""The products of layers in bfloat16, and the gradients that they define themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pivotrl_jax.models import layers


def _random(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_product_and_its_gradients_are_those_in_float64_rounded_once(dtype):
    x, w, g = (jnp.asarray(_random(*s, seed=i), dtype) for i, s in enumerate([(33, 48), (48, 20), (33, 20)]))
    y, pull = jax.vjp(layers.matmul, x, w)
    x64, w64, g64 = (np.asarray(a, np.float64) for a in (x, w, g))
    for got, exact in zip((y, *pull(g)), (x64 @ w64, g64 @ w64.T, x64.T @ g64), strict=True):
        assert got.dtype == dtype
        half_a_step = float(jnp.finfo(dtype).eps) / 2
        tolerance = half_a_step * np.abs(exact) * 1.01 + 2e-5  # the sum itself is in float32
        assert (np.abs(np.asarray(got, np.float64) - exact) <= tolerance).all()


def test_in_float32_a_product_is_the_plain_one():
    x, w = jnp.asarray(_random(9, 16, seed=0), jnp.float32), jnp.asarray(_random(16, 5, seed=1), jnp.float32)
    np.testing.assert_array_equal(layers.matmul(x, w), x @ w)


def test_other_backends_get_one_product_without_a_float32_result():
    x = jax.ShapeDtypeStruct((64, 32), jnp.bfloat16)
    w = jax.ShapeDtypeStruct((32, 16), jnp.bfloat16)
    lowered = {
        name: jax.jit(layers.matmul).trace(x, w).lower(lowering_platforms=(name,)).as_text()
        for name in ("cpu", "tpu")
    }
    assert "-> tensor<64x16xf32>" in lowered["cpu"]
    assert "xf32>" not in lowered["tpu"] and "-> tensor<64x16xbf16>" in lowered["tpu"]
