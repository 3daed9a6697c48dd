"""Re-scoring: new verdicts on the stored rollouts of a profile, without a model.

    candidates.jsonl, rollouts/ -> verdicts -> rollouts/, profiles.jsonl, pivots.jsonl, rescored.txt

Rollouts are parsed by the run's chat template, which is proved to be the same by the token ids of all
prompts, and by the reply parser as it is now (`chat.actions.REPLY_PARSER`); what did not finish stays 0, and
ids that belong to no token stay malformed. Candidates go through the self-check again, as `train` would do
it, so `train` goes on from the result.

A group that adaptive profiling cut short was cut by the old rewards. Where the new ones no longer decide it,
the candidate is undecided, and so no pivot; rollouts/rescored.json lists them.
"""

import dataclasses
import itertools
import json
import os
import shutil
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

from pivotrl_jax import verifiers
from pivotrl_jax.chat.actions import REPLY_PARSER
from pivotrl_jax.checkpoints.hf_files import appearing
from pivotrl_jax.pivots import adaptive, changes, profiling, rollout_files, screening
from pivotrl_jax.pivots import selection as selection_lib
from pivotrl_jax.pivots import stored as stored_lib
from pivotrl_jax.pivots.candidates import SelfCheck, self_check
from pivotrl_jax.pivots.stored import StoredProfile
from pivotrl_jax.records import Candidate, InputError, Rollout, write_json, write_lines, write_records
from pivotrl_jax.rollouts import progress
from pivotrl_jax.rollouts.rollout import Rollouts, verdict_of
from pivotrl_jax.run import run as run_lib
from pivotrl_jax.run import stored
from pivotrl_jax.trajectories import extract
from pivotrl_jax.verifiers import judge as judge_lib

REPORT = "rescored.txt"
# what a re-scoring in place replaces; the files of before move to before_rescoring_1, ...
REPLACED = f"run.json candidates.jsonl skipped.jsonl rollouts profiles.jsonl pivots.jsonl {REPORT}".split()
LATER = ("checkpoints", "hf", "reprofiled", "metrics.jsonl")  # what was made from the pivots
Rewards = list[list[float | None]]  # of every candidate's rollouts


@dataclasses.dataclass(frozen=True)
class Flags:
    """What differs from the run's own scoring; "" is as in the run."""

    verifier: str = ""  # of all candidates; "functional": each candidate's own
    judge_url: str = ""
    judge_model: str = ""
    checkpoint: str = ""  # where its tokenizer and chat template are now


@dataclasses.dataclass(frozen=True)
class Task:
    """A profile, and how its rollouts are scored now."""

    before: StoredProfile
    config: Any  # of the run that goes on from the result
    scoring: Rollouts  # without an actor
    checked: SelfCheck  # of the candidates, by the verifiers as they are now

    @property
    def kept(self) -> list[int]:
        """Indices of the candidates that pass the self-check."""
        left_out = self.checked.left_out
        return [i for i, candidate in enumerate(self.before.candidates) if candidate.id not in left_out]

    @property
    def labels_before(self) -> list[str]:
        """The labels of all candidates' verifiers when they were profiled."""
        label_of = {label.rpartition("/")[0]: label for label in self.before.identity["verifiers"]}
        reward = self.before.page["config"].get("reward", "functional")
        names = [c.verifier if reward == "functional" else reward for c in self.before.candidates]
        return [label_of.get(name, f"{name}/?") for name in names]


def rescore(workdir: Path, out: Path | None, flags: Flags) -> list[str]:
    """Score the profile in `workdir` again into `out`, a new directory, or in place if it is None. Returns
    lines for the terminal. Raises InputError."""
    before = stored_lib.read(workdir)
    if "shard" in before.identity:
        raise InputError(
            f"{workdir}: holds a shard of a profile; put all shards together with merge_profiles, and score "
            "the whole profile again"
        )
    if out is not None:
        stored_lib.require_new(out)
    elif found := [name for name in LATER if (workdir / name).exists()]:
        raise InputError(
            f"{workdir}: what was trained on its pivots is there ({', '.join(found)}), and new pivots would "
            "not match it; write to a new directory with --out"
        )
    config = _config_of(before, out or workdir, flags)
    scoring = _scoring_of(before, config)
    task = Task(before, config, scoring, self_check(before.candidates, scoring.chat, scoring.verifier))
    if not task.kept:
        id, why = next(iter(task.checked.left_out.items()))
        raise InputError(f"no candidate would pass the self-check; e.g. {id}: {why}")
    work = out or workdir / ".rescored"
    with appearing(work) as into:
        lines = _write(task, into)
        for name in ("judge/replies.jsonl", "evaluations/before.json") if out else ():
            if (workdir / name).is_file():
                (into / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(workdir / name, into / name)
    if out is None:
        lines.append(f"the files of before are in {_replace(workdir, work)}")
    return [*lines, _how_to_go_on(config, flags)]


def _how_to_go_on(config, flags: Flags) -> str:
    fields = {
        "workdir": config.workdir,
        "reward": flags.verifier,
        "judge.base_url": flags.judge_url,
        "judge.model": flags.judge_model,
        "model.checkpoint": flags.checkpoint,
    }
    overrides = [f"--config.{name}={value}" for name, value in fields.items() if value]
    return f"train goes on from it by the run's own command with {' '.join(overrides)}"


def _config_of(before: StoredProfile, workdir: Path, flags: Flags):
    """The run's config with what the flags change. Raises InputError."""
    config = stored.config_of(before.page, workdir, flags.checkpoint)
    if flags.verifier:
        if flags.verifier != "functional":
            verifiers.register(flags.verifier, "--verifier")
        config.reward = flags.verifier
    if flags.judge_url:
        config.judge.base_url = flags.judge_url
    if flags.judge_model and not config.judge.base_url:
        raise InputError("--judge_model needs --judge_url, since this run had no judge")
    if flags.judge_model:
        config.judge.model = flags.judge_model
    return config


def _scoring_of(before: StoredProfile, config) -> Rollouts:
    """The run's chat, the verifiers as they are now, and the judge. Raises InputError when the chat would not
    write the run's prompts."""
    try:
        chat = run_lib.load_chat(config)
    except InputError as e:
        raise InputError(
            f"rollouts are parsed with the run's tokenizer and chat template, which cannot be read: {e}; if "
            "they have moved, name the checkpoint with --checkpoint"
        ) from None
    if extract.digest(extract.render(chat, before.candidates)) != before.identity["candidates"]:
        raise InputError(
            f"{before.workdir}: the tokenizer and chat template of {config.model.checkpoint} do not write "
            "the prompts that were profiled, so rollouts might be parsed otherwise than at first; name the "
            "checkpoint of that time with --checkpoint"
        )
    judge = judge_lib.make_judge(config.judge, before.workdir / "judge")
    return Rollouts(None, chat, None if config.reward == "functional" else config.reward, judge)


def _again(scoring: Rollouts, pairs: Sequence[tuple[Candidate, list[Rollout]]]) -> list[list[Rollout]]:
    """The rollouts of some candidates with the verdicts of now."""
    flat = [(candidate, rollout) for candidate, group in pairs for rollout in group]
    verdicts = [verdict_of(scoring.chat, scoring.verifier_of(c), c, r, r.text) for c, r in flat]
    rescored = iter(
        dataclasses.replace(rollout, reward=v.reward, reason=v.reason, details=v.details)
        for (_, rollout), v in zip(flat, judge_lib.resolve_with_judge(verdicts, scoring.judge))
    )
    return [[next(rescored) for _ in group] for _, group in pairs]


def _rescore_files(task: Task, into: Path, verdicts: changes.Verdicts) -> tuple[Rewards, Rewards]:
    """Write the rollouts of the kept candidates, which may be grouped into other files, since a file holds a
    fixed number of trajectories. Returns the rewards of before, of all candidates, and those of now."""
    before, was = task.before, task.labels_before
    old, new, waiting, screens = {}, {}, {}, {}
    now = {i: position for position, i in enumerate(task.kept)}
    files = iter(enumerate(profiling.files_of(before.identity, task.checked.kept)))
    due = next(files, None)
    with progress.bar(len(before.candidates), "verifying again", "candidates") as bar:
        for number, members in before.files.items():
            groups = dict(zip(members, before.groups(number, members)))
            old |= {i: [rollout.reward for rollout in group] for i, group in groups.items()}
            screens |= zip(members, before.screened(number, members))
            here = [i for i in members if i in now]
            again = _again(task.scoring, [(before.candidates[i], groups[i]) for i in here])
            for i, group in zip(here, again):
                candidate = before.candidates[i]
                labels = was[i], task.scoring.verifier_of(candidate).label
                verdicts.add(candidate, labels, groups[i], group)
                waiting[now[i]] = group
            while due and all(position in waiting for position in due[1]):
                some = {position: waiting.pop(position) for position in due[1]}
                new |= {position: [r.reward for r in group] for position, group in some.items()}
                file = rollout_files.file_of(into / "rollouts", due[0])
                rollout_files.write(file, list(itertools.chain.from_iterable(some.values())))
                if "screen" in before.identity:
                    screening.write(file, [screens[task.kept[position]] for position in due[1]])
                due = next(files, None)
            bar.update(len(members))
    return [old[i] for i in range(len(old))], [new[i] for i in range(len(new))]


def _write(task: Task, into: Path) -> list[str]:
    """Write the new profile into a directory. Returns lines for the terminal."""
    before, kept, verdicts = task.before, task.checked.kept, changes.Verdicts()
    old, new = _rescore_files(task, into, verdicts)
    write_records(into / "candidates.jsonl", kept)
    labels = [task.scoring.verifier_of(candidate).label for candidate in kept]
    identity = _identity(task, labels)
    write_json(into / "rollouts" / "settings.json", identity)
    earlier = profiling.undecided_in(before.workdir / "rollouts")
    undecided = _undecided(task, old, new, identity, earlier)
    facts = {"undecided": undecided, "verifiers_before": before.identity["verifiers"]}
    write_json(into / "rollouts" / profiling.RESCORED, facts)
    profiles = profiling.profiles_of(kept, new, labels, identity, frozenset(undecided))
    selection = stored_lib.write_pivots(into, profiles, kept, task.config)
    profiles = profiling.profiles_of(before.candidates, old, task.labels_before, before.identity, earlier)
    limit = task.config.profile.lambda_diff
    was = {profile.candidate_id: selection_lib.outcome(profile, limit) for profile in profiles}
    gained, lost = changes.gained_and_lost(was, selection.outcomes)
    lists = {"pivots gained": gained, "pivots lost": lost, "no longer decided": undecided}
    lists["left out by the self-check"] = [f"{id}: {why}" for id, why in task.checked.left_out.items()]
    lines = [*verdicts.lines(), "", *changes.outcome_lines(was, selection.outcomes), ""]
    lines += [f"{name}: {changes.some(ids)}" for name, ids in lists.items() if ids or "pivots" in name]
    lines += [*_remarks(task, new, undecided), *verdicts.example_lines()]
    everything = [line for name, ids in lists.items() for line in ("", f"{name}: {len(ids)}", *ids)]
    write_lines(into / REPORT, [*lines, *everything])
    skipped = _write_skipped(task, into)
    counts = {name: len(ids) for name, ids in lists.items()}
    facts = {"verifiers_before": before.identity["verifiers"], "rollouts": dict(verdicts.total), **counts}
    stored_lib.write_run(into, {**before.page, "skipped": skipped}, task.config, {"rescored": facts})
    return [
        *lines,
        "",
        *selection.table(),
        f"all of this, with every candidate: {task.config.workdir}/{REPORT}",
    ]


def _identity(task: Task, labels: Sequence[str]) -> dict:
    """rollouts/settings.json as a run that goes on will want it."""
    identity, judge = {**task.before.identity, "verifiers": sorted(set(labels))}, task.scoring.judge
    identity["reply_parser"] = REPLY_PARSER
    if task.checked.left_out:
        identity["candidates"] = extract.digest(extract.render(task.scoring.chat, task.checked.kept))
    identity.pop("judge", None)
    return {**identity, "judge": judge.settings} if judge else identity


def _undecided(task: Task, old: Rewards, new: Rewards, identity: dict, earlier: Container[str]) -> list[str]:
    """Ids of candidates whose group was cut short when it was decided, and is so no longer: its own rewards
    have changed, or the pass rates of all. `earlier` are those of an earlier re-scoring. Groups that even the
    old pass rates of all, which were not known when they were cut, leave open stay as they were. So are
    screened candidates whose demonstration the rules no longer accept without a judge."""
    if not identity["stopping"]:
        return _no_longer_screened(task, new)
    rule = adaptive.StoppingRule(**identity["stopping"])
    old_plan, plan = (rule.plan(adaptive.pass_rates(rewards)) for rewards in (old, new))
    groups = zip(task.checked.kept, (old[i] for i in task.kept), new)
    return _no_longer_screened(task, new) + [
        candidate.id
        for candidate, before, now in groups
        if now
        and not plan.decided(now)
        and (before != now or candidate.id in earlier or old_plan.decided(before))
    ]


def _no_longer_screened(task: Task, new: Rewards) -> list[str]:
    """Ids of screened candidates, which have no rewards, whose demonstration now is a judge's to decide. One
    that is rejected has not passed the self-check."""
    by_kind = task.before.identity.get("screen", {}).get("text_turns")
    empty = [c for c, group in zip(task.checked.kept, new) if not group and (c.is_call or not by_kind)]
    return [c.id for c in empty if not screening.accepts(task.scoring, c)]


def _remarks(task: Task, new: Rewards, undecided: Sequence[str]) -> list[str]:
    """What a reader of the tables should know besides."""
    lines, stopping = [], task.before.identity["stopping"]
    if stopping:
        short = {c.id for c, group in zip(task.checked.kept, new) if 0 < len(group) < stopping["group_size"]}
        lines.append(
            f"adaptive profiling had ended {len(short)} groups early, by the rewards of then; with the "
            f"rewards of now {len(short & {*undecided})} of them would have gone on: they count as "
            "undecided, and are no pivots"
        )
    parser = task.before.identity.get("reply_parser")
    if parser != REPLY_PARSER:
        of_then = f"version {parser}" if parser else "a version before there were numbers"
        lines.append(f"replies were read by {of_then} of the parser, and now by version {REPLY_PARSER}")
    count = task.before.page.get("skipped", {}).get("self_check", 0)
    labels = {verifiers.get(c.verifier).label for c in task.before.candidates}
    names = {label.rpartition("/")[0] for label in labels}
    older = [
        x for x in task.before.identity["verifiers"] if x.rpartition("/")[0] in names and x not in labels
    ]
    if count and older:
        lines.append(
            f"{count} candidates were left out by the self-check of {', '.join(older)}; if a verifier "
            "accepts them now, train makes more candidates than were profiled and refuses this profile"
        )
    return lines


def _write_skipped(task: Task, into: Path) -> dict:
    """Add the candidates that are left out now to skipped.jsonl. Returns the counts for run.json."""
    file, left_out = task.before.workdir / "skipped.jsonl", task.checked.left_out
    text = file.read_text("utf-8") if file.is_file() else ""
    more = [json.dumps({"where": where, "why": why}) + "\n" for where, why in left_out.items()]
    (into / "skipped.jsonl").write_text(text + "".join(more), "utf-8")
    counts = task.before.page.get("skipped", {})
    return {**counts, "self_check": counts.get("self_check", 0) + len(left_out)}


def _replace(workdir: Path, work: Path) -> Path:
    """Move the files of `work` into `workdir`, and those in their place to the directory that is returned."""
    names = (workdir / f"before_rescoring_{number}" for number in itertools.count(1))
    old = next(name for name in names if not name.exists())
    old.mkdir()
    for name in REPLACED:
        if (workdir / name).exists():
            os.rename(workdir / name, old / name)
    for path in sorted(work.iterdir()):
        os.rename(path, workdir / path.name)
    work.rmdir()
    return old
