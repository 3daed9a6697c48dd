"""A training reports to experiment trackers: Weights & Biases, MLflow.

Trackers are fed from the run's own files, which stay the record: metrics.jsonl while it trains, and config,
evaluation and pivots at the end. `tracking.json` says how a run is known there, so a resumed run goes on in
the same place and reports no step twice. A tracker that fails, such as one whose network is down, is given up
with a warning, and training goes on.
"""

import dataclasses
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax

from pivotrl_jax.checkpoints.identity import flatten
from pivotrl_jax.records import InputError, Pivot, read_records, write_json
from pivotrl_jax.run.metrics import read_metrics
from pivotrl_jax.run.options_tracking import TRACKERS

FILE = "tracking.json"
PIVOTS = 1000  # rows of the table of pivots
COLUMNS = ("id", "scenario", "turn", "mean", "samples", "demonstration")


class Tracker(Protocol):
    """One tracker, open for one run."""

    id: str  # by which the run is opened there again

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Metrics after a step."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table."""

    def summary(self, numbers: Mapping[str, float]) -> None:
        """Final numbers."""

    def upload(self, folder: Path) -> None:
        """All files of a folder, as an artifact with its name."""

    def close(self) -> None:
        """The run is over."""


@dataclasses.dataclass(frozen=True)
class About:
    """What a tracker is told when it opens a run."""

    project: str
    name: str
    config: Mapping[str, Any]  # dotted name -> value
    workdir: Path
    id: str | None  # of the run there, if there is one


class WandB:
    """Weights & Biases. With WANDB_MODE=offline it writes to workdir/wandb, for `wandb sync`."""

    def __init__(self, about: About):
        import wandb

        self._wandb = wandb
        self._run = wandb.init(
            project=about.project,
            name=about.name,
            id=about.id,
            resume="allow",
            dir=str(about.workdir),
            config=dict(about.config),
        )
        self.id = self._run.id

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self._run.log({name: self._wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def summary(self, numbers: Mapping[str, float]) -> None:
        self._run.summary.update(dict(numbers))

    def upload(self, folder: Path) -> None:
        artifact = self._wandb.Artifact(f"{self._run.id}-{folder.name}", type="model")
        artifact.add_dir(str(folder))
        self._run.log_artifact(artifact)

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """MLflow, at MLFLOW_TRACKING_URI (a server, or `sqlite:///FILE`)."""

    def __init__(self, about: About):
        import mlflow

        self._mlflow = mlflow
        mlflow.set_experiment(about.project)
        run = mlflow.start_run(run_id=about.id, run_name=None if about.id else about.name)
        self.id = run.info.run_id
        if about.id is None:  # parameters cannot change
            mlflow.log_params({name: str(value)[:500] for name, value in about.config.items()})

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._mlflow.log_metrics(dict(numbers), step=step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        page = {"columns": list(columns), "data": [list(row) for row in rows]}
        self._mlflow.log_text(json.dumps(page, ensure_ascii=False), f"{name}.json")

    def summary(self, numbers: Mapping[str, float]) -> None:
        self._mlflow.log_metrics({f"final/{name}": value for name, value in numbers.items()})

    def upload(self, folder: Path) -> None:
        self._mlflow.log_artifacts(str(folder), artifact_path=folder.name)

    def close(self) -> None:
        self._mlflow.end_run()


MAKERS: dict[str, Callable[[About], Tracker]] = {"wandb": WandB, "mlflow": MLflow}


class Tracking:
    """The trackers of one run. With none, every method does nothing."""

    def __init__(self, names: Sequence[str], about: About):
        """Opens the trackers. Raises InputError for one that is not installed, before anything is opened."""
        for name in names:
            if importlib.util.find_spec(name) is None:
                raise InputError(
                    f"config.track.to names {name!r}, and {TRACKERS[name]} is not installed; install it with "
                    f"pip install -e '.[{name}]', or leave it out"
                )
        self._workdir, self._file = about.workdir, about.workdir / FILE
        # tracker -> {"id": of the run there, "steps": how many are reported}
        self._known = json.loads(self._file.read_text("utf-8")) if names and self._file.is_file() else {}
        self._trackers: dict[str, Tracker] = {}
        for name in names:
            known = self._known.get(name, {"id": None, "steps": 0})
            tracker = self._guarded(name, MAKERS[name], dataclasses.replace(about, id=known["id"]))
            if tracker is not None:
                self._trackers[name] = tracker
                self._known[name] = {**known, "id": tracker.id}
        if self._trackers:
            write_json(self._file, self._known)

    def step(self) -> None:
        """Report the lines of metrics.jsonl that have not been reported."""
        if not self._trackers:
            return
        lines = read_metrics(self._workdir)
        for name in list(self._trackers):
            for line in lines:
                if line["step"] >= self._known[name]["steps"]:
                    numbers = {k: v for k, v in line.items() if k != "step" and v is not None}
                    self._call(name, "log", line["step"], numbers)
                    self._known[name]["steps"] = line["step"] + 1
        write_json(self._file, self._known)

    def finish(self, summary: Mapping[str, float], folders: Sequence[Path]) -> None:
        """Report the pivots, final numbers and, as artifacts, these folders; then close."""
        self.step()
        file = self._workdir / "pivots.jsonl"
        rows = _rows(read_records(file, Pivot)) if self._trackers and file.is_file() else []
        for name in list(self._trackers):
            if rows:
                self._call(name, "table", "pivots", COLUMNS, rows)
            self._call(name, "summary", summary)
            for folder in folders:
                self._call(name, "upload", folder)
        self.close()

    def close(self) -> None:
        """Close the trackers; the run may go on in another process."""
        for name in list(self._trackers):
            self._call(name, "close")
        self._trackers.clear()

    def _call(self, name: str, method: str, *arguments: Any) -> None:
        if name in self._trackers:
            self._guarded(name, getattr(self._trackers[name], method), *arguments)

    def _guarded(self, name: str, call: Callable, *arguments: Any) -> Any:
        """The call's result; None if it fails. Its tracker is given up then: whatever a library of others
        raises must not end a training."""
        try:
            return call(*arguments)
        except Exception as e:
            self._trackers.pop(name, None)
            reason = (str(e).strip().splitlines() or [type(e).__name__])[0][:200]
            print(
                f"warning: {TRACKERS[name]} failed and is not reported to any more ({reason}); the run goes "
                "on, and metrics.jsonl has everything",
                file=sys.stderr,
            )
            return None


def _rows(pivots: Sequence[Pivot]) -> list[tuple]:
    return [
        (
            p.candidate.id,
            p.candidate.scenario,
            p.candidate.turn,
            p.profile.mean,
            len(p.profile.rewards),
            json.dumps(p.candidate.demonstration, ensure_ascii=False)[:500],
        )
        for p in pivots[:PIVOTS]
    ]


def none() -> Tracking:
    """No trackers."""
    return Tracking((), About("", "", {}, Path(), None))


def of(config: Any, workdir: Path) -> Tracking:
    """The trackers that a run's config names. Of several processes, the first alone reports. Raises
    InputError for a tracker that is not installed."""
    c = config.track
    if not c.to or jax.process_index():
        return none()
    about = About(c.project, c.name or workdir.resolve().name, flatten(config.to_dict()), workdir, None)
    return Tracking(tuple(c.to), about)
