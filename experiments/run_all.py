"""Every experiment, then RESULTS.md: `python experiments/run_all.py [--quick]`

    theorem_3_2                       tabular, groups, the embedded checkpoint
    claims/runs.py                    PivotRL, its rivals and ablations, for all seeds
    claims/curve.py, claims/tables.py the tables and figures of those runs
    adaptive_profiling                rollouts saved, computed from PivotRL's profiles
    theorem_3_3                       tabular; the order of actions under the trained checkpoints

Finished training runs are left as they are. `--quick` runs small versions of all experiments, under
runs/quick; the full versions take hours on two cores. Left out: choosing SFT's recipe (claims/sft_choice.py),
benchmarks, plans, and the pretraining of the embedded checkpoint.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import results_page

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
QUICK_RUNS = "pivotrl,sft,random_turns,exact,e2e_rl,pivotrl_clumsy,sft_clumsy"


def commands(quick: bool, seeds: list[int], jobs: int) -> list[list[str]]:
    """The command lines in order, without the interpreter."""
    where = ROOT / "runs" / ("quick" if quick else "claims")
    base = where / "claims" if quick else where
    out = where if quick else HERE
    small = ["--quick"] if quick else []

    def to(name: str) -> list[str]:
        return [f"--out={out / name}"] if quick else []

    training = ["claims/runs.py", f"--base={base}", f"--seeds={','.join(map(str, seeds))}"]
    training += [f"--jobs={jobs}", *small, *([f"--runs={QUICK_RUNS}"] if quick else [])]
    curves = [str(base / name / f"seed{seed}") for name in ("pivotrl", "e2e_rl") for seed in seeds]
    profiles = [str(base / "pivotrl" / f"seed{seed}") for seed in seeds]
    policies = ",".join(f"{name}={base}/{name}/seed*/hf" for name in ("pivotrl", "sft"))
    return [
        ["theorem_3_2/run.py", *small, *to("theorem_3_2")],
        training,
        ["claims/curve.py", *curves],
        ["claims/tables.py", f"--base={base}", f"--out={out}"],
        ["adaptive_profiling/run.py", *profiles, *to("adaptive_profiling")],
        ["theorem_3_3/run.py", f"--policies={policies}", *small, *to("theorem_3_3")],
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", default=None, help="by default 0 with --quick, else 0,1,2,3,4")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="training runs at a time")
    options = parser.parse_args()
    seeds = [int(s) for s in (options.seeds or ("0" if options.quick else "0,1,2,3,4")).split(",")]
    began = time.perf_counter()
    for command in commands(options.quick, seeds, options.jobs):
        print(f"== {' '.join(command)} ({time.perf_counter() - began:.0f} s so far)", flush=True)
        subprocess.run([sys.executable, str(HERE / command[0]), *command[1:]], check=True, cwd=ROOT)
    results_page.write(HERE, ROOT / "runs" / "quick", HERE / "RESULTS.md")
    print(f"{HERE / 'RESULTS.md'}: {time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    main()
