"""tau2: tables of actions that keep an episode on course and actions that do not; and actions of any kind."""

import pytest
from support.hostile_actions import act, actions, check, fast_and_slow, hostile

from pivotrl_jax.chat.actions import parse_action
from pivotrl_jax.pivots.candidates import self_check
from pivotrl_jax.records import Candidate, InputError
from pivotrl_jax.verifiers import VERIFIERS
from pivotrl_jax.verifiers.cases import calls_message

TAU2 = VERIFIERS["tau2"]
TOOLS = [
    {
        "name": "cancel_order",
        "parameters": {"properties": {"reason": {}, "fee": {"default": 0}}, "required": []},
    },
    {"name": "get_order", "parameters": {"properties": {"order_id": {"type": "string"}}}},
]
LOOK = ("get_order", {"order_id": "#W1"})
OTHER_LOOK = ("get_order", {"order_id": "#W2"})
USER_LOOK = ("get_user_details", {"user_id": "ann"})
CANCEL = ("cancel_order", {"order_id": "#W1", "reason": "no longer needed"})
RETURN = ("return_items", {"order_id": "#W2", "items": ["1", "2"]})
THINK = ("think", {"thought": "hm"})
TRANSFER = ("transfer_to_human_agents", {"summary": "The user wants a refund that I cannot give."})


def candidate(*calls, content="", actions=None, messages=(), case=None):
    message = calls_message(list(calls)) if calls else {"role": "assistant", "content": content}
    case = {**(case or {}), **({} if actions is None else {"task_actions": actions})}
    return Candidate("t@1", "t", 0, list(messages), TOOLS, message, "tau2", case, "t")


def task(call, key="arguments", **more):
    return {"name": call[0], key: call[1], **more}


def done(call, output="{}"):
    """The history after a call."""
    made = calls_message([call])
    return [made, {"role": "tool", "tool_call_id": made["tool_calls"][0]["id"], "content": output}]


TASK = [task(LOOK), task(CANCEL, "kwargs"), task(RETURN)]
RULES = {
    "the demonstrated call": (candidate(LOOK), act(LOOK), "ok"),
    "the demonstrated write, a default written out": (
        candidate(CANCEL),
        act((CANCEL[0], {**CANCEL[1], "fee": 0})),
        "ok",
    ),
    "a write in other spelling": (
        candidate(CANCEL),
        act(("cancel_order", {"order_id": "#W1", "reason": "No longer  needed", "fee": 0})),
        "arguments",
    ),
    "text beside the call": (candidate(LOOK), act(LOOK, content="One moment."), "ok"),
    "parallel calls in any order": (candidate(LOOK, CANCEL), act(CANCEL, LOOK), "ok"),
    "a call short": (candidate(LOOK, CANCEL), act(LOOK), "count"),
    "a call short, where the case allows it": (
        candidate(LOOK, CANCEL, case={"calls": "subset"}),
        act(LOOK),
        "ok",
    ),
    "the call twice": (candidate(LOOK), act(LOOK, LOOK), "count"),
    "other arguments": (candidate(LOOK), act(OTHER_LOOK), "arguments"),
    "case of an id": (candidate(LOOK), act(("get_order", {"order_id": "#w1"})), "arguments"),
    "another look-up": (candidate(LOOK), act(USER_LOOK), "lookup"),
    "a look-up for a write": (candidate(CANCEL), act(LOOK), "lookup"),
    "another write": (candidate(LOOK), act(RETURN), "write"),
    "an expected write": (candidate(LOOK, actions=TASK), act(CANCEL), "task_action"),
    "an expected look-up": (candidate(CANCEL, actions=TASK), act(LOOK), "task_action"),
    "an expected write with its default": (
        candidate(LOOK, actions=TASK),
        act(("cancel_order", {**CANCEL[1], "fee": 0})),
        "task_action",
    ),
    "an expected write in other letters": (
        candidate(LOOK, actions=TASK),
        act(("cancel_order", {"order_id": "#W1", "reason": "No longer needed"})),
        "write",
    ),
    "an expected write with one argument more": (
        candidate(LOOK, actions=TASK),
        act(("cancel_order", {**CANCEL[1], "note": "x"})),
        "write",
    ),
    "an expected write, done": (
        candidate(LOOK, actions=TASK, messages=done(CANCEL)),
        act(CANCEL),
        "repeated",
    ),
    "an expected write that failed": (
        candidate(LOOK, actions=TASK, messages=done(CANCEL, "Error: not found")),
        act(CANCEL),
        "task_action",
    ),
    "expected twice, done once": (
        candidate(LOOK, actions=[*TASK, task(CANCEL)], messages=done(CANCEL)),
        act(CANCEL),
        "task_action",
    ),
    "done, but demonstrated again": (
        candidate(CANCEL, actions=TASK, messages=done(CANCEL)),
        act(CANCEL),
        "ok",
    ),
    "demonstrated and expected": (
        candidate(LOOK, USER_LOOK, actions=TASK),
        act(USER_LOOK, CANCEL),
        "task_action",
    ),
    "one expected action twice": (candidate(LOOK, USER_LOOK, actions=TASK), act(CANCEL, CANCEL), "write"),
    "all expected actions at once": (candidate(LOOK, actions=TASK), act(LOOK, CANCEL, RETURN), "count"),
    "the user's own action": (
        candidate(LOOK, actions=[task(CANCEL, requestor="user")]),
        act(CANCEL),
        "write",
    ),
    "only what is compared": (
        candidate(LOOK, actions=[task(CANCEL, compare_args=["order_id"])]),
        act(("cancel_order", {"order_id": "#W1", "reason": "x"})),
        "task_action",
    ),
    "not what is compared": (
        candidate(LOOK, actions=[task(CANCEL, compare_args=["order_id"])]),
        act(("cancel_order", {"order_id": "#W2", "reason": "no longer needed"})),
        "write",
    ),
    "talk where it calls": (candidate(LOOK, actions=TASK), act(content="Which order?"), "no_call"),
    "talk where it talks": (candidate(content="Which order?"), act(content="What is your name?"), "ok"),
    "a call where it talks": (candidate(content="Sure?", actions=TASK), act(CANCEL), "called"),
    "nothing where it talks": (candidate(content="Sure?"), act(), "empty"),
    "a transfer where demonstrated": (candidate(TRANSFER), act((TRANSFER[0], {"summary": "Refund."})), "ok"),
    "a transfer elsewhere": (candidate(CANCEL), act(TRANSFER), "transfer"),
    "a transfer beside the call": (candidate(CANCEL), act(CANCEL, TRANSFER), "transfer"),
    "a transfer that is expected later": (
        candidate(CANCEL, actions=[task(TRANSFER)]),
        act(TRANSFER),
        "transfer",
    ),
    "no transfer": (candidate(TRANSFER), act(content="Sorry."), "no_call"),
    "a thought before the call": (candidate(CANCEL), act(THINK, CANCEL), "ok"),
    "no thought before the call": (candidate(THINK, CANCEL), act(CANCEL), "ok"),
    "only a thought": (candidate(CANCEL), act(THINK), "only_thinks"),
    "a thought beside talk": (candidate(content="Sure?"), act(THINK, content="Sure?"), "only_thinks"),
    "another thought": (candidate(THINK), act(("think", {"thought": "so"})), "ok"),
    "a call for a thought": (candidate(THINK), act(CANCEL), "called"),
    "talk for a thought": (candidate(THINK), act(content="Hm."), "no_call"),
    "a sum with other spaces": (
        candidate(("calculate", {"expression": "2 + 2"})),
        act(("calculate", {"expression": "2+2"})),
        "ok",
    ),
    "another sum": (
        candidate(("calculate", {"expression": "2 + 2"})),
        act(("calculate", {"expression": "4"})),
        "arguments",
    ),
    "a broken call": (candidate(LOOK), parse_action("<tool_call>{"), "malformed"),
}


@pytest.mark.parametrize("name", RULES)
def test_rules(name):
    state, action, reason = RULES[name]
    verdict = TAU2.verify(state, action)
    assert verdict.reason == reason and verdict.reward == (reason in ("ok", "task_action"))
    assert verdict.details and verdict.question is None


def test_every_demonstration_of_the_table_passes_the_self_check():
    states = [state for state, _, _ in RULES.values()]
    checked = self_check(states)
    assert len(checked.kept) == len(states), checked.left_out


@pytest.mark.parametrize(
    "actions",
    [
        3,
        ["cancel_order"],
        [{"name": "cancel_order"}],
        [{"name": 1, "arguments": {}}],
        [task(LOOK, compare_args=1)],
    ],
)
def test_task_actions_that_cannot_be_used_are_said(actions):
    with pytest.raises(InputError, match="task"):
        TAU2.verify(candidate(LOOK, actions=actions), act(LOOK))


def test_a_row_brings_its_history_and_its_task():
    call = {"type": "function_call", "name": "get_order", "arguments": '{"order_id": "#W1"}'}
    cancel = {"type": "function_call", "name": "cancel_order", "arguments": '{"order_id": "#W1"}'}
    row = {"id": "r", "expected_action": call, "candidate": [cancel], "tools": TOOLS}
    row["case"] = {"task_actions": [task(("cancel_order", {"order_id": "#W1"}))]}
    assert TAU2.verify(*TAU2.read_case(row)).reason == "task_action"
    function = {"name": "cancel_order", "arguments": cancel["arguments"]}  # a string, as OpenAI writes it
    said = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": function}]}
    assert TAU2.verify(*TAU2.read_case({**row, "messages": [said]})).reason == "repeated"
    for bad in (
        3,
        {"role": "assistant", "tool_calls": [{"id": "c"}]},
        {"role": "assistant", "tool_calls": 3},
    ):
        with pytest.raises(InputError, match="messages"):
            TAU2.read_case({**row, "messages": [bad]})


# ---- any action at all

STATES = [
    candidate(LOOK, actions=TASK, messages=done(RETURN)),
    candidate(CANCEL, RETURN, actions=TASK, case={"calls": "f1"}),
    candidate(TRANSFER),
    candidate(THINK),
    candidate(content="Sure?", actions=TASK),
]
NAMES = ["get_order", "cancel_order", "return_items", "think", TRANSFER[0]]
ACTIONS = actions(NAMES, ["order_id", "reason", "items", "fee", "summary"], ["#W1", "no longer needed", "1"])


def any_action(action):
    for state in STATES:
        check(TAU2, state, action)


test_any_action_gets_a_verdict, test_any_action_gets_a_verdict_slow = fast_and_slow(ACTIONS, any_action)


HOSTILE = hostile("cancel_order", "reason", CANCEL[1])


@pytest.mark.parametrize("trick", HOSTILE)
def test_no_trick_makes_the_verifier_raise_or_take_long(trick):
    any_action(HOSTILE[trick])
