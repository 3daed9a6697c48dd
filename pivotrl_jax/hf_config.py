"""config.json <-> ModelConfig, for dense Qwen3 and Qwen3-MoE. The rest is refused by name."""

import json
from pathlib import Path
from typing import Any

from pivotrl_jax.model import ModelConfig
from pivotrl_jax.records import InputError

ARCHITECTURES = {"qwen3": "Qwen3ForCausalLM", "qwen3_moe": "Qwen3MoeForCausalLM"}
DTYPES = ("float32", "bfloat16")


def load_config(directory: str | Path, dtype: str | None = None) -> ModelConfig:
    """Read `directory`/config.json of a Qwen3ForCausalLM or Qwen3MoeForCausalLM checkpoint.

    dtype: compute dtype; None takes the one config.json names.
    Raises InputError for a missing or malformed file, a missing or wrong field, and what is not implemented.
    """
    path = Path(directory) / "config.json"
    values = _read(path)
    moe = _check_kind(values, path) == "qwen3_moe"
    _refuse_unimplemented(values, path)

    def count(*names: str) -> int:
        return _positive(values, names, path, int)

    heads, hidden = count("num_attention_heads"), count("hidden_size")
    if moe and "head_dim" not in values and hidden % heads == 0:
        head_dim = (
            hidden // heads
        )  # the rule of transformers' Qwen3MoeAttention, whose config may lack the field
    else:
        head_dim = count("head_dim")
    config = ModelConfig(
        vocab_size=count("vocab_size"),
        hidden_size=hidden,
        num_layers=count("num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=count("num_key_value_heads"),
        head_dim=head_dim,
        mlp_size=count("moe_intermediate_size" if moe else "intermediate_size"),
        # transformers 5 renames the field when it saves
        num_experts=count("num_experts", "num_local_experts") if moe else 0,
        experts_per_token=count("num_experts_per_tok") if moe else 0,
        norm_topk_prob=_flag(values, "norm_topk_prob", path) if moe else False,
        rope_theta=_rope_theta(values, path),
        rms_norm_eps=_positive(values, ("rms_norm_eps",), path, float),
        tie_embeddings=_flag(values, "tie_word_embeddings", path),
        dtype=_dtype(values, dtype, path),
    )
    if config.num_heads % config.num_kv_heads:
        raise InputError(
            f"{path}: num_attention_heads {config.num_heads} is not a multiple of num_key_value_heads "
            f"{config.num_kv_heads}; fix the file"
        )
    if config.head_dim % 2:
        raise InputError(f"{path}: head_dim {config.head_dim} is odd, and RoPE turns pairs; fix the file")
    if config.experts_per_token > config.num_experts:
        raise InputError(
            f"{path}: num_experts_per_tok {config.experts_per_token} is more than num_experts "
            f"{config.num_experts}; fix the file"
        )
    return config


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


def _check_kind(values: dict, path: Path) -> str:
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        raise InputError(
            f"{path}: model_type {kind!r} is not implemented; use one of {sorted(ARCHITECTURES)}"
        )
    architectures = values.get("architectures") or [ARCHITECTURES[kind]]
    if architectures != [ARCHITECTURES[kind]]:
        raise InputError(
            f"{path}: architectures {architectures} is not implemented; want {[ARCHITECTURES[kind]]}"
        )
    return kind


def _refuse_unimplemented(values: dict, path: Path) -> None:
    rope = values.get("rope_parameters") or {}
    scaling = values.get("rope_scaling") or rope
    checks = {
        "hidden_act": values.get("hidden_act") != "silu",
        "attention_bias": bool(values.get("attention_bias")),
        "attention_dropout": bool(values.get("attention_dropout")),
        "use_sliding_window": bool(values.get("use_sliding_window")),
        "layer_types": any(kind != "full_attention" for kind in values.get("layer_types") or ()),
        "mlp_only_layers": bool(values.get("mlp_only_layers")),
        "decoder_sparse_step": values.get("decoder_sparse_step", 1) != 1,
        "quantization_config": bool(values.get("quantization_config")),
    }
    for name, refused in checks.items():
        if refused:
            raise InputError(
                f"{path}: {name} {values.get(name)!r} is not implemented; use another checkpoint"
            )
    if not isinstance(scaling, dict) or not isinstance(rope, dict):
        raise InputError(f"{path}: RoPE settings {scaling!r} are not an object; fix the file")
    for settings in (scaling, rope):
        kind = settings.get("rope_type", settings.get("type", "default"))
        if kind != "default":
            raise InputError(
                f"{path}: rope scaling of type {kind!r} is not implemented; use another checkpoint"
            )
    if values.get("partial_rotary_factor", rope.get("partial_rotary_factor", 1)) != 1:
        raise InputError(f"{path}: partial_rotary_factor is not implemented; use another checkpoint")


def _rope_theta(values: dict, path: Path) -> float:
    rope = values.get("rope_parameters") or {}
    found = [s for s in (values, rope) if s.get("rope_theta") is not None]
    if not found:
        raise InputError(f"{path}: rope_theta is missing (it differs between checkpoints); fix the file")
    thetas = [_positive(s, ("rope_theta",), path, float) for s in found]
    if thetas[0] != thetas[-1]:
        raise InputError(
            f"{path}: rope_theta is {thetas[0]} but rope_parameters says {thetas[-1]}; fix the file"
        )
    return thetas[0]


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


def _flag(values: dict, name: str, path: Path) -> bool:
    if not isinstance(values.get(name), bool):
        raise InputError(f"{path}: {name} is {values.get(name)!r}, want true or false; fix the file")
    return values[name]


def _dtype(values: dict, asked: str | None, path: Path) -> str:
    dtype = asked or values.get("dtype") or values.get("torch_dtype")
    if dtype not in DTYPES:
        where = "asked for" if asked else "in the file"
        raise InputError(
            f"{path}: dtype {dtype!r} ({where}) is not implemented; ask for one of {list(DTYPES)}"
        )
    return dtype


def config_to_json(config: ModelConfig, source_directory: str | Path | None, dtype: str) -> dict:
    """The config.json of an export: the fields of the source, if any, with `config`'s numbers over them."""
    source = Path(source_directory) / "config.json" if source_directory is not None else None
    values = _read(source) if source is not None and source.is_file() else {}
    for renamed in (
        "num_local_experts",
        "dtype",
        "torch_dtype",
        "transformers_version",
        "quantization_config",
    ):
        values.pop(renamed, None)
    kind = "qwen3_moe" if config.num_experts else "qwen3"
    values |= {
        "architectures": [ARCHITECTURES[kind]],
        "model_type": kind,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "attention_bias": False,
        "rms_norm_eps": config.rms_norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        # transformers 5 reads rope_parameters; everything older reads rope_theta
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "torch_dtype": dtype,  # read by every version
    }
    if config.num_experts:
        values |= {
            "moe_intermediate_size": config.mlp_size,
            "num_experts": config.num_experts,
            "num_experts_per_tok": config.experts_per_token,
            "norm_topk_prob": config.norm_topk_prob,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        }
    else:
        values["intermediate_size"] = config.mlp_size
    if "layer_types" in values:
        values["layer_types"] = ["full_attention"] * config.num_layers
    return values
