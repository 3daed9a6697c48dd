"""From a config's `data` section to demonstrations and held-out tasks. Words only: no jax.

Sources: "toolbox" (the embedded world), "bfcl" (BFCL's multi-turn rows, replayed), or paths of trajectories
in any format that `trajectories.reading` knows, separated by commas. Scenarios never straddle the split.
"""

import dataclasses
from collections.abc import Sequence

from pivotrl_jax.environments import episode
from pivotrl_jax.environments.bfcl import demonstrations as bfcl_demonstrations
from pivotrl_jax.environments.tasks import Task
from pivotrl_jax.environments.toolbox import demonstrations as demonstrations_lib
from pivotrl_jax.environments.toolbox import users
from pivotrl_jax.records import InputError, Trajectory
from pivotrl_jax.trajectories import filters, reading
from pivotrl_jax.trajectories.split import split


@dataclasses.dataclass(frozen=True)
class Data:
    """Demonstrations to learn from, and what is held out for evaluation."""

    demonstrations: list[Trajectory]
    held_out: list[Trajectory]  # the experts' trajectories through the held-out tasks
    rows: list[Task]  # the held-out tasks that can be played; empty for plain trajectories
    skipped: dict[str, str]  # "file:line" -> why
    train_rows: list[Task] = dataclasses.field(
        default_factory=list
    )  # the demonstrations' own tasks, likewise


def from_toolbox(
    demonstrations: int,
    held_out_tasks: int,
    held_out_seed: int,
    seed: int,
    style: str = "diverse",
    detours: float = 0.0,
) -> Data:
    """Rows of the "train" split as demonstrations, told as `toolbox.demonstrate` says, of the "test" split
    (other values, other phrasings) held out.

    The test tasks do not depend on `seed`, so runs with different seeds are compared on the same tasks.
    """
    if demonstrations < 1 or held_out_tasks < 1:
        raise InputError(
            f"data.demonstrations is {demonstrations} and data.held_out_tasks is {held_out_tasks}; "
            "both must be positive"
        )
    train_rows = users.rows("train", demonstrations, seed)
    rows = users.rows("test", held_out_tasks, held_out_seed)
    return Data(
        [demonstrations_lib.demonstrate(row, style, detours) for row in train_rows],
        [episode.replay(row) for row in rows],
        rows,
        {},
        train_rows,
    )


def from_bfcl(categories: Sequence[str], limit: int, held_out_share: float, seed: int) -> Data:
    """BFCL rows, multi-turn and single-turn, split by scenario across categories. `limit` 0 takes all rows.

    Only multi-turn rows can be played as episodes; the turns of both are scored.
    """
    from pivotrl_jax.environments import find_row
    from pivotrl_jax.environments.bfcl.rows import MULTI_TURN

    trajectories, skipped = [], {}
    for category in categories:
        if category in MULTI_TURN:
            trajectories += bfcl_demonstrations.multi_turn([category], limit or None)
        else:
            trajectories += bfcl_demonstrations.single_turn([category], limit or None)
            skipped |= bfcl_demonstrations.excluded([category])
    trajectories = trajectories[: limit or None]
    train, held_out = split(trajectories, held_out_share, seed)
    rows, train_rows = (
        [find_row(t.id) for t in side if t.verifier == "bfcl_multi_turn"] for side in (held_out, train)
    )
    return Data(train, held_out, rows, skipped, train_rows)


def from_files(config, seed: int) -> Data:
    """Trajectories of any known format, filtered. There is no world to play in, so held-out turns are all
    that can be evaluated.

    `config` is the run's data section. Trajectories that failed are left out whole; turns whose call failed
    and actions demonstrated too often are history that is not imitated.
    """
    paths = config.source.split(",")
    trajectories, skipped = reading.read(
        paths, config.format, config.verifier, config.on_bad_row, field="config.data.format"
    )
    tools = reading.read_tools_file(config.tools)
    trajectories = [t if t.tools else dataclasses.replace(t, tools=tools) for t in trajectories]
    trajectories, failed, _ = filters.successes(trajectories, config.min_reward)
    skipped |= {t.id: f"its reward is {t.reward}, below {config.min_reward}" for t in failed}
    if config.skip_error_turns:
        trajectories = filters.skip_errors(trajectories)
    trajectories = filters.cap_repeats(trajectories, config.max_repeats)
    options = config.verifier_options.to_dict()
    trajectories = [with_options(t, options) for t in trajectories[: config.limit or None]]
    train, held_out = split(trajectories, config.held_out_share, seed)
    return Data(train, held_out, [], skipped)


def with_options(trajectory: Trajectory, options: dict) -> Trajectory:
    """The verifier's options in every turn's case, under what the turn's own case says."""
    if not options:
        return trajectory
    turns = [i for i, message in enumerate(trajectory.messages) if message["role"] == "assistant"]
    cases = {i: {**options, **trajectory.cases.get(i, {})} for i in turns}
    return dataclasses.replace(trajectory, cases=cases)


def load(config, seed: int) -> Data:
    """`config` is the run's data section: see configs/bfcl.py for its fields."""
    if config.source == "toolbox":
        count = min(config.demonstrations, config.limit) if config.limit else config.demonstrations
        told = config.style, config.detours
        return from_toolbox(count, config.held_out_tasks, config.held_out_seed, seed, *told)
    if config.source == "bfcl":
        return from_bfcl(list(config.categories), config.limit, config.held_out_share, seed)
    return from_files(config, seed)


@dataclasses.dataclass(frozen=True)
class ValidationSet:
    """What is held for validation: the experts' trajectories, and the tasks among them that can be played."""

    trajectories: list[Trajectory]
    rows: list[Task]


def load_with_validation(config) -> tuple[Data, ValidationSet]:
    """(the run's data without what is held for validation, that). `config` is a run's. Raises InputError when
    there are too few scenarios to take any out."""
    data, c = load(config.data, config.seed), config.validation
    if not c.every:
        return data, ValidationSet([], [])
    if config.data.source == "toolbox":
        rows = users.rows("test", c.tasks, c.seed)
        return data, ValidationSet([episode.replay(row) for row in rows], rows)
    scenarios = len({t.scenario for t in data.demonstrations})
    if scenarios < 2:
        raise InputError(
            f"config.validation.share is {c.share}, but {scenarios} training scenario cannot be divided; "
            "give more trajectories, or set config.validation.every to 0"
        )
    kept, taken = split(data.demonstrations, c.share, c.seed)
    ids = {t.id for t in taken}
    rows = [row for row in data.train_rows if row.id in ids]
    train_rows = [row for row in data.train_rows if row.id not in ids]
    return dataclasses.replace(data, demonstrations=kept, train_rows=train_rows), ValidationSet(taken, rows)
