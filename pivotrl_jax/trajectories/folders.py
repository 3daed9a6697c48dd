"""Folders as agents' harnesses write them: which files in them are trajectories, and what became of a trial.

| folder | trajectories | beside them |
|---|---|---|
| Harbor | TRIAL/agent/trajectory*.json, else the agent's own files there | TRIAL/result.json (reward) |
| terminal-bench | TRIAL/agent-logs/episode-* | TRIAL/results.json (reward) |
| SWE-agent, mini-swe-agent | *.traj, *.traj.json | results.json, report.json (resolved ids), preds.json |
| OpenHands | output.jsonl | report.json (resolved ids), logs of calls |
| OpenHands' own | events/*.json, the SDK's with base_state.json | |
| tau2-bench | results.json with simulations/*.json | |
| Inspect | *.eval, *.json | logs.json, eval-set.json |

A trial is read once: where Harbor wrote its own format, the agent's file of the same trial is not read.
"""

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from pivotrl_jax.chat.json_text import read_object
from pivotrl_jax.records import InputError, Trajectory
from pivotrl_jax.trajectories.readers import building

ENDINGS = (".json", ".jsonl", ".ndjson", ".parquet", ".traj", ".eval")  # of files that are read in folders

# Files that harnesses write beside trajectories. A JSON file of such a name is still read if it is one.
COMPANIONS = (
    "config.json",
    "eval-set.json",
    "info.json",
    "lock.json",
    "logs.json",
    "metadata.json",
    "preds.json",
    "report.json",
    "result.json",
    "results.json",
    "run_metadata.json",
)
CALL_LOGS = ("llm_completions", "completions", "logs", "eval_outputs")  # folders beside OpenHands' output
COMPANION_ENDINGS = (".cast", ".diff", ".lock", ".log", ".patch", ".pred", ".yaml", ".yml")

REPORTS = ("results.json", "report.json", "results/results.json", "output.report.json")
MAX_REPORT = 64 << 20  # bytes
RESOLVED = ("resolved_ids", "resolved")


@dataclasses.dataclass
class Beside:
    """Files of a folder that are not read: file that holds the same trial ("" for none) -> their names."""

    folder: Path
    files: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def add(self, original: str, names: list[str]) -> None:
        """Count files that are not read."""
        if names:
            self.files.setdefault(original, []).extend(names)

    def __str__(self) -> str:
        return str(self.folder)

    def sentence(self) -> str:
        """What is not read and why."""
        said = []
        for original, names in sorted(self.files.items()):
            kinds = ", ".join(sorted(set(names))[:4]) + (", ..." if len(set(names)) > 4 else "")
            files = f"{len(names)} file{'s' * (len(names) > 1)} ({kinds})"
            why = f"beside {original}, which holds the same trial" if original else "beside trajectories"
            said.append(f"{files} {why}: not read")
        return "; ".join(said)


def walk(
    path: Path, is_source: Callable[[Path], bool], is_read: Callable[[Path], bool]
) -> Iterator[Path | Beside]:
    """The sources in a file or folder, in order, and last what is beside them.

    `is_source` says whether a folder is one source, `is_read` whether some reader recognises a file.
    """
    if path.is_file() or (is_source(path) and not _has_atif(path)):
        yield path
        return
    beside = Beside(path)
    for place, inner, names in os.walk(path):
        folder = Path(place)
        inner[:] = sorted(d for d in inner if not d.startswith("."))
        names = sorted(name for name in names if not name.startswith("."))
        _set_aside(beside, folder, inner, names)
        sources = [d for d in inner if is_source(folder / d) and not _has_atif(folder / d)]
        inner[:] = [d for d in inner if d not in sources]
        yield from (folder / d for d in sources)
        in_trial = trial(folder / "file") is not None
        for name in names:
            other = name.endswith(COMPANION_ENDINGS) or (in_trial and not name.endswith(ENDINGS))
            other = other or _is_named_report(folder / name)
            if other or (_is_companion(name) and not is_read(folder / name)):
                beside.add("", [name])
            else:
                yield folder / name
    if beside.files:
        yield beside


def _set_aside(beside: Beside, folder: Path, inner: list[str], names: list[str]) -> None:
    """Take from `inner` and `names` what a known layout holds beside its trajectories, and their copies."""
    if _is_trial(folder):
        beside.add("", names)
        names[:] = []
        original, others = "", [d for d in inner if d != "agent"]
    elif _has_atif(folder):
        original, others = "trajectory.json", list(inner)
        beside.add(original, [name for name in names if not _is_atif(name)])
        names[:] = [name for name in names if _is_atif(name)]
    elif (folder / "agent-logs").is_dir():  # a trial of terminal-bench
        beside.add("", names)
        names[:] = []
        original, others = "", [d for d in inner if d != "agent-logs"]
    elif "output.jsonl" in names:
        original, others = "output.jsonl", [d for d in inner if d in CALL_LOGS]
    else:
        return
    for other in others:
        beside.add(original, [name for _, _, files in os.walk(folder / other) for name in files])
    inner[:] = [d for d in inner if d not in others]


def _is_companion(name: str) -> bool:
    return name in COMPANIONS or name.startswith("output.swebench")


# ---- Harbor


def _is_atif(name: str) -> bool:
    return name.startswith("trajectory.") and name.endswith(".json")


def _has_atif(folder: Path) -> bool:
    """Whether it is a trial's agent folder that holds the trial in Harbor's own format."""
    return folder.name == "agent" and (folder / "trajectory.json").is_file()


def _is_trial(folder: Path) -> bool:
    known = ("result.json", "config.json", "verifier")
    return (folder / "agent").is_dir() and any((folder / name).exists() for name in known)


def trial(path: Path) -> Path | None:
    """The folder of the Harbor trial that a file in its agent folder, or that folder, belongs to."""
    for folder in (path, *list(path.parents)[:8]):
        if (
            folder.name == "agent"
            and folder.parent.name
            and (_is_trial(folder.parent) or path.parent == folder)
        ):
            return folder.parent
    return None


def _trial_result(folder: Path) -> dict:
    try:
        return read_object((folder / "result.json").read_bytes())
    except (InputError, OSError):
        return {}


def _trial_reward(folder: Path, result: dict) -> float | None:
    verdict = result.get("verifier_result")
    rewards = verdict.get("rewards") if isinstance(verdict, dict) else None
    if isinstance(rewards, dict) and rewards:
        reward = rewards.get("reward", next(iter(rewards.values())) if len(rewards) == 1 else None)
        if building.number(reward) is not None:
            return building.number(reward)
    for name in ("reward.txt", "reward.json"):
        try:
            text = (folder / "verifier" / name).read_text(encoding="utf-8").strip()
            value = json.loads(text[:1000]) if name == "reward.json" else float(text[:40])
            value = value.get("reward") if isinstance(value, dict) else value
            if building.number(value) is not None:
                return building.number(value)
        except (OSError, ValueError, RecursionError):
            continue
    return None  # unknown; the success filter counts these


# ---- what became of a trial


def with_outcomes(trajectories: list[Trajectory], source: Path) -> list[Trajectory]:
    """The trajectories of a source, with scenario and reward of the trial or report that stands beside it.

    A reward that the trajectory records itself stays.
    """
    folder = trial(source)
    if folder is not None:
        result = _trial_result(folder)
        scenario = building.named(result, ("task_name",), folder.name.rpartition("__")[0] or folder.name)
        reward = _trial_reward(folder, result)
        return [
            dataclasses.replace(
                t,
                id=t.id if t.source == "atif" else folder.name,
                scenario=scenario,
                reward=reward if t.reward is None else t.reward,
            )
            for t in trajectories
        ]
    if all(t.reward is not None for t in trajectories):
        return trajectories
    reports = list(_reports(source))
    return [
        dataclasses.replace(t, reward=next((r[t.scenario] for r in reports if t.scenario in r), None))
        if t.reward is None
        else t
        for t in trajectories
    ]


def _reports(source: Path) -> Iterator[dict[str, float]]:
    """What an evaluation's reports say that stand in the folder of a source or in the two above it."""
    for folder in list(source.parents)[:3]:
        try:
            files = [*(folder / name for name in REPORTS), *_named_reports(folder, folder.stat().st_mtime_ns)]
        except OSError:
            continue
        for file in files:
            try:
                status = file.stat()
                if file != source and file.is_file() and status.st_size < MAX_REPORT:
                    yield _verdicts(file, status.st_mtime_ns)
            except (InputError, OSError):
                continue


@functools.lru_cache(maxsize=16)
def _named_reports(folder: Path, changed: int) -> list[Path]:
    """SWE-bench's reports in a folder, which are called MODEL.RUN.json. `changed` is the folder's time."""
    return [file for file in sorted(folder.glob("*.*.json")) if _is_named_report(file)]


def _is_named_report(file: Path) -> bool:
    name = file.name
    if name.count(".") < 2 or not name.endswith(".json") or name.endswith((".traj.json", ".trajectory.json")):
        return False
    try:
        with file.open("rb") as f:
            return b'"resolved_ids"' in f.read(1 << 20)
    except OSError:
        return False


@functools.lru_cache(maxsize=16)
def _verdicts(file: Path, changed: int) -> dict[str, float]:
    """Instance -> 1 if a report counts it as resolved, 0 if it names it only otherwise. Raises InputError.

    A report has lists of ids, or an object with `resolved` for each instance. `changed` is the file's time.
    """
    report = read_object(file.read_bytes())
    verdicts: dict[str, float] = {}
    for name, own in report.items():
        if isinstance(own, dict) and building.number(own.get("resolved")) is not None:
            verdicts[name] = building.number(own["resolved"])
    if any(isinstance(report.get(key), list) for key in RESOLVED):
        lists = [(key, ids) for key, ids in report.items() if isinstance(ids, list)]
        for _, ids in lists:
            verdicts |= {id: 0.0 for id in ids if isinstance(id, str)}
        for key, ids in lists:
            if key in RESOLVED:
                verdicts |= {id: 1.0 for id in ids if isinstance(id, str)}
    return verdicts
