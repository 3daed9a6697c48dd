"""Function calling in several turns, as in BFCL: `python -m pivotrl_jax.train --config=configs/bfcl.py`

| size | command | what runs |
|---|---|---|
| tiny | `--config=configs/bfcl.py` | the embedded world and checkpoint; CPU, minutes, offline |
| real | `--config=configs/bfcl.py:real` | BFCL's own multi-turn rows with the embedded checkpoint |
| smollm2_pi0 | `--config=configs/bfcl.py:smollm2_pi0` | SFT of SmolLM2-135M on a quarter of BFCL's rows |
| smollm2 | `--config=configs/bfcl.py:smollm2` | PivotRL from there, on another quarter; half is held out |
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


SINGLE_TURN = (
    *("simple_python", "multiple", "parallel", "parallel_multiple"),
    *("live_simple", "live_multiple", "live_parallel", "live_parallel_multiple"),
    *("irrelevance", "live_irrelevance"),
)


def _smollm2() -> ConfigDict:
    """SmolLM2-135M-Instruct on BFCL's single-turn rows, for two CPU cores. A quarter of the scenarios makes
    pi_0, a quarter trains it further, and half tests it: a third would hold too few of the live rows."""
    c = sizes.smollm2()
    c.data.source, c.data.categories = "bfcl", SINGLE_TURN
    c.data.folds = 4
    return c


def smollm2_pi0() -> ConfigDict:
    """Supervised on the first quarter: from a model that never calls to the pi_0 of `smollm2`, whose adapter
    the package ships as the checkpoint "smollm2_pi0"."""
    c = _smollm2()
    c.method = "sft"
    c.workdir = "runs/bfcl_smollm2_pi0"
    # BFCL's rows, refusals in the model's own words, and a hundred general prompts
    c.data.source = "pivotrl_jax.environments.bfcl.pi_0:environment"
    c.data.train_folds = (0,)
    c.model.lora.rank, c.model.lora.alpha = 12, 32.0
    c.sft.epochs, c.sft.trajectories_per_step, c.sft.learning_rate, c.sft.decay = 2, 4, 1.5e-3, "linear"
    return c


def smollm2() -> ConfigDict:
    c = _smollm2()
    c.workdir = "runs/bfcl_smollm2"
    c.model.checkpoint = "smollm2_pi0"
    c.model.lora.rank, c.model.lora.alpha = 16, 32.0
    c.profile.seed = 0
    c.grpo.steps, c.grpo.warmup_steps = 12, 2
    c.sft.epochs, c.sft.trajectories_per_step = 4, 8
    c.sft.save_every, c.sft.keep_checkpoints = 55, 4  # a checkpoint per epoch
    c.data.train_folds, c.data.held_out_folds = (1,), (2, 3)
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


SIZES = {f.__name__: f for f in (tiny, real, smollm2_pi0, smollm2, qwen3_0p6b, qwen3_30b_a3b)}


def get_config(size: str = "tiny") -> ConfigDict:
    return sizes.choose("bfcl", SIZES, size)
