"""pivotrl_jax: trajectories in, pivots out, and GRPO that pays only for the turns that teach."""

__version__ = "0.1.0"
