"""The runs behind experiments/smollm2: `python experiments/smollm2/runs.py [--only=pivotrl] [--seeds=0]`

What pi_0 (the checkpoint "smollm2_pi0") and the model as it is shipped answer; then every arm on the same
rows of another quarter, seed by seed. An arm is one `python -m pivotrl_jax.train` with
configs/bfcl.py:smollm2 and the overrides below, and measure.py on what it exported. All seeds share one
profile of pi_0, whose rollouts are in profile/ beside this file; that of the exact reward has the same ones,
verified again. Finished runs are left as they are, and a killed one goes on where it was.

Results are written beside this file, results/{arm}_seed{n}.json, as they come: another machine goes on with
what is missing. page.py makes the page.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
RESULTS, PROFILE, PI_0 = HERE / "results", HERE / "profile", Path("smollm2_pi0")
NOTHING = ["evaluate.turn_trajectories=0", "evaluate.skill_items=0"]  # measure.py evaluates instead

OWN = "data.source=experiments.smollm2.own_refusals:environment"
# arm -> overrides; or the arm of which it is the checkpoint after the first epoch (SFT's rate is constant)
ARMS = {
    "pivotrl": [],
    "sft_4": ["method=sft"],
    "sft_1": "sft_4",
    "random_turns": ["method=random_turns"],
    "exact": ["reward=exact"],
    "sft_own_4": ["method=sft", OWN],
    "sft_own_1": "sft_own_4",
}


def call(*command: str, log: Path | None = None) -> None:
    """Run a Python program from the root of the repository; its output goes to `log`, appended."""
    with (log or Path("/dev/stdout")).open("a") as out:
        subprocess.run([sys.executable, *command], check=True, cwd=ROOT, stdout=out, stderr=out)


def start(program: str, size: str, workdir: Path, overrides: list[str]) -> None:
    """Run a program of the package with configs/bfcl.py; what it prints goes to log.txt in `workdir`."""
    flags = [f"--config.{x}" for x in (f"workdir={workdir}", *NOTHING, *overrides)]
    workdir.mkdir(parents=True, exist_ok=True)
    call("-m", program, f"--config=configs/bfcl.py:{size}", *flags, log=workdir / "log.txt")


def measure(checkpoint: Path, out: Path, *more: str) -> None:
    """measure.py, unless its result is there."""
    if not out.is_file():
        out.parent.mkdir(parents=True, exist_ok=True)
        script = "experiments/smollm2/measure.py"
        call(script, str(checkpoint), f"--pi_0={PI_0}", f"--out={out}", *more, log=out.with_suffix(".log"))


def keep(workdir: Path, name: str, measured: Path) -> None:
    """Write what the page reads of a finished run to results/, small enough to commit."""
    facts = json.loads((workdir / "run.json").read_text("utf-8"))
    lines = (workdir / "metrics.jsonl").read_text("utf-8").splitlines()
    result = {
        "counts": facts["counts"],
        "seconds": facts["seconds"],
        "update_kept": facts.get("update_kept"),
        "metrics": [json.loads(line) for line in lines],
        **json.loads(measured.read_text("utf-8")),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result) + "\n", "utf-8")
    print(f"results/{name}.json", flush=True)


def profile(base: Path, arm: str, workdir: Path) -> None:
    """Put the shared rollouts into a work directory, with this arm's verdicts. What is not in profile/ yet is
    sampled."""
    whole = base / "profile"
    if not (whole / "pivots.jsonl").is_file():
        if PROFILE.is_dir() and not (whole / "rollouts").is_dir():
            shutil.copytree(PROFILE, whole / "rollouts")
        start("pivotrl_jax.find_pivots", "smollm2", whole, [])
        if not PROFILE.is_dir():
            shutil.copytree(whole / "rollouts", PROFILE)
    if (workdir / "rollouts").is_dir():
        return
    if arm == "exact":
        call("-m", "pivotrl_jax.rescore", f"--workdir={whole}", "--verifier=exact", f"--out={workdir}")
    else:
        shutil.copytree(whole / "rollouts", workdir / "rollouts")


def run(base: Path, arm: str, seed: int) -> None:
    """Train and measure one arm with one seed, unless its result is there."""
    name = f"{arm}_seed{seed}"
    if (RESULTS / f"{name}.json").is_file():
        return
    if isinstance(ARMS[arm], str):
        whole = base / ARMS[arm] / f"seed{seed}"
        steps = min(int(p.name) for p in (whole / "checkpoints").iterdir() if p.name.isdigit())
        out = base / arm / f"seed{seed}.json"
        measure(PI_0, out, f"--state={whole / 'checkpoints' / str(steps)}")
        keep(whole, name, out)
        return
    workdir = base / arm / f"seed{seed}"
    if not (workdir / "evaluation.json").is_file():
        if arm in ("pivotrl", "exact"):
            profile(base, arm, workdir)
        start("pivotrl_jax.train", "smollm2", workdir, [f"seed={seed}", *ARMS[arm]])
    measure(workdir / "hf", workdir / "measured.json")
    keep(workdir, name, workdir / "measured.json")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, default=ROOT / "runs" / "smollm2")
    parser.add_argument("--only", default=",".join(ARMS))
    parser.add_argument("--seeds", default="0,1,2")
    options = parser.parse_args()
    base = options.base.resolve()
    RESULTS.mkdir(exist_ok=True)
    measure(PI_0, RESULTS / "pi_0.json")
    measure(Path("smollm2"), RESULTS / "shipped.json", "--skills_only")
    for seed in map(int, options.seeds.split(",")):
        for arm in options.only.split(","):
            run(base, arm, seed)


if __name__ == "__main__":
    main()
