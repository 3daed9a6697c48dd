"""Helpers of all verifiers."""

from support.booking import TOOLS
from support.hostile_actions import deep

from pivotrl_jax.verifiers.common import function_docs, show


def test_docs_are_found_with_and_without_openais_wrapper():
    assert list(function_docs([*TOOLS, {"function": 3}, {}])) == ["book", "cancel"]


def test_show_never_raises_and_is_short():
    assert show("a" * 1000, 20) == "'" + "a" * 16 + "..."
    assert show(deep(100_000)).startswith("<") and show(10**5000) == "<int>"
