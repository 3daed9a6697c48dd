"""What a run reports of its programs is what JAX compiled."""

import jax
import jax.numpy as jnp

from pivotrl_jax.run import compilations


def test_programs_are_counted_by_name_and_shape():
    def apply(x):
        return x * 3 + 1

    inputs = [jnp.zeros(n) for n in (3, 3, 4)]  # before the mark: filling an array is a program, too
    start = compilations.mark()
    assert compilations.since(start) == {"programs": {}, "seconds": 0}
    jitted = jax.jit(apply)
    for x in inputs:
        jitted(x).block_until_ready()
    jax.jit(lambda x: x - 7)(inputs[0]).block_until_ready()
    found = compilations.since(start)
    assert found["programs"] == {"apply": 2, "other": 1}
    assert found["seconds"] > 0
