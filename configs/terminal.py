"""Terminal work, as in Terminal-Bench: `python -m pivotrl_jax.train --config=configs/terminal.py`

| size | command | what runs |
|---|---|---|
| qwen3_30b_a3b | `--config=configs/terminal.py` | Terminus or ATIF trajectories, 30B |
| tiny | `--config=configs/terminal.py:tiny` | made-up episodes; CPU |

Paper (arXiv 2603.21383), Terminal-Bench: base 5.42, SFT 13.75, PivotRL 20.00. What similarity leaves open is
for a judge: give --config.judge.base_url and --config.judge.model, or it counts as rejected.

`tiny` has the embedded checkpoint, the other size Qwen3-30B-A3B-Thinking-2507 on one node or more.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

BFCL = runpy.run_path(str(Path(__file__).with_name("bfcl.py")))  # where every field is explained


def qwen3_30b_a3b() -> ConfigDict:
    """The published recipe: 64 prompts x 16 generations, lr 1e-6 constant, no KL, 64k tokens, T = 1; a judge
    decides what keystroke similarity does not."""
    c = BFCL["qwen3_30b_a3b"]()
    c.name = "terminal"
    c.workdir = "runs/terminal"
    c.data.source = "data/terminal"  # a folder of trajectories: --config.data.source=...
    c.data.verifier = "terminal"
    c.data.max_prompt_tokens = 60_000
    c.sampling.max_tokens = 4096
    c.compute.row_lengths = (16_384, 65_536)
    return c


def tiny() -> ConfigDict:
    """Enough to see the path run on two CPU cores: this policy cannot learn these turns."""
    c = BFCL["tiny"]()
    c.name = "terminal"
    c.workdir = "runs/terminal_tiny"
    c.data.source = "configs/samples/terminus.jsonl"
    c.data.verifier = "terminal"
    c.data.held_out_share = 0.0
    c.profile.group_size = 4
    c.profile.batch = ConfigDict({"rows": 1, "samples_per_row": 32, "decode_slots": 16})
    c.grpo.batch = ConfigDict({"rows": 1, "samples_per_row": 16, "decode_slots": 16})
    c.grpo.microbatch_rows = 1
    c.grpo.steps, c.grpo.pivots_per_step, c.grpo.group_size = 2, 2, 4
    c.evaluate.skill_items = 10
    return c


SIZES = {f.__name__: f for f in (qwen3_30b_a3b, tiny)}


def get_config(size: str = "qwen3_30b_a3b") -> ConfigDict:
    if size not in SIZES:
        raise ValueError(f"configs/terminal.py has no size {size!r}; choose one of {', '.join(SIZES)}")
    return SIZES[size]().lock()
