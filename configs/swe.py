"""Software engineering, as in SWE-bench: `python -m pivotrl_jax.train --config=configs/swe.py`

| size | command | what runs |
|---|---|---|
| qwen3_30b_a3b | `--config=configs/swe.py` | SWE-agent and its kind, 30B |
| qwen3_0p6b | `--config=configs/swe.py:qwen3_0p6b` | your trajectories, Qwen3-0.6B, one GPU |
| smollm2 | `--config=configs/swe.py:smollm2` | three made-up repairs, SmolLM2-135M; CPU |
| tiny | `--config=configs/swe.py:tiny` | three made-up repairs; CPU |

Paper (arXiv 2603.21383), SWE-bench Verified: base 19.07, SFT 37.40, PivotRL 32.67.

`qwen3_30b_a3b` takes Qwen3-30B-A3B-Thinking-2507 on one node or more, `tiny` the embedded checkpoint.
"""

import os
from pathlib import Path

from ml_collections import ConfigDict

from pivotrl_jax.run import sizes

SAMPLES = Path(__file__).with_name("samples")


def _swe(c: ConfigDict, workdir: str, source: str) -> ConfigDict:
    """What the sizes share. `source`: a file or folder of trajectories; yours: --config.data.source=..."""
    c.name, c.workdir, c.data.source = "swe", workdir, source
    c.data.verifier = "swe"
    c.data.verifier_options = ConfigDict({"level": "name"})
    return c


def qwen3_30b_a3b() -> ConfigDict:
    """NeMo-RL's SWE1 recipe: 64 prompts x 8 generations, leave-one-out baseline, 131k tokens, overlong
    samples masked, router frozen, TIS capped at 5, malformed calls at advantage -5. The reward is the
    paper's: it compares the tool's name."""
    c = _swe(sizes.qwen3_30b_a3b(), "runs/swe", "data/swe")
    c.data.max_prompt_tokens = 126_000
    c.compute.row_lengths = (32_768, 131_072)
    c.profile.group_size = c.grpo.group_size = 8
    c.grpo.baseline = "leave_one_out"
    c.grpo.advantage_clip = 100.0
    c.grpo.mask_unfinished = True
    c.grpo.malformed_advantage = -5.0
    c.grpo.importance = "tis"
    c.grpo.router = "frozen"
    return c


def qwen3_0p6b() -> ConfigDict:
    """Qwen3-0.6B with adapters on one small accelerator; prompts of up to 7,500 tokens."""
    return _swe(sizes.qwen3_0p6b(), "runs/swe_qwen3_0p6b", "data/swe")


def smollm2() -> ConfigDict:
    """SmolLM2-135M-Instruct with adapters on a CPU, on the samples."""
    c = _swe(sizes.smollm2_long(), "runs/swe_smollm2", os.path.relpath(SAMPLES / "swe"))
    c.data.held_out_share = 0.0
    return c


def tiny() -> ConfigDict:
    c = _swe(sizes.embedded_sample(), "runs/swe_tiny", os.path.relpath(SAMPLES / "swe"))
    c.data.max_prompt_tokens = 4000
    c.compute.row_lengths = (4096,)
    c.compute.attention_chunk = 256
    return c


SIZES = {f.__name__: f for f in (qwen3_30b_a3b, qwen3_0p6b, smollm2, tiny)}


def get_config(size: str = "qwen3_30b_a3b") -> ConfigDict:
    return sizes.choose("swe", SIZES, size)
