"""From a config's `data` section to demonstrations and held-out tasks. Words only: no jax.

Sources: "toolbox" (the embedded world), "bfcl" (BFCL's multi-turn rows, replayed), or a path to
chat-messages JSONL. Scenarios never straddle the split.
"""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from pivotrl_jax.environments import episode, toolbox
from pivotrl_jax.environments.rows import Row
from pivotrl_jax.records import InputError, Trajectory
from pivotrl_jax.trajectories import bfcl, openai_chat
from pivotrl_jax.trajectories.split import split


@dataclasses.dataclass(frozen=True)
class Data:
    """Demonstrations to learn from, and what is held out for evaluation."""

    demonstrations: list[Trajectory]
    held_out: list[Trajectory]  # the experts' trajectories through the held-out tasks
    rows: list[Row]  # the held-out tasks that can be played; empty for plain trajectories
    skipped: dict[str, str]  # "file:line" -> why


def from_toolbox(demonstrations: int, held_out_tasks: int, seed: int) -> Data:
    """Rows of the "train" split as demonstrations, of the "test" split (other values, other phrasings) held
    out.

    The test tasks do not depend on `seed`, so runs with different seeds are compared on the same tasks.
    """
    if demonstrations < 1 or held_out_tasks < 1:
        raise InputError(
            f"data.demonstrations is {demonstrations} and data.held_out_tasks is {held_out_tasks}; "
            "both must be positive"
        )
    train = [episode.replay(row) for row in toolbox.rows("train", demonstrations, seed)]
    rows = toolbox.rows("test", held_out_tasks, 0)
    return Data(train, [episode.replay(row) for row in rows], rows, {})


def from_bfcl(categories: Sequence[str], limit: int, held_out_share: float, seed: int) -> Data:
    """BFCL rows, multi-turn and single-turn, split by scenario across categories. `limit` 0 takes all rows.

    Only multi-turn rows can be played as episodes; the turns of both are scored.
    """
    from pivotrl_jax.environments import find_row
    from pivotrl_jax.environments.bfcl import MULTI_TURN

    trajectories, skipped = [], {}
    for category in categories:
        if category in MULTI_TURN:
            trajectories += bfcl.multi_turn([category], limit or None)
        else:
            trajectories += bfcl.single_turn([category], limit or None)
            skipped |= bfcl.excluded([category])
    trajectories = trajectories[: limit or None]
    train, held_out = split(trajectories, held_out_share, seed)
    rows = [find_row(t.id) for t in held_out if t.verifier == "bfcl_multi_turn"]
    return Data(train, held_out, rows, skipped)


def from_messages(
    path: str | Path, verifier: str, on_bad_row: str, limit: int, held_out_share: float, seed: int
) -> Data:
    """Chat-messages JSONL. There is no world to play in, so held-out turns are all that can be evaluated."""
    trajectories, skipped = openai_chat.read(path, verifier, on_bad_row)
    train, held_out = split(trajectories[: limit or None], held_out_share, seed)
    matches = [re.match(r"(.*?:\d+): (.*)", sentence, re.DOTALL) for sentence in skipped.sentences]
    named = {match[1]: match[2] for match in matches}  # "file:line: why"
    return Data(train, held_out, [], named)


def load(config, seed: int) -> Data:
    """`config` is the run's data section: see configs/bfcl.py for its fields."""
    if config.source == "toolbox":
        count = min(config.demonstrations, config.limit) if config.limit else config.demonstrations
        return from_toolbox(count, config.held_out_tasks, seed)
    if config.source == "bfcl":
        return from_bfcl(list(config.categories), config.limit, config.held_out_share, seed)
    return from_messages(
        config.source, config.verifier, config.on_bad_row, config.limit, config.held_out_share, seed
    )
