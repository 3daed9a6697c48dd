"""The update: independent of microbatching and padding, equal on forest and padded batch, every config field
matters."""

import dataclasses
import warnings

import jax
import numpy as np
import optax
import pytest
from support.forests import MIXED, padded, random_groups, sharp_params
from support.update import COMPUTE, LENGTH, LOSS, SEQUENCES, SLOTS, assert_same, fields

from pivotrl_jax.models import config as model_config
from pivotrl_jax.models import decoder, sharding
from pivotrl_jax.models.forest import pack
from pivotrl_jax.records import InputError
from pivotrl_jax.training import learner as learner_lib
from pivotrl_jax.training import objectives
from pivotrl_jax.training.optimizer import make_optimizer


@pytest.fixture(scope="module")
def groups():
    """8 trees of at most 16 tokens, too big for two of them to share a row."""
    return random_groups(np.random.default_rng(0), groups=8, pieces=1, branches=2, prompt=5, branch=4)


@pytest.fixture(scope="module")
def batch(groups):
    forest = pack(groups, SLOTS, 0)
    assert forest.tokens.shape == (8, SLOTS)
    return fields(forest, groups)


@pytest.fixture(scope="module")
def learner(moe):
    """learner(rows): the same programs for microbatches of that many rows; plain SGD shows the gradient."""
    mesh, made = sharding.make_mesh({}), {}

    def make(rows):
        if rows not in made:
            made[rows] = learner_lib.Learner(
                moe, dataclasses.replace(COMPUTE, rows=rows, mesh=mesh), optax.sgd(1.0), LOSS, 0.7
            )
        return made[rows]

    return make


@pytest.fixture(scope="module")
def whole(learner, moe_params, batch):
    """State and metrics after one step with all 8 rows at once."""
    return learner(8).step(learner(8).init_state(moe_params), batch)


def test_one_step_of_8_rows_equals_8_microbatches_of_1(learner, moe_params, batch, whole):
    one_by_one = learner(1).step(learner(1).init_state(moe_params), batch)
    assert_same(whole, one_by_one)
    assert int(whole[0].step) == 1 and whole[1]["tokens"] == 64 and whole[1]["grad_norm"] > 0.01
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), whole[0].params, moe_params)
    assert min(jax.tree.leaves(moved)) > 1e-6  # every parameter was trained


def test_padding_rows_change_nothing(learner, moe_params, batch, whole):
    rows = np.r_[:3]
    few = {name: x[rows] for name, x in batch.items()}  # the learner pads 3 rows to 8 itself
    padded_by_learner = learner(8).step(learner(8).init_state(moe_params), few)
    exact = learner(1).step(learner(1).init_state(moe_params), few)
    assert_same(padded_by_learner, exact)
    more = {name: np.pad(x, ((0, 3), (0, 0))) for name, x in batch.items()}
    assert_same(learner(8).step(learner(8).init_state(moe_params), more), whole)


def test_weights_carry_the_denominator(learner, moe_params, batch, whole):
    double = {**batch, "weight": batch["weight"] * 2}
    _, means = learner(8).step(learner(8).init_state(moe_params), double)
    np.testing.assert_allclose(means["loss"], 2 * whole[1]["loss"], rtol=1e-5)
    np.testing.assert_allclose(means["grad_norm"], 2 * whole[1]["grad_norm"], rtol=1e-4)
    assert means["entropy"] == whole[1]["entropy"]  # metrics are means over tokens, not weighted


def test_a_batch_without_a_trained_token_says_so(learner, moe_params, batch):
    nothing = {**batch, "weight": np.zeros_like(batch["weight"])}
    _, means = learner(8).step(learner(8).init_state(moe_params), nothing)
    assert means["tokens"] == means["entropy"] == means["loss"] == 0


def test_the_state_is_donated_without_waste_and_the_callers_params_survive(learner, moe_params, batch):
    before = learner(8).init_state(moe_params)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "Some donated buffers were not usable"
        after, _ = learner(8).step(before, batch)
    assert all(x.is_deleted() for x in jax.tree.leaves(before.params))
    assert not any(x.is_deleted() for x in jax.tree.leaves((after, moe_params)))


def test_a_step_on_a_forest_equals_the_step_on_the_padded_batch(learner, moe, moe_params, groups, whole):
    naive = fields(padded(groups, SEQUENCES, LENGTH), groups)
    run = learner_lib.Learner(
        moe, dataclasses.replace(COMPUTE, rows=SEQUENCES, mesh=learner(8).mesh), optax.sgd(1.0), LOSS, 0.7
    )
    assert_same(run.step(run.init_state(moe_params), naive), whole)


def test_score_equals_a_plain_log_softmax(learner, moe, moe_params, groups, batch):
    naive = padded(groups, SEQUENCES, LENGTH)
    scores = jax.jit(lambda t: decoder.logits(moe, moe_params, t))(naive.tokens) / 0.7
    log_probs = np.asarray(jax.nn.log_softmax(scores))
    got = learner(1).score(moe_params, batch)
    assert got.shape == batch["weight"].shape and not got[batch["weight"] == 0].any()
    forest = pack(groups, SLOTS, 0)
    want = {p.key: log_probs[p.row] for p in naive.placed}
    for placed in forest.placed:
        for b, slot in enumerate(placed.branch_slots):
            ids = next(p for g in groups for p in g if p.key == placed.key).branches[b]
            truth = [want[placed.key, b][4 + n, token] for n, token in enumerate(ids)]  # prompts have 5
            np.testing.assert_allclose(got[placed.row, slot : slot + len(ids)], truth, atol=2e-5)


def test_equal_rewards_at_the_reference_give_no_gradient(learner, moe_params, batch):
    here = learner(1).score(moe_params, batch)
    still = {**batch, "advantage": np.zeros_like(here), "reference_log_prob": here}
    _, means = learner(8).step(learner(8).init_state(moe_params), still)
    assert means["grad_norm"] < 1e-5 and abs(means["kl"]) < 1e-9 and means["loss"] == 0


def test_the_logged_loss_has_the_kl_that_is_minimised(learner, moe_params, batch):
    here = learner(1).score(moe_params, batch)
    fixed = {"advantage": np.zeros_like(here), "behaviour_log_prob": here, "reference_log_prob": here - 0.1}
    _, means = learner(8).step(learner(8).init_state(moe_params), {**batch, **fixed})
    want = 0.05 * batch["weight"].sum() * (np.exp(-0.1) + 0.1 - 1)  # k3 at a ratio of 1, of every token
    np.testing.assert_allclose(means["loss"], want, rtol=1e-4)


def test_loss_falls_under_sft_with_adamw(moe, moe_params, batch):
    optimizer = make_optimizer(3e-2, 0, 0.0, 0.9, 0.95, 1.0)
    run = learner_lib.Learner(
        moe,
        dataclasses.replace(COMPUTE, rows=8, mesh=sharding.make_mesh({})),
        optimizer,
        objectives.negative_log_likelihood,
        1.0,
    )
    state, losses = run.init_state(moe_params), []
    for _ in range(8):
        state, means = run.step(state, batch)
        losses.append(means["loss"])
    assert int(state.step) == 8 and losses[-1] < 0.5 * losses[0]
    np.testing.assert_allclose(means["loss"], means["nll"], rtol=1e-5)  # equal weights: both are the mean


def test_rows_must_divide_over_the_mesh():
    mesh = jax.sharding.AbstractMesh((2, 3, 2, 1), sharding.MESH_AXES)
    sentence = r"8 rows .* \(data: 2, fsdp: 3, expert: 2\); make them a multiple of 12"
    with pytest.raises(InputError, match=sentence):
        sharding.batch_sharding(mesh, 8)


CHANGES = {
    "model_type": "llama",
    "vocab_size": 67,
    "hidden_size": 20,
    "num_layers": 3,
    "num_heads": 6,
    "num_kv_heads": 4,
    "head_dim": 8,
    "mlp_size": 14,
    "expert_size": 14,
    "num_experts": 6,
    "experts_per_token": 3,
    "dense_layers": (0,),
    "norm_topk_prob": False,
    "attention_bias": False,
    "mlp_bias": True,
    "rope_theta": 1e6,
    "rope_scaling": None,
    "rms_norm_eps": 1e-1,
    "tie_embeddings": False,
    "dtype": "bfloat16",
    "lora": model_config.Lora(3, 6.0),
}


def test_every_field_of_the_config_is_listed():
    assert CHANGES.keys() == {f.name for f in dataclasses.fields(model_config.ModelConfig)}


@pytest.fixture(scope="module")
def output():
    tokens = np.random.default_rng(0).integers(0, 61, (1, 20)).astype(np.int32)
    params = sharp_params(MIXED)

    def run(config):
        return np.asarray(jax.jit(lambda p: decoder.logits(config, p, tokens))(params))

    return run


@pytest.fixture(scope="module")
def usual(output):
    return output(MIXED)


@pytest.mark.parametrize("name", CHANGES)
def test_every_config_field_changes_shapes_or_output(output, usual, name):
    other = dataclasses.replace(MIXED, **{name: CHANGES[name]})
    before, after = decoder.param_shapes(MIXED), decoder.param_shapes(other)
    if before == after:
        difference = np.abs(output(other) - usual).max()
        assert 1e-3 < difference < 30
