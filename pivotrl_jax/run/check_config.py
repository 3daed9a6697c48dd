"""Checks a config before any work is done: each field against options.py, and the fields against each
other."""

import sys
from typing import Any

from ml_collections import ConfigDict

from pivotrl_jax import environments, verifiers
from pivotrl_jax.records import InputError
from pivotrl_jax.run import explain, fields, paths
from pivotrl_jax.run.options import OPTIONS, SECTIONS

# the values of config.grpo's fields that "e2e_rl" supports; its batches hold episodes of many turns
E2E_ALLOWED = {
    "loss": ("grpo",),
    "aggregation": ("token_mean",),
    "kl_coefficient": (0.0,),
    "dynamic_rounds": (0,),
    "skip_below": (0.0,),
    "demonstration_in_failed_groups": (False,),
    "kl_budget": (0.0,),
    "malformed_advantage": (0.0,),
    "advantage_clip": (0.0,),
    "mask_unfinished": (False,),
    "router": ("train", "frozen"),
    "routing_agreement": (False,),
}


def check(config: Any) -> None:
    """Raises InputError naming the field, its value and what it should be. Fields that name an entry of a
    table (`grpo.loss`) are checked by `cli.start` and by the learner, which know the tables.

    Verifiers of the user's own that the config names are imported here and registered under these names, and
    `~` in its paths is expanded.
    """
    _check_fields(config)
    fields.check_values(config, OPTIONS.values())
    paths.expand(config)
    if config.reward != "functional":
        verifiers.register(config.reward, "config.reward")
    if config.data.verifier:
        verifiers.register(config.data.verifier, "config.data.verifier")
    if not config.rollouts.base_url:
        _check_rows(config)
    elif not config.rollouts.model:
        raise InputError(
            f"config.rollouts.base_url is {config.rollouts.base_url!r} and config.rollouts.model is ''; name "
            "the served model"
        )
    if config.data.min_pass_rate > config.data.max_pass_rate:
        raise InputError(
            f"config.data.min_pass_rate is {config.data.min_pass_rate}, above config.data.max_pass_rate, "
            f"{config.data.max_pass_rate}; no row could be kept"
        )
    _check_folds(config.data)
    _check_screen(config)
    if environments.is_name(config.data.source):
        environments.find(config.data.source).check_config(config)


def _check_fields(section: Any, prefix: str = "") -> None:
    """Raises InputError for a field that nothing reads, such as a misspelt one in the user's config file.
    What is below an option (`data.verifier_options`) is free."""
    for name in section:
        path, value = prefix + name, section[name]
        if path in OPTIONS:
            continue
        if path not in SECTIONS:
            raise InputError(f"config.{path} is a field that nothing reads; {explain.meant(path)}")
        if not isinstance(value, ConfigDict):
            raise InputError(f"config.{path} is {value!r}; it is a section, so set the fields in it")
        _check_fields(value, f"{path}.")


def _check_rows(config: Any) -> None:
    row_lengths = config.compute.row_lengths
    longest = config.data.max_prompt_tokens + config.sampling.max_tokens
    if longest > max(row_lengths):
        raise InputError(
            f"config.data.max_prompt_tokens + config.sampling.max_tokens is {longest}, more than the longest "
            f"row of config.compute.row_lengths, {max(row_lengths)}; a prompt and its completion must fit "
            "one row"
        )


def _check_folds(data: Any) -> None:
    """What must hold for a split by folds."""
    named = [*data.train_folds, *data.held_out_folds]
    if data.folds and not data.train_folds:
        raise InputError(
            f"config.data.folds is {data.folds} and config.data.train_folds is empty, so nothing is trained "
            "on; name the folds, e.g. (0,)"
        )
    if len(set(named)) < len(named) or any(fold >= data.folds for fold in named):
        raise InputError(
            f"config.data.train_folds is {tuple(data.train_folds)} and config.data.held_out_folds "
            f"{tuple(data.held_out_folds)}, with config.data.folds {data.folds}; want different numbers "
            "below config.data.folds, each named once"
        )


def _check_screen(config: Any) -> None:
    """What must hold for demonstrations to be scored before a profile."""
    c, sampling = config.profile.screen, config.sampling
    if c.probability and config.rollouts.base_url:
        raise InputError(
            f"config.profile.screen.probability is {c.probability}, which needs the weights, and "
            f"config.rollouts.base_url is {config.rollouts.base_url!r}: a served model gives no log-prob of "
            "a demonstration; set the probability to 0, or profile with the own sampler"
        )
    cut = sampling.top_p < 1 or sampling.top_k or sampling.min_p
    if c.probability and (sampling.temperature <= 0 or cut):
        raise InputError(
            f"config.profile.screen.probability is {c.probability}, a chance under the whole distribution, "
            f"and config.sampling.temperature is {sampling.temperature}, top_p {sampling.top_p}, top_k "
            f"{sampling.top_k} and min_p {sampling.min_p}; set the probability to 0, or sample with a "
            "temperature above 0, top_p=1, top_k=0 and min_p=0"
        )


def _check_reprofiling(config: Any) -> None:
    """What must hold for the policy to be profiled again while training."""
    c = config.reprofile
    on = [f"config.reprofile.{name} is {c[name]!r}" for name in ("std_fraction", "patience") if c[name]]
    if on and config.method != "pivotrl":
        raise InputError(
            f"{' and '.join(on)}, which config.method {config.method!r} does not do: it has no pivots to "
            "find anew; set both to 0, or take method 'pivotrl'"
        )
    if on and config.grpo.kl_budget:
        raise InputError(
            f"{' and '.join(on)}, and config.grpo.kl_budget is {config.grpo.kl_budget}: a run that stops by "
            "its KL is not profiled again; set one of them to 0"
        )
    if c.patience and not config.validation.every:
        raise InputError(
            f"config.reprofile.patience is {c.patience} and config.validation.every is 0, so there is "
            "no validation to wait for; validate every few steps, or set patience to 0"
        )
    if c.std_fraction and c.std_window >= config.grpo.steps:
        raise InputError(
            f"config.reprofile.std_window is {c.std_window} and config.grpo.steps is {config.grpo.steps}, so "
            "training ends before a second window; take a shorter window, or set std_fraction to 0"
        )


def _check_served_training(config: Any) -> None:
    """What must hold for training on rollouts of an endpoint."""
    c, grpo = config.rollouts, config.grpo
    why = None
    if not c.base_url:
        why = "config.rollouts.base_url is '': name the endpoint, or set train to False"
    elif c.reload == "none":
        why = (
            "config.rollouts.reload is 'none', so the server would keep its weights: take 'vllm' or 'sglang'"
        )
    elif c.mode == "chat":
        why = "config.rollouts.mode is 'chat', which gives no token ids to train on: take 'completions'"
    elif config.method not in ("pivotrl", "random_turns"):
        why = f"config.method {config.method!r} draws with the own sampler: set train to False"
    elif config.sampling.temperature != 1:
        why = (
            f"config.sampling.temperature is {config.sampling.temperature}, at which servers differ in what "
            "their log-probs mean: set it to 1"
        )
    elif grpo.router == "replay" or grpo.routing_agreement:
        why = (
            "config.grpo.router 'replay' and config.grpo.routing_agreement need the sampler's experts, which "
            "no endpoint gives: take another router, and routing_agreement=False"
        )
    if why:
        raise InputError(f"config.rollouts.train is True and {why}")


def _check_endpoint_is_asked(config: Any) -> None:
    c = config.rollouts
    if c.base_url and not c.train and config.method != "pivotrl":
        raise InputError(
            f"config.rollouts.base_url is {c.base_url!r}, and config.method {config.method!r} makes no "
            "profile, so that nobody would be asked: set base_url to ''"
            + (", or rollouts.train to True" if config.method == "random_turns" else "")
        )


def _check_validation(config: Any) -> None:
    every, steps = config.validation.every, config.grpo.steps
    if config.method != "sft" and every > steps:  # how many steps sft takes, its data decide
        raise InputError(
            f"config.validation.every is {every} and config.grpo.steps is {steps}, so data would be set "
            "aside and never validated on; validate more often, or set every to 0"
        )


def _check_moments(config: Any) -> None:
    name = "sft" if config.method == "sft" else "grpo"
    c = config[name]
    for decay in ("b1", "b2"):
        if c.optimizer_dtype == "bfloat16" and 1 - c[decay] < 2**-8:
            raise InputError(
                f"config.{name}.{decay} is {c[decay]} and config.{name}.optimizer_dtype is 'bfloat16', in "
                "which a moment that falls by so little a step is rounded back, and never falls: take "
                "float32, or a decay of 0.996 or less"
            )


def check_profile(config: Any) -> None:
    """Warn of a profile that can find no pivot, at least with rewards of 0 and 1."""
    c, temperature = config.profile, config.sampling.temperature
    found = []
    if temperature <= 0:
        found.append(
            f"config.sampling.temperature is {temperature}: greedy samples of a candidate are all alike, so "
            "none can be a pivot; set it above 0"
        )
    if c.group_size < 2:
        found.append(f"config.profile.group_size is {c.group_size}: one sample is never mixed; draw more")
    elif c.lambda_diff * c.group_size <= 1 and not c.keep_all_fail:
        found.append(
            f"config.profile.lambda_diff is {c.lambda_diff} with {c.group_size} samples: with rewards of 0 "
            f"and 1 no mixed group has a mean below it; raise it above {1 / c.group_size:g}, or draw more "
            "samples"
        )
    for sentence in found:
        print(f"warning: {sentence}", file=sys.stderr)


def check_training(config: Any) -> None:
    """What must hold for training to learn what it samples. Raises InputError."""
    _check_rows(config)
    if config.rollouts.train:
        _check_served_training(config)
    _check_endpoint_is_asked(config)
    _check_validation(config)
    _check_moments(config)
    if config.model.param_dtype != "float32" and not config.model.lora.rank:
        raise InputError(
            f"config.model.param_dtype is {config.model.param_dtype!r}; small updates are lost in it: "
            "train float32 parameters, or adapters (config.model.lora.rank) beside a frozen base"
        )
    if config.profile.shard:
        raise InputError(
            f"config.profile.shard is {config.profile.shard!r}: a share of a profile is not trained on; make "
            "it with find_pivots, put all shares together with merge_profiles, and train in the directory "
            "that it writes, without config.profile.shard"
        )
    _check_reprofiling(config)
    grpo = config.grpo
    if config.method == "e2e_rl":
        if config.reward != "functional":
            raise InputError(
                f"config.reward is {config.reward!r}, and config.method 'e2e_rl' is rewarded by the "
                "episode's own check: take config.reward='functional', or another method"
            )
        for name, values in E2E_ALLOWED.items():
            if grpo[name] not in values:
                raise InputError(
                    f"config.grpo.{name} is {grpo[name]!r}, which config.method 'e2e_rl' does not do; want "
                    f"{' or '.join(map(repr, values))}, or another method"
                )
    if grpo.demonstration_in_failed_groups and (grpo.router == "replay" or grpo.routing_agreement):
        raise InputError(
            "config.grpo.demonstration_in_failed_groups is True, and config.grpo.router 'replay' and "
            "config.grpo.routing_agreement need the experts that a sampler chose, which no demonstration "
            "has: take another router, and routing_agreement=False"
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
            "train on; set it above 0"
        )
    if sampling.top_p < 1 or sampling.top_k or sampling.min_p:
        raise InputError(
            f"config.sampling.top_p is {sampling.top_p}, top_k {sampling.top_k} and min_p {sampling.min_p}; "
            "the learner scores the whole distribution, so a truncated one biases every ratio: train with "
            "top_p=1, top_k=0 and min_p=0"
        )
    if config.method == "pivotrl":
        check_profile(config)
