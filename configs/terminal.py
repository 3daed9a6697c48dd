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


def _terminal(c: ConfigDict, workdir: str, source: str) -> ConfigDict:
    """What the sizes share. `source`: a file or folder of trajectories; yours: --config.data.source=..."""
    c.name, c.workdir, c.data.source = "terminal", workdir, source
    c.data.verifier = "terminal"
    return c


def qwen3_30b_a3b() -> ConfigDict:
    """The published recipe: 64 prompts x 16 generations, lr 1e-6 constant, no KL, 64k tokens, T = 1; a judge
    decides what keystroke similarity does not."""
    c = _terminal(sizes.qwen3_30b_a3b(), "runs/terminal", "data/terminal")
    c.data.max_prompt_tokens = 60_000
    c.compute.row_lengths = (16_384, 65_536)
    return c


def qwen3_0p6b() -> ConfigDict:
    """Qwen3-0.6B with adapters on one small accelerator; prompts of up to 7,500 tokens."""
    return _terminal(sizes.qwen3_0p6b(), "runs/terminal_qwen3_0p6b", "data/terminal")


def smollm2() -> ConfigDict:
    """SmolLM2-135M-Instruct with adapters on a CPU, on the samples."""
    c = _terminal(sizes.smollm2_long(), "runs/terminal_smollm2", os.path.relpath(SAMPLES / "terminus.jsonl"))
    c.data.held_out_share = 0.0
    return c


def tiny() -> ConfigDict:
    return _terminal(
        sizes.embedded_sample(), "runs/terminal_tiny", os.path.relpath(SAMPLES / "terminus.jsonl")
    )


SIZES = {f.__name__: f for f in (qwen3_30b_a3b, qwen3_0p6b, smollm2, tiny)}


def get_config(size: str = "qwen3_30b_a3b") -> ConfigDict:
    return sizes.choose("terminal", SIZES, size)
