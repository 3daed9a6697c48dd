"""metrics.jsonl and TensorBoard; and confidence intervals."""

import json
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pivotrl_jax.records import InputError

FILE = "metrics.jsonl"


class MetricsWriter:
    """Append to `workdir`/metrics.jsonl, one line per `write`, and to TensorBoard in `workdir`/tensorboard.

    start_step: the first step this process will write. A killed run may have written steps past the
    checkpoint that it resumes from, so lines with step >= start_step and a torn last line are dropped: no
    step is there twice. Raises InputError when a line before the last is not a metrics line.
    """

    def __init__(self, workdir: str | Path, start_step: int):
        from tensorboardX import SummaryWriter  # half a second that reading metrics need not pay

        self._path = Path(workdir) / FILE
        self._path.parent.mkdir(parents=True, exist_ok=True)
        _drop_from(self._path, start_step)
        self._file = self._path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(Path(workdir) / "tensorboard"), purge_step=start_step)

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """One line `{"step": step, **values}`. NaN and infinities become null: JSON has no word for them."""
        if "step" in values:
            raise ValueError(f"'step' is not a metric's name: {dict(values)}")
        numbers = {name: float(value) for name, value in values.items()}
        line = {"step": int(step)} | {n: v if math.isfinite(v) else None for n, v in numbers.items()}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        for name, value in numbers.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        self._file.close()
        self._board.close()


def read_metrics(workdir: str | Path) -> list[dict]:
    """The lines of `workdir`/metrics.jsonl in order, `{"step": int, name: float or None}`; [] without it.

    A torn last line (a run killed, or writing now) is left out. Raises InputError naming any other bad line.
    """
    path = Path(workdir) / FILE
    return [line for line, _ in _lines(path)] if path.is_file() else []


def _lines(path: Path) -> list[tuple[dict, int]]:
    """(line, where it ends in bytes) for every whole line."""
    raw = path.read_bytes()
    whole, found, end = raw.rfind(b"\n") + 1, [], 0
    for number, text in enumerate(raw[:whole].splitlines(keepends=True), 1):
        end += len(text)
        try:
            line = json.loads(text)
            if not isinstance(line["step"], int):
                raise TypeError("step is not a whole number")
        except (ValueError, KeyError, TypeError) as e:
            raise InputError(f"{path}:{number}: not a metrics line ({e}); remove the line") from None
        found.append((line, end))
    return found


def _drop_from(path: Path, step: int) -> None:
    if not path.is_file():
        return
    kept = [line for line, _ in _lines(path) if line["step"] < step]
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), "utf-8")
    os.replace(temporary, path)


class Interval(NamedTuple):
    """An estimate and the interval around it."""

    mean: float
    low: float
    high: float

    def contains(self, value: float) -> bool:
        return self.low <= value <= self.high


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Score interval of a proportion over independent tasks (Wilson 1927): honest at 0 and n, where a
    bootstrap has no width. `wilson(0, 0)` is (nan, 0, 1).

    Raises ValueError unless 0 <= successes <= n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes: {successes} of {n}")
    if n == 0:
        return Interval(math.nan, 0.0, 1.0)
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # exact at the ends, where rounding would leave 1e-17
    return Interval(p, 0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half)


def cluster_bootstrap(
    values: Sequence[float],
    clusters: Sequence[Any],
    confidence: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Mean of `values` with a percentile interval over whole clusters drawn with replacement.

    Turns of one episode, or samples of one task, succeed and fail together; drawn one by one they would count
    as independent, and the interval would be too narrow (Field and Welsh 2007, Bootstrapping clustered data).
    The seed is fixed: the same numbers give the same interval. Below about 30 clusters it is too
    narrow, and with all values equal it has no width: use `wilson` there.

    Raises ValueError for no values, or lengths that differ.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or len(values) != len(clusters) or not len(values):
        raise ValueError(f"values {values.shape} and {len(clusters)} clusters: want equal lengths above 0")
    index: dict[Any, int] = {}
    member = np.array([index.setdefault(c, len(index)) for c in clusters])
    total, count = np.bincount(member, values), np.bincount(member)
    rng = np.random.default_rng(seed)
    means = np.empty(draws)
    for start in range(0, draws, 1000):  # 1000 draws at a time keep memory small
        size = min(1000, draws - start)
        drawn = rng.integers(len(index), size=(size, len(index)))
        means[start : start + size] = total[drawn].sum(1) / count[drawn].sum(1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def paired_difference(
    before: Sequence[float],
    after: Sequence[float],
    clusters: Sequence[Any],
    confidence: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Mean of after - before on the same tasks, with `cluster_bootstrap`'s interval.

    Pairing takes out how hard each task is, which both share. An interval that excludes 0 says: a change.
    """
    before, after = np.asarray(before, np.float64), np.asarray(after, np.float64)
    if before.shape != after.shape:
        raise ValueError(f"before {before.shape} != after {after.shape}")
    return cluster_bootstrap(after - before, clusters, confidence, draws, seed)
