"""The embedding: token ids -> vectors. Each device looks up tokens in its own part of the table."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from pivotrl_jax.models import sharding
from pivotrl_jax.models.layers import declare


def embed(module: nn.Module, tokens: jax.Array) -> jax.Array:
    """Embeddings [R, T, D] of tokens [R, T], in the compute dtype. `module.column` says how the table is
    sharded."""
    c, mesh = module.config, sharding.current_mesh()
    table = declare(module, "embed", "VD", 0.02)
    at_rest = sharding.spec(mesh, "VD", table.shape, module.column) if mesh else None

    def look_up(table, tokens):
        if mesh is None:
            return table[tokens].astype(c.dtype)
        table, tokens = sharding.varying((table.astype(c.dtype), tokens))
        # in float32: the gradient sums over a token's occurrences, and bfloat16 would lose the small terms
        table = sharding.gather(table, at_rest[1], 1).astype(jnp.float32)
        row = tokens - sharding.index("tensor") * table.shape[0]
        row = jnp.where(row < 0, table.shape[0], row)  # a negative index would count from the end
        return sharding.total(table.at[row].get(mode="fill", fill_value=0).astype(c.dtype), "tensor")

    return sharding.per_shard(look_up, (at_rest, sharding.BATCH), sharding.BATCH)(table, tokens)
