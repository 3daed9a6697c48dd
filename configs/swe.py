"""Software engineering, as in SWE-bench: `python -m pivotrl_jax.train --config=configs/swe.py`

| size | command | what runs |
|---|---|---|
| qwen3_30b_a3b | `--config=configs/swe.py` | SWE-agent and its kind, 30B |
| tiny | `--config=configs/swe.py:tiny` | sample files; CPU |

Paper (arXiv 2603.21383), SWE-bench Verified: base 19.07, SFT 37.40, PivotRL 32.67. The sample lies beside
this repository (`../shared/data`); name another with data.source.

`tiny` has the embedded checkpoint, the other size Qwen3-30B-A3B-Thinking-2507 on one node or more.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

BFCL = runpy.run_path(str(Path(__file__).with_name("bfcl.py")))  # where every field is explained


def qwen3_30b_a3b() -> ConfigDict:
    """NeMo-RL's SWE1 recipe: 64 prompts x 8 generations, leave-one-out baseline, 131k tokens, overlong
    samples masked, router frozen, TIS capped at 5, malformed calls at advantage -5. The verdict is the
    paper's: the tool's name."""
    c = BFCL["qwen3_30b_a3b"]()
    c.name = "swe"
    c.workdir = "runs/swe"
    c.data.source = "data/swe"  # a folder of trajectories: --config.data.source=...
    c.data.verifier = "swe"
    c.data.verifier_options = ConfigDict({"level": "name"})
    c.data.max_prompt_tokens = 126_000
    c.sampling.max_tokens = 4096
    c.compute.row_lengths = (32_768, 131_072)
    c.grpo.group_size = 8
    c.profile.group_size = 8
    c.grpo.baseline = "leave_one_out"
    c.grpo.advantage_clip = 100.0
    c.grpo.mask_unfinished = True
    c.grpo.malformed_advantage = -5.0
    c.grpo.importance = "tis"
    c.grpo.router = "frozen"
    return c


def tiny() -> ConfigDict:
    """Enough to see the path run on two CPU cores: this policy cannot learn these turns."""
    c = BFCL["tiny"]()
    c.name = "swe"
    c.workdir = "runs/swe_tiny"
    c.data.source = "../shared/data/trajectories/mini_swe_agent,../shared/data/trajectories/openhands"
    c.data.verifier = "swe"
    c.data.held_out_share = 0.0
    c.data.verifier_options = ConfigDict({"level": "name"})
    c.data.max_prompt_tokens = 4000
    c.compute.row_lengths = (4096,)
    c.compute.attention_chunk = 256
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
        raise ValueError(f"configs/swe.py has no size {size!r}; choose one of {', '.join(SIZES)}")
    return SIZES[size]().lock()
