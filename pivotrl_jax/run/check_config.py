"""What a config's values must satisfy, checked before anything is spent. Structure is the config file's own
affair."""

import math
from collections.abc import Callable
from typing import Any

from pivotrl_jax import environments, verifiers
from pivotrl_jax.records import InputError


def _whole(low: int) -> tuple[Callable[[Any], bool], str]:
    return (
        lambda x: isinstance(x, int) and not isinstance(x, bool) and x >= low,
        f"a whole number from {low} up",
    )


def _number(test: Callable[[float], bool], want: str) -> tuple[Callable[[Any], bool], str]:
    return lambda x: isinstance(x, (int, float)) and not isinstance(x, bool) and test(x), want


def _one_of(*values: Any) -> tuple[Callable[[Any], bool], str]:
    return lambda x: x in values, " or ".join(map(repr, values))


POSITIVE, COUNT = _whole(1), _whole(0)


SHARE = _number(lambda x: 0 < x <= 1, "a number above 0 and at most 1")


NOT_NEGATIVE = _number(lambda x: x >= 0, "a number from 0 up")


ABOVE_ZERO = _number(lambda x: x > 0, "a number above 0")


TEXT = (lambda x: isinstance(x, str), "a text")


RULES = {
    "seed": COUNT,
    "method": _one_of("pivotrl", "sft", "e2e_rl", "random_turns"),
    "reward": _one_of("functional", "exact"),
    "model.dtype": _one_of("float32", "bfloat16"),
    "model.param_dtype": _one_of("float32", "bfloat16"),
    "model.lora.rank": COUNT,
    "model.lora.alpha": ABOVE_ZERO,
    "data.skip_error_turns": _one_of(True, False),
    "data.max_repeats": COUNT,
    "data.min_reward": _number(math.isfinite, "a number"),
    "data.on_bad_row": _one_of("skip", "stop"),
    "data.held_out_share": _number(lambda x: 0 <= x < 1, "a number from 0 up and below 1"),
    "data.held_out_seed": COUNT,
    "data.detours": _number(lambda x: 0 <= x <= 1, "a chance from 0 to 1"),
    "data.limit": COUNT,
    "data.max_prompt_tokens": POSITIVE,
    "compute.attention_chunk": POSITIVE,
    "compute.log_prob_chunk": POSITIVE,
    "compute.remat": _one_of("nothing", "dots", "full"),
    "sampling.temperature": NOT_NEGATIVE,
    "sampling.top_p": SHARE,
    "sampling.top_k": COUNT,
    "sampling.min_p": _number(lambda x: 0 <= x <= 1, "a number from 0 to 1"),
    "sampling.max_tokens": POSITIVE,
    "judge.base_url": (
        lambda x: isinstance(x, str) and (not x or x.startswith(("http://", "https://"))),
        "the address of an OpenAI-compatible endpoint, e.g. 'http://localhost:8000/v1', or '' for no judge",
    ),
    "judge.model": TEXT,
    "judge.api_key_env": TEXT,
    "judge.templates": TEXT,
    "judge.swap": _one_of(True, False),
    "judge.reward_if_swap_fails": _number(math.isfinite, "a finite number"),
    "judge.concurrency": POSITIVE,
    "judge.timeout": ABOVE_ZERO,
    "judge.retries": COUNT,
    "profile.group_size": POSITIVE,
    "profile.lambda_diff": SHARE,
    "profile.adaptive.round": COUNT,
    "profile.adaptive.error": _number(lambda x: 0 <= x < 0.5, "a chance from 0 up and below 0.5"),
    "profile.trajectories_per_shard": POSITIVE,
    "validation.every": COUNT,
    "validation.tasks": POSITIVE,
    "validation.share": _number(lambda x: 0 < x < 1, "a number above 0 and below 1"),
    "validation.seed": COUNT,
    "validation.samples": POSITIVE,
    "validation.attempts": COUNT,
    "reprofile.std_fraction": _number(lambda x: 0 <= x < 1, "a number from 0 up and below 1"),
    "reprofile.std_window": POSITIVE,
    "reprofile.patience": COUNT,
    "reprofile.min_gain": NOT_NEGATIVE,
    "reprofile.most": COUNT,
    "grpo.steps": POSITIVE,
    "grpo.pivots_per_step": POSITIVE,
    "grpo.group_size": _whole(2),
    "grpo.learning_rate": ABOVE_ZERO,
    "grpo.warmup_steps": COUNT,
    "grpo.weight_decay": NOT_NEGATIVE,
    "grpo.max_grad_norm": ABOVE_ZERO,
    "grpo.optimizer_dtype": _one_of("float32", "bfloat16"),
    "grpo.offload_optimizer": _one_of(True, False),
    "grpo.clip_low": ABOVE_ZERO,
    "grpo.clip_high": ABOVE_ZERO,
    "grpo.baseline": _one_of("mean", "leave_one_out"),
    "grpo.normalise": _one_of("std", "none"),
    "grpo.advantage_eps": NOT_NEGATIVE,
    "grpo.advantage_clip": NOT_NEGATIVE,
    "grpo.malformed_advantage": _number(lambda x: x <= 0, "a number from 0 down"),
    "grpo.mask_unfinished": _one_of(True, False),
    "grpo.dynamic_rounds": COUNT,
    "grpo.loss": _one_of("grpo", "gspo", "cispo"),
    "grpo.aggregation": _one_of("token_mean", "sequence_mean", "fixed_length"),
    "grpo.importance": _one_of("ratio", "tis"),
    "grpo.importance_cap": _number(lambda x: x >= 1, "a number from 1 up"),
    "grpo.kl_coefficient": NOT_NEGATIVE,
    "grpo.kl_estimator": _one_of("k1", "k2", "k3"),
    "grpo.kl_in": _one_of("loss", "reward"),
    "grpo.router": _one_of("train", "frozen", "replay"),
    "grpo.routing_agreement": _one_of(True, False),
    "grpo.balance_coefficient": NOT_NEGATIVE,
    "grpo.microbatch_rows": POSITIVE,
    "grpo.save_every": POSITIVE,
    "grpo.keep_checkpoints": POSITIVE,
    "sft.epochs": ABOVE_ZERO,
    "sft.trajectories_per_step": POSITIVE,
    "sft.learning_rate": ABOVE_ZERO,
    "sft.warmup_steps": COUNT,
    "sft.weight_decay": NOT_NEGATIVE,
    "sft.max_grad_norm": ABOVE_ZERO,
    "sft.optimizer_dtype": _one_of("float32", "bfloat16"),
    "sft.microbatch_rows": POSITIVE,
    "sft.save_every": POSITIVE,
    "sft.keep_checkpoints": POSITIVE,
    "e2e.tasks_per_step": POSITIVE,
    "e2e.max_steps": POSITIVE,
    "evaluate.tasks": COUNT,
    "evaluate.attempts": POSITIVE,
    "evaluate.turn_trajectories": COUNT,
    "evaluate.samples": POSITIVE,
    "evaluate.skill_items": COUNT,
    "evaluate.max_steps": POSITIVE,
}


RULES |= {
    f"{section}.batch.{name}": POSITIVE
    for section in ("profile", "validation", "grpo", "e2e", "evaluate")
    for name in ("rows", "samples_per_row", "decode_slots")
}


# what end-to-end RL can do: its batches hold episodes of many turns
E2E_ALLOWED = {
    "loss": ("grpo",),
    "aggregation": ("token_mean",),
    "kl_coefficient": (0.0,),
    "dynamic_rounds": (0,),
    "malformed_advantage": (0.0,),
    "advantage_clip": (0.0,),
    "mask_unfinished": (False,),
    "router": ("train", "frozen"),
    "routing_agreement": (False,),
}


def check(config: Any) -> None:
    """Raises InputError naming the field, its value and what it should be.

    A verifier of the user's own that the config names is imported here and registered under that name.
    """
    for name, (test, want) in RULES.items():
        value = config
        for part in name.split("."):
            value = value[part]
        if not test(value):
            raise InputError(f"config.{name} is {value!r}; want {want}")
    if config.data.verifier:
        verifiers.register(config.data.verifier, "config.data.verifier")
    row_lengths = config.compute.row_lengths
    if not row_lengths or not all(POSITIVE[0](n) for n in row_lengths):
        raise InputError(
            f"config.compute.row_lengths is {row_lengths!r}; want row lengths, e.g. (1024, 2048)"
        )
    longest = config.data.max_prompt_tokens + config.sampling.max_tokens
    if longest > max(row_lengths):
        raise InputError(
            f"config.data.max_prompt_tokens + config.sampling.max_tokens is {longest}, more than the longest "
            f"row of config.compute.row_lengths, {max(row_lengths)}; a prompt and its completion must fit one row"
        )
    if environments.is_name(config.data.source):
        environments.find(config.data.source).check_config(config)


def _check_reprofiling(config: Any) -> None:
    """What must hold for the policy to be profiled again while training."""
    c = config.reprofile
    on = [f"config.reprofile.{name} is {c[name]!r}" for name in ("std_fraction", "patience") if c[name]]
    if on and config.method != "pivotrl":
        raise InputError(
            f"{' and '.join(on)}, which config.method {config.method!r} does not do: it has no pivots to "
            "find anew; set both to 0, or take method 'pivotrl'"
        )
    if c.patience and not config.validation.every:
        raise InputError(
            f"config.reprofile.patience is {c.patience} and config.validation.every is 0, so there is "
            "no validation to wait for; validate every few steps, or set patience to 0"
        )


def check_training(config: Any) -> None:
    """What must hold for training to learn what it samples. Raises InputError."""
    if config.model.param_dtype != "float32" and not config.model.lora.rank:
        raise InputError(
            f"config.model.param_dtype is {config.model.param_dtype!r}; small updates are lost in it: "
            "train float32 parameters, or adapters (config.model.lora.rank) beside a frozen base"
        )
    _check_reprofiling(config)
    grpo = config.grpo
    if config.method == "e2e_rl":
        for name, values in E2E_ALLOWED.items():
            if grpo[name] not in values:
                raise InputError(
                    f"config.grpo.{name} is {grpo[name]!r}, which config.method 'e2e_rl' does not do; want "
                    f"{' or '.join(map(repr, values))}, or another method"
                )
    if grpo.kl_coefficient and grpo.kl_in == "reward" and grpo.kl_estimator != "k1":
        raise InputError(
            f"config.grpo.kl_estimator is {grpo.kl_estimator!r} with kl_in 'reward'; as a reward only k1 has "
            "the gradient of the KL: take it, or kl_in='loss'"
        )
    sampling = config.sampling
    if sampling.temperature <= 0:
        raise InputError(
            f"config.sampling.temperature is {sampling.temperature}; greedy samples have no probability to "
            "train on, want it above 0"
        )
    if sampling.top_p < 1 or sampling.top_k or sampling.min_p:
        raise InputError(
            f"config.sampling.top_p is {sampling.top_p}, top_k {sampling.top_k} and min_p {sampling.min_p}; "
            "the learner scores the whole distribution, so a truncated one biases every ratio: train with "
            "top_p=1, top_k=0 and min_p=0"
        )
