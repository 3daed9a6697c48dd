"""Multi-turn worlds: rows in BFCL's format, executed by small stateful backends.

A row id's prefix names the module that owns it. Such a module exports `find_row(row_id) -> Row` and
`BACKENDS: Mapping[str, type]` (class name -> backend class), and is imported only when one of its rows is
asked for.
"""

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING

from pivotrl_jax.records import InputError

if TYPE_CHECKING:
    from pivotrl_jax.environments.tasks import Task


SOURCES: dict[str, str] = {
    "toolbox_": "pivotrl_jax.environments.toolbox",
    "multi_turn_": "pivotrl_jax.environments.bfcl",
}


def _source(row_id: str) -> ModuleType:
    for prefix, module in SOURCES.items():
        if row_id.startswith(prefix):
            return importlib.import_module(module)
    raise InputError(f"row id {row_id!r}: no world owns it; ids start with one of {sorted(SOURCES)}")


def find_row(row_id: str) -> "Task":
    """The row of this id. Raises InputError for an id that no world has."""
    return _source(row_id).find_row(row_id)


def backends_for(row_id: str) -> Mapping[str, type]:
    """The backend classes for rows with this prefix. Raises InputError for an unknown prefix."""
    return _source(row_id).BACKENDS
