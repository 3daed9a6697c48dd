"""The runs behind experiments/regime: `python experiments/regime/runs.py --tests=T1 --jobs=2`

Each test is a world and a set of arms; an arm is `python -m pivotrl_jax.train --config=configs/bfcl.py` with
the overrides below, in runs/regime/{test}/{arm}/seed{n}. measure.py scores the checkpoints of a finished arm.
Arms of a seed share what was measured of pi_0, and those with the same rollouts share the profile. Finished
runs are left as they are, and a killed one goes on where it was.

What a page needs of a run is written beside this file, results/{test}/{arm}_seed{n}.json, as it comes, so
that another machine goes on with what is missing (not with --quick).
"""

import argparse
import concurrent.futures
import hashlib
import itertools
import json
import os
import queue
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).resolve().parent / "results"
STEPS = (10, 40)  # whose checkpoints are measured

# runs evaluate nothing: measure.py does, at the same steps for all
EVALUATION = ["data.held_out_tasks=300", "evaluate.attempts=1", "evaluate.samples=1", "evaluate.tasks=0"]
EVALUATION += ["evaluate.turn_trajectories=0", "evaluate.skill_items=0", "evaluate.pivots=0"]
KEEP = ["grpo.save_every=10", "grpo.keep_checkpoints=20"]
ADAPTIVE = ["profile.adaptive.round=2"]
RANDOM, SLOW = ["method=random_turns"], ["grpo.learning_rate=1e-4"]

# test -> overrides of all its arms
WORLDS = {
    # the paper's regime in this world: 5,700 candidates, each pivot visited about once
    "T1": ["data.demonstrations=832", *EVALUATION, *KEEP, *ADAPTIVE],
    # an expert whose habits pi_0 does not have; the verifier accepts both
    "T2": ["data.demonstrations=832", "data.style=foreign", *EVALUATION, *KEEP, *ADAPTIVE],
    # long episodes of known words, where credit is what is hard
    "T3": [
        "data.demonstrations=256",
        "data.words=shared",
        "data.user_turns=(6, 8)",
        *EVALUATION,
        *KEEP,
        *ADAPTIVE,
    ]
    + ["data.max_prompt_tokens=1900", "compute.row_lengths=(1024, 2048)"],
}


def _sft(epochs: int, rate: str) -> list[str]:
    return ["method=sft", f"sft.epochs={epochs}", f"sft.learning_rate={rate}"]


# test -> arm -> overrides
ARMS: dict[str, dict[str, list[str]]] = {
    "T1": {
        "pivotrl": [],
        "random_turns": RANDOM,
        "mixed": ["profile.lambda_diff=1.0"],
        "all_fail_kept": ["profile.keep_all_fail=True"],
        "exact": ["reward=exact"],
        "random_exact": [*RANDOM, "reward=exact"],
        "online": [*RANDOM, "grpo.dynamic_rounds=4"],
        "guided": ["profile.keep_all_fail=True", "grpo.demonstration_in_failed_groups=True"],
        "pivotrl_slow": SLOW,
        "random_slow": [*RANDOM, *SLOW],
        **{
            f"sft_{epochs}_{rate}": _sft(epochs, rate)
            for epochs in (1, 4)
            for rate in ("1e-4", "3e-4", "1e-3")
        },
        "e2e_rl": ["method=e2e_rl"],
        # controls of the visits per pivot
        **{f"pivotrl_{n}": [f"data.demonstrations={n}"] for n in (64, 256)},
        **{f"random_{n}": [*RANDOM, f"data.demonstrations={n}"] for n in (64, 256)},
        **{f"sft_{n}": [*_sft(4, "3e-4"), f"data.demonstrations={n}"] for n in (64, 256)},
    },
    "T2": {
        "pivotrl": [],
        "exact_string": ["reward=exact_string"],
        **{f"sft_1_{rate}": _sft(1, rate) for rate in ("1e-4", "3e-4", "1e-3")},
    },
    "T3": {"pivotrl": [], "e2e_rl": ["method=e2e_rl"]},
}
# arms that draw and reward the same rollouts in their profile as "pivotrl"
SHARED = ("mixed", "all_fail_kept", "guided", "pivotrl_slow")

QUICK = ["data.demonstrations=16", "data.held_out_tasks=8"]
QUICK += ["grpo.steps=5", "grpo.save_every=5", "e2e.tasks_per_step=2", "grpo.pivots_per_step=4"]


def workdir_of(base: Path, test: str, arm: str, seed: int) -> Path:
    return base / test / arm / f"seed{seed}"


def command(test: str, arm: str, seed: int, workdir: Path, quick: bool) -> list[str]:
    """The command line of one run."""
    overrides = [
        f"seed={seed}",
        f"workdir={workdir}",
        *WORLDS[test],
        *ARMS[test][arm],
        *(QUICK if quick else []),
    ]
    flags = [f"--config.{override}" for override in overrides]
    return [sys.executable, "-m", "pivotrl_jax.train", "--config=configs/bfcl.py", *flags]


def share(base: Path, test: str, arm: str, seed: int) -> None:
    """Copy what another arm of the seed has already: what was measured of pi_0, and the rollouts of the
    profile."""
    workdir = workdir_of(base, test, arm, seed)
    target = workdir / "measured" / "pi_0.json"
    found = next(iter(sorted(base.glob(f"{test}/*/seed{seed}/measured/pi_0.json"))), None)
    if found and not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(found, target)
    pivotrl = workdir_of(base, test, "pivotrl", seed)
    if arm in SHARED and (pivotrl / "profiles.jsonl").is_file() and not (workdir / "rollouts").is_dir():
        shutil.copytree(pivotrl / "rollouts", workdir / "rollouts")


def result_of(test: str, arm: str, seed: int) -> Path:
    return RESULTS / test / f"{arm}_seed{seed}.json"


def compact(measured: dict) -> dict:
    """What measure.py found of one policy, without the names of turns, which all arms of a seed share: their
    hash tells. "lengths": how many turns each trajectory has, in order."""
    turns = measured["turns"]
    names = "\n".join(t["id"] for t in turns)
    lengths = [len(list(group)) for _, group in itertools.groupby(turns, key=lambda t: t["scenario"])]
    return measured | {
        "turns": [t["mean"] for t in turns],
        "is_call": "".join(str(int(t["is_call"])) for t in turns),
        "lengths": lengths,
        "turns_of": hashlib.sha256(names.encode()).hexdigest()[:16],
        "kl": {name: [round(x, 4) for x in nats] for name, nats in measured["kl"].items()},
    }


def keep(workdir: Path, out: Path) -> None:
    """Write what a page reads of a finished run, small enough to commit."""
    facts = json.loads((workdir / "run.json").read_text("utf-8"))
    lines = (workdir / "metrics.jsonl").read_text("utf-8").splitlines()
    measured = json.loads((workdir / "measured.json").read_text("utf-8"))
    result = {
        "counts": facts["counts"],
        "seconds": facts["seconds"],
        "metrics": [json.loads(line) for line in lines],
        **{policy: compact(found) for policy, found in measured.items()},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, separators=(",", ":")) + "\n", "utf-8")


def run(base: Path, test: str, arm: str, seed: int, quick: bool, core: int | None) -> None:
    """Train and measure one arm with one seed, unless that is done."""
    workdir, result = workdir_of(base, test, arm, seed), result_of(test, arm, seed)
    if not quick and result.is_file():
        return
    share(base, test, arm, seed)
    workdir.mkdir(parents=True, exist_ok=True)
    pin = ["taskset", "-c", str(core)] if core is not None else []
    steps = ",".join(map(str, (5,) if quick else STEPS))
    measure = [sys.executable, "experiments/regime/measure.py", str(workdir), f"--steps={steps}"]
    measure += ["--tasks=8", "--trajectories=4", "--items=4"] if quick else []
    with (workdir / "log.txt").open("a") as log:
        for words in (command(test, arm, seed, workdir, quick), measure):
            subprocess.run([*pin, *words], check=True, cwd=ROOT, stdout=log, stderr=log)
    if not quick:
        keep(workdir, result)
    print(f"{test} {arm}, seed {seed}: done", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tests", default=",".join(ARMS))
    parser.add_argument("--arms", help="names; all of a test without it")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--base", type=Path, default=ROOT / "runs" / "regime")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    cores: queue.Queue[int | None] = queue.Queue()
    for core in sorted(os.sched_getaffinity(0))[: options.jobs] if options.jobs > 1 else [None]:
        cores.put(core)

    def one(test: str, arm: str, seed: int) -> None:
        core = cores.get()
        try:
            run(options.base.resolve(), test, arm, seed, options.quick, core)
        finally:
            cores.put(core)

    # seed by seed, so that at any time all arms have about equally many; "pivotrl" comes first, since its
    # profile is shared
    with concurrent.futures.ThreadPoolExecutor(cores.qsize()) as pool:
        jobs = [
            pool.submit(one, test, arm, int(seed))
            for seed in options.seeds.split(",")
            for test in options.tests.split(",")
            for arm in (options.arms.split(",") if options.arms else ARMS[test])
        ]
        for job in jobs:
            job.result()


if __name__ == "__main__":
    main()
