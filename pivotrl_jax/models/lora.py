"""Low-rank adapters (arXiv 2106.09685): finding them in a params tree, initialising them, merging them.

When ModelConfig.lora is set, `decoder.py` declares them beside the matrix they adapt: `q_lora_a` and
`q_lora_b` beside `q`. Then only they are trained; the base stays as it was loaded.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from pivotrl_jax.models import config as model_config
from pivotrl_jax.models import decoder

MARK = "_lora_"


def with_adapters(config: model_config.ModelConfig, section: Any) -> model_config.ModelConfig:
    """The model with the adapters that `config.model.lora` describes; none when its rank is 0."""
    adapters = model_config.Lora(section.rank, section.alpha) if section.rank else None
    return dataclasses.replace(config, lora=adapters)


def trained(config: model_config.ModelConfig, params: dict) -> dict:
    """The part of a params tree that is trained: the adapters if there are any, otherwise everything."""
    return _pick(params, True) if config.lora else params


def base(params: dict) -> dict:
    """The params tree without adapters."""
    return _pick(params, False)


def _pick(params: dict, adapters: bool) -> dict:
    flat = traverse_util.flatten_dict(params)
    return traverse_util.unflatten_dict({k: v for k, v in flat.items() if (MARK in k[-1]) == adapters})


def join(one: dict, other: dict) -> dict:
    """Join two trees, the base and its adapters, into one."""
    if not one or not other:
        return one or other
    flat = traverse_util.flatten_dict(one) | traverse_util.flatten_dict(other)
    return traverse_util.unflatten_dict(flat)


def has_adapters(params: dict) -> bool:
    """Whether a params tree contains adapters."""
    return any(MARK in path[-1] for path in traverse_util.flatten_dict(params))


def init(config: model_config.ModelConfig, seed: int) -> dict:
    """New adapters, float32: A uniform in +-1/sqrt(inputs) as in PEFT, and B zero, so that the policy starts
    equal to the reference. They are drawn leaf by leaf on the host: the same numbers on every mesh."""
    shapes = traverse_util.flatten_dict(trained(config, decoder.param_shapes(config)))

    def draw(number, path, leaf):
        if path[-1].endswith("b"):
            return np.zeros(leaf.shape, np.float32)
        rng = np.random.default_rng([seed, number])
        bound = _inputs(path[-1], leaf.shape) ** -0.5
        return rng.uniform(-bound, bound, leaf.shape).astype(np.float32)

    return traverse_util.unflatten_dict(
        {path: draw(n, path, leaf) for n, (path, leaf) in enumerate(sorted(shapes.items()))}
    )


def _inputs(name: str, shape: tuple[int, ...]) -> int:
    """How many inputs an A [L, (E,) inputs..., U] has. The input of `o` has two axes, heads and head_dim; the
    others have one."""
    return int(np.prod(shape[-3:-1])) if name.startswith("o_") else shape[-2]


def merged(config: model_config.ModelConfig, params: dict) -> dict:
    """`params` of a model without adapters that computes the same: an adapted matrix is W + alpha / rank A B,
    float32; the others are as they were. This is for exports: an adapted matrix becomes a `Merged`, which
    adds one layer at a time, because memory may not hold a merged copy beside the base."""
    if not config.lora:
        return params
    flat = traverse_util.flatten_dict(params)

    def view(path, w):
        a, b = (flat.get((*path[:-1], f"{path[-1]}{MARK}{x}")) for x in "ab")
        return w if a is None else Merged(w, a, b, config.lora.scale)

    return traverse_util.unflatten_dict({p: view(p, w) for p, w in flat.items() if MARK not in p[-1]})


def share_kept(merged: dict, dtype: str) -> float:
    """How much of the adapters' update is left when the matrices of `merged` are rounded to `dtype`:
    <round(W + U) - W, U> / <U, U> over all matrices, where U = alpha / rank A B. 1 if nothing was learnt.

    An update far below the spacing of `dtype` around W is lost for most entries, and this share is near 0;
    where it is above the spacing, rounding is noise that does not lower the share. One layer is in memory at
    a time.
    """
    kept = whole = 0.0
    for x in traverse_util.flatten_dict(merged).values():
        for layer in range(x.shape[0]) if isinstance(x, Merged) else ():
            one, all_ = _kept(x.w[layer], x.a[layer], x.b[layer], x.scale, jnp.dtype(dtype))
            kept, whole = kept + float(one), whole + float(all_)
    return kept / whole if whole else 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class Merged:
    """A matrix and its adapter, read layer by layer as if they were one float32 array: W [L, (E,) inputs,
    outputs], A [L, (E,) inputs, U], B [L, (E,) U, outputs]."""

    w: jax.Array
    a: jax.Array
    b: jax.Array
    scale: float

    @property
    def shape(self) -> tuple[int, ...]:
        return self.w.shape

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float32)

    @property
    def ndim(self) -> int:
        return self.w.ndim

    def __getitem__(self, index: int | tuple) -> jax.Array:
        """The merged matrix of a layer, sharded as w[layer] is. `index` is the layer or (layer,)."""
        return _add(self.w[index], self.a[index], self.b[index], self.scale)


@jax.jit
def _add(w: jax.Array, a: jax.Array, b: jax.Array, scale: float) -> jax.Array:
    """w + scale a b of one layer, float32."""
    return w.astype(jnp.float32) + _update(a, b, scale)


@functools.partial(jax.jit, static_argnums=4)
def _kept(w: jax.Array, a: jax.Array, b: jax.Array, scale: float, dtype) -> tuple[jax.Array, jax.Array]:
    """(<round(w + u) - w, u>, <u, u>) of one layer's update u."""
    w, u = w.astype(jnp.float32), _update(a, b, scale)
    # an explicit rounding: compilers may drop a cast to bfloat16 and back
    bits = jnp.finfo(dtype)
    rounded = jax.lax.reduce_precision(w + u, bits.nexp, bits.nmant)
    return ((rounded - w) * u).sum(), (u * u).sum()


def _update(a: jax.Array, b: jax.Array, scale: float) -> jax.Array:
    """scale a b of one layer, float32. If A and B have equally many axes, they are [E, inputs, U] and
    [E, U, outputs], or [inputs, U] and [U, outputs]; otherwise one of them has heads and head_dim as two
    axes."""
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    product = jnp.matmul if a.ndim == b.ndim else functools.partial(jnp.tensordot, axes=1)
    return scale * product(a, b, precision=jax.lax.Precision.HIGHEST)
