"""Which files of a work directory are a run's own: only these are ever deleted or written over.

A directory belongs to a run if its run.json is there, which is the first file that a run writes. In a run's
folders its own files are known by their names; other files there are left alone.
"""

import contextlib
import json
import os
import shutil
from pathlib import Path

from pivotrl_jax.checkpoints import hf, orbax, peft
from pivotrl_jax.records import InputError

_PROFILE = (
    *("rollouts/settings.json", "rollouts/rescored.json", "rollouts/[0-9][0-9][0-9][0-9][0-9].*"),
    *("profiles.jsonl", "pivots.jsonl"),
)
_PROFILES = tuple(f"{folder}{name}" for folder in ("", "reprofiled/*/", "resampled/") for name in _PROFILE)

STEPS, EVALUATIONS = "checkpoints/*", "evaluations/*.json"
# what the stages write into a work directory, as patterns; a checkpoint's step is a folder
RESULTS = (
    *("candidates.jsonl", "skipped.jsonl", *_PROFILES),
    *(STEPS, "metrics.jsonl", "trained_rewards.jsonl", "tensorboard/events.out.tfevents.*"),
    *("nonfinite_step_*.npz", EVALUATIONS, "evaluation.json", "report.html", "rescored.txt"),
    "tracking.json",
    *("report_data/index.js", "report_data/[0-9][0-9][0-9][0-9][0-9].js"),
    *(f"{folder}/{name}" for folder in ("hf", "served") for name in hf.FILES),
    *(f"adapter/{name}" for name in peft.FILES),
    "run.json",
)
# what may be brought from elsewhere: settings of their own say what they belong to
MOVABLE = ("rollouts", "evaluations")
BESIDE_ROLLOUTS = ("candidates.jsonl", "skipped.jsonl", "profiles.jsonl", "pivots.jsonl")


def is_own(workdir: Path) -> bool:
    """Whether a run has claimed a work directory."""
    try:
        page = json.loads((workdir / "run.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(page, dict) and isinstance(page.get("config"), dict)


def require_own(workdir: Path, resume: bool) -> None:
    """Raises InputError naming what a run would delete or write over, if no run has written it."""
    if is_own(workdir):
        return
    names = dict.fromkeys(pattern.partition("/")[0] for pattern in RESULTS)
    brought = ["evaluations"]  # deleted file by file
    if resume:
        brought += MOVABLE
        brought += BESIDE_ROLLOUTS if (workdir / "rollouts" / "settings.json").is_file() else ()
    there = [name for name in names if name not in brought and (workdir / name).exists()]
    if there:
        would = "write over" if resume else "delete"
        raise InputError(
            f"{workdir} holds {', '.join(there)}, and no run.json says that a run wrote them: this run would "
            f"{would} files there; name another config.workdir, or move them away"
        )


def require_apart(workdir: Path, inputs: list[tuple[str, str]]) -> None:
    """Raises InputError if `inputs`, pairs of a config field and a path, name what `delete_results` would
    delete."""
    names = {pattern.partition("/")[0] for pattern in RESULTS}
    for field, path in inputs:
        inside = Path(path).expanduser().resolve()
        if inside.exists() and inside.is_relative_to(workdir.resolve()):
            first = inside.relative_to(workdir.resolve()).parts[:1]
            if not first or first[0] in names:
                raise InputError(
                    f"config.{field} is {path}, which config.resume=False deletes with the results in "
                    f"{workdir}; name another config.workdir, or move what you start from"
                )


def delete_results(workdir: Path) -> None:
    """Delete everything that runs have written here; folders go when nothing is left in them."""
    folders = set()
    for pattern in RESULTS:
        for path in sorted(workdir.glob(pattern)):
            if pattern == STEPS:
                if _is_checkpoint(path):
                    shutil.rmtree(path)
            elif not path.is_dir() and (pattern != EVALUATIONS or _is_evaluation(path)):
                path.unlink()
            folders |= {folder for folder in path.parents if folder.is_relative_to(workdir)} - {workdir}
    for folder in sorted(folders, key=lambda folder: -len(folder.parts)):
        with contextlib.suppress(OSError):  # files of others are left
            os.rmdir(folder)


def delete_half_written(workdir: Path) -> None:
    """Delete what a killed run left of files that it was writing. The work directory must be locked."""
    for name in ("hf", "adapter", "served"):
        for end in ("tmp", "old"):
            for path in workdir.glob(f".{name}.[0-9]*.{end}"):
                if end == "old" and not (workdir / name).exists():
                    os.rename(path, workdir / name)  # killed between two renames: it may hold files of others
                else:
                    shutil.rmtree(path, ignore_errors=True)


def _is_checkpoint(path: Path) -> bool:
    """Whether something in checkpoints/ is a step of a training, whole or half-written."""
    whole = path.name.isdecimal() and any((path / item).is_dir() for item in orbax.ITEMS)
    return whole or ".orbax-checkpoint-tmp" in path.name


def _is_evaluation(path: Path) -> bool:
    try:
        page = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(page, dict) and {"identity", "results"} <= page.keys()
