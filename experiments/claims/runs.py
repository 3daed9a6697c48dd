"""The training runs behind the claims: `python experiments/claims/runs.py --runs=pivotrl,sft --seeds=0,1,2`

Every run is one `python -m pivotrl_jax.train --config=configs/bfcl.py` with the overrides below, in
`runs/claims/{name}/seed{n}`; finished runs are left as they are. A seed changes the demonstrations, the order
of training and all sampling; held-out tasks and pi_0 are the same for all seeds. The score of pi_0 with a
seed's sampling is computed once and copied into the other runs of that seed.

`--jobs=N` runs N at a time, each on a core of its own: two single-core runs side by side take far less time
than two two-core runs in a row.
"""

import argparse
import concurrent.futures
import json
import os
import queue
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

KEEP = ["grpo.keep_checkpoints=20"]  # keep all checkpoints, for curve.py

# name -> overrides of configs/bfcl.py. "sft" has the learning rate and epochs that sft_choice.py chose.
RUNS: dict[str, list[str]] = {
    "pivotrl": KEEP,
    "sft": ["method=sft", "sft.learning_rate=1e-3", "sft.epochs=4"],
    "random_turns": ["method=random_turns"],
    "exact": ["reward=exact"],
    "random_exact": ["method=random_turns", "reward=exact"],
    "e2e_rl": ["method=e2e_rl", *KEEP],
}
# profiles again when the batch's reward std falls below 0.6 of its starting value
RUNS["reprofile"] = ["reprofile.std_fraction=0.6", "reprofile.std_window=5", "reprofile.most=3"]
RUNS |= {f"lambda_{x}": [f"profile.lambda_diff={x}"] for x in ("0.3", "0.9")}
RUNS |= {f"group_{g}": [f"profile.group_size={g}", f"grpo.group_size={g}"] for g in (4, 16)}
for count in (16, 256):
    RUNS[f"pivotrl_{count}"] = [f"data.demonstrations={count}"]
    RUNS[f"sft_{count}"] = [*RUNS["sft"], f"data.demonstrations={count}"]
for manner, told in {"clean": ["data.style=clean"], "clumsy": ["data.detours=0.5"]}.items():
    RUNS[f"pivotrl_{manner}"] = told
    RUNS[f"sft_{manner}"] = [*RUNS["sft"], *told]

QUICK = [
    "grpo.steps=6",
    "grpo.save_every=6",
    "data.demonstrations=24",
    "data.held_out_tasks=24",
    "evaluate.tasks=24",
    "evaluate.turn_trajectories=12",
    "evaluate.skill_items=4",
    "sft.epochs=2",
]


def workdir_of(base: Path, name: str, seed: int) -> Path:
    return base / name / f"seed{seed}"


def command(name: str, seed: int, workdir: Path, quick: bool, more: list[str] = ()) -> list[str]:
    """The command line of one run."""
    overrides = [f"seed={seed}", f"workdir={workdir}", *RUNS[name], *(QUICK if quick else []), *more]
    flags = [f"--config.{override}" for override in overrides]
    return [sys.executable, "-m", "pivotrl_jax.train", "--config=configs/bfcl.py", *flags]


def share_before(base: Path, workdir: Path, seed: int) -> None:
    """Copy an evaluation of pi_0 with the same seed. If its settings differ, the program evaluates again."""
    target = workdir / "evaluations" / "before.json"
    if target.is_file():
        return
    for there in sorted(base.glob(f"*/seed{seed}/evaluations/before.json")):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(there, target)
        return


def run(base: Path, name: str, seed: int, quick: bool, more: list[str] = (), core: int | None = None) -> Path:
    """Run this unless it is finished, on one core if `core` is given. Returns its directory."""
    workdir = workdir_of(base, name, seed)
    if not (workdir / "evaluation.json").is_file():
        share_before(base, workdir, seed)
        workdir.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        pin = ["taskset", "-c", str(core)] if core is not None else []
        with (workdir / "log.txt").open("w") as log:
            subprocess.run(
                [*pin, *command(name, seed, workdir, quick, more)],
                check=True,
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )
        print(f"{name}, seed {seed}: {time.perf_counter() - began:.0f} s", flush=True)
    return workdir


def run_all(base: Path, wanted: list[tuple[str, int]], quick: bool, more: list[str], jobs: int) -> None:
    """Run all these (name, seed), `jobs` at a time."""
    if jobs == 1:
        for name, seed in wanted:
            run(base, name, seed, quick, more)
        return
    cores: queue.Queue[int] = queue.Queue()
    for core in sorted(os.sched_getaffinity(0))[:jobs]:
        cores.put(core)

    def one(name: str, seed: int) -> None:
        core = cores.get()
        try:
            run(base, name, seed, quick, more, core)
        finally:
            cores.put(core)

    with concurrent.futures.ThreadPoolExecutor(cores.qsize()) as pool:
        for future in [pool.submit(one, name, seed) for name, seed in wanted]:
            future.result()


def facts(workdir: Path) -> dict:
    """run.json of a finished run."""
    return json.loads((workdir / "run.json").read_text("utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", default=",".join(RUNS))
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--base", type=Path, default=ROOT / "runs" / "claims")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("overrides", nargs="*", help="more overrides, name=value")
    options = parser.parse_args()
    # seed by seed, so that at any time all methods have about equally many
    wanted = [(name, int(seed)) for seed in options.seeds.split(",") for name in options.runs.split(",")]
    run_all(options.base.resolve(), wanted, options.quick, options.overrides, options.jobs)


if __name__ == "__main__":
    main()
