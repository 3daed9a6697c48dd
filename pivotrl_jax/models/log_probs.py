"""Logits and log-probs from hidden states, without an array of [tokens, vocabulary]."""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from pivotrl_jax.models import sharding
from pivotrl_jax.models.config import ModelConfig


def unembedding(config: ModelConfig, params) -> jax.Array:
    """The unembedding [D, V] in the compute dtype; if embeddings are tied, the transposed embedding."""
    return (params["embed"].T if config.tie_embeddings else params["unembed"]).astype(config.dtype)


def logits_of(config: ModelConfig, params, hidden: jax.Array) -> jax.Array:
    """Logits, float32 [..., V], for a few hidden states [..., D]. For whole forests use
    `token_log_probs`."""
    unembed = sharding.use(unembedding(config, params), "DV")
    return jnp.einsum("...d,dv->...v", hidden, unembed, preferred_element_type=jnp.float32)


def token_log_probs(
    config: ModelConfig,
    params,
    hidden_RTD: jax.Array,
    tokens_RT: jax.Array,
    parent_RT: jax.Array,
    wanted_RT: jax.Array,
    temperature: float,
    chunk: int,
) -> tuple[jax.Array, jax.Array]:
    """(log p(token | its parent's hidden state), entropy of that distribution), float32 [R, T]; 0 where not
    `wanted`. Parameters are sharded as in the learner.

    Wanted slots are gathered to the front of each row and processed `chunk` per row at a time, forward and
    backward, so no [tokens, vocabulary] array exists and a chunk without wanted slots costs nothing.
    Temperature divides logits, not log-probs. The entropy has no gradient.
    """
    mesh, unembed = sharding.current_mesh(), unembedding(config, params)
    at_rest = sharding.spec(mesh, "DV", unembed.shape, sharding.LEARNER) if mesh else P()

    def compute(unembed, *rows):
        # varying before the loop over chunks, so that its gradient is summed over devices once, after the
        # loop; float32, because the gradient is summed over chunks
        unembed = sharding.gather(sharding.varying(unembed), at_rest[0] if mesh else None, 0)
        unembed = unembed.astype(jnp.float32)
        return _row_log_probs(unembed, *rows, temperature, chunk)

    rows = (hidden_RTD, tokens_RT, parent_RT, wanted_RT)
    in_specs = (at_rest, *(sharding.BATCH for _ in rows))
    return sharding.per_shard(compute, in_specs, (sharding.BATCH, sharding.BATCH))(unembed, *rows)


def _row_log_probs(unembed, hidden_RTD, tokens_RT, parent_RT, wanted_RT, temperature, chunk):
    """`token_log_probs` for one device's rows, with its share of the vocabulary."""
    R, T = tokens_RT.shape
    chunk = min(chunk, T)
    steps = -(-T // chunk)
    order = jnp.argsort(~wanted_RT, axis=-1, stable=True)
    order = jnp.pad(order, ((0, 0), (0, steps * chunk - T)), mode="edge")

    def take(x_RT):
        return jnp.take_along_axis(x_RT, order, axis=1).reshape(R, steps, chunk).swapaxes(0, 1)

    source = jnp.take_along_axis(jnp.maximum(parent_RT, 0), order, axis=1)
    hidden = (
        jnp.take_along_axis(hidden_RTD, source[..., None], axis=1).reshape(R, steps, chunk, -1).swapaxes(0, 1)
    )
    wanted = take(wanted_RT)

    # checkpoint goes around the cond: inside it, the scan would store a copy of the unembedding per chunk
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def chunk_outputs(h, target, any_wanted):
        compute = functools.partial(_scores_to_outputs, unembed, temperature)
        return jax.lax.cond(
            any_wanted, compute, lambda h, t: (h[..., 0].astype(jnp.float32) * 0,) * 2, h, target
        )

    def step(_, xs):
        h, target, wanted, any_wanted = xs
        log_prob, entropy = chunk_outputs(h, target, any_wanted)
        return None, (jnp.where(wanted, log_prob, 0.0), jnp.where(wanted, entropy, 0.0))

    # all devices must decide alike: collectives inside a branch that only some devices take would hang
    anywhere = sharding.total(wanted.any((1, 2)).astype(jnp.int32), sharding.BATCH_AXES) > 0
    _, outputs = jax.lax.scan(step, None, (hidden, take(tokens_RT), wanted, anywhere))
    back = jnp.argsort(order[:, :T], axis=-1)

    def restore(x):
        return jnp.take_along_axis(x.swapaxes(0, 1).reshape(R, -1)[:, :T], back, axis=1)

    return restore(outputs[0]), restore(outputs[1])


def _scores_to_outputs(unembed, temperature, h, target):
    """(log-prob of `target` [R, C], entropy), from scores of this device's share of the vocabulary."""
    w = unembed.astype(h.dtype)
    scores = jnp.einsum("rcd,dv->rcv", h, w, preferred_element_type=jnp.float32) / temperature
    top = sharding.largest(jax.lax.stop_gradient(scores).max(-1), "tensor")
    total = top + jnp.log(sharding.total(jnp.exp(scores - top[..., None]).sum(-1), "tensor"))
    here = target - sharding.index("tensor") * unembed.shape[1]
    mine = (here >= 0) & (here < unembed.shape[1])
    chosen = jnp.take_along_axis(scores, jnp.where(mine, here, 0)[..., None], axis=-1)[..., 0]
    log_prob = sharding.total(jnp.where(mine, chosen, 0.0), "tensor") - total
    scores, total = jax.lax.stop_gradient((scores, total))
    mean_score = sharding.total((jnp.exp(scores - total[..., None]) * scores).sum(-1), "tensor")
    return log_prob, total - mean_score
