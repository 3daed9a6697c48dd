"""Is this the same run? One rule for work directories, profiles, checkpoints and evaluations.

An identity is a JSON object of everything that decides a result. Two runs are the same run when their
identities are equal field by field.
"""

import json
from collections.abc import Sequence
from typing import Any

from pivotrl_jax.records import InputError

MAX_NAMED = 4  # differences that a sentence names; more are counted


def as_json(identity: dict) -> dict:
    """The identity as it would be read back from disk: tuples become lists."""
    return json.loads(json.dumps(identity))


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted name -> leaf. An empty section has no leaf."""
    if not isinstance(value, dict):
        return {prefix: value}
    join = f"{prefix}." if prefix else ""
    return {key: leaf for name in value for key, leaf in flatten(value[name], join + name).items()}


def differences(there: dict, here: dict, free: Sequence[str] = ()) -> list[str]:
    """A clause for each of the first MAX_NAMED fields that differ: "seed is 0 there and 1 here". Fields whose
    dotted name begins with one of `free` may differ."""
    there, here = flatten(as_json(there)), flatten(as_json(here))
    both = [name for name in here if name in there and there[name] != here[name]]
    one = [name for name in {**here, **there} if (name in there) != (name in here)]
    clauses = [
        f"{name} is {_text(there, name)} there and {_text(here, name)} here"
        for name in [*both, *one]
        if not name.startswith(tuple(free))
    ]
    more = len(clauses) - MAX_NAMED
    return clauses[:MAX_NAMED] + ([f"and {more} more"] if more > 0 else [])


def _text(fields: dict, name: str) -> str:
    return repr(fields[name]) if name in fields else "absent"


def require_same(where: Any, what: str, there: dict, here: dict, free: Sequence[str] = ()) -> None:
    """Raises InputError that names the differences when `where` holds `what` of another run."""
    different = differences(there, here, free)
    if different:
        raise InputError(
            f"{where}: holds {what} of another run: {'; '.join(different)}; undo the change, use another "
            "workdir, or start over with --config.resume=False"
        )
