"""tau2: conversational tool use as in tau2-Bench; a call or a reply that keeps the episode on course.

Where the demonstration makes calls, each call of the action must do one of the following, and no two calls
may stand for the same one:

- equal a demonstrated call (`case["fields"]` included);
- do one of the episode's expected actions that is still open. `candidate.case["task_actions"]` lists them:
  {"name", "arguments" (or "kwargs"), "compare_args"?: names, "requestor"?: "user" for the user's actions}. An
  action is done once the history holds the call and an output that is not an error.

Strings of a look-up (below) are compared as in tool_call, strings of any other call exactly: tau2-Bench
compares the data base that they are written to, and its tools take reasons in one spelling only. Where these
tools take several items of an order, the items may come in any order, each with its replacement. A null
that a write's schema allows may clear: it is no argument only where null is the documented default.

There must be as many calls as demonstrated, unless `case["calls"]` counts otherwise (compare/arguments.py).

- A look-up (`get_`, `find_`, `search_`, `list_`, `calculate`) changes nothing, but only a demonstrated or an
  expected one is accepted: otherwise the policy would be rewarded for doing nothing.
- A transfer to a human is accepted only where it is demonstrated, even if it is an expected action. Its
  summary is not compared.
- Where the demonstration talks, the action must talk: a call may act before the user has agreed.
- `think` counts neither as a call nor as talk. Such calls are removed on both sides, and text beside one does
  not reach the user. Where the demonstration only thinks, an action that only thinks is accepted.

Reasons of rejected calls: "transfer", "lookup", "write", "arguments" (right tool, other arguments),
"repeated" (an expected action that is already done), "count", "spray"; of accepted ones: "ok" and
"task_action".
"""

import re
from collections.abc import Hashable

from pivotrl_jax.chat.actions import message_to_action
from pivotrl_jax.chat.json_text import loads
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
    normal_call,
    read_fields,
)

NAME = "tau2"
_LOOKUP = re.compile(r"(?:get|find|search|list)_|calculate")
_TRANSFER = re.compile(r"transfer_to_(?:a_)?(?:human|live|real|agent)")
_ABOUT_ITEMS = {
    "return_delivered_order_items",
    "exchange_delivered_order_items",
    "modify_pending_order_items",
}
_ERROR = re.compile(r"\s{0,9}\W?error\b(?!-)", re.IGNORECASE)
_OPERATOR = re.compile(r" ?([-+*/()]) ?")
_POWER = re.compile(r"([*/]) +\1")  # 2 * * 3 is no sum, 2 ** 3 is one


def is_lookup(name: str) -> bool:
    """Whether a tool only reads."""
    return bool(_LOOKUP.match(name))


def _is_thought(call: Call) -> bool:
    return call.name == "think"


def _summed(call: Call) -> Call:
    """A calculation without the spaces around its operators: 2+2 equals 2 + 2, but 1 2 is not 12."""
    text = as_object(call.arguments).get("expression")
    if call.name != "calculate" or not isinstance(text, str) or _POWER.search(text):
        return call
    return Call(call.name, {**call.arguments, "expression": _OPERATOR.sub(r"\1", text.strip(" "))})


def _in_pairs(call: Call) -> Call:
    """A call about several items of an order with these in one order: tau2's tools keep them sorted, or go
    through the pairs of an item and its replacement one by one."""
    given = as_object(call.arguments)
    lists = {name: given[name] for name in ("item_ids", "new_item_ids") if isinstance(given.get(name), list)}
    texts = all(isinstance(item, str) for items in lists.values() for item in items)
    if call.name not in _ABOUT_ITEMS or not texts or len({*map(len, lists.values())}) != 1:
        return call
    columns = zip(*sorted(zip(*lists.values())))
    return Call(call.name, {**given, **{name: list(column) for name, column in zip(lists, columns)}})


def _any_words(want: dict, got: dict) -> bool:
    """Whether the same arguments are given, each text with some words."""
    blank = any(isinstance(v, str) and v.strip() and not isinstance(got.get(k), str) for k, v in want.items())
    empty = any(isinstance(v, str) and not v.strip() for v in got.values())
    return want.keys() == got.keys() and not blank and not empty


def _is_error(message: Message) -> bool:
    """Whether a result says that its call failed: by its reader's flag, in words, or as {"error": ...}."""
    content = message.get("content")
    if message.get("error") is True or not isinstance(content, str):
        return message.get("error") is True
    if content.lstrip().startswith("{"):
        try:
            return bool(as_object(loads(content)).get("error"))
        except ValueError:
            pass  # in words, then
    return bool(_ERROR.match(content))


class _State:
    """The state of the episode: tools, field rules, the expected actions, and which of these are done."""

    def __init__(self, candidate: Candidate):
        self.docs = function_docs(candidate.tools)
        self.fields: Fields = read_fields(candidate.case)
        self.actions = _task_actions(candidate.case)
        self.done = self._done(candidate.messages) if self.actions else frozenset()

    def same(self, want: Call, got: Call) -> bool:
        """Whether the calls are equal, a write's strings exactly. A transfer's summary is not compared."""
        if want.name != got.name:
            return False
        exactly = not is_lookup(want.name)
        if _TRANSFER.match(want.name):
            return _any_words(as_object(want.arguments), as_object(got.arguments))
        return self._form(want, exactly) == self._form(got, exactly)

    def expects(self, action: dict, call: Call) -> bool:
        """Whether `call` does an expected action."""
        if call.name != action["name"]:
            return False
        names, want, got = action.get("compare_args"), action["arguments"], as_object(call.arguments)
        if names is not None:  # tau2-Bench compares only these
            want, got = ({k: v for k, v in each.items() if k in names} for each in (want, got))
        exactly = not is_lookup(call.name)
        return self._form(Call(call.name, want), exactly) == self._form(Call(call.name, got), exactly)

    def _form(self, call: Call, exactly: bool) -> Hashable:
        return normal_call(_in_pairs(_summed(call)), self.docs, self.fields, exactly)

    def _done(self, messages: list[Message]) -> frozenset[int]:
        """Indices of the expected actions that the history's calls have done; a call does at most one."""
        failed = {m.get("tool_call_id") for m in messages if m.get("role") == "tool" and _is_error(m)}
        calls = [
            call
            for m in messages
            if m.get("role") == "assistant"
            for call, sent in zip(message_to_action(m).calls, m.get("tool_calls") or [])
            if sent.get("id") is None or sent.get("id") not in failed
        ]
        choices = [[j for j, call in enumerate(calls) if self.expects(a, call)] for a in self.actions]
        return frozenset(matched(choices))


def _task_actions(case: dict) -> list[dict]:
    """The agent's expected actions. Raises InputError for one without a name or arguments."""
    items = case.get("task_actions")
    if items is None:
        return []
    if not isinstance(items, list):
        raise InputError(f'"task_actions" of the case is {show(items)}; want a list of actions')
    actions = []
    for item in items:
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
    """The verdict on a call that is neither demonstrated nor open; its reason is the rule it breaks."""
    details = f"{show(call.name)} with {show(call.arguments)}"
    if any(state.expects(state.actions[i], call) for i in state.done):
        return Verdict(0.0, "repeated", f"{details}: an expected action that is done already")
    same_tool = next((c for c in expected if c.name == call.name), None)
    if same_tool is not None:
        return Verdict(0.0, "arguments", f"{details}, want {show(same_tool.arguments)}")
    kind = "lookup" if is_lookup(call.name) else "write"
    return Verdict(0.0, kind, f"{details}, want a call of {show(sorted(c.name for c in expected))}")


def _judge(calls: list[Call], expected: list[Call], state: _State, case: dict) -> Verdict:
    names = {c.name for c in expected}
    for call in calls:
        if _TRANSFER.match(call.name) and call.name not in names:
            return Verdict(0.0, "transfer", f"{show(call.name)} where the demonstration goes on helping")
    open_actions = [
        a for i, a in enumerate(state.actions) if i not in state.done and not _TRANSFER.match(a["name"])
    ]
    same = [[j for j, want in enumerate(expected) if state.same(want, call)] for call in calls]
    same_pairs = matched(same)
    choices = [
        fits + [len(expected) + j for j, action in enumerate(open_actions) if state.expects(action, call)]
        for fits, call in zip(same, calls)
    ]
    pairs = matched(choices)
    verdict = count_verdict(case, len(pairs), len(expected), len(calls))
    if verdict.reward == 0 and verdict.reason == "arguments":
        bad_call = next((call for i, call in enumerate(calls) if i not in pairs), calls[0])
        return _wrong(bad_call, expected, state)
    if verdict.reward == 1 and len(same_pairs) < len(pairs):
        return Verdict(
            1.0, "task_action", f"does {len(pairs) - len(same_pairs)} of the open expected actions"
        )
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
        return Verdict(0.0, "only_thinks", "a thought alone does nothing and does not reach the user")
    if not expected:
        return text_verdict(action)
    if not calls:
        return no_call(expected)
    return _judge(calls, expected, state, candidate.case)


VERIFIERS = (Verifier(NAME, "6", verify),)
