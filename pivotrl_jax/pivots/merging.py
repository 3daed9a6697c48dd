"""The shards of a profile -> one work directory with the whole profile, from which `train` goes on.

A file of rollouts does not depend on the job that made it, so the merged profile is byte by byte the one that
a single job would have made. Adaptive profiling is the exception: a job estimates pass rates from its own
candidates alone, so it may stop a group a round earlier or later than a single job would. The rollouts are
still the first ones of a full profile, and the likely outcome of a group that ended early is decided anew
from the pass rates of all candidates.
"""

import collections
import shutil
from collections.abc import Sequence
from pathlib import Path

from pivotrl_jax.checkpoints.hf_files import appearing
from pivotrl_jax.checkpoints.identity import differences
from pivotrl_jax.pivots import adaptive, profiling, rollout_files, screening, served_profile, shares
from pivotrl_jax.pivots import stored as stored_lib
from pivotrl_jax.pivots.stored import StoredProfile
from pivotrl_jax.records import InputError, write_json
from pivotrl_jax.run import resume, stored

MAX_NAMED = 8
FREE = ("profile.shard", "model.checkpoint", "data.source")  # policy and candidates are compared themselves


def merge(runs: Sequence[Path], out: Path) -> list[str]:
    """Write the profile whose shards are in the work directories `runs` to `out`, and return lines for the
    terminal. Raises InputError that names the shard which is missing, doubled, unfinished, or of another
    profile."""
    stored_lib.require_new(out)
    shards = _in_order([stored_lib.read(run) for run in runs])
    first = shards[0]
    for other in shards[1:]:
        _require_same_profile(first, other)
    files = profiling.files_of(first.identity, first.candidates)
    owners = {number: shard for shard in shards for number in shard.identity["shard"]["files"]}
    if sorted(n for shard in shards for n in shard.identity["shard"]["files"]) != list(range(len(files))):
        raise InputError(
            f"the files of these shards are not the {len(files)} of this profile, each once; put back the "
            "rollouts/settings.json that the jobs wrote"
        )
    rewards: dict[int, list[float | None]] = {}
    served_by: set[tuple[str, str]] = set()
    with appearing(out) as temporary:
        (temporary / "rollouts").mkdir()
        for number, members in enumerate(files):
            groups = owners[number].groups(number, members)
            served_by |= {names for group in groups for names in served_profile.models_of(group)}
            rewards |= zip(members, ([rollout.reward for rollout in group] for group in groups))
            file = owners[number].path(number)
            for path in (rollout_files.arrays_of(file), file, screening.path_of(file)):
                if path.is_file():
                    shutil.copyfile(path, temporary / "rollouts" / path.name)
        lines = _write(temporary, shards, [rewards[i] for i in range(len(first.candidates))], out)
    merged = f"{len(shards)} shards with {len(files)} files of rollouts are merged into {out}"
    return [merged, *served_profile.warnings(sorted(served_by)), *lines]


def _in_order(shards: Sequence[StoredProfile]) -> list[StoredProfile]:
    """The shards from 1 on. Raises InputError if one is missing or doubled."""
    found = collections.defaultdict(list)
    for shard in shards:
        if "shard" not in shard.identity:
            raise InputError(f"{shard.workdir}: holds a whole profile, not a shard of one; leave it out")
        found[shares.parse(shard.identity["shard"]["name"])].append(shard)
    counts = sorted({count for _, count in found})
    if len(counts) > 1:
        names = ", ".join(f"{n}/{count} in {s[0].workdir}" for (n, count), s in sorted(found.items()))
        raise InputError(f"these shards are not of one division: {names}; give all shards of one")
    for (number, count), several in sorted(found.items()):
        if len(several) > 1:
            where = " and ".join(str(shard.workdir) for shard in several)
            raise InputError(f"shard {number}/{count} is there {len(several)} times, in {where}; give one")
    missing = [f"{n}/{counts[0]}" for n in range(1, counts[0] + 1) if (n, counts[0]) not in found]
    if missing:
        more = f" and {len(missing) - MAX_NAMED} more" if missing[MAX_NAMED:] else ""
        raise InputError(
            f"{len(missing)} of {counts[0]} shards are missing: {', '.join(missing[:MAX_NAMED])}{more}; make "
            "them with find_pivots --config.profile.shard=..., and name their work directories, too"
        )
    return [shard for _, (shard,) in sorted(found.items())]


def _require_same_profile(first: StoredProfile, other: StoredProfile) -> None:
    """Raises InputError naming what differs: policy, seed, sampling, verifiers, candidates, or the config."""
    different = differences(first.identity, other.identity, ("shard",)) or differences(
        first.page["config"], other.page["config"], (*resume.FREE, *FREE)
    )
    if different:
        clauses = [c.replace(" there and ", f" in {first.workdir} and ", 1) for c in different]
        raise InputError(
            f"{other.workdir}: its shard is of another profile: {'; '.join(clauses)}; make all shards by the "
            "same command but for profile.shard and workdir"
        )


def _write(
    workdir: Path, shards: Sequence[StoredProfile], rewards: Sequence[Sequence[float | None]], out: Path
) -> list[str]:
    """Write everything but the rollouts into `workdir`, which becomes `out`. Returns lines for the
    terminal."""
    first = shards[0]
    identity = {name: value for name, value in first.identity.items() if name != "shard"}
    write_json(workdir / "rollouts" / "settings.json", identity)
    for name in ("candidates.jsonl", "skipped.jsonl"):
        if (first.workdir / name).is_file():
            shutil.copyfile(first.workdir / name, workdir / name)
    config = stored.config_of(first.page, out)
    config.profile.shard = ""
    label_of = {label.rpartition("/")[0]: label for label in identity["verifiers"]}
    rewarding = None if config.reward == "functional" else config.reward
    labels = [label_of[rewarding or candidate.verifier] for candidate in first.candidates]
    profiles = profiling.profiles_of(first.candidates, rewards, labels, identity)
    selection = stored_lib.write_pivots(workdir, profiles, first.candidates, config)
    _join_replies(workdir, shards)
    seconds, lines, facts = collections.Counter(), selection.table(), {"shards": len(shards)}
    for shard in shards:
        seconds.update(shard.page.get("seconds", {}))
    if identity["stopping"]:
        facts["adaptive"] = _adaptive(identity, rewards)
        lines.append(
            "adaptive profiling drew {rollouts} of {full} rollouts. Each job estimated pass rates from its "
            "own candidates; the outcomes of the {ended_early} groups that ended early are the likeliest "
            "under the pass rates of all, which would have gone on with {not_yet_decided} of them".format(
                **facts["adaptive"]
            )
        )
    stored_lib.write_run(workdir, {**first.page, "seconds": dict(seconds)}, config, {"merged": facts})
    return lines


def _adaptive(identity: dict, rewards: Sequence[Sequence[float | None]]) -> dict[str, int]:
    """What may differ from an adaptive profile made by one job."""
    rule = adaptive.StoppingRule(**identity["stopping"])
    plan = rule.plan(adaptive.pass_rates(rewards))
    early = [group for group in rewards if 0 < len(group) < rule.group_size]
    return {
        "rollouts": sum(map(len, rewards)),
        "full": len(rewards) * rule.group_size,
        "ended_early": len(early),
        "not_yet_decided": sum(not plan.decided(group) for group in early),
    }


def _join_replies(workdir: Path, shards: Sequence[StoredProfile]) -> None:
    """The judge's replies of all shards, so that no question is asked again."""
    files = [shard.workdir / "judge" / "replies.jsonl" for shard in shards]
    texts = [file.read_bytes() for file in files if file.is_file()]
    if texts:
        (workdir / "judge").mkdir()
        (workdir / "judge" / "replies.jsonl").write_bytes(b"\n".join(texts))
