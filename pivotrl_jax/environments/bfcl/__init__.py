"""BFCL's rows and backends, out of the `bfcl_eval` package, and its ground truth as demonstrations.

Start with rows.py; demonstrations.py replays the ground truth into trajectories.
"""

from pivotrl_jax.environments.bfcl.rows import BACKENDS, find_row

__all__ = ["BACKENDS", "find_row"]
