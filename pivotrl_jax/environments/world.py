"""A world: the live backends of one scripted task. Calls come in as data; the results are texts as BFCL's
executor prints them.

A call reaches only the functions in the task's docs: no other name is looked up, and nothing that a model
wrote is evaluated. A call also leaves no traces outside its world: the configuration is copied before it is
loaded, the loaded state is copied again (BFCL backends share module-level dicts between instances), and
mutable defaults are copied for every call.
"""

import copy
import dataclasses
import decimal
import inspect
import json
import math
import pickle
from collections.abc import Mapping
from typing import Any

from pivotrl_jax.environments import backends_for
from pivotrl_jax.environments.tasks import ScriptedTask, parse_call
from pivotrl_jax.records import Call, InputError

# Parameters that set the size of a computation (MathAPI's power, logarithm, square_root, round_number): a
# sampled exponent of 10**9 would hang the run. The largest value in BFCL's ground truth is far smaller.
SIZE_PARAMETERS = frozenset({"exponent", "precision", "decimal_places"})
SIZE_LIMIT = 1_000
BASE_LIMIT = 2**64
REPEAT_LIMIT = 1_000_000  # repetitions of a text or list by Python's `*`
NUMBER_TYPES = frozenset({"integer", "float", "number"})


@dataclasses.dataclass(frozen=True)
class _Function:
    """One documented function and the class that has it."""

    owner: str
    properties: dict[str, Any]  # documented parameters
    parameters: tuple[str, ...]  # the signature's, in order
    defaults: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The state of a world as bytes: cheap to store, safe to share, and restored as often as needed."""

    task: ScriptedTask
    functions: dict[str, _Function]
    frozen: bytes

    def world(self) -> "World":
        """A fresh world in this state."""
        # Safe to unpickle: `snapshot` wrote the bytes, and a model adds only JSON values to the state.
        return World._make(self.task, self.functions, pickle.loads(self.frozen))


class World:
    """The task's backends. `call` changes their state; `copy` and `snapshot` preserve it."""

    def __init__(self, task: ScriptedTask, backends: Mapping[str, type] | None = None):
        """Load the task's initial state. `backends` maps class names to classes; None: those of the task's
        environment.

        Raises InputError when a class is unknown, a doc has no function, or the initial state does not load.
        """
        backends = backends_for(task.id) if backends is None else backends
        long_context = "long_context" in task.category or "composite" in task.category
        instances = {}
        for name in task.involved_classes:
            if name not in backends:
                raise InputError(
                    f"task {task.id}: field 'involved_classes' names {name!r}, want one of {sorted(backends)}"
                )
            instances[name] = backends[name]()
            load = getattr(instances[name], "_load_scenario", None)  # stateless classes have none
            if load is not None:
                config = copy.deepcopy(task.initial_config.get(name, {}))
                try:
                    load(config, long_context=long_context)
                except Exception as e:  # whatever a backend raises here is the fault of the task's state
                    raise InputError(
                        f"task {task.id}: field 'initial_config' does not load into {name} "
                        f"({type(e).__name__}: {e}); fix the task"
                    ) from e
        self.task = task
        self._functions = _functions(task, instances)
        self._instances = copy.deepcopy(instances)

    @classmethod
    def _make(cls, task: ScriptedTask, functions: dict[str, _Function], instances: dict[str, Any]) -> "World":
        world = object.__new__(cls)
        world.task, world._functions, world._instances = task, functions, instances
        return world

    def snapshot(self) -> Snapshot:
        """The current state."""
        return Snapshot(self.task, self._functions, pickle.dumps(self._instances, pickle.HIGHEST_PROTOCOL))

    def copy(self) -> "World":
        """An independent world in the same state."""
        return self.snapshot().world()

    def offered(self, turn: int) -> list[dict]:
        """Docs of the functions offered by user turn `turn`."""
        return self.task.offered(turn)

    def documented(self, call: Call) -> bool:
        """Whether the function exists here and every argument is one that its doc names."""
        function = self._functions.get(call.name) if isinstance(call.name, str) else None
        return (
            function is not None
            and isinstance(call.arguments, dict)
            and all(name in function.properties for name in call.arguments)
        )

    def expert_call(self, text: str) -> Call:
        """A ground-truth call string as a Call; positional arguments get their names from the signature.

        Raises InputError when it is not a call of a documented function.
        """
        name, positional, named = parse_call(text)
        function = self._functions.get(name)
        if function is None or len(positional) > len(function.parameters):
            raise InputError(f"task {self.task.id}: ground-truth call {text!r} fits no documented function")
        return Call(name, {**dict(zip(function.parameters, positional)), **named})

    def key(self, call: Call) -> tuple | None:
        """Equal for calls that do the same: name and arguments, with defaults filled in and 5.0 as 5.

        None when the call does not fit its function.
        """
        if not self.documented(call):
            return None
        try:
            filled = {**self._functions[call.name].defaults, **call.arguments}
            return call.name, json.dumps(_plain(filled), sort_keys=True)
        except (TypeError, ValueError, RecursionError):
            return None

    def call(self, call: Call) -> str:
        """Execute one call and return what the assistant would read. Never raises on model output."""
        return self.execute(call)[0]

    def execute(self, call: Call) -> tuple[str, bool]:
        """(what the assistant reads, whether the call failed). Never raises on model output.

        Results are printed as BFCL's executor prints them: a string as it is, a dict as JSON, anything else
        by `str`. A failure, the backend's own or ours, is {"error": ...}.
        """
        if not isinstance(call.name, str) or call.name not in self._functions:
            return _error("no such function")
        if not isinstance(call.arguments, dict):
            return _error("the arguments are not a JSON object")
        function = self._functions[call.name]
        for name in call.arguments:
            if name not in function.properties:
                return _error(f"{call.name}() has no parameter {str(name)[:80]!r}")
        if _oversized(function, call.arguments):
            return _error("an argument is out of range")
        try:
            arguments = copy.deepcopy({**function.defaults, **call.arguments})
            with decimal.localcontext():  # MathAPI sets the precision of whatever context is current
                result = getattr(self._instances[function.owner], call.name)(**arguments)
            text = _text(result)
        except Exception as e:  # a sampled call can make a backend raise anything; that is the call's result
            return _error(f"{type(e).__name__}: {e}")
        if not text.isascii():
            text = text.encode(
                "utf-8", "replace"
            ).decode()  # a lone surrogate from a "\ud800" in the arguments
        return text, isinstance(result, dict) and "error" in result

    def state(self, private: bool = True) -> dict[str, dict[str, Any]]:
        """Class name -> public attributes. They are live: copy the world first if more calls follow.

        With `private`, also the working directory as a path (BFCL's checker ignores it; a turn that ends in
        `cd` needs it).
        """
        return {name: _public(instance, private) for name, instance in self._instances.items()}

    def same_state(self, other: "World", private: bool = True) -> bool:
        """Whether both worlds show the same `state`."""
        try:
            return self.state(private) == other.state(private)
        except RecursionError:  # `mv a a` makes a directory contain itself
            return False


def _functions(task: ScriptedTask, instances: dict[str, Any]) -> dict[str, _Function]:
    functions = {}
    for doc in task.docs:
        name = doc["name"]
        owners = [c for c, x in instances.items() if inspect.ismethod(getattr(x, name, None))]
        if not owners or name.startswith("_"):
            raise InputError(f"task {task.id}: doc {name!r} names no public function of {list(instances)}")
        signature = inspect.signature(getattr(instances[owners[-1]], name)).parameters.values()
        functions[name] = _Function(
            owner=owners[-1],  # as in BFCL's executor, the class loaded last wins
            properties=doc["parameters"]["properties"],
            parameters=tuple(p.name for p in signature),
            defaults={p.name: p.default for p in signature if p.default is not p.empty},
        )
    return functions


def _public(instance: Any, private: bool) -> dict[str, Any]:
    state = {name: value for name, value in vars(instance).items() if not name.startswith("_")}
    if private and hasattr(instance, "_current_dir"):
        path, here = [], instance._current_dir
        while here is not None and not isinstance(here, str):
            path.append(here.name)
            here = here.parent
        state["_current_dir"] = path if here is None else here
    return state


def _text(result: Any) -> str:
    if isinstance(result, dict):
        try:
            return json.dumps(result)
        except (TypeError, ValueError):  # e.g. mpmath numbers
            return str(result)
    return result if isinstance(result, str) else str(result)


def _error(message: str) -> tuple[str, bool]:
    return json.dumps({"error": message[:500]}), True


def _is_integer(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value) and value == int(value)


def _plain(value: Any) -> Any:
    """JSON values with integral floats as integers and tuples as lists; numbers too long to print raise
    later.
    """
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return int(value) if _is_integer(value) else value


def _oversized(function: _Function, arguments: dict[str, Any]) -> bool:
    """Whether the call could take forever: a huge exponent or precision, or text times a large number."""
    numbers = [v for v in arguments.values() if isinstance(v, (int, float)) and not isinstance(v, bool)]
    if not SIZE_PARAMETERS.isdisjoint(arguments):
        for name, value in arguments.items():
            limit = SIZE_LIMIT if name in SIZE_PARAMETERS else BASE_LIMIT
            if isinstance(value, int) and abs(value) > limit:
                return True
            if name in SIZE_PARAMETERS and isinstance(value, float) and not abs(value) <= limit:
                return True
    if any(isinstance(value, int) and abs(value) > REPEAT_LIMIT for value in numbers):
        for name, value in arguments.items():
            documented = function.properties[name]
            kind = documented.get("type") if isinstance(documented, dict) else None
            if kind in NUMBER_TYPES and isinstance(value, (str, list, tuple)):
                return True
    return False
