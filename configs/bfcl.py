"""Function calling in several turns, as in BFCL: `python -m pivotrl_jax.train --config=configs/bfcl.py`

| size | command | what runs |
|---|---|---|
| tiny | `--config=configs/bfcl.py` | the embedded world and checkpoint; CPU, minutes, offline |
| real | `--config=configs/bfcl.py:real` | BFCL's own multi-turn rows with the embedded checkpoint |
| qwen3_0p6b | `--config=configs/bfcl.py:qwen3_0p6b` | BFCL rows, Qwen3-0.6B, one small accelerator |
| qwen3_30b_a3b | `--config=configs/bfcl.py:qwen3_30b_a3b` | BFCL rows, Qwen3-30B-A3B, one node |

Result of `tiny` to expect: experiments/main_job/README.md has the numbers of three seeds.
"""

from ml_collections import ConfigDict


def tiny() -> ConfigDict:
    c = ConfigDict()
    c.name = "bfcl"
    c.seed = 0
    c.workdir = "runs/bfcl"
    c.resume = True  # go on from whatever the workdir holds; False starts over
    c.reward = "functional"  # "exact": string match with the demonstration (the paper's ablation)

    c.model = ConfigDict()
    c.model.checkpoint = "embedded"  # or a directory in Hugging Face layout
    c.model.dtype = "float32"  # compute
    c.model.param_dtype = "float32"  # master weights
    c.model.lora = ConfigDict({"rank": 0, "alpha": 32.0})  # rank 0: every parameter is trained
    c.model.keep_thinking = False  # "strip": the template's own treatment of old <think> blocks

    c.mesh = ConfigDict({"data": 1, "fsdp": -1, "expert": 1, "tensor": 1})  # -1: the devices that are left

    c.data = ConfigDict()
    c.data.source = "toolbox"  # or "bfcl", or a path to chat-messages JSONL
    c.data.demonstrations = 64  # toolbox: episodes of the expert
    c.data.held_out_tasks = 200  # toolbox
    c.data.categories = (  # bfcl
        "multi_turn_base",
        "multi_turn_miss_func",
        "multi_turn_miss_param",
        "multi_turn_long_context",
    )  # single-turn categories, e.g. "simple_python", are scored by bfcl_ast
    c.data.verifier = "tool_call"  # chat-messages JSONL
    c.data.on_bad_row = "skip"  # or "stop"
    c.data.held_out_share = 0.25  # bfcl and JSONL, by scenario
    c.data.limit = 0  # at most this many rows; 0 for all
    c.data.max_prompt_tokens = 960

    c.compute = ConfigDict()
    c.compute.slots = (1024, 2048)  # row lengths there are programs for
    c.compute.attention_chunk = 128
    c.compute.log_prob_chunk = 128
    c.compute.remat = "nothing"  # "dots", "full": compute more in the backward pass, keep less for it

    c.sampling = ConfigDict({"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "max_tokens": 64})

    c.profile = ConfigDict()
    c.profile.group_size = 8
    c.profile.lambda_diff = 0.6
    c.profile.trajectories_per_shard = 16
    # 64 samples of a row, 16 of which decode at a time; a lane takes the next when its sample has ended
    c.profile.batch = ConfigDict({"rows": 4, "branches": 64, "lanes": 16})

    c.grpo = ConfigDict()
    c.grpo.steps = 40
    c.grpo.pivots_per_step = 16
    c.grpo.group_size = 8
    c.grpo.learning_rate = 3e-4
    c.grpo.warmup_steps = 5
    c.grpo.weight_decay = 0.0
    c.grpo.b1, c.grpo.b2 = 0.9, 0.95
    c.grpo.max_grad_norm = 1.0
    c.grpo.optimizer_dtype = "float32"  # of Adam's moments; "bfloat16" halves them
    c.grpo.offload_optimizer = False  # moments rest in host memory
    c.grpo.advantage_eps = 1e-6
    c.grpo.clip_low, c.grpo.clip_high = 0.2, 0.28
    c.grpo.kl_coefficient = 0.0
    c.grpo.batch = ConfigDict({"rows": 8, "branches": 16, "lanes": 16})  # of rollouts
    c.grpo.microbatch_rows = 2  # of the update
    c.grpo.save_every = 10
    c.grpo.keep_checkpoints = 2

    c.evaluate = ConfigDict()
    c.evaluate.tasks = 200  # held-out episodes
    c.evaluate.attempts = 1  # episodes per task
    c.evaluate.turn_trajectories = 80  # whose turns are scored
    c.evaluate.samples = 1  # per held-out turn
    c.evaluate.skill_items = 50  # per out-of-domain family
    c.evaluate.max_steps = 6  # calling actions per user turn
    c.evaluate.batch = ConfigDict({"rows": 16, "branches": 4, "lanes": 4})
    return c


def real() -> ConfigDict:
    c = tiny()
    c.workdir = "runs/bfcl_real"
    c.data.source = "bfcl"
    c.data.max_prompt_tokens = 8000
    c.compute.slots = (1024, 8192)
    c.compute.attention_chunk = 512
    c.profile.batch = ConfigDict({"rows": 1, "branches": 64, "lanes": 16})
    c.profile.trajectories_per_shard = 4
    c.grpo.batch = ConfigDict({"rows": 1, "branches": 16, "lanes": 16})
    c.grpo.microbatch_rows = 1
    # enough to see the path run: this policy cannot learn these rows
    c.grpo.steps, c.grpo.pivots_per_step = 3, 4
    c.evaluate.batch = ConfigDict({"rows": 1, "branches": 16, "lanes": 16})
    c.evaluate.max_steps = 20
    c.evaluate.skill_items = 10
    return c


def qwen3_0p6b() -> ConfigDict:
    c = real()
    c.workdir = "runs/bfcl_qwen3_0p6b"
    c.grpo.warmup_steps = 0  # the published recipes: a constant rate
    c.model.checkpoint = "Qwen/Qwen3-0.6B"
    c.model.dtype = "bfloat16"
    c.data.max_prompt_tokens = 12_000
    c.compute.slots = (8192, 16_384)
    c.compute.attention_chunk = 512
    c.compute.log_prob_chunk = 512
    c.compute.remat = "full"
    c.sampling.max_tokens = 1024
    c.grpo.steps = 200
    c.grpo.pivots_per_step, c.grpo.group_size = 32, 8
    c.grpo.learning_rate = 1e-6
    c.evaluate.skill_items = 0
    return c


def qwen3_30b_a3b() -> ConfigDict:
    """The published recipe: 64 prompts x 16 generations, lr 1e-6 constant, no KL, clip 0.2 / 0.28, T = 1."""
    c = qwen3_0p6b()
    c.workdir = "runs/bfcl_qwen3_30b_a3b"
    c.model.checkpoint = "Qwen/Qwen3-30B-A3B-Thinking-2507"
    c.data.max_prompt_tokens = 24_000
    c.compute.slots = (16_384, 32_768)
    c.sampling.max_tokens = 4096
    c.profile.group_size = 16
    c.profile.batch = ConfigDict({"rows": 8, "branches": 64, "lanes": 16})
    c.grpo.pivots_per_step, c.grpo.group_size = 64, 16
    c.grpo.batch = ConfigDict({"rows": 8, "branches": 16, "lanes": 16})
    c.grpo.microbatch_rows = 8
    c.evaluate.batch = ConfigDict({"rows": 8, "branches": 4, "lanes": 4})
    return c


SIZES = {f.__name__: f for f in (tiny, real, qwen3_0p6b, qwen3_30b_a3b)}


def get_config(size: str = "tiny") -> ConfigDict:
    if size not in SIZES:
        raise ValueError(f"configs/bfcl.py has no size {size!r}; choose one of {', '.join(SIZES)}")
    return SIZES[size]().lock()
