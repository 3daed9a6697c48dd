"""What usually goes wrong in training: when a warning shows, and what it says."""

import re

import pytest

from pivotrl_jax.training import symptoms

HEALTHY = {
    "reward_mean": 0.5,
    "mixed_groups": 0.5,
    "entropy": 0.4,
    "unfinished": 0.02,
    "log_prob_drift": 0.001,
    "too_long": 0.0,
}


def lines(*steps):
    return [{"step": i, **HEALTHY, **changes} for i, changes in enumerate(steps)]


@pytest.mark.parametrize(
    "metric, sick, well, sentence",
    [
        ("reward_mean", 0.0, 0.01, "no rollout was rewarded: check the verifier with find_pivots"),
        ("mixed_groups", 0.19, 0.21, "only 19% of the groups have mixed rewards.*config.reprofile"),
        ("entropy", 0.03, 0.05, "the entropy per token fell from 0.4 to 0.03 nats,.*kl_coefficient"),
        ("unfinished", 0.125, 0.1, "12% of the rollouts were cut at the token limit.*max_tokens"),
        ("too_long", 0.125, 0.1, "12% of the episodes ended without a reward.*config.data.max_prompt_tokens"),
        ("log_prob_drift", 0.03, 0.02, "sampler and learner differ by 0.03 nats.*config.grpo.router"),
    ],
)
def test_a_symptom_shows_past_its_bound_and_says_what_to_do(metric, sick, well, sentence):
    first = lines(*[{}] * 5)
    assert not symptoms.found(first, first)
    assert not symptoms.found(first, lines(*[{metric: well}] * 5))
    (text,) = symptoms.found(first, lines(*[{metric: sick}] * 5)).values()
    assert re.match(sentence, text), text


def test_one_odd_step_says_nothing_and_a_missing_number_neither():
    odd = lines({}, {}, {}, {}, {"unfinished": 0.4})
    assert not symptoms.found(odd[:5], odd)
    assert symptoms.story(lines(*[{"reward_mean": None}] * 9)) == []
    # of imitation, where there are no groups, a low entropy is the aim
    supervised = [{"step": i, "loss": 1.0, "entropy": 1.0 if i < 5 else 0.01} for i in range(12)]
    assert symptoms.story(supervised) == []


def test_each_is_said_once_and_told_as_a_whole_at_the_end():
    run = lines(*[{}] * 5, *[{"mixed_groups": 0.0}] * 6, *[{}] * 5, *[{"mixed_groups": 0.1}] * 5)
    watch = symptoms.Watch([])
    said = {line["step"]: text for line in run for text in watch.see(line)}
    assert list(said) == [8], "(0.5 + 4 * 0) / 5 is the first mean below 0.2"
    (told,) = symptoms.story(run)
    assert told.startswith("6 times from step 9 to 21, at last: only 10% of the groups")


def test_a_resumed_run_sees_what_the_whole_run_saw():
    run = lines(*[{}] * 5, *[{"entropy": 0.01}] * 6)
    whole, resumed = symptoms.Watch([]), symptoms.Watch(run[:7])
    for line in run[:7]:
        whole.see(line)
    assert [whole.see(line) for line in run[7:]] == [resumed.see(line) for line in run[7:]] != [[]] * 4
