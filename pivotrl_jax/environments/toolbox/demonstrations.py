"""How the expert demonstrates a task: with one habit, many or foreign ones, with or without detours.

Every demonstration succeeds: it does what the ground truth does, so filters by success keep it. A detour is
an action that makes no progress: a slip (a wrong value, answered by an error and then corrected) or a look at
something that nobody asked about. It leaves the state as it was. The functional verifier, which asks for
progress, rejects detours; imitation learns them.
"""

import dataclasses
import random
from collections.abc import Iterator

from pivotrl_jax.environments.episode import Step, expert_of, replay
from pivotrl_jax.environments.tasks import ScriptedTask
from pivotrl_jax.environments.toolbox.docs import DEFAULTS
from pivotrl_jax.environments.toolbox.intents import KINDS
from pivotrl_jax.environments.toolbox.users import foreign_task
from pivotrl_jax.environments.world import World
from pivotrl_jax.records import Call, InputError, Trajectory

STYLES = {
    "diverse": "habits that differ from task to task, and are those of pretraining",
    "clean": "one habit for all tasks: a call per action, no defaults, arguments in the docs' order",
    "foreign": "habits that pretraining never showed: every default written out, arguments the other way "
    "round, a call per action, the last of several wishes first, other words; as right as the others",
}


def demonstrate(task: ScriptedTask, style: str = "diverse", detours: float = 0.0) -> Trajectory:
    """The expert's trajectory through a task.

    style: one of STYLES. detours: the chance that a detour precedes an action with calls. Raises InputError
    for other values.
    """
    if style not in STYLES:
        raise InputError(f"data.style is {style!r}; use one of {', '.join(STYLES)}")
    if not 0 <= detours <= 1:
        raise InputError(f"data.detours is {detours}; it is a chance, from 0 to 1")
    chance = random.Random(f"{task.id} detours").random  # the same stream in every Python version
    shown = foreign_task(task) if style == "foreign" else task

    def rewrite(turn: int, steps: list[Step]) -> list[Step]:
        if style == "clean":
            steps = [clean_step(step, i) for step in steps for i in range(len(step.calls))]
        rewritten = []
        for step in steps:
            if chance() < detours:
                rewritten += _detour(shown, turn, step, chance)
            rewritten.append(step)
        return rewritten

    trajectory = replay(shown, "toolbox", rewrite=rewrite)
    return dataclasses.replace(trajectory, id=task.id, origin=task.id)


def clean_step(step: Step, i: int) -> Step:
    """Call i of a step as a step of its own, without the arguments that equal their defaults."""
    call = step.calls[i]
    defaults = DEFAULTS[call.name]
    arguments = {
        name: call.arguments[name]
        for name, default in defaults.items()
        if name in call.arguments and (default is None or call.arguments[name] != default)
    }
    return Step([Call(call.name, arguments)], [step.outputs[i]], step.done + i)


def _detour(task: ScriptedTask, turn: int, step: Step, chance) -> list[Step]:
    """At most one detour before the step: a slip or a look, tried in random order."""
    expert = expert_of(task.id)
    world = expert.starts[turn].world()
    for call in expert.calls[turn][: step.done]:
        world.execute(call)
    remaining = {world.key(call) for call in expert.calls[turn][step.done :]}
    kinds = [(_slips(step.calls[0]), True), (_looks(world), False)]
    for options, fails in kinds if chance() < 0.5 else kinds[::-1]:
        options = list(options)
        while options:
            call = options.pop(int(chance() * len(options)))
            trial = world.copy()
            output, failed = trial.execute(call)
            if failed == fails and world.key(call) not in remaining and trial.same_state(world):
                return [Step([call], [output], step.done)]
    return []


def _slips(call: Call) -> Iterator[Call]:
    """The call with one value changed, which may or may not make it fail."""
    for name, value in call.arguments.items():
        if isinstance(value, str):
            yield Call(call.name, {**call.arguments, name: value[::-1]})
        elif type(value) is int:
            for other in (value + 1, value + 10, 100 - value):
                yield Call(call.name, {**call.arguments, name: other})


def _looks(world: World) -> Iterator[Call]:
    """Calls that only read, about things that exist."""
    state = world.state(private=False)
    for find, parameter, _, service, table in KINDS.values():
        for name in state.get(service, {}).get(table, {}):
            yield Call(find, {parameter: name})
    for room in state.get("Home", {}).get("heat", {}):
        yield Call("read_heat", {"room": room})
    for name in state.get("Chats", {}).get("people", {}):
        yield Call("read_message", {"name": name})
    for board in sorted({task["board"] for task in state.get("Tasks", {}).get("tasks", {}).values()}):
        yield Call("list_tasks", {"board": board})
    if "Cart" in state:
        yield Call("cart_total", {})
