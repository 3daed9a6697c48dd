"""What the runs of runs.py found, pooled over seeds: values, paired differences, visits and rollouts."""

import functools
import json
import sys
from pathlib import Path

import near
import numpy as np

from pivotrl_jax.trajectories import extract

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # experiments/, see intervals.py
import intervals

RESULTS = Path(__file__).resolve().parent / "results"
NEAR = {
    "pretrain_split": "pretrain split",
    "generic_calls": "generic calls",
    "induction": "induction",
}
MEASURES = {"episodes": "episodes", "call turns": "call turns", **NEAR}
KL = {"held_out": "KL, held out", "near": "KL, pretrain split"}


@functools.cache
def _read(file: Path) -> dict:
    return json.loads(file.read_text("utf-8"))


def seeds(test: str, *arms: str) -> list[int]:
    """The seeds for which all these arms are finished."""
    found = [
        {int(p.stem.rpartition("_seed")[2]) for p in (RESULTS / test).glob(f"{arm}_seed[0-9]*.json")}
        for arm in arms
    ]
    return sorted(set.intersection(*found))


def result(test: str, arm: str, seed: int) -> dict:
    return _read(RESULTS / test / f"{arm}_seed{seed}.json")


def steps(test: str, arm: str, seed: int) -> list[int]:
    """The measured steps of a run."""
    return sorted(int(name) for name in result(test, arm, seed) if name.isdigit())


def series(policy: dict, measure: str) -> tuple[list[float], list[str]]:
    """(values, cluster of each) of one measured policy. The turns of a trajectory are one cluster."""
    if measure == "episodes":
        return [float(x) for x in policy["episodes"]], [str(i) for i in range(len(policy["episodes"]))]
    if measure == "call turns":
        clusters = [str(i) for i, length in enumerate(policy["lengths"]) for _ in range(length)]
        calls = [i for i, mark in enumerate(policy["is_call"]) if mark == "1"]
        return [policy["turns"][i] for i in calls], [clusters[i] for i in calls]
    if measure in KL:
        return policy["kl"][measure], [str(i) for i in range(len(policy["kl"][measure]))]
    return policy["near"][measure], near_clusters(measure)


@functools.cache
def near_clusters(family: str) -> list[str]:
    """The trajectory of each item of a near family, of the 100 that measure.py takes."""
    return [candidate.scenario for candidate in extract.extract(near.trajectories(family, 100))]


def stacked(test: str, arm: str, step: int | str, measure: str, which: list[int]) -> tuple[np.ndarray, list]:
    """(values [S, N], clusters [N]) of an arm at a step ("pi_0": before it; -1: the last that was measured).
    Raises ValueError when the seeds were measured on different items."""
    each = [
        series(
            result(test, arm, seed)[str(steps(test, arm, seed)[-1] if step == -1 else step)],
            measure,
        )
        for seed in which
    ]
    if any(clusters != each[0][1] for _, clusters in each):
        raise ValueError(f"{test} {arm}: the seeds {which} were not measured on the same items")
    return np.array([values for values, _ in each]), each[0][1]


def value(test: str, arm: str, step: int | str, measure: str, which: list[int]) -> dict[str, float]:
    return intervals.interval(*stacked(test, arm, step, measure, which))


def difference(
    one: tuple[str, str, int | str], other: tuple[str, str, int | str], measure: str
) -> dict[str, float] | None:
    """{"value", "low", "high", "p", "seeds"} of (test, arm, step) less another, paired by seed and item; None
    where no seed has both."""
    which = sorted(set(seeds(one[0], one[1])) & set(seeds(other[0], other[1])))
    if not which:
        return None
    first, clusters = stacked(*one, measure, which)
    second, _ = stacked(*other, measure, which)
    change = first - second
    p = intervals.p_value(change, clusters)
    return {**intervals.interval(change, clusters), "p": p, "seeds": len(which)}


def curve(test: str, arm: str, metric: str, which: list[int]) -> np.ndarray:
    """[S, steps]: a metric of training, step by step."""
    return np.array([[line[metric] for line in result(test, arm, seed)["metrics"]] for seed in which])


def visits(test: str, arm: str, step: int, seed: int) -> float:
    """How often a pivot (an arm without a profile: a candidate) was trained on up to a step."""
    found = result(test, arm, seed)
    counts = found["counts"]
    rollouts = counts["training_rollout_turns"] / len(found["metrics"]) * step
    return rollouts / 8 / counts.get("pivot", counts["candidates"])


def rollouts(test: str, arm: str, step: int, seed: int) -> tuple[int, int]:
    """(rollouts of the profile, rollouts sampled for training up to a step), each one turn."""
    found = result(test, arm, seed)
    counts, metrics = found["counts"], found["metrics"]
    if "sampled_groups" in metrics[0]:  # dynamic sampling: not as many in every step
        share = sum(m["sampled_groups"] for m in metrics[:step]) / sum(m["sampled_groups"] for m in metrics)
    else:
        share = step / len(metrics)
    return counts["profiling_rollout_turns"], round(share * counts["training_rollout_turns"])


def expert_gap(test: str, arm: str, seed: int) -> float:
    """Nats per token of the demonstrations under pi_0."""
    found = result(test, arm, seed)["pi_0"]["demonstrations"]
    return -found["log_prob"] / found["tokens"]
