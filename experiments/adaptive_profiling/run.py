"""Rollouts saved by adaptive profiling: `python experiments/adaptive_profiling/run.py RUN_DIRECTORY...`

Replays finished full profiles (rollouts/ and profiles.jsonl of a run): it hands out the same rewards in
rounds, shard by shard, as `profiling` does. Prints and writes, per error rate and round, the share of
rollouts used and how well the pivots agree with those of the full profile (F1). No new rollouts are sampled.
"""

import argparse
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from pivotrl_jax.pivots import adaptive
from pivotrl_jax.pivots.selection import outcome_of

HERE = Path(__file__).parent
ROUNDS, ERRORS = (1, 2), (0.0, 0.01, 0.02, 0.05, 0.1)


def read(run: Path) -> tuple[list[list[list[float]]], int, float]:
    """(rewards of every candidate, by shard; group size; lambda_diff)."""
    config = json.loads((run / "run.json").read_text("utf-8"))["config"]["profile"]
    shards = []
    for file in sorted((run / "rollouts").glob("*.jsonl")):
        rewards = [json.loads(line)["reward"] for line in file.read_text("utf-8").splitlines()]
        size = config["group_size"]
        shards.append([rewards[at : at + size] for at in range(0, len(rewards), size)])
    return shards, config["group_size"], config["lambda_diff"]


def replay(shards, plan: adaptive.StoppingRule) -> tuple[int, np.ndarray]:
    """(number of rollouts used, whether each candidate counts as a pivot)."""
    seen: list[list[float]] = []
    for shard in shards:

        def draw(indices, first, number, shard=shard):
            return [[SimpleNamespace(reward=r) for r in shard[i][first : first + number]] for i in indices]

        groups = adaptive.groups(draw, len(shard), plan, seen)
        seen += [[rollout.reward for rollout in group] for group in groups]
    rates = adaptive.pass_rates(seen)
    outcomes = [
        plan.outcome(r, rates) if len(r) < plan.group_size else outcome_of(r, plan.lambda_diff) for r in seen
    ]
    return sum(map(len, seen)), np.array([outcome == "pivot" for outcome in outcomes])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    table = []
    for number in ROUNDS:
        for error in ERRORS:
            drawn = asked = 0
            found, want = [], []
            for run in options.runs:
                shards, size, limit = read(run)
                spent, taken = replay(shards, adaptive.StoppingRule(size, limit, number, error))
                every = [r for shard in shards for r in shard]
                drawn, asked = drawn + spent, asked + size * len(every)
                found.append(taken)
                want.append(np.array([outcome_of(r, limit) == "pivot" for r in every]))
            f, w = np.concatenate(found), np.concatenate(want)
            line = {"round": number, "error": error, "rollouts": round(drawn / asked, 3)}
            line["f1"] = round(float(2 * (f & w).sum() / (f.sum() + w.sum())), 3)
            table.append(line | {"pivots": int(w.sum()), "found": int(f.sum()), "wrong": int((f != w).sum())})
    out = {"runs": len(options.runs), "candidates": len(w), "table": table}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(out, indent=1) + "\n", "utf-8")
    print(json.dumps(out))


if __name__ == "__main__":
    main()
