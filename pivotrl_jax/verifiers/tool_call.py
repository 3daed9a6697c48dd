"""tool_call: the same calls as the demonstration, by name and normalised arguments.

Accepted is what means the same under the tools' schemas, and nothing else:
- call or talk: where the demonstration talks, any non-empty text without a call; where it calls, calls;
- parallel calls in any order, matched one to one: no missing call, no surplus call, unless
  `candidate.case["calls"]` counts otherwise (see `arguments.count_verdict`);
- names exactly equal; unknown or missing arguments differ;
- an optional argument left out equals its schema default, or null where the schema has none;
- numbers by value: 5 equals 5.0, but never true, and never "5"; NaN and Infinity equal themselves;
- strings of one word exactly (ids, paths, tickers); of several words without regard to case and to runs of
  spaces; with a line break exactly (code, letters);
- a string that the schema lists in an enum exactly;
- lists in order, or in any order where the schema says `uniqueItems`; objects by keys, recursively, with the
  nested schemas;
- a field may have rules of its own: `candidate.case["fields"]` (see `arguments`).

Text beside the calls and reasoning are not compared.
"""

from collections import Counter

from pivotrl_jax.records import Action, Candidate, Verdict
from pivotrl_jax.verifiers.base import Verifier
from pivotrl_jax.verifiers.common import (
    demonstrated_calls,
    function_docs,
    no_call,
    problem,
    show,
    text_verdict,
)
from pivotrl_jax.verifiers.compare.arguments import count_verdict, normal_call, read_fields

NAME = "tool_call"


def verify(candidate: Candidate, action: Action) -> Verdict:
    """Reward 1 iff the action's calls mean what the demonstration's do. Never raises on `action`.

    Raises InputError for a case whose "fields", "calls" or "max_extra" cannot be used.
    """
    expected, fields = demonstrated_calls(candidate), read_fields(candidate.case)
    verdict = problem(action, expected)
    if verdict is not None:
        return verdict
    if not expected:
        return text_verdict(action)
    if not action.calls:
        return no_call(expected)
    docs = function_docs(candidate.tools)
    wanted = [normal_call(c, docs, fields) for c in expected]
    made = [normal_call(c, docs, fields) for c in action.calls]
    want, got = Counter(wanted), Counter(made)
    verdict = count_verdict(candidate.case, (want & got).total(), len(wanted), len(made))
    if verdict.reward or verdict.reason != "arguments":
        return verdict
    names, called = sorted(c.name for c in expected), sorted(c.name for c in action.calls)
    if set(called) - set(names) or (len(called) == len(names) and called != names):
        return Verdict(0.0, "name", f"called {show(called)}, want {show(names)}")
    wrong = next((c for c, form in zip(action.calls, made) if form in got - want), action.calls[0])
    right = next(
        (c for c, form in zip(expected, wanted) if c.name == wrong.name and form in want - got), expected[0]
    )
    said = f"{wrong.name}: arguments {show(wrong.arguments)}, want {show(right.arguments)}"
    return Verdict(0.0, "arguments", said)


VERIFIERS = (Verifier(NAME, "2", verify),)
