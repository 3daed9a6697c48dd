"""What a GGUF file holds: its settings and its tensors, read with every length checked against the file.

The `gguf` package's own reader believes the lengths that a file states, and a damaged one can make it read
for ever. Block formats and their arithmetic are the package's (`gguf.quants`).
Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import dataclasses
import math
import mmap
import struct
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np

from pivotrl_jax.records import InputError

MAGIC, VERSIONS = b"GGUF", (2, 3)
PLAIN = {"F32": np.dtype("float32"), "F16": np.dtype("float16"), "BF16": np.dtype(ml_dtypes.bfloat16)}

# value type -> its struct format; strings and arrays are read by `_Cursor.value`
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


class _Damaged(Exception):
    """What is wrong with the file; `read` turns it into an InputError."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor in the file. The last axis is the one whose values lie side by side, as in numpy."""

    shape: tuple[int, ...]
    kind: str  # "F32", "Q4_K", ...
    start: int  # byte of the file
    size: int  # in bytes

    @property
    def dtype(self) -> np.dtype:
        """Of the values: float32 where they are quantised."""
        return PLAIN.get(self.kind, PLAIN["F32"])


@dataclasses.dataclass(frozen=True)
class Gguf:
    """An open GGUF file."""

    path: Path
    fields: dict[str, Any]  # numbers, text, lists of text, numpy arrays of numbers
    tensors: dict[str, Tensor]
    pages: mmap.mmap

    def get(self, key: str, kind: type, missing: Any = None) -> Any:
        """A setting. Raises InputError if it is not of this kind."""
        value = self.fields.get(key, missing)
        if value is not missing and not isinstance(value, kind):
            shown = repr(value)[:80]
            raise InputError(f"{self.path}: {key} is {shown}, no {kind.__name__}; use another checkpoint")
        return value

    def values(self, name: str) -> np.ndarray:
        """A tensor's values, dequantised; its shape and dtype are those of `tensors[name]`."""
        tensor = self.tensors[name]
        if tensor.kind in PLAIN:
            return np.frombuffer(self.pages, tensor.dtype, math.prod(tensor.shape), tensor.start).reshape(
                tensor.shape
            )
        gguf = package(str(self.path))
        kind = gguf.GGMLQuantizationType[tensor.kind]
        data = np.frombuffer(self.pages, np.uint8, tensor.size, tensor.start)
        try:
            return gguf.quants.dequantize(data.reshape(*tensor.shape[:-1], -1), kind).reshape(tensor.shape)
        except NotImplementedError:
            raise InputError(
                f"{self.path}: {name} is quantised as {tensor.kind}, which this version of the gguf package "
                "cannot undo; upgrade it (`pip install -U gguf`) or use a file in another quantisation"
            ) from None


def package(asked: str) -> ModuleType:
    """The `gguf` package. Raises InputError that says what needed it when it is not installed."""
    try:
        import gguf
        import gguf.quants
    except ImportError:
        raise InputError(f"{asked}: GGUF files are read with the gguf package; `pip install gguf`") from None
    return gguf


def read(path: Path) -> Gguf:
    """Open a GGUF file. Raises InputError for a file that is missing, damaged, truncated or one part of
    several."""
    gguf = package(str(path))
    try:
        with path.open("rb") as f:
            pages = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as e:  # ValueError: an empty file
        raise InputError(f"{path}: cannot be read ({e}); give a GGUF file") from None
    if pages[:4] != MAGIC:
        lfs = pages[:40].startswith(b"version https://git-lfs")
        why = (
            "a git-lfs pointer (run `git lfs pull`)"
            if lfs
            else "not a GGUF file: its first bytes are not GGUF"
        )
        raise InputError(f"{path}: {why}; give a GGUF file")
    try:
        fields, tensors = _read(_Cursor(pages, 4), gguf)
    except _Damaged as e:
        raise InputError(f"{path}: damaged or truncated ({e}); download it again") from None
    file = Gguf(path, fields, tensors, pages)
    if (parts := file.get("split.count", int, 0)) > 1:
        raise InputError(
            f"{path}: one of {parts} parts of a split file; join them first "
            "(`llama-gguf-split --merge FIRST_PART WHOLE.gguf`)"
        )
    return file


def _read(cursor: "_Cursor", gguf: ModuleType) -> tuple[dict[str, Any], dict[str, Tensor]]:
    version = cursor.number("I")
    if version not in VERSIONS:
        raise _Damaged(f"version {version}, want little-endian version {' or '.join(map(str, VERSIONS))}")
    tensor_count, field_count = cursor.number("Q"), cursor.number("Q")
    fields: dict[str, Any] = {}
    for _ in range(field_count):
        key = cursor.text()
        if key in fields:
            raise _Damaged(f"the setting {key!r} is there twice")
        fields[key] = cursor.value(cursor.number("I"))
    found = [_tensor(cursor, gguf) for _ in range(tensor_count)]
    alignment = fields.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise _Damaged(f"general.alignment is {alignment!r}")
    data = -(-cursor.at // alignment) * alignment
    tensors: dict[str, Tensor] = {}
    for name, tensor in found:
        tensor = dataclasses.replace(tensor, start=data + tensor.start)
        if tensor.start + tensor.size > cursor.length:
            missing = tensor.start + tensor.size - cursor.length
            raise _Damaged(f"{missing:,} bytes of {name} lie behind the end of the file")
        if name in tensors:
            raise _Damaged(f"the tensor {name!r} is there twice")
        tensors[name] = tensor
    return fields, tensors


def _tensor(cursor: "_Cursor", gguf: ModuleType) -> tuple[str, Tensor]:
    """(name, tensor), which starts relative to the data."""
    name, axes = cursor.text(), cursor.number("I")
    if not 1 <= axes <= 4:
        raise _Damaged(f"{name!r} has {axes} axes")
    shape = tuple(reversed([cursor.number("Q") for _ in range(axes)]))
    kind, start = cursor.number("I"), cursor.number("Q")
    try:
        kind = gguf.GGMLQuantizationType(kind)
    except ValueError:
        raise _Damaged(f"{name!r} has the unknown quantisation {kind}") from None
    block, size = gguf.GGML_QUANT_SIZES[kind]
    if not math.prod(shape) or shape[-1] % block:
        raise _Damaged(f"{name!r} has shape {list(shape)} in blocks of {block}")
    return name, Tensor(shape, kind.name, start, math.prod(shape) // block * size)


class _Cursor:
    """Reads a file from front to back. Raises _Damaged at its end."""

    def __init__(self, pages: mmap.mmap, at: int):
        self._pages, self.at, self.length = pages, at, len(pages)

    def take(self, size: int) -> bytes:
        if size > self.length - self.at:
            raise _Damaged(f"the file ends at byte {self.length:,} inside its header")
        self.at += size
        return self._pages[self.at - size : self.at]

    def number(self, form: str) -> Any:
        return struct.unpack("<" + form, self.take(struct.calcsize(form)))[0]

    def text(self) -> str:
        try:
            return self.take(self.number("Q")).decode("utf-8")
        except UnicodeDecodeError:
            raise _Damaged("a text that is not UTF-8") from None

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            kind, count = self.number("I"), self.number("Q")
            if kind == _STRING:
                return [self.text() for _ in range(count)]
            if kind in _NUMBERS:
                dtype = np.dtype(_NUMBERS[kind]).newbyteorder("<")
                return np.frombuffer(self.take(count * dtype.itemsize), dtype)
        elif kind in _NUMBERS:
            return self.number(_NUMBERS[kind])
        raise _Damaged(f"a value of the unknown type {kind}")
