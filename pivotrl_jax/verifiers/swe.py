"""swe: software engineering; the demonstrated call, or one that does the same to the same place.

The action makes as many calls as demonstrated, each of which matches the demonstrated one at its place; if
all of them only view or search, in any order. How closely is set by `candidate.case["level"]`; each level
includes those above it:

| level | what must agree |
|---|---|
| name | the tool (the paper's verifier, deliberately coarse) |
| file | the editor's sub-command, and the file |
| target | the lines viewed or replaced, the place of an insertion, the search pattern, the shell's commands |
| all (default) | the texts of an edit, a patch or a file; a command's words; all other arguments |

The tools of SWE-agent, OpenHands, mini-swe-agent, Codex and OpenCode are known (compare/coding_tools.py). A
tool of the same family may replace the demonstrated one; if the row declares tools, it must be one of them.
Other tools, and turns that only talk, are compared as in tool_call.

Accepted: foo.py for /w/proj/foo.py, which must be there; a view of some lines more; an edit with more lines
of context; other spaces at the ends of lines; commands that do the same (compare/bash.py). Everything else
must be equal: no text is accepted because it is similar. docs/verifiers_swe.md has a table of pairs.

Rejected, by reason: "malformed" and "empty" (no arguments where some are needed), "incomplete" (one is
missing), "count" (surplus calls), "schema", "name", "operation", "file", "range", "line", "pattern", "head"
(other programs), "operators", "operands", "flags", "redirect", "heredoc", "variables", "time_limit",
"unreadable" (a command that cannot be followed and is not the same text), "no_op" (an edit that changes
nothing), "old_text", "new_text", "content", "indentation", "patch", "arguments".

Two of NeMo Gym's options in `case["config"]` are read: `enable_target_match` and
`enable_argument_similarity` switch levels.
"""

import dataclasses
import json
from collections.abc import Mapping

from pivotrl_jax.records import Action, Call, Candidate, InputError, Message, Verdict
from pivotrl_jax.verifiers import tool_call
from pivotrl_jax.verifiers.base import Verifier
from pivotrl_jax.verifiers.cases import field, read_row
from pivotrl_jax.verifiers.common import demonstrated_calls, function_docs, problem, show, speaks
from pivotrl_jax.verifiers.compare import bash, coding_tools
from pivotrl_jax.verifiers.compare.arguments import as_object, matched, normal_call, without_undeclared_nulls
from pivotrl_jax.verifiers.compare.coding_tools import LOOKS, Operation, family, is_default, operation
from pivotrl_jax.verifiers.compare.edits import (
    compare_files,
    compare_inserted,
    compare_lines,
    compare_patch,
    compare_replacement,
    compare_text,
)
from pivotrl_jax.verifiers.compare.operands import Directories, ends_alike, same_file
from pivotrl_jax.verifiers.compare.paths import known_directory, same_lines

NAME = "swe"

LEVELS = {
    "name": frozenset(),
    "file": frozenset({"file"}),
    "target": frozenset({"file", "target"}),
    "all": frozenset({"file", "target", "arguments"}),
}

WORDS = ("think", "finish", "planning")  # families whose texts for people are free
MAX_CALLS = 64  # demonstrations have a few; if there are more, every action is rejected


@dataclasses.dataclass(frozen=True)
class Rules:
    """What a case asks for, and the candidate's tools and history."""

    layers: frozenset[str]
    docs: Mapping[str, dict]
    messages: list[Message]


def read_rules(candidate: Candidate) -> Rules:
    """The rules of a candidate's case. Raises InputError for an unknown level and for a similarity."""
    case, config = candidate.case, coding_tools.read_config(candidate.case)
    layers = LEVELS["all"]
    if not config.enable_target_match:
        layers -= {"file", "target"}
    if not config.enable_argument_similarity:
        layers -= {"arguments"}
    if "level" in case:
        if not isinstance(case["level"], str) or case["level"] not in LEVELS:
            raise InputError(f'"level" of the case is {show(case["level"])}; want one of {", ".join(LEVELS)}')
        layers = LEVELS[case["level"]]
    if "similarity" in case:
        raise InputError(
            'the case has "similarity", but swe compares texts exactly; leave it out, or use swe:nemo_gym'
        )
    return Rules(layers, function_docs(candidate.tools), candidate.messages)


def _no(reason: str, details: str) -> Verdict:
    return Verdict(0.0, reason, details)


# ---- the levels: each function returns the verdict that rejects, or None


def _compare_name(gold: Call, actual: Call, docs: Mapping[str, dict]) -> Verdict | None:
    """Rejects unless the tools are the same, or of one family and the action's tool is declared."""
    if gold.name == actual.name:
        return None
    gold_family = family(gold.name)
    spellings = [name.lower().replace("_", "").replace("-", "") for name in (gold.name, actual.name)]
    same = spellings[0] == spellings[1] or (gold_family and gold_family == family(actual.name))
    if not same or (docs and actual.name not in docs):
        return _no("name", f"called {show(actual.name)}, want {show(gold.name)}")
    return None


def _compare_schema(gold: Call, actual: Call, docs: Mapping[str, dict]) -> Verdict | None:
    """Rejects undeclared arguments, unless the gold has some, and missing ones that the tool requires."""
    schema = as_object(docs.get(actual.name, {}).get("parameters"))
    properties, required = as_object(schema.get("properties")), schema.get("required")
    required = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
    unknown = sorted(actual.arguments.keys() - properties.keys() - gold.arguments.keys())
    if properties and unknown and not gold.arguments.keys() - properties.keys():
        return _no("schema", f"{show(actual.name)} has no arguments {show(unknown)}")
    missing = sorted(set(required) - actual.arguments.keys())
    if missing and (gold.name != actual.name or set(required) <= gold.arguments.keys()):
        return _no("schema", f"{show(actual.name)} needs {show(missing)}")
    return None


def _compare_file(gold: Operation, actual: Operation, messages: list[Message]) -> Verdict | None:
    if gold.kind != actual.kind:
        return _no("operation", f"to {show(actual.kind)}, want to {show(gold.kind)}")
    if actual.problem and not gold.problem:
        return _no("malformed", actual.problem)
    where = Directories(known_directory(messages))
    if gold.kind == "patch" and gold.new is not None:
        verdict = compare_files(gold.new, actual.new or "", where.common)
        if verdict is not None:
            return verdict
    paths = [operation.path for operation in (gold, actual)]
    if gold.family == "search":  # search tools use the working directory by default
        paths = [path or "." for path in paths]
    if paths[0] is not None and paths[1] is None:
        return _no("incomplete", "no file is named")
    # what is replaced must be there, but a file that is made, or another line, can be anywhere
    reads = gold.kind in (*LOOKS, "replace")
    if paths[0] != paths[1] and not (
        paths[0] is not None
        and (gold.kind in LOOKS or ends_alike(*paths))
        and same_file(*paths, where, reads)
    ):
        return _no("file", f"{show(paths[1])}, want {show(paths[0])}")
    return None


def _compare_target(gold: Operation, actual: Operation, rules: Rules) -> Verdict | None:
    if (gold.lines is None) != (actual.lines is None):
        return _no("incomplete" if gold.lines else "range", f"lines {show(actual.lines)}")
    if gold.lines and gold.kind == "view" and not same_lines(gold.lines, actual.lines):
        return _no("range", f"lines {show(tuple(actual.lines))}, want {show(tuple(gold.lines))}")
    if gold.lines and gold.kind != "view" and gold.lines != actual.lines:
        return _no("line", f"at {show(tuple(actual.lines))}, want {show(tuple(gold.lines))}")
    if gold.pattern != actual.pattern:
        return _no("pattern", f"looks for {show(actual.pattern)}, want {show(gold.pattern)}")
    if gold.command is None:
        return _no("operation", "runs a command") if actual.command else None
    if not (actual.command or "").strip() and gold.command.strip():
        return _no("incomplete", "no command")
    both = [(operation.command or "", operation.workdir) for operation in (gold, actual)]
    return bash.compare(*both, rules.messages, "arguments" in rules.layers)


def _compare_texts(gold: Operation, actual: Operation) -> Verdict | None:
    for what in ("old", "new"):
        want, got = getattr(gold, what), getattr(actual, what)
        if (want is None) != (got is None):
            return _no("incomplete" if got is None else "arguments", f"the {what} text is {show(got)}")
    if gold.kind == "patch":
        return compare_patch(gold.new or "", actual.new or "")
    if gold.old is not None:
        texts = (gold.old, gold.new or ""), (actual.old, actual.new or "")
        return compare_replacement(*texts, gold.path or "")
    if gold.new is None:
        return None
    if gold.kind == "create":
        return compare_text(gold.new, actual.new, gold.path or "")
    compare = compare_lines if gold.kind == "lines" else compare_inserted
    return compare(gold.new, actual.new, gold.path or "")


# arguments of an edit that say how many places change
_EVERYWHERE = ("replace_all", "replaceAll", "expected_replacements", "allow_multiple", "count")


def _given(rest: dict, name: str, docs: Mapping[str, dict]) -> dict:
    """The arguments without those that have the default value of tool `name`."""
    properties = as_object(as_object(docs.get(name, {}).get("parameters")).get("properties"))
    return {key: value for key, value in rest.items() if not is_default(key, value, properties.get(key))}


def _compare_rest(
    calls: tuple[Call, Call], rests: tuple[dict, dict], docs: Mapping[str, dict]
) -> Verdict | None:
    """Compares the other arguments as tool_call does."""
    want, got = (Call(calls[0].name, _given(rest, call.name, docs)) for call, rest in zip(calls, rests))
    if normal_call(want, docs, {}) == normal_call(got, docs, {}):
        return None
    return _no("arguments", f"{show(got.arguments)}, want {show(want.arguments)}")


def _compare_limits(gold: Operation, actual: Operation) -> Verdict | None:
    """Rejects a time limit that may stop the command where the demonstrated one does not."""
    same = gold.limit == actual.limit or gold.command is None or bash.runs_briefly(gold.command)
    if same or all(limit is None or limit >= bash.MIN_LIMIT for limit in (gold.limit, actual.limit)):
        return None
    return _no("time_limit", f"{show(actual.limit)} seconds, want {show(gold.limit)}")


def _compare_known(gold: Call, actual: Call, rules: Rules) -> Verdict | None:
    """Compares two calls of tools of one family."""
    if gold.arguments and not actual.arguments:
        return _no("empty", f"{show(actual.name)} without arguments")
    want, got = operation(gold), operation(actual)
    if want.family in WORDS and rules.layers and gold.arguments:
        # any words will do, but there must be some
        if not any(speaks(actual.arguments.get(name)) for name in gold.arguments):
            return _no("incomplete", f"none of {show(sorted(gold.arguments))} is given")
        rests = want.rest, got.rest  # but an answer, or a claim that all is done, is more than words
        if "arguments" in rules.layers and _compare_rest((gold, actual), rests, rules.docs):
            return _no("arguments", f"{show(actual.arguments)}, want {show(gold.arguments)}")
    verdict = _compare_schema(gold, actual, rules.docs) if rules.layers else None
    if verdict is None and "file" in rules.layers:
        verdict = _compare_file(want, got, rules.messages)
    if verdict is None and "target" in rules.layers:
        verdict = _compare_target(want, got, rules)
    if verdict is not None or "arguments" not in rules.layers or want.family in WORDS:
        return verdict
    if want.kind != got.kind:
        return _no("operation", f"to {show(got.kind)}, want to {show(want.kind)}")
    if want.old != got.old and any(want.rest.get(name) for name in _EVERYWHERE):
        return _no("old_text", "replaces every place of another text")
    verdict = _compare_texts(want, got)
    verdict = verdict or _compare_limits(want, got)
    return verdict or _compare_rest((gold, actual), (want.rest, got.rest), rules.docs)


def _written(call: Call) -> str:
    """The call as JSON, where 1 is not true."""
    return json.dumps([call.name, call.arguments], sort_keys=True)


def _compare(gold: Call, actual: Call, rules: Rules) -> Verdict | None:
    verdict = _compare_name(gold, actual, rules.docs)
    if verdict is not None or not rules.layers:
        return verdict
    if _written(gold) == _written(actual):
        return None
    if not (isinstance(gold.arguments, dict) and isinstance(actual.arguments, dict)):
        return _no("arguments", f"{show(actual.arguments)}, want {show(gold.arguments)}")
    if operation(gold) is not None:
        if operation(actual) is None:
            return _no("incomplete", f"no argument of {show(sorted(gold.arguments))}")
        return _compare_known(gold, actual, rules)
    if normal_call(gold, rules.docs, {}) == normal_call(actual, rules.docs, {}):
        return None
    return _no("arguments", f"{show(actual.arguments)}, want {show(gold.arguments)}")


# ---- whole actions


def _only_looks(call: Call) -> bool:
    """Whether a call only views or searches, so that its order among others of the kind does not matter."""
    found = operation(call) if isinstance(call.arguments, dict) else None
    return found is not None and found.kind in LOOKS


def _spoken(layers: frozenset[str]) -> str:
    return ", ".join(sorted(layers)) or "name"


def verify(candidate: Candidate, action: Action) -> Verdict:
    """Reward 1 iff the action does what the demonstration does, at the case's level. Never raises on
    `action`; raises InputError for a case that cannot be used.
    """
    expected, rules = demonstrated_calls(candidate), read_rules(candidate)
    verdict = problem(action, expected)
    if verdict is not None:
        return verdict
    if not expected or not action.calls:
        return tool_call.verify(candidate, action)
    expected, calls = (
        [without_undeclared_nulls(call, rules.docs) for call in each] for each in (expected, action.calls)
    )
    if len(calls) != len(expected) or len(expected) > MAX_CALLS:
        return _no("count", f"{len(calls)} calls, want {len(expected)}")
    in_order = [_compare(want, got, rules) for want, got in zip(expected, calls)]
    if not any(in_order) or not all(map(_only_looks, expected)):
        wrong = next(filter(None, in_order), None)
        return wrong or Verdict(1.0, "ok", f"as demonstrated, compared by {_spoken(rules.layers)}")
    results = [[_compare(want, got, rules) for want in expected] for got in calls]
    pairs = matched([[i for i, rejection in enumerate(row) if rejection is None] for row in results])
    if len(pairs) == len(expected):
        return Verdict(1.0, "ok", f"as demonstrated, compared by {_spoken(rules.layers)}")
    wrong = next(i for i in range(len(results)) if i not in pairs)
    # report the comparison with a demonstrated call of the same name, if there is one
    rejections = [rejection for rejection in results[wrong] if rejection is not None]
    return next((r for r in rejections if r.reason != "name"), rejections[0])


# ---- cases

_read_row = read_row(NAME)


def read_case(case: dict) -> tuple[Candidate, Action]:
    """A row of single-step tool use (see cases.py), with NeMo Gym's options in "config"."""
    candidate, action = _read_row(case)
    if case.get("config") is not None:
        extra = {**candidate.case, "config": field(case, "config", dict)}
        candidate = dataclasses.replace(candidate, case=extra)
    return candidate, action


VERIFIERS = (Verifier(NAME, "7", verify, read_case),)
