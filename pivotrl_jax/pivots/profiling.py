"""Profiling: sample and score G rollouts per candidate under a frozen policy, and keep the pivots.

    candidates -> prompts -> rollouts/00000.jsonl, ... -> profiles.jsonl -> pivots.jsonl

Results are sharded, so that an interrupted run can resume. Of shards that are on disk (rollout_files.py) only
the rewards stay in memory. A shard holds the rollouts of a fixed number of
trajectories: a resumed run then packs, samples and rounds exactly as an uninterrupted one. An adaptive
profile shuffles the trajectories, so that the first shards are a random sample, whatever the data's order.
`rollouts/settings.json` is the identity of the profile; rollouts of another policy, seed or verifier are
refused.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Container, Sequence
from pathlib import Path

import jax

from pivotrl_jax.chat.actions import REPLY_PARSER
from pivotrl_jax.checkpoints.identity import as_json, differences, require_same
from pivotrl_jax.models import decoder, lora
from pivotrl_jax.pivots import adaptive, rollout_files, screening, served_profile, shares
from pivotrl_jax.pivots import selection as selection_lib
from pivotrl_jax.records import (
    Candidate,
    InputError,
    Profile,
    Prompt,
    write_json,
    write_records,
)
from pivotrl_jax.rollouts import progress
from pivotrl_jax.rollouts.rollout import Rollouts, make_rollouts
from pivotrl_jax.rollouts.scoring import Scorer
from pivotrl_jax.run import interrupts
from pivotrl_jax.run import run as run_lib
from pivotrl_jax.trajectories import extract

RESCORED = "rescored.json"  # in rollouts/: what a re-scoring says about them
AFTER_TRAINING = 2**31 - 1  # the repetition of the final policy's profile (resampling.py)
TITLES = {0: "profiling pi_0", AFTER_TRAINING: "pivots after training"}  # of bars, by repetition


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
    shard: str = ""  # "3/16": profile this share of the candidates; "": all of them
    screen: screening.Rule | None = None  # None: every candidate is sampled

    @property
    def key(self) -> jax.Array:
        """The PRNG key of this profile."""
        key = jax.random.fold_in(jax.random.key(self.seed), 1)
        return jax.random.fold_in(key, self.repetition) if self.repetition else key

    def identity(self, rollouts: Rollouts, prompts: Sequence[Prompt]) -> dict:
        """Everything that decides the rollouts, as JSON."""
        sampling, candidates = rollouts.actor.sampling, [prompt.candidate for prompt in prompts]
        identity = {
            **{name: x for name, x in dataclasses.asdict(self).items() if name not in ("shard", "screen")},
            "candidates": extract.digest(prompts),
            "sampling": {**vars(sampling), "stop_ids": list(sampling.stop_ids)},
            "verifiers": sorted({rollouts.verifier_of(candidate).label for candidate in candidates}),
            "reply_parser": REPLY_PARSER,
        }
        if rollouts.judge:
            identity["judge"] = rollouts.judge.settings
        if self.screen:
            identity["screen"] = dataclasses.asdict(self.screen)
        if self.shard:
            files = shares.files_of(self.shard, files_of(identity, candidates), prompts)
            identity["shard"] = {"name": self.shard, "files": files}
        return as_json(identity)


def files_of(identity: dict, candidates: Sequence[Candidate]) -> list[list[int]]:
    """Indices of the candidates in each file of rollouts of the profile with this identity."""
    shuffle = identity["seed"] if identity["stopping"] else None
    return shards_of(candidates, identity["trajectories_per_shard"], shuffle)


def shards_of(
    candidates: Sequence[Candidate], trajectories: int, shuffle: int | None = None
) -> list[list[int]]:
    """Indices of candidates, cut after every `trajectories` trajectories. `shuffle` is the seed of a random
    order of the trajectories; leaving some out does not change the order of the others."""
    by_trajectory: dict[str, list[int]] = {}
    for i, candidate in enumerate(candidates):
        by_trajectory.setdefault(candidate.trajectory_id, []).append(i)
    names = list(by_trajectory)
    if shuffle is not None:
        names.sort(key=lambda name: hashlib.sha256(f"{shuffle} {name}".encode()).digest())
    groups = [by_trajectory[name] for name in names]
    return [
        [i for group in groups[start : start + trajectories] for i in group]
        for start in range(0, len(groups), trajectories)
    ]


def prepare_directory(directory: Path, identity: dict, resume: bool) -> None:
    """Make `directory` ready for shards of this identity; older ones are deleted when `resume` is off.

    Raises InputError naming the differences when shards of another identity are there, also when only the
    versions of the verifiers or of the reply parser differ; older profiles have no version of the latter.
    Settings without any shard, such as a served model that refused its first request leaves, bind nobody.
    """
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "settings.json"
    if not resume or not file.is_file():
        for suffix in (".jsonl", rollout_files.ARRAYS, screening.SUFFIX, served_profile.PARTIAL):
            for old in directory.glob(f"*{suffix}"):
                old.unlink()
        (directory / RESCORED).unlink(missing_ok=True)
    elif served_profile.begun(directory):
        there = json.loads(file.read_text("utf-8"))
        _require_same_scoring(directory, there, identity)
        require_same(directory, "rollouts", there, identity)
    write_json(file, identity)


def _require_same_scoring(directory: Path, there: dict, here: dict) -> None:
    """Raises InputError when a profile differs only in the versions by which its rollouts were scored, and in
    the candidates that pass the self-check by them."""
    by_version = differences(there, here, ("candidates",))
    others = differences(there, here, ("candidates", "verifiers", "reply_parser"))
    if not by_version or others or not names_of(here) <= names_of(there):
        return
    different = [*by_version, *(clause for clause in differences(there, here) if clause not in by_version)]
    raise InputError(
        f"{directory}: the rewards there are those of another version: {'; '.join(different)}; score a "
        "finished profile again with `pivotrl rescore --workdir=...`, which samples nothing, use that "
        "version, or start over with --config.resume=False"
    )


def names_of(identity: dict) -> set[str]:
    """The names of a profile's verifiers, without their versions."""
    return {label.rpartition("/")[0] for label in identity.get("verifiers", ())}


def profile_candidates(
    rollouts: Rollouts,
    params: decoder.Params,
    prompts: Sequence[Prompt],
    settings: Settings,
    directory: Path,
    resume: bool,
    screen: screening.Screen | None = None,
) -> list[Profile]:
    """The profile of every prompt, in order; finished shards are read back from `directory`.

    With a stopping rule, a candidate is sampled until its outcome is decided, at most G times; its samples
    are the first ones of a full profile. What the `screen` sorts out is not sampled at all. With
    `settings.shard`, only the candidates of that share are profiled. Raises InputError as
    `prepare_directory`, `shares.files_of` and `screening.read` do.
    """
    identity = settings.identity(rollouts, prompts)
    prepare_directory(directory, identity, resume)
    candidates = [prompt.candidate for prompt in prompts]
    files = dict(enumerate(files_of(identity, candidates)))
    if settings.shard:
        files = {number: files[number] for number in identity["shard"]["files"]}
    rewards: dict[int, list[float | None]] = {}
    earlier: list[list[float | None]] = []  # rewards of earlier shards, to estimate pass rates from
    title = TITLES.get(settings.repetition, "profiling again")
    with progress.bar(sum(map(len, files.values())) * settings.group_size, title, "rollouts") as bar:

        def advance(done: int) -> None:
            bar.set_postfix_str(rollouts.actor.spent, refresh=False)
            bar.update(done)

        for number, members in files.items():
            interrupts.point()
            file, sampled = rollout_files.file_of(directory, number), members
            if screen:
                sampled = screening.kept(screen.decide([prompts[i] for i in members], file), members)
                rewards |= {i: [] for i in members}
            if file.is_file():
                whole = None if settings.stopping else settings.group_size
                groups = rollout_files.rewards(file, [candidates[i].id for i in sampled], whole)
                bar.update(len(members) * settings.group_size)
            else:
                params = rollouts.actor.place(params)
                here = [prompts[i] for i in sampled]
                with rollouts.actor.saved_in(file.with_suffix(served_profile.PARTIAL)):
                    groups = _sample_shard(rollouts, params, here, settings, earlier, advance, file)
                bar.update(len(members) * settings.group_size - sum(map(len, groups)))
            rewards |= zip(sampled, groups)
            if settings.stopping:
                earlier += groups
    profiled = sorted(rewards)
    return profiles_of(
        [candidates[i] for i in profiled],
        [rewards[i] for i in profiled],
        [rollouts.verifier_of(candidates[i]).label for i in profiled],
        identity,
        undecided_in(directory),
    )


def undecided_in(directory: Path) -> frozenset[str]:
    """Ids of candidates whose sampling was ended by rewards that a re-scoring has changed (rescoring.py)."""
    file = directory / RESCORED
    return frozenset(json.loads(file.read_text("utf-8"))["undecided"] if file.is_file() else ())


def _sample_shard(
    rollouts: Rollouts,
    params: decoder.Params,
    prompts: Sequence[Prompt],
    settings: Settings,
    earlier: Sequence[Sequence[float | None]],
    on_batch: Callable[[int], None],
    file: Path,
) -> list[list[float | None]]:
    """Write the rollouts of a shard's prompts, in the prompts' order, and return their rewards. `params` must
    be placed by the actor."""

    def draw(indices, first, count):
        return rollouts.sample(params, [prompts[i] for i in indices], count, settings.key, first, on_batch)

    if settings.stopping:
        groups = adaptive.groups(draw, len(prompts), settings.stopping, earlier)
    else:
        groups = draw(range(len(prompts)), 0, settings.group_size)
    if not jax.process_index():  # the other processes need the rewards alone
        rollout_files.write(file, [rollout for group in groups for rollout in group])
    return [[rollout.reward for rollout in group] for group in groups]


def profiles_of(
    candidates: Sequence[Candidate],
    rewards: Sequence[Sequence[float | None]],
    verifiers: Sequence[str],
    identity: dict,
    undecided: Container[str] = (),
) -> list[Profile]:
    """The profile of every candidate; where the stopping rule ended sampling early, with the likely outcome,
    or with "undecided" for candidates of these ids, which other rewards had ended (rescoring.py). Those
    without any reward were screened.

    `verifiers` are labels; `identity` is that of the profile, as `Settings.identity` makes it."""
    stopping, plan = identity["stopping"], None
    if stopping:
        plan = adaptive.StoppingRule(**stopping).plan(adaptive.pass_rates(rewards))

    def early(candidate, group):
        if group and (not plan or len(group) == identity["group_size"]):
            return ""
        if candidate.id in undecided:
            return "undecided"
        return plan.outcome(group) if group else "screened"

    temperature = identity["sampling"]["temperature"]
    return [
        selection_lib.make_profile(
            c, group, identity["policy"], label, temperature, identity["seed"], early(c, group)
        )
        for c, group, label in zip(candidates, rewards, verifiers)
    ]


# ---- the stage of a run


def find_pivots(run: run_lib.Run, candidates: Sequence[Candidate]) -> selection_lib.Selection:
    """Profile a run's candidates under pi_0 and filter; see `profile_and_select`."""
    prompts = extract.render(run.chat, candidates)
    if run.config.rollouts.base_url:
        actor = served_profile.make_actor(run, prompts)
        rollouts = Rollouts(actor, run.chat, run.verifier, run.judge)
        settings = settings_of(run, f"served:{run.config.rollouts.model}", model=actor.identity)
        found = profile_and_select(run, rollouts, run.params, prompts, settings, run.workdir)
        served_profile.tell(run, actor)
        return found
    rollouts = make_rollouts(run, run.config.profile.batch)
    return profile_and_select(run, rollouts, run.params, prompts, settings_of(run, run.policy), run.workdir)


def settings_of(
    run: run_lib.Run, policy: str, trained: bool = False, repetition: int = 0, model: dict | None = None
) -> Settings:
    """The settings of a profile, from `config.profile`. `policy` is a fingerprint; with `trained` it is that
    of the model in training, which has adapters under LoRA. `model` identifies a served model."""
    c = run.config.profile
    if model is None:
        own = run.trained_config if trained else run.model_config
        model = {**dataclasses.asdict(own), "param_dtype": run.config.model.param_dtype}
    stopping = None
    if c.adaptive.round:
        stopping = adaptive.StoppingRule(c.group_size, c.lambda_diff, c.adaptive.round, c.adaptive.error)
    screen = screening.Rule(c.screen.probability, c.screen.text_turns)
    return Settings(
        policy=policy,
        model=model,
        group_size=c.group_size,
        seed=run.config.seed if c.seed < 0 else c.seed,
        trajectories_per_shard=c.trajectories_per_shard,
        stopping=stopping,
        repetition=repetition,
        shard=c.shard,
        screen=screen if screen.on else None,
    )


def screen_of(
    run: run_lib.Run, rollouts: Rollouts, params: decoder.Params, settings: Settings
) -> screening.Screen | None:
    """The screen that goes before a profile; None if it is off."""
    if not settings.screen:
        return None
    if not settings.screen.probability:
        return screening.Screen(settings.screen, rollouts, None, None)
    config = run.trained_config if lora.has_adapters(params) else run.model_config
    scorer = Scorer(config, run.config.compute, run.mesh, run.config.sampling.temperature)
    return screening.Screen(settings.screen, rollouts, scorer, params)


def profile_and_select(
    run: run_lib.Run,
    rollouts: Rollouts,
    params: decoder.Params,
    prompts: Sequence[Prompt],
    settings: Settings,
    directory: Path,
) -> selection_lib.Selection:
    """Profile under a policy and filter; writes rollouts/, profiles.jsonl and pivots.jsonl into `directory`
    and prints the table of outcomes. Raises InputError when rollouts of another profile are there."""
    screen = screen_of(run, rollouts, params, settings)
    profiles = profile_candidates(
        rollouts, params, prompts, settings, directory / "rollouts", run.config.resume, screen
    )
    c = run.config.profile
    selection = selection_lib.select(profiles, c.lambda_diff, settings.group_size, c.keep_all_fail)
    write_records(directory / "profiles.jsonl", profiles)
    write_records(directory / "pivots.jsonl", selection.pivots([prompt.candidate for prompt in prompts]))
    print("\n".join(selection.table()))
    if count := selection.counts()["screened"]:
        print(f"the screen sorted out {count} of {len(profiles)} candidates before anything was sampled")
    if settings.stopping:
        full = len(profiles) * settings.group_size
        drawn = selection.rollouts
        print(f"adaptive profiling drew {drawn} of {full} rollouts ({drawn / full:.0%})")
    return selection
