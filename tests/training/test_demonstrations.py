"""Demonstrations in all-fail groups: where they stand, what they are worth, and what gradient they give."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import tiny_run, update
from support.configs import CONFIGS
from support.demonstrated import DEMONSTRATED, PROMPTS, Chat, only_demonstrations, rollouts, sampled
from support.forests import MOE, sharp_params
from support.learning import config_of, equal, learn, metrics
from support.lora_step import CONFIG as LORA

from pivotrl_jax.models import decoder, lora
from pivotrl_jax.pivots.selection import make_profile, select
from pivotrl_jax.records import InputError, Rollout
from pivotrl_jax.rollouts import demonstrations as demonstration_lib
from pivotrl_jax.rollouts.rollout import Rollouts
from pivotrl_jax.run import check_config
from pivotrl_jax.training import advantages, demonstrations, pivotrl
from pivotrl_jax.training import learner as learner_lib

ON = {"demonstration_in_failed_groups": True}


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    only_demonstrations(monkeypatch)


# ---- where they stand


def test_the_last_sample_of_an_all_fail_group_is_replaced_and_no_other():
    groups = sampled()
    got = demonstrations.Demonstrations(rollouts()).put_in(PROMPTS, groups)
    failed = [all(r.reward == 0 for r in group) for group in groups]
    assert any(failed) and not all(failed)
    for group, new, all_fail in zip(groups, got, failed):
        if not all_fail:
            assert new is group
            continue
        assert new[:-1] == group[:-1] and len(new) == len(group)
        last = new[-1]
        assert (last.token_ids, last.reward, last.finished) == (DEMONSTRATED, 1.0, True)
        assert (last.candidate_id, last.sample) == (group[-1].candidate_id, group[-1].sample)
        assert all(math.isnan(x) for x in last.log_probs) and len(last.log_probs) == len(DEMONSTRATED)
    assert demonstrations.demonstrated(got) == sum(failed)


@pytest.mark.parametrize("reward", [0.0, None])
def test_it_has_the_verifiers_reward_and_without_one_stays_out(monkeypatch, reward):
    only_demonstrations(monkeypatch, reward)
    groups = sampled()[::2]
    assert not any(r.reward for group in groups for r in group)
    assert demonstrations.Demonstrations(rollouts()).put_in(PROMPTS[::2], groups) == groups


def test_an_abstention_is_no_failure():
    first = next(group for group in sampled() if not any(r.reward for r in group))
    groups = [[dataclasses.replace(first[0], reward=None), *first[1:]]]
    assert demonstrations.Demonstrations(rollouts()).put_in(PROMPTS[:1], groups) == groups


def test_what_the_policy_may_not_write_is_no_demonstration():
    short = dataclasses.replace(tiny_run.SAMPLING, max_tokens=2)
    few = Rollouts(tiny_run.actor(short), Chat())
    assert demonstration_lib.rollout_of(few, PROMPTS[0].candidate, 3) is None
    assert demonstration_lib.rollout_of(rollouts(), PROMPTS[0].candidate, 3) is not None


# ---- what they are worth


@jax.jit
def padded_log_probs(params, ids):
    return jax.nn.log_softmax(decoder.logits(MOE, params, ids).astype(jnp.float32))


def plain_log_probs(params, sequences):
    """[n] of every (prompt, completion): each whole sequence in a row of its own."""
    whole = [[*prompt.tolist(), *completion] for prompt, completion in sequences]
    table = padded_log_probs(params, jnp.array([ids + [0] * (48 - len(ids)) for ids in whole]))
    return [
        table[i, jnp.arange(len(prompt) - 1, len(whole[i]) - 1), jnp.array(completion)]
        for i, (prompt, completion) in enumerate(sequences)
    ]


def slow_loss(params, groups, current, c):
    """GRPO's loss with token-mean, sequence by sequence; `current` are the parameters before the update."""
    total = sum(len(r.token_ids) for group in groups for r in group)
    sequences = [(p.ids, r.token_ids) for p, group in zip(PROMPTS, groups) for r in group]
    log_probs, own = (iter(plain_log_probs(p, sequences)) for p in (params, current))
    loss = 0.0
    for group in groups:
        rewards = np.array([r.reward for r in group])
        advantage = (rewards - rewards.mean()) / (rewards.std() + c.advantage_eps) * (np.ptp(rewards) > 0)
        for r, a in zip(group, advantage):
            log_prob, before = next(log_probs), next(own)
            behaviour = before if r.reason == "demonstration" else np.array(r.log_probs)
            ratio = jnp.exp(log_prob - behaviour)
            clipped = jnp.clip(ratio, 1 - c.clip_low, 1 + c.clip_high)
            loss += -jnp.minimum(ratio * a, clipped * a).sum() / total
    return loss


def test_the_batch_has_the_gradient_of_a_slow_reference():
    """The packed batch against one sequence at a time, with every demonstration's ratio 1."""
    params, learner = tiny_run.policy(), tiny_run.learner()
    groups = demonstrations.Demonstrations(rollouts()).put_in(PROMPTS, sampled())
    config = config_of()
    batch = pivotrl.pack(PROMPTS, groups, config, learner)
    assert np.isnan(batch["behaviour_log_prob"]).sum() == 3 * demonstrations.demonstrated(groups) > 0
    sampled_before = np.nan_to_num(batch["behaviour_log_prob"])
    where = demonstrations.score(batch, learner, params)
    assert not np.isnan(batch["behaviour_log_prob"]).any() and where.sum() > 0
    np.testing.assert_array_equal(batch["behaviour_log_prob"][~where], sampled_before[~where])
    want_loss, want = jax.value_and_grad(slow_loss)(params, groups, params, config.grpo)
    grads, loss = learner._zeros(params), 0.0
    with jax.set_mesh(learner.mesh):
        for piece in learner._microbatches(batch):
            grads, sums = learner.accumulate(params, {}, grads, piece)
            loss += float(sums["loss"])
    assert loss == pytest.approx(float(want_loss), abs=1e-5)
    for (path, got), expected in zip(jax.tree.leaves_with_path(grads), jax.tree.leaves(want)):
        np.testing.assert_allclose(got, expected, atol=2e-5, err_msg=jax.tree_util.keystr(path))


def test_one_demonstration_among_failures_has_the_advantage_of_a_lone_success():
    groups = demonstrations.Demonstrations(rollouts()).put_in(PROMPTS[:1], sampled()[:1])
    got = advantages.advantages_of(groups, config_of().grpo)
    np.testing.assert_allclose(got, [[-(3**-0.5)] * 3 + [3**0.5]], rtol=1e-5)


def test_under_lora_adapters_are_scored_beside_their_base():
    """The loop hands over the base and its adapters joined."""
    params = jax.tree.map(np.asarray, sharp_params(LORA))
    compute = dataclasses.replace(update.COMPUTE, attention_chunk=16, rows=2, mesh=tiny_run.mesh())
    base = learner_lib.Learner(LORA, compute, optax.sgd(1.0), update.LOSS, 1.0, frozen=lora.base(params))
    state = base.init_state(lora.trained(LORA, params))
    rng = np.random.default_rng(0)

    def rollout(g, log_probs):
        ids = rng.integers(1, 60, len(log_probs)).tolist()
        return Rollout("c", g, ids, log_probs, log_probs, True, "", float(g == 3), "ok")

    groups = [[rollout(g, [-1.0] * 4 if g < 3 else [math.nan] * 4) for g in range(4)] for _ in PROMPTS]
    batch = pivotrl.pack(PROMPTS, groups, config_of(), base)
    want = base.score(state.params, batch)
    where = demonstrations.score(batch, base, lora.join(base.frozen, state.params))
    assert where.sum() == 4 * len(PROMPTS)
    np.testing.assert_allclose(batch["behaviour_log_prob"][where], want[where], atol=1e-6)
    assert (batch["behaviour_log_prob"][~where & (batch["weight"] > 0)] == -1).all()


# ---- a run


def test_a_run_counts_them_resumes_and_learns_to_write_them(tmp_path):
    more = {"prompts": PROMPTS[::2], "rollouts": rollouts(), "pivots_per_step": 3}
    params, totals = learn(tmp_path / "whole", **more, **ON)
    lines = metrics(tmp_path / "whole")
    assert [line["demonstrated_groups"] for line in lines] == [3] * 4
    assert lines[0]["reward_mean"] == 0, "rewards are those of the policy's own samples"
    assert lines[0]["log_prob_drift"] < 1e-4, "their ratio is 1"
    assert totals["rollout_turns"] == 4 * 3 * 4, "nothing more is sampled"
    learn(tmp_path / "parts", steps=2, **more, **ON)
    again, _ = learn(tmp_path / "parts", **more, **ON)
    assert equal(again, params) and metrics(tmp_path / "parts") == lines
    sequences = [(prompt.ids, DEMONSTRATED) for prompt in PROMPTS[::2]]
    before, after = (plain_log_probs(p, sequences) for p in (tiny_run.policy(), params))
    assert all(float(y.sum()) > float(x.sum()) + 0.5 for x, y in zip(before, after))
    learn(tmp_path / "off", **more)
    assert "demonstrated_groups" not in metrics(tmp_path / "off")[0]


def test_dynamic_sampling_keeps_such_a_group(tmp_path):
    more = {"prompts": PROMPTS[::2], "rollouts": rollouts(), "pivots_per_step": 3, "dynamic_rounds": 2}
    learn(tmp_path, steps=1, **more, **ON)
    (line,) = metrics(tmp_path)
    assert line["sampled_groups"] == line["trained_groups"] == 3 and line["rollouts_per_mixed_group"] == 4


# ---- candidates that all fail


def test_all_fail_candidates_can_be_kept():
    rows = {"a": [0, 1], "b": [0, 0], "c": [1, 1]}
    candidates = [tiny_run.candidate(id) for id in rows]
    found = [make_profile(c, rows[c.trajectory_id], "pi", "toy/1", 1.0, 0) for c in candidates]
    plain, both = select(found, 0.6), select(found, 0.6, keep_all_fail=True)
    assert [p.candidate.id for p in plain.pivots(candidates)] == ["a@0"]
    assert [p.candidate.id for p in both.pivots(candidates)] == ["a@0", "b@0"]
    assert both.counts() == plain.counts(), "outcomes stay what they are"
    assert any("2 are trained on" in line for line in both.table())
    assert not any("trained on" in line for line in plain.table())
    select(found[1:], 0.6, keep_all_fail=True).require_pivots()
    with pytest.raises(InputError, match="no pivot among 2 candidates"):
        select(found[1:], 0.6).require_pivots()


@pytest.mark.parametrize("router", [{"router": "replay"}, {"routing_agreement": True}])
def test_with_replayed_experts_they_are_refused(router):
    config = CONFIGS.get_config()
    config.grpo.update(ON)
    check_config.check_training(config)
    config.grpo.update(router)
    with pytest.raises(InputError, match="the experts that a sampler chose, which no demonstration has"):
        check_config.check_training(config)
