"""Kill a small main job again and again, and compare what it leaves with that of a calm one.

    nice -n 19 python experiments/survival/run.py --base=runs/survival

A chain is one run that is killed several times and started again by the same command until it is done. Its
kills come one per stage, before a write that is drawn at random, or at random moments. Then the files must be
those of a run that was never killed, bit for bit: candidates, rollouts, profiles, pivots, metrics without
times, export and evaluation; and every candidate must have its rollouts exactly once. Chains that are in
results.json are left out. Prints the table of README.md.

Left out: a power cut, after which a disk may have lost what was written without an error.
"""

import argparse
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(HERE)]

import child  # noqa: E402
from support import hosts, tiny_run  # noqa: E402
from support.train_cli import CONFIG, MICRO  # noqa: E402

from pivotrl_jax.run import metrics  # noqa: E402

RESULTS = HERE / "results.json"
# no validation gains a whole 1: after the second the policy is profiled again
OPTIONS = """
    validation.every=1 validation.tasks=2 validation.batch.rows=1 validation.batch.samples_per_row=32
    grpo.steps=4 grpo.save_every=2 reprofile.patience=1 reprofile.min_gain=1.0 grpo.skip_below=0.2
""".split()
NAMES = ("SIGKILL", "SIGTERM", "SIGINT")
# SIGSTOP: the process stands still, and is killed when the others have ended
STATUS = {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": 130, "SIGSTOP": -9}
SAYS = ("stopped by ", "error: ")  # how the last words of a program begin
LONG = 1800  # seconds that a job may take


@dataclasses.dataclass(frozen=True)
class Chain:
    """A run and its kills: (signal, stage), or (signal, "") at a random moment."""

    name: str
    kills: tuple[tuple[str, str], ...]
    seed: int
    processes: int = 1


def chains() -> list[Chain]:
    """All chains: by stage with each signal, at random moments, and with two processes."""
    stages = tuple(child.STAGES)
    found = [Chain(f"{name} by stage", tuple((name, s) for s in stages), i) for i, name in enumerate(NAMES)]
    for i in range(3):
        found.append(Chain(f"SIGKILL at random {i + 1}", (("SIGKILL", ""),) * 5, 10 + i))
    mixed = (("SIGTERM", ""), ("SIGINT", "")) * 3
    found.append(Chain("SIGTERM and SIGINT at random", mixed, 20))
    some = ("profiling", "checkpoint", "re-profiling", "export")
    found.append(Chain("SIGKILL of one of two", tuple(("SIGKILL", s) for s in some), 30, 2))
    found.append(Chain("SIGTERM of one of two", (("SIGTERM", "training step"), ("SIGTERM", "")), 40, 2))
    again = tuple((name, "pivots again") for name in NAMES)
    found.append(Chain("while pivots are sampled again", again, 50))
    stopped = (("SIGSTOP", "profiling"), ("SIGSTOP", "training step"))
    found.append(Chain("one of two stands still", stopped, 60, 2))
    mixed = (("SIGKILL", "profiling"), ("SIGTERM", "training step"), ("SIGKILL", "export"))
    found.append(Chain("one of four", mixed, 70, 4))
    return found


class Job:
    """The main job in a work directory, in one or several processes."""

    def __init__(self, workdir: Path, checkpoint: Path, processes: int = 1, log: Path | None = None):
        self.workdir, self.processes = workdir, processes
        self._log = log or workdir.with_suffix(".log")
        overrides = [f"workdir={workdir}", f"model.checkpoint={checkpoint}", *MICRO, *OPTIONS]
        self.command = [sys.executable, str(HERE / "child.py"), f"--config={CONFIG}"]
        self.command += [f"--config.{override}" for override in overrides]

    def environment(self, process: int = 0, kill: str = "") -> dict[str, str]:
        return {
            **os.environ,
            "SURVIVAL_WORKDIR": str(self.workdir),
            "SURVIVAL_LOG": str(self._log if process == 0 else self._log.with_suffix(".other")),
            "SURVIVAL_KILL": kill,
        }

    def start(self, kill: str = "") -> list[subprocess.Popen]:
        """The processes; `kill`, for the first of them, is what `child` reads."""
        self._log.unlink(missing_ok=True)
        address, found = f"127.0.0.1:{hosts.free_port()}", []
        for i in range(self.processes):
            environment = self.environment(i, "" if i else kill)
            if self.processes > 1:
                environment |= {"JAX_COORDINATOR_ADDRESS": address, "JAX_PROCESS_ID": str(i)}
                environment["JAX_NUM_PROCESSES"] = str(self.processes)
            with self._log.with_suffix(f".err{i}").open("w") as err:
                found.append(
                    subprocess.Popen(self.command, env=environment, stdout=subprocess.DEVNULL, stderr=err)
                )
        return found

    def said(self, process: int = 0) -> str:
        """What a process wrote to stderr, with the work directory's path left out."""
        text = self._log.with_suffix(f".err{process}").read_text("utf-8")
        return text.replace(str(self.workdir), "WORKDIR")

    def writes(self) -> list[list[str]]:
        """(stage, path, "killed" or "") of every write so far of the first process."""
        if not self._log.is_file():
            return []
        return [
            line.split("\t") for line in self._log.read_text("utf-8").splitlines() if line.count("\t") == 2
        ]


# files of a work directory that a kill must not change
EQUAL = ("*.jsonl", "rollouts/*", "reprofiled/**/*", "resampled/**/*", "hf/*")
EQUAL += ("evaluations/*", "evaluation.json")


def what_is_left(workdir: Path) -> dict[str, str]:
    """File -> its text or bytes in hexadecimal digits, for all files that must be equal."""
    found = {}
    for pattern in EQUAL:
        for path in sorted(workdir.glob(pattern)):
            if path.is_file() and path.suffix != ".tmp":
                found[str(path.relative_to(workdir))] = path.read_bytes().hex()
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text("utf-8").splitlines())
    steps = [{k: v for k, v in line.items() if k not in metrics.MEASURED} for line in lines]
    found["metrics.jsonl"] = json.dumps(steps)
    page = json.loads((workdir / "run.json").read_text("utf-8"))
    found["run.json: counts"] = json.dumps(page["counts"], sort_keys=True)
    return found


def lost_or_doubled(workdir: Path, group_size: int) -> list[str]:
    """Candidates that have not each of their rollouts exactly once."""
    wrong = []
    for rollouts in (workdir / "rollouts", *workdir.glob("reprofiled/*/rollouts")):
        samples: dict[str, list[int]] = {}
        for file in sorted(rollouts.glob("*.jsonl")):
            for line in file.read_text("utf-8").splitlines():
                rollout = json.loads(line)
                samples.setdefault(rollout["candidate_id"], []).append(rollout["sample"])
        lines = (workdir / "candidates.jsonl").read_text("utf-8").splitlines()
        ids = [place["id"] for line in lines for place in json.loads(line)["candidates"]]
        wrong += [i for i in {*ids, *samples} if sorted(samples.get(i, [])) != list(range(group_size))]
    return wrong


def killed(job: Job, name: str, stage: str, rng: random.Random, calm: dict) -> dict:
    """Start the job, kill it once, and wait for its end. Returns what happened."""
    began = time.monotonic()
    victim = rng.randrange(job.processes) if name == "SIGKILL" and not stage else 0
    number = rng.randint(1, max(1, calm["writes"].get(stage, 1) // 2)) if stage else 0
    processes = job.start(f"{stage}:{number}:{name}" if stage else "")
    if not stage:
        wait, until = rng.uniform(0.0, 0.7) * calm["seconds"], float("inf")
        while time.monotonic() < until and processes[victim].poll() is None:
            if until == float("inf") and job.writes():  # Python and its modules are loaded
                until = time.monotonic() + wait
            time.sleep(0.05)
        processes[victim].send_signal(getattr(signal, name))
    for process in processes[::-1]:  # the victim last
        if name == "SIGSTOP" and process is processes[victim]:
            process.kill()
        process.wait(timeout=LONG)
    writes, status = job.writes(), [process.returncode for process in processes]
    at = next((w for w in writes if w[2]), writes[-1] if writes else ["start", "", ""])
    lines = [line for i in range(len(processes)) for line in job.said(i).splitlines()]
    return {
        "signal": name,
        "how": "at a write" if stage else "at random",
        "stage": at[0],
        "write": at[1],
        "status": status,
        "died": status[victim] == STATUS[name],
        "said": [line for line in lines if line.startswith(SAYS)],
        "seconds": round(time.monotonic() - began, 1),
    }


def run_chain(chain: Chain, base: Path, checkpoint: Path, calm: dict, left: dict[str, str]) -> dict:
    """Run a chain to its end. Returns its entry of results.json."""
    rng, kills = random.Random(chain.seed), []
    job = Job(base / chain.name.replace(" ", "_"), checkpoint, chain.processes)
    for name, stage in chain.kills:
        kills.append(killed(job, name, stage, rng, calm))
        print(chain.name, json.dumps(kills[-1]), flush=True)
        if all(status == 0 for status in kills[-1]["status"]) and not stage:
            break  # the run was done before its signal came
    for process in job.start():
        process.wait(timeout=LONG)
        assert process.returncode == 0, job.said()
    there = what_is_left(job.workdir)
    return {
        "name": chain.name,
        "processes": chain.processes,
        "kills": kills,
        "different": sorted(n for n in {*left, *there} if left.get(n) != there.get(n)),
        "files": len(left),
        "lost_or_doubled": lost_or_doubled(job.workdir, 4),
    }


def calm_run(base: Path, checkpoint: Path, processes: int) -> tuple[dict, dict[str, str]]:
    """({"seconds", "writes" by stage}, what is left) of a run that is never killed."""
    job, began = Job(base / f"calm_{processes}", checkpoint, processes), time.monotonic()
    for process in job.start():
        process.wait(timeout=LONG)
        assert process.returncode == 0, job.said()
    stages = [stage for stage, *_ in job.writes()]
    facts = {"seconds": time.monotonic() - began, "writes": {s: stages.count(s) for s in child.STAGES}}
    return facts, what_is_left(job.workdir)


def table(results: list[dict]) -> list[str]:
    """Kills by stage and signal, as Markdown."""
    columns = ("killed while", *NAMES, "one of two processes", "of four", "one of two stands still")
    rows = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    every = [(kill, chain) for chain in results for kill in chain["kills"] if kill["died"]]
    for stage in ("start", *child.STAGES):
        here = [(k, c) for k, c in every if k["stage"] == stage]
        counts = [sum(k["signal"] == n and c["processes"] == 1 for k, c in here) for n in NAMES]
        of_several = [(k["signal"] == "SIGSTOP", c["processes"]) for k, c in here]
        counts += [of_several.count(kind) for kind in ((False, 2), (False, 4), (True, 2))]
        rows.append(f"| {stage} | {' | '.join(map(str, counts))} |")
    whole = sum(not chain["different"] and not chain["lost_or_doubled"] for chain in results)
    return [*rows, "", f"{len(every)} kills; {whole} of {len(results)} runs equal the calm one."]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, required=True, help="a directory for the runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the file of results")
    parser.add_argument("--only", default="", help="only chains whose name contains this")
    options = parser.parse_args()
    base = options.base.absolute()
    base.mkdir(parents=True, exist_ok=True)
    results = json.loads(options.out.read_text("utf-8")) if options.out.is_file() else []
    checkpoint, calm = base / "checkpoint", {}
    if not checkpoint.is_dir():
        tiny_run.save_brief(checkpoint)
    for chain in chains():
        if chain.name in {entry["name"] for entry in results} or options.only not in chain.name:
            continue
        if chain.processes not in calm:
            calm[chain.processes] = calm_run(base, checkpoint, chain.processes)
        results.append(run_chain(chain, base, checkpoint, *calm[chain.processes]))
        options.out.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
