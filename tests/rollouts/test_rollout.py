"""From requests to the fields of the loss: order, keys, and token ids that nobody touches."""

import dataclasses

import jax
import numpy as np
import pytest
from support import tiny_run
from support.forests import path_tokens

from pivotrl_jax import verifiers
from pivotrl_jax.models import forest
from pivotrl_jax.records import InputError
from pivotrl_jax.rollouts import actor as actor_lib
from pivotrl_jax.rollouts.actor import Request
from pivotrl_jax.training import advantages as advantages_lib
from pivotrl_jax.training import batches

STREAM = jax.random.key(5)
GROUP = 4


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setitem(verifiers.VERIFIERS, "toy", tiny_run.verifier(tiny_run.odd_first))
    odd_length = tiny_run.verifier(lambda ids: len(ids) % 2 == 1, "length")
    monkeypatch.setitem(verifiers.VERIFIERS, "length", odd_length)


@pytest.fixture(scope="module")
def drawn():
    """Rollouts of two turns of three trajectories: (prompts, groups)."""
    prompts = tiny_run.conversations(3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(verifiers.VERIFIERS, "toy", tiny_run.verifier(tiny_run.odd_first))
        groups = sample(prompts)
    return prompts, groups


def sample(prompts, **fields):
    return tiny_run.rollouts(**fields).sample(tiny_run.policy(), prompts, GROUP, STREAM)


def ids(groups):
    return [[r.token_ids for r in group] for group in groups]


# ---- requests


def test_the_number_of_a_name_is_the_same_everywhere():
    assert actor_lib.number_of("123456789") == 0xCBF43926 & 0x7FFFFFFF  # the check value of CRC-32
    assert actor_lib.number_of("") == 0
    assert 0 <= actor_lib.number_of("\ud800 lone") < 2**31


def test_completions_come_in_the_order_of_the_requests(drawn):
    """Trees are packed longest first; what comes back is in the callers' order all the same."""
    prompts, _ = drawn
    requests = [Request(f"r{i}", prompts[i].ids, f"tree{i % 2}", 1 + i % 3) for i in (3, 0, 5, 1, 4, 2)]
    heard = []
    found = tiny_run.actor().act(tiny_run.policy(), requests, STREAM, heard.append)
    assert [len(completions) for completions in found] == [r.samples for r in requests]
    assert sum(heard) == sum(r.samples for r in requests) == 12
    for request, completions in zip(requests, found):
        assert tiny_run.actor().act(tiny_run.policy(), [request], STREAM)[0] == [
            dataclasses.replace(
                c,
                log_probs=pytest.approx(c.log_probs, abs=1e-4),
                model_log_probs=pytest.approx(c.model_log_probs, abs=1e-4),
            )
            for c in completions
        ]


def test_a_prompt_too_long_for_any_row_is_a_sentence():
    long = Request("long", [1] * (tiny_run.SLOTS + 1), "t", 1)
    with pytest.raises(InputError, match=r"49 tokens exceed the largest shape 48; raise the limit"):
        tiny_run.actor().act(tiny_run.policy(), [long], STREAM)


def test_more_samples_than_a_row_has_branches_go_to_several_rows():
    """Which row a sample is drawn in does not show: its key is its index in the request."""
    few, many = (Request("many", [7, 5, 3], "t", n) for n in (tiny_run.BRANCHES, 2 * tiny_run.BRANCHES + 3))
    found = tiny_run.actor().act(tiny_run.policy(), [many], STREAM)[0]
    one_row = tiny_run.actor().act(tiny_run.policy(), [few], STREAM)[0]
    assert len(found) == many.samples and len({tuple(c.token_ids) for c in found}) > 15
    assert [c.token_ids for c in found[: few.samples]] == [c.token_ids for c in one_row]


# ---- rollouts


def test_rollouts_carry_what_was_drawn_and_judged(drawn):
    prompts, groups = drawn
    assert len(groups) == len(prompts)
    for candidate, group in zip([prompt.candidate for prompt in prompts], groups):
        assert [r.sample for r in group] == list(range(GROUP))
        for r in group:
            assert r.candidate_id == candidate.id
            assert r.text == " ".join(map(str, r.token_ids))
            assert r.reward == (r.token_ids[0] % 2 if r.finished else 0), "a cut completion earns nothing"
            assert r.reason == ("toy" if r.finished else "unfinished")
            assert len(r.log_probs) == len(r.token_ids) and max(r.log_probs) <= 0
            assert r.finished == (r.token_ids[-1] in tiny_run.STOPS)
    assert len({tuple(t) for group in ids(groups) for t in group}) > 12


def test_a_repeated_candidate_has_keys_of_its_own(drawn):
    prompts, groups = drawn
    again = sample([prompts[0], prompts[0], prompts[1]])
    assert ids(again)[0] == ids(groups)[0] != ids(again)[1]
    assert ids(again)[2] == ids(groups)[1]


def test_a_verifier_may_be_put_in_place_of_the_candidates_own(drawn):
    prompts, groups = drawn
    other = sample(prompts, verifier="length")
    assert ids(other) == ids(groups)
    assert all(r.reward == len(r.token_ids) % 2 for group in other for r in group if r.finished)
    assert {r.reward for group in other for r in group} == {0.0, 1.0}


# ---- the batch of the loss


def equal_weights(groups):
    """Every token weighs the same."""
    lengths = np.array([[len(r.token_ids) for r in group] for group in groups])
    return advantages_lib.token_weights(lengths, "token_mean", 0)


def fields_of(drawn, slots):
    """(the batch, the advantages): in rows of 24 slots a group does not fit one row, and is cut."""
    prompts, groups = drawn
    rewards = np.array([[r.reward for r in group] for group in groups])
    advantages = advantages_lib.group_advantages(rewards, 1e-6)
    return batches.grpo_batch(
        prompts, groups, advantages, equal_weights(groups), slots, tiny_run.ROWS
    ), advantages


@pytest.fixture(scope="module", params=[tiny_run.TRAIN_SLOTS, (24,)], ids=["whole", "cut"])
def batch(drawn, request):
    return fields_of(drawn, request.param)


def test_token_ids_go_from_the_sampler_to_the_loss_untouched(drawn, batch):
    """Every completion is found in the batch behind its prompt, with its advantage and its log-probs."""
    prompts, groups = drawn
    fields, advantages = batch
    packed = forest.Forest(*(fields[n] for n in forest.ARRAYS), ())
    trained = fields["weight"] > 0
    left = []
    for p, group in enumerate(groups):
        for g, r in enumerate(group):
            log_probs = np.float32(r.log_probs)
            left.append(
                ((*prompts[p].ids.tolist(), *r.token_ids), len(r.token_ids), advantages[p, g], log_probs)
            )
    # a completion begins at a trained slot whose parent is a prompt's token
    for row, slot in zip(*np.nonzero(trained)):
        if trained[row, packed.parent[row, slot]]:
            continue
        stop = packed.subtree_end[row, slot]
        assert trained[row, slot:stop].all(), "a completion is one unbroken run of trained slots"
        path = tuple(path_tokens(packed, row, stop - 1))
        match = next(
            i
            for i, (ids, n, advantage, log_probs) in enumerate(left)
            if ids == path
            and n == stop - slot
            and (fields["advantage"][row, slot:stop] == np.float32(advantage)).all()
            and (fields["behaviour_log_prob"][row, slot:stop] == log_probs).all()
        )
        left.pop(match)
    assert not left


def test_every_trained_token_weighs_the_same_and_others_nothing(drawn, batch):
    _, groups = drawn
    fields, _ = batch
    tokens = sum(len(r.token_ids) for group in groups for r in group)
    trained = fields["weight"] > 0
    assert trained.sum() == tokens and abs(fields["weight"].sum() - 1) < 1e-6
    assert len(set(fields["weight"][trained])) == 1
    for name in ("advantage", "behaviour_log_prob"):
        assert not fields[name][~trained].any()


def test_on_policy_the_ratio_is_one(drawn):
    """The learner's log-probs of the sampled tokens are the sampler's own: nothing to clip, no drift."""
    fields, _ = fields_of(drawn, tiny_run.TRAIN_SLOTS)
    learner, trained = tiny_run.learner(), fields["weight"] > 0
    found = learner.score(tiny_run.policy(), fields)
    assert np.abs(np.exp(found - fields["behaviour_log_prob"])[trained] - 1).max() < 1e-4
    _, values = learner.step(learner.init_state(tiny_run.policy()), fields)
    assert values["log_prob_drift"] < 1e-4 and values["clip_fraction"] == 0
    assert values["tokens"] == trained.sum()


def test_groups_of_equal_rewards_count_in_the_denominator_alone(drawn):
    prompts, groups = drawn
    same = [[dataclasses.replace(r, reward=1.0) for r in group] for group in groups]
    advantages = advantages_lib.group_advantages(np.ones((len(groups), GROUP)), 1e-6)
    weights = equal_weights(same)
    fields = batches.grpo_batch(prompts, same, advantages, weights, tiny_run.TRAIN_SLOTS, tiny_run.ROWS)
    assert not fields["advantage"].any() and abs(fields["weight"].sum() - 1) < 1e-6
    learner = tiny_run.learner()
    _, values = learner.step(learner.init_state(tiny_run.policy()), fields)
    assert values["grad_norm"] == 0


def test_an_id_that_belongs_to_no_token_earns_nothing(monkeypatch):
    """The verifier would accept: it sees the text alone."""
    prompts = tiny_run.conversations(3)
    plain = [r for group in sample(prompts) for r in group]
    odd = next(i for r in plain if r.reward == 1 and r.finished for i in r.token_ids)
    monkeypatch.setattr(tiny_run.Numbers, "unknown_ids", lambda self, ids: [i for i in ids if i == odd])
    hit = 0
    for before, after in zip(plain, [r for group in sample(prompts) for r in group]):
        assert before.token_ids == after.token_ids
        if before.finished and odd in after.token_ids:
            assert (after.reward, after.reason) == (0.0, "malformed") and str(odd) in after.details
            hit += before.reward == 1
        else:
            assert (after.reward, after.reason) == (before.reward, before.reason)
    assert hit
