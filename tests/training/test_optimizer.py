"""AdamW's state in fewer bits and in host memory: the same updates, within what rounding allows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from support.forests import MIXED, per_token, random_groups, sharp_params, spread

from pivotrl_jax.models import decoder, sharding
from pivotrl_jax.models.config import Lora
from pivotrl_jax.models.forest import pack
from pivotrl_jax.records import InputError
from pivotrl_jax.training import learner as learner_lib
from pivotrl_jax.training import objectives, optimizer
from pivotrl_jax.training.optimizer import kept_in, make_optimizer, without


def test_adamw_warms_up_clips_and_decays():
    params = {"w": jnp.asarray([3.0, -4.0])}
    grads = {"w": jnp.asarray([30.0, 40.0])}
    adamw = make_optimizer(0.1, 4, 0.5, 0.9, 0.99, 1.0)
    state, seen = adamw.init(params), []
    for _ in range(6):
        updates, state = adamw.update(grads, state, params)
        seen.append(np.asarray(updates["w"]))
    # a constant gradient: Adam's direction is its sign; decay adds 0.5 w
    for n, got in enumerate(seen):
        rate = 0.1 * min((n + 1) / 4, 1)
        np.testing.assert_allclose(got, [-rate * (1 + 1.5), -rate * (1 - 2.0)], rtol=1e-4)
    moments = [x for x in jax.tree.leaves(state) if x.shape == (2,)]
    mu = 1 - 0.9**6  # of the clipped gradient [0.6, 0.8]
    np.testing.assert_allclose(moments[0], [0.6 * mu, 0.8 * mu], rtol=1e-4)


def test_a_rate_that_decays_falls_linearly_to_zero():
    params = {"w": jnp.asarray([1.0])}
    adamw = make_optimizer(0.1, 2, 0.0, 0.9, 0.99, 1.0, decay_steps=4)
    state, seen = adamw.init(params), []
    for _ in range(5):
        updates, state = adamw.update({"w": jnp.asarray([0.5])}, state, params)
        seen.append(-float(updates["w"][0]))
    # a constant gradient: the update is the rate, which the warm-up reaches and the decay starts from
    np.testing.assert_allclose(seen, [0.05, 0.1, 0.1, 0.05, 0.0], rtol=1e-4, atol=1e-7)


def test_a_moment_in_bfloat16_falls_unless_its_decay_is_refused():
    """Where check_config.py draws the line, for moments of every size within a bfloat16 step."""
    params = {"w": jnp.linspace(1.0, 2.0, 129)[:-1]}
    for b2, falls in ((1 - 2**-8, True), (0.999, False)):
        small = make_optimizer(1e-3, 0, 0.0, 0.9, b2, 1e9, "bfloat16")
        state = jax.tree.map(lambda x: params["w"].astype(x.dtype) if x.ndim else x, small.init(params))
        _, after = small.update({"w": jnp.zeros(128)}, state, params)
        before, after = (np.float32(x[1][0].nu["w"]) for x in (state, after))
        assert (after < before).all() if falls else (after == before).all()


def test_weight_decay_leaves_out_norms_biases_and_routers():
    """Of every family, and of adapters: without a gradient, decay alone moves a parameter."""
    config = dataclasses.replace(MIXED, mlp_bias=True, tie_embeddings=False, lora=Lora(2, 4.0))
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), decoder.param_shapes(config))
    adamw = make_optimizer(0.1, 0, 0.5, 0.9, 0.99, 1.0)
    updates, _ = adamw.update(jax.tree.map(jnp.zeros_like, params), adamw.init(params), params)
    moved = {path[-1] for path, x in traverse_util.flatten_dict(updates).items() if x.any()}
    still = {path[-1] for path, x in traverse_util.flatten_dict(updates).items() if not x.any()}
    matrices = {"q", "k", "v", "o", "gate", "up", "down"}
    adapters = {f"{name}_lora_{x}" for name in matrices for x in "ab"}
    assert moved == {"embed", "unembed", *matrices, *adapters}
    norms = {"attn_norm", "mlp_norm", "q_norm", "k_norm", "final_norm"}
    assert still == {"router", *norms, *(f"{name}_bias" for name in matrices)}


def test_what_is_left_out_stays_and_counts_in_no_norm():
    params = {"a": {"router": jnp.asarray([2.0, 3.0]), "w": jnp.asarray([3.0, -4.0])}}
    grads = {"a": {"router": jnp.asarray([1e6, 1e6]), "w": jnp.asarray([30.0, 40.0])}}
    adamw = make_optimizer(0.1, 0, 0.5, 0.9, 0.99, 1.0)
    frozen = without(adamw, "router")
    state, alone = frozen.init(params), adamw.init({"w": params["a"]["w"]})
    for _ in range(3):
        updates, state = frozen.update(grads, state, params)
        want, alone = adamw.update({"w": grads["a"]["w"]}, alone, {"w": params["a"]["w"]})
        assert not updates["a"]["router"].any(), "weight decay would move it, too"
        np.testing.assert_allclose(updates["a"]["w"], want["w"], rtol=1e-6)


def test_moments_in_bfloat16_follow_those_in_float32():
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=200), jnp.float32)}
    exact, small = (make_optimizer(1e-2, 0, 0.0, 0.9, 0.95, 1e9, dtype) for dtype in ("float32", "bfloat16"))
    states = [exact.init(params), small.init(params)]
    assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(states[1]) if x.shape == (200,))
    assert sum(x.nbytes for x in jax.tree.leaves(states[1])) < 0.52 * sum(
        x.nbytes for x in jax.tree.leaves(states[0])
    )
    scale = rng.uniform(1e-3, 1e3, 200)  # Adam divides it out again
    for _ in range(50):
        grads = {"w": jnp.asarray(rng.normal(0.5, 1, 200) * scale, jnp.float32)}
        found = [o.update(grads, s, params) for o, s in zip((exact, small), states)]
        states = [s for _, s in found]
    a, b = (np.asarray(updates["w"]) for updates, _ in found)
    assert found[1][0]["w"].dtype == jnp.float32
    assert 0 < np.abs(a - b).max() < 0.03 * np.abs(a).max()


def test_counters_stay_whole():
    counter = optax.scale_by_schedule(lambda step: step * 1.0)
    state = kept_in(counter, "bfloat16").init({"w": jnp.zeros(2)})
    assert jax.tree.leaves(state)[0].dtype == jnp.int32


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    groups = random_groups(rng, groups=2, pieces=1, branches=2, prompt=5, branch=4)
    forest = pack(groups, 16, 0)
    weight = spread(forest, {key: np.full(len(x), 1 / 16) for key, x in per_token(groups, rng).items()})
    return {**forest.arrays(), "weight": weight}


def test_offloaded_state_rests_on_the_host_and_changes_nothing(dense, batch):
    mesh, compute = sharding.make_mesh({}), learner_lib.Compute(16, 8, "nothing")
    adamw, results = make_optimizer(1e-2, 0, 0.0, 0.9, 0.95, 1.0), []
    for offload in (False, True):
        learner = learner_lib.Learner(
            dense,
            dataclasses.replace(compute, rows=2, offload_optimizer=offload, mesh=mesh),
            adamw,
            objectives.negative_log_likelihood,
            1.0,
        )
        state = learner.init_state(sharp_params(dense))
        for _ in range(2):
            state, means = learner.step(state, batch)
            kinds = {x.sharding.memory_kind for x in jax.tree.leaves(state.opt_state)}
            assert kinds == ({"pinned_host"} if offload else {"device"})
            assert {x.sharding.memory_kind for x in jax.tree.leaves(state.params)} == {"device"}
        results.append((means, state))
    for a, b in zip(jax.tree.leaves(results[0]), jax.tree.leaves(results[1])):
        np.testing.assert_array_equal(a, b)


def test_a_platform_without_host_memory_is_named():
    class Device:
        device_kind = "abacus"

        def addressable_memories(self):
            return []

    place = type("Place", (), {"mesh": type("Mesh", (), {"devices": np.array([Device()], object)})})()
    with pytest.raises(InputError, match="offload_optimizer: abacus has no pinned host memory"):
        optimizer.host_memory([place])
