"""Verifiers by name: `get("tool_call").verify(candidate, action) -> Verdict`. base.py is the contract.

A module here is the strict verifier of one domain; compare/ decides whether two calls, commands or texts are
equivalent; nemo_gym/ reproduces the rewards of the verifiers that NVIDIA released ("swe:nemo_gym").
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from pivotrl_jax import plugins
from pivotrl_jax.records import Action, Candidate, InputError, Verdict
from pivotrl_jax.verifiers import (
    bfcl_ast,
    bfcl_multi_turn,
    exact,
    nemo_gym,
    search,
    swe,
    tau2,
    terminal,
    tool_call,
)
from pivotrl_jax.verifiers.base import Verifier

MODES = ("strict", "nemo_gym")


class _Registry(dict[str, Verifier]):
    """Verifiers by name. An installed entry point is loaded when its name is first looked up."""

    def __missing__(self, name: str) -> Verifier:
        plugin = plugins.known("verifiers", name, {})
        if plugin is None:
            raise KeyError(name)
        self[name] = _as_verifier(plugin, name, "the entry point")
        return self[name]

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in plugins.entry_points("verifiers")


VERIFIERS = _Registry(
    {
        verifier.name: verifier
        for module in (
            *(tool_call, exact, bfcl_ast, bfcl_multi_turn, search, swe, tau2, terminal),
            *(nemo_gym.tool_call, nemo_gym.swe, nemo_gym.terminal),
        )
        for verifier in module.VERIFIERS
    }
)


def get(name: str, mode: str = "strict") -> Verifier:
    """The verifier called `name`, in `mode`: built in, registered, or an installed entry point.

    Nothing else is imported, so the name may come from a row of data. Raises InputError that lists the known
    names.
    """
    full = full_name(name, mode)
    if full not in VERIFIERS:
        known = ", ".join(sorted({*VERIFIERS, *plugins.entry_points("verifiers")}))
        raise InputError(
            f"no verifier is called {full!r}; known are {known}; one in a module of your own must be named "
            "by the config or the command line"
        )
    return VERIFIERS[full]


def register(name: str, field: str) -> Verifier:
    """The verifier that `field`, a field of a config or a flag, names. From now on `get` finds it too.

    `name` is what `get` accepts, or "package.module:attribute" for the user's own Verifier or function
    verify(candidate, action) -> Verdict. Raises InputError that blames `field`.
    """
    if name not in VERIFIERS:
        VERIFIERS[name] = _as_verifier(plugins.find("verifiers", name, VERIFIERS, field), name, field)
    return VERIFIERS[name]


def full_name(name: str, mode: str) -> str:
    """The name of a verifier in a mode: "swe", or "swe:nemo_gym". Raises InputError for an unknown mode."""
    if mode not in MODES:
        raise InputError(f"no mode is called {mode!r}; known are {', '.join(MODES)}")
    return name if mode == "strict" else f"{name}:{mode}"


def _as_verifier(plugin: Any, name: str, field: str) -> Verifier:
    """A plugin's object as a Verifier with the name under which it was looked up. Raises InputError."""
    if isinstance(plugin, Verifier):
        return dataclasses.replace(plugin, name=name, verify=_checked(plugin.verify, name))
    if callable(plugin) and not isinstance(plugin, type):
        return Verifier(name, "0", _checked(plugin, name))
    raise InputError(
        f"{field} {name!r} is of type {type(plugin).__name__}; want a Verifier (see verifiers/base.py) "
        "or a function verify(candidate, action) -> Verdict"
    )


def _checked(verify: Callable[[Candidate, Action], Verdict], name: str) -> Callable:
    """A plugin's function, which is told when it gives anything but a Verdict of a reward from 0 to 1."""

    @functools.wraps(verify)
    def checked(candidate: Candidate, action: Action) -> Verdict:
        verdict = verify(candidate, action)
        if not isinstance(verdict, Verdict):
            raise InputError(
                f"the verifier {name} gave {verdict!r} at {candidate.id}; want a Verdict, e.g. "
                'Verdict(1.0, "ok"), of pivotrl_jax.records'
            )
        reward = verdict.reward
        if reward is None:
            return verdict
        if not isinstance(reward, (int, float)) or not 0 <= reward <= 1:  # no comparison holds of NaN
            raise InputError(
                f"the verifier {name} gave the reward {reward!r} at {candidate.id}; want a number from 0 to "
                "1, or None where it cannot decide"
            )
        return dataclasses.replace(verdict, reward=float(reward))

    return checked
