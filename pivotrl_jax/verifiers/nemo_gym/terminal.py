"""terminal:nemo_gym: the rewards of NeMo Gym's terminal verifiers; here those of `terminal_multi_harness`.

A case with `expected_answer` (or a released `row`) is Terminus's (terminus.py). A case with
`expected_action`, or a demonstration that calls tools, is of a multi-harness row: codex, opencode,
agent006, stirrup. There `candidate.case` holds `harness`, `expected_action`, `threshold` and `config`
({"tool_call_comparator_config": {"string_similarity_threshold"}}, 0.9 by default).

Steps, as released: the type of action (message, one call, a batch) is the gold's; a message is not blank; a
call's arguments satisfy the declared schema, its name is the gold's, and it has no argument that the gold
lacks; then the rule of (harness, tool) is applied. Where there is no rule, no value is compared. Where the
released code raises, the reward is 0.
"""

import json
from collections.abc import Callable
from typing import Any

from pivotrl_jax.records import Action, Call, Candidate, Verdict
from pivotrl_jax.verifiers import terminal_cases
from pivotrl_jax.verifiers.base import Verifier
from pivotrl_jax.verifiers.common import show
from pivotrl_jax.verifiers.compare.schemas import UNSAFE, coerced, satisfies, schemas_of
from pivotrl_jax.verifiers.nemo_gym import terminus
from pivotrl_jax.verifiers.nemo_gym.terminus import similar

THRESHOLD = 0.9
_OK = Verdict(1.0, "ok", "the demonstrated action, by the released rules")


# ---- rules of one tool: (gold arguments, actual arguments, threshold) -> verdict

Rule = Callable[[dict, dict, float], Verdict]


def _value_mismatch(what: str) -> Verdict:
    return Verdict(0.0, "argument_value_mismatch", what)


def _similar(name: str, first: str, second: str, threshold: float) -> Verdict:
    passed, details = similar(first, second, threshold)
    if passed is None:
        return Verdict(0.0, "too_long", details)
    return Verdict(1.0, "ok", details) if passed else Verdict(0.0, f"{name}_similarity", details)


def _command(name: str) -> Rule:
    def rule(gold: dict, actual: dict, threshold: float) -> Verdict:
        texts = gold.get(name), actual.get(name)
        if not all(isinstance(text, str) for text in texts):
            return Verdict(0.0, f"missing_{name}", f"{name} is not a string")
        plain = [text.replace("\r\n", "\n").replace("\r", "\n").strip() for text in texts]
        return _similar(name, *plain, threshold)

    return rule


def _selected(*names: str) -> Rule:
    def rule(gold: dict, actual: dict, threshold: float) -> Verdict:
        for name in names:
            if gold.get(name) != actual.get(name):
                return _value_mismatch(f"{name} is {show(actual.get(name))}, want {show(gold.get(name))}")
        return _OK

    return rule


def _edit(gold: dict, actual: dict, threshold: float) -> Verdict:
    if actual.get("oldString") == actual.get("newString"):
        return _value_mismatch("the edit changes nothing")
    return _selected("filePath", "replaceAll")(gold, actual, threshold)


def _plan(gold: dict, actual: dict, threshold: float) -> Verdict:
    plan = actual.get("plan")
    empty = plan is None or (not plan.strip() if isinstance(plan, str) else plan in ([], {}))
    return Verdict(0.0, "empty_plan", "the plan is empty") if empty else _OK


def _code(gold: dict, actual: dict, threshold: float) -> Verdict:
    texts = gold.get("code"), actual.get("code")
    if not all(isinstance(text, str) and text.strip() for text in texts):
        return _value_mismatch("code is blank or not a string")
    return _similar("code", *texts, threshold)


def _result(gold: dict, actual: dict, threshold: float) -> Verdict:
    texts = (json.dumps(value.get("result"), sort_keys=True) for value in (gold, actual))
    return _similar("result", *texts, threshold)


def _todos(gold: dict, actual: dict, threshold: float) -> Verdict:
    want, got = gold.get("todos"), actual.get("todos")
    if not isinstance(want, list) or not isinstance(got, list):
        return Verdict(0.0, "empty_todos", "todos is not a list")
    if len(want) != len(got):
        return _value_mismatch(f"{len(got)} todos, want {len(want)}")
    for old, new in zip(want, got):
        if not isinstance(old, dict) or not isinstance(new, dict):
            return _value_mismatch("a todo is not an object")
        verdict = _selected("status", "priority")(old, new, threshold)
        if not verdict.reward:
            return verdict
    return _OK


def _web_text(value: Any) -> str | None:
    """The text in lower case without outer spaces; None for a value that is empty or not a string."""
    return value.lower().strip() if value and isinstance(value, str) else None


def _search(gold: dict, actual: dict, threshold: float) -> Verdict:
    texts = _web_text(gold.get("query")), _web_text(actual.get("query"))
    if None in texts:
        return Verdict(0.0, "missing_query", "query is empty or no string")
    return _similar("query", *texts, threshold)


def _fetch(gold: dict, actual: dict, threshold: float) -> Verdict:
    want, got = _web_text(gold.get("url")), _web_text(actual.get("url"))
    if want is None or got is None:
        return Verdict(0.0, "missing_url", "url is empty or no string")
    return _OK if want == got else Verdict(0.0, "url", f"fetches {show(got)}, want {show(want)}")


def _finish(gold: dict, actual: dict, threshold: float) -> Verdict:
    reasons = _web_text(actual.get("reason")), _web_text(gold.get("reason"))
    if None in reasons:
        return Verdict(0.0, "missing_reason", "reason is empty or no string")
    paths = [value.get("paths") for value in (gold, actual)]
    if not all(isinstance(p, list) and p and all(isinstance(x, str) for x in p) for p in paths):
        return Verdict(0.0, "missing_paths", "paths is empty or no list of strings")
    want, got = (sorted(path.strip() for path in p) for p in paths)
    if want != got:
        return Verdict(0.0, "paths", f"paths are {show(got)}, want {show(want)}")
    return _similar("reason", *reasons, threshold)  # the only rule that puts the actual text first


RULES: dict[tuple[str, str], Rule] = {
    ("codex", "exec_command"): _command("cmd"),
    ("codex", "update_plan"): _plan,
    ("agent006", "execute_python"): _code,
    ("agent006", "return_result"): _result,
    ("opencode", "bash"): _command("command"),
    ("opencode", "todowrite"): _todos,
    ("opencode", "read"): _selected("filePath"),
    ("opencode", "write"): _selected("filePath"),
    ("opencode", "edit"): _edit,
    ("opencode", "glob"): _selected("pattern", "path"),
    ("opencode", "grep"): _selected("pattern", "path", "include"),
    ("opencode", "webfetch"): _selected("url", "format"),
    ("opencode", "skill"): _selected("name"),
    ("opencode", "task"): _selected("subagent_type"),
    ("stirrup", "code_exec"): _command("cmd"),
    ("stirrup", "web_search"): _search,
    ("stirrup", "fetch_web_page"): _fetch,
    ("stirrup", "finish"): _finish,
}


def _compare_call(gold: Call, actual: Call, schemas: dict, harness: Any, threshold: float) -> Verdict:
    if not isinstance(gold.arguments, dict):
        return Verdict(0.0, "expected_action_invalid", "the gold's arguments are no JSON object")
    if not isinstance(actual.arguments, dict) or not isinstance(actual.name, str):
        return Verdict(0.0, "malformed", f"the arguments are no JSON object: {show(actual.arguments)}")
    if actual.name not in schemas:
        return Verdict(0.0, "tool_schema_not_found", f"{show(actual.name)} is not declared")
    try:
        arguments = coerced(actual.arguments, schemas[actual.name])
    except ValueError as e:
        return Verdict(0.0, "malformed", f"an argument cannot be read ({str(e)[:120]})")
    if not satisfies(arguments, schemas[actual.name]):
        return Verdict(0.0, "tool_schema_validation_failed", f"{show(arguments)} breaks the declared schema")
    if gold.name != actual.name:
        return Verdict(0.0, "unexpected_tool", f"called {show(actual.name)}, want {show(gold.name)}")
    surplus = sorted(arguments.keys() - gold.arguments.keys())
    if surplus:
        return Verdict(0.0, "unexpected_argument_keys", f"arguments that the gold lacks: {show(surplus)}")
    rule = RULES.get((str(harness), gold.name))
    if rule is None:
        return Verdict(1.0, "ok", "no rule compares this tool's values")
    try:
        return rule(gold.arguments, arguments, threshold)
    except UNSAFE:
        return Verdict(0.0, "malformed", "arguments too deep or too large to compare")


def _has_string_arguments(expected: Any) -> bool:
    """Whether the arguments of a row's calls are strings; the released server refuses other rows."""
    items = (expected.get("calls") or [expected]) if isinstance(expected, dict) else []
    return not any(
        isinstance(item, dict) and not isinstance(item.get("arguments", ""), str) for item in items
    )


def _sort_key(call: Call) -> tuple[str, str]:
    try:
        if isinstance(call.arguments, dict):
            return str(call.name), json.dumps(call.arguments, sort_keys=True, separators=(",", ":"))
    except UNSAFE:
        pass
    return str(call.name), show(call.arguments)


def verify_harness(candidate: Candidate, action: Action) -> Verdict:
    """The reward that the released `terminal_multi_harness` gives. Never raises on `action`."""
    gold, batch = terminal_cases.gold_calls(candidate)
    if gold is None or not _has_string_arguments(candidate.case.get("expected_action")):
        return Verdict(0.0, "expected_action_invalid", f"{show(candidate.case.get('expected_action'))}")
    if not gold:
        if action.calls:
            return Verdict(0.0, "action_type_mismatch", "a call where the gold is a message")
        blank = not terminal_cases.spoken(action).strip()
        return Verdict(0.0, "empty_message", "a blank message") if blank else _OK
    if not action.calls or batch != (len(action.calls) > 1):
        return Verdict(
            0.0, "action_type_mismatch", f"{len(action.calls)} calls where the gold is of another type"
        )
    if len(gold) != len(action.calls):
        return Verdict(0.0, "batch_length", f"{len(action.calls)} calls, want {len(gold)}")
    config = candidate.case.get("config") or {}
    comparator = config.get("tool_call_comparator_config") or {}
    options = {"string_similarity_threshold": THRESHOLD, **comparator, "threshold": config.get("threshold")}
    try:
        threshold = terminus.read_threshold(terminal_cases.row_of(candidate.case), options)
    except ValueError:
        return Verdict(0.0, "threshold", "the threshold is not a number")
    schemas, harness = schemas_of(candidate.tools), candidate.case.get("harness")
    verdict = _OK
    for want, got in zip(sorted(gold, key=_sort_key), sorted(action.calls, key=_sort_key)):
        verdict = _compare_call(want, got, schemas, harness, threshold)
        if not verdict.reward:
            break
    return verdict


def verify(candidate: Candidate, action: Action) -> Verdict:
    """The reward that NVIDIA's released terminal verifiers give. Never raises on `action`."""
    return (terminus.verify if terminal_cases.is_terminus(candidate) else verify_harness)(candidate, action)


VERIFIERS = (Verifier("terminal:nemo_gym", "2", verify, terminal_cases.read_case("terminal:nemo_gym")),)
