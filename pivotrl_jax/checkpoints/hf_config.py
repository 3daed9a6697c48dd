"""config.json <-> ModelConfig, by the field tables of models/families. Errors name every setting that is not
implemented."""

import json
from pathlib import Path
from typing import Any

from pivotrl_jax.checkpoints import hf_rope
from pivotrl_jax.checkpoints.hf_values import flag, positive
from pivotrl_jax.models.config import ModelConfig
from pivotrl_jax.models.families import FAMILIES, family_of
from pivotrl_jax.models.families.base import Family
from pivotrl_jax.models.rope import Llama3, Yarn
from pivotrl_jax.records import InputError

DTYPES = ("float32", "bfloat16")


def load_config(directory: str | Path, dtype: str | None = None) -> ModelConfig:
    """Read `directory`/config.json, of a checkpoint of one of models.families.FAMILIES.

    dtype: compute dtype; None takes the one that config.json names.
    Raises InputError for a missing or malformed file, for a missing or wrong field, and for settings that are
    not implemented.
    """
    path = Path(directory) / "config.json"
    values = _read(path)
    family = _family(values, path)
    _refuse_unimplemented(values, path)
    layers = positive(values, ("num_hidden_layers",), path, int)
    dense_layers = _dense_layers(values, layers, path) if family.moe_names else ()
    numbers = dict.fromkeys(("mlp_size", "expert_size", "num_experts", "experts_per_token"), 0)
    config = ModelConfig(
        **numbers
        | {"norm_topk_prob": False, "attention_bias": False, "mlp_bias": False}
        | _family_fields(family, values, path, all_moe=bool(family.moe_names) and not dense_layers),
        model_type=family.model_type,
        dense_layers=dense_layers,
        rope_theta=hf_rope.read_theta(values, path, family.rope_theta),
        rope_scaling=hf_rope.read_scaling(values, path),
        dtype=_dtype(values, dtype, path),
        lora=None,
    )
    _check_sizes(config, path)
    return config


def _family_fields(family: Family, values: dict, path: Path, all_moe: bool) -> dict[str, Any]:
    """The fields of the family's table. `all_moe`: every layer has experts, so there is no dense MLP size."""
    found: dict[str, Any] = {}
    for field in family.fields:
        if field.name == "mlp_size" and all_moe:
            continue
        if field.kind is bool:
            found[field.name] = flag(values, field.keys[0], path, field.default)
        elif field.default and all(values.get(key) is None for key in field.keys):
            found[field.name] = found[field.default]
        elif field.name == "head_dim" and values.get("head_dim") is None and family.head_dim_optional:
            size, remainder = divmod(found["hidden_size"], found["num_heads"])
            found["head_dim"] = size if not remainder else positive(values, field.keys, path, int)
        else:
            found[field.name] = positive(values, field.keys, path, field.kind)
    return found


def _check_sizes(config: ModelConfig, path: Path) -> None:
    if config.num_heads % config.num_kv_heads:
        raise InputError(
            f"{path}: num_attention_heads {config.num_heads} is not a multiple of num_key_value_heads "
            f"{config.num_kv_heads}; fix the file"
        )
    if config.head_dim % 2:
        raise InputError(
            f"{path}: head_dim {config.head_dim} is odd, but RoPE rotates pairs of dimensions; fix the file"
        )
    if config.experts_per_token > config.num_experts:
        raise InputError(
            f"{path}: num_experts_per_tok {config.experts_per_token} is more than num_experts "
            f"{config.num_experts}; fix the file"
        )


def _read(path: Path) -> dict:
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a Hugging Face checkpoint directory")
    try:
        values = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as e:
        raise InputError(f"{path}: not valid JSON ({e}); download it again") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: a JSON {type(values).__name__}, want an object; download it again")
    return values


def _family(values: dict, path: Path) -> Family:
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise InputError(f"{path}: model_type {kind!r} is not implemented; use one of {sorted(FAMILIES)}")
    family = FAMILIES[kind]
    architectures = values.get("architectures") or [family.architecture]
    if architectures != [family.architecture]:
        raise InputError(
            f"{path}: architectures {architectures} is not implemented; want {[family.architecture]}"
        )
    return family


def _refuse_unimplemented(values: dict, path: Path) -> None:
    kinds = values.get("layer_types") or []
    checks = {
        "hidden_act": values.get("hidden_act", "silu") != "silu",
        "attention_dropout": bool(values.get("attention_dropout")),
        "use_sliding_window": bool(values.get("use_sliding_window")),
        "layer_types": not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds),
        "quantization_config": bool(values.get("quantization_config")),
    }
    for name, refused in checks.items():
        if refused:
            raise InputError(
                f"{path}: {name} {values.get(name)!r} is not implemented; use another checkpoint"
            )


def _dense_layers(values: dict, layers: int, path: Path) -> tuple[int, ...]:
    """The layers without experts, by the rule of transformers' Qwen3MoeDecoderLayer."""
    value = values.get("mlp_only_layers")
    listed = [] if value is None else value
    whole = isinstance(listed, list) and all(isinstance(i, int) and not isinstance(i, bool) for i in listed)
    if not whole or any(not 0 <= i < layers for i in listed) or len(set(listed)) < len(listed):
        raise InputError(
            f"{path}: mlp_only_layers is {value!r}, want a list of different layers from 0 to {layers - 1}; "
            "fix the file"
        )
    step = values.get("decoder_sparse_step")
    step = 1 if step is None else positive(values, ("decoder_sparse_step",), path, int)
    dense = tuple(i for i in range(layers) if i in listed or (i + 1) % step)
    if len(dense) == layers:
        raise InputError(
            f"{path}: mlp_only_layers {listed} and decoder_sparse_step {step} leave none of {layers} layers "
            "with experts; fix the file"
        )
    return dense


def _dtype(values: dict, requested: str | None, path: Path) -> str:
    dtype = requested or values.get("dtype") or values.get("torch_dtype")
    if dtype not in DTYPES:
        where = "asked for" if requested else "in the file"
        raise InputError(
            f"{path}: dtype {dtype!r} ({where}) is not implemented; ask for one of {list(DTYPES)}"
        )
    return dtype


def context_length(directory: str | Path) -> int | None:
    """The positions that the model was made for, with its RoPE scaling; None if config.json does not say."""
    path = Path(directory) / "config.json"
    values = _read(path)
    if values.get("max_position_embeddings") is None:
        return None
    length, scaling = (
        positive(values, ("max_position_embeddings",), path, int),
        hf_rope.read_scaling(values, path),
    )
    if scaling is None:
        return length
    # of linear scaling, files say the length before; of the others, before or after
    before = getattr(scaling, "original_max_position_embeddings", length)
    return max(length, round(scaling.factor * before))


def config_to_json(config: ModelConfig, source_directory: str | Path | None, dtype: str) -> dict:
    """The config.json of an export: the fields of the source, if any, overridden by those of `config`.
    Transformers 4 and 5 read the same model from it."""
    source = Path(source_directory) / "config.json" if source_directory is not None else None
    values = _read(source) if source is not None and source.is_file() else {}
    for stale in (
        "num_local_experts",
        "dtype",
        "torch_dtype",
        "transformers_version",
        "quantization_config",
        "original_max_position_embeddings",
        "partial_rotary_factor",
    ):
        values.pop(stale, None)
    family = family_of(config)
    length, scaling = values.get("max_position_embeddings"), config.rope_scaling
    if isinstance(scaling, Yarn) or (isinstance(scaling, Llama3) and not length):
        # of YaRN, transformers before 4.57 takes the ratio of the two lengths as the factor
        length = round(scaling.factor * scaling.original_max_position_embeddings)
    fields = {field.keys[0]: getattr(config, field.name) for field in family.fields}
    if not config.mlp_size:
        del fields["intermediate_size"]  # every layer has experts; the source's value stays
    values |= {"architectures": [family.architecture], "model_type": family.model_type}
    values |= fields | {
        "hidden_act": "silu",
        "max_position_embeddings": length or 32768,  # transformers' default
        **hf_rope.to_json(config),
        "torch_dtype": dtype,  # read by every version
    }
    if family.moe_names:
        values |= {"decoder_sparse_step": 1, "mlp_only_layers": list(config.dense_layers)}
    if "layer_types" in values:
        values["layer_types"] = ["full_attention"] * config.num_layers
    return values
