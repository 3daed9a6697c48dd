"""Profiling: sample and score G rollouts per candidate under a frozen policy, and keep the pivots.

    candidates -> prompts -> rollouts/00000.jsonl, ... -> profiles.jsonl -> pivots.jsonl

Results are sharded, so that an interrupted run can resume. A shard holds the rollouts of a fixed number of
trajectories: a resumed run then packs, samples and rounds exactly as an uninterrupted one.
`rollouts/settings.json` is the identity of the profile; rollouts of another policy, seed or verifier are
refused.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from pivotrl_jax.checkpoints.identity import as_json, require_same
from pivotrl_jax.models import decoder
from pivotrl_jax.pivots import adaptive
from pivotrl_jax.pivots import selection as selection_lib
from pivotrl_jax.records import (
    Candidate,
    Profile,
    Prompt,
    Rollout,
    read_records,
    write_json,
    write_records,
)
from pivotrl_jax.rollouts import progress
from pivotrl_jax.rollouts.rollout import Rollouts, make_rollouts
from pivotrl_jax.run import run as run_lib
from pivotrl_jax.trajectories import extract


@dataclasses.dataclass(frozen=True)
class Settings:
    """What identifies a profile, apart from its prompts, sampler and verifiers."""

    policy: str  # the policy's fingerprint
    model: dict  # the model's numbers and dtypes
    group_size: int  # rollouts per candidate
    seed: int
    trajectories_per_shard: int
    stopping: adaptive.StoppingRule | None = None  # None: every candidate gets the whole group
    repetition: int = 0  # number of this profile in its run; each draws other samples

    @property
    def key(self) -> jax.Array:
        """The PRNG key of this profile."""
        key = jax.random.fold_in(jax.random.key(self.seed), 1)
        return jax.random.fold_in(key, self.repetition) if self.repetition else key

    def identity(self, rollouts: Rollouts, prompts: Sequence[Prompt]) -> dict:
        """Everything that decides the rollouts, as JSON."""
        sampling = rollouts.actor.sampling
        identity = {
            **dataclasses.asdict(self),
            "candidates": extract.digest(prompts),
            "sampling": {**vars(sampling), "stop_ids": list(sampling.stop_ids)},
            "verifiers": sorted({rollouts.verifier_of(prompt.candidate).label for prompt in prompts}),
        }
        if rollouts.judge:
            identity["judge"] = rollouts.judge.settings
        return as_json(identity)


def shards_of(prompts: Sequence[Prompt], trajectories: int) -> list[list[int]]:
    """Indices of prompts, cut after every `trajectories` trajectories."""
    by_trajectory: dict[str, list[int]] = {}
    for i, prompt in enumerate(prompts):
        by_trajectory.setdefault(prompt.candidate.trajectory_id, []).append(i)
    groups = list(by_trajectory.values())
    return [
        [i for group in groups[start : start + trajectories] for i in group]
        for start in range(0, len(groups), trajectories)
    ]


def prepare_directory(directory: Path, identity: dict, resume: bool) -> None:
    """Make `directory` ready for shards of this identity; older ones are deleted when `resume` is off.

    Raises InputError naming the differences when shards of another identity are there.
    """
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "settings.json"
    if not resume or not file.is_file():
        for old in directory.glob("*.jsonl"):
            old.unlink()
    else:
        require_same(directory, "rollouts", json.loads(file.read_text("utf-8")), identity)
    write_json(file, identity)


def profile_candidates(
    rollouts: Rollouts,
    params: decoder.Params,
    prompts: Sequence[Prompt],
    settings: Settings,
    directory: Path,
    resume: bool,
) -> tuple[list[Profile], list[Rollout]]:
    """Profiles and rollouts of every prompt, in order; finished shards are read back from `directory`.

    With a stopping rule, a candidate is sampled until its outcome is decided, at most G times; its samples
    are the first ones of a full profile. Raises InputError as `prepare_directory` does.
    """
    prepare_directory(directory, settings.identity(rollouts, prompts), resume)
    groups: dict[int, list[Rollout]] = {}
    earlier: list[list[float | None]] = []  # rewards of earlier shards, to estimate pass rates from
    title = "profiling again" if settings.repetition else "profiling pi_0"
    with progress.bar(len(prompts) * settings.group_size, title, "rollouts") as bar:
        for number, members in enumerate(shards_of(prompts, settings.trajectories_per_shard)):
            file = directory / f"{number:05d}.jsonl"
            if file.is_file():
                shard = read_records(file, Rollout)
                bar.update(len(members) * settings.group_size)
            else:
                params = rollouts.actor.place(params)
                here = [prompts[i] for i in members]
                shard = _sample_shard(rollouts, params, here, settings, earlier, bar.update)
                write_records(file, shard)
                bar.update(len(here) * settings.group_size - len(shard))
            starts = [at for at, rollout in enumerate(shard) if rollout.sample == 0]
            for i, start, end in zip(members, starts, [*starts[1:], len(shard)]):
                groups[i] = shard[start:end]
            if settings.stopping:
                earlier += [[rollout.reward for rollout in groups[i]] for i in members]
    in_order = [groups[i] for i in range(len(prompts))]
    profiles = _profiles_of(rollouts, prompts, in_order, settings)
    return profiles, [rollout for group in in_order for rollout in group]


def _sample_shard(
    rollouts: Rollouts,
    params: decoder.Params,
    prompts: Sequence[Prompt],
    settings: Settings,
    earlier: Sequence[Sequence[float | None]],
    on_batch: Callable[[int], None],
) -> list[Rollout]:
    """The rollouts of a shard's prompts, in the prompts' order. `params` must be placed by the actor."""

    def draw(indices, first, count):
        return rollouts.sample(params, [prompts[i] for i in indices], count, settings.key, first, on_batch)

    if settings.stopping:
        groups = adaptive.groups(draw, len(prompts), settings.stopping, earlier)
    else:
        groups = draw(range(len(prompts)), 0, settings.group_size)
    return [rollout for group in groups for rollout in group]


def _profiles_of(
    rollouts: Rollouts,
    prompts: Sequence[Prompt],
    groups: Sequence[Sequence[Rollout]],
    settings: Settings,
) -> list[Profile]:
    """The profile of every group; where the stopping rule ended sampling early, with the likely outcome."""
    rewards = [[rollout.reward for rollout in group] for group in groups]
    rule = settings.stopping
    rates = adaptive.pass_rates(rewards) if rule else None
    return [
        selection_lib.make_profile(
            prompt.candidate,
            group_rewards,
            settings.policy,
            rollouts.verifier_of(prompt.candidate),
            rollouts.actor.sampling.temperature,
            settings.seed,
            rule.outcome(group_rewards, rates) if rule and len(group_rewards) < rule.group_size else "",
        )
        for prompt, group_rewards in zip(prompts, rewards)
    ]


# ---- the stage of a run


def find_pivots(
    run: run_lib.Run, candidates: Sequence[Candidate]
) -> tuple[selection_lib.Selection, list[Rollout]]:
    """Profile a run's candidates under pi_0 and filter; see `profile_and_select`."""
    rollouts = make_rollouts(run, run.config.profile.batch)
    prompts = extract.render(run.chat, candidates)
    return profile_and_select(run, rollouts, run.params, prompts, settings_of(run, run.policy), run.workdir)


def settings_of(run: run_lib.Run, policy: str, trained: bool = False, repetition: int = 0) -> Settings:
    """The settings of a profile, from `config.profile`. `policy` is a fingerprint; with `trained` it is that
    of the model in training, which has adapters under LoRA."""
    c, model = run.config.profile, run.trained_config if trained else run.model_config
    stopping = None
    if c.adaptive.round:
        stopping = adaptive.StoppingRule(c.group_size, c.lambda_diff, c.adaptive.round, c.adaptive.error)
    return Settings(
        policy=policy,
        model={**dataclasses.asdict(model), "param_dtype": run.config.model.param_dtype},
        group_size=c.group_size,
        seed=run.config.seed if c.seed < 0 else c.seed,
        trajectories_per_shard=c.trajectories_per_shard,
        stopping=stopping,
        repetition=repetition,
    )


def profile_and_select(
    run: run_lib.Run,
    rollouts: Rollouts,
    params: decoder.Params,
    prompts: Sequence[Prompt],
    settings: Settings,
    directory: Path,
) -> tuple[selection_lib.Selection, list[Rollout]]:
    """Profile under a policy and filter; writes rollouts/, profiles.jsonl and pivots.jsonl into `directory`
    and prints the table of outcomes. Raises InputError when rollouts of another profile are there."""
    profiles, sampled = profile_candidates(
        rollouts, params, prompts, settings, directory / "rollouts", run.config.resume
    )
    selection = selection_lib.select(profiles, run.config.profile.lambda_diff)
    write_records(directory / "profiles.jsonl", profiles)
    write_records(directory / "pivots.jsonl", selection.pivots([prompt.candidate for prompt in prompts]))
    print("\n".join(selection.table()))
    if settings.stopping:
        full = len(prompts) * settings.group_size
        print(f"adaptive profiling drew {len(sampled)} of {full} rollouts ({len(sampled) / full:.0%})")
    return selection, sampled
