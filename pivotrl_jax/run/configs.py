"""Configs by name or path: `load("bfcl:tiny", {"grpo.steps": 7})`. Importing this defines no flags."""

import contextlib
import difflib
import os
import runpy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

import pivotrl_jax
from pivotrl_jax.records import InputError

FREE = "data.verifier_options"  # a section that may have any field


def known() -> dict[str, Path]:
    """Name -> file of the configs of this package."""
    package = Path(pivotrl_jax.__file__).parent
    # installed, the configs are part of the package; in a checkout they lie beside it
    folder = next((f for f in (package / "configs", package.parent / "configs") if f.is_dir()), package)
    return {file.stem: file for file in sorted(folder.glob("[a-z]*.py"))} if folder != package else {}


def find_config(value: str, field: str = "--config") -> str:
    """The path and size that a name stands for: "bfcl:real" is configs/bfcl.py:real of this package; a path
    stays as it is. Raises InputError that lists the names; it calls the value `field`."""
    name, colon, size = value.partition(":")
    if not name.isidentifier() or Path(name).exists():
        return value
    if name not in known():
        raise InputError(
            f"{field}={value}: no config is called {name!r}; known are {', '.join(known())}, or a path"
        )
    return f"{known()[name]}{colon}{size}"


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Turns what is wrong with a config file into InputError."""
    try:
        yield
    except OSError as e:
        # ml_collections puts the paths that it tried, and the error, on lines of their own
        last = [line.strip() for line in str(e).splitlines() if line.strip()][-1]
        raise InputError(f"the config file cannot be read ({last}); check the path") from None
    except (SyntaxError, ImportError) as e:  # the config file is Python
        raise InputError(f"the config file cannot be loaded ({type(e).__name__}: {e}); fix it") from None


def load(name: str, overrides: Mapping[str, Any]) -> ConfigDict:
    """The config that `name` stands for, as `find_config` has it, with other values for some fields.

    The keys of `overrides` are names of fields ("grpo.steps", "seed"), or of sections with a dict of their
    fields as value. Raises InputError for a name, size, field or type that does not fit.
    """
    if not isinstance(name, (str, os.PathLike)) or not str(name).strip():
        of = f"of type {type(name).__name__}" if not isinstance(name, str) else "empty"
        raise InputError(f"the config's name is {of}; want one of {', '.join(known())}, or a path")
    path, colon, size = find_config(str(name), "config").partition(".py:")
    path += ".py" if colon else ""
    with reading():
        file = runpy.run_path(path)
    if "get_config" not in file:
        raise InputError(f"{path}: defines no get_config; a config file returns its config from it")
    try:
        config = file["get_config"](*([size] if colon else []))
    except ValueError as e:  # no such size
        raise InputError(str(e)) from None
    except (TypeError, AttributeError, KeyError) as e:  # e.g. a value of another type, or no such field
        what = " ".join(str(e.args[0] if e.args else e).split())
        raise InputError(f"{path}: get_config failed ({type(e).__name__}: {what}); mend the file") from e
    for field, value in overrides.items():
        _set(config, field, value)
    return config.lock()  # a field that does not exist cannot be set by mistake


def _set(config: ConfigDict, name: str, value: Any) -> None:
    """Set a field, or the fields of a section. Raises InputError."""
    *sections, last = name.split(".")
    section = config
    for part in sections:
        section = _get(section, part, name)
    there = _get(section, last, name)
    if isinstance(there, ConfigDict):
        if not isinstance(value, Mapping):
            raise InputError(f"{name} is {value!r}; it is a section, so give a dict of its fields")
        if name != FREE:
            for field, inner in value.items():
                _set(config, f"{name}.{field}", inner)
            return
        value = ConfigDict(dict(value))
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    try:
        section[last] = value
    except (TypeError, ValueError) as e:
        raise InputError(
            wrong_type(name, value) or f"{name} is {value!r}; {' '.join(str(e).split())}"
        ) from None


def wrong_type(name: str, value: Any) -> str:
    """The sentence about a value that a field or a section cannot take; "" if neither has that name."""
    from pivotrl_jax.run.options import OPTIONS, SECTIONS

    if name in SECTIONS:
        return f"{name} is {value!r}; it is a section, so set one of its fields, as {name}.NAME"
    return f"{name} is {value!r}; want {OPTIONS[name].rule.want}" if name in OPTIONS else ""


def _get(config: Any, field: str, name: str) -> Any:
    if not isinstance(config, ConfigDict) or field not in config:
        close = difflib.get_close_matches(field, list(config) if isinstance(config, ConfigDict) else [], n=1)
        hint = f"did you mean {close[0]!r}?" if close else "`pivotrl train --help` lists the fields"
        raise InputError(f"{name}: the config has no field {field!r}; {hint}")
    return config[field]
