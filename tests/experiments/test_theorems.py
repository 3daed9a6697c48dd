"""Theorems 3.2 and 3.3: both sides of each agree, and the tools that measure them are right."""

import importlib.util
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from support.forests import DENSE, sharp_params
from support.paths import ROOT

from pivotrl_jax.models import decoder, forest
from pivotrl_jax.training import advantages, learner

EXPERIMENTS = ROOT / "experiments"
sys.path.insert(0, str(EXPERIMENTS))

import theory  # noqa: E402


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def load(monkeypatch, folder: str, name: str):
    """A module of an experiment, whose neighbours it may import."""
    monkeypatch.syspath_prepend(str(EXPERIMENTS / folder))
    spec = importlib.util.spec_from_file_location(f"{folder}_{name}", EXPERIMENTS / folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def states(count: int, size: int, binary: bool):
    rng = np.random.default_rng([size, binary])
    reward = (rng.random((count, size)) < 0.5) * 1.0 if binary else rng.normal(size=(count, size))
    if binary:
        reward[:, :2] = 0, 1
    return rng.normal(size=(count, size)) * 2, reward, np.exp(rng.uniform(-1, 1, count))


# ---- Theorem 3.2


@pytest.mark.parametrize("size, binary", [(2, True), (7, True), (7, False)])
def test_natural_gradient_is_as_long_as_the_rewards_std(size, binary):
    logit, reward, _ = states(30, size, binary)
    norm = jax.vmap(theory.natural_gradient_norm)(logit, reward)
    want = jax.vmap(theory.reward_std)(jax.nn.log_softmax(logit), reward)
    np.testing.assert_allclose(norm, want, rtol=1e-6, atol=1e-6)


def test_equal_rewards_have_no_gradient():
    logit, _, _ = states(5, 4, False)
    assert jax.vmap(theory.natural_gradient_norm)(logit, np.ones((5, 4))).max() < 1e-9


@pytest.mark.parametrize("size, binary", [(2, True), (7, True), (7, False)])
def test_population_grpo_score_is_the_std_over_beta_squared(size, binary):
    logit, reward, beta = states(30, size, binary)
    log_prob = jax.nn.log_softmax(logit)
    score = jax.vmap(theory.population_grpo_score)(log_prob, reward, beta)
    tilted = jax.vmap(theory.tilt)(log_prob, reward, beta)
    want = jax.vmap(theory.reward_std)(tilted, reward) / beta**2
    np.testing.assert_allclose(score, want, rtol=1e-6, atol=1e-6)


def test_a_groups_score_is_its_own_std_over_beta_squared():
    logit, reward, _ = states(1, 6, False)
    score = theory.path_score(jax.nn.log_softmax(logit[0]), reward[0], 0.7)
    group = np.random.default_rng(0).integers(6, size=(20, 8))
    found = (advantages.group_advantages(reward[0][group], 0.0) * np.asarray(score)[group]).mean(1)
    np.testing.assert_allclose(found, reward[0][group].std(1) / 0.7**2, rtol=1e-9)


def test_monte_carlo_of_groups_hits_the_exact_mean(monkeypatch):
    tabular = load(monkeypatch, "theorem_3_2", "tabular")
    monkeypatch.setattr(tabular, "GROUPS", (2, 8))
    for name, by_size in tabular.groups(4_000, 0).items():
        for entry in by_size.values():
            assert entry["mean"] < 1 + 4 * entry["standard_error"], "a group's std is too small on average"
            if name.startswith("pass"):
                assert abs(entry["mean"] - entry["exact_mean"]) < 4 * entry["standard_error"] + 1e-4


# ---- the policy of a language model


def random_scores(rank: int = 5):
    rng = np.random.default_rng(1)
    score = rng.normal(size=(5, rank)) @ rng.normal(size=(rank, 300))
    return score, np.array([2, 1, 1, 3, 1]) / 8, np.array([0.0, 1.0, 1.0, 0.0, 1.0])


@pytest.mark.parametrize("damping", [0.5, 30.0, 3e3])
def test_conjugate_gradients_and_the_gram_matrix_agree_with_the_dense_fisher_matrix(damping):
    score, weight, reward = random_scores()
    grad = score.T @ (weight * (reward - weight @ reward))
    fisher = score.T @ (weight[:, None] * score)
    want = np.sqrt(grad @ np.linalg.solve(fisher + damping * np.eye(300), grad))
    gram, rank = theory.gram_fisher_norm(score @ score.T, weight, reward, damping)
    assert rank == 5 and gram == pytest.approx(want, rel=1e-6)
    found = theory.cg_fisher_norm(jnp.asarray(score), jnp.asarray(weight), jnp.asarray(reward), damping, 50)
    assert float(found) == pytest.approx(want, rel=1e-6)
    natural = np.linalg.solve(fisher + damping * np.eye(300), grad)
    direction = theory.natural_direction(score @ score.T, weight, reward, damping)
    np.testing.assert_allclose(direction, score @ natural, rtol=1e-6)
    assert theory.gradient_norm(score @ score.T, weight, reward) == pytest.approx(np.linalg.norm(grad))


def test_independent_scores_give_the_samples_own_std_and_dependent_ones_less():
    score, weight, reward = random_scores()
    std = np.sqrt(weight @ (reward - weight @ reward) ** 2)
    assert theory.gram_fisher_norm(score @ score.T, weight, reward, 0.0)[0] == pytest.approx(std, rel=1e-6)
    score, weight, reward = random_scores(rank=2)
    norm, rank = theory.gram_fisher_norm(score @ score.T, weight, reward, 0.0)
    assert rank == 2 and norm < 0.99 * std


def test_scores_are_the_gradients_of_the_completions_log_probs():
    with jax.enable_x64(False):  # as the model computes
        params, prompt, branches = sharp_params(DENSE), [1, 2, 3, 4], [[5, 6, 7], [8], [5, 9]]
        packed = forest.pack([[forest.Piece(0, prompt, branches)]], 16, 0)
        (placed,) = packed.placed
        weight, branch = np.zeros((1, 16), np.float32), np.full((1, 16), 4, np.int32)
        for u, ids in enumerate(branches):
            packed.write(weight, placed, u, np.ones(len(ids)))
            packed.write(branch, placed, u, np.full(len(ids), u))
        batch = {**packed.arrays(), "weight": weight, "branch": branch}
        compute = learner.Compute(attention_chunk=16, log_prob_chunk=16, remat="nothing")
        run = jax.jit(lambda p, b, n: theory.completion_scores(DENSE, compute, p, b, n, 4))
        log_prob, score = run(params, batch, 3)

        rows = np.zeros((3, 7), np.int32)  # the same, every completion with the prompt in a row of its own
        for u, ids in enumerate(branches):
            rows[u, : 4 + len(ids)] = [*prompt, *ids]
        wanted = (np.arange(1, 7) >= 4) & (np.arange(1, 7)[None] < 4 + np.array([[3], [1], [2]]))

        def padded(params, u):
            log_probs = jax.nn.log_softmax(decoder.logits(DENSE, params, rows)[:, :-1])
            chosen = jnp.take_along_axis(log_probs, rows[:, 1:, None], axis=2)[..., 0]
            return (chosen * wanted).sum(1)[u]

        alone = jax.jit(jax.value_and_grad(padded))
        for u in range(3):
            want, grad = alone(params, u)
            assert float(log_prob[u]) == pytest.approx(float(want), abs=1e-4)
            flat = np.asarray(ravel_pytree(grad)[0])
            np.testing.assert_allclose(score[u], flat, atol=1e-4 * np.abs(flat).max())
        assert not np.asarray(score[3]).any()


# ---- Theorem 3.3


def test_the_least_kl_policy_found_numerically_is_the_closed_form(monkeypatch):
    found = load(monkeypatch, "theorem_3_3", "tabular").least_kl(50, 0, (3, 16))
    assert found["states"] == 50 and len(found) == 6
    assert all(value < 1e-6 for name, value in found.items() if name != "states"), found


def test_the_natural_gradient_keeps_ratios_and_sft_does_not(monkeypatch):
    ways, _ = load(monkeypatch, "theorem_3_3", "tabular").paths(10, 0, size=8)
    assert all(way["mass_error_max"] < 0.02 for way in ways.values())
    for name in ("natural gradient of J", "least KL"):
        assert ways[name]["inside_ratio_change"] < 1e-6 and ways[name]["outside_ratio_change"] < 1e-6
    assert ways["SFT on one demonstration"]["inside_ratio_change"] > 0.1
    assert ways["SFT on one demonstration"]["outside_ratio_change"] > 0.01
    assert ways["least KL"]["kl"] < ways["gradient of J"]["kl"] < ways["SFT on one demonstration"]["kl"]


# ---- correlation and order


def slow_tau_b(x, y) -> float:
    concordant = discordant = only_x = only_y = 0
    for i in range(len(x)):
        for j in range(i):
            a, b = x[i] - x[j], y[i] - y[j]
            if a * b > 0:
                concordant += 1
            elif a * b < 0:
                discordant += 1
            elif a:
                only_x += 1
            elif b:
                only_y += 1
    decided = concordant + discordant
    return (concordant - discordant) / math.sqrt((decided + only_x) * (decided + only_y))


def test_kendall_tau_counts_pairs():
    rng = np.random.default_rng(0)
    for levels in (2, 3, 100):
        for _ in range(20):
            x, y = rng.integers(levels, size=(2, 12))
            if np.ptp(x) and np.ptp(y):
                assert theory.kendall_tau(x, y) == pytest.approx(slow_tau_b(x, y), abs=1e-12)
    assert theory.kendall_tau([1, 2, 3], [1, 2, 3]) == 1 and theory.kendall_tau([1, 2, 3], [3, 2, 1]) == -1
    assert theory.kendall_tau([1, 2, 2, 3], [1, 3, 2, 4]) == pytest.approx(5 / math.sqrt(5 * 6))
    assert math.isnan(theory.kendall_tau([1, 1], [1, 2]))
    with pytest.raises(ValueError, match="one length"):
        theory.kendall_tau([1, 2], [1, 2, 3])


def test_ranks_share_ties():
    assert theory.ranks([3.0, 1.0, 3.0, 7.0]).tolist() == [1.5, 0.0, 1.5, 3.0]
    assert theory.spearman([1, 2, 3, 4], [1, 8, 27, 64]) == pytest.approx(1)
    assert theory.pearson([1, 2, 3], [-2, -4, -6]) == pytest.approx(-1)
    assert math.isnan(theory.pearson([1, 1], [1, 2]))


@pytest.mark.slow
def test_order_falls_with_noise(monkeypatch, tmp_path):
    order = load(monkeypatch, "theorem_3_3", "order")
    monkeypatch.chdir(tmp_path)
    from pivotrl_jax.checkpoints.locate import EMBEDDED

    policies = {f"{x}": [order.noisy_copy(EMBEDDED, tmp_path / f"noise{x}", x, 0)] for x in (0.0, 0.05, 0.3)}
    with jax.enable_x64(False):
        _, page = order.measure(EMBEDDED, policies, True, 0)
    for kind in ("skills", "toolbox"):
        same, little, much = (page[kind][name]["tau"][0] for name in policies)
        assert same == 1 and page[kind]["0.0"]["deviation"][0] == 0
        assert 1 > little > much
        assert page[kind]["0.0 less 0.3"]["tau"][1] > 0
