"""Environments: tasks that an expert demonstrates and a policy plays. Start with base.py, the contract.

`config.data.source` names an environment: one of ENVIRONMENTS, an installed entry point of the group
`pivotrl_jax.environments`, or "package.module:name". The prefix of a task's id tells which environment it
belongs to.
"""

from collections.abc import Mapping

from pivotrl_jax import plugins
from pivotrl_jax.environments.base import Environment, Task
from pivotrl_jax.records import InputError

# imported only when needed: these modules import this one
ENVIRONMENTS: dict[str, str] = {
    "toolbox": "pivotrl_jax.environments.toolbox:environment",
    "bfcl": "pivotrl_jax.environments.bfcl:environment",
}
_named: dict[str, Environment] = {}  # by source: those that configs in this process have named


def find(source: str) -> Environment:
    """The environment that `config.data.source` names. Raises InputError when there is none."""
    if source not in _named:
        environment = plugins.find("environments", source, ENVIRONMENTS, "config.data.source")
        if isinstance(environment, str):  # where a built-in one is
            environment = plugins.find("environments", environment, {}, "config.data.source")
        if not isinstance(environment, Environment):
            raise InputError(
                f"config.data.source is {source!r}, whose type is {type(environment).__name__}; "
                "an environment is an instance of a subclass of pivotrl_jax.environments.base.Environment"
            )
        _named[source] = environment
    return _named[source]


def names() -> list[str]:
    """The built-in and the installed environments, sorted."""
    return sorted({*ENVIRONMENTS, *plugins.entry_points("environments")})


def is_name(source: str) -> bool:
    """Whether `config.data.source` has the form of an environment's name. Otherwise it lists paths."""
    return source in names() or (plugins.is_path(source) and not source.startswith("hf:"))


def environment_of(task_id: str) -> Environment:
    """The environment that owns this task: a built-in one, or one that a config has named in this process.

    Ids come from data files too, so nothing else is imported for them. Raises InputError when none owns it.
    """
    candidates = [*_named.values(), *(find(name) for name in ENVIRONMENTS)]
    for environment in candidates:
        if task_id.startswith(environment.prefixes):
            return environment
    prefixes = sorted({prefix for environment in candidates for prefix in environment.prefixes})
    raise InputError(f"task id {task_id!r} belongs to no environment; ids start with {' or '.join(prefixes)}")


def find_task(task_id: str) -> Task:
    """The task of this id. Raises InputError for an id that no environment has."""
    return environment_of(task_id).find_task(task_id)


def backends_for(task_id: str) -> Mapping[str, type]:
    """Class name -> backend class, for a task in BFCL's format. Raises InputError when its environment has
    none."""
    environment = environment_of(task_id)
    if not hasattr(environment, "backends"):
        raise InputError(f"task id {task_id!r}: the environment {environment.name!r} executes no BFCL tasks")
    return environment.backends
