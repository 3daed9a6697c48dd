"""Evaluate a checkpoint in and out of domain: `python -m pivotrl_jax.evaluate --config=... --checkpoint=DIR`

Plays the config's held-out episodes, scores its held-out turns and out-of-domain skills, prints a table, and
writes the results to config.workdir/evaluations. Without --checkpoint it evaluates the config's own model.
"""

import json
from pathlib import Path

from absl import flags

from pivotrl_jax.evaluation import evaluation, measures
from pivotrl_jax.run import cli
from pivotrl_jax.run import run as run_lib
from pivotrl_jax.training.tables import TABLES
from pivotrl_jax.trajectories import sources

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Directory in Hugging Face layout, e.g. runs/bfcl/hf")


def main() -> None:
    config = cli.CONFIG.value
    if CHECKPOINT.value:
        config.model.checkpoint = CHECKPOINT.value
    run = run_lib.open_run(config)
    data = sources.load(config.data, config.seed)
    held_out = evaluation.make_held_out(run, data)
    results = evaluation.evaluate_run(run, run.params, held_out, run.policy, run.policy)
    summary = measures.summarise(results)
    parts = {**summary.pop("verifiers", {}), **summary.pop("families", {})}
    for name, value in {**summary, **{f"  {part}": v for part, v in parts.items()}}.items():
        print(f"{name:20s} {value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]  n = {value['n']}")
    if count := measures.abstentions(results):
        print(f"left out: {count} samples at held-out turns that the judge could not decide")
    file = Path(config.workdir) / "evaluations" / f"{run.policy}.json"
    print(json.dumps({"checkpoint": str(run.checkpoint), "policy": run.policy, "results": str(file)}))


if __name__ == "__main__":
    cli.start(main, TABLES)
