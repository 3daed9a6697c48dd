"""tau2: conversational tool use as in tau2-Bench; a call or a reply that keeps the episode on course.

Where the demonstration calls, every call of the action must be right, each for one reason of its own:

- it equals a demonstrated call, compared as tool_call compares (`case["fields"]` included);
- or it is one of the episode's expected actions that is still to be done. `candidate.case["task_actions"]`
  lists them: {"name", "arguments" (or "kwargs"), "compare_args"?: names, "requestor"?: "user" for his own}.
  An action is done when the history holds the call and its output is no error. Of a write (all but the
  look-ups below) every string counts exactly; of a look-up as tool_call compares it.

There must be as many calls as demonstrated (more or fewer by `case["calls"]`, see `arguments`).

- Look-ups (`get_`, `find_`, `search_`, `list_`, `calculate`) change nothing, and yet another look-up than the
  demonstrated or an expected one is not right: if any were, looking up would be a reward for doing nothing.
- A transfer to a human is right only where it is demonstrated, expected action or not; its summary is in the
  agent's own words and is not compared.
- Where the demonstration talks, the action must talk: an early call may act before the user agreed.
- `think` is neither a call nor talk: such calls are taken off both sides, and text beside one reaches no
  user. Where the demonstration only thinks, thinking alone is right.

The reason of a rejected call says which rule: "transfer", "lookup", "write", "arguments" (right tool, other
arguments), "repeated" (an expected action that is done), "count", "spray"; of an accepted one "ok" or
"task_action".
"""

import re
from collections.abc import Hashable

from pivotrl_jax.chat.actions import message_to_action
from pivotrl_jax.records import Action, Call, Candidate, InputError, Message, Verdict
from pivotrl_jax.verifiers.base import Verifier
from pivotrl_jax.verifiers.common import (
    demonstrated_calls,
    function_docs,
    no_call,
    problem,
    show,
    text_verdict,
)
from pivotrl_jax.verifiers.compare.arguments import (
    Fields,
    as_object,
    count_verdict,
    matched,
    normal,
    parameters,
    read_fields,
)

NAME = "tau2"


_LOOKUP = re.compile(r"(?:get|find|search|list)_|calculate")


_TRANSFER = re.compile(r"transfer_to_(?:a_)?(?:human|live|real|agent)")


_ERROR = re.compile(r"\s{0,9}\W?error\b", re.IGNORECASE)


_EXPRESSION: Fields = {"calculate.expression": {"space": False}}  # 2+2 is 2 + 2


def is_lookup(name: str) -> bool:
    """Whether a tool only reads."""
    return bool(_LOOKUP.match(name))


def _is_thought(call: Call) -> bool:
    return call.name == "think"


class _State:
    """Where the episode stands: tools, field rules, and the expected actions that are still to be done."""

    def __init__(self, candidate: Candidate):
        self.docs = function_docs(candidate.tools)
        self.fields = {**_EXPRESSION, **read_fields(candidate.case)}
        self.actions = _task_actions(candidate.case)
        self.done = self._done(candidate.messages) if self.actions else frozenset()

    def same(self, want: Call, got: Call) -> bool:
        """tool_call's comparison, but for a transfer's summary."""
        if want.name != got.name:
            return False
        return bool(_TRANSFER.match(want.name)) or self._form(want) == self._form(got)

    def expects(self, action: dict, call: Call) -> bool:
        """Whether `call` does what an expected action says."""
        if call.name != action["name"]:
            return False
        names, wanted, made = action.get("compare_args"), action["arguments"], as_object(call.arguments)
        if names is not None:  # tau2 compares these alone
            wanted, made = ({k: v for k, v in each.items() if k in names} for each in (wanted, made))
        exactly = not is_lookup(call.name)
        return self._form(Call(call.name, wanted), exactly) == self._form(Call(call.name, made), exactly)

    def _form(self, call: Call, exactly: bool = False) -> Hashable:
        return normal(call.arguments, parameters(call.name, self.docs), call.name, self.fields, exactly)

    def _done(self, messages: list[Message]) -> frozenset[int]:
        """Indices of the expected actions that calls in the history did, each call at most one."""
        failed = {
            m.get("tool_call_id")
            for m in messages
            if m.get("role") == "tool" and isinstance(m.get("content"), str) and _ERROR.match(m["content"])
        }
        calls = [
            call
            for m in messages
            if m.get("role") == "assistant"
            for call, made in zip(message_to_action(m).calls, m.get("tool_calls") or [])
            if made.get("id") is None or made.get("id") not in failed
        ]
        choices = [[j for j, call in enumerate(calls) if self.expects(a, call)] for a in self.actions]
        return frozenset(matched(choices))


def _task_actions(case: dict) -> list[dict]:
    """The agent's expected actions. Raises InputError for one without a name or arguments."""
    given = case.get("task_actions")
    if given is None:
        return []
    if not isinstance(given, list):
        raise InputError(f'"task_actions" of the case is {show(given)}; want a list of actions')
    actions = []
    for item in given:
        item = as_object(item)
        arguments = item.get("arguments", item.get("kwargs"))
        names = item.get("compare_args")
        if not isinstance(item.get("name"), str) or not isinstance(arguments, dict):
            raise InputError(f'"task_actions" of the case holds {show(item)}; want "name" and "arguments"')
        if names is not None and not isinstance(names, list):
            raise InputError(f'"compare_args" of a task action is {show(names)}; want a list of names')
        if item.get("requestor") != "user":
            actions.append({"name": item["name"], "arguments": arguments, "compare_args": names})
    return actions


def _wrong(call: Call, expected: list[Call], state: _State) -> Verdict:
    """The verdict on a call that is neither demonstrated nor expected: which rule it breaks."""
    said = f"{show(call.name)} with {show(call.arguments)}"
    if any(state.expects(state.actions[i], call) for i in state.done):
        return Verdict(0.0, "repeated", f"{said}: an expected action that is done already")
    same_tool = next((c for c in expected if c.name == call.name), None)
    if same_tool is not None:
        return Verdict(0.0, "arguments", f"{said}, want {show(same_tool.arguments)}")
    kind = "lookup" if is_lookup(call.name) else "write"
    return Verdict(0.0, kind, f"{said}, want a call of {show(sorted(c.name for c in expected))}")


def _judge(calls: list[Call], expected: list[Call], state: _State, case: dict) -> Verdict:
    shown = {c.name for c in expected}
    for call in calls:
        if _TRANSFER.match(call.name) and call.name not in shown:
            return Verdict(0.0, "transfer", f"{show(call.name)} where the demonstration helps on")
    open_actions = [
        a for i, a in enumerate(state.actions) if i not in state.done and not _TRANSFER.match(a["name"])
    ]
    demonstrated = [[j for j, want in enumerate(expected) if state.same(want, call)] for call in calls]
    found = matched(demonstrated)
    right = [
        fits + [len(expected) + j for j, action in enumerate(open_actions) if state.expects(action, call)]
        for fits, call in zip(demonstrated, calls)
    ]
    pairs = matched(right)
    verdict = count_verdict(case, len(pairs), len(expected), len(calls))
    if verdict.reward == 0 and verdict.reason == "arguments":
        wrong = next((call for i, call in enumerate(calls) if i not in pairs), calls[0])
        return _wrong(wrong, expected, state)
    if verdict.reward == 1 and len(found) < len(pairs):
        return Verdict(1.0, "task_action", f"{len(pairs) - len(found)} of the expected actions to be done")
    return verdict


def verify(candidate: Candidate, action: Action) -> Verdict:
    """Reward 1 iff the action keeps the episode on course. Never raises on `action`.

    Raises InputError for a case whose "task_actions", "fields" or "calls" cannot be used.
    """
    demonstration, state = demonstrated_calls(candidate), _State(candidate)
    verdict = problem(action, demonstration)
    if verdict is not None:
        return verdict
    expected = [call for call in demonstration if not _is_thought(call)]
    calls = [call for call in action.calls if not _is_thought(call)]
    thinks = len(calls) < len(action.calls)
    if demonstration and not expected:
        if thinks and not calls:
            return Verdict(1.0, "ok", "thinks, as the demonstration does")
        reason = "called" if calls else "no_call"
        return Verdict(0.0, reason, "the demonstration only thinks")
    if thinks and not calls:
        return Verdict(0.0, "only_thinks", "a thought alone does nothing and reaches no user")
    if not expected:
        return text_verdict(action)
    if not calls:
        return no_call(expected)
    return _judge(calls, expected, state, candidate.case)


VERIFIERS = (Verifier(NAME, "1", verify),)
