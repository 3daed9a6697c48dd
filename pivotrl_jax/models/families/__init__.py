"""The model families, by the `model_type` of config.json. Other model types are rejected by name.

To add one, read base.py (what a family is), llama.py (an example) and ../layers.py (what a layer is made of).
Write a file like llama.py and enter its families below.
"""

from pivotrl_jax.models.config import ModelConfig
from pivotrl_jax.models.families import llama, qwen2, qwen3
from pivotrl_jax.models.families.base import Family

FAMILIES: dict[str, Family] = {
    family.model_type: family for family in (llama.LLAMA, qwen2.QWEN2, qwen3.DENSE, qwen3.MIXTURE)
}


def family_of(config: ModelConfig) -> Family:
    """The family of a model."""
    return FAMILIES[config.model_type]
