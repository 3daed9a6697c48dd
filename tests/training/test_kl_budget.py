"""The KL budget: the estimate is exact in expectation, and a run ends with the last state within it."""

import itertools

import jax
import numpy as np
import pytest
from support import demonstrated, tiny_run
from support.configs import CONFIGS
from support.learning import PROMPTS, Killed, config_of, equal, learn, metrics

from pivotrl_jax import verifiers
from pivotrl_jax.checkpoints import orbax
from pivotrl_jax.records import InputError
from pivotrl_jax.rollouts.rollout import Rollouts
from pivotrl_jax.run import check_config
from pivotrl_jax.training import demonstrations, kl_budget, pivotrl, recipe

STEPS = 6


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setitem(verifiers.VERIFIERS, "toy", tiny_run.verifier(tiny_run.odd_first))


# ---- the estimate


def batch_of(reference, sequence):
    return {
        "reference_log_prob": np.array(reference, np.float32),
        "sequence": np.array(sequence, np.int32),
    }


def test_its_expectation_is_the_kl_of_whole_turns():
    """All turns of two tokens out of three, weighed by their probability."""
    rng = np.random.default_rng(0)

    def language():
        first, second = rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3), size=3)
        return lambda a, b: np.log([first[a], second[a, b]])

    policy, reference, expected, exact = language(), language(), 0.0, 0.0
    for a, b in itertools.product(range(3), repeat=2):
        p, q = policy(a, b), reference(a, b)
        batch = batch_of([q], [[1, 1]])
        expected += np.exp(p.sum()) * kl_budget.per_turn(batch, p[None], np.ones((1, 2), bool))
        exact += np.exp(p.sum()) * (p - q).sum()
    assert expected == pytest.approx(exact, rel=1e-5) and exact > 0.1


def test_it_is_a_mean_over_turns_that_the_policy_drew():
    """Three turns in two rows; the fourth is a demonstration; slots without a sequence are prompts."""
    k3 = lambda d: np.exp(d) - 1 - d  # noqa: E731
    policy = np.float32([[0, -1, -1, -2, 0], [-1, -3, -3, 0, 0]])
    reference = [[-9, -1.5, -2, -2.5, 0], [-0.5, 0, 0, -9, 0]]
    batch = batch_of(reference, [[0, 1, 1, 2, 0], [1, 2, 2, 0, 0]])
    drawn = np.ones((2, 5), bool)
    drawn[1, 1:3] = False
    want = (k3(-0.5) + k3(-1) + k3(-0.5) + k3(0.5)) / 3
    assert kl_budget.per_turn(batch, policy, drawn) == pytest.approx(want, rel=1e-6)
    assert np.isnan(kl_budget.per_turn(batch, policy, ~np.ones((2, 5), bool)))


def test_the_sentence_and_what_stops_nothing():
    assert kl_budget.why_stop(12, 0.5, 0.5) == kl_budget.why_stop(3, float("nan"), 0.1) == ""
    said = kl_budget.why_stop(12, 0.6123, 0.5)
    assert "after 12 steps is 0.612 nats per turn, beyond config.grpo.kl_budget, 0.5" in said
    assert said.endswith("the state after 11 steps")


# ---- a run


@pytest.fixture(scope="module")
def curve(tmp_path_factory):
    """(KL of the state before every step, parameters) of a run with a budget that it never meets."""
    workdir = tmp_path_factory.mktemp("curve")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(verifiers.VERIFIERS, "toy", tiny_run.verifier(tiny_run.odd_first))
        params, totals = learn(workdir, steps=STEPS, kl_budget=1e3)
    assert "stopped" not in totals
    return [line["kl_per_turn"] for line in metrics(workdir)], params


@pytest.fixture(scope="module")
def budget(curve):
    """(a budget, the number of steps of the first state beyond it)."""
    kl, _ = curve
    beyond = next(n for n in range(2, STEPS) if kl[n] > max(kl[:n]))
    return (max(kl[:beyond]) + kl[beyond]) / 2, beyond


def states(workdir):
    return orbax.steps_in(workdir / "checkpoints")


def test_the_kl_starts_at_zero_and_grows(curve, tmp_path):
    kl, params = curve
    assert abs(kl[0]) < 1e-6 and min(kl[1:]) > 1e-4
    plain, _ = learn(tmp_path, steps=STEPS)
    assert equal(plain, params), "measuring changes nothing"
    assert "kl_per_turn" not in metrics(tmp_path)[0]


def test_it_ends_with_the_last_state_within_the_budget(budget, tmp_path):
    limit, beyond = budget
    params, totals = learn(tmp_path / "limited", steps=STEPS, kl_budget=limit)
    want, _ = learn(tmp_path / "want", steps=beyond - 1)
    assert equal(params, want)
    assert f"after {beyond} steps is" in totals["stopped"]
    assert f"the state after {beyond - 1} steps" in totals["stopped"]
    assert totals["rollout_turns"] == (beyond + 1) * 2 * 4, "the batch that was measured last has been drawn"
    assert max(states(tmp_path / "limited")) == beyond - 1, "no checkpoint is beyond the budget"
    assert [line["step"] for line in metrics(tmp_path / "limited")] == list(range(beyond))


def test_a_run_that_stopped_stops_again_at_the_same_place(budget, tmp_path):
    limit, _ = budget
    params, totals = learn(tmp_path, steps=STEPS, kl_budget=limit)
    lines = metrics(tmp_path)
    again, again_totals = learn(tmp_path, steps=STEPS, kl_budget=limit)
    assert equal(again, params) and metrics(tmp_path) == lines
    assert {**again_totals, "seconds": 0} == {**totals, "seconds": 0}


def test_a_killed_run_is_the_same_run(budget, tmp_path):
    """Killed after every step that it does."""
    limit, beyond = budget
    want, _ = learn(tmp_path / "want", steps=beyond - 1)
    for last in range(1, beyond + 1):

        def kill(step):
            if step == last:  # noqa: B023
                raise Killed

        workdir = tmp_path / str(last)
        with pytest.raises(Killed):
            learn(workdir, steps=STEPS, kl_budget=limit, on_step=kill)
        assert all(step < beyond for step in states(workdir))
        params, totals = learn(workdir, steps=STEPS, kl_budget=limit)
        assert equal(params, want) and "stopped" in totals


def test_the_state_after_the_last_step_is_measured_too(curve, budget, tmp_path):
    limit, beyond = budget
    params, totals = learn(tmp_path / "last", steps=beyond, kl_budget=limit)
    want, _ = learn(tmp_path / "want", steps=beyond - 1)
    assert equal(params, want) and f"after {beyond} steps" in totals["stopped"]
    within, totals = learn(tmp_path / "within", steps=beyond - 1, kl_budget=limit)
    assert equal(within, want) and "stopped" not in totals
    assert totals["rollout_turns"] == beyond * 2 * 4, "one batch more than the steps"
    assert states(tmp_path / "within")[-1] == beyond - 1

    def unexpected(step):
        raise AssertionError(f"step {step} was done again")

    again, totals_again = learn(tmp_path / "within", steps=beyond - 1, kl_budget=limit, on_step=unexpected)
    assert equal(again, want) and totals_again == totals
    more, _ = learn(tmp_path / "within", steps=STEPS, kl_budget=1e3)
    assert equal(more, curve[1]), "and it can be continued"


def test_an_error_saves_the_last_state_that_was_measured(tmp_path):
    class Fails(Rollouts):
        def sample(self, params, prompts, *rest, **more):
            drawn.append(1)
            if len(drawn) == 4:
                raise InputError("the judge is down")
            return super().sample(params, prompts, *rest, **more)

    drawn = []
    rollouts = Fails(tiny_run.actor(), tiny_run.Numbers())
    with pytest.raises(InputError, match="the judge is down"):
        learn(tmp_path, prompts=PROMPTS, rollouts=rollouts, steps=STEPS, kl_budget=1e3)
    assert states(tmp_path) == [2], "three states were measured, of 0, 1 and 2 steps"
    learn(tmp_path, steps=STEPS, kl_budget=1e3)
    assert [line["step"] for line in metrics(tmp_path)] == list(range(STEPS))


def test_beside_a_kl_in_the_loss_both_are_measured(tmp_path):
    learn(tmp_path, steps=2, kl_budget=1e3, kl_coefficient=0.5)
    lines = metrics(tmp_path)
    assert lines[1]["kl"] > 0 and lines[1]["kl_per_turn"] > lines[1]["kl"], "of a token, and of a turn"


def test_demonstrations_do_not_count(monkeypatch):
    """Their behaviour log-probs are the policy's own, but it did not draw them."""
    demonstrated.only_demonstrations(monkeypatch)
    learner, config = tiny_run.learner(), config_of(kl_budget=1e3)
    groups = demonstrations.Demonstrations(demonstrated.rollouts()).put_in(PROMPTS, demonstrated.sampled())
    batch = pivotrl.pack(PROMPTS, groups, config, learner)
    unknown = np.isnan(batch["behaviour_log_prob"])
    moved = jax.tree.map(lambda x: 1.1 * x, tiny_run.policy())
    found = pivotrl.add_log_probs(batch, learner, moved, tiny_run.policy(), config.grpo)["kl_per_turn"]
    assert "reference_log_prob" not in batch, "the loss does not read it"
    batch["reference_log_prob"] = learner.score(tiny_run.policy(), batch)
    own, all_ = learner.score(moved, batch), unknown | ~unknown
    assert found == kl_budget.per_turn(batch, own, ~unknown) != kl_budget.per_turn(batch, own, all_)


@pytest.mark.parametrize("kl", [{"kl_budget": 1e3}, {"kl_coefficient": 0.5, "kl_in": "reward"}])
def test_what_sampler_and_learner_differ_by_is_no_kl(kl):
    """At pi_0 the KL is 0, even if the sampler's program rounds as in bfloat16."""
    learner, config = tiny_run.learner(), config_of(**kl)
    batch = pivotrl.pack(PROMPTS, demonstrated.sampled(), config, learner)
    batch["behaviour_log_prob"] += np.float32(0.05) * (batch["sequence"] > 0)
    before = batch["advantage"].copy()
    found = pivotrl.add_log_probs(batch, learner, tiny_run.policy(), tiny_run.policy(), config.grpo)
    assert list(found.values()) == [0.0]
    np.testing.assert_array_equal(batch["advantage"], before)


# ---- config


def test_it_belongs_to_the_recipe_and_is_refused_where_it_cannot_be():
    assert "kl_budget" not in recipe.fixed(CONFIGS.get_config().grpo)
    assert recipe.fixed(config_of(kl_budget=0.5).grpo)["kl_budget"] == 0.5
    config = CONFIGS.get_config()
    config.grpo.kl_budget = 0.5
    check_config.check_training(config)
    config.reprofile.std_fraction = 0.5
    with pytest.raises(InputError, match=r"config\.grpo\.kl_budget is 0\.5: a run that stops by its KL"):
        check_config.check_training(config)
    config.reprofile.std_fraction, config.method = 0.0, "e2e_rl"
    with pytest.raises(InputError, match=r"config\.grpo\.kl_budget is 0\.5, which config\.method 'e2e_rl'"):
        check_config.check_training(config)
