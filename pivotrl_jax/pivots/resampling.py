"""Resampling: the final policy samples some of the pivots again, so that the report shows the same turns
before and after training.

    pivots -> resampled/rollouts/00000.jsonl, ... -> resampled/profiles.jsonl

This is a profile under the policy in hf/: group size, sampling and reward are those of the first profile, and
profiling.py divides, writes and resumes it. Groups are whole, also where that profile was adaptive. The PRNG
keys are others: with the same ones, rewards that were luck in the first profile would partly return.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from pivotrl_jax import verifiers
from pivotrl_jax.models import decoder
from pivotrl_jax.pivots import profiling
from pivotrl_jax.records import Pivot, Profile, read_records, write_records
from pivotrl_jax.rollouts.rollout import make_rollouts
from pivotrl_jax.run import run as run_lib
from pivotrl_jax.trajectories import extract

DIRECTORY = "resampled"


def resample(run: run_lib.Run, params: decoder.Params, policy: str, pivots: Sequence[Pivot]) -> list[Profile]:
    """The profiles of `config.evaluate.pivots` of the pivots under the final policy; [] if there are none.

    `run` has the model of hf/, whose fingerprint is `policy`, and `params` are its parameters. Shards that a
    killed run finished are reused; those of another policy, of other pivots or settings are replaced.
    """
    config, folder = run.config, run.workdir / DIRECTORY
    some = choose(pivots, config.evaluate.pivots, config.seed)
    if not some:
        return []
    prompts = extract.render(run.chat, [pivot.candidate for pivot in some])
    rollouts = make_rollouts(run, config.profile.batch)
    settings = dataclasses.replace(
        profiling.settings_of(run, policy, repetition=profiling.AFTER_TRAINING), stopping=None, screen=None
    )
    resume = config.resume and _holds(folder / "rollouts", settings.identity(rollouts, prompts))
    if not resume:  # no report may show the rewards of one policy beside the texts of another
        (folder / "profiles.jsonl").unlink(missing_ok=True)
    profiles = profiling.profile_candidates(rollouts, params, prompts, settings, folder / "rollouts", resume)
    write_records(folder / "profiles.jsonl", profiles)
    return profiles


def _holds(directory: Path, identity: dict) -> bool:
    """Whether the rollouts there are of this identity."""
    file = directory / "settings.json"
    return file.is_file() and json.loads(file.read_text("utf-8")) == identity


def choose(pivots: Sequence[Pivot], count: int, seed: int) -> list[Pivot]:
    """A random sample of `count` pivots, in their order; a larger one holds a smaller one."""

    def draw(i: int) -> bytes:
        return hashlib.sha256(f"{seed} {pivots[i].candidate.id}".encode("utf-8", "surrogatepass")).digest()

    return [pivots[i] for i in sorted(sorted(range(len(pivots)), key=draw)[:count])]


def own_pivots(run: run_lib.Run) -> list[Pivot]:
    """The pivots that find_pivots left in the work directory of a method which does not profile; [] without
    any, or where they are of another policy, reward or temperature than the run's."""
    file = run.shared / "pivots.jsonl"  # not among what every process has a copy of
    if not file.is_file():
        return []

    def own(pivot: Pivot) -> bool:
        profile, verifier = pivot.profile, verifiers.get(run.verifier or pivot.candidate.verifier)
        known = (run.policy, verifier.label, run.config.sampling.temperature)
        return (profile.policy, profile.verifier, profile.temperature) == known

    return list(filter(own, read_records(file, Pivot)))
