"""The profiling stage of a run: candidates -> profiles under a policy -> pivots, and the files they leave."""

import dataclasses
from pathlib import Path

from pivotrl_jax import adaptive, model, pivots, profiling
from pivotrl_jax import run as run_lib
from pivotrl_jax.records import Candidate, Rollout, write_records
from pivotrl_jax.rollout import Actor


def find_pivots(run: run_lib.Run, candidates: list[Candidate]) -> tuple[pivots.Selection, list[Rollout]]:
    """Profile under pi_0 and filter; `profile` with the work directory."""
    actor, prompts = run.actor(run.config.profile.batch), run_lib.prompts_of(run, candidates)
    policy = run.params, run.model_config, run.policy
    return profile(run, candidates, prompts, actor, *policy, run.workdir)


def profile(
    run: run_lib.Run,
    candidates: list[Candidate],
    prompts: list[list[int]],
    actor: Actor,
    params,
    model_config: model.ModelConfig,
    policy: str,
    directory: Path,
    again: int = 0,
) -> tuple[pivots.Selection, list[Rollout]]:
    """Profile under a policy and filter, as `config.profile` says; writes rollouts/, profiles.jsonl and
    pivots.jsonl into `directory`, prints the table. `again` numbers the profiles of a run after its first."""
    c = run.config.profile
    plan = None
    if c.adaptive.round:
        plan = adaptive.Plan(c.group_size, c.lambda_diff, c.adaptive.round, c.adaptive.error)
    profiles, rollouts = profiling.profile(
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
    selection = pivots.select(profiles, c.lambda_diff)
    write_records(directory / "profiles.jsonl", profiles)
    write_records(directory / "pivots.jsonl", selection.pivots(candidates))
    print("\n".join(selection.table()))
    if plan:
        full = len(candidates) * c.group_size
        print(f"adaptive profiling drew {len(rollouts)} of {full} rollouts ({len(rollouts) / full:.0%})")
    return selection, rollouts
