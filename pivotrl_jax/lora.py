"""Low-rank adapters (arXiv 2106.09685): which parameters they are, fresh ones, and merging them.

`model.py` declares them beside the matrix they adapt, `q_lora_a` and `q_lora_b` beside `q`, when
ModelConfig.lora is set. They alone are trained then; the base stays as it was loaded.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from pivotrl_jax import model

MARK = "_lora_"


def trained(config: model.ModelConfig, params: dict) -> dict:
    """The part of a params tree that is trained: the adapters where there are any, else everything."""
    return _pick(params, True) if config.lora else params


def base(params: dict) -> dict:
    """The params tree without adapters."""
    return _pick(params, False)


def _pick(params: dict, adapters: bool) -> dict:
    flat = traverse_util.flatten_dict(params)
    return traverse_util.unflatten_dict({k: v for k, v in flat.items() if (MARK in k[-1]) == adapters})


def join(one: dict, other: dict) -> dict:
    """One tree of the leaves of two: the base and its adapters."""
    if not one or not other:
        return one or other
    flat = traverse_util.flatten_dict(one) | traverse_util.flatten_dict(other)
    return traverse_util.unflatten_dict(flat)


def has_adapters(params: dict) -> bool:
    """Whether a params tree carries adapters."""
    return any(MARK in path[-1] for path in traverse_util.flatten_dict(params))


def init(config: model.ModelConfig, seed: int) -> dict:
    """Fresh adapters, float32: A uniform in +-1/sqrt(inputs) as PEFT draws it, B zero, so that the policy
    starts as the reference. Leaf by leaf on the host: the same numbers on every mesh."""
    shapes = traverse_util.flatten_dict(trained(config, model.param_shapes(config)))

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
    """How many inputs an A [L, (E,) inputs..., U] has: `o` reads heads and head_dim, the others one axis."""
    return int(np.prod(shape[-3:-1])) if name.startswith("o_") else shape[-2]


def merge(config: model.ModelConfig, params: dict) -> tuple[model.ModelConfig, dict]:
    """The config and params of a model without adapters that computes the same: W + alpha / rank A B, added
    in float32, in W's dtype. Arrays keep their place on the mesh."""
    flat = traverse_util.flatten_dict(params)
    scale = config.lora.scale

    @jax.jit
    def added(w, a, b):
        lead = 2 if w.ndim == 4 and a.ndim == 4 and b.ndim == 4 else 1  # [L, E, ...] or [L, ...]
        rows = a.reshape(*a.shape[:lead], -1, a.shape[-1]).astype(jnp.float32)
        columns = b.reshape(*b.shape[: lead + 1], -1).astype(jnp.float32)
        return (w + (scale * (rows @ columns)).reshape(w.shape)).astype(w.dtype)

    for path in [path for path in flat if MARK not in path[-1]]:
        a, b = (flat.get((*path[:-1], f"{path[-1]}{MARK}{x}")) for x in "ab")
        if a is not None:
            flat[path] = added(flat[path], a, b)
    merged = {path: x for path, x in flat.items() if MARK not in path[-1]}
    return dataclasses.replace(config, lora=None), traverse_util.unflatten_dict(merged)
