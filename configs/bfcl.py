"""Function calling in several turns, as in BFCL: `python -m pivotrl_jax.train --config=configs/bfcl.py`

| size | command | what runs |
|---|---|---|
| tiny | `--config=configs/bfcl.py` | the embedded world and checkpoint; CPU, minutes, offline |
| real | `--config=configs/bfcl.py:real` | BFCL's own multi-turn rows with the embedded checkpoint |
| qwen3_0p6b | `--config=configs/bfcl.py:qwen3_0p6b` | BFCL rows, Qwen3-0.6B, one small accelerator |
| qwen3_30b_a3b | `--config=configs/bfcl.py:qwen3_30b_a3b` | BFCL rows, Qwen3-30B-A3B, one node |

experiments/main_job/README.md has the results of `tiny` to expect, for three seeds.
"""

from ml_collections import ConfigDict

from pivotrl_jax.run import sizes


def tiny() -> ConfigDict:
    return sizes.embedded()


def real() -> ConfigDict:
    """Enough to see the whole pipeline run on two CPU cores. This policy cannot learn these rows."""
    c = sizes.long_rows()
    c.workdir = "runs/bfcl_real"
    c.data.source = "bfcl"
    c.grpo.steps, c.grpo.pivots_per_step = 3, 4
    c.evaluate.skill_items = 10
    return c


def qwen3_0p6b() -> ConfigDict:
    c = sizes.qwen3_0p6b()
    c.workdir = "runs/bfcl_qwen3_0p6b"
    c.data.source = "bfcl"
    return c


def qwen3_30b_a3b() -> ConfigDict:
    c = sizes.qwen3_30b_a3b()
    c.workdir = "runs/bfcl_qwen3_30b_a3b"
    c.data.source = "bfcl"
    return c


SIZES = {f.__name__: f for f in (tiny, real, qwen3_0p6b, qwen3_30b_a3b)}


def get_config(size: str = "tiny") -> ConfigDict:
    return sizes.choose("bfcl", SIZES, size)
