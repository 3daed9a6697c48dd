"""From a config's `data` section to demonstrations and held-out tasks. Pure Python: no jax.

`data.source` names an environment (pivotrl_jax/environments) or gives paths of trajectories in any format
that `trajectories.reading` knows, separated by commas. A scenario is never divided by a split.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from pivotrl_jax import environments
from pivotrl_jax.environments.base import Environment, Task
from pivotrl_jax.records import InputError, Trajectory
from pivotrl_jax.trajectories import filters, reading
from pivotrl_jax.trajectories.split import Item, split, split_folds, split_turns


@dataclasses.dataclass(frozen=True)
class Data:
    """Demonstrations to learn from, and what is held out for evaluation."""

    demonstrations: list[Trajectory]
    held_out: list[Trajectory]  # the expert's trajectories through the held-out tasks
    held_out_tasks: Sequence[Task]  # those of them that can be played; none for plain trajectories
    skipped: dict[str, str]  # "file:line" -> why it was left out
    train_tasks: Sequence[Task] = ()  # the demonstrations' tasks that can be played
    unrated: int = 0  # trajectories without a published pass rate, which its filter kept


@dataclasses.dataclass(frozen=True)
class ValidationSet:
    """What validation scores: an expert's trajectories, and their tasks that can be played."""

    trajectories: list[Trajectory]
    tasks: Sequence[Task]


def load(config, seed: int) -> Data:
    """The data of a run, before a validation set is taken from it and `config.max_repeats` is applied.

    `config` is the data section, whose fields run/options.py describes. Raises InputError.
    """
    if environments.is_name(config.source):
        return from_environment(environments.find(config.source), config, seed)
    return from_files(config, seed)


def load_with_validation(config) -> tuple[Data, ValidationSet]:
    """(what the run trains and tests on, the validation set). `config` is the whole run's config.

    An action that is demonstrated more often than `config.data.max_repeats` is capped on the training side
    alone.

    Raises InputError as `load` does, and when there are too few scenarios to set any aside.
    """
    data, c = load(config.data, config.seed), config.validation
    if not c.every:
        return _capped(data, config.data), ValidationSet([], [])
    if environments.is_name(config.data.source):
        environment = environments.find(config.data.source)
        tasks = environment.validation_tasks(c, config.data)
        if tasks is not None:
            return data, ValidationSet([environment.demonstrate(task) for task in tasks], tasks)
    scenarios = len({t.scenario for t in data.demonstrations})
    if scenarios < 2:
        raise InputError(
            f"config.validation.share is {c.share}, but {scenarios} training scenario cannot be divided; "
            "give more trajectories, or set config.validation.every to 0"
        )
    if c.turns:
        train, validation = split_turns(data.demonstrations, c.turns, c.seed)
    else:
        train, validation = split(data.demonstrations, c.share, c.seed)
    ids = {t.id for t in validation}
    tasks = [task for task in data.train_tasks if task.id in ids]
    train_tasks = [task for task in data.train_tasks if task.id not in ids]
    data = dataclasses.replace(data, demonstrations=train, train_tasks=train_tasks)
    return _capped(data, config.data), ValidationSet(validation, tasks)


def _capped(data: Data, config) -> Data:
    """`config.max_repeats` applied to trajectories from files: to those that are trained on alone, after
    every split, so that what is held out neither uses up the cap nor is thinned by it."""
    if environments.is_name(config.source):
        return data
    capped = filters.cap_repeats(data.demonstrations, config.max_repeats)
    return dataclasses.replace(data, demonstrations=capped)


def from_environment(environment: Environment, config, seed: int) -> Data:
    """The environment's tasks, demonstrated. `config` is the run's data section."""
    train = environment.train_tasks(config, seed)
    held_out = environment.held_out_tasks(config, seed)
    if held_out is None:
        train, held_out = divide(train, config, seed)
    return Data(
        demonstrations=[_demonstration(environment, task, config) for task in train],
        held_out=[_demonstration(environment, task, None) for task in held_out],
        held_out_tasks=_playable(held_out),
        skipped=environment.left_out(config),
        train_tasks=_playable(train),
    )


def divide(items: Sequence[Item], config, seed: int) -> tuple[list[Item], list[Item]]:
    """(training, held out) by `config.folds` where they are given, else by `config.held_out_share`."""
    if config.folds:
        return split_folds(items, config.folds, config.train_folds, config.held_out_folds)
    return split(items, config.held_out_share, seed)


def _demonstration(environment: Environment, task: Task | Trajectory, config) -> Trajectory:
    return task if isinstance(task, Trajectory) else environment.demonstrate(task, config)


def _playable(tasks: Sequence[Task | Trajectory]) -> list[Task]:
    return [task for task in tasks if not isinstance(task, Trajectory)]


def from_files(config, seed: int) -> Data:
    """Trajectories of any known format, filtered. There are no tasks to play, so only held-out turns can be
    evaluated.

    `config` is the run's data section. Failed trajectories are left out entirely. Turns whose call failed
    stay in the history but are not imitated. Actions demonstrated too often are capped after all splits, by
    `_capped`. Raises InputError.
    """
    paths = config.source.split(",")
    if not any(path.startswith("hf:") or Path(path).exists() for path in paths):
        known = ", ".join(environments.names())
        raise InputError(
            f"config.data.source is {config.source!r}, which is neither an environment ({known}) nor the "
            "path of a file or folder that exists; name one of these, or an environment of your own as "
            "'package.module:name'"
        )
    trajectories, skipped = reading.read(
        paths, config.format, config.verifier, config.on_bad_row, field="config.data.format"
    )
    tools = reading.read_tools_file(config.tools)
    trajectories = [t if t.tools else dataclasses.replace(t, tools=tools) for t in trajectories]
    trajectories, failed, _ = filters.successes(trajectories, config.min_reward)
    skipped |= {t.id: f"its reward is {t.reward}, below {config.min_reward}" for t in failed}
    low, high = config.min_pass_rate, config.max_pass_rate
    trajectories, outside, unrated = filters.within_pass_rates(
        trajectories, low, high, config.pass_rate_field
    )
    skipped |= outside
    if config.skip_error_turns:
        trajectories = filters.skip_errors(trajectories)
    options = config.verifier_options.to_dict()
    trajectories = [with_options(t, options) for t in trajectories[: config.limit or None]]
    train, held_out = divide(trajectories, config, seed)
    return Data(train, held_out, [], skipped, unrated=unrated)


def with_options(trajectory: Trajectory, options: dict) -> Trajectory:
    """Add the verifier's options to every turn's case; values that the case already has win."""
    if not options:
        return trajectory
    turns = [i for i, message in enumerate(trajectory.messages) if message["role"] == "assistant"]
    cases = {i: {**options, **trajectory.cases.get(i, {})} for i in turns}
    return dataclasses.replace(trajectory, cases=cases)
