"""Hugging Face checkpoints <-> (config, params), in both directions, with every tensor accounted for.

A checkpoint is a directory with `config.json` and safetensors weights, in one file or in shards under an
index. Three layouts are read: dense, one tensor per expert (what the released Qwen3-MoE checkpoints hold) and
the fused experts of transformers 5; the first two are written. Adapters are never part of a checkpoint.

With several processes, all of them must call these functions, in the same order.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Set
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.experimental import multihost_utils

from pivotrl_jax.checkpoints.hf_config import config_to_json
from pivotrl_jax.checkpoints.hf_files import (
    INDEX,
    WEIGHTS,
    Files,
    Slice,
    appearing,
    contiguous,
    some,
    weight_files,
    write_tensors,
)
from pivotrl_jax.checkpoints.hf_layout import Place, leaf, param_shapes, places
from pivotrl_jax.models.config import ModelConfig
from pivotrl_jax.models.sharding import fetch
from pivotrl_jax.records import InputError

PIECE = 32 << 20  # bytes; parameters go from the files to a device in pieces of at most this size
SHARD_BYTES = 5_000_000_000  # of one weight file


# Files that an export copies from its source, besides config.json.
COMPANIONS = (
    "tokenizer.json tokenizer_config.json special_tokens_map.json added_tokens.json vocab.json merges.txt "
    "tokenizer.model chat_template.jinja chat_template.json generation_config.json"
).split()

TEMPLATE = "chat_template.jinja"
NAMED_TEMPLATES = "additional_chat_templates"  # a folder of further ones: tool_use.jinja

# patterns of all files of a checkpoint
FILES = ("config.json", WEIGHTS, "model-*-of-*.safetensors", INDEX, *COMPANIONS)
FILES += (NAMED_TEMPLATES, f"{NAMED_TEMPLATES}/*.jinja")

# the tensors of one parameter, by index: (), (layer,) or (layer, expert)
Parts = dict[tuple[int, ...], Place]


def load_params(
    directory: str | Path, config: ModelConfig, dtype: str | None = None, shardings: dict | None = None
) -> dict:
    """Read the weights of `directory` into a tree like `decoder.param_shapes(config)`, without adapters.

    dtype: every tensor is cast to it ("float32", "bfloat16", ...); None keeps the stored dtypes.
    shardings: a tree of NamedShardings (`sharding.param_shardings`) for the arrays to return. Each process
    reads what its own devices hold, with no more than a few times PIECE bytes on the host at a time. None
    returns numpy arrays.
    Raises InputError for weight files that are missing, truncated or corrupt, and for tensors that are
    missing, unexpected or misshapen, which it names.
    """
    directory, config = Path(directory), dataclasses.replace(config, lora=None)
    params: dict = {}
    with Files(directory) as files:
        for path, parts in account(directory, config, files).items():
            shape = leaf(param_shapes(config), path)
            kind = _dtype(directory, files, parts, dtype)
            read = functools.partial(_read, files, parts)
            if shardings is None:
                array = np.empty(shape, kind)
                read(array, (0,) * len(shape))
            else:
                along = next(iter(parts.values())).file_order
                array = _on_devices(read, shape, kind, leaf(shardings, path), along)
            functools.reduce(lambda tree, key: tree.setdefault(key, {}), path[:-1], params)[path[-1]] = array
    return params


def stored_dtype(directory: str | Path) -> np.dtype:
    """The widest dtype among a checkpoint's weights."""
    with Files(Path(directory)) as files:
        return max((np.dtype(x.dtype) for x in files.stored.values()), key=lambda kind: kind.itemsize)


def account(directory: Path, config: ModelConfig, files: Files) -> dict[tuple[str, ...], Parts]:
    """Path in the params -> its tensors. Raises InputError unless the files hold exactly these tensors."""
    stored = files.stored
    expected = {place.name: place for place in places(config)}
    missing, unexpected = expected.keys() - stored.keys(), stored.keys() - expected.keys()
    head, embed = "lm_head.weight", "model.embed_tokens.weight"
    # Some exporters write the tied matrix twice. That is harmless when both are equal.
    if config.tie_embeddings and head in unexpected and embed in stored and files.equal(head, embed):
        unexpected.discard(head)
    # old files of Llama hold RoPE's frequencies, which follow from config.json
    unexpected = {name for name in unexpected if not name.endswith(".rotary_emb.inv_freq")}
    misshapen = [
        f"{name} {list(stored[name].shape)}, want {list(place.hf_shape)}"
        for name, place in expected.items()
        if name in stored and stored[name].shape != place.hf_shape
    ]
    _refuse_wrapped(directory, missing, unexpected)
    problems = [
        f"{len(found)} {kind} ({some(found)})"
        for kind, found in (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
        if found
    ]
    if problems:
        raise InputError(
            f"{directory}: the tensors do not fit config.json: {'; '.join(problems)}; check both files"
        )
    leaves: dict[tuple[str, ...], Parts] = {}
    for place in expected.values():
        leaves.setdefault(place.path, {})[place.index] = place
    return leaves


def _refuse_wrapped(directory: Path, missing: Set[str], unexpected: Set[str]) -> None:
    """Raises InputError when a wrapper around the model (DataParallel, torch.compile, PEFT, ...) has put a
    prefix before the names."""
    for name in sorted(unexpected):
        parts = name.split(".")
        for n in range(1, len(parts)):
            if (inner := ".".join(parts[n:])) in missing:
                raise InputError(
                    f"{directory}: tensors are named {name} where {inner} is wanted: "
                    f"{name.removesuffix(inner)!r} is a wrapper's prefix; save the model inside it (PEFT: "
                    "merge_and_unload)"
                )


def _dtype(directory: Path, files: Files, parts: Parts, requested: str | None) -> np.dtype:
    if requested is not None:
        return jnp.dtype(requested)
    names = [place.name for place in parts.values()]
    kinds = [files.stored[name].dtype for name in names]
    for name, kind in zip(names, kinds):
        if kind != kinds[0]:
            raise InputError(
                f"{directory}: {name} is {kind} where its siblings are {kinds[0]}; name the dtype to cast to"
            )
    return kinds[0]


def _read(files: Files, parts: Parts, out: np.ndarray, start: tuple[int, ...]) -> None:
    """Fill `out`, a contiguous array, with the part of the parameter that begins at index `start`."""
    stacked = len(next(iter(parts)))
    rest = tuple(slice(a, a + n) for a, n in zip(start, out.shape))[stacked:]

    def slice_at(at: tuple[int, ...]) -> Slice:
        place = parts[tuple(a + i for a, i in zip(start, at))]
        return Slice(place.name, place.unfolded, place.part(rest), place.as_hf(out[at]))

    files.read(slice_at(at) for at in np.ndindex(out.shape[:stacked]))
    finite = np.isfinite(out)
    if not finite.all():
        name = slice_at(tuple(np.argwhere(~finite)[0][:stacked])).name
        raise InputError(
            f"{files.stored[name].file}: {name} holds NaN or infinite values; use another checkpoint"
        )


def _on_devices(
    read: Callable,
    shape: tuple[int, ...],
    dtype: np.dtype,
    sharding: jax.sharding.NamedSharding,
    along: tuple[int, ...],
) -> jax.Array:
    """A parameter as an array with this sharding. `read(out, start)` reads any part of it. A shard is read in
    pieces, cut along the axes `along`, and put together on its device."""
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    shard_shape = sharding.shard_shape(shape)
    holders: dict[tuple[int, ...], list[jax.Device]] = {}  # start of a shard -> its devices
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        holders.setdefault(tuple(s.start or 0 for s in index), []).append(device)
    shards: dict[jax.Device, jax.Array] = {}
    for offset, size in _pieces(shard_shape, dtype.itemsize, along):
        for start, devices in holders.items():
            piece = np.empty(size, dtype)
            read(piece, tuple(a + b for a, b in zip(start, offset)))
            jax.block_until_ready(list(shards.values()))  # a transfer under way keeps its piece in memory
            for device in devices:
                put = jax.device_put(piece, device)
                if size != shard_shape:
                    whole = shards.pop(device, None)
                    whole = jnp.zeros(shard_shape, dtype, device=device) if whole is None else whole
                    put = _write(whole, put, offset)
                shards[device] = put
    return jax.make_array_from_single_device_arrays(shape, sharding, list(shards.values()), dtype=dtype)


@functools.partial(jax.jit, donate_argnums=0)
def _write(whole: jax.Array, piece: jax.Array, start: tuple[int, ...]) -> jax.Array:
    return jax.lax.dynamic_update_slice(whole, piece, start)


def _pieces(shape: tuple[int, ...], itemsize: int, along: tuple[int, ...]) -> Iterator[tuple]:
    """(offset, size) of boxes of at most PIECE bytes that make up `shape`, cut along the axes `along`, the
    first of them first."""
    most = list(shape)
    for axis in along:
        parts = -(-math.prod(most) * itemsize // PIECE)
        most[axis] = max(1, most[axis] // max(1, parts))
    for offset in itertools.product(*(range(0, n, step) for n, step in zip(shape, most))):
        yield offset, tuple(min(n - a, step) for n, a, step in zip(shape, offset, most))


def save(
    directory: str | Path,
    config: ModelConfig,
    params: dict,
    source_directory: str | Path | None,
    max_shard_bytes: int = SHARD_BYTES,
    chat_template: str | None = None,
    dtype: str | None = None,
) -> None:
    """Write a Hugging Face checkpoint that `transformers` loads. Weights are rounded to `dtype`, to nearest
    even; None keeps their dtypes.

    Other config fields, tokenizer, chat template and generation config come from `source_directory`, if any.
    The text `chat_template`, if any, takes the place of the source's template.
    With several processes all must call this: the first one writes, and none returns before it is done.

    The directory appears whole or not at all; an older checkpoint under the same name is replaced.
    Raises InputError when `directory` holds anything but a checkpoint, ValueError for misshapen params or
    adapters among them.
    """
    directory, config = Path(os.path.abspath(directory)), dataclasses.replace(config, lora=None)
    if directory.exists() and not (directory.is_dir() and replaceable(directory)):
        raise InputError(f"{directory}: exists and is not a checkpoint; name another directory to export to")
    _check_shapes(config, params)
    if jax.process_index():
        for _ in _tensors(config, params, dtype):
            pass  # every process must take part in fetching a tensor
    else:
        with appearing(directory, FILES) as temporary:
            write_config(temporary, config, source_directory, dtype or str(params["embed"].dtype))
            if source_directory is not None:
                copy_companions(temporary, companions(Path(source_directory)))
            tensors = _tensors(config, params, dtype)
            write_weights(temporary, _sizes(config, params, dtype), tensors, max_shard_bytes)
            if chat_template is not None:
                write_template(temporary, chat_template)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"saved {directory}")


def _check_shapes(config: ModelConfig, params: dict) -> None:
    trees = param_shapes(config), jax.tree.map(lambda x: tuple(x.shape), params)
    want, got = (traverse_util.flatten_dict(tree, sep=".") for tree in trees)
    if wrong := {name for name, _ in want.items() ^ got.items()}:
        text = some(f"{name} {got.get(name)} != {want.get(name)}" for name in wrong)
        raise ValueError(f"params do not fit the config: {text}; merge or leave out adapters")


def write_config(directory: Path, config: ModelConfig, source_directory, dtype: str) -> None:
    """Write config.json, of weights in `dtype`, with what else the source's says."""
    values = config_to_json(config, source_directory, dtype)
    (directory / "config.json").write_text(json.dumps(values, indent=2) + "\n", "utf-8")


def companions(directory: Path) -> dict[str, Path]:
    """Name in a checkpoint -> the file of it that is beside the weights of `directory`."""
    named = [f"{NAMED_TEMPLATES}/{file.name}" for file in directory.glob(f"{NAMED_TEMPLATES}/*.jinja")]
    return {name: directory / name for name in (*COMPANIONS, *sorted(named)) if (directory / name).is_file()}


def copy_companions(directory: Path, found: dict[str, Path]) -> None:
    """Copy files into a checkpoint, under their names in it."""
    for name, file in found.items():
        (directory / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(file, directory / name)


def _sizes(config: ModelConfig, params: dict, dtype: str | None) -> dict[str, int]:
    """Bytes of every tensor of the checkpoint."""
    return {
        place.name: math.prod(place.shape) * jnp.dtype(dtype or leaf(params, place.path).dtype).itemsize
        for place in places(config)
    }


def write_template(directory: Path, text: str) -> None:
    """As chat_template.jinja alone: checkpoints may have theirs in other files, too."""
    (directory / TEMPLATE).write_text(text, "utf-8")
    shutil.rmtree(directory / NAMED_TEMPLATES, ignore_errors=True)
    (directory / "chat_template.json").unlink(missing_ok=True)
    settings = directory / "tokenizer_config.json"
    if settings.is_file():
        values = json.loads(settings.read_text("utf-8"))
        values.pop("chat_template", None)
        settings.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", "utf-8")


def replaceable(directory: Path) -> bool:
    """Whether a directory holds a checkpoint or nothing. Many programs have a config.json; a checkpoint's
    names its kind of model."""
    try:
        config = json.loads((directory / "config.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return not any(directory.iterdir())
    return isinstance(config, dict) and "model_type" in config


def _tensors(config: ModelConfig, params: dict, dtype: str | None) -> Iterator[tuple[str, np.ndarray]]:
    """(name, array on this host) of every tensor of the checkpoint."""
    current = None
    for place in places(config):
        if current != (key := (place.path, place.index[:1])):  # one copy per layer and matrix, not per expert
            current, x = key, leaf(params, place.path)
            x = fetch(x[place.index[0]] if place.index else x)
            x = x if dtype is None else x.astype(jnp.dtype(dtype), copy=False)
        yield place.name, contiguous(place.as_hf(np.ascontiguousarray(x[place.index[1:]])))


def write_weights(
    directory: Path, sizes: dict[str, int], tensors: Iterable[tuple[str, np.ndarray]], max_shard_bytes: int
) -> None:
    """Write the safetensors files of a checkpoint beside its config.json: one, or shards under an index.

    sizes: bytes of every tensor. tensors: (name, array), in the same order; one shard is held at a time.
    """
    shards: list[list[str]] = [[]]
    room = max_shard_bytes
    for name, size in sizes.items():
        if shards[-1] and size > room:
            shards.append([])
            room = max_shard_bytes
        shards[-1].append(name)
        room -= size
    weight_map = {}
    tensors = iter(tensors)
    for number, names in enumerate(shards, 1):
        file = WEIGHTS if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_tensors(directory / file, dict(itertools.islice(tensors, len(names))))
        shutil.copymode(directory / "config.json", directory / file)  # safetensors writes private files
        weight_map |= dict.fromkeys(names, file)
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def checkpoint_fingerprint(directory: str | Path) -> str:
    """16 hex digits of a sha256 over config.json and the weight files. InputError if one is missing.

    With several processes, the first reads the files and sends the result to the others.
    """
    directory, digest, error = Path(directory), bytes(8), None
    if jax.process_index() == 0:
        try:
            digest = weights_digest(directory)
        except InputError as e:
            error = e
    if jax.process_count() > 1:
        digest = bytes(multihost_utils.broadcast_one_to_all(np.frombuffer(digest, np.uint8)))
    if error or not any(digest):
        raise error or InputError(f"{directory}: process 0 cannot read this checkpoint; see its error")
    return digest.hex()


def weights_digest(directory: Path) -> bytes:
    """8 bytes of a sha256 over config.json and the weight files. InputError if one is missing."""
    if not (directory / "config.json").is_file():
        raise InputError(
            f"{directory / 'config.json'}: no such file; give a Hugging Face checkpoint directory"
        )
    total = hashlib.sha256()
    for file in (directory / "config.json", *sorted(weight_files(directory))):
        with file.open("rb") as f:
            total.update(hashlib.file_digest(f, "sha256").digest())
    return total.digest()[:8]
