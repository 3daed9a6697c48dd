"""The project's licence, and those of everything that installing it brings."""

import importlib.metadata
import re

from packaging.requirements import Requirement
from support.paths import ROOT

OWN = "pivotrl-jax"


def dependencies(name: str, extras: set[str], seen: dict[str, importlib.metadata.Distribution]) -> None:
    """Add what `name` with `extras` requires on this machine, and what that requires, to `seen`."""
    for text in importlib.metadata.distribution(name).requires or []:
        wanted = Requirement(text)
        if wanted.marker and not any(wanted.marker.evaluate({"extra": e}) for e in extras | {""}):
            continue
        key = re.sub(r"[-_.]+", "-", wanted.name).lower()
        if key not in seen:
            seen[key] = importlib.metadata.distribution(wanted.name)
            dependencies(wanted.name, set(wanted.extras), seen)


def licence(found: importlib.metadata.Distribution) -> str:
    """Everything that a package says about its licence, without the licence's text."""
    fields = [found.metadata.get(field) or "" for field in ("License-Expression", "License")]
    fields += [c for c in found.metadata.get_all("Classifier") or [] if c.startswith("License ::")]
    return " | ".join(field.splitlines()[0] for field in fields if field)


def test_nothing_that_is_installed_with_it_is_under_a_copyleft_licence():
    seen: dict[str, importlib.metadata.Distribution] = {}
    dependencies(OWN, set(), seen)
    assert {"jax", "flax", "transformers", "numpy"} <= set(seen)
    stated = {name: licence(found) for name, found in seen.items()}
    assert [name for name, text in stated.items() if not text] == []
    copyleft = {name: text for name, text in stated.items() if re.search(r"GPL|GNU", text)}
    assert copyleft == {}


def test_the_licence_is_stated_once_and_the_same_everywhere():
    assert (ROOT / "LICENSE").read_text("utf-8").lstrip().startswith("Apache License")
    assert 'license="Apache-2.0"' in (ROOT / "setup.py").read_text("utf-8")
    assert "license: Apache-2.0" in (ROOT / "CITATION.cff").read_text("utf-8")
