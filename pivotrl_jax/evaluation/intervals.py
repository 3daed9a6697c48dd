"""Confidence intervals of proportions, means over clusters, and paired differences."""

import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Interval(NamedTuple):
    """An estimate and the interval around it."""

    mean: float
    low: float
    high: float

    def contains(self, value: float) -> bool:
        return self.low <= value <= self.high


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Score interval of a proportion over independent tasks (Wilson 1927). It is right at 0 and n too,
    where a bootstrap has no width. `wilson(0, 0)` is (nan, 0, 1).

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

    Turns of one episode, or samples of one task, succeed and fail together; drawn one by one, they would
    count as independent and the interval would be too narrow (Field and Welsh 2007, Bootstrapping clustered
    data). The seed is fixed: the same numbers give the same interval. With fewer than about 30 clusters it is
    too narrow, and with all values equal it has no width: use `wilson` instead.

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
        picks = rng.integers(len(index), size=(size, len(index)))
        means[start : start + size] = total[picks].sum(1) / count[picks].sum(1)
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

    Pairing removes each task's difficulty, which both share. An interval without 0 shows a change.
    """
    before, after = np.asarray(before, np.float64), np.asarray(after, np.float64)
    if before.shape != after.shape:
        raise ValueError(f"before {before.shape} != after {after.shape}")
    return cluster_bootstrap(after - before, clusters, confidence, draws, seed)
