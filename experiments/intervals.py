"""Statistics that the pages of the experiments share: bootstraps over seeds and tasks, and what they print.

Each script puts this folder on its path:

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # experiments/, see intervals.py
    import intervals

Axis letters: S seeds, N items, P points of a curve.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

REPEATS = 4000


def resampled(values_SN: np.ndarray, clusters: list[str]) -> np.ndarray:
    """[REPEATS]: the mean under a bootstrap in which seeds and clusters of tasks are both resampled with
    replacement.

    When S seeds are resampled, the variance of their mean is (S - 1) / S of what it should be. To correct
    this, the means of the seeds are first spread out by the root of S / (S - 1).
    """
    S = len(values_SN)
    if S > 1:
        seed_S1 = values_SN.mean(1, keepdims=True)
        values_SN = values_SN + (seed_S1 - seed_S1.mean()) * (np.sqrt(S / (S - 1)) - 1)
    names, index = np.unique(clusters, return_inverse=True)
    counts = np.bincount(index)
    sums_SC = np.stack([np.bincount(index, row, len(names)) for row in values_SN])
    rng = np.random.default_rng(0)
    seeds = rng.integers(0, len(values_SN), (REPEATS, len(values_SN)))
    drawn = rng.integers(0, len(names), (REPEATS, len(names)))
    means = [
        sums_SC[s][:, c].sum() / (len(values_SN) * counts[c].sum()) for s, c in zip(seeds, drawn, strict=True)
    ]
    return np.array(means)


def interval(values_SN: np.ndarray, clusters: list[str]) -> dict[str, float]:
    """Mean and 95 % interval of the bootstrap over seeds and clusters of tasks."""
    low, high = np.percentile(resampled(values_SN, clusters), [2.5, 97.5])
    return {"value": float(values_SN.mean()), "low": float(low), "high": float(high)}


def p_value(values_SN: np.ndarray, clusters: list[str]) -> float:
    """Two-sided, that the mean is 0, by the same bootstrap; at least 1 / REPEATS."""
    means = resampled(values_SN, clusters)
    tail = min(np.mean(means <= 0), np.mean(means >= 0))
    return float(min(1.0, max(2 * tail, 1 / REPEATS)))


def holm(p_values: list[float]) -> list[float]:
    """Holm's adjustment: the family-wise error is the level if those under the level are called decided."""
    order = np.argsort(p_values)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, (len(p_values) - rank) * p_values[i])
        adjusted[i] = min(1.0, largest)
    return adjusted


def needed(cost_P: np.ndarray, success_P: np.ndarray, level: float) -> float:
    """The cost at which the curve first reaches `level`, interpolated linearly between checkpoints; inf if it
    never does."""
    if success_P[0] >= level:
        return 0.0
    for i in range(1, len(cost_P)):
        if success_P[i] >= level:
            share = (level - success_P[i - 1]) / (success_P[i] - success_P[i - 1])
            return float(cost_P[i - 1] + share * (cost_P[i] - cost_P[i - 1]))
    return np.inf


def show(entry: dict[str, float], sign: bool = False) -> str:
    """'0.400 [0.35, 0.45]'."""
    form: Callable[[float], str] = (lambda x: f"{x:+.3f}") if sign else (lambda x: f"{x:.3f}")
    return f"{form(entry['value'])} [{form(entry['low'])}, {form(entry['high'])}]"


def put_between_marks(page: Path, text: str) -> None:
    """Replace what a page has between the lines `<!-- results -->` and `<!-- end -->`. Raises ValueError
    where it does not have both."""
    before, begun, rest = page.read_text("utf-8").partition("<!-- results -->\n")
    _, ended, after = rest.partition("<!-- end -->")
    if not (begun and ended):
        raise ValueError(f"{page} needs the lines <!-- results --> and <!-- end -->, in this order")
    page.write_text(f"{before}<!-- results -->\n{text}\n<!-- end -->{after}", "utf-8")
