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
    c.method = "pivotrl"  # or its rivals: "sft", "e2e_rl", "random_turns" (GRPO on unfiltered candidates)
    c.reward = "functional"  # "exact": string match with the demonstration (the paper's ablation)

    c.model = ConfigDict()
    c.model.checkpoint = "embedded"  # or a directory in Hugging Face layout
    c.model.dtype = "float32"  # compute
    c.model.param_dtype = "float32"  # master weights
    c.model.lora = ConfigDict({"rank": 0, "alpha": 32.0})  # rank 0: every parameter is trained
    c.model.keep_thinking = False  # "strip": the template's own treatment of old <think> blocks

    c.mesh = ConfigDict({"data": 1, "fsdp": -1, "expert": 1, "tensor": 1})  # -1: the devices that are left

    c.data = ConfigDict()
    c.data.source = (
        "toolbox"  # or "bfcl", or paths of trajectories (files, folders, hf:owner/name), by commas
    )
    c.data.demonstrations = 64  # toolbox: episodes of the expert
    c.data.style = "diverse"  # toolbox, of the expert; "clean": one habit for all
    c.data.detours = 0.0  # toolbox: the chance that a slip or an idle look comes before an action
    c.data.held_out_tasks = 200  # toolbox
    c.data.held_out_seed = 0  # toolbox; another number draws other tasks, to choose a recipe on
    c.data.categories = (  # bfcl
        "multi_turn_base",
        "multi_turn_miss_func",
        "multi_turn_miss_param",
        "multi_turn_long_context",
    )  # single-turn categories, e.g. "simple_python", are scored by bfcl_ast
    # paths of trajectories
    c.data.format = "auto"
    c.data.tools = ""  # a JSON list of function docs, for trajectories that bring none
    c.data.verifier = ""  # the format's own; or a name, e.g. "tool_call", "swe:nemo_gym"
    c.data.verifier_options = (
        ConfigDict()
    )  # what the verifier reads of every turn's case, e.g. {"level": "name"}
    c.data.min_reward = 1.0  # of a trajectory; those without a recorded reward are kept
    c.data.skip_error_turns = True  # turns whose call was answered by an error are not imitated
    c.data.max_repeats = 50  # of one action over all trajectories; 0: no cap
    c.data.on_bad_row = "skip"  # or "stop"
    c.data.held_out_share = 0.25  # bfcl and paths, by scenario
    c.data.limit = 0  # at most this many rows; 0 for all
    c.data.max_prompt_tokens = 960

    c.compute = ConfigDict()
    c.compute.row_lengths = (1024, 2048)  # row lengths there are programs for
    c.compute.attention_chunk = 128
    c.compute.log_prob_chunk = 128
    c.compute.remat = "nothing"  # "dots", "full": compute more in the backward pass, keep less for it

    c.sampling = ConfigDict({"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "max_tokens": 64})

    c.judge = ConfigDict()  # decides what verifiers leave open, where there is one
    c.judge.base_url = ""  # of an OpenAI-compatible endpoint, e.g. "http://localhost:8000/v1"; "": no judge
    c.judge.model = ""
    c.judge.api_key_env = "OPENAI_API_KEY"  # the variable that holds the key
    c.judge.templates = ""  # a TOML file like pivotrl_jax/assets/judge.toml, for prompts of your own
    c.judge.swap = True  # ask again with the actions exchanged; the answers must agree
    c.judge.reward_if_swap_fails = 0.0
    c.judge.concurrency = 16
    c.judge.timeout = 60.0  # seconds
    c.judge.retries = 5

    c.profile = ConfigDict()
    c.profile.group_size = 8
    c.profile.lambda_diff = 0.6
    # adaptive: sample in rounds of so many (0: all at once) and stop where a full profile would most likely
    # not decide otherwise: the chance that it would is at most `error`
    c.profile.adaptive = ConfigDict({"round": 0, "error": 0.02})
    c.profile.trajectories_per_shard = 16
    # 64 samples of a row, 16 of which decode at a time; a decode slot takes the next when its sample has ended
    c.profile.batch = ConfigDict({"rows": 4, "samples_per_row": 64, "decode_slots": 16})

    # the policy in training, scored on single turns that are neither trained on nor held out for the test
    c.validation = ConfigDict()
    c.validation.every = 0  # optimizer steps; 0: never
    c.validation.tasks = 32  # toolbox: episodes of the expert, whose turns are scored
    c.validation.share = 0.1  # bfcl and paths: of the training scenarios, which are then not trained on
    c.validation.seed = 1  # which tasks, which scenarios; for the toolbox not data.held_out_seed
    c.validation.samples = 1  # per turn
    c.validation.attempts = 0  # episodes per task, where tasks can be played
    c.validation.batch = ConfigDict({"rows": 16, "samples_per_row": 4, "decode_slots": 4})

    # find pivots anew under the current policy, when either of two things happens
    c.reprofile = ConfigDict()
    c.reprofile.std_fraction = 0.0  # reward std of a batch under this share of its start; 0: off
    c.reprofile.std_window = 5  # steps that both are means over; it starts with every profile
    c.reprofile.patience = 0  # so many validations without a gain in passed turns; 0: off
    c.reprofile.min_gain = 0.0  # what a gain must exceed
    c.reprofile.most = 1  # at most so many times

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
    c.grpo.baseline = "mean"  # of the group; "leave_one_out": of the others
    c.grpo.normalise = "std"  # "none": advantages are not divided (Dr.GRPO)
    c.grpo.advantage_eps = 1e-6
    c.grpo.advantage_clip = 0.0  # advantages are at most this big; 0: no bound
    c.grpo.malformed_advantage = 0.0  # e.g. -5.0: of whatever cannot be parsed; 0: as its group says
    c.grpo.mask_unfinished = False  # completions cut at the limit stay in the baseline, not in the loss
    c.grpo.dynamic_rounds = 0  # further rounds of sampling in place of groups of equal rewards (DAPO)
    c.grpo.loss = "grpo"  # "gspo": ratios of whole samples; "cispo": a clipped ratio as a mere weight
    c.grpo.clip_low, c.grpo.clip_high = 0.2, 0.28  # gspo wants some 3e-4, 4e-4
    c.grpo.aggregation = "token_mean"  # "sequence_mean"; "fixed_length": over samples x max_tokens (Dr.GRPO)
    c.grpo.importance = "ratio"  # to the sampler; "tis": to itself, times min(policy / sampler, cap)
    c.grpo.importance_cap = 5.0
    c.grpo.kl_coefficient = 0.0
    c.grpo.kl_estimator = "k3"  # "k1", "k2"
    c.grpo.kl_in = "loss"  # "reward", with k1
    c.grpo.router = "train"  # "frozen": a mixture's stays as loaded; "replay": the sampler's choices
    c.grpo.routing_agreement = False  # measure how often both choose alike; "replay" does anyway
    c.grpo.balance_coefficient = 0.0  # of the load-balance loss, which is of a microbatch's tokens at a time
    c.grpo.batch = ConfigDict({"rows": 8, "samples_per_row": 16, "decode_slots": 16})  # of rollouts
    c.grpo.microbatch_rows = 2  # of the update
    c.grpo.save_every = 10
    c.grpo.keep_checkpoints = 2

    c.sft = ConfigDict()  # method "sft"
    c.sft.epochs = 4
    c.sft.trajectories_per_step = 16
    c.sft.learning_rate = 1e-4
    c.sft.warmup_steps = 2
    c.sft.weight_decay = 0.0
    c.sft.b1, c.sft.b2 = 0.9, 0.95
    c.sft.max_grad_norm = 1.0
    c.sft.optimizer_dtype = "float32"
    c.sft.microbatch_rows = 2
    c.sft.save_every = 10
    c.sft.keep_checkpoints = 2

    c.e2e = ConfigDict()  # method "e2e_rl": whole episodes; the rest is grpo's
    c.e2e.tasks_per_step = 16
    c.e2e.max_steps = 6  # calling actions per user turn
    c.e2e.batch = ConfigDict({"rows": 8, "samples_per_row": 16, "decode_slots": 16})

    c.evaluate = ConfigDict()
    c.evaluate.tasks = 200  # held-out episodes
    c.evaluate.attempts = 1  # episodes per task
    c.evaluate.turn_trajectories = 80  # whose turns are scored
    c.evaluate.samples = 1  # per held-out turn
    c.evaluate.skill_items = 50  # per out-of-domain family
    c.evaluate.max_steps = 6  # calling actions per user turn
    c.evaluate.batch = ConfigDict({"rows": 16, "samples_per_row": 4, "decode_slots": 4})
    return c


def real() -> ConfigDict:
    c = tiny()
    c.workdir = "runs/bfcl_real"
    c.data.source = "bfcl"
    c.data.max_prompt_tokens = 8000
    c.compute.row_lengths = (1024, 8192)
    c.compute.attention_chunk = 512
    c.profile.batch = ConfigDict({"rows": 1, "samples_per_row": 64, "decode_slots": 16})
    c.profile.trajectories_per_shard = 4
    c.validation.batch = ConfigDict({"rows": 1, "samples_per_row": 16, "decode_slots": 16})
    c.grpo.batch = ConfigDict({"rows": 1, "samples_per_row": 16, "decode_slots": 16})
    c.grpo.microbatch_rows = 1
    # enough to see the path run: this policy cannot learn these rows
    c.grpo.steps, c.grpo.pivots_per_step = 3, 4
    c.sft.microbatch_rows = 1
    c.e2e.batch = ConfigDict({"rows": 1, "samples_per_row": 16, "decode_slots": 16})
    c.e2e.tasks_per_step, c.e2e.max_steps = 2, 20
    c.evaluate.batch = ConfigDict({"rows": 1, "samples_per_row": 16, "decode_slots": 16})
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
    c.compute.row_lengths = (8192, 16_384)
    c.compute.attention_chunk = 512
    c.compute.log_prob_chunk = 512
    c.compute.remat = "full"
    c.sampling.max_tokens = 1024
    c.grpo.steps = 200
    c.grpo.pivots_per_step, c.grpo.group_size = 32, 8
    c.grpo.learning_rate = 1e-6
    c.sft.learning_rate, c.sft.trajectories_per_step = 1e-5, 32
    c.evaluate.skill_items = 0
    return c


def qwen3_30b_a3b() -> ConfigDict:
    """The published recipe: 64 prompts x 16 generations, lr 1e-6 constant, no KL, clip 0.2 / 0.28, T = 1."""
    c = qwen3_0p6b()
    c.workdir = "runs/bfcl_qwen3_30b_a3b"
    c.model.checkpoint = "Qwen/Qwen3-30B-A3B-Thinking-2507"
    c.data.max_prompt_tokens = 24_000
    c.compute.row_lengths = (16_384, 32_768)
    c.sampling.max_tokens = 4096
    c.profile.group_size = 16
    c.profile.batch = ConfigDict({"rows": 8, "samples_per_row": 64, "decode_slots": 16})
    c.validation.batch = ConfigDict({"rows": 8, "samples_per_row": 4, "decode_slots": 4})
    c.grpo.pivots_per_step, c.grpo.group_size = 64, 16
    c.grpo.batch = ConfigDict({"rows": 8, "samples_per_row": 16, "decode_slots": 16})
    c.grpo.microbatch_rows = 8
    c.sft.microbatch_rows = 8
    c.e2e.batch = ConfigDict({"rows": 8, "samples_per_row": 16, "decode_slots": 16})
    c.e2e.tasks_per_step = 16
    c.evaluate.batch = ConfigDict({"rows": 8, "samples_per_row": 4, "decode_slots": 4})
    return c


SIZES = {f.__name__: f for f in (tiny, real, qwen3_0p6b, qwen3_30b_a3b)}


def get_config(size: str = "tiny") -> ConfigDict:
    if size not in SIZES:
        raise ValueError(f"configs/bfcl.py has no size {size!r}; choose one of {', '.join(SIZES)}")
    return SIZES[size]().lock()
