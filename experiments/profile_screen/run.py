"""What a screen or a stopping rule saves: `python experiments/profile_screen/run.py FULL OTHER...`

Compares profiles of the same candidates, each in the work directory of a find_pivots, with the full one:
rollouts, pivots, and how many of the full profile's pivots are among them. For a screened profile also: the
correlation of p, the chance of the demonstration, with the full profile's mean over what was scored, and the
pivots that a threshold on p alone would lose. Prints and writes results.json.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np

from pivotrl_jax.pivots import screening
from pivotrl_jax.records import Pivot, Profile, read_jsonl, read_records

HERE = Path(__file__).parent
THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95)


def pivots_of(run: Path) -> set[str]:
    return {pivot.candidate.id for pivot in read_records(run / "pivots.jsonl", Pivot)}


def compare(full: Path, run: Path) -> dict:
    """A line of the table."""
    want, found = pivots_of(full), pivots_of(run)
    line = {
        "run": run.name,
        "rollouts": sum(1 for file in (run / "rollouts").glob("*.jsonl") for _ in read_jsonl(file)),
        "pivots": len(found),
        "of the full profile": len(found & want),
        "screened": sum(p.early == "screened" for p in read_records(run / "profiles.jsonl", Profile)),
    }
    files = sorted((run / "rollouts").glob(f"*{screening.SUFFIX}"))
    scored = [row for file in files for row in json.loads(file.read_text("utf-8")) if row["log_prob"]]
    if scored:
        mean = {p.candidate_id: p.mean for p in read_records(full / "profiles.jsonl", Profile)}
        chance = {row["candidate_id"]: math.exp(row["log_prob"]) for row in scored}
        both = np.array([[p, mean[id]] for id, p in chance.items()])
        line["scored"], line["correlation"] = len(both), round(float(np.corrcoef(both.T)[0, 1]), 3)
        line["by threshold"] = {
            str(t): {
                "share screened": round(float((both[:, 0] >= t).mean()), 3),
                "pivots lost": sum(p >= t and id in want for id, p in chance.items()),
            }
            for t in THRESHOLDS
        }
    return line


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("full", type=Path)
    parser.add_argument("others", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, default=HERE)
    flags = parser.parse_args()
    table = [compare(flags.full, run) for run in (flags.full, *flags.others)]
    flags.out.mkdir(parents=True, exist_ok=True)
    (flags.out / "results.json").write_text(json.dumps(table, indent=1) + "\n", "utf-8")
    for line in table:
        print("  ".join(f"{name} {value}" for name, value in line.items()))


if __name__ == "__main__":
    main()
