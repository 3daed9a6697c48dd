"""Profiling, resumable: G local rollouts per candidate from a frozen policy, the reference or a later one, in
shards on disk.

A shard is a fixed run of trajectories, so that a resumed run packs, samples and rounds exactly as the first
would have. `rollouts/settings.json` says what the shards are rollouts of; another policy, seed or verifier
is refused.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from pivotrl_jax import verifiers
from pivotrl_jax.chat.template import Chat
from pivotrl_jax.models import config as model_config_lib
from pivotrl_jax.pivots import adaptive
from pivotrl_jax.pivots import selection as selection_lib
from pivotrl_jax.records import (
    Candidate,
    InputError,
    Profile,
    Rollout,
    read_records,
    write_json,
    write_records,
)
from pivotrl_jax.rollouts import progress
from pivotrl_jax.rollouts.actor import Actor, make_actor
from pivotrl_jax.rollouts.rollout import roll_out
from pivotrl_jax.run import run as run_lib
from pivotrl_jax.trajectories import extract
from pivotrl_jax.trajectories.extract import digest
from pivotrl_jax.verifiers.base import Verifier
from pivotrl_jax.verifiers.judge import Judge


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


def sample_shard(
    actor: Actor,
    params,
    chat: Chat,
    candidates: Sequence[Candidate],
    prompts: Sequence[Sequence[int]],
    group_size: int,
    stream: jax.Array,
    verifier: str | None,
    judge: Judge | None,
    plan: adaptive.StoppingRule | None,
    seen: Sequence[Sequence[float | None]],
    on_batch: Callable[[int], None],
) -> list[Rollout]:
    """G rollouts of every candidate, one candidate after the other; with a `plan` as many as it wants, given
    the rewards of other candidates (`seen`). `params` as the actor places them, `stream` a PRNG key;
    `on_batch` hears how many were drawn."""

    def draw(some, first, count):
        chosen = [candidates[i] for i in some], [prompts[i] for i in some]
        return roll_out(actor, params, chat, *chosen, count, stream, verifier, on_batch, judge, first)

    every = range(len(candidates))
    drawn = adaptive.groups(draw, len(every), plan, seen) if plan else draw(every, 0, group_size)
    return [rollout for group in drawn for rollout in group]


def profiles_of(
    candidates: Sequence[Candidate],
    groups: Sequence[Sequence[Rollout]],
    judged_by: Sequence[Verifier],
    policy: str,
    temperature: float,
    seed: int,
    plan: adaptive.StoppingRule | None,
) -> list[Profile]:
    """The profile of every candidate's group; of one that the `plan` ended early, with its likely outcome."""
    rewards = [[rollout.reward for rollout in group] for group in groups]
    rates = adaptive.pass_rates(rewards) if plan else None
    return [
        selection_lib.make_profile(
            candidate,
            mine,
            policy,
            verifier,
            temperature,
            seed,
            plan.outcome(mine, rates) if plan and len(mine) < plan.group_size else "",
        )
        for candidate, mine, verifier in zip(candidates, rewards, judged_by)
    ]


def profile_candidates(
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
    plan: adaptive.StoppingRule | None = None,
    again: int = 0,
) -> tuple[list[Profile], list[Rollout]]:
    """Profiles and rollouts of every candidate, in order; finished shards are read back from `directory`.

    `policy` is the policy's fingerprint, `model` its numbers and dtypes; `shard` counts trajectories per
    file. With a `plan` a candidate's sampling ends when its outcome is decided, else after G rollouts; samples
    are those that a full profile draws first. `again` numbers the profiles of a run after its first, each of
    which draws anew.
    """
    judged_by = [verifiers.get(verifier or c.verifier) for c in candidates]
    settings = {
        "policy": policy,
        "candidates": digest(candidates, prompts),
        "model": model,
        "group_size": group_size,
        "seed": seed,
        "sampling": {**actor.sampling.__dict__, "stop_ids": list(actor.sampling.stop_ids)},
        "shard": shard,
        "verifiers": sorted({judged.label for judged in judged_by}),
    }
    if judge:
        settings["judge"] = judge.settings
    if plan:
        settings["adaptive"] = dataclasses.asdict(plan)
    stream, title = jax.random.fold_in(jax.random.key(seed), 1), "profiling pi_0"
    if again:
        settings["again"], stream, title = again, jax.random.fold_in(stream, again), "profiling again"
    check_settings(directory, settings, resume)
    groups: dict[int, list[Rollout]] = {}
    seen: list[list[float | None]] = []  # rewards of earlier shards: what pass rates there are
    with progress.bar(len(candidates) * group_size, title, "rollouts") as bar:
        for number, members in enumerate(shards_of(candidates, shard)):
            file = directory / f"{number:05d}.jsonl"
            if file.is_file():
                flat = read_records(file, Rollout)
                bar.update(len(members) * group_size)
            else:
                params = actor.place(params)
                here, texts = [candidates[i] for i in members], [prompts[i] for i in members]
                how = group_size, stream, verifier, judge, plan, seen, bar.update
                flat = sample_shard(actor, params, chat, here, texts, *how)
                write_records(file, flat)
                bar.update(len(here) * group_size - len(flat))
            starts = [at for at, rollout in enumerate(flat) if rollout.sample == 0]
            for i, start, end in zip(members, starts, [*starts[1:], len(flat)]):
                groups[i] = flat[start:end]
            if plan:
                seen += [[rollout.reward for rollout in groups[i]] for i in members]
    found = [groups[i] for i in range(len(candidates))]
    profiles = profiles_of(candidates, found, judged_by, policy, actor.sampling.temperature, seed, plan)
    return profiles, [rollout for group in found for rollout in group]


def find_pivots(
    run: run_lib.Run, candidates: list[Candidate]
) -> tuple[selection_lib.Selection, list[Rollout]]:
    """Profile under pi_0 and filter; `profile` with the work directory."""
    actor, prompts = make_actor(run, run.config.profile.batch), extract.prompts_of(run.chat, candidates)
    policy = run.params, run.model_config, run.policy
    return profile_and_select(run, candidates, prompts, actor, *policy, run.workdir)


def profile_and_select(
    run: run_lib.Run,
    candidates: list[Candidate],
    prompts: list[list[int]],
    actor: Actor,
    params,
    model_config: model_config_lib.ModelConfig,
    policy: str,
    directory: Path,
    again: int = 0,
) -> tuple[selection_lib.Selection, list[Rollout]]:
    """Profile under a policy and filter, as `config.profile` says; writes rollouts/, profiles.jsonl and
    pivots.jsonl into `directory`, prints the table. `again` numbers the profiles of a run after its first."""
    c = run.config.profile
    plan = None
    if c.adaptive.round:
        plan = adaptive.StoppingRule(c.group_size, c.lambda_diff, c.adaptive.round, c.adaptive.error)
    profiles, rollouts = profile_candidates(
        actor,
        params,
        run.chat,
        candidates,
        prompts,
        group_size=c.group_size,
        seed=run.config.seed,
        policy=policy,
        model={**dataclasses.asdict(model_config), "param_dtype": run.config.model.param_dtype},
        directory=directory / "rollouts",
        shard=c.trajectories_per_shard,
        resume=run.config.resume,
        verifier=run.verifier,
        judge=run.judge,
        plan=plan,
        again=again,
    )
    selection = selection_lib.select(profiles, c.lambda_diff)
    write_records(directory / "profiles.jsonl", profiles)
    write_records(directory / "pivots.jsonl", selection.pivots(candidates))
    print("\n".join(selection.table()))
    if plan:
        full = len(candidates) * c.group_size
        print(f"adaptive profiling drew {len(rollouts)} of {full} rollouts ({len(rollouts) / full:.0%})")
    return selection, rollouts
