"""Documents from files: JSON, JSON lines, parquet. What cannot be read is reported, never dropped."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pivotrl_jax.chat.dialects.base import types_of
from pivotrl_jax.chat.json_text import read_value, without_nulls
from pivotrl_jax.records import InputError

# (where, value): a JSON value and its place, "file" or "file:number". If the value could not be
# read, the InputError that says why takes its place.
Document = tuple[str, Any]

CUT = "cut"  # ends the events of `joined` in the place of one that could not be read

LARGEST_ROW_GROUP = 4 * 2**30  # bytes; a file of a few kilobytes may unpack to more than the memory holds
PACKED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"PK\x03\x04": "zip",
}
EXTRA = "pip install -e '.[datasets]'"


def documents(path: Path) -> Iterator[Document]:
    """Every document of a file: one per line of JSONL or row of parquet, or the whole file.

    A file is JSONL if its name says so, or if it is not one JSON value but its first line is an object.
    Raises InputError for a missing file, an unreadable parquet file, or a file without any JSON.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    if (packed := _packed_by(path)) and path.suffix != ".eval":  # Inspect's own archives
        raise InputError(f"{path}: packed by {packed}, which is not read; unpack it first")
    if path.suffix == ".parquet":
        yield from _parquet(path)
    elif path.suffix in (".jsonl", ".ndjson"):
        yield from _lines(path)
    else:
        try:
            yield str(path), read_value(path.read_bytes())
        except InputError as e:
            lines = list(_lines(path))
            if len(lines) < 2 or isinstance(lines[0][1], InputError) or not isinstance(lines[0][1], dict):
                raise InputError(f"{path}: {e}") from None
            yield from lines


def _packed_by(path: Path) -> str:
    """The program that packed a file, by its first bytes; "" for a file as it is."""
    with path.open("rb") as f:
        head = f.read(6)
    return next((name for start, name in PACKED.items() if head.startswith(start)), "")


def of_files(paths: Iterable[Path]) -> Iterator[Document]:
    """The documents of several files; one that cannot be read is named."""
    for path in paths:
        try:
            yield from documents(path)
        except InputError as e:
            yield str(path), InputError(str(e).removeprefix(f"{path}: "))


def sessions(path: Path, is_event: Callable[[Any], bool]) -> Iterator[Document]:
    """The documents of a file; if the first is an event, all of them are the events of one document."""
    found = documents(path)
    head = list(itertools.islice(found, 1))
    is_session = bool(head) and not isinstance(head[0][1], InputError) and is_event(head[0][1])
    found = itertools.chain(head, found)
    yield from joined(str(path), found) if is_session else found


def joined(where: str, events: Iterable[Document]) -> Iterator[Document]:
    """One document at `where`: the list of all events, up to one that cannot be read, which is named.

    What came after it is not read, since its history would not be what the model saw. CUT takes its place.
    """
    whole: list[Any] = []
    fault: list[Document] = []
    for place, event in events:
        if isinstance(event, InputError):
            fault = [(place, InputError(f"{event}; the session is read up to here"))]
            break
        whole.append(event)
    if whole:
        yield where, [*whole, CUT] if fault else whole
    yield from fault


def objects(events: list, where: str) -> tuple[list[dict], bool, list[Document]]:
    """(the events up to the first that is no object, whether there is one, its fault unless it is named).

    Of a session that was cut there, the last turn may lack what came next.
    """
    for i, event in enumerate(events):
        if not isinstance(event, dict):
            sentence = f"a JSON {type(event).__name__}, want an object; the session is read up to here"
            fault = [] if event == CUT else [(f"{where}/line {i + 1}", InputError(sentence))]
            return events[:i], True, fault
    return events, False, []


def _lines(path: Path) -> Iterator[Document]:
    with path.open("rb") as f:
        for number, raw in enumerate(f, 1):
            if raw.strip():
                try:
                    yield f"{path}:{number}", read_value(raw)
                except InputError as e:
                    yield f"{path}:{number}", e


def _parquet(path: Path) -> Iterator[Document]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError(f"{path}: parquet files need pyarrow; install it with {EXTRA}") from None
    number = 0
    try:
        file = pyarrow.parquet.ParquetFile(path)
        _check_size(path, file.metadata)
        for batch in file.iter_batches(batch_size=16):
            for row in batch.to_pylist():
                number += 1
                yield f"{path}:{number}", without_nulls(row)
    except InputError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as e:
        raise InputError(f"{path}: no readable parquet file ({str(e).splitlines()[0]})") from None


def _check_size(path: Path, metadata: Any) -> None:
    """Raises InputError when a row group is too large once unpacked; `metadata` is the file's."""
    sizes = (metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    if (largest := max(sizes, default=0)) > LARGEST_ROW_GROUP:
        raise InputError(
            f"{path}: a row group takes {largest / 2**30:.1f} GiB once unpacked, more than "
            f"{LARGEST_ROW_GROUP / 2**30:.0f} GiB; write the file with smaller row groups"
        )


def without_undeclared_nulls(arguments: dict, schema: dict | None) -> dict:
    """Arguments without the nulls that their JSON schema does not declare: Arrow gives every object of a
    column the keys of all of them. If there were any, the nulls in objects without declared properties are
    Arrow's too."""
    schema = {"properties": {}, **(schema or {})}
    kept = _declared(arguments, schema)
    return kept if kept == arguments else _declared(arguments, schema, free=False)


def _declared(value: Any, schema: Any, free: bool = True) -> Any:
    """`value` without undeclared nulls; `free`: an object without declared properties keeps its nulls."""
    schema = schema if isinstance(schema, dict) else {}
    if isinstance(value, list):
        return [_declared(v, schema.get("items"), free) for v in value]
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        properties = dict.fromkeys(value) if free else {}
    required = schema.get("required") if isinstance(schema.get("required"), list) else ()
    return {
        k: _declared(v, properties.get(k), free)
        for k, v in value.items()
        if v is not None or (k in properties and (k in required or admits_null(properties[k])))
    }


def admits_null(schema: Any) -> bool:
    """Whether a JSON schema allows null, or does not say."""
    types = types_of(schema)
    return not types or "null" in types
