"""Rows as episodes: the expert's replay, and on-policy play judged by BFCL's rule.

An assistant turn is one *action*. Actions with calls go on in the same user turn; an action without calls
ends it.
"""

import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Callable, Mapping

from pivotrl_jax.chat.actions import action_to_message
from pivotrl_jax.environments import find_row
from pivotrl_jax.environments.tasks import Task
from pivotrl_jax.environments.world import Snapshot, World
from pivotrl_jax.records import Action, Call, InputError, Message, Trajectory, Verdict

# BFCL's ground truth has calls only. These stand for the expert's words where a row brings none.
FINAL_REPLY = "Done: I have completed your request."


ABSTAIN_REPLY = "I cannot do this yet: a function or a piece of information that it needs is missing."


@dataclasses.dataclass(frozen=True)
class Expert:
    """The ground truth of one row, executed in this process (outputs differ between Python versions)."""

    row: Task
    calls: list[list[Call]]  # per user turn
    outputs: list[list[str]]  # per user turn, one text per call
    failures: list[str]  # "turn 1, call 0: ..." for calls that failed: a broken row
    starts: list[Snapshot]  # per user turn, the world before it
    ends: list[World]  # per user turn, the world after it; read only


def play_expert(row: Task, backends: Mapping[str, type] | None = None) -> Expert:
    """Execute a row's ground truth. Raises InputError when the row does not fit its backends."""
    world = World(row, backends)
    calls, outputs, failures, starts, ends = [], [], [], [], []
    for turn, texts in enumerate(row.ground_truth):
        starts.append(world.snapshot())
        calls.append([world.expert_call(text) for text in texts])
        outputs.append([])
        for i, call in enumerate(calls[-1]):
            output, failed = world.execute(call)
            outputs[-1].append(output)
            if failed:
                failures.append(f"turn {turn}, call {i}: {texts[i][:100]} -> {output[:200]}")
        ends.append(world.copy())
    return Expert(row, calls, outputs, failures, starts, ends)


@functools.lru_cache(maxsize=512)
def expert_of(row_id: str) -> Expert:
    """`play_expert` of the row with this id, kept for the last 512 rows."""
    return play_expert(find_row(row_id))


def assistant_message(action: Action, first: int) -> Message:
    """`chat.action_to_message`, calls numbered from `first`. Arguments that JSON cannot show become {}."""
    message = action_to_message(action)
    for i, call in enumerate(message.get("tool_calls", [])):
        call["id"] = f"call_{first + i}"
        call["function"]["arguments"] = _showable(call["function"]["arguments"])
    return message


def _showable(arguments: object) -> dict:
    if not isinstance(arguments, dict):
        return {}
    try:
        json.dumps(arguments, ensure_ascii=False).encode("utf-8")
    except (TypeError, ValueError, RecursionError):  # lone surrogates are a ValueError
        return {}
    return arguments


def _tool_message(number: int, call: Call, output: str) -> Message:
    return {"role": "tool", "tool_call_id": f"call_{number}", "name": call.name, "content": output}


def _bundles(row: Task, turn: int) -> list[int]:
    sizes = row.bundles[turn] if row.bundles else []
    return sizes or [1] * len(row.ground_truth[turn])


@dataclasses.dataclass(frozen=True)
class Step:
    """A calling action of a demonstration, and what its calls returned."""

    calls: list[Call]
    outputs: list[str]
    done: int  # the ground truth's calls of this user turn that were made before


def replay(
    row: Task,
    backends: Mapping[str, type] | None = None,
    retell: Callable[[int, list[Step]], list[Step]] | None = None,
) -> Trajectory:
    """The expert's trajectory: one call per action unless `row.bundles` says otherwise, then a text per user
    turn.

    The texts are `row.replies`, or a placeholder. A user turn without ground truth is a turn to abstain at.
    `retell` may put other calling actions in place of a user turn's.
    Raises InputError when a ground-truth call fails or does not fit the backends.
    """
    expert = play_expert(row, backends)
    if expert.failures:
        raise InputError(f"row {row.id}: ground truth fails at {expert.failures[0]}; leave the row out")
    messages: list[Message] = []
    cases: dict[int, dict] = {}
    number = 0
    for turn, calls in enumerate(expert.calls):
        messages += row.messages(turn)
        steps = []
        for size in _bundles(row, turn):
            done = sum(len(step.calls) for step in steps)
            steps.append(Step(calls[done : done + size], expert.outputs[turn][done : done + size], done))
        for step in retell(turn, steps) if retell else steps:
            cases[len(messages)] = {"row": row.id, "turn": turn, "k": step.done}
            messages.append(assistant_message(Action(calls=tuple(step.calls)), number))
            for call, output in zip(step.calls, step.outputs, strict=True):
                messages.append(_tool_message(number, call, output))
                number += 1
        cases[len(messages)] = {"row": row.id, "turn": turn, "k": len(calls)}
        reply = row.replies[turn] if row.replies else ""
        messages.append({"role": "assistant", "content": reply or (FINAL_REPLY if calls else ABSTAIN_REPLY)})
    return Trajectory(
        id=row.id,
        messages=messages,
        tools=row.offered(0),
        source="toolbox" if row.id.startswith("toolbox_") else "bfcl",
        scenario=row.scenario,
        verifier="bfcl_multi_turn",
        cases=cases,
        origin=row.id,
    )


class Episode:
    """One row played by a policy. Read `messages` and `tools`, `step` until `done`, then ask for the
    `verdict`.

    BFCL's multi-turn rule (`multi_turn_checker.py`), checked as each user turn with ground truth ends: at
    least one call was made in it; every backend's public attributes equal the expert's; the expert's outputs
    of this turn are among all outputs so far, counted. Extra calls, any order and failed calls are tolerated.
    More than `max_steps` calling actions in one user turn fail the episode, as in BFCL (which allows 20).
    Unlike BFCL, which plays on, an episode that has failed is done.
    """

    def __init__(self, row: Task, max_steps: int = 20, backends: Mapping[str, type] | None = None):
        """Raises InputError when the row does not fit its backends."""
        self.row = row
        self.max_steps = max_steps
        self.tools = row.offered(0)
        self.messages: list[Message] = row.messages(0)
        self.done = False
        self.turns = 0  # actions played
        self.calls = 0  # calls made
        self.user_turn = 0
        self._expert = expert_of(row.id) if backends is None else play_expert(row, backends)
        if self._expert.row is not row and self._expert.row != row:  # another row under a known id
            self._expert = play_expert(row, backends)
        self._world = self._expert.starts[0].world()
        self._seen: Counter[str] = Counter()
        self._steps = 0  # calling actions in this user turn
        self._verdict = Verdict(0.0, "unfinished")

    def step(self, action: Action) -> None:
        """Play one action. Raises ValueError when the episode is done, nothing on account of the action."""
        if self.done:
            raise ValueError(f"episode {self.row.id} is done")
        self.turns += 1
        self.messages.append(assistant_message(action, self.calls))
        if action.malformed or not action.calls:
            self._end_user_turn()
            return
        self._steps += 1
        if self._steps > self.max_steps:
            self._finish(0.0, "too_many_steps", f"user turn {self.user_turn}: more than {self.max_steps}")
            return
        for call in action.calls:
            output = self._world.call(call)
            self._seen[output] += 1
            self.messages.append(_tool_message(self.calls, call, output))
            self.calls += 1

    def verdict(self) -> Verdict:
        """Reward 1 for a passed episode; else 0 and where it failed ("unfinished" before the end)."""
        return self._verdict

    def _finish(self, reward: float, reason: str, details: str = "") -> None:
        self.done = True
        self._verdict = Verdict(reward, reason, details)

    def _end_user_turn(self) -> None:
        turn, expert = self.user_turn, self._expert
        if expert.calls[turn]:
            missing = Counter(expert.outputs[turn]) - self._seen
            if not self._steps:
                return self._finish(0.0, "no_call", f"user turn {turn}")
            if not self._world.same_state(expert.ends[turn], private=False):
                return self._finish(0.0, "state", f"user turn {turn}")
            if missing:
                return self._finish(0.0, "response", f"user turn {turn}: {next(iter(missing))[:200]}")
        self.user_turn, self._steps = turn + 1, 0
        if self.user_turn == len(self.row.user_turns):
            return self._finish(1.0, "ok")
        self.messages += self.row.messages(self.user_turn)
        return None
