"""GRPO at pivots: who is trained on when, bit-identical resumes, the KL path, and a toy whose reward must
rise."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
from support import tiny_run
from support.forests import MOE
from support.learning import PROMPTS, Killed, config_of, equal, learn, metrics
from support.objectives import policy_gradient

from pivotrl_jax import verifiers as verifiers_lib
from pivotrl_jax.models import decoder
from pivotrl_jax.records import InputError, Rollout
from pivotrl_jax.rollouts.rollout import Rollouts
from pivotrl_jax.run import compilations
from pivotrl_jax.training import batches, pivotrl
from pivotrl_jax.training import learner as learner_lib
from pivotrl_jax.training.method import items_of_step


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setitem(verifiers_lib.VERIFIERS, "toy", tiny_run.verifier(tiny_run.odd_first))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(workdir, parameters, totals) of four steps in one go."""
    workdir = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(verifiers_lib.VERIFIERS, "toy", tiny_run.verifier(tiny_run.odd_first))
        return workdir, *learn(workdir)


# ---- which pivots


@pytest.mark.parametrize(("count", "per_step"), [(7, 3), (5, 5), (3, 8), (1, 2), (64, 16)])
def test_every_pivot_comes_once_per_epoch(count, per_step):
    steps = 3 * count  # of per_step pivots each: 3 * per_step epochs
    order = [i for step in range(steps) for i in items_of_step(step, count, per_step, 0)]
    assert all(len(items_of_step(step, count, per_step, 0)) == per_step for step in range(3))
    epochs = [order[start : start + count] for start in range(0, len(order), count)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert count < 5 or len({tuple(epoch) for epoch in epochs}) > len(epochs) / 2, "epochs are shuffled anew"


def test_the_order_depends_on_the_seed_and_the_step_alone():
    assert items_of_step(5, 9, 4, 1) == items_of_step(5, 9, 4, 1) != items_of_step(5, 9, 4, 2)


def test_group_metrics_by_hand():
    def rollout(reward, tokens, finished=True, reason="ok"):
        return Rollout("c", 0, [1] * tokens, [0.0] * tokens, [0.0] * tokens, finished, "", reward, reason)

    groups = [
        [rollout(1.0, 2), rollout(0.0, 4, False, "malformed")],
        [rollout(1.0, 3), rollout(1.0, 3)],
    ]
    assert batches.group_metrics(groups) == {
        "reward_mean": 0.75,
        "reward_std": pytest.approx(3**0.5 / 4),
        "group_reward_std": 0.25,
        "mixed_groups": 0.5,
        "completion_tokens": 3.0,
        "unfinished": 0.25,
        "malformed": 0.25,
        "abstained": 0.0,
    }


def test_a_blend_has_rewards_by_verifier():
    def group(id, *rewards):
        return [Rollout(id, i, [1], [0.0], [0.0], True, "", r, "ok") for i, r in enumerate(rewards)]

    groups = [group("a", 1.0, 0.0), group("b", 1.0, 1.0), group("c", 0.0, 0.0)]
    verifiers = {"a": "swe", "b": "swe", "c": "search", "d": "tau2"}
    assert batches.domain_metrics(groups, verifiers) == {
        "reward_mean/swe": 0.75,
        "mixed_groups/swe": 0.5,
        "reward_mean/search": 0.0,
        "mixed_groups/search": 0.0,
    }
    assert batches.domain_metrics(groups, dict.fromkeys("abc", "swe")) == {}


# ---- resume


def test_four_steps_in_one_go(whole):
    workdir, params, totals = whole
    lines = metrics(workdir)
    assert [line["step"] for line in lines] == [0, 1, 2, 3]
    assert totals["rollout_turns"] == 4 * 2 * 4
    assert totals["trained_tokens"] == sum(line["tokens"] for line in lines)
    assert not equal(params, jax.tree.map(np.asarray, jax.device_get(tiny_run.policy())))
    assert all(line["log_prob_drift"] < 1e-4 for line in lines), "one update per batch: on policy"


def test_two_steps_a_restart_and_two_more_are_the_same_run(whole, tmp_path):
    _, params, totals = whole
    learn(tmp_path, steps=2)
    again, again_totals = learn(tmp_path)
    assert equal(again, params)
    assert metrics(tmp_path) == metrics(whole[0])
    assert {**again_totals, "seconds": 0} == {**totals, "seconds": 0}


def test_a_run_killed_past_its_checkpoint_is_the_same_run(whole, tmp_path):
    """Step 2 was done and written to metrics.jsonl, but its checkpoint was not: it is done again."""

    def kill(step):
        if step == 3:
            raise Killed

    with pytest.raises(Killed):
        learn(tmp_path, on_step=kill)
    assert [line["step"] for line in metrics(tmp_path)] == [0, 1, 2]
    again, totals = learn(tmp_path)
    assert equal(again, whole[1]) and metrics(tmp_path) == metrics(whole[0])
    assert totals["trained_tokens"] == whole[2]["trained_tokens"]


def test_steps_compile_a_bounded_number_of_programs(tmp_path):
    """One per row length and kind, however many steps, groups and completion lengths there are."""
    seen = []

    def note(step):
        seen.append(compilations.since(start)["programs"])

    learner, actor = tiny_run.learner.__wrapped__(), tiny_run.actor.__wrapped__()  # nothing compiled yet
    rollouts = Rollouts(actor, tiny_run.Numbers())
    start = compilations.mark()
    learn(tmp_path, learner=learner, rollouts=rollouts, on_step=note)
    lengths = {line["completion_tokens"] for line in metrics(tmp_path)}
    assert len(lengths) > 1, "the steps must differ"
    assert {**seen[-1], "other": 0} == {"sample": 1, "accumulate": 1, "apply": 1, "other": 0}
    assert seen[-1] == seen[0], "no step after the first compiles anything"


def test_a_finished_run_does_nothing_more(whole):
    def unexpected(step):
        raise AssertionError(f"step {step} was done again")

    params, totals = learn(whole[0], on_step=unexpected)
    assert equal(params, whole[1]) and totals == whole[2]


def test_without_resume_it_starts_over(whole, tmp_path):
    learn(tmp_path, steps=2, learner=tiny_run.learner(), prompts=PROMPTS[::-1])
    params, _ = learn(tmp_path, resume=False)
    assert equal(params, whole[1]) and metrics(tmp_path) == metrics(whole[0])


def test_a_checkpoint_of_another_recipe_is_refused(whole):
    with pytest.raises(InputError, match="a checkpoint of another run: seed is 0 there and 1 here"):
        learn(whole[0], identity={"seed": 1})


# ---- dynamic sampling


def one_group(rewards):
    return [Rollout("c", i, [1], [0.0], [0.0], True, "", r, "ok") for i, r in enumerate(rewards)]


def sampled(mixed: set[int], count=9, **changes):
    """`sample_groups` where only the pivots in `mixed` teach; with the draws, as (pivots, key)."""
    draws = []

    def draw(pivots, key):
        draws.append((pivots, int(jax.random.bits(key))))
        return [one_group([1.0, 0.0] if i in mixed else [None, 1.0]) for i in pivots]

    config = config_of(pivots_per_step=4, **changes)
    key = jax.random.key(0)
    return *pivotrl.sample_groups(draw, 0, count, config.grpo, config.seed, key), draws


def test_off_it_draws_once_and_keeps_what_it_drew():
    pivots, groups, every, draws = sampled(set())
    assert pivots == items_of_step(0, 9, 4, 0) == draws[0][0] and len(draws) == 1
    assert groups is every and len(groups) == 4


def test_it_draws_others_in_place_of_equal_groups_until_enough_are_mixed():
    first = items_of_step(0, 9, 4, 0)
    mixed = {*first[:1], *(set(range(9)) - set(first))}
    pivots, groups, every, draws = sampled(mixed, dynamic_rounds=5)
    assert [len(drawn) for drawn, _ in draws] == [4, 3], "as many as were missing"
    assert not set(draws[1][0]) & set(first), "unseen pivots come first"
    assert pivots == [first[0], *draws[1][0]] and len(groups) == 4 and len(every) == 7
    assert draws[0][1] != draws[1][1]
    assert sampled(mixed, dynamic_rounds=5)[3] == draws, "a function of seed, step and parameters"
    assert sampled(mixed, dynamic_rounds=5, seed=1)[3] != draws


def test_a_group_that_cannot_be_parsed_is_kept_where_that_has_an_advantage():
    """Rewards alone would draw others in its place, and the penalty would be paid for nothing."""
    malformed = [dataclasses.replace(rollout, reason="malformed") for rollout in one_group([0.0, 0.0])]

    def drawn(**changes):
        draw = lambda pivots, key: [malformed if i % 2 else one_group([1.0, 1.0]) for i in pivots]  # noqa: E731
        c = config_of(pivots_per_step=4, dynamic_rounds=3, **changes).grpo
        return pivotrl.sample_groups(draw, 0, 9, c, 0, jax.random.key(0))

    pivots, groups, _ = drawn(malformed_advantage=-5.0)
    assert groups == [malformed] * 4 and all(i % 2 for i in pivots)
    assert len(drawn()[2]) == 4 * 4, "without it nothing teaches"


def test_it_gives_up_after_its_rounds():
    pivots, groups, every, draws = sampled({0, 1}, dynamic_rounds=2)
    assert len(draws) == 3 and {*pivots} <= {0, 1} and len(groups) == len(pivots) <= 4 < len(every)
    pivots, groups, every, draws = sampled(set(), dynamic_rounds=2)
    assert len(draws) == 3 and groups == every[:4] and len(every) == 12, "nothing teaches: the first round"
    assert len(sampled({0}, count=2, dynamic_rounds=1)[3][1][0]) > 0, "fewer pivots than a step wants"


def test_a_run_with_dynamic_sampling_counts_what_it_drew_and_resumes(tmp_path):
    more = {"dynamic_rounds": 2, "baseline": "leave_one_out", "aggregation": "fixed_length", "max_tokens": 5}
    params, totals = learn(tmp_path / "whole", **more)
    learn(tmp_path / "parts", steps=2, **more)
    again, again_totals = learn(tmp_path / "parts", **more)
    lines = metrics(tmp_path / "whole")
    assert equal(again, params) and metrics(tmp_path / "parts") == lines
    assert totals["rollout_turns"] == sum(4 * line["sampled_groups"] for line in lines) > 4 * 2 * 4
    assert again_totals["rollout_turns"] == totals["rollout_turns"]
    assert all(line["trained_groups"] <= 2 <= line["sampled_groups"] for line in lines)


# ---- KL


def test_the_kl_is_to_the_reference(whole, tmp_path):
    """Zero at the first step, where policy and reference are one; above zero once they are not."""
    params, _ = learn(tmp_path, kl_coefficient=0.5)
    kl = [line["kl"] for line in metrics(tmp_path)]
    assert abs(kl[0]) < 1e-6 and min(kl[1:]) > 1e-4
    assert not equal(params, whole[1])
    moved = [
        sum(float(np.square(x - y).sum()) for x, y in zip(jax.tree.leaves(p), jax.tree.leaves(start)))
        for start in [jax.device_get(tiny_run.policy())]
        for p in (params, whole[1])
    ]
    assert moved[0] < moved[1], "the KL holds the policy nearer to the reference"


def test_the_kl_may_be_a_part_of_the_reward(whole, tmp_path):
    params, _ = learn(tmp_path, learner=tiny_run.learner(), kl_coefficient=0.5, kl_in="reward")
    kl = [line["kl"] for line in metrics(tmp_path)]
    assert abs(kl[0]) < 1e-5 and max(map(abs, kl[1:])) > 1e-3
    assert not equal(params, whole[1])


# ---- it learns


def test_the_reward_rises(tmp_path, monkeypatch):
    """One token is rewarded as the first of a completion: a twelfth of the draws before, nearly all after."""
    prompt = PROMPTS[0]
    logits = decoder.logits(MOE, tiny_run.policy(), np.array([prompt.ids]))[0, -1]
    target, prob = int(logits.argmax()), float(jax.nn.softmax(logits).max())
    monkeypatch.setitem(verifiers_lib.VERIFIERS, "toy", tiny_run.verifier(lambda ids: ids[0] == target))
    learner = tiny_run.learner(learning_rate=3e-2)
    learn(tmp_path, [prompt], learner=learner, steps=32, pivots_per_step=4)
    rewards = [line["reward_mean"] for line in metrics(tmp_path)]
    assert prob < 0.1 and np.mean(rewards[:3]) < 0.3
    assert np.mean(rewards[-3:]) > 0.9


def test_fewer_steps_than_the_checkpoint_has_are_refused(tmp_path, toy):
    learn(tmp_path, PROMPTS, steps=2)
    with pytest.raises(InputError, match=r"asks for 1 steps, but the latest checkpoint is of step 2"):
        learn(tmp_path, PROMPTS, steps=1)


@pytest.mark.parametrize("bad", ["loss", "grad_norm", "update_norm"])
def test_a_number_that_is_not_finite_stops_before_it_is_saved(tmp_path, monkeypatch, bad):
    step = learner_lib.Learner.step

    def broken(self, state, batch):
        state, values = step(self, state, batch)
        return state, {**values, bad: float("inf" if int(state.step) == 4 else values[bad])}

    monkeypatch.setattr(learner_lib.Learner, "step", broken)
    words = {"loss": "the loss", "grad_norm": "the gradient's norm", "update_norm": "the update's norm"}
    sentence = rf"step 3: {words[bad]} is inf; training stops before .* latest checkpoint is of step 2; what"
    with pytest.raises(InputError, match=sentence):
        learn(tmp_path, PROMPTS)
    assert sorted(p.name for p in (tmp_path / "checkpoints").glob("[0-9]*")) == ["2"]
    assert [line["step"] for line in metrics(tmp_path)] == [0, 1, 2]
    with np.load(tmp_path / "nonfinite_step_3.npz") as batch:  # it can be trained on again
        state = tiny_run.learner().init_state(tiny_run.policy())
        assert np.isfinite(step(tiny_run.learner(), state, dict(batch))[1]["loss"])


def test_an_update_that_is_not_finite_is_seen_where_it_happens(tmp_path):
    """Loss and gradient of that step are finite: the optimizer makes the NaN."""
    wrong = optax.stateless(lambda updates, params: jax.tree.map(lambda x: x * np.nan, updates))
    learner = learner_lib.Learner(
        MOE,
        learner_lib.Compute(tiny_run.CHUNK, 16, "nothing", rows=tiny_run.ROWS, mesh=tiny_run.mesh()),
        wrong,
        policy_gradient(0.2, 0.28, 0.0),
        1.0,
    )
    with pytest.raises(InputError, match=r"step 0: the update's norm is nan; .* no checkpoint is there yet"):
        learn(tmp_path, learner=learner)
    assert not list((tmp_path / "checkpoints").glob("[0-9]*"))
