"""Scores pi_0 and the checkpoints of a finished run: `python experiments/regime/measure.py RUN --steps=10,40`

Of each policy: held-out episodes and turns, the families of near.py, and the KL to pi_0 per turn on held-out
turns and on rows of the pretrain split. Of pi_0 also the demonstrations' log-prob. Runs themselves evaluate
nothing (runs.py). Writes RUN/measured.json; a policy that is done is in RUN/measured/, so a killed
measurement goes on.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import jax
import ml_collections
import near
import numpy as np

from pivotrl_jax.evaluation import evaluation, kl
from pivotrl_jax.records import write_json
from pivotrl_jax.rollouts.scoring import Scorer
from pivotrl_jax.run import export
from pivotrl_jax.run import run as run_lib
from pivotrl_jax.trajectories import extract, sources

KL_TURNS = 128


class Measuring:
    """A finished run's policy and what it is measured on: held-out tasks and trajectories, and `items`
    trajectories of each near family."""

    def __init__(self, workdir: Path, tasks: int, trajectories: int, items: int):
        config = ml_collections.ConfigDict(json.loads((workdir / "run.json").read_text("utf-8"))["config"])
        config.workdir = str(workdir / "measuring")
        config.evaluate.update(tasks=tasks, turn_trajectories=trajectories)
        self.run, self.config = run_lib.open_run(config), config
        self.pi_0 = self.run.params
        self.data = sources.load(config.data, config.seed)
        self.held_out = evaluation.make_held_out(self.run, self.data)
        self.rollouts = evaluation.evaluation_rollouts(self.run, config.evaluate.batch, False)
        self.scorer = Scorer(self.run.model_config, config.compute, self.run.mesh)
        self.key = jax.random.fold_in(jax.random.key(config.seed), 18)
        self.near = {
            family: extract.within_limit(
                self.run.chat,
                extract.extract(near.trajectories(family, items)),
                config.data.max_prompt_tokens,
            )[0]
            for family in near.FAMILIES
        }

    def families(self, params) -> dict[str, list[float]]:
        """Family -> the reward of one reply to each of its turns."""
        placed = self.rollouts.actor.place(params)
        turns = {
            family: evaluation.score_turns(self.rollouts, placed, prompts, 1, self.key)
            for family, prompts in self.near.items()
        }
        return {family: [t["mean"] for t in found] for family, found in turns.items()}

    def demonstrations(self, params) -> dict[str, float]:
        """Log-prob in nats of the first demonstrations' turns, and their number of tokens."""
        turns = extract.extract(self.data.demonstrations[:40])
        prompts, _ = extract.within_limit(self.run.chat, turns, self.config.data.max_prompt_tokens)
        ids = [
            self.run.chat.completion_ids(
                list(p.candidate.messages), p.candidate.tools, p.candidate.demonstration
            )
            for p in prompts
        ]
        total = sum(kl.log_probs(self.scorer, params, prompts, ids))
        return {"log_prob": total, "tokens": sum(map(len, ids)), "turns": len(ids)}

    def checkpoint(self, where: Path):
        """The parameters of a training checkpoint."""
        self.run.params = self.pi_0  # `export.restore` lets go of it
        return export.restore(self.run, where)

    def policy(self, params) -> dict:
        c = self.config
        results = evaluation.evaluate(
            self.rollouts,
            params,
            dataclasses.replace(self.held_out, skills=[], language=[]),
            key=jax.random.fold_in(jax.random.key(c.seed), 2),
            attempts=c.evaluate.attempts,
            samples=c.evaluate.samples,
            max_steps=c.evaluate.max_steps,
            max_prompt=c.data.max_prompt_tokens,
        )
        divergence = {
            name: kl.log_ratios(self.rollouts, self.scorer, params, self.pi_0, prompts[:KL_TURNS], self.key)
            for name, prompts in (("held_out", self.held_out.prompts), ("near", self.near["pretrain_split"]))
        }
        turns = [{k: t[k] for k in ("id", "scenario", "is_call", "mean")} for t in results["turns"]]
        return {
            "episodes": [e["success"] for e in results["episodes"]],
            "turns": turns,
            "near": self.families(params),
            "kl": divergence,
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", default="10,40")
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("--trajectories", type=int, default=100)
    parser.add_argument("--items", type=int, default=100)
    options = parser.parse_args()
    measuring = Measuring(options.run, options.tasks, options.trajectories, options.items)
    parts = options.run / "measured"
    checkpoints = options.run / "checkpoints"
    there = sorted(int(p.name) for p in checkpoints.iterdir() if p.name.isdigit())
    # an epoch of SFT has other steps: what it kept last stands for it
    steps = [s for s in map(int, options.steps.split(",")) if s in there] or there[-1:]
    parts.mkdir(exist_ok=True)
    first = parts / "pi_0.json"
    if not first.is_file():
        demonstrations = measuring.demonstrations(measuring.pi_0)
        write_json(first, {**measuring.policy(measuring.pi_0), "demonstrations": demonstrations})
    for step in steps:
        file = parts / f"{step}.json"
        if not file.is_file():
            write_json(file, measuring.policy(measuring.checkpoint(checkpoints / str(step))))
    found = {name: json.loads((parts / f"{name}.json").read_text("utf-8")) for name in ("pi_0", *steps)}
    write_json(options.run / "measured.json", found)
    for step in steps:
        calls = [t["mean"] for t in found[step]["turns"] if t["is_call"]]
        near_means = {family: round(float(np.mean(x)), 3) for family, x in found[step]["near"].items()}
        print(step, np.mean(found[step]["episodes"]), np.mean(calls), near_means)


if __name__ == "__main__":
    main()
