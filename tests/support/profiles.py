"""Profiles of the toolbox's turns under the embedded checkpoint, made in this process: small, but real."""

import json
from pathlib import Path

from pivotrl_jax.pivots import candidates as candidates_lib
from pivotrl_jax.pivots import profiling, rollout_files
from pivotrl_jax.records import Rollout
from pivotrl_jax.run import lock, resume
from pivotrl_jax.run import run as run_lib
from pivotrl_jax.trajectories import sources
from support.configs import CONFIGS

SMALL = {
    "data.demonstrations": 6,
    "data.held_out_tasks": 2,
    "data.max_prompt_tokens": 984,
    "compute.row_lengths": (1024,),
    "sampling.max_tokens": 40,
    "profile.group_size": 4,
    "profile.lambda_diff": 1.0,
    "profile.trajectories_per_shard": 1,
    "profile.batch.rows": 1,
    "profile.batch.samples_per_row": 32,
}

ADAPTIVE = {"profile__adaptive__round": 2, "profile__adaptive__error": 0.2}


def config_of(workdir: Path, **changes):
    """The small config; `profile__seed=1` changes config.profile.seed."""
    config = CONFIGS.get_config().copy_and_resolve_references()
    with config.unlocked():
        config.update_from_flattened_dict(SMALL)
        config.update_from_flattened_dict({name.replace("__", "."): v for name, v in changes.items()})
    config.workdir = str(workdir)
    return config


def find_pivots(workdir: Path, **changes):
    """What the program of that name does. Returns the selection."""
    try:
        run = run_lib.open_run(config_of(workdir, **changes))
        resume.prepare_workdir(run)
        with run.stage("candidates"):
            data, _ = sources.load_with_validation(run.config)
            candidates = candidates_lib.make_candidates(run, data)
        with run.stage("profiling"):
            return profiling.find_pivots(run, candidates)
    finally:
        lock.release()  # as at the end of the program


def rollouts_in(folder: Path) -> list[Rollout]:
    """All rollouts of a folder, in the order of its files."""
    return [r for file in sorted(folder.glob("*.jsonl")) for r in rollout_files.read(file)]


def files(workdir: Path) -> dict[str, bytes]:
    """What a profile leaves, but for run.json, which has times and paths in it."""
    return {
        str(path.relative_to(workdir)): path.read_bytes()
        for path in sorted(workdir.rglob("*"))
        if path.is_file() and path.name not in ("run.json", lock.NAME)
    }


def no_sampling(*_, **__):
    raise AssertionError("nothing is left to sample")


def edit(path: Path, change) -> None:
    """Rewrite a JSON file with what `change(value)` does to it."""
    value = json.loads(path.read_text("utf-8"))
    change(value)
    path.write_text(json.dumps(value), "utf-8")
