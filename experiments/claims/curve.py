"""Success along training: `python experiments/claims/curve.py RUN_DIRECTORY...`

Every checkpoint that a run kept plays the held-out episodes with the run's seed and sampling. Writes
curve.json into the run's directory: one point per checkpoint with the rollout turns and the seconds spent
up to it, including profiling. The score of pi_0 is taken from the run's own evaluation.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp

from pivotrl_jax.evaluation import evaluation, measures
from pivotrl_jax.run import run as run_lib
from pivotrl_jax.trajectories import sources


def spent(workdir: Path) -> list[dict]:
    """Per step: rollout turns and seconds since the start, including profiling."""
    facts = json.loads((workdir / "run.json").read_text("utf-8"))
    c, lines = facts["config"], (workdir / "metrics.jsonl").read_text("utf-8").splitlines()
    by_step = {line["step"]: line for line in map(json.loads, lines)}
    turns = facts["counts"]["profiling_rollout_turns"]
    seconds, out = facts["seconds"].get("profiling", 0.0), []
    for step in sorted(by_step):
        line = by_step[step]
        per_step = c["grpo"]["pivots_per_step"] * c["grpo"]["group_size"]
        if "turns_per_episode" in line:
            per_step = c["e2e"]["tasks_per_step"] * c["grpo"]["group_size"] * line["turns_per_episode"]
        turns, seconds = turns + round(per_step), seconds + line["seconds"]
        out.append({"rollout_turns": turns, "seconds": seconds})
    counted = facts["counts"]["profiling_rollout_turns"] + facts["counts"]["training_rollout_turns"]
    if out and out[-1]["rollout_turns"] != counted:
        raise SystemExit(f"{workdir}: {out[-1]['rollout_turns']} turns by step, but {counted} in run.json")
    return out


def curve(workdir: Path) -> list[dict]:
    """One point per checkpoint of the run, pi_0 first."""
    config = ml_collections.ConfigDict(json.loads((workdir / "run.json").read_text("utf-8"))["config"])
    config.workdir = str(workdir / "curve")
    run = run_lib.open_run(config)
    data = sources.load(config.data, config.seed)
    held_out = dataclasses.replace(evaluation.make_held_out(run, data), prompts=[], skills=[])
    costs = spent(workdir)
    before = json.loads((workdir / "evaluations" / "before.json").read_text("utf-8"))["results"]
    points = [{"step": 0, "rollout_turns": 0, "seconds": 0.0, "episodes": successes(before)}]
    steps = sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())
    for step in steps:
        saved = ocp.StandardCheckpointer().restore((workdir / "checkpoints" / str(step) / "state").absolute())
        params = jax.tree.map(np.asarray, saved["params"])
        results = evaluation.evaluate_run(
            run, params, held_out, f"step{step}", f"{workdir.parent.name} step {step}"
        )
        points.append({"step": step, **costs[step - 1], "episodes": successes(results)})
    return points


def successes(results: measures.Results) -> list[float]:
    return [episode["success"] for episode in results["episodes"]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    for workdir in parser.parse_args().runs:
        if not (workdir / "curve.json").is_file():
            (workdir / "curve.json").write_text(json.dumps(curve(workdir.resolve())) + "\n", "utf-8")
        for point in json.loads((workdir / "curve.json").read_text("utf-8")):
            print(
                f"{workdir}: step {point['step']}, {point['rollout_turns']} rollout turns, "
                f"{point['seconds']:.0f} s: {np.mean(point['episodes']):.3f}"
            )


if __name__ == "__main__":
    main()
