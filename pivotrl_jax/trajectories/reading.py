"""Demonstrations from files, folders and hub datasets: recognise the format and read it.

    trajectories, left_out = read(["runs/", "rows.jsonl", "hf:owner/name"])

readers/base.py says what a reader is and how to add one.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pivotrl_jax import plugins
from pivotrl_jax.chat.json_text import loads
from pivotrl_jax.chat.tools import read_tools
from pivotrl_jax.records import InputError, Trajectory
from pivotrl_jax.trajectories import folders
from pivotrl_jax.trajectories.folders import ENDINGS, Beside
from pivotrl_jax.trajectories.readers import (
    anthropic,
    atif,
    claude_code,
    codex,
    files,
    hf_dataset,
    inspect_log,
    langchain,
    mini_swe_agent,
    nemo_gym,
    openai_chat,
    openhands,
    openhands_v1,
    swe_agent,
    tau_bench,
    terminus,
)
from pivotrl_jax.trajectories.readers.base import DEEP, Reader, read_documents

# Tried in this order to recognise a file; formats with few distinctive fields come last.
READERS: dict[str, Reader] = {
    "nemo_gym": nemo_gym,
    "atif": atif,
    "tau_bench": tau_bench,
    "openhands": openhands,
    "openhands_v1": openhands_v1,
    "inspect_log": inspect_log,
    "claude_code": claude_code,
    "codex": codex,
    "mini_swe_agent": mini_swe_agent,
    "swe_agent": swe_agent,
    "anthropic": anthropic,
    "langchain": langchain,
    "terminus": terminus,
    "openai_chat": openai_chat,
}
AUTO = "auto"

LeftOut = dict[str, str]  # place -> why what is there was left out


# ---- readers


def find_reader(format: str, field: str) -> Reader | None:
    """The reader called `format`; None for "auto", which recognises each file.

    `format` is a key of READERS, an entry point of the group pivotrl_jax.readers, "package.module:" or
    "package.module:object". `field` is the config field or the flag that it comes from. Raises InputError
    that names `field` for an unknown name and for an object that is not a reader.
    """
    if format == AUTO:
        return None
    reader = plugins.find("readers", format, {AUTO: None, **READERS}, field)
    missing = [name for name in ("recognise", "trajectory") if not callable(getattr(reader, name, None))]
    if missing:
        raise InputError(
            f"{field} is {format!r}, which has no function {' and no '.join(missing)}; "
            "a reader needs recognise(sample, path) and trajectory(document, where)"
        )
    return reader


def _readers() -> Iterator[tuple[str, Reader]]:
    """(name, reader): the built-in ones, then the installed ones, each loaded only when it is reached."""
    yield from READERS.items()
    for name in plugins.entry_points("readers"):
        if name not in READERS:
            yield name, find_reader(name, f"the entry point {name} of pivotrl_jax.readers")


def recognise(path: Path) -> str:
    """The name of the format of a file, by its content. Raises InputError that lists the known formats."""
    return _recognise(path)[0]


def _recognise(path: Path) -> tuple[str, Reader]:
    for name, reader in READERS.items():
        if hasattr(reader, "holds") and reader.holds(path):
            return name, reader
    if path.is_dir():
        raise InputError(f"{path}: a folder, but none that a reader knows as one document")
    first = bad = None
    for _, document in files.documents(path):
        if not isinstance(document, InputError):
            first = document
            break
        bad = bad or document
    else:
        raise InputError(f"{path}: no readable document in it" + (f"; the first fault: {bad}" if bad else ""))
    return _recognise_sample(first, path)


def _recognise_sample(sample: Any, path: Path) -> tuple[str, Reader]:
    """(name, reader) of the format whose first document is `sample`. Raises InputError."""
    inner = [sample[0]] if isinstance(sample, list) and sample else []  # a list of documents of any format
    for name, reader in _readers():
        try:
            if any(reader.recognise(candidate, path) for candidate in (sample, *inner)):
                return name, reader
        except RecursionError:
            raise InputError(f"{path}: {DEEP}") from None
    names = ", ".join((*READERS, *sorted(set(plugins.entry_points("readers")) - set(READERS))))
    raise InputError(f"{path}: the format is not known; known are {names}")


# ---- reading


def read(
    paths: Sequence[str | Path] | str | Path,
    format: str = AUTO,
    verifier: str = "",
    on_bad_row: str = "skip",
    field: str = "format",
) -> tuple[list[Trajectory], LeftOut]:
    """(trajectories with unique ids in the order of `paths`, place -> why a row or file was left out).

    `verifier` "" leaves the choice to each reader. `field` is the config field or the flag that `format`
    comes from; errors name it. Raises InputError for an unknown `format`, for a path that does not exist, for
    a file given by name whose format is not recognised, for the first bad row if `on_bad_row` is "stop", and
    when nothing is usable.
    """
    if on_bad_row not in ("skip", "stop"):
        raise InputError(f'on_bad_row is {on_bad_row!r}; want "skip" or "stop"')
    reader = find_reader(format, field)
    trajectories: list[Trajectory] = []
    left_out: LeftOut = {}
    for source, by_name in expand([paths] if isinstance(paths, (str, Path)) else paths, reader):
        episodes, faults = read_source(source, reader, verifier, by_name)
        for where, sentence in faults.items():
            if on_bad_row == "stop" and not isinstance(source, Beside):
                raise InputError(f"{where}: {sentence}")
            left_out[where] = sentence
        trajectories += episodes
    return usable(trajectories, left_out), left_out


def usable(trajectories: list[Trajectory], left_out: LeftOut) -> list[Trajectory]:
    """The trajectories, with unique ids. Raises InputError when there is none."""
    if not trajectories:
        first = next((f"; the first that was left out: {w}: {s}" for w, s in left_out.items()), "")
        raise InputError(f"no usable trajectory; give at least one{first}")
    return unique(trajectories)


def unique(trajectories: Iterable[Trajectory]) -> list[Trajectory]:
    """The same trajectories in order, with unique ids: a repeated id gets "~2", "~3", ... added."""
    ids: set[str] = set()
    count: dict[str, int] = {}
    result = []
    for trajectory in trajectories:
        id = trajectory.id
        while id in ids:
            count[trajectory.id] = count.get(trajectory.id, 1) + 1
            id = f"{trajectory.id}~{count[trajectory.id]}"
        ids.add(id)
        result.append(trajectory if id == trajectory.id else dataclasses.replace(trajectory, id=id))
    return result


def read_source(
    source: str | Path | Beside, reader: Reader | None, verifier: str, by_name: bool
) -> tuple[list[Trajectory], LeftOut]:
    """Read one of `expand`'s sources; with `reader` None its format is recognised.

    Raises InputError for a source that cannot be read at all, if the user gave it `by_name`. One that was
    found in a folder is left out instead.
    """
    if isinstance(source, Beside):
        return [], {str(source): source.sentence()}
    try:
        if isinstance(source, str):
            trajectories, left_out = _read_dataset(source, reader)
        elif not by_name and source.is_file() and source.suffix not in ENDINGS:
            raise InputError(f"a file that does not end in {', '.join(ENDINGS)} is only read if it is named")
        else:
            trajectories, left_out = _read_file(source, reader)
            trajectories = folders.with_outcomes(trajectories, source)
    except InputError as e:
        sentence = str(e)
        if by_name:
            raise InputError(sentence if str(source) in sentence else f"{source}: {sentence}") from None
        return [], {str(source): sentence.removeprefix(f"{source}: ")}
    except OSError as e:
        raise InputError(f"{source}: cannot be read ({e.strerror or type(e).__name__})") from None
    if not trajectories and not left_out:
        left_out = {str(source): "no episode in it"}
    if verifier:
        trajectories = [dataclasses.replace(t, verifier=verifier) for t in trajectories]
    return trajectories, left_out


def _read_file(path: Path, reader: Reader | None) -> tuple[list[Trajectory], LeftOut]:
    """Read a file, or a folder that is one document. Where no `reader` is chosen, a document that the reader
    of the first does not recognise, and another does, is read by that one."""
    main = reader or _recognise(path)[1]
    if hasattr(main, "documents"):
        return read_documents(main, main.documents(path))
    if reader:
        return read_documents(reader, files.documents(path))
    return _read_mixed(main, path, files.documents(path))


def _read_mixed(
    main: Reader, path: Path, documents: Iterable[files.Document]
) -> tuple[list[Trajectory], LeftOut]:
    """Read each document by the first reader that knows it, and what none knows by `main`."""
    trajectories: list[Trajectory] = []
    left_out: LeftOut = {}
    mixed = ((_reader_of(value, path, main), (where, value)) for where, value in documents)
    for own, group in itertools.groupby(mixed, key=lambda pair: pair[0]):
        read, faults = read_documents(own, (document for _, document in group))
        trajectories += read
        left_out |= faults
    return trajectories, left_out


def _reader_of(document: Any, path: Path, main: Reader) -> Reader:
    """`main`, unless it does not recognise a document that another reader does. Chat rows are recognised by
    little, so other readers come first there too."""
    try:
        if isinstance(document, InputError) or (main is not openai_chat and main.recognise(document, path)):
            return main
        other = _recognise_sample(document, path)[1]
    except (InputError, RecursionError):
        return main
    # those that join several lines read whole files; with `holds`, it is folders that they join
    return main if hasattr(other, "documents") and not hasattr(other, "holds") else other


def _read_dataset(name: str, reader: Reader | None) -> tuple[list[Trajectory], LeftOut]:
    rows = hf_dataset.documents(name)
    first = next(rows, None)
    if first is None:
        raise InputError(f"{name}: the dataset has no rows")
    rows = itertools.chain([first], rows)
    if reader:
        return read_documents(reader, rows)
    return _read_mixed(_recognise_sample(first[1], Path(name))[1], Path(name), rows)


def read_tools_file(path: str) -> list[dict]:
    """Function docs for episodes that have none, from a JSON list. "" gives []. Raises InputError."""
    if not path:
        return []
    try:
        return read_tools(loads(Path(path).read_text(encoding="utf-8")))
    except OSError as e:
        raise InputError(f"{path} cannot be read ({e.strerror}); name a JSON list of function docs") from None
    except ValueError as e:  # InputError is a ValueError
        raise InputError(f"{path}: {e}") from None


# ---- paths


def expand(
    paths: Iterable[str | Path], reader: Reader | None = None
) -> Iterator[tuple[str | Path | Beside, bool]]:
    """(source, whether the user gave it by name), in order.

    A source is a file, a folder that is one document, the name of a hub dataset, or what a folder holds
    beside its trajectories. A file that is reached twice counts once. With a `reader` that the user chose,
    files are not left to others by their names. Raises InputError for a path that does not exist.
    """
    visited = set()
    for path in paths:
        if str(path).startswith("hf:"):
            yield str(path), True
            continue
        path = Path(path)
        if not path.is_file() and not path.is_dir():
            raise InputError(f"{path}: no such file or folder; check the path")
        try:
            for source in folders.walk(path, _is_source, lambda file: reader is not None or _is_read(file)):
                if isinstance(source, Beside):
                    yield source, False
                elif source.resolve() not in visited:
                    visited.add(source.resolve())
                    yield source, source == path
        except OSError as e:
            raise InputError(f"{path}: cannot be walked ({e.strerror})") from None


def _is_source(folder: Path) -> bool:
    return any(reader.holds(folder) for reader in READERS.values() if hasattr(reader, "holds"))


def _is_read(file: Path) -> bool:
    """Whether some reader recognises a file."""
    try:
        _recognise(file)
    except (InputError, OSError):
        return False
    return True
