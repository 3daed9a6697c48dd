"""The KL per turn and the log-prob of given turns, against sums over the logits of each sequence alone."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from support import tiny_run
from support.forests import MOE

from pivotrl_jax import verifiers as verifiers_lib
from pivotrl_jax.evaluation import kl
from pivotrl_jax.models import decoder
from pivotrl_jax.rollouts.scoring import Scorer

PROMPTS = tiny_run.conversations(2)


@pytest.fixture(scope="module")
def scorer():
    compute = SimpleNamespace(row_lengths=(48,), attention_chunk=16, log_prob_chunk=16)
    return Scorer(MOE, compute, tiny_run.mesh())


def alone(params, prompt, turn) -> float:
    ids = np.concatenate([prompt.ids, np.asarray(turn, np.int32)])
    logits = np.asarray(decoder.logits(MOE, params, ids[None]), np.float64)[0]
    log_probs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    at = np.arange(len(prompt.ids), len(ids))
    return float(log_probs[at - 1, ids[at]].sum())


def test_log_probs_are_sums_over_a_turns_tokens(scorer):
    turns = [[5, 9], [3], [7, 7, 7, 8], [1, 2, 3]]
    found = kl.log_probs(scorer, tiny_run.policy(), PROMPTS, turns)
    want = [alone(tiny_run.policy(), prompt, turn) for prompt, turn in zip(PROMPTS, turns)]
    assert found == pytest.approx(want, abs=1e-4)


def test_log_ratios_are_those_of_what_the_policy_samples(scorer, monkeypatch):
    monkeypatch.setitem(verifiers_lib.VERIFIERS, "toy", tiny_run.verifier(tiny_run.odd_first))
    rollouts, params, key = tiny_run.rollouts(), tiny_run.policy(), jax.random.key(1)
    same = kl.log_ratios(rollouts, scorer, params, params, PROMPTS, key)
    assert same == pytest.approx([0.0] * len(PROMPTS), abs=1e-4)
    other = jax.tree.map(lambda x: x * 0.9, params)
    turns = [group[0].token_ids for group in rollouts.sample(rollouts.actor.place(params), PROMPTS, 1, key)]
    want = [alone(params, p, turn) - alone(other, p, turn) for p, turn in zip(PROMPTS, turns)]
    found = kl.log_ratios(rollouts, scorer, params, other, PROMPTS, key)
    assert found == pytest.approx(want, abs=1e-3) and max(map(abs, want)) > 0.01
