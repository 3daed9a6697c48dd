"""The configs as modules, and the names of their fields."""

import importlib.util
from pathlib import Path

from ml_collections import ConfigDict

from support.paths import ROOT

FILE = ROOT / "configs" / "bfcl.py"


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CONFIGS = load(FILE)


def paths(config, prefix="") -> set[str]:
    """Dotted names of all fields and sections."""
    found = set()
    for name, value in config.items():
        found.add(prefix + name)
        if isinstance(value, ConfigDict):
            found |= paths(value, f"{prefix}{name}.")
    return found
