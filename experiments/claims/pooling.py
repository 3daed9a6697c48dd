"""Numbers of finished runs, pooled over seeds: means with 95 % intervals over both seeds and tasks."""

import json
import sys
from pathlib import Path

import numpy as np
import runs

from pivotrl_jax.evaluation import measures

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # experiments/, see intervals.py
from intervals import interval


def finished(base: Path, name: str) -> list[int]:
    """The seeds for which this run is finished."""
    found = [p.parent for p in base.glob(f"{name}/seed*/evaluation.json")]
    return sorted(int(p.name.removeprefix("seed")) for p in found)


def series(base: Path, name: str, seed: int, when: str) -> dict[str, tuple[list[float], list[str]]]:
    """`measures.series` of one run, "before" or "after"."""
    file = runs.workdir_of(base, name, seed) / "evaluations" / f"{when}.json"
    return measures.series(json.loads(file.read_text("utf-8"))["results"])


def stacked(base: Path, name: str, seeds: list[int], when: str, measure: str) -> tuple[np.ndarray, list[str]]:
    """(values [S, N], cluster of each of the N tasks). Raises ValueError when seeds have different tasks."""
    each = [series(base, name, seed, when)[measure] for seed in seeds]
    clusters = each[0][1]
    if any(other != clusters for _, other in each):
        raise ValueError(f"{name}: the seeds {seeds} were not evaluated on the same tasks")
    return np.array([values for values, _ in each]), clusters


def summary(base: Path, name: str, measure: str, seeds: list[int]) -> dict:
    """{"after", "change"}: the run's score and its paired change from pi_0, over these seeds."""
    before, clusters = stacked(base, name, seeds, "before", measure)
    after, _ = stacked(base, name, seeds, "after", measure)
    return {
        "after": interval(after, clusters),
        "change": interval(after - before, clusters),
        "by_seed": [round(float(x), 4) for x in after.mean(1)],
    }


def versus(base: Path, one: str, other: str, measure: str, seeds: list[int]) -> dict[str, float]:
    """Score of `one` minus score of `other`, paired by seed and task."""
    first, clusters = stacked(base, one, seeds, "after", measure)
    second, _ = stacked(base, other, seeds, "after", measure)
    return interval(first - second, clusters)


def common(base: Path, names: list[str]) -> list[int]:
    """The seeds for which all these runs are finished."""
    return sorted(set.intersection(*(set(finished(base, name)) for name in names)))


def metrics_of(base: Path, name: str, seed: int) -> list[dict]:
    """metrics.jsonl of one run, a dict per step."""
    lines = (runs.workdir_of(base, name, seed) / "metrics.jsonl").read_text("utf-8").splitlines()
    by_step = {line["step"]: line for line in map(json.loads, lines)}
    return [by_step[step] for step in sorted(by_step)]
