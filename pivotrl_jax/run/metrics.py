"""What a run logs while it trains: metrics.jsonl and TensorBoard."""

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pivotrl_jax.records import InputError

FILE = "metrics.jsonl"
# what a step took, which is not the same when a run is repeated
MEASURED = ("seconds", "rollout_seconds", "profiling_seconds", "tokens_per_second", "memory_gib")
# (steps taken, parameters with adapters joined) -> metrics; a function of (seed, steps, parameters) alone
Validate = Callable[[int, dict], dict[str, float]]


class MetricsWriter:
    """Append to `workdir`/metrics.jsonl, one line per `write`, and to TensorBoard in `workdir`/tensorboard.

    start_step: the first step this process will write. A killed run may have written steps past the
    checkpoint that it resumes from, so lines with step >= start_step and a torn last line are dropped, and no
    step occurs twice. Raises InputError when a line before the last is not a metrics line.
    """

    def __init__(self, workdir: str | Path, start_step: int):
        from tensorboardX import SummaryWriter  # takes half a second, not needed to read metrics

        self._path = Path(workdir) / FILE
        self._path.parent.mkdir(parents=True, exist_ok=True)
        _drop_from(self._path, start_step)
        self._file = self._path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(Path(workdir) / "tensorboard"), purge_step=start_step)

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
        for name, value in numbers.items():
            self._board.add_scalar(name, value, step)
        return line

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
