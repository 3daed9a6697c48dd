"""Search and browsing, as in BrowseComp: `python -m pivotrl_jax.train --config=configs/browsecomp.py`

| size | command | what runs |
|---|---|---|
| qwen3_30b_a3b | `--config=configs/browsecomp.py` | search episodes in messages form, 30B |
| tiny | `--config=configs/browsecomp.py:tiny` | made-up episodes; CPU |

Paper (arXiv 2603.21383), BrowseComp: base 2.50, SFT 1.50, PivotRL 11.30. A judge decides the final answers
that normalisation does not: give --config.judge.base_url and --config.judge.model, or they count as rejected.

`tiny` takes the embedded checkpoint, the other size Qwen3-30B-A3B-Thinking-2507 on one node or more.
"""

import os
from pathlib import Path

from ml_collections import ConfigDict

from pivotrl_jax.run import sizes

SAMPLES = Path(__file__).with_name("samples")


def qwen3_30b_a3b() -> ConfigDict:
    """The published recipe: 64 prompts x 16 generations, lr 1e-6 constant, no KL, 128k tokens, T = 1."""
    c = sizes.qwen3_30b_a3b()
    c.name = "browsecomp"
    c.workdir = "runs/browsecomp"
    c.data.source = "data/browsecomp"  # a folder of trajectories: --config.data.source=...
    c.data.verifier = "search"
    c.data.max_prompt_tokens = 120_000
    c.sampling.max_tokens = 8192
    c.compute.row_lengths = (32_768, 131_072)
    return c


def tiny() -> ConfigDict:
    c = sizes.embedded_sample()
    c.name = "browsecomp"
    c.workdir = "runs/browsecomp_tiny"
    c.data.source = os.path.relpath(SAMPLES / "search.jsonl")
    c.data.verifier = "search"
    return c


SIZES = {f.__name__: f for f in (qwen3_30b_a3b, tiny)}


def get_config(size: str = "qwen3_30b_a3b") -> ConfigDict:
    return sizes.choose("browsecomp", SIZES, size)
