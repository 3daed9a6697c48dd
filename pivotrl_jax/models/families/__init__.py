"""The model families, by the `model_type` of config.json. Other model types are rejected by name.

To add one, read base.py (what a family is), qwen3.py (an example) and ../layers.py (what a layer is made of).
Write a file like qwen3.py and enter its families below. `holds` must recognise the family's models by their
ModelConfig; if its fields do not tell families apart, add a field.
"""

from pivotrl_jax.models.config import ModelConfig
from pivotrl_jax.models.families import qwen3
from pivotrl_jax.models.families.base import Family

FAMILIES: dict[str, Family] = {family.model_type: family for family in (qwen3.DENSE, qwen3.MIXTURE)}


def family_of(config: ModelConfig) -> Family:
    """The family of a model. Raises ValueError when it belongs to none."""
    for family in FAMILIES.values():
        if family.holds(config):
            return family
    raise ValueError(f"no model family matches {config}; the families are {sorted(FAMILIES)}")
