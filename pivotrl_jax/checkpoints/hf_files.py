"""The safetensors files of a checkpoint: what they hold, and how to read parts of it.

The safetensors library checks the files. Values are copied straight from the files' pages (`mmap`), which are
released after each tensor; the library's own reader would keep every page it touched in memory.
Fused experts of transformers 5 (`gate_up_proj` [E, 2F, D], `down_proj` [E, D, F]) appear as one tensor per
expert, as in the released checkpoints.
"""

import contextlib
import dataclasses
import fnmatch
import json
import math
import mmap
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from pivotrl_jax.records import InputError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64"}


# A transposed copy takes this many rows at a time, which fit the cache: 2 to 4 times as fast as all at once.
ROWS = 32
BAND = 2 << 20  # bytes of a file's pages that a thread holds at a time
THREADS = min(8, os.cpu_count() or 1)


@dataclasses.dataclass(frozen=True)
class Stored:
    """One tensor on disk, or one expert's part of a fused tensor."""

    file: Path
    start: int  # byte of the file
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def size(self) -> int:
        """In bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class Slice:
    """A part to read: out[...] = tensor.reshape(shape)[part], cast to the dtype of `out`."""

    name: str
    shape: tuple[int, ...]
    part: tuple[slice, ...]
    out: np.ndarray  # may be a transposed view; has as many elements and rows as the part


class Files:
    """The safetensors files of a directory, as a context manager: those of a checkpoint, or one by name.

    Raises InputError for files that are missing, truncated or corrupt, or that hold anything but floats.
    """

    def __init__(self, directory: Path, only: str | None = None):
        self._threads = ThreadPoolExecutor(THREADS)
        self._pages: dict[Path, mmap.mmap] = {}
        self.stored: dict[str, Stored] = {}
        self.bytes_read = 0  # of the requested parts; a disk reads whole pages
        for file, listed in ({directory / only: None} if only else weight_files(directory)).items():
            header, data = self._open(file)
            if listed is not None and header.keys() != listed:
                raise InputError(
                    f"{file}: the index and the file disagree about {some(header.keys() ^ listed)}; download "
                    "the checkpoint again"
                )
            for name, entry in sorted(header.items()):
                self._add(file, name, entry, data)

    def __enter__(self) -> "Files":
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()
        self._pages.clear()  # a file is unmapped when its last view is gone

    def _open(self, file: Path) -> tuple[dict[str, dict], int]:
        """(name -> dtype, shape and data_offsets of every tensor, the byte where the data begins)."""
        with _readable(file), file.open("rb") as f:
            with safe_open(file, framework="numpy"):
                pass  # checks the header against the file: offsets fit the shapes, without gap or overlap
            length = int.from_bytes(f.read(8), "little")
            header = json.loads(f.read(length))
            self._pages[file] = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        header.pop("__metadata__", None)
        return header, 8 + length

    def _add(self, file: Path, name: str, entry: dict, data: int) -> None:
        if entry["dtype"] not in FLOATS:
            raise InputError(
                f"{file}: {name} is {entry['dtype']}, want one of {sorted(FLOATS)}; use an unquantised "
                "checkpoint"
            )
        dtype = jnp.dtype(FLOATS[entry["dtype"]])
        whole = Stored(file, data + entry["data_offsets"][0], tuple(entry["shape"]), dtype)
        for key, part in _unfused(name, whole).items():
            if key in self.stored:
                raise InputError(
                    f"{file}: {key} is stored twice (also in {self.stored[key].file}); remove one of them"
                )
            self.stored[key] = part

    def read(self, slices: Iterable["Slice"]) -> None:
        """Copy parts of tensors, several at a time."""
        copies = []
        for piece in slices:
            found = self._array(piece.name).reshape(piece.shape)[piece.part].reshape(piece.out.shape)
            pages = self._pages[self.stored[piece.name].file]
            copies += [(pages, found[band], piece.out[band]) for band in _bands(found)]
            self.bytes_read += found.nbytes
        list(self._threads.map(_copy, copies))

    def equal(self, one: str, other: str) -> bool:
        """Whether two tensors have the same shape and values."""
        a, b = self._array(one), self._array(other)
        if a.shape != b.shape:
            return False
        for band in _bands(a):
            if not np.array_equal(a[band], b[band]):
                return False
            _give_back(self._pages[self.stored[one].file], a[band])
            _give_back(self._pages[self.stored[other].file], b[band])
        return True

    def _array(self, name: str) -> np.ndarray:
        """A tensor as a view of its file's pages."""
        stored = self.stored[name]
        flat = np.frombuffer(self._pages[stored.file], stored.dtype, math.prod(stored.shape), stored.start)
        return flat.reshape(stored.shape)


def _bands(x: np.ndarray) -> list[slice]:
    """Slices of the rows of an array in a file; each slice touches about BAND bytes of pages."""
    step = max(ROWS, BAND // max(x.strides[0], 1))
    return [slice(row, row + step) for row in range(0, len(x), step)]


def _copy(arrays: tuple[mmap.mmap, np.ndarray, np.ndarray]) -> None:
    pages, found, out = arrays
    for row in range(0, len(out), ROWS):
        out[row : row + ROWS] = found[row : row + ROWS]
    _give_back(pages, found)


def _give_back(pages: mmap.mmap, x: np.ndarray) -> None:
    """Release the pages of an array from this process's memory; they are read again if needed."""
    low, high = np.lib.array_utils.byte_bounds(x)
    base = np.lib.array_utils.byte_bounds(np.frombuffer(pages, np.uint8))[0]
    begin = (low - base) // mmap.PAGESIZE * mmap.PAGESIZE
    if hasattr(mmap, "MADV_DONTNEED") and 0 <= begin < len(pages):  # else x is not a view of them
        pages.madvise(mmap.MADV_DONTNEED, begin, high - base - begin)


def _unfused(name: str, whole: Stored) -> dict[str, Stored]:
    """Name -> tensor. A tensor of all experts is split into the matrices of each expert."""
    stem, _, last = name.rpartition(".")
    fused = {"gate_up_proj": ("gate", "up"), "down_proj": ("down",)}.get(last)
    if not fused or not stem.endswith("mlp.experts") or len(whole.shape) != 3:
        return {name: whole}
    experts, rows, columns = whole.shape
    if rows % len(fused):
        return {name: whole}
    shape = (rows // len(fused), columns)
    names = [f"{stem}.{e}.{part}_proj.weight" for e in range(experts) for part in fused]
    size = whole.size // max(len(names), 1)
    return {
        key: dataclasses.replace(whole, start=whole.start + i * size, shape=shape)
        for i, key in enumerate(names)
    }


@contextlib.contextmanager
def appearing(directory: Path, own: Sequence[str] = ("*",)) -> Iterator[Path]:
    """A temporary directory to write into; it is renamed to `directory` when the block succeeds. So
    `directory` is either complete or as it was before. A link to a directory stays one.

    `own`: patterns of the names that the writer may delete. What else the old directory holds is in the new
    one, too.
    """
    directory = directory.resolve() if directory.is_symlink() else directory
    temporary, old = (directory.with_name(f".{directory.name}.{os.getpid()}.{x}") for x in ("tmp", "old"))
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if directory.exists():
            _carry_over(directory, temporary, own)
            os.rename(directory, old)
        os.rename(temporary, directory)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _carry_over(old: Path, new: Path, own: Sequence[str]) -> None:
    """Put what is not the writer's `own` into the new directory, as further links to the same files."""
    for path in old.iterdir():
        if any(fnmatch.fnmatchcase(path.name, pattern) for pattern in own) or (new / path.name).exists():
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, new / path.name, symlinks=True, copy_function=_link)
        else:
            _link(path, new / path.name)


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # a file system without links
        shutil.copy2(source, target, follow_symlinks=False)


def write_tensors(file: Path, tensors: dict[str, np.ndarray]) -> None:
    """Write a safetensors file. Raises InputError when the disk does not take it."""
    try:
        save_file(tensors, file, metadata={"format": "pt"})
    except SafetensorError as e:
        raise InputError(
            f"{file}: cannot be written ({e}); free space there, and the same command goes on"
        ) from None


def weight_files(directory: Path) -> dict[Path, set[str] | None]:
    """File -> the tensor names that the index lists for it (None without an index)."""
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
    except (SafetensorError, OSError, ValueError) as e:
        pointer = False
        with contextlib.suppress(OSError), file.open("rb") as f:
            pointer = f.read(40).startswith(b"version https://git-lfs")
        why = (
            "a git-lfs pointer, not the weights (run `git lfs pull`)"
            if pointer
            else f"truncated or corrupt ({e})"
        )
        raise InputError(f"{file}: {why}; download it again") from None


def contiguous(x: np.ndarray) -> np.ndarray:
    """`np.ascontiguousarray` of a matrix, copied in steps of ROWS. Needed because safetensors writes the
    buffer and ignores strides."""
    if x.flags.c_contiguous:
        return x
    out = np.empty(x.shape, x.dtype)
    for row in range(0, x.shape[1], ROWS):
        out[:, row : row + ROWS] = x[:, row : row + ROWS]
    return out


def some(names: Any, limit: int = 4) -> str:
    """The first `limit` names: 'a, b, c, d and 3 more'."""
    names = sorted(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
