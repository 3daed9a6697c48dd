"""Every loss against a slow float64 reference, the KL by enumeration, and toys whose reward must rise."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict
from support.objectives import policy_gradient
from support.paths import ROOT

from pivotrl_jax.records import InputError
from pivotrl_jax.training import advantages as advantages_lib
from pivotrl_jax.training import losses, objectives

LOW, HIGH, CAP, BETA = 0.2, 0.3, 1.5, 0.05
SURROGATES, IMPORTANCE, ESTIMATORS = ("grpo", "gspo", "cispo"), ("ratio", "tis"), ("k1", "k2", "k3")
AGGREGATIONS = ("token_mean", "sequence_mean", "fixed_length")
LONGEST = 7


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


# ---- the slow reference: one sample after another, one token after another, gradients by hand


def reference_loss(samples, weights, surrogate, importance, estimator):
    """(loss, gradients by every sample's log-probs) of `random_samples`."""
    total, gradients = 0.0, []
    for sample, weight in zip(samples, weights):
        now, advantage = sample["now"], sample["advantage"]
        log_ratio = now - sample["behaviour"]
        gradient = np.zeros_like(now)
        for t in range(len(now)):
            x = np.mean(log_ratio) if surrogate == "gspo" else log_ratio[t]
            factor = min(np.exp(x), CAP) if importance == "tis" else 1.0
            ratio = 1.0 if importance == "tis" else np.exp(x)
            clipped = min(max(ratio, 1 - LOW), 1 + HIGH)
            if surrogate == "cispo":
                value, slope = -clipped * advantage * now[t], -clipped * advantage
            elif clipped * advantage < ratio * advantage:
                value, slope = -clipped * advantage, 0.0
            else:
                value, slope = -ratio * advantage, -ratio * advantage
            kl_ratio = min(np.exp(log_ratio[t]), CAP) if importance == "tis" else np.exp(log_ratio[t])
            d = sample["reference"][t] - now[t]
            kl = {"k1": -d, "k2": d * d / 2, "k3": np.exp(d) - d - 1}[estimator]
            kl_slope = 1 - d if estimator == "k1" else -d
            total += weight * (factor * value + BETA * kl_ratio * kl)
            gradient[t] = weight * (factor * slope + BETA * kl_ratio * kl_slope)
        gradients.append(gradient)
    return total, gradients


def random_samples(rng, count=12):
    """Some tokens and some whole samples have drifted far from the sampler."""

    def sample():
        now = -rng.uniform(0.1, 3, rng.integers(1, LONGEST))
        drift, apart = (rng.normal(size=len(now)) * scale for scale in (0.3, 0.7))
        drift += rng.normal() * 0.5
        return {
            "now": now,
            "behaviour": now + drift,
            "reference": now + apart,
            "advantage": rng.choice([-1.5, 0.7]),
        }

    return [sample() for _ in range(count)]


def laid_out(rng, samples, weights, slots, empty_rows=0):
    """(log-probs, the loss's fields, where each sample lies): packed at random, in rows with holes."""
    rows, where = [[]], []
    order = rng.permutation(len(samples))
    for i in order:
        gap = int(rng.integers(0, 3))
        if sum(rows[-1]) + gap + len(samples[i]["now"]) > slots:
            rows.append([])
        start = sum(rows[-1]) + gap
        where.append((len(rows) - 1, slice(start, start + len(samples[i]["now"]))))
        rows[-1] += [gap, len(samples[i]["now"])]
    names = {"now": "now", "behaviour_log_prob": "behaviour", "reference_log_prob": "reference"}
    shape = (len(rows) + empty_rows, slots)
    fields = {name: np.zeros(shape) for name in (*names, "weight", "advantage")}
    fields["sequence"] = np.zeros(shape, np.int32)
    for i, at in zip(order, where):
        for name, own in names.items():
            fields[name][at] = samples[i][own]
        fields["weight"][at], fields["advantage"][at] = weights[i], samples[i]["advantage"]
        fields["sequence"][at] = fields["sequence"][at[0]].max() + 1
    now = fields.pop("now")
    return now, {k: jnp.asarray(v) for k, v in fields.items()}, dict(zip(order.tolist(), where))


def weights_of(samples, aggregation):
    return advantages_lib.token_weights([len(sample["now"]) for sample in samples], aggregation, LONGEST)


def loss_of(surrogate, importance, estimator):
    return policy_gradient(
        LOW,
        HIGH,
        BETA,
        loss=surrogate,
        importance=importance,
        importance_cap=CAP,
        kl_estimator=estimator,
    )


def loss_and_gradients(loss, now, fields, where):
    gradient, sums = jax.grad(lambda x: loss(x, jnp.zeros_like(x), fields), has_aux=True)(jnp.asarray(now))
    total = loss(jnp.asarray(now), jnp.zeros_like(now), fields)[0]
    outside = np.array(gradient)
    for at in where.values():
        outside[at] = 0
    assert not outside.any(), "a slot that is not trained has no gradient"
    return float(total), [np.asarray(gradient)[where[i]] for i in range(len(where))], sums


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("importance", IMPORTANCE)
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_losses_and_gradients_equal_the_slow_reference_however_packed(
    surrogate, importance, estimator, aggregation
):
    rng = np.random.default_rng(0)
    samples = random_samples(rng)
    weights = weights_of(samples, aggregation)
    want, want_gradients = reference_loss(samples, weights, surrogate, importance, estimator)
    loss = loss_of(surrogate, importance, estimator)
    for slots, empty in ((LONGEST + 2, 3), (120, 0)):
        total, gradients, _ = loss_and_gradients(loss, *laid_out(rng, samples, weights, slots, empty))
        np.testing.assert_allclose(total, want, rtol=1e-12)
        for got, expected in zip(gradients, want_gradients):
            np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-15)


def test_the_samples_do_meet_clips_and_caps():
    """Else the table above would show less than it seems to."""
    rng = np.random.default_rng(0)
    samples = random_samples(rng)
    laid = laid_out(rng, samples, weights_of(samples, "token_mean"), 24)
    for surrogate in SURROGATES:
        _, gradients, sums = loss_and_gradients(loss_of(surrogate, "ratio", "k3"), *laid)
        assert 1 < sums["clip_fraction"] < sums["tokens"]
        assert all(x.any() for x in gradients)
        _, _, sums = loss_and_gradients(loss_of(surrogate, "tis", "k3"), *laid)
        assert sums["clip_fraction"] == 0 and 1 <= sums["importance_capped"] < sums["tokens"]


def test_gspo_is_the_papers_objective_by_finite_differences():
    """mean of min(s A, clip(s) A) over samples, s the geometric mean of a sample's ratios; no
    stop-gradient."""
    rng = np.random.default_rng(1)
    samples = random_samples(rng)

    def objective(samples):
        terms = []
        for x in samples:
            s = np.exp(np.mean(x["now"] - x["behaviour"]))
            terms.append(-min(s * x["advantage"], np.clip(s, 1 - LOW, 1 + HIGH) * x["advantage"]))
        return np.mean(terms)

    laid = laid_out(rng, samples, weights_of(samples, "sequence_mean"), 24)
    total, gradients, _ = loss_and_gradients(policy_gradient(LOW, HIGH, 0.0, loss="gspo"), *laid)
    np.testing.assert_allclose(total, objective(samples), rtol=1e-12)
    for i, sample in enumerate(samples):
        for t in range(len(sample["now"])):
            ends = []
            for step in (1e-6, -1e-6):
                now = sample["now"].copy()
                now[t] += step
                ends.append(objective([*samples[:i], {**sample, "now": now}, *samples[i + 1 :]]))
            np.testing.assert_allclose(gradients[i][t], (ends[0] - ends[1]) / 2e-6, rtol=1e-5, atol=1e-9)


def test_grpo_by_finite_differences():
    rng = np.random.default_rng(2)
    samples = random_samples(rng)
    now, fields, where = laid_out(rng, samples, weights_of(samples, "token_mean"), 24)
    loss = policy_gradient(LOW, HIGH, BETA)
    _, gradients, _ = loss_and_gradients(loss, now, fields, where)
    for i, (row, run) in where.items():
        for t in range(run.start, run.stop):
            step = np.zeros_like(now)
            step[row, t] = 1e-6
            ends = [
                float(loss(jnp.asarray(x), jnp.zeros_like(x), fields)[0]) for x in (now + step, now - step)
            ]
            slope = (ends[0] - ends[1]) / 2e-6
            np.testing.assert_allclose(gradients[i][t - run.start], slope, rtol=1e-5, atol=1e-9)


# ---- expectations, by enumeration


def softmaxes(seed=0, count=3, n=5):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=n)) for _ in range(count)]


def kl(policy, reference):
    return (jnp.exp(policy) * (policy - reference)).sum()


@pytest.mark.parametrize("cap", [None, 1e9])
@pytest.mark.parametrize("on_policy", [True, False])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_expected_gradient_of_every_kl_estimator_is_the_true_kls(estimator, on_policy, cap):
    logits, reference, other = softmaxes()
    behaviour = jax.nn.log_softmax(logits if on_policy else other)
    ref = jax.nn.log_softmax(reference)

    def expected(logits):
        per_token = objectives.kl_loss(jax.nn.log_softmax(logits), behaviour, ref, estimator, cap)
        return (jnp.exp(behaviour) * per_token).sum()

    got, want = (jax.value_and_grad(f)(logits) for f in (expected, lambda x: kl(jax.nn.log_softmax(x), ref)))
    np.testing.assert_allclose(got[1], want[1], rtol=1e-10)
    assert np.abs(want[1]).max() > 0.01
    if estimator == "k2":  # as the docstring says: not the KL's value, but close to it near the reference
        assert abs(got[0] / want[0] - 1) > 0.05
        near = jax.nn.log_softmax(reference + 1e-3 * logits)
        value = (jnp.exp(near) * objectives.kl_loss(near, near, ref, "k2")).sum()
        np.testing.assert_allclose(value, kl(near, ref), rtol=1e-2)
    else:
        np.testing.assert_allclose(got[0], want[0], rtol=1e-12)


def test_k3_is_never_negative_and_k1_is_for_many_tokens():
    logits, reference, _ = (jax.nn.log_softmax(x) for x in softmaxes())
    assert (objectives.kl_loss(logits, logits, reference, "k3") >= 0).all()
    assert (objectives.kl_loss(logits, logits, reference, "k1") < 0).any()


def test_as_a_reward_k1_has_the_gradient_of_the_kl_of_whole_samples_and_k3_another():
    """Two tokens, the second's distribution depends on the first: 16 samples, all of them enumerated."""
    rng, n = np.random.default_rng(3), 4
    policy, reference = ({"a": rng.normal(size=n), "b": rng.normal(size=(n, n))} for _ in range(2))
    pairs = np.array(list(itertools.product(range(n), repeat=2)))

    def log_probs(params):  # [16 samples, 2 tokens]
        first, second = jax.nn.log_softmax(params["a"]), jax.nn.log_softmax(params["b"], axis=1)
        return jnp.stack([first[pairs[:, 0]], second[pairs[:, 0], pairs[:, 1]]], axis=1)

    behaviour, ref = np.asarray(log_probs(policy)), np.asarray(log_probs(reference))
    probability = np.exp(behaviour.sum(1))

    def exact(params):
        return kl(log_probs(params).sum(1), ref.sum(1))

    def expected(params, taken_off):
        loss, _ = losses.clipped_ratio_loss(log_probs(params) - behaviour, -taken_off, LOW, HIGH)
        return (probability[:, None] * loss).sum()

    penalty = advantages_lib.kl_penalty(behaviour, ref, np.ones((16, 2), np.int32))
    np.testing.assert_allclose(penalty[:, 0], (behaviour - ref).sum(1))
    got, want = jax.grad(expected)(policy, penalty), jax.grad(exact)(policy)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-14), got, want)

    ends = log_probs(policy)[:, 0][::n], log_probs(reference)[:, 0][::n]  # the first token alone
    k3 = np.exp(ends[1] - ends[0]) - (ends[1] - ends[0]) - 1
    of_reward = jax.grad(lambda a: (np.exp(ends[0]) * jax.nn.log_softmax(a) * k3).sum())(policy["a"])
    named = jax.grad(lambda a: kl(jax.nn.log_softmax(a), ends[1]) - kl(ends[1], jax.nn.log_softmax(a)))
    np.testing.assert_allclose(of_reward, named(policy["a"]), rtol=1e-10)


def test_uncapped_importance_weights_make_a_foreign_sampler_exact_and_a_cap_bounds_them():
    logits, reward, other = softmaxes(5)
    behaviour = jax.nn.log_softmax(other)

    def expected(logits, cap):
        fields = {"weight": jnp.exp(behaviour)[None], "behaviour_log_prob": behaviour[None]}
        fields["advantage"] = reward[None]
        loss = policy_gradient(LOW, HIGH, 0.0, importance="tis", importance_cap=cap)
        return loss(jax.nn.log_softmax(logits)[None], jnp.zeros((1, 5)), fields)[0]

    want = jax.grad(lambda x: -(jax.nn.softmax(x) * reward).sum())(logits)
    np.testing.assert_allclose(jax.grad(expected)(logits, 1e9), want, rtol=1e-10)
    ratio = jnp.exp(jax.nn.log_softmax(logits) - behaviour)
    assert ratio.max() > 1.2
    weighted = jax.grad(
        lambda x: -(jnp.exp(behaviour) * jnp.minimum(ratio, 1.2) * reward * jax.nn.log_softmax(x)).sum()
    )
    np.testing.assert_allclose(jax.grad(expected)(logits, 1.2), weighted(logits), rtol=1e-10)


# ---- they learn


@pytest.mark.parametrize("baseline, normalise", [("mean", "std"), ("leave_one_out", "none")])
@pytest.mark.parametrize("importance", IMPORTANCE)
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_reward_rises_on_a_two_action_toy(surrogate, importance, baseline, normalise):
    """8 states, one good action each, samples of 3 actions of which 2 must be good, G = 6, two updates a
    batch. From 0.3 good actions to above 0.9."""
    P, G, N, rng = 8, 6, 3, np.random.default_rng(0)
    good = rng.integers(0, 2, P)
    logits = jnp.asarray(np.log(np.where(np.arange(2) == good[:, None], 0.3, 0.7)))
    loss = policy_gradient(LOW, HIGH, 0.001, loss=surrogate, importance=importance, importance_cap=CAP)
    optimizer, curve = optax.sgd(20.0), []
    state, reference = optimizer.init(logits), np.asarray(logits)

    @jax.jit
    def step(logits, state, action, batch):
        def total(logits):
            now = jnp.take_along_axis(jax.nn.log_softmax(logits), action, axis=1)
            return loss(now, jnp.zeros_like(now), batch)[0]

        updates, state = optimizer.update(jax.grad(total)(logits), state)
        return optax.apply_updates(logits, updates), state

    for _ in range(40):
        log_probs = np.asarray(jax.nn.log_softmax(logits))
        curve.append(np.exp(log_probs[np.arange(P), good]).mean())
        action = (rng.random((P, G, N)) < np.exp(log_probs[:, 1, None, None])).astype(np.int32)
        reward_PG = (action == good[:, None, None]).sum(2) >= 2
        advantage_PG = advantages_lib.advantages(reward_PG, baseline, normalise, 1e-6)
        action = action.reshape(P, G * N)
        batch = {
            "weight": np.full((P, G * N), 1 / (P * G * N)),
            "advantage": np.repeat(advantage_PG, N, axis=1),
            "behaviour_log_prob": np.take_along_axis(log_probs, action, axis=1),
            "reference_log_prob": np.take_along_axis(reference, action, axis=1),
            "sequence": np.tile(np.repeat(np.arange(1, G + 1), N), (P, 1)),
        }
        for _ in range(2):
            logits, state = step(logits, state, action, batch)
    assert abs(curve[0] - 0.3) < 1e-6 and curve[-1] > 0.9, curve


def test_a_config_says_which_loss_it_is():
    c = ConfigDict({"clip_low": LOW, "clip_high": HIGH, "kl_coefficient": BETA, "kl_in": "loss"})
    c.update({"loss": "cispo", "importance": "tis", "importance_cap": CAP, "kl_estimator": "k2"})
    rng = np.random.default_rng(0)
    samples = random_samples(rng)
    weights = weights_of(samples, "token_mean")
    now, fields, where = laid_out(rng, samples, weights, 24)
    total, _, _ = loss_and_gradients(objectives.policy_gradient(c), now, fields, where)
    np.testing.assert_allclose(total, reference_loss(samples, weights, "cispo", "tis", "k2")[0], rtol=1e-12)
    c.kl_in = "reward"  # then the advantages carry it, and the loss needs no reference
    del fields["reference_log_prob"]
    assert "kl" not in loss_and_gradients(objectives.policy_gradient(c), now, fields, where)[2]


# ---- a loss of the user's own


@pytest.mark.parametrize(
    "returned, sentence",
    [
        (lambda x: (x, {"tokens": x, "ratio": x}), "mine returned metrics called tokens, as others"),
        (lambda x: (x, {"reward_mean/swe": x, "kl": x}), "called kl, reward_mean/swe, as others"),
        (lambda x: (x.mean(), {}), r"mine returned a loss of shape \(\) for log-probs of shape \(1, 3\)"),
    ],
)
def test_a_loss_that_would_change_other_numbers_is_refused(returned, sentence, monkeypatch):
    monkeypatch.setitem(losses.LOSSES, "mine", lambda tokens, config: returned(tokens.log_prob))
    x = jnp.ones((1, 3))
    batch = {"weight": x, "behaviour_log_prob": x, "advantage": x}
    with pytest.raises(InputError, match=sentence):
        jax.eval_shape(policy_gradient(LOW, HIGH, 0.0, loss="mine"), x, x, batch)


def test_no_documented_metric_can_be_taken_by_a_loss():
    page = (ROOT / "docs" / "metrics.md").read_text("utf-8").partition("## What a warning")[0]
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)", row)}
    assert len(named) > 20 and named - {"clip_fraction", "importance_capped"} <= objectives.TAKEN
