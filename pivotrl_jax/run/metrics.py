"""What a run logs while it trains: metrics.jsonl and TensorBoard."""

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pivotrl_jax.records import InputError

FILE = "metrics.jsonl"
# what a step took, which is not the same when a run is repeated
MEASURED = (
    *("seconds", "rollout_seconds", "profiling_seconds", "validation/seconds"),
    *("tokens_per_second", "memory_gib"),
)
# (steps taken, parameters with adapters joined) -> metrics; a function of (seed, steps, parameters) alone
Validate = Callable[[int, dict], dict[str, float]]


class MetricsWriter:
    """Append to `workdir`/metrics.jsonl, one line per `write`, and to TensorBoard in `workdir`/tensorboard.

    start_step: the first step this process will write. A killed run may have written steps past the
    checkpoint that it resumes from, so lines with step >= start_step and a torn last line are dropped, and no
    step occurs twice. Raises InputError when a line before the last is not a metrics line.
    """

    def __init__(self, workdir: str | Path, start_step: int):
        self._path = Path(workdir) / FILE
        self._path.parent.mkdir(parents=True, exist_ok=True)
        _drop_from(self._path, start_step)
        self._file = self._path.open("a", encoding="utf-8")
        self._board = _Board(Path(workdir) / "tensorboard", start_step)

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, step: int, values: Mapping[str, Any]) -> dict[str, float | None]:
        """Write and return a line `{"step": step, **values}`. NaN and infinities become null, since JSON has
        neither."""
        if "step" in values:
            raise ValueError(f"'step' is not a metric's name: {dict(values)}")
        numbers = {name: float(value) for name, value in values.items()}
        line = {"step": int(step)} | {n: v if math.isfinite(v) else None for n, v in numbers.items()}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        self._board.write(step, numbers)
        return line

    def close(self) -> None:
        self._file.close()
        self._board.close()


class _Board:
    """TensorBoard's file. It is written in this thread: tensorboardX's own writer has a thread that ends when
    the disk is full, and then training would wait for it forever."""

    def __init__(self, directory: Path, start_step: int):
        from tensorboardX import event_file_writer, summary  # takes half a second, not needed to read metrics
        from tensorboardX.proto import event_pb2

        directory.mkdir(exist_ok=True)
        self._event, self._scalar = event_pb2.Event, summary.scalar
        self._file = event_file_writer.EventsWriter(str(directory / "events"))
        start = event_pb2.SessionLog(
            status=event_pb2.SessionLog.START
        )  # hides what comes later and was undone
        self._file.write_event(self._event(step=start_step, wall_time=time.time(), session_log=start))

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        now = time.time()
        for name, value in numbers.items():
            scalar = self._scalar(name, value)
            self._file.write_event(self._event(step=step, wall_time=now, summary=scalar))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_metrics(workdir: str | Path) -> list[dict]:
    """The lines of `workdir`/metrics.jsonl in order, `{"step": int, name: float or None}`; [] without it.

    A torn last line (a run killed, or writing now) is left out. Raises InputError naming any other bad line.
    """
    path = Path(workdir) / FILE
    return [line for line, _ in _lines(path)] if path.is_file() else []


def _lines(path: Path) -> list[tuple[dict, int]]:
    """(line, byte where it ends) for every whole line."""
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
    earlier = [line for line, _ in _lines(path) if line["step"] < step]
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text("".join(json.dumps(line) + "\n" for line in earlier), "utf-8")
    os.replace(temporary, path)
