"""Search and browsing, as in BrowseComp: `python -m pivotrl_jax.train --config=configs/browsecomp.py`

| size | command | what runs |
|---|---|---|
| qwen3_30b_a3b | `--config=configs/browsecomp.py` | search episodes in messages form, 30B |
| qwen3_0p6b | `--config=configs/browsecomp.py:qwen3_0p6b` | your trajectories, Qwen3-0.6B, one GPU |
| smollm2 | `--config=configs/browsecomp.py:smollm2` | made-up episodes, SmolLM2-135M; CPU |
| tiny | `--config=configs/browsecomp.py:tiny` | made-up episodes; CPU |

Paper (arXiv 2603.21383), BrowseComp: base 2.50, SFT 1.50, PivotRL 11.30. A judge decides the final answers
that normalisation does not: give --config.judge.base_url and --config.judge.model, or they count as rejected.

`qwen3_30b_a3b` takes Qwen3-30B-A3B-Thinking-2507 on one node or more, `tiny` the embedded checkpoint.
"""

import os
from pathlib import Path

from ml_collections import ConfigDict

from pivotrl_jax.run import sizes

SAMPLES = Path(__file__).with_name("samples")


def _browsecomp(c: ConfigDict, workdir: str, source: str) -> ConfigDict:
    """What the sizes share. `source`: a file or folder of trajectories; yours: --config.data.source=..."""
    c.name, c.workdir, c.data.source = "browsecomp", workdir, source
    c.data.verifier = "search"
    return c


def qwen3_30b_a3b() -> ConfigDict:
    """The published recipe: 64 prompts x 16 generations, lr 1e-6 constant, no KL, 128k tokens, T = 1."""
    c = _browsecomp(sizes.qwen3_30b_a3b(), "runs/browsecomp", "data/browsecomp")
    c.data.max_prompt_tokens = 120_000
    c.sampling.max_tokens = 8192
    c.compute.row_lengths = (32_768, 131_072)
    return c


def qwen3_0p6b() -> ConfigDict:
    """Qwen3-0.6B with adapters on one small accelerator; prompts of up to 7,500 tokens."""
    return _browsecomp(sizes.qwen3_0p6b(), "runs/browsecomp_qwen3_0p6b", "data/browsecomp")


def smollm2() -> ConfigDict:
    """SmolLM2-135M-Instruct with adapters on a CPU, on the samples."""
    c = _browsecomp(
        sizes.smollm2_long(), "runs/browsecomp_smollm2", os.path.relpath(SAMPLES / "search.jsonl")
    )
    c.data.held_out_share = 0.0
    return c


def tiny() -> ConfigDict:
    c = _browsecomp(
        sizes.embedded_sample(), "runs/browsecomp_tiny", os.path.relpath(SAMPLES / "search.jsonl")
    )
    return c


SIZES = {f.__name__: f for f in (qwen3_30b_a3b, qwen3_0p6b, smollm2, tiny)}


def get_config(size: str = "qwen3_30b_a3b") -> ConfigDict:
    return sizes.choose("browsecomp", SIZES, size)
