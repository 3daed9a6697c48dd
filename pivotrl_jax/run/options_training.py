"""Fields of the sections that sample and train: see options.py."""

import dataclasses

from pivotrl_jax.run.fields import (
    ABOVE_ZERO,
    ADDRESS,
    NOT_NEGATIVE,
    NOT_POSITIVE,
    SHARD,
    SHARE,
    SHARE_OR_NONE,
    at_least,
    field,
    name_of_table,
    number,
    one_of,
    seeds,
)
from pivotrl_jax.run.options_beyond import Guided, Screen

DTYPES = one_of({"float32": "four bytes", "bfloat16": "two bytes"})
section = dataclasses.dataclass(frozen=True)


@section
class Batch:
    """The shape of one call of the sampler's program. Rows times samples_per_row is what one call samples."""

    rows: int = field(8, "Packed rows of prompts in one call.", at_least(1), unit="rows")
    samples_per_row: int = field(16, "Most completions that branch off one row.", at_least(1), unit="samples")
    decode_slots: int = field(
        16,
        "Completions of a row that decode at once. A slot takes the next one when its own has ended.",
        at_least(1),
        unit="samples",
    )


@section
class Rollouts:
    """Rollouts of a served model, behind an OpenAI-compatible endpoint, instead of the own sampler's."""

    base_url: str = field(
        "", "Where the model is served; '' draws with the own sampler.", ADDRESS, unit="URL, e.g. .../v1"
    )
    model: str = field("", "The served model.", unit="a name that the endpoint knows")
    api_key_env: str = field(
        "OPENAI_API_KEY", "Where the key is read from; it is never written.", unit="an environment variable"
    )
    mode: str = field(
        "auto",
        "How the model is asked.",
        one_of(
            {
                "auto": "completions if the server gives token ids, else chat",
                "completions": "/completions on the token ids of the rendered prompt; token ids come back",
                "chat": "/chat/completions with messages and tools; calls come back parsed by the server",
            }
        ),
    )
    history_reasoning: bool = field(
        True, "chat: send the thinking of earlier turns; False for services that refuse the field."
    )
    samples_per_request: int = field(
        1,
        "Completions asked for at once, as n. Each sample has a seed of its own only with 1.",
        at_least(1),
        unit="samples",
    )
    concurrency: int = field(64, "Requests that are open at the same time.", at_least(1), unit="requests")
    timeout: float = field(600.0, "How long one request may take as a whole.", ABOVE_ZERO, unit="seconds")
    retries: int = field(10, "How often a failed request is sent again.", at_least(0), unit="requests")
    give_up_after: int = field(
        12, "The run stops after this many failures in a row, of any requests.", at_least(1), unit="failures"
    )
    same_weights: bool = field(
        False, "The served model has the weights of model.checkpoint, so that the profile is that of pi_0."
    )
    train: bool = field(False, "Training draws from the endpoint too, which gets new weights at every step.")
    reload: str = field(
        "none",
        "train: how the server gets them. They are written to a directory that it must be able to read.",
        one_of(
            {
                "none": "not at all, so it cannot train",
                "vllm": "/collective_rpc reload_weights, with VLLM_SERVER_DEV_MODE=1",
                "sglang": "/update_weights_from_disk",
            }
        ),
    )


@section
class Adaptive:
    """Profile in rounds, and stop where the outcome of a full profile is already clear."""

    round: int = field(
        0, "Samples per candidate and round; 0 draws all at once.", at_least(0), unit="samples"
    )
    error: float = field(
        0.02,
        "Stop sampling a candidate when its outcome is plain: of the pivots that a full profile would find, "
        "this share is missed in expectation, and at most as many others are taken for pivots.",
        number(lambda x: 0 <= x < 0.5, "a share from 0 up and below 0.5"),
        unit="share of the pivots",
    )


@section
class Profile:
    """Sampling every candidate under the frozen policy, to find the pivots among them (sections 2 and 3)."""

    group_size: int = field(8, "Samples per candidate.", at_least(1), unit="samples")
    lambda_diff: float = field(
        0.6,
        "Candidates with mixed rewards whose mean is below this are pivots; 1 keeps every mixed candidate.",
        SHARE,
        unit="mean reward",
    )
    keep_all_fail: bool = field(False, "Candidates whose rewards are all 0 are trained on, too.")
    adaptive: Adaptive = Adaptive()
    screen: Screen = Screen()
    seed: int = field(
        -1,
        "Seed of the samples; -1 takes the run's. A profile with a seed of its own can be shared: copy its "
        "folder rollouts/ into the work directories of runs with other seeds.",
        seeds(-1),
        unit="seed",
    )
    trajectories_per_shard: int = field(
        16,
        "Results are written after every this many; an interrupted run goes on from the last shard.",
        at_least(1),
        unit="trajectories",
    )
    shard: str = field(
        "",
        "find_pivots: profile only this share of the candidates, in one of several independent jobs, each "
        "with a workdir of its own; merge_profiles puts them together. '' profiles all.",
        SHARD,
        unit="shard / number of shards, e.g. '3/16'",
    )
    batch: Batch = Batch(rows=4, samples_per_row=64, decode_slots=16)


@section
class Reprofile:
    """Find pivots anew under the current policy, when rewards stop varying or validation stops improving."""

    std_fraction: float = field(
        0.0,
        "Reprofile when the mean reward std within groups falls below this part of its first value, or is "
        "0; 0 is never.",
        SHARE_OR_NONE,
        unit="share of the first std",
    )
    std_window: int = field(
        5,
        "Both stds are averaged over this many steps; counting restarts with every profile.",
        at_least(1),
        unit="optimizer steps",
    )
    patience: int = field(
        0,
        "Reprofile after this many validations without a gain in passed turns; 0 is never.",
        at_least(0),
        unit="validations",
    )
    min_gain: float = field(
        0.0,
        "A validation counts as a gain when it exceeds the best by more than this.",
        NOT_NEGATIVE,
        unit="reward",
    )
    most: int = field(1, "The most times a run is reprofiled.", at_least(0), unit="profiles")


def _learning_rate(default: float):
    return field(default, "AdamW's learning rate, constant after warm-up.", ABOVE_ZERO, unit="per step")


def _warmup_steps(default: int):
    effect = "The learning rate rises linearly over this many steps."
    return field(default, effect, at_least(0), unit="optimizer steps")


@section
class Updates:
    """What sections grpo and sft share."""

    weight_decay: float = field(
        0.0,
        "AdamW's weight decay; not on norms, biases and routers.",
        NOT_NEGATIVE,
        unit="per unit of learning rate",
    )
    b1: float = field(0.9, "Decay of Adam's mean of gradients.", SHARE_OR_NONE, unit="per step")
    b2: float = field(0.95, "Decay of Adam's mean of squared gradients.", SHARE_OR_NONE, unit="per step")
    max_grad_norm: float = field(
        1.0, "Gradients with a larger norm are scaled down to it.", ABOVE_ZERO, unit="norm"
    )
    optimizer_dtype: str = field(
        "float32", "Precision of Adam's moments; bfloat16 wants b1 and b2 of at most 0.996.", DTYPES
    )
    microbatch_rows: int = field(2, "Rows of one forward and backward pass.", at_least(1), unit="rows")
    save_every: int = field(10, "How often a checkpoint is written.", at_least(1), unit="optimizer steps")
    keep_checkpoints: int = field(2, "How many of the latest stay on disk.", at_least(1), unit="checkpoints")


@section
class Grpo(Guided, Updates):
    """Policy gradients on groups of rollouts: methods "pivotrl" and "random_turns". "e2e_rl" also uses these
    fields, beside those of section e2e."""

    steps: int = field(40, "Length of training.", at_least(1), unit="optimizer steps")
    pivots_per_step: int = field(16, "Groups in one batch.", at_least(1), unit="pivots")
    group_size: int = field(8, "Rollouts of one pivot in a batch.", at_least(2), unit="rollouts")
    learning_rate: float = _learning_rate(3e-4)
    warmup_steps: int = _warmup_steps(5)
    offload_optimizer: bool = field(False, "Keep Adam's moments in host memory between updates.")
    baseline: str = field("mean", "What a reward is compared with to give an advantage.", name_of_table())
    normalise: str = field(
        "std",
        "What the difference is divided by.",
        one_of(
            {"std": "the standard deviation that goes with the baseline", "none": "nothing, as in Dr.GRPO"}
        ),
    )
    advantage_eps: float = field(
        1e-6, "Added to the standard deviation before dividing.", NOT_NEGATIVE, unit="reward"
    )
    advantage_clip: float = field(
        0.0, "Advantages are cut to at most this size; 0 sets no bound.", NOT_NEGATIVE, unit="advantage"
    )
    malformed_advantage: float = field(
        0.0,
        "Advantage of every completion that cannot be parsed, e.g. -5; 0 leaves it to the group.",
        NOT_POSITIVE,
        unit="advantage",
    )
    mask_unfinished: bool = field(
        False, "Completions cut at sampling.max_tokens count for the baseline but are not trained on."
    )
    dynamic_rounds: int = field(
        0,
        "Draw up to this many further rounds to replace groups without an advantage, as those of equal "
        "rewards (DAPO); 0 draws none.",
        at_least(0),
        unit="rounds of sampling",
    )
    loss: str = field("grpo", "The loss of a token.", name_of_table("losses"))
    clip_low: float = field(
        0.2, "Ratios below 1 - clip_low are clipped; gspo needs about 3e-4.", ABOVE_ZERO, unit="ratio"
    )
    clip_high: float = field(
        0.28, "Ratios above 1 + clip_high are clipped; gspo needs about 4e-4.", ABOVE_ZERO, unit="ratio"
    )
    aggregation: str = field("token_mean", "How tokens' losses are averaged.", name_of_table())
    importance: str = field(
        "ratio",
        "How the loss corrects for the difference between policy and sampler.",
        one_of(
            {
                "ratio": "the loss's ratio is policy / sampler",
                "tis": "the ratio is policy / policy; the weight is min(policy / sampler, importance_cap)",
            }
        ),
    )
    importance_cap: float = field(
        5.0,
        "tis: the largest weight of a token.",
        number(lambda x: x >= 1, "a number from 1 up"),
        unit="ratio",
    )
    kl_coefficient: float = field(
        0.0, "Weight of the KL to the reference; 0 needs no reference.", NOT_NEGATIVE, unit="loss per nat"
    )
    kl_estimator: str = field("k3", "How the KL is estimated from sampled tokens.", name_of_table())
    kl_in: str = field(
        "loss",
        "Where the KL enters.",
        one_of({"loss": "as a term of the loss", "reward": "subtracted from the reward; k1 only"}),
    )
    router: str = field(
        "train",
        "What happens to the router of a mixture of experts.",
        one_of(
            {
                "train": "it is trained",
                "frozen": "it stays as loaded",
                "replay": "the learner uses the experts that the sampler chose",
            }
        ),
    )
    routing_agreement: bool = field(
        False, "Measure how often sampler and learner choose the same experts; 'replay' does so anyway."
    )
    balance_coefficient: float = field(
        0.0,
        "Weight of the load-balance loss, which is computed over one microbatch at a time.",
        NOT_NEGATIVE,
        unit="a factor",
    )
    batch: Batch = Batch(rows=8, samples_per_row=16, decode_slots=16)


@section
class Sft(Updates):
    """Supervised fine-tuning on the same trajectories: method "sft"."""

    epochs: int = field(4, "How often every trajectory is seen.", at_least(1), unit="epochs")
    trajectories_per_step: int = field(16, "Trajectories in one batch.", at_least(1), unit="trajectories")
    learning_rate: float = field(1e-4, "AdamW's learning rate after warm-up.", ABOVE_ZERO, unit="per step")
    warmup_steps: int = _warmup_steps(2)
    decay: str = field(
        "none",
        "What the learning rate does after warm-up.",
        one_of({"none": "it stays", "linear": "it falls, to 0 at the end of training"}),
    )


@section
class E2e:
    """End-to-end RL on whole episodes: method "e2e_rl". Section grpo has the rest."""

    tasks_per_step: int = field(16, "Groups of episodes in one batch.", at_least(1), unit="tasks")
    max_steps: int = field(
        6,
        "The most that an episode may take; then it ends.",
        at_least(1),
        unit="calling actions per user turn",
    )
    batch: Batch = Batch(rows=8, samples_per_row=16, decode_slots=16)
