"""The RoPE settings of config.json, in the spellings of transformers 4 and 5, by transformers' rules."""

import dataclasses
import math
from pathlib import Path

from pivotrl_jax.checkpoints.hf_values import flag, positive
from pivotrl_jax.models.config import ModelConfig
from pivotrl_jax.models.rope import Linear, Llama3, RopeScaling, Yarn
from pivotrl_jax.records import InputError

SPELLINGS = ("rope_scaling", "rope_parameters")  # transformers 4's and transformers 5's
LENGTHS = ("original_max_position_embeddings", "max_position_embeddings")


def read_theta(values: dict, path: Path, default: float | None) -> float:
    """rope_theta, wherever the file has it; `default`, if the family has one, for a file without."""
    found = [("config.json", values), *_settings(values, path)]
    for _, settings in found:
        partial = settings.get("partial_rotary_factor")
        if partial not in (None, 1):
            raise InputError(
                f"{path}: partial_rotary_factor {partial!r} is not implemented; use another checkpoint"
            )
    found = [(name, settings) for name, settings in found if settings.get("rope_theta") is not None]
    if not found and default is None:
        raise InputError(f"{path}: rope_theta is missing (it differs between checkpoints); fix the file")
    thetas = [positive(settings, ("rope_theta",), path, float) for _, settings in found]
    for (name, _), theta in zip(found, thetas):
        if theta != thetas[0]:
            raise InputError(f"{path}: rope_theta is {thetas[0]} but {name} says {theta}; fix the file")
    return thetas[0] if thetas else default


def read_scaling(values: dict, path: Path) -> RopeScaling | None:
    """None for plain RoPE. Raises InputError for kinds that are not implemented and for wrong numbers."""
    read = [_read(values, settings, path) for _, settings in _settings(values, path)]
    if len(read) == 2 and read[0] != read[1]:
        raise InputError(f"{path}: rope_scaling and rope_parameters differ; remove the wrong one")
    return read[0] if read else None


def to_json(config: ModelConfig) -> dict:
    """Both spellings. Transformers 5 reads rope_parameters; everything older rope_theta and rope_scaling."""
    scaling = config.rope_scaling
    rope = {"rope_type": scaling.kind, **dataclasses.asdict(scaling)} if scaling else {"rope_type": "default"}
    return {
        "rope_theta": config.rope_theta,
        "rope_scaling": rope if scaling else None,
        "rope_parameters": rope | {"rope_theta": config.rope_theta},
    }


def _settings(values: dict, path: Path) -> list[tuple[str, dict]]:
    """(name, settings) of every object of RoPE settings that is there and not empty."""
    found = [(name, values[name]) for name in SPELLINGS if values.get(name)]
    for name, settings in found:
        if not isinstance(settings, dict):
            raise InputError(f"{path}: {name} is {settings!r}, want an object; fix the file")
        if any(isinstance(value, dict) for value in settings.values()):
            raise InputError(
                f"{path}: {name} with an entry per type of layer is not implemented; use another checkpoint"
            )
    return found


def _read(values: dict, settings: dict, path: Path) -> RopeScaling | None:
    kinds = [settings[name] for name in ("rope_type", "type") if settings.get(name) is not None]
    kind = kinds[0] if kinds else "default"
    if not isinstance(kind, str) or kind not in ("default", *READERS) or kinds[1:] not in ([], [kind]):
        named = " and ".join(map(repr, kinds))
        raise InputError(
            f"{path}: rope scaling of type {named} is not implemented, only {', '.join(READERS)} are; use "
            "another checkpoint"
        )
    return READERS[kind](values, settings, path) if kind in READERS else None


def _read_linear(values: dict, settings: dict, path: Path) -> Linear:
    return Linear(_at_least_one(positive(settings, ("factor",), path, float), path))


def _read_llama3(values: dict, settings: dict, path: Path) -> Llama3:
    factor, low, high = (
        positive(settings, (name,), path, float) for name in ("factor", "low_freq_factor", "high_freq_factor")
    )
    if high <= low:
        raise InputError(
            f"{path}: rope scaling with low_freq_factor {low} and high_freq_factor {high}, want the second "
            "above the first; fix the file"
        )
    return Llama3(_at_least_one(factor, path), low, high, _original_length(values, settings, path))


def _at_least_one(factor: float, path: Path) -> float:
    if factor < 1:
        raise InputError(f"{path}: rope scaling with factor {factor}, want at least 1; fix the file")
    return factor


def _original_length(values: dict, settings: dict, path: Path) -> int:
    # the lengths outside the RoPE settings override those inside, as in transformers' standardize_rope_params
    outside = {name: values[name] for name in LENGTHS if values.get(name) is not None}
    return positive(settings | outside, LENGTHS, path, int)


def _read_yarn(values: dict, settings: dict, path: Path) -> Yarn:
    """YaRN with the defaults of transformers' `_compute_yarn_parameters`."""

    def number(name: str, default: float | None) -> float | None:
        value = settings.get(name)
        return default if value is None or value == 0 else positive(settings, (name,), path, float)

    original = _original_length(values, settings, path)
    if "factor" not in settings:
        raise InputError(f"{path}: factor of YaRN is missing; fix the file")
    if settings["factor"] is None:
        factor = positive(values, ("max_position_embeddings",), path, int) / original
    else:
        factor = positive(settings, ("factor",), path, float)
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
        attention_factor = positive(settings, ("attention_factor",), path, float)
    truncate = flag(settings, "truncate", path, True)
    return Yarn(factor, original, beta_fast, beta_slow, attention_factor, truncate)


def _mscale(factor: float, scale: float) -> float:
    return 0.1 * scale * math.log(factor) + 1


READERS = {"linear": _read_linear, "llama3": _read_llama3, "yarn": _read_yarn}
