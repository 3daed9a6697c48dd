"""Numbers and flags of config.json; a wrong one is refused in a sentence that names file and field."""

from pathlib import Path
from typing import Any

from pivotrl_jax.records import InputError


def positive(values: dict, names: tuple[str, ...], path: Path, kind: type) -> Any:
    """The number above 0 under the first of `names` that is there, as `kind`, int or float."""
    for name in names:
        if values.get(name) is not None:
            value = values[name]
            right = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
            if not right or not 0 < value < 1e12:
                want = "a whole number above 0" if kind is int else "a number above 0"
                raise InputError(f"{path}: {name} is {value!r}, want {want}; fix the file")
            return kind(value)
    raise InputError(f"{path}: {names[0]} is missing; fix the file")


def flag(values: dict, name: str, path: Path, missing: bool | None = None) -> bool:
    """A field that is true or false. `missing` is its value when it is absent; None makes it required."""
    if missing is not None and name not in values:
        return missing
    if not isinstance(values.get(name), bool):
        raise InputError(f"{path}: {name} is {values.get(name)!r}, want true or false; fix the file")
    return values[name]
