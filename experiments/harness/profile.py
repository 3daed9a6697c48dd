"""A profile through `pivotrl_jax.serve` beside those of the own sampler:
`python experiments/harness/profile.py`

Four profiles of the same candidates of configs/bfcl.py, one after the other: the own sampler with two seeds,
whose difference is sampling error, then a server of the same checkpoint, asked with token ids and with chats.

Two profiles are compared by the sum over candidates of the chi-square of passed and failed rollouts (2 x 2).
Its p-value comes from dealing a candidate's rollouts to the two profiles at random, `--deals` times, so it is
exact however few the rollouts are. `shared` are pivots that both found.
"""

import argparse
import collections
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from pivotrl_jax.pivots import rollout_files
from pivotrl_jax.records import Pivot, read_records

ROOT = Path(__file__).resolve().parents[2]
PROFILES = {  # name -> overrides
    "sampler": [],
    "sampler, other seed": ["profile.seed=1"],
    "server, token ids": ["rollouts.mode=completions"],
    "server, chats": ["rollouts.mode=chat"],
}


def statistic(passed: np.ndarray, count: np.ndarray, both: np.ndarray, size: np.ndarray) -> float:
    """Sum over candidates of the chi-square of 2 x 2 tables: `passed` of `count` rollouts in one profile,
    `both` of `size` in two."""
    mixed = (both > 0) & (both < size)
    k, n, K, N = (x[mixed].astype(float) for x in (passed, count, both, size))
    return float(((k - n * K / N) ** 2 * N**3 / (n * (N - n) * K * (N - K))).sum())


def p_value(one: dict[str, list[float]], other: dict[str, list[float]], deals: int) -> tuple[float, float]:
    """(statistic, share of random deals that reach it) of two profiles: candidate -> rewards of 0 and 1."""
    names = sorted(one)
    passed, count = (np.array([f(one[name]) for name in names], int) for f in (sum, len))
    both = passed + np.array([sum(other[name]) for name in names], int)
    size = count + np.array([len(other[name]) for name in names])
    found, rng = statistic(passed, count, both, size), np.random.default_rng(0)
    dealt = (rng.hypergeometric(both, size - both, count) for _ in range(deals))
    reached = sum(statistic(passed, count, both, size) >= found - 1e-9 for passed in dealt)
    return found, (1 + reached) / (1 + deals)


def rewards(workdir: Path) -> dict[str, list[float]]:
    found = collections.defaultdict(list)
    for file in sorted((workdir / "rollouts").glob("*.jsonl")):
        for rollout in rollout_files.summaries(file):
            found[rollout.candidate_id].append(rollout.reward)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "served_profile")
    parser.add_argument("--deals", type=int, default=10_000)
    options = parser.parse_args()
    command = [sys.executable, "-m", "pivotrl_jax.serve", "--checkpoint=embedded", "--port=0"]
    command += ["--rows=4", "--slots=8", "--context=2048", "--completion_tokens=128"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    seconds, found, pivots = {}, {}, {}
    try:
        url = re.search(r"http://\S+/v1", server.stdout.readline())[0]
        for name, overrides in PROFILES.items():
            workdir = options.out.resolve() / re.sub(r"\W+", "_", name)
            if "server" in name:
                overrides = [*overrides, f"rollouts.base_url={url}", "rollouts.model=embedded"]
            flags = [f"--config.{x}" for x in (f"workdir={workdir}", "resume=False", *overrides)]
            began = time.perf_counter()
            program = [sys.executable, "-m", "pivotrl_jax.find_pivots", "--config=configs/bfcl.py", *flags]
            subprocess.run(program, check=True, cwd=ROOT, stdout=sys.stderr)
            seconds[name] = time.perf_counter() - began
            found[name] = rewards(workdir)
            pivots[name] = {p.candidate.id for p in read_records(workdir / "pivots.jsonl", Pivot)}
    finally:
        server.terminate()
        server.wait()
    first = next(iter(PROFILES))
    print(
        f"{'profile':22}{'rollouts':>9}{'mean':>8}{'pivots':>8}{'shared':>8}{'chi2':>8}{'p':>7}{'seconds':>9}"
    )
    for name, groups in found.items():
        every = [reward for group in groups.values() for reward in group]
        row = f"{name:22}{len(every):9}{np.mean(every):8.4f}{len(pivots[name]):8}"
        if name != first:
            chi2, p = p_value(found[first], groups, options.deals)
            row += f"{len(pivots[name] & pivots[first]):8}{chi2:8.1f}{p:7.3f}"
        print(row + " " * (23 * (name == first)) + f"{seconds[name]:9.1f}")


if __name__ == "__main__":
    main()
