"""The contract of an environment: what to write so that its tasks can be demonstrated, played and trained on.

An environment is three classes. A `Task` says what is to be done, an `Episode` is one attempt at it, and the
`Environment` says which tasks there are and how an expert does them. A complete example:

    class Riddle:                                       # a Task: any object with these three
        def __init__(self, number):
            self.id, self.scenario, self.number = f"riddle_{number}", f"riddle_{number}", number

        def start(self, max_steps):
            return Guessing(self.number)

    class Guessing(Episode):
        def __init__(self, number):
            super().__init__([{"role": "user", "content": f"What is {number} + 1?"}], tools=[])
            self.number, self.right = number, False

        def respond(self, action):                      # one action in, the new observation out
            self.right, self.done = action.content == str(self.number + 1), True
            return []

        def check(self):
            return Verdict(1.0, "ok") if self.right else Verdict(0.0, "wrong")

    class Riddles(Environment):
        name, prefixes = "riddles", ("riddle_",)

        def train_tasks(self, data, seed):
            return [Riddle(n) for n in range(data.demonstrations)]

        def find_task(self, task_id):
            return Riddle(int(task_id.removeprefix("riddle_")))

        def demonstrate(self, task, data=None):
            answer = {"role": "assistant", "content": str(task.number + 1)}
            messages = [*task.start(1).messages, answer]
            return Trajectory(task.id, messages, [], self.name, task.scenario, verifier="exact")

    riddles = Riddles()

`config.data.source = "my_package.my_module:riddles"` trains on it; so does its name alone, once the package
declares `riddles = "my_package.my_module:riddles"` in the entry-point group `pivotrl_jax.environments`. Each
turn of a demonstration is scored by the verifier that the trajectory names (verifiers/base.py).
"""

import abc
import hashlib
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from pivotrl_jax.environments.messages import assistant_message, tool_message
from pivotrl_jax.records import Action, Call, Message, Trajectory, Verdict


def fold_of(scenario: str, folds: int) -> int:
    """The fold of a scenario, from 0: a hash of its name alone, modulo `folds`."""
    return int.from_bytes(hashlib.sha256(scenario.encode()).digest()[:8], "big") % folds


class Episode(abc.ABC):
    """One attempt at a task: a policy reads `messages` and `tools` and acts by `step`, until `done`.

    Public state: `messages` (the conversation so far), `tools` (docs of the functions on offer), `done`,
    `turns` (actions so far) and `calls` (tool calls answered so far).
    """

    def __init__(self, messages: Sequence[Message], tools: Sequence[dict]):
        """`messages` and `tools` are the initial observation."""
        self.messages, self.tools = list(messages), list(tools)
        self.done, self.turns, self.calls = False, 0, 0

    def step(self, action: Action) -> list[Message]:
        """Play one action: append it and the answer to `messages`, and return the answer. Raises
        ValueError when the episode is done, and never because of the action."""
        if self.done:
            raise ValueError("this episode is done; start another")
        self.turns += 1
        self.messages.append(assistant_message(action, self.calls))
        observation = self.respond(action)
        self.messages += observation
        return observation

    @abc.abstractmethod
    def respond(self, action: Action) -> list[Message]:
        """Execute the action and return what comes back: `tool_message`s, the user's next words, or nothing.
        Sets `done` when the episode ends. Must not raise on an action: a policy may write anything."""

    @abc.abstractmethod
    def check(self) -> Verdict:
        """How the episode ended: reward 1 is success, the reason is a short word for the metrics."""

    def tool_message(self, call: Call, output: str) -> Message:
        """The message that answers the next call of the current action; answer them in order."""
        self.calls += 1
        return tool_message(self.calls - 1, call, output)


class Task(Protocol):
    """What is to be done. The same id always means the same task."""

    id: str
    scenario: str  # tasks that share a scenario stay on one side of a split

    def start(self, max_steps: int) -> Episode:
        """A new attempt, in which the policy may act `max_steps` times per user turn."""


class Environment(abc.ABC):
    """A source of tasks, named by `config.data.source`. `data` is the config's data section."""

    name: ClassVar[str]  # the `source` of its trajectories
    # the id of every task starts with one of these; the ids of other environments must not
    prefixes: ClassVar[tuple[str, ...]]

    @abc.abstractmethod
    def train_tasks(self, data: Any, seed: int) -> Sequence[Task | Trajectory]:
        """The tasks to learn from, all different. An item that can be demonstrated but not played is given as
        its demonstration, a Trajectory."""

    @abc.abstractmethod
    def find_task(self, task_id: str) -> Task:
        """The task with this id, which has one of the `prefixes`. Raises InputError when there is none."""

    @abc.abstractmethod
    def demonstrate(self, task: Task, data: Any = None) -> Trajectory:
        """An expert's trajectory through a task, with the task's id. `data` may say how it is demonstrated;
        None is the default way, used for held-out tasks. Raises InputError when the task cannot be done."""

    def held_out_tasks(self, data: Any, seed: int) -> Sequence[Task | Trajectory] | None:
        """The tasks to evaluate on. None means a share `data.held_out_share` of the training scenarios."""
        return None

    def validation_tasks(self, validation: Any, data: Any) -> Sequence[Task] | None:
        """The tasks of `config.validation`. None means its `share` of the training scenarios."""
        return None

    def left_out(self, data: Any) -> dict[str, str]:
        """Name -> reason, for what `data` asks for but cannot be demonstrated."""
        return {}

    def check_config(self, config: Any) -> None:
        """Raises InputError for values of the run's config that do not fit this environment."""
        return
