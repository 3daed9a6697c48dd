"""What decoder layers are made of: parameters declared by axis letters, adapters, norms, RoPE.

The axis letters are those of `decoder.py`. Linen only declares parameters: there are no mutable collections.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from pivotrl_jax.models import products, routing, sharding
from pivotrl_jax.models.config import ModelConfig


def declare(module: nn.Module, name: str, letters: str, scale: float | None) -> jax.Array:
    """A parameter declared by its axis letters, sharded as it is stored, in float32 or the dtype it was
    loaded in. `scale` is the standard deviation of its initial values; None makes them ones, for norms."""
    sizes = module.config.sizes()
    init = nn.initializers.ones if scale is None else nn.initializers.normal(scale)
    boxed = nn.with_logical_partitioning(init, tuple(letters))
    return module.param(name, boxed, tuple(sizes[letter] for letter in letters), jnp.float32)


def parameter(module: nn.Module, name: str, letters: str, scale: float | None) -> jax.Array:
    """`declare`, in the compute dtype and gathered where products need it."""
    return sharding.use(declare(module, name, letters, scale).astype(module.config.dtype), letters)


def adapter(module: nn.Module, name: str, inputs: str, outputs: str, experts: bool = False):
    """(A, B) of a matrix's low-rank adapter, B multiplied by the adapter's scale. B starts at zero, A with
    the variance of PEFT's initialiser. Adapters of experts stay sharded: `mixture` gathers them."""
    c, sizes = module.config, module.config.sizes()
    fan_in = math.prod(sizes[letter] for letter in inputs)
    axis = "E" if experts else ""
    a, b = f"{axis}{inputs}U", f"{axis}U{outputs}"
    down = declare(module, f"{name}_lora_a", a, (3 * fan_in) ** -0.5).astype(c.dtype)
    up = declare(module, f"{name}_lora_b", b, 0.0)
    up = (up.astype(jnp.float32) * c.lora.scale).astype(c.dtype)  # bfloat16 may not hold the scale exactly
    return (down, up) if experts else (sharding.use(down, a), sharding.use(up, b))


def rms_norm(x: jax.Array, weight: jax.Array, eps: float) -> jax.Array:
    """x / rms(x) * weight over the last axis. The mean square is taken in float32: a bfloat16 sum over
    thousands of squares loses the small ones."""
    x32 = x.astype(jnp.float32)
    # as products, so that the sums of the gradient are, too: a CPU takes eight times as long for a plain sum
    # over the last axis of an array that has one row
    product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    mean = product("...d,...d->...", x32, x32) / x.shape[-1]
    return product("...d,...->...d", x32, jax.lax.rsqrt(mean + eps)).astype(x.dtype) * weight


def rope_angles(config: ModelConfig, position: jax.Array) -> tuple[jax.Array, jax.Array]:
    """cos and sin of RoPE's angles, float32 [..., 1, K/2] for positions [...]."""
    angle = position[..., None, None].astype(jnp.float32) * config.rope_frequencies()
    factor = config.rope_scaling.attention_factor if config.rope_scaling else 1.0
    return jnp.cos(angle) * factor, jnp.sin(angle) * factor


@jax.custom_vjp
def rope(x: jax.Array, angles: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotate [..., heads, K] by `rope_angles`, in float32. Pairs are (i, i + K/2), as in transformers'
    rotate_half. The gradient is rotated back; none flows to the angles."""
    half = x.shape[-1] // 2
    cos, sin = angles
    a, b = x[..., :half].astype(jnp.float32), x[..., half:].astype(jnp.float32)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


def _rope_bwd(angles, g):
    cos, sin = angles
    return rope(g, (cos, -sin)), None


# by hand, since what JAX derives pads and adds four halves, which takes a CPU five times as long
rope.defvjp(lambda x, angles: (rope(x, angles), angles), _rope_bwd)


class Layer(nn.Module):
    """The base class of a family's decoder layer. A family defines `__call__`, under `nn.compact`:

        (x [R, T, D], (cache, recorded), angles, context, token_weight) -> (x, (new_cache, router_stats))

    `attend(q, k, v, cache, context)` returns the attended values and what to cache; `column` is the column of
    `sharding.TABLE` by which parameters are sharded; `router_outputs` says which router outputs `mixture`
    returns.
    """

    config: ModelConfig
    attend: Callable
    column: int
    moe: bool
    router_outputs: routing.RouterOutputs

    def norm(self, name: str, x: jax.Array, letters: str = "D") -> jax.Array:
        return rms_norm(x, parameter(self, name, letters, None), self.config.rms_norm_eps)

    def project(self, x: jax.Array, name: str, inputs: str, outputs: str, bias: bool = False) -> jax.Array:
        """x W [+ x A B] [+ bias] over the axes `inputs` of `x` [R, T, inputs], to [R, T, outputs]."""
        rows, sizes = x.shape[:2], self.config.sizes()
        wide = math.prod(sizes[letter] for letter in outputs)
        # as products of matrices: of arrays with more axes, XLA transposes the activations for the gradient
        # of the matrix, a fifth of an update on CPU
        x = x.reshape(math.prod(rows), -1)
        y = products.matmul(x, parameter(self, name, inputs + outputs, 0.02).reshape(-1, wide))
        if self.config.lora:
            a, b = adapter(self, name, inputs, outputs)
            narrow = products.matmul(x, a.reshape(-1, a.shape[-1]))
            y = y + products.matmul(narrow, b.reshape(-1, wide))
        y = y.reshape(*rows, *(sizes[letter] for letter in outputs))
        if bias:
            y = y + parameter(self, f"{name}_bias", outputs, 0.02)
        return sharding.constrain(y, "RT" + outputs)

    def mlp(self, h: jax.Array) -> jax.Array:
        bias = self.config.mlp_bias
        gate, up = self.project(h, "gate", "D", "I", bias), self.project(h, "up", "D", "I", bias)
        # in float32: a CPU rounds after every operation otherwise, which takes it longer than the products
        h = jax.nn.silu(gate.astype(jnp.float32)) * up.astype(jnp.float32)
        return self.project(h.astype(gate.dtype), "down", "I", "D", bias)
