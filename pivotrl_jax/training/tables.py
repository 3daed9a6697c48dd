"""The tables whose names a config's fields may have. Programs use them to check and explain those fields."""

from pivotrl_jax.training.advantages import AGGREGATIONS, BASELINES
from pivotrl_jax.training.losses import LOSSES
from pivotrl_jax.training.objectives import KL_ESTIMATORS
from pivotrl_jax.trajectories.reading import AUTO, READERS
from pivotrl_jax.verifiers import VERIFIERS

TABLES = {
    "data.format": {AUTO: None, **READERS},
    "data.verifier": VERIFIERS,
    "reward": {"functional": None, **VERIFIERS},
    "grpo.loss": LOSSES,
    "grpo.baseline": BASELINES,
    "grpo.aggregation": AGGREGATIONS,
    "grpo.kl_estimator": KL_ESTIMATORS,
}
