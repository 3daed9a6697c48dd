"""The main job over several seeds: `python experiments/main_job/run.py --seeds=0,1,2`

Runs `python -m pivotrl_jax.train --config=configs/bfcl.py` once per seed (the results of finished seeds are
read), then pools them: the change of every measure from pi_0, averaged over seeds task by task, with a 95 %
bootstrap over tasks. Seeds change the demonstrations, the pivots' order and all sampling; the held-out tasks
and pi_0 are the same for all seeds. Prints a table and writes results.json beside this file.

Left out: the spread over pretraining seeds (there is one pi_0).
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from pivotrl_jax.evaluation import intervals, measures

HERE = Path(__file__).resolve().parent
MEASURES = ("episode_success", "call_turn_pass", "text_turn_pass", "out_of_domain")


def results_of(workdir: Path, name: str) -> dict:
    return json.loads((workdir / "evaluations" / f"{name}.json").read_text("utf-8"))["results"]


def pooled(workdirs: list[Path]) -> dict[str, dict]:
    """Measure -> before, after and change, averaged over seeds per task, with intervals over tasks."""
    before = [measures.series(results_of(w, "before")) for w in workdirs]
    after = [measures.series(results_of(w, "after")) for w in workdirs]
    out = {}
    for name, (_, clusters) in before[0].items():
        first = np.mean([seed[name][0] for seed in before], axis=0)
        last = np.mean([seed[name][0] for seed in after], axis=0)
        entry = {
            "before": intervals.cluster_bootstrap(first, clusters),
            "after": intervals.cluster_bootstrap(last, clusters),
            "change": intervals.paired_difference(first, last, clusters),
        }
        out[name] = {key: [round(x, 4) for x in interval] for key, interval in entry.items()}
        out[name]["n"] = len(clusters)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--runs", type=Path, default=Path("runs/main_job"))
    parser.add_argument("overrides", nargs="*", help="more flags for train, after --")
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    workdirs = [options.runs / f"seed{seed}" for seed in seeds]
    for seed, workdir in zip(seeds, workdirs):
        command = [sys.executable, "-m", "pivotrl_jax.train", "--config=configs/bfcl.py"]
        command += [f"--config.seed={seed}", f"--config.workdir={workdir}", *options.overrides]
        subprocess.run(command, check=True)
    pages = [json.loads((w / "run.json").read_text("utf-8")) for w in workdirs]
    per_seed = [json.loads((w / "evaluation.json").read_text("utf-8"))["difference"] for w in workdirs]
    result = {
        "seeds": seeds,
        "policy": pages[0]["policy"],
        "seconds": [round(sum(page["seconds"].values())) for page in pages],
        "counts": [page["counts"] for page in pages],
        "change_by_seed": {m: [round(d[m]["value"], 4) for d in per_seed] for m in MEASURES},
        "pooled": pooled(workdirs),
    }
    (HERE / "results.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(f"{'measure':24s} {'before':>22s} {'after':>22s} {'change':>25s}   by seed")
    for name, entry in result["pooled"].items():
        cells = [f"{v[0]:.3f} [{v[1]:.3f}, {v[2]:.3f}]" for v in (entry["before"], entry["after"])]
        change = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*entry["change"])
        by_seed = " ".join(f"{x:+.3f}" for x in result["change_by_seed"].get(name, []))
        print(f"{name:24s} {cells[0]:>22s} {cells[1]:>22s} {change:>25s}   {by_seed}")


if __name__ == "__main__":
    main()
