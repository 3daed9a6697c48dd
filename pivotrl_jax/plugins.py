"""What a config can name: something built in, something of the user's own package, or an installed entry point.

    find("verifiers", "tool_call", VERIFIERS, "config.data.verifier")     a name of the table
    find("verifiers", "my_pkg.checks:strict", VERIFIERS, ...)             an attribute of a module of yours
    find("verifiers", "strict", VERIFIERS, ...)                           entry point in group pivotrl_jax.verifiers

A module is imported only for a name that a config or a command line gives. Names in data files (a row's
verifier) are looked up with `known`, which imports nothing but installed entry points.
"""

import importlib
import importlib.metadata
import re
from collections.abc import Mapping
from typing import Any

from pivotrl_jax.records import InputError

GROUPS = ("verifiers", "readers", "environments", "losses")
_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def entry_points(kind: str) -> dict[str, importlib.metadata.EntryPoint]:
    """The installed entry points of one of GROUPS, by name; nothing is loaded."""
    return {point.name: point for point in importlib.metadata.entry_points(group=f"pivotrl_jax.{kind}")}


def known(kind: str, name: str, builtin: Mapping[str, Any]) -> Any | None:
    """What is called `name`: of the table `builtin`, else an installed entry point; None when there is none."""
    if name in builtin:
        return builtin[name]
    point = entry_points(kind).get(name)
    return point.load() if point else None


def find(kind: str, name: str, builtin: Mapping[str, Any], field: str) -> Any:
    """What `field` (of a config, or a flag) names. Raises InputError that blames the field and lists what
    there is, or says why a module of the user's could not be loaded."""
    found = known(kind, name, builtin)
    if found is not None:
        return found
    if not _PATH.fullmatch(name):
        there = ", ".join(sorted({*builtin, *entry_points(kind)}))
        raise InputError(
            f"{field} is {name!r}, which is none of the {kind}; known are {there}; name one of your own as "
            "'package.module:name'"
        )
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ImportError as e:
        raise InputError(
            f"{field} is {name!r}, but {module} cannot be imported ({e}); check the path"
        ) from None
    except AttributeError:
        raise InputError(f"{field} is {name!r}, but {module} has no {attribute!r}; check the name") from None
