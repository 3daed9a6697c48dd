"""A finished profile on disk, read back without a model, and the files of a new one made from it.

A profile is run.json, candidates.jsonl and rollouts/ with settings.json, its identity. merging.py puts the
shards of a profile together, and rescoring.py verifies its rollouts again.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pivotrl_jax.pivots import adaptive, profiling, rollout_files, screening
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
from pivotrl_jax.run import fields, stored

SETTINGS = (
    "policy seed group_size trajectories_per_shard stopping candidates sampling verifiers"  # what is read
).split()
RULE = {field.name for field in dataclasses.fields(adaptive.StoppingRule)}


@dataclasses.dataclass(frozen=True)
class StoredProfile:
    """A profile, or a shard of one, in a work directory. Rollouts are read file by file."""

    workdir: Path
    page: dict  # run.json
    identity: dict  # rollouts/settings.json
    candidates: list[Candidate]  # all of the run, also in a shard

    @property
    def files(self) -> dict[int, list[int]]:
        """Number of a file of rollouts -> indices of its candidates, for the files that belong here."""
        every = profiling.files_of(self.identity, self.candidates)
        here = self.identity["shard"]["files"] if "shard" in self.identity else range(len(every))
        return {number: every[number] for number in here if number < len(every)}

    def path(self, number: int) -> Path:
        return rollout_files.file_of(self.workdir / "rollouts", number)

    def require_finished(self) -> None:
        """Raises InputError that names the files which are not there."""
        files = self.files
        missing = [self.path(number).name for number in files if not self.path(number).is_file()]
        if missing:
            raise InputError(
                f"{self.workdir}: its profile is not finished: {len(missing)} of {len(files)} files of "
                f"rollouts are missing ({', '.join(missing[:4])}{', ...' if missing[4:] else ''}); start its "
                "program again, which goes on where it stopped"
            )

    def groups(self, number: int, members: Sequence[int]) -> list[list[Rollout]]:
        """The rollouts of a file, candidate by candidate; [] of one that was screened. Raises InputError if
        they are not those of its candidates, whose indices are `members`."""
        file, whole, early = self.path(number), self.identity["group_size"], self.identity["stopping"]
        sampled = screening.kept(self.screened(number, members), members)
        groups = rollout_files.groups_of(rollout_files.read(file))
        good = len(groups) == len(sampled)
        for i, group in zip(sampled, groups):
            want = [(self.candidates[i].id, sample) for sample in range(len(group))]
            good &= [(r.candidate_id, r.sample) for r in group] == want
            good &= len(group) == whole or (bool(early) and len(group) < whole)
        if not good:
            raise InputError(
                f"{file}: does not hold {whole} rollouts of each of its {len(sampled)} candidates; put back "
                "what the run wrote, or remove the file and start its program again"
            )
        found = dict(zip(sampled, groups))
        return [found.get(i, []) for i in members]

    def screened(self, number: int, members: Sequence[int]) -> list[screening.Decision]:
        """What the screen decided on the candidates of a file, whose indices are `members`. Raises
        InputError."""
        candidates = [self.candidates[i] for i in members]
        if "screen" not in self.identity:
            return [screening.Decision(c.id, False, None) for c in candidates]
        return screening.read(self.path(number), candidates)


def read(workdir: Path) -> StoredProfile:
    """The profile in a work directory. Raises InputError if there is none, or if it is not finished."""
    page = stored.read_object(workdir / "run.json")
    identity = stored.read_object(workdir / "rollouts" / "settings.json")
    wrong = [f"{name} is missing" for name in SETTINGS if name not in identity]
    if identity.get("stopping") and set(identity["stopping"]) != RULE:
        wrong.append("stopping is the rule of another version: use that version, or profile anew")
    if "shard" in identity and not _is_shard(identity["shard"]):
        wrong.append(f"shard is {identity['shard']!r:.80}")
    if wrong:
        raise InputError(
            f"{workdir / 'rollouts' / 'settings.json'}: not the settings of a profile: {', '.join(wrong)}; "
            "put back what the run wrote"
        )
    profile = StoredProfile(workdir, page, identity, read_records(workdir / "candidates.jsonl", Candidate))
    profile.require_finished()
    return profile


def _is_shard(value: Any) -> bool:
    """Whether `value` is what `Settings.identity` says about a shard."""
    if not isinstance(value, dict) or not value.get("name") or not fields.SHARD.test(value["name"]):
        return False
    files = value.get("files")
    return isinstance(files, list) and all(type(number) is int and number >= 0 for number in files)


def require_new(out: Path) -> None:
    """Raises InputError if `out` is there and not an empty directory."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out}: is there already, and nothing is written over it; name a new directory")


def write_pivots(
    workdir: Path, profiles: Sequence[Profile], candidates: Sequence[Candidate], config: Any
) -> selection_lib.Selection:
    """Filter as the run's `config` says, and write profiles.jsonl and pivots.jsonl."""
    c = config.profile
    selection = selection_lib.select(profiles, c.lambda_diff, c.group_size, c.keep_all_fail)
    write_records(workdir / "profiles.jsonl", profiles)
    write_records(workdir / "pivots.jsonl", selection.pivots(candidates))
    return selection


def write_run(workdir: Path, page: dict, config, facts: dict) -> None:
    """Write run.json with this config and more `facts`; what `page` says of the profile and before is
    kept."""
    kept = ("model", "model_config", "policy", "versions", "devices", "seconds", "compiled", "skipped")
    page = {name: page[name] for name in kept if name in page}
    write_json(workdir / "run.json", {"config": config.to_dict(), **page, **facts})
