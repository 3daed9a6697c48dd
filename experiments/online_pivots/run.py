"""What a mixed group costs with a skip list: `python experiments/online_pivots/run.py RUN_DIRECTORY`

Simulates online pivots on a finished full profile (rollouts/ and profiles.jsonl of a run): every candidate
gets a pass rate from its posterior, which then stays fixed, and training's own choice of candidates
(`pivotrl.sample_groups`, `SkipList`) draws rewards at these rates. Prints and writes rollouts per mixed group
and visits per candidate after some numbers of steps. No model is loaded. A policy that learns is not
simulated: its rates change, and forgetting matters more.
"""

import argparse
import json
import tempfile
from pathlib import Path

import jax
import numpy as np

from pivotrl_jax.pivots import adaptive
from pivotrl_jax.records import Profile, Rollout, read_records
from pivotrl_jax.run import options
from pivotrl_jax.training import pivotrl
from pivotrl_jax.training.advantages import mixed_groups, rewards_of
from pivotrl_jax.training.skip_list import SkipList, SkipRule

HERE = Path(__file__).parent
SHOWN = (10, 20, 40, 80, 160)  # steps
ARMS = ((0.0, 20.0), (0.25, 20.0), (0.5, 20.0), (0.75, 20.0), (0.5, 60.0))  # skip_below, skip_half_life


def rates_of(profiles: list[Profile], rng: np.random.Generator) -> np.ndarray:
    """A pass rate for every candidate, drawn from its posterior."""
    prior, rates = adaptive.pass_rates([p.rewards for p in profiles]), adaptive.GRID
    out = []
    for p in profiles:
        k, n = sum(p.rewards), len(p.rewards)
        posterior = prior * rates**k * (1 - rates) ** (n - k)
        out.append(rng.choice(rates, p=posterior / posterior.sum()))
    return np.array(out)


def simulate(rates: np.ndarray, below: float, half_life: float, steps: int) -> list[dict]:
    """A line for every number of steps in SHOWN."""
    config = options.defaults().grpo
    config.dynamic_rounds = 4
    rng, key, lines = np.random.default_rng(1), jax.random.key(0), []
    size, drawn, mixed = config.group_size, 0, 0
    with tempfile.TemporaryDirectory() as workdir:
        skip_list = SkipList(SkipRule(below, half_life, size), Path(workdir))
        for step in range(steps):

            def draw(pivots, key):
                passed = rng.random((len(pivots), size)) < rates[pivots, None]
                return [
                    [Rollout(str(i), g, [1], [0.0], [0.0], True, "", float(r), "") for g, r in enumerate(row)]
                    for i, row in zip(pivots, passed)
                ]

            skipped = skip_list.skipped(step, [str(i) for i in range(len(rates))])
            _, groups, every = pivotrl.sample_groups(draw, step, len(rates), config, 0, key, skipped)
            skip_list.add(step, every)
            drawn += len(every)
            mixed += int(mixed_groups(rewards_of(groups)).sum())
            if step + 1 in SHOWN:
                line = {"steps": step + 1, "visits": round(drawn / len(rates), 2), "skipped": len(skipped)}
                lines.append(line | {"rollouts_per_mixed_group": round(size * drawn / mixed, 1)})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=SHOWN[-1])
    parser.add_argument("--out", type=Path, default=HERE)
    flags = parser.parse_args()
    profiles = [p for p in read_records(flags.run / "profiles.jsonl", Profile) if p.rewards]
    rates = rates_of(profiles, np.random.default_rng(0))
    table = [
        {"skip_below": below, "skip_half_life": half_life, **line}
        for below, half_life in ARMS
        for line in simulate(rates, below, half_life, flags.steps)
    ]
    flags.out.mkdir(parents=True, exist_ok=True)
    out = {"candidates": len(rates), "table": table}
    (flags.out / "results.json").write_text(json.dumps(out, indent=1) + "\n", "utf-8")
    for line in table:
        print("  ".join(f"{name} {value}" for name, value in line.items()))


if __name__ == "__main__":
    main()
