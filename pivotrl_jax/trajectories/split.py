"""Training and held-out trajectories, split by scenario so that nothing leaks."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeVar

from pivotrl_jax.environments.base import fold_of
from pivotrl_jax.records import InputError, Trajectory

Item = TypeVar("Item")  # a trajectory or a task: anything with a `scenario`


def split(items: Sequence[Item], held_out_share: float, seed: int) -> tuple[list[Item], list[Item]]:
    """(training, held out), both in the given order; a scenario is wholly on one side.

    Scenarios are ranked by a hash of (seed, scenario) and the first `held_out_share` of them are held out: at
    least one if the share is above 0, and never all. The split is the same on every machine and for any order
    of `items`. Raises InputError for a share outside [0, 1), or a share above 0 with fewer than two
    scenarios.
    """
    if not 0 <= held_out_share < 1:
        raise InputError(f"held_out_share is {held_out_share}; want a share in [0, 1)")
    scenarios = {item.scenario for item in items}
    count = 0
    if held_out_share > 0:
        if len(scenarios) < 2:
            raise InputError(
                f"{len(scenarios)} scenario cannot be split; give more (rows that name no scenario share one "
                "if they begin with the same messages) or set held_out_share to 0"
            )
        count = min(max(round(held_out_share * len(scenarios)), 1), len(scenarios) - 1)
    return _divided(items, set(_ranked(scenarios, seed)[:count]))


def split_folds(
    items: Sequence[Item], folds: int, train: Sequence[int], held_out: Sequence[int]
) -> tuple[list[Item], list[Item]]:
    """(training, held out) like `split`: the items of the scenarios in the folds `train` and `held_out`.

    A scenario's fold is a hash of its name alone, modulo `folds`, so that runs with other seeds, or on other
    rows of the same scenarios, divide alike. Raises InputError where no item is in the folds `train`.
    """
    fold = {s: fold_of(s, folds) for s in {item.scenario for item in items}}
    parts = [[item for item in items if fold[item.scenario] in part] for part in (train, held_out)]
    if not parts[0]:
        raise InputError(
            f"config.data.train_folds {tuple(train)} of {folds} hold none of the {len(fold)} scenarios; "
            "name other folds, or give more trajectories"
        )
    return parts[0], parts[1]


def split_turns(
    trajectories: Sequence[Trajectory], turns: int, seed: int
) -> tuple[list[Trajectory], list[Trajectory]]:
    """(training, held out) like `split`, where the held-out scenarios, in their ranking, are the first that
    hold at least `turns` turns which are not skipped. Raises InputError if no scenario would be left to train
    on.
    """
    sizes: Counter[str] = Counter()
    for t in trajectories:
        sizes[t.scenario] += sum(
            m["role"] == "assistant" and 0 < i and i not in t.skip for i, m in enumerate(t.messages)
        )
    held_out: set[str] = set()
    left = turns
    for scenario in _ranked(sizes, seed):
        if left <= 0:
            break
        held_out.add(scenario)
        left -= sizes[scenario]
    if left > 0 or len(held_out) == len(sizes):
        raise InputError(
            f"config.validation.turns is {turns}, but the {len(sizes)} training scenarios hold "
            f"{sizes.total()} turns and one scenario must be left to train on; set it lower, or give more"
        )
    return _divided(trajectories, held_out)


def _ranked(scenarios: Iterable[str], seed: int) -> list[str]:
    return sorted(scenarios, key=lambda s: (hashlib.sha256(f"{seed}\0{s}".encode()).digest(), s))


def _divided(items: Sequence[Item], held_out: set[str]) -> tuple[list[Item], list[Item]]:
    return (
        [item for item in items if item.scenario not in held_out],
        [item for item in items if item.scenario in held_out],
    )
