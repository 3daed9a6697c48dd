"""Advantages and losses against hand numbers, exact KL gradients, and a toy whose reward must rise."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.objectives import policy_gradient
from support.paths import SHARED

from pivotrl_jax.training import advantages, losses, objectives

CONFORMANCE = SHARED / "conformance/nemo_gym/grpo_advantage.jsonl"


def test_advantages_by_hand():
    # mean 1/4, population std sqrt(3)/4
    got = advantages.group_advantages([[1, 0, 0, 0], [0, 2, 0, 2]], eps=0.0)
    np.testing.assert_allclose(got, [[3**0.5] + [-(3**-0.5)] * 3, [-1, 1, -1, 1]], rtol=1e-12)
    got = advantages.group_advantages([[1, 0, 0, 0]], eps=0.5)
    np.testing.assert_allclose(got[0, 0], 0.75 / (3**0.5 / 4 + 0.5), rtol=1e-12)


@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1, 1 / 3, -7.3])
@pytest.mark.parametrize("eps", [0.0, 1e-6])
def test_all_equal_groups_have_exactly_zero_advantage(reward, eps):
    # 0.1 and 1/3 do not equal their own computed mean: the zero must not be left to rounding
    got = advantages.group_advantages([[reward] * 7, [0, 0, 1, 0, 0, 0, 0]], eps)
    assert (got[0] == 0).all() and got[1, 2] > 1


def test_leave_one_out_by_hand():
    """A lone success: the others are equal, so it stays undivided. The failures: six zeros and a one."""
    got = advantages.advantages([[1, 0, 0, 0, 0, 0, 0, 0]], "leave_one_out", "std", 0.0)
    np.testing.assert_allclose(got, [[1] + [-(7**-0.5)] * 7], rtol=1e-12)
    got = advantages.advantages([[1, 0, 0.5]], "leave_one_out", "none", 0.0)
    np.testing.assert_allclose(got, [[0.75, -0.75, 0]], atol=1e-15)
    # 0.1 does not equal the computed mean of six of it, and their computed std is not 0
    assert advantages.advantages([[1.1] + [0.1] * 6], "leave_one_out", "std", 1e-6)[0, 0] == pytest.approx(1)
    assert advantages.advantages([[1, 0]], "leave_one_out", "std", 1e-6).tolist() == [[1, -1]]


def test_without_a_baseline_of_ones_own_rloo_is_the_group_baseline_scaled():
    reward = np.random.default_rng(0).normal(size=(3, 5))
    mean, others = (advantages.advantages(reward, b, "none", 0.0) for b in ("mean", "leave_one_out"))
    np.testing.assert_allclose(others, mean * 5 / 4, rtol=1e-12)


@pytest.mark.parametrize("normalise", ["std", "none"])
@pytest.mark.parametrize("baseline", ["mean", "leave_one_out"])
def test_an_absent_reward_counts_nowhere(baseline, normalise):
    none = np.nan
    got = advantages.advantages(
        [[1, none, 0, 0.5], [none] * 4, [1, 1, none, 1], [1, none, none, none]], baseline, normalise, 1e-6
    )
    alone = advantages.advantages([[1, 0, 0.5]], baseline, normalise, 1e-6)
    np.testing.assert_array_equal(got[0], [alone[0, 0], 0, *alone[0, 1:]])
    assert not got[1:].any() and alone.any()
    mixed = advantages.mixed_groups([[1, none, 0], [none] * 3, [1, none, 1], [0.1, 0.1, 0.1]])
    assert mixed.tolist() == [True, False, False, False]


@pytest.mark.skipif(not CONFORMANCE.is_file(), reason="the conformance data is not here")
def test_advantages_are_nemo_rls():
    """All rows, with two known differences: the plain std is the population's here (as in the paper) and the
    sample's there, and groups are kept or dropped whole, not sample by sample."""
    cases = [json.loads(line) for line in CONFORMANCE.read_text("utf-8").splitlines()]
    assert len(cases) == 24
    for case in cases:
        baseline = "leave_one_out" if case["config"]["use_leave_one_out_baseline"] else "mean"
        normalise = "std" if case["config"]["normalize_rewards"] else "none"
        rewards, want = np.array([case["rewards"]], np.float64), np.array(case["advantage"])
        if (baseline, normalise) == ("mean", "std") and np.ptp(rewards):
            want = want * (rewards.std(ddof=1) + 1e-6) / (rewards.std() + 1e-6)
        got = advantages.advantages(rewards, baseline, normalise, 1e-6)
        np.testing.assert_allclose(got[0], want, rtol=2e-6, atol=2e-6, err_msg=case["id"])
        assert advantages.mixed_groups(rewards).tolist() == [any(case["dynamic_sampling_keeps"])], case["id"]


# (ratio, advantage) -> per-token loss, its derivative by log_prob, clipped; clip_low 0.2, clip_high 0.3
CASES = [
    (1.0, 2.0, -2.0, -2.0, False),
    (1.0, -2.0, 2.0, 2.0, False),
    (1.2, 2.0, -2.4, -2.4, False),
    (1.5, 2.0, -2.6, 0.0, True),  # good and already likelier: no further push
    (0.5, 2.0, -1.0, -1.0, False),  # good but got rarer: full push back
    (0.9, -2.0, 1.8, 1.8, False),
    (0.5, -2.0, 1.6, 0.0, True),  # bad and already rarer: no further push
    (1.5, -2.0, 3.0, 3.0, False),  # bad but got likelier: full push back
    (1.5, 0.0, 0.0, 0.0, False),
]


@pytest.mark.parametrize("ratio, advantage, loss, slope, clipped", CASES)
def test_clipped_loss_piece_by_piece(ratio, advantage, loss, slope, clipped):
    def f(log_prob):
        value, flag = losses.clipped_ratio_loss(log_prob - jnp.float32(-1.5), advantage, 0.2, 0.3)
        return value, flag

    (value, flag), gradient = jax.value_and_grad(f, has_aux=True)(jnp.float32(-1.5 + np.log(ratio)))
    np.testing.assert_allclose([value, gradient], [loss, slope], rtol=1e-5, atol=1e-6)
    assert bool(flag) == clipped


@pytest.mark.parametrize("on_policy", [True, False])
def test_expected_kl_loss_and_gradient_are_the_exact_kls(on_policy):
    """Enumerate a categorical: sum_x sampler(x) * gradient of kl_loss at x = gradient of KL(policy ||
    ref)."""
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        logits, reference = (jnp.asarray(rng.normal(size=5), jnp.float64) for _ in range(2))
        behaviour = jax.nn.log_softmax(logits if on_policy else jnp.asarray(rng.normal(size=5)))
        ref = jax.nn.log_softmax(reference)

        def expected(logits):
            log_prob = jax.nn.log_softmax(logits)
            return (jnp.exp(behaviour) * objectives.kl_loss(log_prob, behaviour, ref)).sum()

        def exact(logits):
            log_prob = jax.nn.log_softmax(logits)
            return (jnp.exp(log_prob) * (log_prob - ref)).sum()

        got, want = (jax.value_and_grad(f)(logits) for f in (expected, exact))
    np.testing.assert_allclose(got[0], want[0], rtol=1e-12)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-10)
    assert np.abs(want[1]).max() > 0.01


def test_kl_loss_is_zero_at_the_reference():
    x = jnp.asarray([-0.1, -3.0])
    assert (objectives.kl_loss(x, x - 0.5, x) == 0).all()


def batch_fields(**fields):
    return {name: jnp.asarray(x, jnp.float32) for name, x in fields.items()}


def test_full_loss_sums_weighted_tokens_and_reports_sums():
    log_prob = jnp.log(jnp.asarray([[0.5, 0.4, 1.0]]))
    batch = batch_fields(
        weight=[[0.5, 0.25, 0.0]],
        behaviour_log_prob=np.log([[0.25, 0.4, 1.0]]),
        advantage=[[1.0, -2.0, 0.0]],
        reference_log_prob=np.log([[0.5, 0.8, 1.0]]),
    )
    entropy = jnp.asarray([[0.3, 0.5, 0.0]])
    total, sums = policy_gradient(0.2, 0.2, 0.1)(log_prob, entropy, batch)
    loss = 0.5 * -1.2 + 0.25 * 2.0  # ratio 2 clipped at 1.2; ratio 1
    kl = np.array([0.0, 2 - np.log(2) - 1])  # second token: ratio 1, d = log 2
    np.testing.assert_allclose(total, loss + 0.1 * 0.25 * kl[1], rtol=1e-6)
    want = {"tokens": 2, "entropy": 0.8, "clip_fraction": 1, "log_prob_drift": np.log(2)}
    for name, value in {**want, "kl": kl.sum()}.items():
        np.testing.assert_allclose(sums[name], value, rtol=1e-6, err_msg=name)


def test_without_kl_the_reference_is_not_needed():
    batch = batch_fields(weight=[[1.0]], behaviour_log_prob=[[0.0]], advantage=[[1.0]])
    total, sums = policy_gradient(0.2, 0.2, 0.0)(jnp.zeros((1, 1)), jnp.zeros((1, 1)), batch)
    assert total == -1 and "kl" not in sums


def test_sft_loss_is_the_weighted_negative_log_likelihood():
    log_prob = jnp.asarray([[-1.0, -2.0, -8.0]])
    total, sums = objectives.negative_log_likelihood(
        log_prob, jnp.ones((1, 3)), {"weight": jnp.asarray([[0.5, 0.5, 0.0]])}
    )
    assert total == 1.5 and sums["tokens"] == 2 and sums["nll"] == 3.0


def test_reward_rises_on_a_two_action_toy():
    """8 states, one good action each, G = 4, two updates a batch, clip and KL on. From 0.3 to above 0.9."""
    P, G, rng = 8, 4, np.random.default_rng(0)
    good = rng.integers(0, 2, P)
    start = np.log(np.where(np.arange(2) == good[:, None], 0.3, 0.7)).astype(np.float32)
    loss, optimizer = policy_gradient(0.2, 0.2, 0.001), optax.sgd(20.0)

    @jax.jit
    def step(logits, state, action, batch):
        def total(logits):
            log_probs = jax.nn.log_softmax(logits)
            return loss(jnp.take_along_axis(log_probs, action, axis=1), jnp.zeros((P, G)), batch)

        grads, sums = jax.grad(total, has_aux=True)(logits)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(logits, updates), state, sums

    log_softmax = lambda x: x - np.log(np.exp(x).sum(1, keepdims=True))  # noqa: E731
    logits, state, curve, clipped = jnp.asarray(start), optimizer.init(start), [], 0
    for _ in range(25):
        log_probs = log_softmax(np.asarray(logits))
        curve.append(np.exp(log_probs[np.arange(P), good]).mean())
        action = (rng.random((P, G)) < np.exp(log_probs[:, 1:])).astype(np.int32)
        behaviour = np.take_along_axis(log_probs, action, axis=1)
        batch = batch_fields(
            weight=np.full((P, G), 1 / (P * G)),
            advantage=advantages.group_advantages(action == good[:, None], 1e-6),
            behaviour_log_prob=behaviour,
            reference_log_prob=np.take_along_axis(start, action, axis=1),
        )
        for _ in range(2):
            logits, state, sums = step(logits, state, action, batch)
        clipped += int(sums["clip_fraction"])
    assert abs(curve[0] - 0.3) < 1e-6 and curve[-1] > 0.9, curve
    assert clipped > 0  # the second update did meet the clip
