"""A GRPO batch of made-up completions for the learner's tests, and how two steps compare."""

import jax
import numpy as np

from pivotrl_jax.training import learner as learner_lib
from support.forests import per_token, spread
from support.objectives import policy_gradient

SLOTS, SEQUENCES, LENGTH = 16, 16, 9
COMPUTE = learner_lib.Compute(attention_chunk=16, log_prob_chunk=8, remat="nothing")
LOSS = policy_gradient(0.2, 0.2, 0.05)


def fields(forest, groups):
    """A GRPO batch: every token's numbers belong to its completion, so forest and padded batch share them."""
    rng = np.random.default_rng(2)
    behaviour = per_token(groups, rng, lambda n: -rng.uniform(0.5, 4, n))
    count = sum(len(x) for x in behaviour.values())
    values = {
        "weight": {key: np.full(len(x), 1 / count) for key, x in behaviour.items()},
        "behaviour_log_prob": behaviour,
        "reference_log_prob": {key: x - rng.normal(size=len(x)) * 0.3 for key, x in behaviour.items()},
        "advantage": {key: np.full(len(x), rng.normal()) for key, x in behaviour.items()},
    }
    return {**forest.arrays(), **{name: spread(forest, v) for name, v in values.items()}}


def assert_same(a, b, atol=1e-5):
    """Same metrics and parameters, up to float32 sums in another order."""
    (state_a, means_a), (state_b, means_b) = a, b
    assert means_a.keys() == means_b.keys()
    for name in means_a:
        np.testing.assert_allclose(means_a[name], means_b[name], rtol=1e-4, atol=1e-6, err_msg=name)
    for (path, x), y in zip(jax.tree.leaves_with_path(state_a.params), jax.tree.leaves(state_b.params)):
        np.testing.assert_allclose(x, y, atol=atol, err_msg=jax.tree_util.keystr(path))
