"""Adapters as a PEFT checkpoint: adapter_config.json and adapter_model.safetensors, beside the merged export.

Names are those of the base checkpoint's tensors, one adapter for each expert. PEFT 0.21 puts those together
for the fused experts of transformers 5 (its transformers_weight_conversion.py treats Qwen3-MoE as Qwen2-MoE).
It then warns that a rank_pattern matched no module: the pattern matched the parameter gate_up_proj instead.
tests/checkpoints/test_peft_export.py loads dense, expert and mixed models with it. vLLM and SGLang use the
same names for Qwen3-MoE adapters; neither has been tried.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from pivotrl_jax.checkpoints.hf import TEMPLATE
from pivotrl_jax.checkpoints.hf_files import appearing, write_tensors
from pivotrl_jax.checkpoints.hf_layout import Place, leaf, places
from pivotrl_jax.models import sharding
from pivotrl_jax.models.config import ModelConfig
from pivotrl_jax.models.lora import MARK
from pivotrl_jax.records import InputError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FILES = (CONFIG, WEIGHTS, TEMPLATE)  # all that an adapter consists of
PREFIX = "base_model.model."  # of PEFT's names: the model inside its wrappers


def save_adapter(
    directory: str | Path, config: ModelConfig, params: dict, base: str, chat_template: str | None = None
) -> None:
    """Write the adapters among `params`, for `peft.PeftModel.from_pretrained(model, directory)`.

    base: name or directory of the checkpoint they were trained on. chat_template: its text, if it is not the
    base's; PEFT does not read it, `locate` does. Tensors keep their dtype, and all of them are in host memory
    at once. With several processes all must call this: the first one writes, and none returns before it is
    done. The directory appears whole or not at all; an older adapter is replaced.
    Raises InputError when `directory` holds anything but an adapter.
    """
    directory = Path(os.path.abspath(directory))
    if directory.exists() and not (directory.is_dir() and _replaceable(directory)):
        raise InputError(f"{directory}: exists and is not an adapter; name another directory to export to")
    first, tensors = jax.process_index() == 0, {}
    for name, x in _tensors(config, params):
        tensors |= {name: x} if first else {}
    if first:
        with appearing(directory, FILES) as temporary:
            text = json.dumps(adapter_config(config, base), indent=2) + "\n"
            (temporary / CONFIG).write_text(text, "utf-8")
            write_tensors(temporary / WEIGHTS, tensors)
            if chat_template is not None:
                (temporary / TEMPLATE).write_text(chat_template, "utf-8")
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"saved {directory}")


def adapter_config(config: ModelConfig, base: str) -> dict:
    """adapter_config.json: the fields of PEFT's LoraConfig that say what the tensors mean."""
    matrices = _matrices(config)
    values = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": config.lora.rank,
        "lora_alpha": config.lora.alpha,
        "target_modules": list(dict.fromkeys(_module(place).rpartition(".")[2] for place in matrices)),
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    dense = [p for p in matrices if p.path[-1] in ("gate", "up", "down") and len(p.index) == 1]
    if config.num_experts and dense:
        # In a model with experts, PEFT applies gate_proj etc. to the experts alone and silently skips the
        # dense layers' matrices. It does find those as parameters, and their tensors have the same names.
        values["target_parameters"] = [f"mlp.{name}_proj.weight" for name in ("gate", "up", "down")]
    return values


def _matrices(config: ModelConfig) -> list[Place]:
    """The matrices that have an adapter: all of a layer's except the router."""
    return [p for p in places(config) if p.index and len(p.axes) == 2 and p.path[-1] != "router"]


def _module(place: Place) -> str:
    """PEFT's name of a matrix."""
    return PREFIX + place.name.removesuffix(".weight")


def _tensors(config: ModelConfig, params: dict) -> Iterator[tuple[str, np.ndarray]]:
    """(name, array on this host) of every tensor of the adapter: A [U, inputs], B [outputs, U], heads
    folded."""
    current = None
    for place in _matrices(config):
        if current != (key := (place.path, place.index[0])):  # one copy per layer and matrix, not per expert
            current, group = key, leaf(params, place.path[:-1])
            a, b = (sharding.fetch(group[f"{place.path[-1]}{MARK}{x}"][place.index[0]]) for x in "ab")
        down, up = a[place.index[1:]], b[place.index[1:]]
        # contiguous, because safetensors writes the buffer and ignores strides
        yield f"{_module(place)}.lora_A.weight", np.ascontiguousarray(down.reshape(-1, down.shape[-1]).T)
        yield f"{_module(place)}.lora_B.weight", np.ascontiguousarray(up.reshape(len(up), -1).T)


def _replaceable(directory: Path) -> bool:
    return (directory / CONFIG).is_file() or not any(directory.iterdir())
