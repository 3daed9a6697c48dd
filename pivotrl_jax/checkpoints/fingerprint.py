"""A fingerprint of parameters on their devices. It depends on every bit, and not on the sharding.

`hf.checkpoint_fingerprint` is for a checkpoint on disk; this one is for a policy that is being trained.
"""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pivotrl_jax.models import sharding

SALTS = (0x9E3779B9, 0x7F4A7C15)  # two sums of 32 bits


def params_fingerprint(params, mesh: Mesh) -> str:
    """16 hex digits. Equal for equal parameters on any mesh: sums of integers, which do not round."""
    digest = jax.jit(_digest, out_shardings=NamedSharding(mesh, PartitionSpec()))(params)
    return "".join(f"{int(part):08x}" for part in sharding.fetch(digest))


def _digest(params) -> jax.Array:
    """uint32 [2]: for each salt the sum of bits x weight; a weight is an odd hash of leaf and position."""
    sums = [
        jnp.stack([_sum(leaf, number, salt) for salt in SALTS])
        for number, leaf in enumerate(jax.tree.leaves(params))
    ]
    return jnp.stack(sums).sum(0, dtype=jnp.uint32)


def _sum(leaf: jax.Array, number: int, salt: int) -> jax.Array:
    unsigned = {2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)
    place = jnp.full(leaf.shape, (number * 0x85EBCA6B + salt) & 0xFFFFFFFF, jnp.uint32)
    for axis, size in enumerate(leaf.shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
    for multiplier in (0x2C1B3C6D, 0x297A2D39):  # an integer hash of xor-shifts and products
        place = (place ^ (place >> 15)) * jnp.uint32(multiplier)
    return (bits * (place ^ (place >> 15) | 1)).sum(dtype=jnp.uint32)
