"""Filters for what is worth imitating: successful episodes, turns that the environment accepted, and actions
that are not repeated too often. (`extract.limit_prompts` leaves out prompts that are too long.)

A filter never removes a message. A turn that is not imitated stays in the history and is listed in `skip`.
"""

import collections
import dataclasses
import json
import re
from collections.abc import Iterable

from pivotrl_jax.records import Message, Trajectory
from pivotrl_jax.trajectories.readers import nemo_gym, terminus
from pivotrl_jax.trajectories.readers.building import CALL_ERROR, REPEATED

MAX_REPEATS = 50  # as many as NVIDIA's converter of terminal demonstrations keeps per group of commands

ERROR = re.compile(r"\s*error\b(?![-./\\]\w)", re.IGNORECASE)  # "error.log", which ls shows, is none


def successes(
    trajectories: Iterable[Trajectory], min_reward: float | None
) -> tuple[list[Trajectory], list[Trajectory], int]:
    """(kept, left out, how many of the kept have no recorded reward).

    A trajectory without a recorded reward is always kept. `min_reward` None keeps all.
    """
    passed, failed, unknown = [], [], 0
    for trajectory in trajectories:
        if min_reward is None or trajectory.reward is None or trajectory.reward >= min_reward:
            passed.append(trajectory)
            unknown += trajectory.reward is None
        else:
            failed.append(trajectory)
    return passed, failed, unknown


def within_pass_rates(
    trajectories: Iterable[Trajectory], low: float, high: float, field: str = ""
) -> tuple[list[Trajectory], dict[str, str], int]:
    """(kept, id -> why it was left out, how many of the kept have no pass rate), by the pass rates that are
    published with NeMo Gym's rows (`nemo_gym.pass_rate`, which explains `field`).

    Rates from `low` to `high` are kept, both included. A row without a rate is always kept. 0 to 1 keeps all.
    """
    if low <= 0 and high >= 1:
        return list(trajectories), {}, 0
    kept, left_out, unknown = [], {}, 0
    for trajectory in trajectories:
        rate = _pass_rate(trajectory, field)
        if rate is not None and rate < low:
            left_out[trajectory.id] = f"pass_rate_low: its published pass rate is {rate:g}, below {low:g}"
        elif rate is not None and rate > high:
            left_out[trajectory.id] = f"pass_rate_high: its published pass rate is {rate:g}, above {high:g}"
        else:
            kept.append(trajectory)
            unknown += rate is None
    return kept, left_out, unknown


def _pass_rate(trajectory: Trajectory, field: str) -> float | None:
    rows = (case.get("nemo_gym") for case in trajectory.cases.values())
    return next((nemo_gym.pass_rate(row, field) for row in rows if isinstance(row, dict)), None)


def is_error(result: Message) -> bool:
    """Whether a tool result is an error: the source says so ("error": True), or its text begins with "Error".

    Nothing else counts as an error: a traceback in a command's output may be just what the turn should show.
    """
    return result.get("error") is True or bool(ERROR.match(result.get("content") or ""))


def skip_errors(trajectories: Iterable[Trajectory]) -> list[Trajectory]:
    """Skip every turn with a call that was answered by an error."""
    out = []
    for trajectory in trajectories:
        skip = dict(trajectory.skip)
        turn = -1
        for i, message in enumerate(trajectory.messages):
            if message["role"] == "assistant":
                turn = i
            elif message["role"] == "tool" and turn >= 0 and is_error(message):
                skip.setdefault(turn, CALL_ERROR)
        out.append(dataclasses.replace(trajectory, skip=skip))
    return out


def action_key(message: Message, verifier: str) -> str:
    """A key that is equal for turns that do the same: their calls (name, arguments), keystrokes, or text."""
    calls = [(c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls") or []]
    if calls:
        return json.dumps(["calls", calls], sort_keys=True)
    typed = terminus.turn(message.get("content") or "") if verifier == terminus.VERIFIER else None
    return json.dumps(["typed", *typed] if typed else ["said", (message.get("content") or "").strip()])


def cap_repeats(trajectories: Iterable[Trajectory], max_repeats: int = MAX_REPEATS) -> list[Trajectory]:
    """Keep the first `max_repeats` turns of each action over the whole set and skip the rest; 0: no cap."""
    counts: collections.Counter[str] = collections.Counter()
    out = []
    for trajectory in trajectories:
        skip = dict(trajectory.skip)
        for i, message in enumerate(trajectory.messages):
            if message["role"] == "assistant" and i not in skip:
                key = action_key(message, trajectory.verifier)
                counts[key] += 1
                if 0 < max_repeats < counts[key]:
                    skip[i] = REPEATED
        out.append(dataclasses.replace(trajectory, skip=skip))
    return out
