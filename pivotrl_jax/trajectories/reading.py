"""Demonstrations out of files, folders and hub datasets: which format is it, and read it.

    trajectories, named = read(["runs/", "rows.jsonl", "hf:owner/name"])

A reader is a module with `recognise(sample, path)`, where `sample` is the first document of the file, and
`read(path)`, which returns (trajectories, where -> why). Those that read rows of a hub dataset also have
`episodes` and `trajectory` (see `files.read_documents`).
"""

import dataclasses
import importlib
import importlib.util
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pivotrl_jax.records import InputError, Trajectory
from pivotrl_jax.trajectories.readers import base, files, hf_dataset, openai_chat, terminus

# In the order in which they are asked: what is told by few marks comes last. Loaded when asked for.
READERS = (
    "nemo_gym",
    "atif",
    "tau_bench",
    "openhands",
    "mini_swe_agent",
    "swe_agent",
    "terminus",
    "openai_chat",
)


ENDINGS = (".json", ".jsonl", ".ndjson", ".parquet", ".traj")


AUTO = "auto"


Named = dict[str, str]  # where -> why something there was left out


def reader(name: str) -> ModuleType:
    """The reader called `name`. Raises InputError that lists the known ones."""
    if name not in available():
        raise InputError(f"no format is called {name!r}; known are {', '.join((AUTO, *available()))}")
    return importlib.import_module(f"pivotrl_jax.trajectories.readers.{name}")


def available() -> list[str]:
    """The names of the readers that are installed."""
    return [
        n for n in READERS if importlib.util.find_spec(f"pivotrl_jax.trajectories.readers.{n}") is not None
    ]


def read(
    paths: Sequence[str | Path] | str | Path, format: str = AUTO, verifier: str = "", on_bad_row: str = "skip"
) -> tuple[list[Trajectory], Named]:
    """(trajectories with unique ids in the order of `paths`, where -> why a row or file was left out).

    `verifier` "" leaves each reader's own choice. Raises InputError for a path that is not there, a file
    given by name whose format is unknown, the first bad row if `on_bad_row` is "stop", and when nothing is
    usable.
    """
    if on_bad_row not in ("skip", "stop"):
        raise InputError(f'on_bad_row is {on_bad_row!r}; want "skip" or "stop"')
    trajectories: list[Trajectory] = []
    named: Named = {}
    for source, given in expand([paths] if isinstance(paths, (str, Path)) else paths):
        made, why = read_source(source, format, verifier, given)
        for where, sentence in why.items():
            if on_bad_row == "stop":
                raise InputError(f"{where}: {sentence}")
            named[where] = sentence
        trajectories += made
    return checked(trajectories, named), named


def checked(trajectories: list[Trajectory], named: Named) -> list[Trajectory]:
    """The trajectories with unique ids. Raises InputError when there is none."""
    if not trajectories:
        first = next((f"; the first that was left out: {w}: {s}" for w, s in named.items()), "")
        raise InputError(f"no usable trajectory; give at least one{first}")
    return unique(trajectories)


def expand(paths: Iterable[str | Path]) -> Iterator[tuple[str | Path, bool]]:
    """(a file, a folder of Terminus episodes or a hub dataset, whether it was given by name), in order.

    A file that is reached twice counts once. Raises InputError for a path that is not there.
    """
    seen = set()
    for path in paths:
        if str(path).startswith("hf:"):
            yield str(path), True
            continue
        path = Path(path)
        if not path.is_file() and not path.is_dir():
            raise InputError(f"{path}: no such file or folder; check the path")
        try:
            for found in _walk(path):
                if found.resolve() not in seen:
                    seen.add(found.resolve())
                    yield found, found == path
        except OSError as e:
            raise InputError(f"{path}: cannot be walked ({e.strerror})") from None


def _walk(path: Path) -> Iterator[Path]:
    if path.is_file() or terminus.episode_folders(path):
        yield path
        return
    for folder, inner, names in os.walk(path):
        inner.sort()
        episodes = [d for d in inner if terminus.episode_folders(Path(folder) / d)]
        inner[:] = [d for d in inner if d not in episodes and not d.startswith(".")]
        yield from (Path(folder) / d for d in episodes)
        yield from (Path(folder) / name for name in sorted(names) if not name.startswith("."))


def read_source(
    source: str | Path, format: str, verifier: str, given: bool
) -> tuple[list[Trajectory], Named]:
    """One of `expand`'s sources. Raises InputError if it was `given` by name and cannot be read at all."""
    try:
        if isinstance(source, str):
            made, why = _dataset(source, format)
        elif not given and source.is_file() and source.suffix not in ENDINGS:
            raise InputError(
                f"a file that does not end in {', '.join(ENDINGS)} is read only when it is named"
            )
        else:
            name = recognise(source) if format == AUTO else format
            made, why = _pairs(reader(name).read(source), source) if name != "openai_chat" else _chat(source)
    except InputError as e:
        sentence = str(e)
        if given:
            raise InputError(sentence if str(source) in sentence else f"{source}: {sentence}") from None
        return [], {str(source): sentence.removeprefix(f"{source}: ")}
    except OSError as e:
        raise InputError(f"{source}: cannot be read ({e.strerror or type(e).__name__})") from None
    if not made and not why:
        why = {str(source): "no episode in it"}
    return [dataclasses.replace(t, verifier=verifier) if verifier else t for t in made], why


def _chat(path: Path) -> tuple[list[Trajectory], Named]:
    return base.read_documents(files.documents(path), openai_chat.episodes, openai_chat.trajectory)


def _dataset(name: str, format: str) -> tuple[list[Trajectory], Named]:
    rows = hf_dataset.documents(name)
    first = next(rows, None)
    if first is None:
        raise InputError(f"{name}: the dataset has no rows")
    module = reader(recognise_sample(first[1], Path(name)) if format == AUTO else format)
    if not hasattr(module, "trajectory"):
        raise InputError(
            f"{name}: rows of the format {module.__name__.rpartition('.')[2]} are read from files"
        )
    return base.read_documents(itertools.chain([first], rows), module.episodes, module.trajectory)


def _pairs(result: Any, path: Path) -> tuple[list[Trajectory], Named]:
    """A reader's result; sentences that begin with their place are taken apart."""
    trajectories, why = result
    if isinstance(why, openai_chat.Skipped):
        split = (sentence.partition(": ") for sentence in why.sentences)
        why = {where: sentence for where, _, sentence in split}
    return trajectories, dict(why)


def recognise(path: Path) -> str:
    """The name of the format of a file, by its content. Raises InputError that lists the known formats."""
    if path.is_dir():
        return "terminus"
    first = bad = None
    for _, document in files.documents(path):
        if not isinstance(document, InputError):
            first = document
            break
        bad = bad or document
    else:
        raise InputError(f"{path}: no readable document in it" + (f"; the first fault: {bad}" if bad else ""))
    return recognise_sample(first, path)


def recognise_sample(sample: Any, path: Path) -> str:
    """The name of the format whose first document is `sample`. Raises InputError."""
    inner = [sample[0]] if isinstance(sample, list) and sample else []  # a list of any format's documents
    for name in available():
        for candidate in (sample, *inner):
            if reader(name).recognise(candidate, path):
                return name
    raise InputError(f"{path}: the format is not known; known are {', '.join(available())}")


def unique(trajectories: Iterable[Trajectory]) -> list[Trajectory]:
    """The same trajectories; an id that is taken gets "~2", "~3", ... in the given order."""
    taken: set[str] = set()
    count: dict[str, int] = {}
    out = []
    for trajectory in trajectories:
        id = trajectory.id
        while id in taken:
            count[trajectory.id] = count.get(trajectory.id, 1) + 1
            id = f"{trajectory.id}~{count[trajectory.id]}"
        taken.add(id)
        out.append(trajectory if id == trajectory.id else dataclasses.replace(trajectory, id=id))
    return out
