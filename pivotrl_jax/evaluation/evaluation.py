"""Evaluation: held-out episodes played to the end, held-out turns, out-of-domain skills; with intervals.

The same tasks and the same PRNG streams before and after training, so that differences are paired.
"""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pivotrl_jax import verifiers
from pivotrl_jax.checkpoints.identity import as_json
from pivotrl_jax.environments.base import Task
from pivotrl_jax.evaluation import intervals, skills
from pivotrl_jax.evaluation import skills as skills_lib
from pivotrl_jax.models import lora
from pivotrl_jax.records import InputError, Prompt, write_json
from pivotrl_jax.rollouts import episodes as episodes_lib
from pivotrl_jax.rollouts import progress
from pivotrl_jax.rollouts.actor import Request
from pivotrl_jax.rollouts.rollout import Rollouts, make_rollouts
from pivotrl_jax.run.run import Run
from pivotrl_jax.trajectories import extract, sources

Results = dict[str, Any]  # JSON: see `evaluate`


@dataclasses.dataclass(frozen=True)
class Tasks:
    """What is held out."""

    rows: list[Task]  # played as episodes
    prompts: list[Prompt]  # turns of the experts' trajectories through the same rows
    skills: list[skills_lib.SkillItem]


def play_episodes(
    rollouts: Rollouts, params, rows: Sequence[Task], attempts: int, max_steps: int, max_prompt: int, stream
) -> list[dict]:
    """`play.play`; per episode id, row, success, reason and the number of turns."""
    played = episodes_lib.play(rollouts, params, rows, attempts, max_steps, max_prompt, stream)
    return [
        {"id": e.id, "row": e.row.id, "success": e.success, "reason": e.reason, "turns": len(e.turns)}
        for e in played
    ]


def score_turns(rollouts: Rollouts, params, prompts: Sequence[Prompt], samples: int, stream) -> list[dict]:
    """Verified samples at every held-out turn: id, scenario, verifier, is_call, mean reward, samples, and how
    many nobody could decide. They are left out of the mean, which is None where all are."""
    with progress.bar(len(prompts) * samples, "held-out turns", "rollouts") as bar:
        groups = rollouts.sample(params, prompts, samples, stream, on_batch=bar.update)
    decided = [[rollout.reward for rollout in group if rollout.reward is not None] for group in groups]
    return [
        {
            "id": c.id,
            "scenario": c.scenario,
            "verifier": c.verifier,
            "is_call": c.is_call,
            "mean": float(np.mean(rewards)) if rewards else None,
            "samples": samples,
            "abstained": samples - len(rewards),
        }
        for c, rewards in zip([prompt.candidate for prompt in prompts], decided)
    ]


def score_skills(rollouts: Rollouts, params, items: Sequence[skills_lib.SkillItem], stream) -> list[dict]:
    """One answer per out-of-domain item: id, family, correct."""
    chat = rollouts.chat
    requests = [Request(item.id, chat.prompt_ids(item.messages, []), item.id, 1) for item in items]
    with progress.bar(len(items), "out-of-domain skills", "items") as bar:
        drawn = rollouts.actor.act(params, requests, stream, bar.update)
    return [
        {
            "id": item.id,
            "family": item.family,
            "correct": float(skills_lib.is_correct(item, chat.decode(completion.token_ids))),
        }
        for item, (completion,) in zip(items, drawn)
    ]


def evaluate(
    rollouts: Rollouts,
    params,
    tasks: Tasks,
    *,
    stream: jax.Array,
    attempts: int,
    samples: int,
    max_steps: int,
    max_prompt: int,
) -> Results:
    """All three, as JSON: {"episodes": [...], "turns": [...], "skills": [...], "rollout_turns": n}.

    `stream` is a PRNG key.
    """
    streams = [jax.random.fold_in(stream, i) for i in range(3)]
    params = rollouts.actor.place(params)
    episodes, answers = [], []
    if tasks.rows:
        episodes = play_episodes(rollouts, params, tasks.rows, attempts, max_steps, max_prompt, streams[0])
    turns = score_turns(rollouts, params, tasks.prompts, samples, streams[1])
    if tasks.skills:
        answers = score_skills(rollouts, params, tasks.skills, streams[2])
    count = sum(e["turns"] for e in episodes) + len(turns) * samples + len(answers)
    return {"episodes": episodes, "turns": turns, "skills": answers, "rollout_turns": count}


def series(results: Results) -> dict[str, tuple[list[float], list[str]]]:
    """Measure -> (values, clusters). A turn that nobody could decide is in none."""
    series = {
        "episode_success": (
            [e["success"] for e in results["episodes"]],
            [e["row"] for e in results["episodes"]],
        )
    }
    for name, is_call in (("call_turn_pass", True), ("text_turn_pass", False)):
        turns = [t for t in results["turns"] if t["is_call"] == is_call and t["mean"] is not None]
        series[name] = [t["mean"] for t in turns], [t["scenario"] for t in turns]
    names = sorted({t["verifier"] for t in results["turns"]})
    for name in names if len(names) > 1 else []:
        turns = [t for t in results["turns"] if t["verifier"] == name and t["mean"] is not None]
        series[f"verifier:{name}"] = [t["mean"] for t in turns], [t["scenario"] for t in turns]
    answers = results["skills"]
    series["out_of_domain"] = [a["correct"] for a in answers], [a["id"] for a in answers]
    for family in dict.fromkeys(a["family"] for a in answers):
        mine = [a for a in answers if a["family"] == family]
        series[f"family:{family}"] = [a["correct"] for a in mine], [a["id"] for a in mine]
    return {name: pair for name, pair in series.items() if pair[0]}


def _nested(flat: dict[str, dict]) -> dict:
    """ "family:x" and "verifier:x" under "families" and "verifiers"."""
    nested: dict[str, dict] = {}
    for name, value in flat.items():
        kind, colon, inner = name.partition(":")
        if colon:
            nested.setdefault({"family": "families", "verifier": "verifiers"}[kind], {})[inner] = value
        else:
            nested[name] = value
    return nested


def summarise(results: Results) -> dict:
    """Measure -> {"value", "low", "high", "n"}: 95 % intervals over tasks (Wilson where every task counts
    once)."""
    flat = {}
    for name, (values, clusters) in series(results).items():
        alone = len(set(clusters)) == len(values) and set(values) <= {0.0, 1.0}
        interval = (
            intervals.wilson(int(sum(values)), len(values))
            if alone
            else intervals.cluster_bootstrap(values, clusters)
        )
        flat[name] = {**_interval(interval), "n": len(values)}
    return _nested(flat)


def compare(before: Results, after: Results) -> dict:
    """Measure -> {"value", "low", "high"} of after - before on the same tasks (paired, clustered
    bootstrap); of turns, those decided in both."""
    flat = {}
    before, after = _decided_in_both(before, after)
    there = series(after)
    for name, (values, clusters) in series(before).items():
        if name not in there or there[name][1] != clusters:
            raise InputError(
                f"the two evaluations were not made on the same tasks ({name}); evaluate both anew"
            )
        flat[name] = _interval(intervals.paired_difference(values, there[name][0], clusters))
    return _nested(flat)


def _decided_in_both(before: Results, after: Results) -> tuple[Results, Results]:
    pairs = list(itertools.zip_longest(before["turns"], after["turns"]))  # in order, as the tasks are
    kept = [pair for pair in pairs if not any(turn and turn["mean"] is None for turn in pair)]
    return tuple(
        {**results, "turns": [pair[side] for pair in kept if pair[side]]}
        for side, results in enumerate((before, after))
    )


def abstentions(results: Results) -> int:
    """Samples at held-out turns that nobody could decide."""
    return sum(turn.get("abstained", 0) for turn in results["turns"])


def _interval(interval: intervals.Interval) -> dict:
    return {"value": interval.mean, "low": interval.low, "high": interval.high}


def cached(path: Path, identity: dict, compute, resume: bool) -> Results:
    """Results from `path` when they were made for the same `identity`; else computed and written there."""
    identity = as_json(identity)
    if resume and path.is_file():
        stored = json.loads(path.read_text("utf-8"))
        if stored["identity"] == identity:
            return stored["results"]
    results = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"identity": identity, "results": results})
    return results


def held_out_tasks(run: Run, data: sources.Data) -> Tasks:
    """The evaluation's tasks; turns with prompts over the limit are left out, and counted in run.json."""
    c = run.config.evaluate
    turns = extract.extract(data.held_out[: c.turn_trajectories])
    prompts, too_long = extract.within_limit(run.chat, turns, run.config.data.max_prompt_tokens)
    run.facts["held_out_prompts_too_long"] = len(too_long)
    items = (
        [item for family in skills.families() for item in skills.items(family, "test", c.skill_items, 0)]
        if c.skill_items
        else []
    )
    return Tasks(data.held_out_tasks[: c.tasks], prompts, items)


def evaluation_rollouts(run: Run, batch, trained: bool) -> Rollouts:
    """Rollouts that each candidate's own verifier scores, whatever reward the run trains with."""
    return dataclasses.replace(make_rollouts(run, batch, trained), verifier=None)


def evaluate_policy(run: Run, params, tasks: Tasks, name: str, policy: str) -> Results:
    """Evaluate a policy; results are kept in evaluations/{name}.json and read back on a resume."""
    c, s = run.config.evaluate, run.config.sampling
    trained = lora.has_adapters(params)
    model_config = run.trained_config if trained else run.model_config
    identity = {
        "policy": policy,
        "evaluate": c.to_dict(),
        "sampling": s.to_dict(),
        "max_prompt": run.config.data.max_prompt_tokens,
        "model": {**dataclasses.asdict(model_config), "param_dtype": run.config.model.param_dtype},
        "tasks": extract.digest(tasks.prompts),
        "verifiers": sorted({verifiers.get(p.candidate.verifier).label for p in tasks.prompts}),
        "rows": [row.id for row in tasks.rows],
        "seed": run.config.seed,
    }
    if run.judge:
        identity["judge"] = run.judge.settings

    def compute() -> Results:
        return evaluate(
            evaluation_rollouts(run, c.batch, trained),
            params,
            tasks,
            stream=jax.random.fold_in(jax.random.key(run.config.seed), 2),
            attempts=c.attempts,
            samples=c.samples,
            max_steps=c.max_steps,
            max_prompt=run.config.data.max_prompt_tokens,
        )

    return cached(run.workdir / "evaluations" / f"{name}.json", identity, compute, run.config.resume)
