"""What the embedded checkpoint can do on held-out tasks: `python experiments/tiny_checkpoint/measure.py`

At temperature 1, on the toolbox's test split (values and phrasings that neither pretraining nor RL sees):
G = 8 rollouts at every turn of 100 expert trajectories, 200 episodes played to the end, 100 items of every
out-of-domain family. Prints a table and, as its last line, JSON. `--checkpoint=DIR` measures another
checkpoint.
"""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "configs")]

import bfcl  # noqa: E402

from pivotrl_jax.evaluation import (  # noqa: E402
    evaluation,
    measures,
    skills,
)
from pivotrl_jax.run import run as run_lib  # noqa: E402
from pivotrl_jax.trajectories import sources  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", default="embedded")
    parser.add_argument("--workdir", default="runs/measure")
    options = parser.parse_args()
    config = bfcl.get_config()
    config.model.checkpoint, config.workdir = options.checkpoint, options.workdir
    config.data.demonstrations, config.resume = 1, False
    config.evaluate.turn_trajectories, config.evaluate.samples, config.evaluate.skill_items = 100, 8, 100
    run = run_lib.open_run(config)
    held_out = evaluation.make_held_out(run, sources.load(config.data, config.seed))
    # the batch shape of profiling, which also has G samples per turn
    config.evaluate.batch = config.profile.batch
    results = evaluation.evaluate_run(run, run.params, held_out, "measure", run.policy)
    summary = measures.summarise(results)
    families = summary.pop("families")
    equal = {"all": results["turns"], "call": [t for t in results["turns"] if t["is_call"]]}
    summary |= {
        f"all_equal_groups_{name}": {
            "value": sum(t["mean"] in (0, 1) for t in turns) / len(turns),
            "n": len(turns),
        }
        for name, turns in equal.items()
    }
    for name, value in summary.items():
        interval = f"[{value['low']:.3f}, {value['high']:.3f}]" if "low" in value else ""
        print(f"{name:24s} {value['value']:.3f} {interval:16s} n = {value['n']}")
    for family, value in families.items():
        interval = f"[{value['low']:.3f}, {value['high']:.3f}]"
        print(f"  {family:22s} {value['value']:.3f} {interval} chance {skills.chance(family):.3f}")
    line = {name: round(value["value"], 4) for name, value in summary.items()}
    line["families"] = {family: round(value["value"], 4) for family, value in families.items()}
    print(json.dumps({"policy": run.policy, **line}))


if __name__ == "__main__":
    main()
