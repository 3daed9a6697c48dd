"""exact: string match with the demonstration, the ablation of functional verification.

Calls are compared as one string of canonical JSON (keys sorted, calls in order), text without its outer
white space. Nulls for arguments that the tool does not declare are not arguments. An equivalent action in
other words, in another order, or with a default written out is rejected: that is what the ablation measures.
"""

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


def verify(candidate: Candidate, action: Action) -> Verdict:
    """Reward 1 iff the action equals the demonstration as a string. Never raises on `action`."""
    verdict = problem(action)
    if verdict is not None:
        return verdict
    docs = function_docs(candidate.tools)
    expected = [without_undeclared_nulls(call, docs) for call in demonstrated_calls(candidate)]
    if expected:
        want = canonical(expected)
        if not action.calls:
            return Verdict(0.0, "no_call", f"no call; want {show(want)}")
        got = canonical([without_undeclared_nulls(call, docs) for call in action.calls])
        if got != want:
            return Verdict(0.0, "differs", f"{show(got)}, want {show(want)}")
        return Verdict(1.0, "ok", "the demonstrated calls")
    verdict = text_verdict(action)
    if not verdict.reward:
        return verdict
    text = (candidate.demonstration.get("content") or "").strip()
    if action.content.strip() != text:
        return Verdict(0.0, "differs", f"{show(action.content)}, want {show(text)}")
    return Verdict(1.0, "ok", "the demonstrated text")


VERIFIERS = (Verifier("exact", "2", verify, read_row("exact", lenient=False)),)
