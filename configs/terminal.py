"""Terminal work, as in Terminal-Bench: `python -m pivotrl_jax.train --config=configs/terminal.py`

| size | command | what runs |
|---|---|---|
| qwen3_30b_a3b | `--config=configs/terminal.py` | Terminus or ATIF trajectories, 30B |
| qwen3_0p6b | `--config=configs/terminal.py:qwen3_0p6b` | your trajectories, Qwen3-0.6B, one GPU |
| smollm2 | `--config=configs/terminal.py:smollm2` | made-up episodes, SmolLM2-135M; CPU |
| tiny | `--config=configs/terminal.py:tiny` | made-up episodes; CPU |

Paper (arXiv 2603.21383), Terminal-Bench: base 5.42, SFT 13.75, PivotRL 20.00. A judge decides what keystroke
similarity does not: give --config.judge.base_url and --config.judge.model, or it counts as rejected.

`qwen3_30b_a3b` takes Qwen3-30B-A3B-Thinking-2507 on one node or more, `tiny` the embedded checkpoint.
"""

import os
from pathlib import Path

from ml_collections import ConfigDict

from pivotrl_jax.run import sizes

SAMPLES = Path(__file__).with_name("samples")


def qwen3_30b_a3b() -> ConfigDict:
    """The published recipe: 64 prompts x 16 generations, lr 1e-6 constant, no KL, 64k tokens, T = 1; a judge
    decides what keystroke similarity does not."""
    c = sizes.qwen3_30b_a3b()
    c.name = "terminal"
    c.workdir = "runs/terminal"
    c.data.source = "data/terminal"  # a folder of trajectories: --config.data.source=...
    c.data.verifier = "terminal"
    c.data.max_prompt_tokens = 60_000
    c.compute.row_lengths = (16_384, 65_536)
    return c


def qwen3_0p6b() -> ConfigDict:
    """Qwen3-0.6B with adapters on one small accelerator; prompts of up to 7,500 tokens."""
    c = sizes.qwen3_0p6b()
    c.name = "terminal"
    c.workdir = "runs/terminal_qwen3_0p6b"
    c.data.source = "data/terminal"
    c.data.verifier = "terminal"
    return c


def smollm2() -> ConfigDict:
    """SmolLM2-135M-Instruct with adapters on a CPU, on the samples."""
    c = sizes.smollm2_long()
    c.name = "terminal"
    c.workdir = "runs/terminal_smollm2"
    c.data.source = os.path.relpath(SAMPLES / "terminus.jsonl")
    c.data.held_out_share = 0.0
    c.data.verifier = "terminal"
    return c


def tiny() -> ConfigDict:
    c = sizes.embedded_sample()
    c.name = "terminal"
    c.workdir = "runs/terminal_tiny"
    c.data.source = os.path.relpath(SAMPLES / "terminus.jsonl")
    c.data.verifier = "terminal"
    return c


SIZES = {f.__name__: f for f in (qwen3_30b_a3b, qwen3_0p6b, smollm2, tiny)}


def get_config(size: str = "qwen3_30b_a3b") -> ConfigDict:
    return sizes.choose("terminal", SIZES, size)
