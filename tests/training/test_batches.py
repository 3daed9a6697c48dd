"""Tokens' weights, and the batch that carries them: the same however it is packed, split or padded."""

import dataclasses
import warnings
from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest
from support import update
from support.forests import padded, random_groups
from support.learning import config_of
from support.objectives import policy_gradient

from pivotrl_jax.models import forest, sharding
from pivotrl_jax.records import Rollout
from pivotrl_jax.rollouts.episodes import EpisodeResult
from pivotrl_jax.training import advantages as advantages_lib
from pivotrl_jax.training import batches
from pivotrl_jax.training import learner as learner_lib

LOW, HIGH, BETA = 0.2, 0.3, 0.05
AGGREGATIONS = ("token_mean", "sequence_mean", "fixed_length")


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def test_token_weights_by_hand():
    length = [[4, 1], [0, 5]]  # the third sample is left out
    tenth, none = 1 / 10, 0.0
    np.testing.assert_allclose(
        advantages_lib.token_weights(length, "token_mean", 8), [[tenth] * 2, [none, tenth]]
    )
    np.testing.assert_allclose(
        advantages_lib.token_weights(length, "sequence_mean", 8), [[1 / 12, 1 / 3], [none, 1 / 15]]
    )
    np.testing.assert_allclose(
        advantages_lib.token_weights(length, "fixed_length", 8), [[1 / 32] * 2, [none, 1 / 32]]
    )
    for aggregation in AGGREGATIONS:
        assert not advantages_lib.token_weights([0, 0], aggregation, 8).any()
    with pytest.raises(KeyError):
        advantages_lib.token_weights(length, "median", 8)


def test_sums_to_go_stay_within_a_sequence():
    sequence = np.array([[1, 1, 2, 0, 3], [0, 1, 1, 1, 0]])
    value = np.array([[1.0, 2, 4, 100, 8], [100, 1, 2, 4, 100]])
    np.testing.assert_array_equal(
        advantages_lib.sums_to_go(value, sequence), [[3, 2, 4, 0, 8], [0, 7, 6, 4, 0]]
    )


def made_up_groups(rng, groups=3, size=4):
    """(prompts, groups of rollouts): one sample without a reward, one cut, one malformed."""
    from support import tiny_run

    prompts = tiny_run.conversations(groups)

    def rollout(c, g):
        ids = rng.integers(1, 50, rng.integers(1, 6)).tolist()
        log_probs = (-rng.uniform(0.1, 2, len(ids))).tolist()
        reward = None if (c, g) == (0, 1) else float(rng.integers(0, 2))
        reason = "malformed" if (c, g) == (2, 0) else "ok"
        return Rollout("c", g, ids, log_probs, log_probs, (c, g) != (1, 2), "", reward, reason)

    made = [[rollout(c, g) for g in range(size)] for c in range(len(prompts))]
    return prompts, made


@pytest.mark.parametrize("mask_unfinished", [False, True])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_a_batch_weighs_samples_the_same_in_rows_of_any_length(aggregation, mask_unfinished):
    grpo = config_of(mask_unfinished=mask_unfinished).grpo
    prompts, groups = made_up_groups(np.random.default_rng(0))
    kept = advantages_lib.trained_of(groups, grpo)
    lengths = np.array([[len(r.token_ids) for r in group] for group in groups]) * kept
    weights = advantages_lib.token_weights(lengths, aggregation, 5)
    assert (kept.size - kept.sum()) == (2 if mask_unfinished else 1)
    advantages = advantages_lib.advantages_of(groups, grpo)
    seen = []
    for slots in ((24,), (96,), (24, 200)):
        batch = batches.grpo_batch(prompts, groups, advantages, weights, slots, 2)
        out = batch["sequence"] == 0
        for name in ("weight", "behaviour_log_prob", "advantage"):
            assert not batch[name][out].any(), "what is left out holds zeros"
        found = []
        for row, numbers in enumerate(batch["sequence"]):
            assert sorted(set(numbers) - {0}) == list(range(1, numbers.max() + 1))
            for number in range(1, numbers.max() + 1):
                at = row, numbers == number
                names = ("behaviour_log_prob", "advantage", "weight", "tokens")
                found.append(tuple(tuple(batch[name][at].tolist()) for name in names))
        seen.append(sorted(found))
    assert seen[0] == seen[1] == seen[2] and len(seen[0]) == kept.sum()
    want = {"token_mean": 1, "sequence_mean": 1, "fixed_length": lengths.sum() / (lengths.size * 5)}
    np.testing.assert_allclose(batch["weight"].sum(), want[aggregation], rtol=1e-6)


def test_what_is_cut_stays_in_the_baseline_and_what_is_malformed_has_its_own_number():
    _, groups = made_up_groups(np.random.default_rng(0))
    plain = advantages_lib.advantages_of(groups, config_of().grpo)
    masked = advantages_lib.advantages_of(groups, config_of(mask_unfinished=True).grpo)
    np.testing.assert_array_equal(plain, masked)
    penal = config_of(advantage_clip=0.5, malformed_advantage=-5.0).grpo
    got = advantages_lib.advantages_of(groups, penal)
    want = plain.clip(-0.5, 0.5)
    want[2, 0] = -5
    np.testing.assert_array_equal(got, want)
    assert np.abs(plain).max() > 0.5 and plain[0, 1] == 0


@pytest.fixture(scope="module")
def groups():
    return random_groups(np.random.default_rng(0), groups=8, pieces=1, branches=2, prompt=5, branch=4)


def numbered(packed, groups):
    batch = update.fields(packed, groups)
    batch["sequence"] = np.zeros(packed.tokens.shape, np.int32)
    for placed in packed.placed:
        for b in range(len(placed.branch_slots)):
            number = batch["sequence"][placed.row].max() + 1
            packed.write(batch["sequence"], placed, b, [number] * 4)
    return batch


def test_a_gspo_step_does_not_depend_on_microbatches_packing_or_padding(moe, moe_params, groups):
    loss = policy_gradient(LOW, HIGH, BETA, loss="gspo")
    mesh, T = sharding.make_mesh({}), update.SLOTS
    with jax.enable_x64(False):
        steps = []
        for rows, packed in (
            (1, forest.pack(groups, T, 0)),
            (2, forest.pack(groups, 64, 0, 2)),
            (16, padded(groups, update.SEQUENCES, update.LENGTH)),
        ):
            learner = learner_lib.Learner(
                moe, dataclasses.replace(update.COMPUTE, rows=rows, mesh=mesh), optax.sgd(1.0), loss, 0.7
            )
            steps.append(learner.step(learner.init_state(moe_params), numbered(packed, groups)))
        assert steps[0][1]["grad_norm"] > 0.01
        for other in steps[1:]:
            update.assert_same(steps[0], other)


def test_episodes_that_end_at_a_long_prompt_are_counted():
    long = EpisodeResult("t#0", None, reason="too_long")
    turn = [1], SimpleNamespace(token_ids=[2, 3], finished=True)
    played = EpisodeResult("t#1", None, 1.0, "ok", [turn])
    seen = batches.episode_metrics([[long, played], [long, long]])
    assert (seen["too_long"], seen["turns_per_episode"], seen["completion_tokens"]) == (0.75, 0.25, 2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        none = batches.episode_metrics([[long, long]])
    assert none["too_long"] == 1 and np.isnan(none["completion_tokens"]) and np.isnan(none["unfinished"])
