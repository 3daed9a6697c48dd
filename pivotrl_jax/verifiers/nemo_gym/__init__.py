"""The rewards of the verifiers that NVIDIA released, reproduced with their holes.

Start with tool_call.py. The strict verifiers do not depend on this folder.
"""

from pivotrl_jax.verifiers.nemo_gym import swe, terminal, tool_call

__all__ = ["swe", "terminal", "tool_call"]
