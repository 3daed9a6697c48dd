"""What a policy does on the held-out rows and out of domain:
`python experiments/smollm2/measure.py CHECKPOINT --pi_0=DIR --out=FILE.json [--state=CHECKPOINT_OF_A_RUN]`

One reply at temperature 0 to 300 held-out rows of each group of BFCL's categories, the suite of
pivotrl_jax/evaluation/language, and the KL to pi_0 per turn. What a reply was, its reward and the verdict's
reason are kept, so that BFCL's own scorer can read them (agreement.py). Parts that are done are in FILE.parts
until all are, so that a killed measurement goes on. With `--state` the policy is
CHECKPOINT with the adapters of a training checkpoint, exported and read back. `--skills_only` leaves out the
rows and the KL.
"""

import argparse
import functools
import hashlib
import importlib.util
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pivotrl_jax.evaluation import evaluation, kl
from pivotrl_jax.evaluation.language import items as language_items
from pivotrl_jax.evaluation.language import scores
from pivotrl_jax.records import Prompt, write_json
from pivotrl_jax.rollouts.scoring import Scorer
from pivotrl_jax.run import export
from pivotrl_jax.run import run as run_lib
from pivotrl_jax.trajectories import extract, sources

ROOT = Path(__file__).resolve().parents[2]
PER_GROUP, KL_TURNS = 300, 128
PART = 450  # turns; about six whole batches, so that the last one, which is not full, costs little
GROUPS = {
    "irrelevance": ("irrelevance", "live_irrelevance"),
    "live": ("live_simple", "live_multiple", "live_parallel", "live_parallel_multiple"),
    "python": ("simple_python", "multiple", "parallel", "parallel_multiple"),
}


def category_of(candidate_id: str) -> str:
    """The category in a row's id: "live_simple_12-3-0@1" -> "live_simple"."""
    names = [name for group in GROUPS.values() for name in group if candidate_id.startswith(f"{name}_")]
    return max(names, key=len)


def group_of(candidate_id: str) -> str:
    category = category_of(candidate_id)
    return next(group for group, names in GROUPS.items() if category in names)


def chosen(prompts: list[Prompt]) -> list[Prompt]:
    """The first PER_GROUP prompts of every group in the order of a hash of their ids."""
    in_order = sorted(prompts, key=lambda p: hashlib.sha256(p.candidate.id.encode()).digest())
    out = []
    for group in GROUPS:
        out += [p for p in in_order if group_of(p.candidate.id) == group][:PER_GROUP]
    return out


def exported(run, state: Path):
    """The policy of a training checkpoint: its adapters are merged into the run's model, written to hf/ in
    the run's work directory and read back, as at the end of a run."""
    export.write(run, export.restore(run, state))
    return export.read_back(run)


class Parts:
    """What is measured piece by piece, kept in a folder of its own; `identity` says of what."""

    def __init__(self, folder: Path, identity: dict):
        self._folder = folder
        if self.of("identity", lambda: identity)[0] != identity:
            raise SystemExit(f"error: {folder} holds parts of another measurement; remove it")

    def of(self, name: str, compute: Callable[[], Any]) -> tuple[Any, float]:
        """(a part, the seconds that it took), from its file if it has one."""
        file, began = self._folder / f"{name}.json", time.perf_counter()
        if not file.is_file():
            value = compute()
            self._folder.mkdir(parents=True, exist_ok=True)
            write_json(file, [value, time.perf_counter() - began])
        value, seconds = json.loads(file.read_text("utf-8"))
        return value, seconds

    def remove(self) -> None:
        shutil.rmtree(self._folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--pi_0", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--state", type=Path)
    parser.add_argument("--skills_only", action="store_true", help="only out of domain")
    options = parser.parse_args()
    spec = importlib.util.spec_from_file_location("bfcl", ROOT / "configs" / "bfcl.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config("smollm2")
    config.workdir = str(options.out.parent / "measuring")
    config.model.checkpoint = str(options.checkpoint)
    run = run_lib.open_run(config)
    run, params = exported(run, options.state) if options.state else (run, run.params)
    data = sources.load(config.data, 0)
    prompts, _ = extract.within_limit(run.chat, extract.extract(data.held_out), config.data.max_prompt_tokens)
    prompts = [] if options.skills_only else chosen(prompts)
    sampled = evaluation.evaluation_rollouts(run, config.evaluate.batch, False)
    config.sampling.temperature = 0.0
    greedy = evaluation.evaluation_rollouts(run, config.evaluate.batch, False)
    key = jax.random.key(0)
    identity = {"policy": run.policy, "state": str(options.state or ""), "pi_0": str(options.pi_0)}
    parts = Parts(options.out.with_suffix(".parts"), identity)
    placed, found, spent = greedy.actor.place(params), [], 0.0
    for start in range(0, len(prompts), PART):
        some = prompts[start : start + PART]
        score = functools.partial(evaluation.score_turns, greedy, placed, some, 1, key)
        turns, seconds = parts.of(f"turns_{start}_{start + len(some)}", score)
        found, spent = found + turns, spent + seconds
    families = language_items.families()
    suite = [
        item for family in families for item in language_items.items(family, config.evaluate.skill_items)
    ]
    skills, seconds = parts.of("skills", lambda: scores.score(run, params, suite, key))
    spent, nats = spent + seconds, [0.0] * KL_TURNS
    if prompts and (options.pi_0 != options.checkpoint or options.state):
        config.model.checkpoint = str(options.pi_0)
        reference = run_lib.open_run(config).params
        some = sorted(prompts, key=lambda p: hashlib.sha256(p.candidate.id[::-1].encode()).digest())[
            :KL_TURNS
        ]
        scorer = Scorer(run.model_config, config.compute, run.mesh)
        nats, seconds = parts.of("kl", lambda: kl.log_ratios(sampled, scorer, params, reference, some, key))
        spent += seconds
    write_json(
        options.out,
        {
            "turns": {t["id"]: t["replies"][0] for t in found},
            "skills": skills,
            "kl": nats,
            "measuring_seconds": spent,
        },
    )
    parts.remove()
    for group in GROUPS if found else ():
        print(group, np.mean([t["mean"] for t in found if group_of(t["id"]) == group]).round(3))
    print("KL per turn", np.mean(nats).round(3), "seconds", round(spent))


if __name__ == "__main__":
    main()
