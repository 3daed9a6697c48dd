"""Verifiers by name: `VERIFIERS["tool_call"].verify(candidate, action) -> Verdict`.

A plain name is our strict mode. "swe:nemo_gym" reproduces the rewards of the verifier that NVIDIA released.
"""

from pivotrl_jax.records import InputError
from pivotrl_jax.verifiers import bfcl_ast, bfcl_multi_turn, exact, search, tau2, tool_call
from pivotrl_jax.verifiers import swe as swe_lib
from pivotrl_jax.verifiers import terminal as terminal_lib
from pivotrl_jax.verifiers.base import Verifier
from pivotrl_jax.verifiers.nemo_gym import swe, terminal
from pivotrl_jax.verifiers.nemo_gym import tool_call as tool_call_lib

MODES = ("strict", "nemo_gym")


VERIFIERS: dict[str, Verifier] = {
    verifier.name: verifier
    for module in (
        tool_call,
        exact,
        bfcl_ast,
        bfcl_multi_turn,
        terminal,
        swe,
        tool_call_lib,
        search,
        swe_lib,
        tau2,
        terminal_lib,
    )
    for verifier in module.VERIFIERS
}


def get(name: str, mode: str = "strict") -> Verifier:
    """The verifier called `name`, in `mode`. Raises InputError that lists the known ones."""
    if mode not in MODES:
        raise InputError(f"no mode is called {mode!r}; known are {', '.join(MODES)}")
    full = name if mode == "strict" else f"{name}:{mode}"
    if full not in VERIFIERS:
        raise InputError(f"no verifier is called {full!r}; known are {', '.join(sorted(VERIFIERS))}")
    return VERIFIERS[full]
