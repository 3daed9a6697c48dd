"""Profiling, resumable: G local rollouts per candidate from the frozen reference policy, in shards on disk.

A shard is a fixed run of trajectories, so that a resumed run packs, samples and rounds exactly as the first
would have. `rollouts/settings.json` says what the shards are rollouts of; another policy, seed or verifier
is refused.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import jax

from pivotrl_jax import adaptive, pivots, progress, verifiers
from pivotrl_jax.chat import Chat
from pivotrl_jax.judge import Judge
from pivotrl_jax.records import (
    Candidate,
    InputError,
    Profile,
    Rollout,
    read_records,
    write_json,
    write_records,
)
from pivotrl_jax.rollout import Actor, roll_out


def digest(candidates: Sequence[Candidate], prompts: Sequence[Sequence[int]]) -> str:
    """A fingerprint of candidates in order: content, and prompt ids, so template and tokenizer count too."""
    h = hashlib.sha256()
    for c, prompt in zip(candidates, prompts):
        h.update(
            json.dumps(
                [c.id, c.messages, c.tools, c.demonstration, c.verifier, c.case, list(prompt)], sort_keys=True
            ).encode()
        )
    return h.hexdigest()[:16]


def shards_of(candidates: Sequence[Candidate], trajectories: int) -> list[list[int]]:
    """Indices of candidates, cut after every `trajectories` trajectories."""
    order: dict[str, list[int]] = {}
    for i, candidate in enumerate(candidates):
        order.setdefault(candidate.trajectory_id, []).append(i)
    groups = list(order.values())
    return [
        [i for group in groups[start : start + trajectories] for i in group]
        for start in range(0, len(groups), trajectories)
    ]


def check_settings(directory: Path, settings: dict, resume: bool) -> None:
    """Make `directory` ready for shards of these settings; older ones go when `resume` is off.

    Raises InputError naming the first difference when shards of other settings are there.
    """
    directory.mkdir(parents=True, exist_ok=True)
    settings = json.loads(json.dumps(settings))  # tuples become lists, as they do on disk
    file = directory / "settings.json"
    if not resume or not file.is_file():
        for old in directory.glob("*.jsonl"):
            old.unlink()
    else:
        there = json.loads(file.read_text("utf-8"))
        for name in sorted({*there, *settings}):
            if there.get(name) != settings.get(name):
                raise InputError(
                    f"{directory}: holds rollouts of another run: {name} is {there.get(name)!r} there and "
                    f"{settings.get(name)!r} here; use another workdir, or --config.resume=False to start "
                    "over"
                )
    write_json(file, settings)


def profile(
    actor: Actor,
    params,
    chat: Chat,
    candidates: Sequence[Candidate],
    prompts: Sequence[Sequence[int]],
    *,
    group_size: int,
    seed: int,
    policy: str,
    model: dict,
    directory: Path,
    shard: int,
    resume: bool,
    verifier: str | None = None,
    judge: Judge | None = None,
    plan: adaptive.Plan | None = None,
) -> tuple[list[Profile], list[Rollout]]:
    """Profiles and rollouts of every candidate, in order; finished shards are read back from `directory`.

    `policy` is the checkpoint's fingerprint, `model` its numbers and dtypes; `shard` counts trajectories per
    file. With a `plan` a candidate's sampling ends when its fate is decided, else after G rollouts; samples
    are those that a full profile draws first.
    """
    settings = {
        "policy": policy,
        "candidates": digest(candidates, prompts),
        "model": model,
        "group_size": group_size,
        "seed": seed,
        "sampling": {**actor.sampling.__dict__, "stop_ids": list(actor.sampling.stop_ids)},
        "shard": shard,
        "verifiers": sorted({verifiers.get(verifier or c.verifier).label for c in candidates}),
    }
    if judge:
        settings["judge"] = judge.settings
    if plan:
        settings["adaptive"] = dataclasses.asdict(plan)
    check_settings(directory, settings, resume)
    stream = jax.random.fold_in(jax.random.key(seed), 1)
    groups: dict[int, list[Rollout]] = {}
    seen: list[list[float | None]] = []  # rewards of earlier shards: what pass rates there are
    with progress.bar(len(candidates) * group_size, "profiling pi_0", "rollouts") as bar:
        for number, members in enumerate(shards_of(candidates, shard)):
            file = directory / f"{number:05d}.jsonl"
            here = [candidates[i] for i in members]
            if file.is_file():
                flat = read_records(file, Rollout)
                bar.update(len(here) * group_size)
            else:
                texts = [prompts[i] for i in members]
                params = actor.place(params)

                def draw(some, first, count, here=here, texts=texts, params=params):
                    chosen = [here[i] for i in some], [texts[i] for i in some]
                    return roll_out(
                        actor, params, chat, *chosen, count, stream, verifier, bar.update, judge, first
                    )

                every = range(len(here))
                drawn = adaptive.groups(draw, len(here), plan, seen) if plan else draw(every, 0, group_size)
                flat = [rollout for group in drawn for rollout in group]
                write_records(file, flat)
                bar.update(len(here) * group_size - len(flat))
            starts = [at for at, rollout in enumerate(flat) if rollout.sample == 0]
            for i, start, end in zip(members, starts, [*starts[1:], len(flat)]):
                groups[i] = flat[start:end]
            if plan:
                seen += [[rollout.reward for rollout in groups[i]] for i in members]
    rates = adaptive.pass_rates(seen) if plan else None
    early = {
        i: plan.fate([rollout.reward for rollout in group], rates)
        for i, group in groups.items()
        if plan and len(group) < group_size
    }
    profiles = [
        pivots.profile(
            candidate,
            [rollout.reward for rollout in groups[i]],
            policy,
            verifiers.get(verifier or candidate.verifier),
            actor.sampling.temperature,
            seed,
            early.get(i, ""),
        )
        for i, candidate in enumerate(candidates)
    ]
    return profiles, [rollout for i in range(len(candidates)) for rollout in groups[i]]
