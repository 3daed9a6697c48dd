"""Products of matrices in bfloat16 as a CPU is fast at them, with their gradients."""

import jax
import jax.numpy as jnp


def _matmul(x: jax.Array, y: jax.Array, over: tuple[int, int]) -> jax.Array:
    """The product of two matrices over axis over[0] of x and over[1] of y, in the dtype of x."""
    dims = ((over[0],), (over[1],)), ((), ())

    def summed(x, y):
        return jax.lax.dot_general(x, y, dims, preferred_element_type=jnp.float32).astype(x.dtype)

    def plain(x, y):
        return jax.lax.dot_general(x, y, dims)

    return jax.lax.platform_dependent(x, y, cpu=summed, default=plain)


@jax.custom_vjp
def _bfloat16_matmul(x: jax.Array, w: jax.Array) -> jax.Array:
    return _matmul(x, w, (1, 0))


def _bfloat16_matmul_bwd(residual, g):
    x, w = residual
    # the narrower matrix comes first (an adapter's gradient is 16 wide): the other way round takes a CPU
    # three times as long
    dw = _matmul(x, g, (0, 0)) if x.shape[1] <= g.shape[1] else _matmul(g, x, (0, 0)).T
    return _matmul(g, w, (1, 1)), dw


_bfloat16_matmul.defvjp(lambda x, w: (_bfloat16_matmul(x, w), (x, w)), _bfloat16_matmul_bwd)


def matmul(x: jax.Array, w: jax.Array) -> jax.Array:
    """x [M, I] @ w [I, O]. On a CPU, XLA has kernels for products of bfloat16 that return float32 (several
    times as fast with AMX), and none for those that return bfloat16, so the result and the gradients are
    rounded afterwards. That is what other backends do inside the product."""
    return _bfloat16_matmul(x, w) if x.dtype == jnp.bfloat16 else x @ w
