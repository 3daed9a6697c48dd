"""exact, exact_string: string match with the demonstration, the ablations of functional verification.

Calls are compared as one string of JSON, calls in order; text without its outer white space. An equivalent
action in other words, in another order, or with a default written out is rejected: that is what the ablation
measures. `exact` forgives the order of keys, and nulls for arguments that the tool does not declare.
`exact_string` forgives neither: arguments are compared as they are written, but for white space between them.
"""

import functools
import json
from collections.abc import Iterable

from pivotrl_jax.records import Action, Call, Candidate, Verdict
from pivotrl_jax.verifiers.base import Verifier
from pivotrl_jax.verifiers.cases import read_row
from pivotrl_jax.verifiers.common import demonstrated_calls, function_docs, problem, show, text_verdict
from pivotrl_jax.verifiers.compare.arguments import without_undeclared_nulls


def canonical(calls: Iterable[Call]) -> str:
    """The calls as one line of JSON with sorted keys."""
    return json.dumps([{"arguments": c.arguments, "name": c.name} for c in calls], sort_keys=True)


def as_written(calls: Iterable[Call]) -> str:
    """The calls as one line of JSON with keys in the order in which they were written."""
    return json.dumps([{"name": c.name, "arguments": c.arguments} for c in calls])


def verify(candidate: Candidate, action: Action, written: bool = False) -> Verdict:
    """Reward 1 iff the action equals the demonstration as a string; with `written`, as it is written. Never
    raises on `action`."""
    verdict = problem(action)
    if verdict is not None:
        return verdict
    expected, got = demonstrated_calls(candidate), action.calls
    if expected:
        if not written:
            docs = function_docs(candidate.tools)
            expected, got = (
                [without_undeclared_nulls(call, docs) for call in calls] for calls in (expected, got)
            )
        spell = as_written if written else canonical
        want = spell(expected)
        if not action.calls:
            return Verdict(0.0, "no_call", f"no call; want {show(want)}")
        if spell(got) != want:
            return Verdict(0.0, "differs", f"{show(spell(got))}, want {show(want)}")
        return Verdict(1.0, "ok", "the demonstrated calls")
    verdict = text_verdict(action)
    if not verdict.reward:
        return verdict
    text = (candidate.demonstration.get("content") or "").strip()
    if action.content.strip() != text:
        return Verdict(0.0, "differs", f"{show(action.content)}, want {show(text)}")
    return Verdict(1.0, "ok", "the demonstrated text")


NAMES = "exact", "exact_string"
VERIFIERS = (
    Verifier(NAMES[0], "3", verify, read_row(NAMES[0], lenient=False)),
    Verifier(NAMES[1], "1", functools.partial(verify, written=True), read_row(NAMES[1], lenient=False)),
)
