"""Made-up turns where only the demonstration passes, for the tests of demonstrations in all-fail groups."""

import dataclasses

import jax

from pivotrl_jax import verifiers
from pivotrl_jax.records import Verdict
from pivotrl_jax.rollouts.rollout import Rollouts
from support import tiny_run

PROMPTS = tiny_run.conversations(3)
DEMONSTRATED = [7, 9, tiny_run.STOPS[0]]


class Chat(tiny_run.Numbers):
    """Numbers; every demonstration has the same token ids."""

    def completion_ids(self, messages, tools, demonstration):
        return DEMONSTRATED


def only_demonstrations(patch, reward=1.0):
    """At first turns the demonstration alone passes; at second turns, half of what the policy draws does."""
    half = tiny_run.verifier(tiny_run.odd_first)

    def verify(candidate, action):
        if candidate.turn:
            return half.verify(candidate, action)
        demonstrated = action.text.split() == [str(i) for i in DEMONSTRATED]
        return Verdict(reward if demonstrated else 0.0, "toy")

    patch.setitem(verifiers.VERIFIERS, "toy", dataclasses.replace(half, verify=verify))


def rollouts() -> Rollouts:
    return Rollouts(tiny_run.actor(), Chat())


def sampled(count=4):
    """`count` rollouts of every prompt under the tiny policy."""
    actor = tiny_run.actor()
    return rollouts().sample(actor.place(tiny_run.policy()), PROMPTS, count, jax.random.key(3))
