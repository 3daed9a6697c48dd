"""A PEFT adapter as a checkpoint: LoRA matrices are added to their base, once, into the cache.

    adapter_config.json names the base; adapter_model.safetensors has A and B of every adapted matrix
    -> W + scale B A in float32, with tokenizer and chat template of the adapter's folder where it has them,
       else the base's

Every tensor of both files is accounted for. What changes the meaning of A and B and is not done here (DoRA,
patterns of ranks, initialisers that change the base, ...) is refused by name: of adapter_config.json only the
fields below are known, and any other field that is set is refused.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pivotrl_jax.checkpoints import cache, hf, hf_config
from pivotrl_jax.checkpoints.hf_files import INDEX, WEIGHTS, Files, Slice, some
from pivotrl_jax.checkpoints.hf_layout import places
from pivotrl_jax.checkpoints.hf_values import flag, positive
from pivotrl_jax.checkpoints.peft import CONFIG, PREFIX
from pivotrl_jax.checkpoints.peft import WEIGHTS as ADAPTER
from pivotrl_jax.models.config import ModelConfig
from pivotrl_jax.records import InputError

FORMAT = b"2"  # of what is written; a new one makes cached checkpoints anew

# Fields of PEFT's LoraConfig that are read, or that say nothing about what the tensors mean.
KNOWN = set(
    "peft_type base_model_name_or_path r lora_alpha use_rslora fan_in_fan_out bias init_lora_weights "
    "task_type inference_mode target_modules target_parameters exclude_modules layers_to_transform "
    "layers_pattern lora_dropout revision peft_version auto_mapping loftq_config eva_config runtime_config "
    "megatron_core qalora_group_size ensure_weight_tying".split()
)
# initialisers that leave the base's weights as they are
PLAIN_INIT = (None, True, False, "gaussian", "eva", "orthogonal")


def is_adapter(directory: Path) -> bool:
    """Whether a folder holds an adapter. Raises InputError if it holds a whole model beside it."""
    if not (directory / CONFIG).is_file():
        return False
    if any((directory / name).is_file() for name in (WEIGHTS, INDEX)):
        raise InputError(
            f"{directory}: holds both a model and an adapter ({CONFIG}); move one of them elsewhere"
        )
    return True


def base_of(directory: Path) -> str:
    """Name or path of the base. Raises InputError."""
    name = _settings(directory).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise InputError(f"{directory / CONFIG}: base_model_name_or_path is {name!r}; name the base")
    return name


def cached(directory: Path, base: Path) -> Path:
    """The folder of `base` with the adapter merged into it. What both files hold decides where it is.

    Raises InputError when the adapter does not fit the base, or is of a kind that is not merged.
    """
    scale = _scale(directory)
    if not (directory / ADAPTER).is_file():
        raise InputError(f"{directory}: no {ADAPTER}; only adapters in safetensors are read")
    total = hashlib.sha256(FORMAT + hf.weights_digest(base))
    own = [directory / name for name in (CONFIG, ADAPTER, hf.TEMPLATE)]
    for file in [*_companions(base, directory).values(), *(file for file in own if file.is_file())]:
        with file.open("rb") as f:
            total.update(file.name.encode() + hashlib.file_digest(f, "sha256").digest())
    digest = total.hexdigest()
    return cache.cached("adapters", directory, digest, lambda folder: _write(folder, base, directory, scale))


def _write(folder: Path, base: Path, adapter: Path, scale: float) -> None:
    config = hf_config.load_config(base)
    with Files(base) as weights, Files(adapter, ADAPTER) as matrices:
        hf.account(base, config, weights)
        pairs = _pairs(adapter, config, matrices)
        hf.write_config(folder, config, base, "float32")
        hf.copy_companions(folder, _companions(base, adapter))
        if (adapter / hf.TEMPLATE).is_file() and not _has_tokenizer(adapter):
            hf.write_template(folder, (adapter / hf.TEMPLATE).read_text("utf-8"))
        sizes = {place.name: 4 * int(np.prod(place.hf_shape)) for place in places(config)}
        hf.write_weights(folder, sizes, _merged(config, weights, matrices, pairs, scale), hf.SHARD_BYTES)


def _companions(base: Path, adapter: Path) -> dict[str, Path]:
    """The files beside the weights: the tokenizer's as a set from the adapter's folder, if it has one, since
    the template was changed for training; else from the base."""
    if not _has_tokenizer(adapter):
        return hf.companions(base)
    general = {name: file for name, file in hf.companions(base).items() if name == "generation_config.json"}
    return general | hf.companions(adapter)


def _has_tokenizer(adapter: Path) -> bool:
    return any((adapter / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))


def _merged(
    config: ModelConfig, weights: Files, matrices: Files, pairs: dict[str, tuple[str, str]], scale: float
) -> Iterator[tuple[str, np.ndarray]]:
    """(name, float32 array) of every tensor."""
    for place in places(config):
        w = _read(weights, place.name)
        if place.name in pairs:
            a, b = (_read(matrices, name) for name in pairs[place.name])
            for name, x in zip(pairs[place.name], (a, b)):
                if not np.isfinite(x).all():
                    file = matrices.stored[name].file
                    raise InputError(f"{file}: {name} holds NaN or infinite values; use another adapter")
            w += _product(b, a, scale)
        yield place.name, w


def _product(b: np.ndarray, a: np.ndarray, scale: float) -> np.ndarray:
    """scale * B A [outputs, inputs] in float32, summed in float64: so its bits, and with them the policy's
    fingerprint, do not depend on the order in which a machine adds. Sums of bfloat16 matrices are exact
    unless terms differ by 2^30; of float32 ones, a few in 10^9 may still be rounded the other way."""
    return (scale * (b.astype(np.float64) @ a.astype(np.float64))).astype(np.float32)


def _read(files: Files, name: str) -> np.ndarray:
    """A tensor as float32."""
    shape = files.stored[name].shape
    out = np.empty(shape, np.float32)
    files.read([Slice(name, shape, (slice(None),) * len(shape), out)])
    return out


def _pairs(adapter: Path, config: ModelConfig, matrices: Files) -> dict[str, tuple[str, str]]:
    """Name of a matrix -> the names of its A [r, inputs] and B [outputs, r]. Raises InputError unless these
    are all tensors of the adapter, and fit."""
    rank = positive(_settings(adapter), ("r",), adapter / CONFIG, int)
    stored, pairs, wrong = dict(matrices.stored), {}, []
    for place in places(config):
        if len(place.hf_shape) != 2:
            continue
        names = tuple(f"{PREFIX}{place.name.removesuffix('.weight')}.lora_{x}.weight" for x in "AB")
        found = [stored.pop(name, None) for name in names]
        if found == [None, None]:
            continue
        pairs[place.name] = names
        outputs, inputs = place.hf_shape
        for name, tensor, want in zip(names, found, ((rank, inputs), (outputs, rank))):
            if tensor is None or tensor.shape != want:
                got = "missing" if tensor is None else list(tensor.shape)
                wrong.append(f"{name} is {got}, want {list(want)}")
    if stored:
        raise InputError(
            f"{adapter / ADAPTER}: {len(stored)} tensors belong to no matrix of the base ({some(stored)}); "
            "only LoRA on matrices of the base is merged: merge it with PEFT (merge_and_unload), or name the "
            "base that it was trained on"
        )
    if wrong or not pairs:
        text = some(wrong) if wrong else "there are none"
        raise InputError(
            f"{adapter / ADAPTER}: its matrices do not fit the base and {CONFIG}: {text}; name the base that "
            "it was trained on"
        )
    return pairs


def _settings(directory: Path) -> dict[str, Any]:
    path = directory / CONFIG
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise InputError(f"{path}: cannot be read ({type(e).__name__}); fix the file") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: want a JSON object; fix the file")
    return values


def _scale(directory: Path) -> float:
    """What B A is multiplied by. Raises InputError for an adapter that is more than LoRA."""
    values, path = _settings(directory), directory / CONFIG
    if values.get("peft_type") != "LORA":
        raise InputError(f"{path}: peft_type is {values.get('peft_type')!r}; only LORA is merged")
    odd = [name for name, value in values.items() if value and name not in KNOWN]
    odd += ["fan_in_fan_out"] if flag(values, "fan_in_fan_out", path, False) else []
    odd += ["bias"] if values.get("bias", "none") != "none" else []
    odd += ["revision"] if values.get("revision") not in (None, "main") else []
    odd += ["init_lora_weights"] if values.get("init_lora_weights") not in PLAIN_INIT else []
    if odd:
        text = some(f"{name} = {json.dumps(values[name])[:60]}" for name in odd)
        raise InputError(
            f"{path}: {text} is not merged here; merge it with PEFT (merge_and_unload) and give the result"
        )
    rank, alpha = (
        positive(values, (name,), path, kind) for name, kind in (("r", int), ("lora_alpha", float))
    )
    return alpha / (rank**0.5 if flag(values, "use_rslora", path, False) else rank)
