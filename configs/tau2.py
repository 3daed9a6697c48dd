"""Conversational tool use, as in tau2-bench: `python -m pivotrl_jax.train --config=configs/tau2.py`

| size | command | what runs |
|---|---|---|
| qwen3_30b_a3b | `--config=configs/tau2.py` | tau-bench or tau2-bench result files, 30B |
| nemotron | `--config=configs/tau2.py:nemotron` | NeMo-RL's public recipe on NVIDIA's pivot rows, 30B |
| qwen3_0p6b | `--config=configs/tau2.py:qwen3_0p6b` | your trajectories, Qwen3-0.6B, one GPU |
| smollm2 | `--config=configs/tau2.py:smollm2` | four made-up episodes of a parcel desk, SmolLM2-135M; CPU |
| tiny | `--config=configs/tau2.py:tiny` | four made-up episodes of a parcel desk; CPU |

Paper (arXiv 2603.21383), tau2-bench: base 44.35, SFT 58.44, PivotRL 63.81; without the pivot filter 59.68,
without functional reward 57.34.

NeMo-RL's public recipe, under its own protocol: 42.17 before, 48.64 at step 360.

`qwen3_30b_a3b` and `nemotron` take Qwen3-30B-A3B-Thinking-2507 on one node or more, `tiny` the embedded
checkpoint.
"""

import os
from pathlib import Path

from ml_collections import ConfigDict

from pivotrl_jax.run import sizes

SAMPLES = Path(__file__).with_name("samples")


def _tau2(c: ConfigDict, workdir: str, source: str) -> ConfigDict:
    """What the sizes share. `source`: a file or folder of trajectories; yours: --config.data.source=..."""
    c.name, c.workdir, c.data.source = "tau2", workdir, source
    c.data.verifier = "tau2"
    return c


def qwen3_30b_a3b() -> ConfigDict:
    """The published recipe: 64 prompts x 16 generations, lr 1e-6 constant, no KL, 32k tokens, T = 1; TIS
    capped at 5, which gave replications their best tau2 result."""
    c = _tau2(sizes.qwen3_30b_a3b(), "runs/tau2", "data/tau2")
    c.data.max_prompt_tokens = 28_000
    c.grpo.importance = "tis"
    return c


def nemotron() -> ConfigDict:
    """NeMo-RL's public recipe (its guide "Conversational Tool-Use Pivot RL") on NVIDIA's pivot rows: 64
    prompts x 16 generations, leave-one-out baseline, clip 0.2 / 0.2, no KL, lr 1e-6, 32k tokens, router
    frozen, and every 10 steps a validation on 512 rows.

    It trains on all rows (method "random_turns"); --config.data.max_pass_rate=0.6 keeps those that Qwen3-235B
    solved at most that often, as NVIDIA's own run did, and --config.method=pivotrl profiles them first. Not
    taken over: the router's auxiliary loss of 1e-4 (the router is frozen), and one context for prompt and
    completion (here a prompt has at most 24,576 tokens and a completion 8,192).
    """
    c = sizes.qwen3_30b_a3b()
    c.name = "tau2"
    c.workdir = "runs/tau2_nemotron"
    c.method = "random_turns"
    c.data.source = "hf:nvidia/Nemotron-RL-Agentic-Conversational-Tool-Use-Pivot-v1"
    c.data.format = "nemo_gym"
    c.data.verifier = "tool_call:nemo_gym"
    c.data.pass_rate_field = "qwen_235b_info"
    c.data.max_repeats = 0
    c.data.held_out_share = 0.0
    c.data.max_prompt_tokens = 24_576
    c.sampling.max_tokens = 8192
    c.grpo.steps = 600
    c.grpo.baseline = "leave_one_out"
    c.grpo.clip_low = c.grpo.clip_high = 0.2
    c.grpo.router = "frozen"
    c.validation.every = 10
    c.validation.turns = 512
    return c


def qwen3_0p6b() -> ConfigDict:
    """Qwen3-0.6B with adapters on one small accelerator; prompts of up to 7,500 tokens."""
    return _tau2(sizes.qwen3_0p6b(), "runs/tau2_qwen3_0p6b", "data/tau2")


def smollm2() -> ConfigDict:
    """SmolLM2-135M-Instruct with adapters on a CPU, on the samples."""
    c = _tau2(sizes.smollm2_long(), "runs/tau2_smollm2", os.path.relpath(SAMPLES / "tau2.json"))
    c.data.held_out_share = 0.0
    return c


def tiny() -> ConfigDict:
    c = _tau2(sizes.embedded_sample(), "runs/tau2_tiny", os.path.relpath(SAMPLES / "tau2.json"))
    c.data.max_prompt_tokens = 4000
    c.compute.row_lengths = (4096,)
    c.compute.attention_chunk = 256
    c.data.limit = 4
    c.data.min_reward = 0.0
    return c


SIZES = {f.__name__: f for f in (qwen3_30b_a3b, qwen3_0p6b, smollm2, tiny, nemotron)}


def get_config(size: str = "qwen3_30b_a3b") -> ConfigDict:
    return sizes.choose("tau2", SIZES, size)
