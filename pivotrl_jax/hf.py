"""Hugging Face checkpoints <-> (config, params), in both directions, with every tensor accounted for.

A checkpoint is a directory with `config.json` and safetensors weights, in one file or in shards under an
index. Three layouts are read: dense, one tensor per expert (what the released Qwen3-MoE checkpoints hold) and
the fused experts of transformers 5 (`gate_up_proj` [E, 2F, D], `down_proj` [E, D, F]); the first two are
written. Hugging Face keeps a linear weight as [out, in]; ours are [in..., out...] with heads unfolded.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from pivotrl_jax import model
from pivotrl_jax.hf_config import config_to_json, load_config
from pivotrl_jax.model import ModelConfig
from pivotrl_jax.records import InputError

__all__ = ["fingerprint", "load_config", "load_params", "save"]

param_shapes = functools.cache(model.param_shapes)  # it traces the model: a third of a second

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64"}

# Our name -> Hugging Face name, and how many of our leading axes are the linear map's inputs (0: as it is).
TOP = {"embed": ("model.embed_tokens.weight", 0), "final_norm": ("model.norm.weight", 0)}
UNEMBED = {"unembed": ("lm_head.weight", 1)}
LAYER = {
    "attn_norm": ("input_layernorm.weight", 0),
    "q": ("self_attn.q_proj.weight", 1),
    "k": ("self_attn.k_proj.weight", 1),
    "v": ("self_attn.v_proj.weight", 1),
    "o": ("self_attn.o_proj.weight", 2),
    "q_norm": ("self_attn.q_norm.weight", 0),
    "k_norm": ("self_attn.k_norm.weight", 0),
    "mlp_norm": ("post_attention_layernorm.weight", 0),
}
DENSE = {name: (f"mlp.{name}_proj.weight", 1) for name in ("gate", "up", "down")}
ROUTER = {"router": ("mlp.gate.weight", 1)}
EXPERT = {name: ("mlp.experts.{e}." + f"{name}_proj.weight", 1) for name in ("gate", "up", "down")}

# What an export takes over from its source, besides config.json.
COMPANIONS = (
    "tokenizer.json tokenizer_config.json special_tokens_map.json added_tokens.json vocab.json merges.txt "
    "chat_template.jinja chat_template.json generation_config.json"
).split()


@dataclasses.dataclass(frozen=True)
class Place:
    """Where one Hugging Face tensor lives in the params: `params[path][index]`, transposed."""

    name: str
    path: tuple[str, ...]
    index: tuple[int, ...]  # (), (layer,) or (layer, expert)
    inputs: int
    ours: tuple[int, ...]  # our shape, index taken

    @property
    def theirs(self) -> tuple[int, ...]:
        if not self.inputs:
            return self.ours
        return math.prod(self.ours[self.inputs :]), math.prod(self.ours[: self.inputs])

    def to_hf(self, x: np.ndarray) -> np.ndarray:
        # Contiguous, because safetensors writes the buffer and ignores strides.
        return np.ascontiguousarray(x.reshape(self.theirs[::-1]).T if self.inputs else x)

    def from_hf(self, x: np.ndarray) -> np.ndarray:
        return x.T.reshape(self.ours) if self.inputs else x


def places(config: ModelConfig) -> Iterator[Place]:
    """Every tensor of the checkpoint, layer by layer. The one table both `load_params` and `save` follow."""
    shapes = param_shapes(config)

    def place(name: str, path: tuple[str, ...], index: tuple[int, ...], inputs: int) -> Place:
        return Place(name, path, index, inputs, tuple(_leaf(shapes, path).shape[len(index) :]))

    top = TOP if config.tie_embeddings else TOP | UNEMBED
    for ours, (name, inputs) in top.items():
        yield place(name, (ours,), (), inputs)
    per_layer = LAYER | (ROUTER if config.num_experts else DENSE)
    for layer in range(config.num_layers):
        prefix = f"model.layers.{layer}."
        for ours, (name, inputs) in per_layer.items():
            yield place(prefix + name, ("layers", ours), (layer,), inputs)
        for ours, (name, inputs) in EXPERT.items() if config.num_experts else ():
            for e in range(config.num_experts):
                yield place(prefix + name.format(e=e), ("layers", ours), (layer, e), inputs)


def _leaf(tree: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


@dataclasses.dataclass(frozen=True)
class Stored:
    """One tensor on disk, or one expert's part of a fused tensor."""

    file: Path
    tensor: str
    index: tuple[int | slice, ...]  # () for the whole tensor
    shape: tuple[int, ...]
    dtype: str  # as safetensors names it


class Files:
    """The safetensors of a directory: what is stored, and reading one tensor at a time. Close with `with`."""

    def __init__(self, directory: Path):
        self._stack = contextlib.ExitStack()
        self._handles: dict[Path, Any] = {}
        self.stored: dict[str, Stored] = {}
        for file, listed in _weight_files(directory).items():
            with _readable(file):
                handle = self._handles[file] = self._stack.enter_context(safe_open(file, framework="numpy"))
            names = set(handle.keys())
            if listed is not None and names != listed:
                raise InputError(
                    f"{file}: the index and the file disagree about {_some(names ^ listed)}; download the "
                    "checkpoint again"
                )
            for name in sorted(names):
                self._add(file, name, handle.get_slice(name))

    def __enter__(self) -> "Files":
        return self

    def __exit__(self, *_: object) -> None:
        self._handles.clear()
        self._stack.close()

    def _add(self, file: Path, name: str, view: Any) -> None:
        shape, dtype = tuple(view.get_shape()), view.get_dtype()
        if dtype not in FLOATS:
            raise InputError(
                f"{file}: {name} is {dtype}, want one of {sorted(FLOATS)}; use an unquantised checkpoint"
            )
        parts = {name: Stored(file, name, (), shape, dtype)}
        stem, _, last = name.rpartition(".")
        if stem.endswith("mlp.experts") and last in ("gate_up_proj", "down_proj") and len(shape) == 3:
            out = shape[1] // 2 if last == "gate_up_proj" else shape[1]
            cuts = (
                {"gate": slice(0, out), "up": slice(out, shape[1])}
                if last == "gate_up_proj"
                else {"down": slice(0, out)}
            )
            parts = {
                f"{stem}.{e}.{part}_proj.weight": Stored(
                    file, name, (e, cut), (cut.stop - cut.start, shape[2]), dtype
                )
                for e in range(shape[0])
                for part, cut in cuts.items()
            }
        for key, part in parts.items():
            if key in self.stored:
                raise InputError(
                    f"{file}: {key} is stored twice (also in {self.stored[key].file}); remove one of them"
                )
            self.stored[key] = part

    def read(self, name: str) -> np.ndarray:
        part = self.stored[name]
        with _readable(part.file):
            handle = self._handles[part.file]
            return handle.get_slice(part.tensor)[part.index] if part.index else handle.get_tensor(part.tensor)


def load_params(directory: str | Path, config: ModelConfig, dtype: str | None = None) -> dict:
    """Read the weights of `directory` as numpy arrays in the tree of `param_shapes(config)`.

    dtype: "float32", "bfloat16", ...: every tensor is cast to it; None: each is kept as it is stored.
    Raises InputError for weight files that are missing, truncated or corrupt, and names the tensors that are
    missing, unexpected or misshapen.
    """
    directory = Path(directory)
    with Files(directory) as files:
        wanted = list(places(config))
        _account(directory, config, wanted, files)
        shapes, kept, leaves = param_shapes(config), {}, {}
        for place in wanted:
            stored = files.stored[place.name].dtype
            if kept.setdefault(place.path, stored) != stored and dtype is None:
                raise InputError(
                    f"{directory}: {place.name} is {stored} where its siblings are {kept[place.path]}; "
                    "name the dtype to cast to"
                )
            if place.path not in leaves:
                shape = _leaf(shapes, place.path).shape
                leaves[place.path] = np.empty(shape, jnp.dtype(dtype or FLOATS[stored]))
            leaves[place.path][place.index] = place.from_hf(files.read(place.name))
    params: dict = {"layers": {}}
    for path, array in leaves.items():
        _leaf(params, path[:-1])[path[-1]] = array
    return params


def _account(directory: Path, config: ModelConfig, wanted: list[Place], files: Files) -> None:
    stored = files.stored
    names = {p.name for p in wanted}
    missing, unexpected = names - stored.keys(), stored.keys() - names
    head, embed = "lm_head.weight", "model.embed_tokens.weight"
    if config.tie_embeddings and head in unexpected and embed in stored:
        # Some exporters write the tied matrix twice. Harmless when it is the same; two heads if it is not.
        if stored[head].shape == stored[embed].shape and np.array_equal(files.read(head), files.read(embed)):
            unexpected.discard(head)
    misshapen = [
        f"{p.name} {list(stored[p.name].shape)}, want {list(p.theirs)}"
        for p in wanted
        if p.name in stored and stored[p.name].shape != p.theirs
    ]
    problems = [
        f"{len(found)} {kind} ({_some(found)})"
        for kind, found in (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
        if found
    ]
    if problems:
        raise InputError(
            f"{directory}: the tensors do not fit config.json: {'; '.join(problems)}; check both files"
        )


def _weight_files(directory: Path) -> dict[Path, set[str] | None]:
    """File -> the tensor names the index lists for it (None without an index)."""
    single, index = directory / WEIGHTS, directory / INDEX
    if single.is_file():
        return {single: None}
    if not index.is_file():
        raise InputError(
            f"{directory}: neither {WEIGHTS} nor {INDEX} is there; only safetensors weights are read"
        )
    try:
        weight_map = json.loads(index.read_text("utf-8"))["weight_map"]
        files: dict[Path, set[str] | None] = {}
        for name, file in sorted(weight_map.items()):
            files.setdefault(directory / str(file), set()).add(name)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise InputError(
            f"{index}: not a safetensors index ({type(e).__name__}: {e}); download it again"
        ) from None
    for file in files:
        if file.parent != directory:
            raise InputError(f"{index}: {file} lies outside the checkpoint's directory; download it again")
        if not file.is_file():
            raise InputError(f"{file}: the index names this shard but it is not there; download it again")
    return files


@contextlib.contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError) as e:
        with file.open("rb") as f:
            pointer = f.read(40).startswith(b"version https://git-lfs")
        why = (
            "a git-lfs pointer, not the weights (run `git lfs pull`)"
            if pointer
            else f"truncated or corrupt ({e})"
        )
        raise InputError(f"{file}: {why}; download it again") from None


def _some(names: Any, limit: int = 4) -> str:
    names = sorted(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def save(
    directory: str | Path,
    config: ModelConfig,
    params: dict,
    source_directory: str | Path | None,
    max_shard_bytes: int = 5_000_000_000,
) -> None:
    """Write a Hugging Face checkpoint that `transformers` loads. Weights keep their dtype.

    Other config fields, tokenizer, chat template and generation config come from `source_directory`, if any.

    The directory appears whole or not at all; an older checkpoint under the same name is replaced.
    Raises InputError when `directory` holds anything but a checkpoint, ValueError for misshapen params.
    """
    directory = Path(os.path.abspath(directory))
    if directory.exists() and not (directory.is_dir() and _replaceable(directory)):
        raise InputError(f"{directory}: exists and is not a checkpoint; name another directory to export to")
    want = jax.tree.map(lambda s: tuple(s.shape), param_shapes(config), is_leaf=lambda s: hasattr(s, "shape"))
    got = jax.tree.map(lambda x: tuple(x.shape), params)
    if want != got:
        raise ValueError(f"params do not fit the config: {got} != {want}")
    temporary = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        values = config_to_json(config, source_directory, str(params["embed"].dtype))
        (temporary / "config.json").write_text(json.dumps(values, indent=2) + "\n", "utf-8")
        for name in COMPANIONS if source_directory is not None else ():
            if (Path(source_directory) / name).is_file():
                shutil.copyfile(Path(source_directory) / name, temporary / name)
        _write_weights(temporary, config, params, max_shard_bytes)
        old = directory.with_name(f".{directory.name}.{os.getpid()}.old")
        if directory.exists():
            os.rename(directory, old)
        os.rename(temporary, directory)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replaceable(directory: Path) -> bool:
    return (directory / "config.json").is_file() or not any(directory.iterdir())


def _write_weights(directory: Path, config: ModelConfig, params: dict, max_shard_bytes: int) -> None:
    shards: list[list[Place]] = [[]]
    room = max_shard_bytes
    sizes = {}
    for place in places(config):
        size = sizes[place.name] = math.prod(place.ours) * _leaf(params, place.path).dtype.itemsize
        if shards[-1] and size > room:
            shards.append([])
            room = max_shard_bytes
        shards[-1].append(place)
        room -= size
    weight_map, held = {}, (None, None)
    for number, shard in enumerate(shards, 1):
        file = WEIGHTS if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {}
        for place in shard:
            key = (place.path, place.index[:1])
            if held[0] != key:  # one device-to-host copy per layer and matrix, not one per expert
                held = (
                    key,
                    np.asarray(
                        _leaf(params, place.path)[place.index[:1]]
                        if place.index
                        else _leaf(params, place.path)
                    ),
                )
            tensors[place.name] = place.to_hf(held[1][place.index[1:]])
            weight_map[place.name] = file
        save_file(tensors, directory / file, metadata={"format": "pt"})
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def fingerprint(directory: str | Path) -> str:
    """16 hex digits of a sha256 over config.json and the weight files. InputError if one is missing."""
    directory = Path(directory)
    if not (directory / "config.json").is_file():
        raise InputError(
            f"{directory / 'config.json'}: no such file; give a Hugging Face checkpoint directory"
        )
    total = hashlib.sha256()
    for file in (directory / "config.json", *sorted(_weight_files(directory))):
        with file.open("rb") as f:
            total.update(hashlib.file_digest(f, "sha256").digest())
    return total.hexdigest()[:16]
