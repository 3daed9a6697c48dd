"""Scripted tasks as episodes: the expert's replay, and a policy's attempt, scored by BFCL's rule.

An assistant turn is one *action*. After an action with calls, the same user turn continues; an action
without calls ends it.
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Mapping

from pivotrl_jax.environments import base, find_task
from pivotrl_jax.environments.messages import assistant_message, tool_message
from pivotrl_jax.environments.tasks import ScriptedTask
from pivotrl_jax.environments.world import Snapshot, World
from pivotrl_jax.records import Action, Call, InputError, Message, Trajectory, Verdict

# BFCL's ground truth has calls only. These are the expert's replies where a task has none of its own.
FINAL_REPLY = "Done: I have completed your request."
ABSTAIN_REPLY = "I cannot do this yet: a function or a piece of information that it needs is missing."


@dataclasses.dataclass(frozen=True)
class Expert:
    """The ground truth of one task, executed in this process (outputs differ between Python versions)."""

    task: ScriptedTask
    calls: list[list[Call]]  # per user turn
    outputs: list[list[str]]  # per user turn, one text per call
    failures: list[str]  # "turn 1, call 0: ..." for each call that failed; a sound task has none
    starts: list[Snapshot]  # per user turn, the world before it
    ends: list[World]  # per user turn, the world after it; read only


def play_expert(task: ScriptedTask, backends: Mapping[str, type] | None = None) -> Expert:
    """Execute a task's ground truth. Raises InputError when the task does not fit its backends."""
    world = World(task, backends)
    calls, outputs, failures, starts, ends = [], [], [], [], []
    for turn, texts in enumerate(task.ground_truth):
        starts.append(world.snapshot())
        calls.append([world.expert_call(text) for text in texts])
        outputs.append([])
        for i, call in enumerate(calls[-1]):
            output, failed = world.execute(call)
            outputs[-1].append(output)
            if failed:
                failures.append(f"turn {turn}, call {i}: {texts[i][:100]} -> {output[:200]}")
        ends.append(world.copy())
    return Expert(task, calls, outputs, failures, starts, ends)


@functools.lru_cache(maxsize=512)
def expert_of(task_id: str) -> Expert:
    """`play_expert` of the task with this id, cached for the last 512 tasks."""
    return play_expert(find_task(task_id))


def _bundles(task: ScriptedTask, turn: int) -> list[int]:
    sizes = task.bundles[turn] if task.bundles else []
    return sizes or [1] * len(task.ground_truth[turn])


@dataclasses.dataclass(frozen=True)
class Step:
    """An action with calls in a demonstration, and what the calls returned."""

    calls: list[Call]
    outputs: list[str]
    done: int  # how many of this user turn's ground-truth calls were made before it


def replay(
    task: ScriptedTask,
    source: str = "bfcl",
    backends: Mapping[str, type] | None = None,
    rewrite: Callable[[int, list[Step]], list[Step]] | None = None,
) -> Trajectory:
    """The expert's trajectory: one call per action unless `task.bundles` says otherwise, then a text per user
    turn.

    The texts are `task.replies`, or placeholders. In a user turn without ground truth the expert only talks.
    `rewrite(user turn, steps)` may replace the calling actions of a user turn; `source` is the trajectory's.
    Raises InputError when a ground-truth call fails or does not fit the backends.
    """
    expert = play_expert(task, backends)
    if expert.failures:
        raise InputError(f"task {task.id}: ground truth fails at {expert.failures[0]}; leave the task out")
    messages: list[Message] = []
    cases: dict[int, dict] = {}
    number = 0
    for turn, calls in enumerate(expert.calls):
        messages += task.messages(turn)
        steps = []
        for size in _bundles(task, turn):
            done = sum(len(step.calls) for step in steps)
            steps.append(Step(calls[done : done + size], expert.outputs[turn][done : done + size], done))
        for step in rewrite(turn, steps) if rewrite else steps:
            cases[len(messages)] = {"row": task.id, "turn": turn, "k": step.done}
            messages.append(assistant_message(Action(calls=tuple(step.calls)), number))
            for call, output in zip(step.calls, step.outputs, strict=True):
                messages.append(tool_message(number, call, output))
                number += 1
        cases[len(messages)] = {"row": task.id, "turn": turn, "k": len(calls)}
        reply = task.replies[turn] if task.replies else ""
        messages.append({"role": "assistant", "content": reply or (FINAL_REPLY if calls else ABSTAIN_REPLY)})
    return Trajectory(
        id=task.id,
        messages=messages,
        tools=task.offered(0),
        source=source,
        scenario=task.scenario,
        verifier="bfcl_multi_turn",
        cases=cases,
        origin=task.id,
    )


class ScriptedEpisode(base.Episode):
    """A scripted task, played by a policy and scored by BFCL's multi-turn rule (`multi_turn_checker.py`).

    The rule is checked at the end of each user turn with ground truth: at least one call was made in the
    turn; every backend's public attributes equal the expert's; and the expert's outputs of the turn are among
    all outputs so far (counted). Extra calls, failed calls and any order of calls are tolerated. More than
    `max_steps` calling actions in one user turn fail the episode, as in BFCL (which allows 20). A failed
    episode ends at once, whereas BFCL plays on.
    """

    def __init__(self, task: ScriptedTask, max_steps: int = 20, backends: Mapping[str, type] | None = None):
        """Raises InputError when the task does not fit its backends."""
        super().__init__(task.messages(0), task.offered(0))
        self.task = task
        self.max_steps = max_steps
        self.user_turn = 0
        self._expert = expert_of(task.id) if backends is None else play_expert(task, backends)
        if self._expert.task is not task and self._expert.task != task:  # another task with the same id
            self._expert = play_expert(task, backends)
        self._world = self._expert.starts[0].world()
        self._outputs: Counter[str] = Counter()
        self._steps = 0  # calling actions in this user turn
        self._verdict = Verdict(0.0, "unfinished")

    def respond(self, action: Action) -> list[Message]:
        """Execute the action's calls, or go on to the next user turn."""
        if action.malformed or not action.calls:
            return self._end_user_turn()
        self._steps += 1
        if self._steps > self.max_steps:
            return self._finish(
                0.0, "too_many_steps", f"user turn {self.user_turn}: more than {self.max_steps}"
            )
        answers = []
        for call in action.calls:
            output = self._world.call(call)
            self._outputs[output] += 1
            answers.append(self.tool_message(call, output))
        return answers

    def check(self) -> Verdict:
        """Reward 1 for a passed episode; else 0 and why it failed ("unfinished" before the end)."""
        return self._verdict

    def _finish(self, reward: float, reason: str, details: str = "") -> list[Message]:
        self.done = True
        self._verdict = Verdict(reward, reason, details)
        return []

    def _end_user_turn(self) -> list[Message]:
        turn, expert = self.user_turn, self._expert
        if expert.calls[turn]:
            missing = Counter(expert.outputs[turn]) - self._outputs
            if not self._steps:
                return self._finish(0.0, "no_call", f"user turn {turn}")
            if not self._world.same_state(expert.ends[turn], private=False):
                return self._finish(0.0, "state", f"user turn {turn}")
            if missing:
                return self._finish(0.0, "response", f"user turn {turn}: {next(iter(missing))[:200]}")
        self.user_turn, self._steps = turn + 1, 0
        if self.user_turn == len(self.task.user_turns):
            return self._finish(1.0, "ok")
        return self.task.messages(self.user_turn)
