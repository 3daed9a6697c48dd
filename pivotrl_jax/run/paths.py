"""Paths that a user names: `~` is expanded, and addresses of other stores are refused."""

import argparse
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pivotrl_jax.records import InputError

FIELDS = (
    "workdir",
    "model.checkpoint",
    "model.chat_template",
    "data.source",
    "data.tools",
    "judge.templates",
)
SEVERAL = ("data.source",)  # separated by commas
NEEDED = ("workdir", "model.checkpoint", "data.source")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def local(text: str, asked: str) -> str:
    """A path of this machine with `~` expanded. `asked` is the option to name. Raises InputError for an
    address such as gs://bucket/x, which would be taken as the name of a local directory."""
    if _SCHEME.match(text):
        raise InputError(
            f"{asked} is {text!r}, and only paths of this machine's directories are read and written: mount "
            "the bucket (e.g. with gcsfuse or mountpoint-s3) and name its mount point, or copy it to a local "
            "directory"
        )
    return os.path.expanduser(text) if text.startswith("~") else text


def named(text: str, asked: str) -> str:
    """As `local`; raises InputError for an empty path too, which would be the current directory."""
    if not text.strip():
        raise InputError(f"{asked} is empty; name a path (the current directory is '.')")
    return local(text, asked)


def expand(config: Any) -> None:
    """Expand the paths of a config, in place. Raises InputError as `local` and `named` do."""
    for field in FIELDS:
        section, _, name = field.rpartition(".")
        values, read = config[section] if section else config, named if field in NEEDED else local
        parts = values[name].split(",") if field in SEVERAL else [values[name]]
        values[name] = ",".join(read(part, f"config.{field}") for part in parts)


def refuse_overwriting(out: str | Path, inputs: Iterable[str | Path]) -> None:
    """Raises InputError where the file `out` is one of the inputs."""
    for path in map(Path, inputs):
        if path.exists() and Path(out).exists() and path.samefile(out):
            raise InputError(f"--out={out} is an input, which would be written over; name another file")


def argument(text: str) -> Path:
    """A path on a command line, for `argparse`."""
    try:
        return Path(named(text, "the path"))
    except InputError as e:
        raise argparse.ArgumentTypeError(str(e)) from None
