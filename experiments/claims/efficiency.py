"""What it costs two methods to reach a level of success: rollout turns and seconds along training curves."""

import json
import sys
from pathlib import Path

import numpy as np
import runs

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # experiments/, see intervals.py
from intervals import needed

COSTS = ("rollout_turns", "seconds")
REPEATS = 2000


def read(base: Path, name: str, seeds: list[int]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(cost -> [S, P], episodes won [S, P, N]) of P checkpoints, as curve.py wrote them."""
    files = [runs.workdir_of(base, name, seed) / "curve.json" for seed in seeds]
    if missing := [str(file.parent) for file in files if not file.is_file()]:
        raise SystemExit(f"run experiments/claims/curve.py {' '.join(missing)}")
    curves = [json.loads(file.read_text("utf-8")) for file in files]
    costs = {cost: np.array([[point[cost] for point in curve] for curve in curves]) for cost in COSTS}
    return costs, np.array([[point["episodes"] for point in curve] for curve in curves])


def matched(base: Path, seeds: list[int]) -> dict:
    """The costs of both methods at the success that both reach (the lower of their best), and the ratio of
    end-to-end RL's cost to PivotRL's, with a 95 % bootstrap over seeds and tasks; every resample computes the
    level again."""
    both = {name: read(base, name, seeds) for name in ("pivotrl", "e2e_rl")}
    rng = np.random.default_rng(0)
    N = both["pivotrl"][1].shape[2]

    def costs_at(s, n) -> dict:
        mean = {name: won[s][:, :, n].mean((0, 2)) for name, (_, won) in both.items()}
        level = min(curve.max() for curve in mean.values())
        spent = {
            cost: {
                name: needed(costs[cost][s].mean(0), mean[name], level) for name, (costs, _) in both.items()
            }
            for cost in COSTS
        }
        return {"level": level, **spent}

    found = costs_at(np.arange(len(seeds)), np.arange(N))
    draws = [costs_at(rng.integers(0, len(seeds), len(seeds)), rng.integers(0, N, N)) for _ in range(REPEATS)]
    for cost in COSTS:
        ratios = [d[cost]["e2e_rl"] / d[cost]["pivotrl"] for d in draws if d[cost]["pivotrl"] > 0]
        low, high = np.percentile(ratios, [2.5, 97.5])
        value = found[cost]["e2e_rl"] / found[cost]["pivotrl"]
        found[cost]["ratio"] = {"value": value, "low": float(low), "high": float(high)}
    curves = {
        name: [
            {**{cost: float(costs[cost][:, i].mean()) for cost in COSTS}, "success": float(won[:, i].mean())}
            for i in range(won.shape[1])
        ]
        for name, (costs, won) in both.items()
    }
    return {"matched": found, "curves": curves}
