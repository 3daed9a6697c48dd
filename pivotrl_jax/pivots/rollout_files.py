"""Rollouts on disk; everything that writes or reads them does it here.

    rollouts/00000.jsonl   a line per rollout: candidate, sample, reward, reason, number of tokens, text
    rollouts/00000.npz     their token ids and log-probs, as arrays that `numpy.load` reads

Who needs rewards or texts reads the lines, one after another, and no arrays. The arrays are written first, so
a shard whose lines are there is whole. Earlier versions wrote the arrays into the lines; such files are read
as well.

The .npz has `token_ids`, `log_probs` and `model_log_probs` of all rollouts of the shard, one rollout after
another, and `counts`, int32 [rollouts 3], how many of each a rollout has. Ids are the smallest integers that
hold them. Log-probs are float32, if that is exact as it is for the own sampler, else float64. At temperature
1 without truncation `model_log_probs` are the `log_probs`, and are left out.
"""

import array
import dataclasses
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

import numpy as np

from pivotrl_jax.records import InputError, Rollout, parse_line, write_lines

ARRAYS = ".npz"  # suffix of a shard's arrays
LEVEL = 1  # of deflate: three times as fast as the usual 6, and 15 % larger
_LONG = ("token_ids", "log_probs", "model_log_probs")
# In a line, the text comes after what every reader needs, and a model's words come after this mark: inside of
# a JSON string its quotes would be escaped.
_TEXT = b', "text": '
_EMPTY = {name: [] for name in _LONG}
# what numpy and zipfile raise for a damaged file
_DAMAGE = (OSError, EOFError, ValueError, LookupError, TypeError, RuntimeError)
_DAMAGE += (struct.error, zlib.error, zipfile.BadZipFile)


def file_of(directory: Path, number: int) -> Path:
    """The shard with this number, by the name of its lines."""
    return directory / f"{number:05d}.jsonl"


def arrays_of(file: Path) -> Path:
    """The arrays of a shard."""
    return file.with_suffix(ARRAYS)


def groups_of(rollouts: Sequence[Rollout]) -> list[list[Rollout]]:
    """The rollouts of a shard, candidate by candidate."""
    starts = [at for at, rollout in enumerate(rollouts) if rollout.sample == 0]
    return [list(rollouts[start:end]) for start, end in zip(starts, [*starts[1:], len(rollouts)])]


# ---- writing


def write(file: Path, rollouts: Sequence[Rollout]) -> None:
    """Write a shard. It is there as a whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    target = arrays_of(file)
    temporary = target.with_name(target.name + ".tmp")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=LEVEL) as archive:
        for name, values in _pack(rollouts).items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, values, allow_pickle=False)
    os.replace(temporary, target)
    write_lines(file, map(_line, rollouts))


def _line(rollout: Rollout) -> str:
    value = {
        "candidate_id": rollout.candidate_id,
        "sample": rollout.sample,
        "reward": rollout.reward,
        "reason": rollout.reason,
        "tokens": len(rollout.token_ids),
        "finished": rollout.finished,
        "text": rollout.text,
        "details": rollout.details,
    }
    if rollout.served is not None:
        value["served"] = rollout.served
    return json.dumps(value, ensure_ascii=False)


def _pack(rollouts: Sequence[Rollout]) -> dict[str, np.ndarray]:
    counts = [[len(getattr(rollout, name)) for name in _LONG] for rollout in rollouts]
    packed = {
        "counts": np.array(counts, np.int32).reshape(-1, len(_LONG)),
        "token_ids": _smallest(_flat(rollouts, "token_ids", np.int64)),
        "log_probs": _float32_if_exact(_flat(rollouts, "log_probs", np.float64)),
    }
    if any(rollout.log_probs != rollout.model_log_probs for rollout in rollouts):
        packed["model_log_probs"] = _float32_if_exact(_flat(rollouts, "model_log_probs", np.float64))
    return packed


def _flat(rollouts: Sequence[Rollout], name: str, dtype: type) -> np.ndarray:
    return np.fromiter((x for rollout in rollouts for x in getattr(rollout, name)), dtype)


def _smallest(ids: np.ndarray) -> np.ndarray:
    if not ids.size:
        return ids.astype(np.uint8)
    return ids.astype(np.result_type(np.min_scalar_type(ids.min()), np.min_scalar_type(ids.max())))


def _float32_if_exact(values: np.ndarray) -> np.ndarray:
    short = values.astype(np.float32)
    return short if np.array_equal(short, values, equal_nan=True) else values


# ---- reading


def rewards(
    file: Path, candidate_ids: Sequence[str], group_size: int | None = None
) -> list[list[float | None]]:
    """The rewards of a shard, candidate by candidate. Raises InputError naming file and line, also if it is
    not a shard of these candidates in this order, each with its samples from 0 on, and `group_size` of them
    (None: adaptive profiling may have stopped before)."""
    groups: list[list[float | None]] = []
    names: list[str] = []
    for number, _, raw in _lines(file):
        head = _head(file, number, raw)
        try:
            if head["sample"] == 0:
                names.append(head["candidate_id"])
                groups.append([])
            group = groups[-1]
            good = head["sample"] == len(group) and head["candidate_id"] == names[-1]
            group.append(head["reward"])
        except LookupError as e:
            raise InputError(f"{file}:{number}: not a Rollout ({e}); remove the file") from None
        if not good:
            raise InputError(
                f"{file}:{number}: sample {head['sample']} of {head['candidate_id']} comes after "
                f"{len(group) - 1} of {names[-1]}; put back what the run wrote, or remove the file"
            )
    if names != list(candidate_ids):
        raise InputError(
            f"{file}: does not hold rollouts of its {len(candidate_ids)} candidates in their order; put back "
            "what the run wrote, or remove the file and start the program again"
        )
    if short := [name for name, group in zip(names, groups) if group_size not in (None, len(group))]:
        raise InputError(
            f"{file}: {short[0]} has not {group_size} rollouts; put back what the run wrote, or remove the "
            "file"
        )
    return groups


def summaries(file: Path, candidate_ids: Container[str] | None = None) -> Iterator[Rollout]:
    """The rollouts of a shard, or those of some candidates in it, in order, one at a time. Token ids and
    log-probs are left empty. Raises InputError naming file and line."""
    for number, _, raw in _lines(file):
        if candidate_ids is None or _head(file, number, raw).get("candidate_id") in candidate_ids:
            yield _rollout(file, number, parse_line(file, number, raw), _EMPTY)


def rollouts_of(folder: Path, candidate_ids: Container[str]) -> Iterator[Rollout]:
    """`summaries` of all shards in a folder, in the order of their names. A missing folder gives none."""
    for file in sorted(Path(folder).glob("*.jsonl")):
        yield from summaries(file, candidate_ids)


def read(file: Path) -> list[Rollout]:
    """All of a shard, with token ids and log-probs. Raises InputError, also where lines and arrays are not of
    the same rollouts."""
    values = [(number, parse_line(file, number, raw)) for number, _, raw in _lines(file)]
    if all("token_ids" in value for _, value in values):  # of an earlier version, or empty
        return [
            _rollout(file, number, value, {name: value.get(name) for name in _LONG})
            for number, value in values
        ]
    lists = _unpack(file, [value.get("tokens") for _, value in values])
    return [_rollout(file, number, value, long) for (number, value), long in zip(values, lists)]


class Index:
    """Where the rollouts of some candidates are, so that those of one can be read without the others. Memory:
    24 bytes per rollout, and a small array per candidate."""

    def __init__(self, folder: Path, candidate_ids: Container[str]):
        self._files = sorted(Path(folder).glob("*.jsonl"))
        self._places: dict[str, array.array] = {}
        for at, file in enumerate(self._files):
            for number, offset, raw in _lines(file):
                if (name := _head(file, number, raw).get("candidate_id")) in candidate_ids:
                    self._places.setdefault(name, array.array("q")).extend((at, number, offset))

    def read(self, candidate_id: str) -> list[Rollout]:
        """The rollouts of a candidate as `summaries`, in the order of files and lines. Raises InputError."""
        places, found = self._places.get(candidate_id, ()), []
        for at, number, offset in zip(places[::3], places[1::3], places[2::3]):
            file = self._files[at]
            with file.open("rb") as f:
                f.seek(offset)
                value = parse_line(file, number, f.readline())
            found.append(_rollout(file, number, value, _EMPTY))
        return found


def _lines(file: Path) -> Iterator[tuple[int, int, bytes]]:
    """(number, byte offset, text) of every line that is not blank."""
    offset = 0
    try:
        with file.open("rb") as f:
            for number, raw in enumerate(f, 1):
                if raw.strip():
                    yield number, offset, raw
                offset += len(raw)
    except FileNotFoundError:
        raise InputError(f"{file}: no such file; check the path") from None


def _head(file: Path, number: int, raw: bytes) -> dict:
    """What comes before the text in a line, which takes a tenth of the time of the whole line; the whole line
    of an earlier version, where the reward came after the text."""
    head, mark, _ = raw.partition(_TEXT)
    value = parse_line(file, number, head + b"}") if mark else {}
    return value if "reward" in value else parse_line(file, number, raw)


def _rollout(file: Path, number: int, value: dict, long: dict[str, list]) -> Rollout:
    fields = {name: x for name, x in value.items() if name != "tokens"} | long
    try:
        rollout = Rollout(**fields)
        if type(rollout.sample) is not int:
            rollout = dataclasses.replace(rollout, sample=int(rollout.sample))
        return rollout
    except (TypeError, ValueError) as e:
        raise InputError(f"{file}:{number}: not a Rollout ({e}); remove the file") from None


def _unpack(file: Path, tokens: Sequence[int]) -> list[dict[str, list]]:
    """Token ids and log-probs of every rollout of a shard, whose lines say how many `tokens` each has."""
    path = arrays_of(file)
    try:
        with np.load(path, allow_pickle=False) as found:
            packed = dict(found)
        counts = packed["counts"]
        packed.setdefault("model_log_probs", packed["log_probs"])
        good = counts[:, 0].tolist() == list(tokens)
        good &= all(counts[:, i].sum() == len(packed[name]) for i, name in enumerate(_LONG))
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; it has the token ids and log-probs of {file.name}: put it back, or "
            f"remove {file.name}, too, and start the program again"
        ) from None
    except _DAMAGE as e:
        raise InputError(
            f"{path}: not the arrays of a shard ({e}); put back what the run wrote, or remove {file.name}, "
            "too, and start the program again"
        ) from None
    if not good:
        raise InputError(
            f"{path}: holds the arrays of other rollouts than {file.name}; put back what the run wrote, or "
            "remove both and start the program again"
        )
    columns = {}
    for i, name in enumerate(_LONG):
        ends = np.cumsum(counts[:, i]).tolist()
        flat = packed[name].tolist()
        columns[name] = [flat[end - n : end] for end, n in zip(ends, counts[:, i].tolist())]
    return [dict(zip(_LONG, some)) for some in zip(*columns.values())]
