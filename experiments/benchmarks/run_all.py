"""The ratios of the benchmarks in one table, and a guard against losing them:
`python experiments/benchmarks/run_all.py [--only=roofline,experts] [--record] [--check]`

Each row of the table is a ratio within one run of a program beside this file, against a peer, an ideal or the
machine's own ceiling, so that it says the same on a machine of another speed. Run it on a quiet machine.
Programs with peers need `pip install -e '.[bench]'`; without it they are left out and named.

--record appends the date, the commit, the machine and the ratios to history.jsonl, which is committed.
--check compares with what was recorded last for such a machine (processor, cores, backend), and exits with 1
if a ratio is lower by more than 15 %. The table says which ratios have no earlier value.
"""

import argparse
import datetime
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import peers

HERE = Path(__file__).resolve().parent
HISTORY = HERE / "history.jsonl"
TOLERANCE = 0.15
PEERS = ("torch", "trl", "datasets")

# benchmark -> program, arguments, modules that it needs, {name of a ratio: path to it in the page}
STEP = {"TRL / ours": ("speedup_trl",), "by hand / ours": ("speedup_torch",)}
SHARES = {"forward": ("forward_share",), "forward and backward": ("both_share",)}
BENCHMARKS = {
    "roofline": ("roofline", "", (), SHARES),
    "roofline_float32": ("roofline", "--dtype=float32", (), SHARES),
    "experts": (
        "experts",
        "",
        (),
        {
            f"{experts} experts, {part}": (f"{size} balanced", "of_ideal", f"blocked {key}")
            for experts, size in ((128, "(1024, 128, 8, 256, 96)"), (8, "(4096, 8, 2, 128, 128)"))
            for part, key in (("forward", "forward"), ("forward and backward", "both"))
        },
    ),
    "step": ("rl_step", "--prompt=1024 --group=8 --completion=32 --peer_rows=16", PEERS, STEP),
    "step_16": ("rl_step", "--prompt=1024 --group=16 --completion=32 --runs=2 --peer_rows=16", PEERS, STEP),
    "profiling": ("profiling", "--turns=8", ("torch",), {"transformers / ours": ("speedup_transformers",)}),
}


def page_of(program: str, arguments: str) -> dict:
    """The line of JSON that a benchmark prints."""
    command = [sys.executable, str(HERE / f"{program}.py"), *arguments.split()]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def at(page: dict, path: tuple[str, ...]) -> float:
    for key in path:
        page = page[key]
    return page


def ratios_of(names: list[str]) -> dict[str, float]:
    """ "benchmark: ratio" -> its value, of the benchmarks that can run here."""
    found = {}
    for name in names:
        program, arguments, modules, paths = BENCHMARKS[name]
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        if missing:
            print(f"{name} left out: {', '.join(missing)} not installed", file=sys.stderr)
            continue
        page = page_of(program, arguments)
        found |= {f"{name}: {ratio}": at(page, path) for ratio, path in paths.items()}
    return found


def machine() -> str:
    """What ratios are compared on: processor, cores, backend."""
    processor = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        if line.startswith("model name")
    ]
    return f"{processor[0] if processor else 'unknown processor'}; {peers.facts('run_all')['machine']}"


def commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"


def earlier(history: Path, where: str) -> dict[str, float]:
    """The latest value of every ratio that was recorded on such a machine."""
    found: dict[str, float] = {}
    lines = history.read_text("utf-8").splitlines() if history.is_file() else []
    for entry in map(json.loads, lines):
        if entry["machine"] == where:
            found |= entry["ratios"]
    return found


def table(now: dict[str, float], before: dict[str, float]) -> str:
    lines = ["| benchmark | ratio | recorded | change |", "|---|---|---|---|"]
    for name, value in now.items():
        old = before.get(name)
        change = f"{value / old - 1:+.0%}" if old else ""
        lines.append(f"| {name} | {value:.3g} | {f'{old:.3g}' if old else 'none'} | {change} |")
    return "\n".join(lines)


def lost(now: dict[str, float], before: dict[str, float]) -> list[str]:
    """The ratios that fell by more than TOLERANCE."""
    return [name for name, value in now.items() if name in before and value < before[name] * (1 - TOLERANCE)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(BENCHMARKS))
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := [name for name in names if name not in BENCHMARKS]:
        raise SystemExit(f"error: --only={','.join(unknown)}: the benchmarks are {', '.join(BENCHMARKS)}")
    where = machine()
    now, before = ratios_of(names), earlier(HISTORY, where)
    print(table(now, before))
    if options.record:
        entry = {
            "date": datetime.date.today().isoformat(),
            "commit": commit(),
            "machine": where,
            "ratios": now,
        }
        with HISTORY.open("a", encoding="utf-8") as out:
            out.write(json.dumps(entry) + "\n")
    if options.check and (fallen := lost(now, before)):
        raise SystemExit(f"error: lower by more than {TOLERANCE:.0%}: {'; '.join(fallen)}")


if __name__ == "__main__":
    main()
