"""Documents out of files: JSON, JSON lines, parquet. What is not readable is named, never dropped.

A document is one JSON value and the place it came from. Readers turn documents into trajectories.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pivotrl_jax.records import InputError

# (where, value); the value is the InputError itself where nothing could be read
Document = tuple[str, Any]


EXTRA = "pip install -e '.[datasets]'"


def read_row(raw: bytes) -> dict:
    """The JSON object of one line. Raises InputError, without the line's number."""
    row = _value(raw)
    if not isinstance(row, dict):
        raise InputError(f"a JSON {type(row).__name__}, want an object; fix or remove the line")
    return row


def _value(raw: bytes) -> Any:
    try:
        value = json.loads(raw.decode("utf-8-sig"))
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise InputError("a text holds half of a surrogate pair; repair the text") from None
    except (ValueError, RecursionError) as e:
        raise InputError(f"not valid JSON ({e}); fix or remove the line") from None
    return value


def documents(path: Path) -> Iterator[Document]:
    """Every document of a file: one per line of JSONL or row of parquet ("file:number"), else the whole file.

    A file is JSONL by its name, or because it is no single JSON value and its first line is one. Raises
    InputError for a missing file, an unreadable parquet file, or a file without any JSON.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    if path.suffix == ".parquet":
        yield from _parquet(path)
    elif path.suffix in (".jsonl", ".ndjson"):
        yield from _lines(path)
    else:
        try:
            yield str(path), _value(path.read_bytes())
        except InputError as e:
            lines = list(_lines(path))
            if len(lines) < 2 or isinstance(lines[0][1], InputError) or not isinstance(lines[0][1], dict):
                raise InputError(f"{path}: {e}") from None
            yield from lines


def _lines(path: Path) -> Iterator[Document]:
    with path.open("rb") as f:
        for number, raw in enumerate(f, 1):
            if raw.strip():
                try:
                    yield f"{path}:{number}", _value(raw)
                except InputError as e:
                    yield f"{path}:{number}", e


def _parquet(path: Path) -> Iterator[Document]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError(f"{path}: parquet files need pyarrow; install it with {EXTRA}") from None
    try:
        number = 0
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=64):
            for row in batch.to_pylist():
                number += 1
                yield f"{path}:{number}", without_nulls(row)
    except (pyarrow.ArrowException, OSError, ValueError) as e:
        raise InputError(f"{path}: no readable parquet file ({str(e).splitlines()[0]})") from None


def without_nulls(value: Any) -> Any:
    """`value` without the keys that are null: columns of structs hold every row's keys, most of them null."""
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return [without_nulls(v) for v in value] if isinstance(value, list) else value
