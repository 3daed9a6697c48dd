"""Verifiers by name: `VERIFIERS["tool_call"].verify(candidate, action) -> Verdict`."""

from pivotrl_jax.records import InputError
from pivotrl_jax.verifiers import bfcl_ast, bfcl_multi_turn, exact, tool_call
from pivotrl_jax.verifiers.base import Verifier

VERIFIERS: dict[str, Verifier] = {
    module.VERIFIER.name: module.VERIFIER for module in (tool_call, exact, bfcl_ast, bfcl_multi_turn)
}


def get(name: str) -> Verifier:
    """The verifier called `name`. Raises InputError that lists the known ones."""
    if name not in VERIFIERS:
        raise InputError(f"no verifier is called {name!r}; known are {', '.join(sorted(VERIFIERS))}")
    return VERIFIERS[name]
