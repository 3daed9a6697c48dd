"""What a config can name: something built in, an installed entry point, or something in the user's package.

    find("verifiers", "tool_call", VERIFIERS, "config.data.verifier")    a key of the table VERIFIERS
    find("verifiers", "same_names", ...)               an entry point in the group pivotrl_jax.verifiers
    find("verifiers", "my_pkg.checks:same_names", ...)         an attribute of a module
    find("readers", "my_pkg.acme:", ...)               the module itself

Only `find` imports a module by name, and only names from a config or a command line may be given to it. Names
from data files go to `known`, which loads nothing but entry points of installed packages.
"""

import importlib
import importlib.metadata
import re
from collections.abc import Mapping
from typing import Any

from pivotrl_jax.records import InputError

_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:([A-Za-z_]\w*)?")


def is_path(name: str) -> bool:
    """Whether `name` has the form "package.module:name"."""
    return _PATH.fullmatch(name) is not None


def entry_points(kind: str) -> dict[str, importlib.metadata.EntryPoint]:
    """The installed entry points of a kind, by name; none is loaded."""
    return {point.name: point for point in importlib.metadata.entry_points(group=f"pivotrl_jax.{kind}")}


def known(kind: str, name: str, builtin: Mapping[str, Any]) -> Any | None:
    """`builtin[name]`, or else the installed entry point of that name, or None.

    Raises InputError for an entry point that cannot be loaded.
    """
    if name in builtin:
        return builtin[name]
    point = entry_points(kind).get(name)
    if point is None:
        return None
    try:
        return point.load()
    except (ImportError, AttributeError) as e:
        raise InputError(
            f"the entry point {name!r} of pivotrl_jax.{kind} cannot be loaded ({e}); "
            "repair or uninstall the package that declares it"
        ) from e


def find(kind: str, name: str, builtin: Mapping[str, Any], field: str) -> Any:
    """What `field`, a field of a config or a flag, names (see the top of this file).

    Raises InputError that blames `field` and lists the known names, or says why the user's module could not
    be imported. Other errors that the module raises when it is imported pass through.
    """
    if not isinstance(name, str):
        raise InputError(f"{field} is {name!r}, and the name of one of the {kind} is wanted, as text")
    value = known(kind, name, builtin)
    if value is not None:
        return value
    names = ", ".join(sorted({*builtin, *entry_points(kind)}))
    # "tau2:nemo_gym" is a mode that a built-in does not have, not a module
    if not is_path(name) or name.partition(":")[0] in builtin:
        raise InputError(
            f"{field} is {name!r}, which is none of the {kind}; known are {names}; name one of your own as "
            "'package.module:name'"
        )
    path, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(path)
    except ImportError as e:
        raise InputError(
            f"{field} is {name!r}, but {path} cannot be imported ({e}); install its package or put it on "
            f"PYTHONPATH, or take one of the known {kind}: {names}"
        ) from e
    if not attribute:
        return module
    if not hasattr(module, attribute):
        raise InputError(f"{field} is {name!r}, but the module {path} has no {attribute!r}; check the name")
    return getattr(module, attribute)
