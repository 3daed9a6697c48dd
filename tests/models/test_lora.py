"""Adapters: what they compute, that they alone are trained, and how they leave as a merged checkpoint."""

import dataclasses
import functools
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from support import tiny_run, xla
from support.forests import DENSE, LLAMA, MIXED, MOE, QWEN2, per_token, random_groups, sharp_params, spread
from support.paths import ROOT, SUPPORT

from pivotrl_jax.checkpoints.orbax import Checkpoints
from pivotrl_jax.models import config as model_config
from pivotrl_jax.models import decoder, lora, sharding
from pivotrl_jax.models.forest import Piece, pack
from pivotrl_jax.records import InputError
from pivotrl_jax.rollouts.sampler import Sampler
from pivotrl_jax.rollouts.sampling import Sampling
from pivotrl_jax.training import learner as learner_lib
from pivotrl_jax.training import objectives
from pivotrl_jax.training.optimizer import make_optimizer

RANK, ALPHA = 3, 5.0
# biases, a layer with a dense MLP and one with experts
HALF = dataclasses.replace(MIXED, num_layers=2, dense_layers=(0,))
BASES = {"dense": DENSE, "moe": MOE, "mixed": HALF, "llama": LLAMA, "qwen2": QWEN2}
# A times B of a matrix, by the axis letters of the model
SUMS = {
    **{"q": "ldu,luhk->ldhk", "k": "ldu,lunk->ldnk", "v": "ldu,lunk->ldnk", "o": "lhku,lud->lhkd"},
    **dict.fromkeys(("gate", "up", "down"), "lxu,luy->lxy"),
}


def adapted(config):
    return dataclasses.replace(config, lora=model_config.Lora(RANK, ALPHA))


@functools.cache
def params_of(config):
    return sharp_params(config)


def by_hand(params, xp=np, dtype=np.float64):
    """W + alpha / rank A B of every matrix."""
    flat = {path: xp.asarray(x, dtype) for path, x in traverse_util.flatten_dict(params).items()}
    out = {}
    for path, w in flat.items():
        if "_lora_" in path[-1]:
            continue
        a, b = (flat.get((*path[:-1], f"{path[-1]}_lora_{x}")) for x in "ab")
        if a is not None:
            sums = SUMS[path[-1]] if w.ndim < 4 or path[-1] in "qkvo" else "lexu,leuy->lexy"
            w = w + ALPHA / RANK * xp.einsum(sums, a, b)
        out[path] = w
    return traverse_util.unflatten_dict(out)


def single(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def bytes_of(tree) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(tree))


@functools.partial(jax.jit, static_argnums=0)
def logits(config, params):
    tokens = np.random.default_rng(0).integers(0, 61, (2, 12)).astype(np.int32)
    return decoder.logits(config, params, tokens)


# ---- what adapters compute


@pytest.mark.parametrize("name", BASES)
def test_adapters_beside_a_matrix_equal_the_merged_matrix(name):
    base, config = BASES[name], adapted(BASES[name])
    got = logits(config, params_of(config))
    np.testing.assert_allclose(got, logits(base, single(by_hand(params_of(config)))), rtol=0, atol=3e-5)
    assert np.abs(got - logits(base, lora.base(params_of(config)))).max() > 0.5


@pytest.mark.parametrize("name", BASES)
def test_fresh_adapters_change_nothing(name):
    base, config = BASES[name], adapted(BASES[name])
    whole = lora.join(lora.base(params_of(config)), lora.init(config, 0))
    assert jax.tree.map(jnp.shape, whole) == jax.tree.map(jnp.shape, decoder.param_shapes(config))
    np.testing.assert_allclose(logits(config, whole), logits(base, lora.base(whole)), rtol=0, atol=1e-5)


# inputs of every matrix: hidden 16, heads x head_dim 24, expert 12, dense MLP 20
INPUTS = {"o": 24, "layers_0.down": 20, "layers_1.down": 12}


def test_fresh_adapters_are_drawn_as_peft_draws_them():
    """A uniform within 1 / sqrt(inputs), B zero; on the host, from the seed alone, so equal on every mesh."""
    config = adapted(HALF)
    drawn = traverse_util.flatten_dict(lora.init(config, 7), sep=".")
    for name, x in drawn.items():
        assert isinstance(x, np.ndarray) and x.dtype == np.float32
        matrix, _, which = name.rpartition("_lora_")
        bound = INPUTS.get(matrix, INPUTS.get(matrix.rpartition(".")[2], 16)) ** -0.5
        assert not x.any() if which == "b" else 0.9 * bound < np.abs(x).max() <= bound, name
    again, other = (traverse_util.flatten_dict(lora.init(config, seed), sep=".") for seed in (7, 8))
    assert all(np.array_equal(drawn[name], again[name]) for name in drawn)
    of = {name: x.reshape(-1)[:9] for name, x in drawn.items() if name.endswith("a")}
    assert len({x.tobytes() for x in of.values()}) == len(of) == 14  # no two are drawn alike
    assert not any(np.array_equal(drawn[name], other[name]) for name in of)


def test_the_sampler_draws_what_the_merged_model_draws():
    prompts = {0: [4, 9, 16, 25], 1: [4, 9, 50], 2: [30, 2, 7]}
    packed = pack([[Piece(key, prompt, samples=1)] for key, prompt in prompts.items()], 16, 1, 3)
    branch = np.full((3, 1), -1, np.int32)
    for placed in packed.placed:
        branch[placed.row, 0] = placed.prompt_slot
    sampling = Sampling(temperature=0.0, top_p=1.0, top_k=0, min_p=0.0, max_tokens=6, stop_ids=(1,))

    def greedy(config, params):
        sampler = Sampler(config, sampling, 1, 16, tiny_run.mesh())
        numbers = np.zeros((3, 1, 2), np.int32)
        return sampler(sampler.place(params), packed, branch, jax.random.key(0), numbers).tokens

    params = params_of(adapted(HALF))
    ours = greedy(adapted(HALF), params)
    assert np.array_equal(ours, greedy(HALF, single(by_hand(params))))
    assert not np.array_equal(ours, greedy(HALF, lora.base(params)))


# ---- training


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(1)
    groups = random_groups(rng, groups=2, pieces=1, branches=2, prompt=4, branch=4)
    forest = pack(groups, 16, 0, 2)
    weight = spread(forest, {key: np.full(len(x), 1 / 16) for key, x in per_token(groups, rng).items()})
    return {**forest.arrays(), "weight": weight}


COMPUTE = learner_lib.Compute(attention_chunk=16, log_prob_chunk=16, remat="nothing")


def learner_of(optimizer):
    """(learner, frozen base, state with adapters that are not zero) of HALF."""
    config, mesh = adapted(HALF), tiny_run.mesh()
    places = sharding.param_shardings(lora.base(decoder.abstract_params(config)), mesh)
    frozen = jax.device_put(lora.base(params_of(config)), places)
    learner = learner_lib.Learner(
        config,
        dataclasses.replace(COMPUTE, rows=2, mesh=mesh),
        optimizer,
        objectives.negative_log_likelihood,
        1.0,
        frozen=frozen,
    )
    return learner, frozen, learner.init_state(lora.trained(config, params_of(config)))


@pytest.fixture(scope="module")
def stepped(batch):
    """(frozen, adapters before, state after one step, metrics); momentum holds the gradient."""
    learner, frozen, state = learner_of(optax.sgd(1.0, momentum=0.9))
    before = jax.tree.map(np.asarray, state.params)
    state, means = learner.step(state, batch)
    assert learner.frozen is frozen
    return frozen, before, state, means


def test_only_adapters_are_trained_and_all_of_them(stepped):
    frozen, before, state, means = stepped
    assert np.isfinite(means["loss"])
    shapes = traverse_util.flatten_dict(decoder.param_shapes(adapted(HALF)))
    after = traverse_util.flatten_dict(state.params)
    assert after.keys() == {path for path in shapes if "_lora_" in path[-1]} and len(after) == 28
    for path, x in after.items():
        assert np.abs(x - traverse_util.flatten_dict(before)[path]).max() > 1e-5, path
    untouched = lora.base(params_of(adapted(HALF)))
    assert traverse_util.flatten_dict(frozen).keys() == shapes.keys() - after.keys()
    assert jax.tree.all(jax.tree.map(lambda x, y: np.array_equal(x, y), frozen, untouched))


def test_the_gradient_is_that_of_the_merged_weights(stepped, batch):
    frozen, before, state, _ = stepped

    def loss(adapters):
        params = by_hand(lora.join(frozen, adapters), jnp, jnp.float32)
        return objectives.negative_log_likelihood(
            *learner_lib.forest_log_probs(HALF, COMPUTE, params, batch, 1.0), batch
        )[0]

    want = traverse_util.flatten_dict(jax.jit(jax.grad(loss))(before))
    got = jax.tree.map(lambda x, y: x - np.asarray(y), before, state.params)  # a rate of 1
    for path, g in traverse_util.flatten_dict(got).items():
        np.testing.assert_allclose(g, want[path], atol=1e-4 * np.abs(want[path]).max(), err_msg=str(path))


def test_optimizer_state_is_twice_the_adapters():
    _, _, state = learner_of(make_optimizer(1e-3, 0, 0.0, 0.9, 0.95, 1.0))
    assert bytes_of(state.opt_state) == 2 * bytes_of(state.params) + 8  # and two counters
    assert bytes_of(state.params) == bytes_of(lora.init(adapted(HALF), 0))
    names = {path[-1].key for path, x in jax.tree.leaves_with_path(state.opt_state) if x.ndim}
    assert names and all("_lora_" in name for name in names)


def test_a_checkpoint_holds_adapters_only_and_restores(stepped, tmp_path):
    _, _, state, _ = stepped
    with Checkpoints(tmp_path, {"model": "lora"}, 1) as checkpoints:
        checkpoints.save(1, state, {})
        restored, _ = checkpoints.restore_latest(jax.tree.map(jnp.zeros_like, state))
        assert jax.tree.all(jax.tree.map(lambda x, y: np.array_equal(x, y), restored, state))
        whole = dataclasses.replace(state, params=params_of(adapted(HALF)))
        with pytest.raises(InputError, match=r"params\.embed is absent there"):
            checkpoints.restore_latest(whole)
    names = json.loads((tmp_path / "1" / "state" / "_METADATA").read_text())["tree_metadata"]
    kept = [name for name in names if "layers" in name or "embed" in name]
    assert len(kept) == 2 * 28 and all("_lora_" in name for name in kept)  # adapters and their momentum


def test_two_devices_take_the_step_of_one():
    """Parameters, momentum (gradients), metrics, samples and merged layers, as shares of the largest value;
    every array lies where the table puts it, a merged layer as a layer of its matrix."""
    environment = {
        **os.environ,
        "XLA_FLAGS": xla.flags(2),
        "PYTHONPATH": f"{SUPPORT.parent}{os.pathsep}{ROOT}",
        "TF_CPP_MIN_LOG_LEVEL": "0",
    }
    meshes = [{"fsdp": 2}, {"expert": 2}]
    command = [sys.executable, str(SUPPORT / "lora_step.py"), json.dumps(meshes)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Involuntary full rematerialization" not in done.stderr, done.stderr[-3000:]
    for sizes in meshes:
        got = json.loads(done.stdout.splitlines()[-1])[json.dumps(sizes)]
        assert got.pop("placed") and max(got.values()) < 1e-5, (sizes, got)


# ---- merging


@pytest.mark.parametrize("name", BASES)
def test_the_merged_view_adds_layer_by_layer(name):
    config = adapted(BASES[name])
    params = params_of(config)
    view = traverse_util.flatten_dict(lora.merged(config, params))
    want = traverse_util.flatten_dict(by_hand(params))
    assert view.keys() == traverse_util.flatten_dict(decoder.param_shapes(BASES[name])).keys()
    adapters = 0
    for path, x in view.items():
        assert x.shape == want[path].shape and x.ndim == want[path].ndim and x.dtype == jnp.float32
        adapters += isinstance(x, lora.Merged)
        for layer in range(x.shape[0]) if len(path) == 2 else ():
            assert isinstance(x[layer], jax.Array) and np.array_equal(x[layer], x[(layer,)])
            np.testing.assert_allclose(x[layer], want[path][layer], atol=2e-6)
    assert adapters == 7 * len(config.segments())


def test_a_bfloat16_base_is_merged_in_float32():
    """A change of less than half a step of bfloat16 in each of three ranks adds up, unrounded."""
    w, a = jnp.ones((1, 1, 1), jnp.bfloat16), jnp.ones((1, 1, 3), jnp.bfloat16)
    merged = lora.Merged(w, a, jnp.full((1, 3, 1), 0.0015, jnp.float32), 1.0)
    assert merged[0].dtype == merged.dtype == jnp.float32
    np.testing.assert_allclose(merged[0], [[1.0045]], rtol=1e-7)


@pytest.mark.parametrize("size", [1e-5, 1e-3, 0.1])
@pytest.mark.parametrize("name", BASES)
def test_the_share_of_the_update_that_is_kept(name, size):
    """Against float64 and numpy's own rounding. Small updates are lost in bfloat16, and never in float32."""
    config = adapted(BASES[name])
    flat = traverse_util.flatten_dict(params_of(config))
    flat = {path: size * x if path[-1].endswith("_lora_b") else x for path, x in flat.items()}
    flat = {p: np.asarray(x, np.float32 if "_lora_" in p[-1] else jnp.bfloat16) for p, x in flat.items()}
    params = jax.tree.map(jnp.asarray, traverse_util.unflatten_dict(flat))
    above = below = 0.0
    for path, x in traverse_util.flatten_dict(by_hand(params)).items():
        w = flat[path].astype(np.float64)
        above += ((x.astype(np.float32).astype(jnp.bfloat16).astype(np.float64) - w) * (x - w)).sum()
        below += ((x - w) ** 2).sum()
    merged = lora.merged(config, params)
    assert lora.share_kept(merged, "bfloat16") == pytest.approx(above / below, abs=2e-3)
    assert lora.share_kept(merged, "float32") == pytest.approx(1, abs=2e-3)
    assert (above / below < 0.2) == (size == 1e-5) and (above / below > 0.95) == (size == 0.1)


def test_an_adapter_that_learnt_nothing_loses_nothing():
    config = adapted(DENSE)
    whole = lora.join(lora.base(params_of(config)), lora.init(config, 0))
    assert lora.share_kept(lora.merged(config, jax.tree.map(jnp.asarray, whole)), "bfloat16") == 1


def test_the_sampler_rounds_an_adapter_as_the_learner_does():
    """In bfloat16, B times a scale that is no power of two is rounded once: logits are equal, bit by bit."""
    config = dataclasses.replace(adapted(DENSE), dtype="bfloat16")
    sampling = Sampling(temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, max_tokens=1, stop_ids=(1,))
    placed = Sampler(config, sampling, 1, 16, tiny_run.mesh()).place(params_of(config))
    assert placed["layers"]["q"].dtype == placed["layers"]["q_lora_a"].dtype == jnp.bfloat16
    assert placed["layers"]["q_lora_b"].dtype == jnp.float32
    assert np.array_equal(logits(config, placed), logits(config, params_of(config)))
    twice = traverse_util.flatten_dict(placed)
    twice = {p: x.astype(jnp.bfloat16) if p[-1].endswith("_b") else x for p, x in twice.items()}
    assert not np.array_equal(logits(config, traverse_util.unflatten_dict(twice)), logits(config, placed))


def test_without_adapters_merging_is_nothing():
    params = {"layers": {"q": np.ones((2, 2))}}
    assert lora.merged(MOE, params) is params
