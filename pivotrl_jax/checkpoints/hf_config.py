"""config.json <-> ModelConfig, by the field tables of models/families. Errors name every setting that is not
implemented."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from pivotrl_jax.models.config import ModelConfig, Yarn
from pivotrl_jax.models.families import FAMILIES, family_of
from pivotrl_jax.models.families.base import Family
from pivotrl_jax.records import InputError

DTYPES = ("float32", "bfloat16")


# The names of the RoPE settings in config.json: transformers 4's and transformers 5's.
ROPE = ("rope_scaling", "rope_parameters")


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
    layers = _positive(values, ("num_hidden_layers",), path, int)
    dense_layers = _dense_layers(values, layers, path) if family.moe_names else ()
    numbers = dict.fromkeys(("mlp_size", "expert_size", "num_experts", "experts_per_token"), 0)
    config = ModelConfig(
        **numbers
        | {"norm_topk_prob": False, "attention_bias": False}
        | _family_fields(family, values, path, all_moe=bool(family.moe_names) and not dense_layers),
        dense_layers=dense_layers,
        rope_theta=_rope_theta(values, path),
        yarn=_yarn(values, path),
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
            found[field.name] = _flag(values, field.keys[0], path, field.default)
        elif field.name == "head_dim" and "head_dim" not in values and family.head_dim_optional:
            size, remainder = divmod(found["hidden_size"], found["num_heads"])
            found["head_dim"] = size if not remainder else _positive(values, field.keys, path, int)
        else:
            found[field.name] = _positive(values, field.keys, path, field.kind)
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
        "hidden_act": values.get("hidden_act") != "silu",
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
    step = 1 if step is None else _positive(values, ("decoder_sparse_step",), path, int)
    dense = tuple(i for i in range(layers) if i in listed or (i + 1) % step)
    if len(dense) == layers:
        raise InputError(
            f"{path}: mlp_only_layers {listed} and decoder_sparse_step {step} leave none of {layers} layers "
            "with experts; fix the file"
        )
    return dense


def _rope_settings(values: dict, path: Path) -> list[tuple[str, dict]]:
    """(name, settings) of every object of RoPE settings that is there and not empty."""
    found = [(name, values[name]) for name in ROPE if values.get(name)]
    for name, settings in found:
        if not isinstance(settings, dict):
            raise InputError(f"{path}: {name} is {settings!r}, want an object; fix the file")
        if any(isinstance(value, dict) for value in settings.values()):
            raise InputError(
                f"{path}: {name} with an entry per type of layer is not implemented; use another checkpoint"
            )
    return found


def _rope_theta(values: dict, path: Path) -> float:
    found = [("config.json", values), *_rope_settings(values, path)]
    for _, settings in found:
        partial = settings.get("partial_rotary_factor")
        if partial not in (None, 1):
            raise InputError(
                f"{path}: partial_rotary_factor {partial!r} is not implemented; use another checkpoint"
            )
    found = [(name, settings) for name, settings in found if settings.get("rope_theta") is not None]
    if not found:
        raise InputError(f"{path}: rope_theta is missing (it differs between checkpoints); fix the file")
    thetas = [_positive(settings, ("rope_theta",), path, float) for _, settings in found]
    for (name, _), theta in zip(found, thetas):
        if theta != thetas[0]:
            raise InputError(f"{path}: rope_theta is {thetas[0]} but {name} says {theta}; fix the file")
    return thetas[0]


def _yarn(values: dict, path: Path) -> Yarn | None:
    found = _rope_settings(values, path)
    read = [_read_yarn(values, settings, path) for _, settings in found]
    if len(read) == 2 and read[0] != read[1]:
        raise InputError(f"{path}: rope_scaling and rope_parameters differ; remove the wrong one")
    return read[0] if read else None


def _read_yarn(values: dict, settings: dict, path: Path) -> Yarn | None:
    """YaRN with the defaults of transformers' `_compute_yarn_parameters`; None for plain RoPE."""
    kinds = [settings[name] for name in ("rope_type", "type") if settings.get(name) is not None]
    kind = kinds[0] if kinds else "default"
    if kind not in ("default", "yarn") or kinds[1:] not in ([], [kind]):
        named = " and ".join(map(repr, kinds))
        raise InputError(
            f"{path}: rope scaling of type {named} is not implemented, only 'yarn' is; use another checkpoint"
        )
    if kind == "default":
        return None

    def number(name: str, default: float | None) -> float | None:
        value = settings.get(name)
        return default if value is None or value == 0 else _positive(settings, (name,), path, float)

    names = ("original_max_position_embeddings", "max_position_embeddings")
    # the lengths outside the RoPE settings override those inside, as in transformers' standardize_rope_params
    outside = {name: values[name] for name in names if values.get(name) is not None}
    original = _positive(settings | outside, names, path, int)
    if "factor" not in settings:
        raise InputError(f"{path}: factor of YaRN is missing; fix the file")
    if settings["factor"] is None:
        factor = _positive(values, ("max_position_embeddings",), path, int) / original
    else:
        factor = _positive(settings, ("factor",), path, float)
    beta_fast, beta_slow = number("beta_fast", 32.0), number("beta_slow", 1.0)
    if factor < 1 or beta_fast < beta_slow:
        raise InputError(
            f"{path}: YaRN with factor {factor}, beta_fast {beta_fast} and beta_slow {beta_slow}, want a "
            "factor of at least 1 and beta_fast not below beta_slow; fix the file"
        )
    if settings.get("attention_factor") is None:
        mscale, all_dim = number("mscale", None), number("mscale_all_dim", None)
        both = mscale and all_dim
        attention_factor = _mscale(factor, mscale) / _mscale(factor, all_dim) if both else _mscale(factor, 1)
    else:
        attention_factor = _positive(settings, ("attention_factor",), path, float)
    truncate = _flag(settings, "truncate", path, True)
    return Yarn(factor, original, beta_fast, beta_slow, attention_factor, truncate)


def _mscale(factor: float, scale: float) -> float:
    return 0.1 * scale * math.log(factor) + 1


def _positive(values: dict, names: tuple[str, ...], path: Path, kind: type) -> Any:
    for name in names:
        if values.get(name) is not None:
            value = values[name]
            right = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
            if not right or not 0 < value < 1e12:
                want = "a whole number above 0" if kind is int else "a number above 0"
                raise InputError(f"{path}: {name} is {value!r}, want {want}; fix the file")
            return kind(value)
    raise InputError(f"{path}: {names[0]} is missing; fix the file")


def _flag(values: dict, name: str, path: Path, missing: bool | None = None) -> bool:
    """A field that is true or false. `missing` is its value when it is absent; None makes it required."""
    if missing is not None and name not in values:
        return missing
    if not isinstance(values.get(name), bool):
        raise InputError(f"{path}: {name} is {values.get(name)!r}, want true or false; fix the file")
    return values[name]


def _dtype(values: dict, requested: str | None, path: Path) -> str:
    dtype = requested or values.get("dtype") or values.get("torch_dtype")
    if dtype not in DTYPES:
        where = "asked for" if requested else "in the file"
        raise InputError(
            f"{path}: dtype {dtype!r} ({where}) is not implemented; ask for one of {list(DTYPES)}"
        )
    return dtype


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
    rope: dict = {"rope_type": "default"}
    length = values.get("max_position_embeddings") or 32768  # transformers' default
    if config.yarn:
        y = config.yarn
        rope = {"rope_type": "yarn", **dataclasses.asdict(y)}
        # transformers before 4.57 takes the ratio of the two lengths as the factor
        length = round(y.factor * y.original_max_position_embeddings)
    fields = {field.keys[0]: getattr(config, field.name) for field in family.fields}
    if not config.mlp_size:
        del fields["intermediate_size"]  # every layer has experts; the source's value stays
    values |= {"architectures": [family.architecture], "model_type": family.model_type}
    values |= fields | {
        "hidden_act": "silu",
        "max_position_embeddings": length,
        # transformers 5 reads rope_parameters; everything older reads rope_theta and rope_scaling
        "rope_theta": config.rope_theta,
        "rope_scaling": rope if config.yarn else None,
        "rope_parameters": rope | {"rope_theta": config.rope_theta},
        "torch_dtype": dtype,  # read by every version
    }
    if family.moe_names:
        values |= {"decoder_sparse_step": 1, "mlp_only_layers": list(config.dense_layers)}
    if "layer_types" in values:
        values["layer_types"] = ["full_attention"] * config.num_layers
    return values
