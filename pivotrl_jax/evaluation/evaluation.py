"""Evaluation: held-out episodes, held-out turns and out-of-domain skills, each played or sampled and scored.

The tasks and the PRNG keys are the same before and after training, so that differences are paired.
measures.py turns the results into numbers.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pivotrl_jax import verifiers
from pivotrl_jax.chat.actions import REPLY_PARSER
from pivotrl_jax.chat.template import Chat
from pivotrl_jax.checkpoints.identity import as_json, differences
from pivotrl_jax.environments.base import Task
from pivotrl_jax.evaluation import skills
from pivotrl_jax.evaluation.language import items as language_items
from pivotrl_jax.evaluation.language import scores as language_scores
from pivotrl_jax.evaluation.measures import Results
from pivotrl_jax.models import decoder, lora
from pivotrl_jax.records import Prompt, write_json
from pivotrl_jax.rollouts import episodes as episodes_lib
from pivotrl_jax.rollouts import progress
from pivotrl_jax.rollouts.actor import Request
from pivotrl_jax.rollouts.rollout import Rollouts, make_rollouts
from pivotrl_jax.run import interrupts
from pivotrl_jax.run.run import Run
from pivotrl_jax.trajectories import extract, sources


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """What a policy is evaluated on."""

    tasks: Sequence[Task]  # played as episodes
    prompts: Sequence[Prompt]  # turns of the expert's trajectories through the same tasks
    skills: Sequence[skills.SkillItem]
    language: Sequence[language_items.Item] = ()


def play_episodes(
    rollouts: Rollouts,
    params: decoder.Params,
    tasks: Sequence[Task],
    attempts: int,
    max_steps: int,
    max_prompt: int,
    key: jax.Array,
) -> list[dict]:
    """Every task played `attempts` times. Per episode: id, row (the task's id), success, reason, turns."""
    episodes = episodes_lib.play(rollouts, params, tasks, attempts, max_steps, max_prompt, key)
    return [
        {"id": e.id, "row": e.task.id, "success": e.success, "reason": e.reason, "turns": len(e.turns)}
        for e in episodes
    ]


def score_turns(
    rollouts: Rollouts, params: decoder.Params, prompts: Sequence[Prompt], samples: int, key: jax.Array
) -> list[dict]:
    """Every held-out turn sampled `samples` times and verified.

    Per turn: id, scenario, verifier, is_call, mean (reward), samples, abstained, the number of samples that
    neither a rule nor a judge decided, and the replies, each with its text, reward and reason. The mean
    leaves undecided ones out; it is None if no sample was decided.
    """
    with progress.bar(len(prompts) * samples, "held-out turns", "rollouts") as bar:
        groups = rollouts.sample(params, prompts, samples, key, on_batch=bar.update)
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
            "replies": [{"text": r.text, "reward": r.reward, "reason": r.reason} for r in group],
        }
        for c, group, rewards in zip([prompt.candidate for prompt in prompts], groups, decided)
    ]


def score_skills(
    rollouts: Rollouts, params: decoder.Params, items: Sequence[skills.SkillItem], key: jax.Array
) -> list[dict]:
    """One answer to every out-of-domain question. Per item: id, family, correct (1 or 0)."""
    chat = rollouts.chat
    requests = [Request(item.id, chat.prompt_ids(item.messages, []), item.id, 1) for item in items]
    with progress.bar(len(items), "out-of-domain skills", "items") as bar:
        completions = rollouts.actor.act(params, requests, key, bar.update)
    return [
        {
            "id": item.id,
            "family": item.family,
            "correct": float(skills.is_correct(item, chat.decode(completion.token_ids))),
        }
        for item, (completion,) in zip(items, completions)
    ]


def evaluate(
    rollouts: Rollouts,
    params: decoder.Params,
    held_out: HeldOut,
    *,
    key: jax.Array,
    attempts: int,
    samples: int,
    max_steps: int,
    max_prompt: int,
) -> Results:
    """Play and score everything that is held out. Returns JSON: {"episodes": [...], "turns": [...],
    "skills": [...], "rollout_turns": the number of completions sampled}.

    Every task is played `attempts` times, with at most `max_steps` actions per user turn and `max_prompt`
    tokens per prompt; every held-out turn is sampled `samples` times. `key` is a PRNG key.
    """
    keys = [jax.random.fold_in(key, i) for i in range(3)]
    params = rollouts.actor.place(params)
    episodes, answers = [], []
    if held_out.tasks:
        episodes = play_episodes(rollouts, params, held_out.tasks, attempts, max_steps, max_prompt, keys[0])
    interrupts.point()
    turns = score_turns(rollouts, params, held_out.prompts, samples, keys[1])
    interrupts.point()
    if held_out.skills:
        answers = score_skills(rollouts, params, held_out.skills, keys[2])
    count = sum(e["turns"] for e in episodes) + len(turns) * samples + len(answers)
    return {"episodes": episodes, "turns": turns, "skills": answers, "rollout_turns": count}


def make_held_out(run: Run, data: sources.Data) -> HeldOut:
    """The tasks, turns and skills of `config.evaluate`. Turns whose prompt is too long are left out and
    counted in run.json."""
    c = run.config.evaluate
    turns = extract.extract(data.held_out[: c.turn_trajectories])
    prompts, too_long = extract.within_limit(run.chat, turns, run.config.data.max_prompt_tokens)
    run.facts["held_out_prompts_too_long"] = len(too_long)
    toy, language = [], []
    if c.skill_items and c.skills == "toy":
        toy = [item for f in skills.families() for item in skills.items(f, "test", c.skill_items, 0)]
    if c.skill_items and c.skills == "language":
        families = language_items.families()
        language = [item for f in families for item in language_items.items(f, c.skill_items)]
    return HeldOut(data.held_out_tasks[: c.tasks], prompts, toy, language)


def evaluation_rollouts(run: Run, batch, trained: bool) -> Rollouts:
    """Rollouts scored by each candidate's own verifier, whatever reward the run trains with."""
    return dataclasses.replace(make_rollouts(run, batch, trained), verifier=None)


def evaluate_run(run: Run, params: decoder.Params, held_out: HeldOut, name: str, policy: str) -> Results:
    """`evaluate` as the run's config says, with the results stored on disk.

    `policy` is the fingerprint of the policy with these `params`. Results are written to
    evaluations/{name}.json, and read from there when the run is resumed and nothing that decides them has
    changed.
    """
    c = run.config.evaluate
    trained = lora.has_adapters(params)

    def compute() -> Results:
        key = jax.random.fold_in(jax.random.key(run.config.seed), 2)
        results = evaluate(
            evaluation_rollouts(run, c.batch, trained),
            params,
            held_out,
            key=key,
            attempts=c.attempts,
            samples=c.samples,
            max_steps=c.max_steps,
            max_prompt=run.config.data.max_prompt_tokens,
        )
        if held_out.language:
            results["skills"] = language_scores.score(run, params, held_out.language, key)
            results["rollout_turns"] += sum("reply" in answer for answer in results["skills"])
        return results

    path = run.workdir / "evaluations" / f"{name}.json"
    identity = {**_identity(run, held_out, trained, policy), "chat": _chat_identity(run.chat)}
    return read_or_compute(path, identity, compute, run.config.resume)


def _identity(run: Run, held_out: HeldOut, trained: bool, policy: str) -> dict:
    """What decides the results of `evaluate_run`."""
    model_config = run.trained_config if trained else run.model_config
    identity = {
        "policy": policy,
        # its pivots are sampled beside the evaluation (resampling.py)
        "evaluate": {k: v for k, v in run.config.evaluate.to_dict().items() if k != "pivots"},
        "sampling": run.config.sampling.to_dict(),
        "stop_ids": list(run.chat.stop_ids),
        "max_prompt": run.config.data.max_prompt_tokens,
        "model": {**dataclasses.asdict(model_config), "param_dtype": run.config.model.param_dtype},
        "tasks": extract.digest(held_out.prompts),
        "scenarios": _hash([p.candidate.scenario for p in held_out.prompts]),
        "verifiers": sorted({verifiers.get(p.candidate.verifier).label for p in held_out.prompts}),
        "reply_parser": REPLY_PARSER,
        "rows": [task.id for task in held_out.tasks],
        "seed": run.config.seed,
    }
    if held_out.language:
        identity["language"] = [language_items.VERSION, *(item.id for item in held_out.language)]
    return {**identity, "judge": run.judge.settings} if run.judge else identity


def _chat_identity(chat: Chat) -> dict:
    """What decides the prompts of episodes and skills, and how replies are read."""
    tokenizer = chat.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)  # only fast tokenizers have one
    known = json.loads(backend.to_str()) if backend else sorted(tokenizer.get_vocab().items())
    if backend:  # how the last batch was cut and padded
        known = {name: part for name, part in known.items() if name not in ("truncation", "padding")}
    return {
        "keep_thinking": chat.keep_thinking,
        "template_arguments": dict(chat.template_arguments),
        "template": _hash(tokenizer.chat_template),
        "tokenizer": _hash(known),
    }


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def read_or_compute(path: Path, identity: dict, compute: Callable[[], Results], resume: bool) -> Results:
    """The results in `path` if `resume` and their identity is the same; otherwise computed and written. Says
    in which fields the identity of what is replaced differs."""
    identity = as_json(identity)
    if resume and path.is_file():
        stored = json.loads(path.read_text("utf-8"))
        if stored["identity"] == identity:
            return stored["results"]
        different = "; ".join(differences(stored["identity"], identity))
        print(f"{path} holds another evaluation ({different}), so it is computed again")
    results = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"identity": identity, "results": results})
    return results
