"""tool_call: the same calls as the demonstration, by name and normalised arguments.

An action is accepted if it means the same under the tools' schemas:
- Where the demonstration talks, any non-empty text without a call is accepted. Where it calls, so must the
  action.
- Parallel calls are matched one to one in any order. None may be missing or surplus, unless
  `candidate.case["calls"]` counts otherwise (compare/arguments.py, `count_verdict`).
- Names must be exactly equal; a call with an unknown or a missing argument is different.
- An optional argument left out equals its schema default, or null where the schema has none. An explicit null
  is a value of its own where the schema allows it and the default is another.
- Numbers are compared by value: 5 equals 5.0, but neither true nor "5". NaN and Infinity equal themselves.
- A null for an argument that the schema does not declare is no argument.
- Strings are compared exactly, unless they are prose: messages, queries, titles, names of people and places.
  Prose is compared by words, which forgives the case of plain words (not of USA, iPhone or B12), runs of
  spaces, outer white space, typographic signs and a final full stop. A string is prose only if the argument's
  name, its description or the tool's name says so, and neither these nor a format, a pattern, an enum or the
  look of the value speak for code; text that speaks of passwords or codes is exact (compare/prose.py). Of
  text of several lines only the white space around it is forgiven.
- Lists are compared in order, or in any order where the schema says `uniqueItems`; objects by keys,
  recursively, with the nested schemas.
- `candidate.case["fields"]` may give a field special rules (compare/arguments.py).

Reasoning, and text beside the calls, are not compared.
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
    """Reward 1 iff the action's calls mean the same as the demonstration's. Never raises on `action`.

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
    expected_forms = [normal_call(c, docs, fields) for c in expected]
    action_forms = [normal_call(c, docs, fields) for c in action.calls]
    want, got = Counter(expected_forms), Counter(action_forms)
    verdict = count_verdict(candidate.case, (want & got).total(), len(expected_forms), len(action_forms))
    if verdict.reward or verdict.reason != "arguments":
        return verdict
    names, called = sorted(c.name for c in expected), sorted(c.name for c in action.calls)
    if set(called) - set(names) or (len(called) == len(names) and called != names):
        return Verdict(0.0, "name", f"called {show(called)}, want {show(names)}")
    wrong = next((c for c, form in zip(action.calls, action_forms) if form in got - want), action.calls[0])
    right = next(
        (c for c, form in zip(expected, expected_forms) if c.name == wrong.name and form in want - got),
        expected[0],
    )
    details = f"{wrong.name}: arguments {show(wrong.arguments)}, want {show(right.arguments)}"
    return Verdict(0.0, "arguments", details)


VERIFIERS = (Verifier(NAME, "7", verify),)
