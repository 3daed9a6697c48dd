"""Comparisons of the strict terminal verifier: two typed texts, two values of an argument, two calls.

The rules are in terminal.py.
"""

import dataclasses
import json
import posixpath
import re
from typing import Any

from rapidfuzz.distance import Indel

from pivotrl_jax.records import Action, Call, Candidate, Question, Verdict
from pivotrl_jax.verifiers import terminal_cases
from pivotrl_jax.verifiers.common import function_docs, problem, says_something, show, speaks
from pivotrl_jax.verifiers.compare import keystrokes
from pivotrl_jax.verifiers.compare.arguments import matched, without_undeclared_nulls
from pivotrl_jax.verifiers.compare.coding_tools import LIMITS, is_default
from pivotrl_jax.verifiers.compare.schemas import coerced, satisfies, schemas_of
from pivotrl_jax.verifiers.compare.shell import MAX_CHARS
from pivotrl_jax.verifiers.compare.web import same_marks, signs

OPEN_SIMILARITY = 0.5  # no judge is asked about texts that are less similar
MAX_SIMILARITY_CHARS = 50_000  # of both texts together; comparing these takes a tenth of a second
MAX_BATCH = 16  # calls that are matched in any order; larger batches are compared in the order of their text


# arguments that are not compared in a call with one of ACTS: texts for people, and when to return
FREE = {"description", "yield_time_ms", "max_output_tokens", "justification"}
MIN_LIMIT = 60  # seconds; a shorter time limit may cut a command short
ACTS = {"cmd", "command", "script", "code", "prompt"}
COMMANDS = {"cmd", "command", "script"}
PATHS = {"filePath", "file_path", "path", "workdir", "cwd"}
TEXTS = {"content", "code", "input", "patch"}
PROSE = {("web_search", "query"), ("finish", "reason")}
OK = Verdict(1.0, "ok", "the demonstrated action")


# ---- two texts


def _similarity(gold: str, actual: str) -> float:
    if len(gold) + len(actual) > MAX_SIMILARITY_CHARS:
        return 0.0
    return Indel.normalized_similarity(gold, actual)


def _open(gold: str, actual: str, reason: str) -> Verdict:
    """The verdict where no rule decides: "undecided" for similar texts, else `reason`."""
    similarity = _similarity(gold, actual)
    if similarity >= OPEN_SIMILARITY:
        return Verdict(0.0, "undecided", f"similarity {similarity:.2f}, and no rule decides")
    return Verdict(0.0, reason, f"{show(actual)}, want {show(gold)}")


def compare_typed(gold: str, actual: str) -> Verdict:
    """Compares two texts that are typed into a terminal."""
    if keystrokes.same(gold, actual):
        return OK
    if gold.endswith("\n") != actual.endswith("\n"):
        missing = "is missing" if gold.endswith("\n") else "is not in the demonstration"
        return Verdict(0.0, "enter", f"the last Enter {missing}")
    if max(len(gold), len(actual)) > MAX_CHARS:
        return Verdict(0.0, "too_long", f"more than {MAX_CHARS} characters, and not equal")
    contradiction = keystrokes.contradiction(gold, actual)
    if contradiction:
        return Verdict(0.0, "arguments", show(contradiction))
    return _open(gold, actual, "commands")


def compare_read(gold: str, actual: str) -> Verdict:
    """Compares two texts that are typed into a program."""
    if gold == actual:
        return OK
    if gold.endswith("\n") != actual.endswith("\n"):
        return Verdict(0.0, "enter", "only one of the two ends with Enter")
    if _numbers(gold) != _numbers(actual):
        return _differs("what a program reads", gold, actual)
    return _open(gold, actual, "commands")


def _numbers(text: str) -> list[str]:
    return sorted(re.findall(r"\d+", text))


def _prose(gold: str, actual: str) -> Verdict:
    """Queries and reasons are equal if their words and signs (C++, < 5) are, whatever their case."""
    words = [re.findall(r"[^\W_]+", text.casefold()) for text in (gold, actual)]
    if words[0] == words[1] and words[0] and signs(gold) == signs(actual) and same_marks(gold, actual):
        return OK
    return _open(" ".join(words[0]), " ".join(words[1]), "prose")


def _plain(text: str) -> str:
    return text.replace("\r\n", "\n").strip("\n")


_FIRST = ("#!", "<?", "---\n", "+++\n")  # of a script, XML and PHP, the head of a Markdown page


def _same_text(name: str, gold: str, actual: str) -> bool:
    """Whether two programs, files or patches are equal but for line ends and empty lines around them."""
    if name == "input" and not gold.lstrip().startswith(("*** ", "--- ", "diff ")):
        return gold == actual  # typed into a program, where Enter counts
    if name == "content" and (gold.startswith(_FIRST) or actual.startswith(_FIRST)):
        return gold.rstrip("\n") == actual.rstrip("\n")  # nothing may come before, and the line end is \n
    return _plain(gold) == _plain(actual)


def _generous(name: str, limit: Any) -> bool:
    """Whether a time limit is one that hardly stops a command."""
    number = isinstance(limit, int | float) and not isinstance(limit, bool)
    return number and limit >= MIN_LIMIT * LIMITS[name]


def _command(text: str) -> str:
    """A command without space in front and line ends behind it; a space behind it may be escaped."""
    return _plain(text).lstrip().rstrip("\n")


def worst(verdicts: list[Verdict]) -> Verdict:
    """The first rejection, or else the first undecided verdict, or else ok."""
    failures = [verdict for verdict in verdicts if not verdict.reward]
    return next((v for v in failures if v.reason != "undecided"), failures[0] if failures else OK)


def as_text(answer: dict) -> str:
    """An answer or a call as text, for a judge's prompt."""
    return json.dumps(answer, ensure_ascii=False)


# ---- tools


def _number(value: Any) -> Any:
    """`value` with whole floats as integers, so that 5 equals 5.0. JSON text tells 1 from true."""
    if isinstance(value, dict):
        return {name: _number(v) for name, v in value.items()}
    if isinstance(value, list):
        return [_number(v) for v in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _same_json(gold: Any, actual: Any) -> bool:
    texts = (json.dumps(_number(value), sort_keys=True) for value in (gold, actual))
    return next(texts) == next(texts)


def _path(value: str) -> str:
    return posixpath.normpath(value) if value else value


def _url(value: str) -> str:
    """A page's address with scheme and host in lower case, without a final slash of its path."""
    url = value.strip()
    match = re.match(r"(\w+://)([^/?#]*@)?([^/?#@]*)", url)
    if match is None:
        return url
    rest = url[match.end() :]
    return (
        match[1].lower()
        + (match[2] or "")
        + match[3].lower()
        + (rest if {*"?#"} & {*rest} else rest.rstrip("/"))
    )


def _todos(gold: list, actual: list) -> bool:
    items = [[t if isinstance(t, dict) else {} for t in todos] for todos in (gold, actual)]
    states = [[(show(t.get("status")), show(t.get("priority"))) for t in todos] for todos in items]
    return states[0] == states[1]


def _script(value: list) -> str | None:
    """The script of ["bash", "-lc", script]."""
    shell = len(value) == 3 and value[0] in ("bash", "sh", "zsh", "/bin/bash", "/bin/sh")
    return value[2] if shell and value[1] in ("-c", "-lc") and isinstance(value[2], str) else None


def _differs(name: str, gold: Any, actual: Any) -> Verdict:
    return Verdict(0.0, "arguments", f"{name} is {show(actual)}, want {show(gold)}")


def _compare_value(tool: str, name: str, gold: Any, actual: Any) -> Verdict:
    """Compares one argument of one tool."""
    if _same_json(gold, actual):
        return OK
    same = False
    if isinstance(gold, str) and isinstance(actual, str):
        if name in COMMANDS:
            return compare_typed(_command(gold), _command(actual))
        if (tool, name) in PROSE:
            return _prose(gold, actual)
        if name in PATHS:
            same = _path(gold) == _path(actual)
        elif name == "url":
            same = _url(gold) == _url(actual)
        elif name in TEXTS:
            same = _same_text(name, gold, actual)
            if name == "code" and not same and _numbers(gold) == _numbers(actual):
                return _open(gold, actual, "arguments")
        elif name == "prompt" and tool == "task":
            same = says_something(actual)
    elif isinstance(gold, list) and isinstance(actual, list):
        if name in COMMANDS and None not in (scripts := (_script(gold), _script(actual))):
            verdict = compare_typed(*map(_command, scripts))
            return verdict if gold[:2] == actual[:2] else _differs(name, gold, actual)
        if (tool, name) == ("update_plan", "plan"):
            same = speaks(actual)
        elif (tool, name) == ("todowrite", "todos"):
            same = _todos(gold, actual)
        elif name == "paths" and all(isinstance(path, str) for path in [*gold, *actual]):
            same = {_path(path.strip()) for path in gold} == {_path(path.strip()) for path in actual}
    return OK if same else _differs(name, gold, actual)


def _left_out(name: str, gold: Any, schema: dict) -> Verdict:
    """The verdict on an argument that the gold has and the action lacks."""
    properties = schema.get("properties")
    declaration = properties.get(name) if isinstance(properties, dict) else None
    return OK if is_default(name, gold, declaration) else _differs(name, gold, None)


def _compare_call(gold: Call, actual: Call, schemas: dict[str, dict]) -> Verdict:
    if actual.name != gold.name:
        return Verdict(0.0, "name", f"called {show(actual.name)}, want {show(gold.name)}")
    if not (isinstance(gold.arguments, dict) and isinstance(actual.arguments, dict)):
        same = gold.arguments == actual.arguments
        return OK if same else Verdict(0.0, "malformed", "arguments that are not a JSON object")
    schema = schemas.get(actual.name, {})
    try:
        arguments = coerced(actual.arguments, schema)
    except ValueError:  # a string of thousands of digits, which is neither a list nor an object
        arguments = actual.arguments
    if problem(Action(calls=(Call(gold.name, arguments),)), [gold]) is not None:
        return Verdict(0.0, "malformed", "an argument written as a string is not JSON")
    if schema and not satisfies(arguments, schema):
        return Verdict(0.0, "schema", f"{show(arguments)} breaks the declared schema")
    surplus = sorted(arguments.keys() - gold.arguments.keys())
    if surplus:
        return Verdict(0.0, "surplus", f"arguments that the demonstration lacks: {show(surplus)}")
    verdicts = []
    free = FREE if ACTS & gold.arguments.keys() else ()
    for name, value in gold.arguments.items():
        if name in free or (free and name in LIMITS and _generous(name, value)):
            if name in free or name not in arguments or _generous(name, arguments[name]):
                continue
        if name in arguments:
            verdicts.append(_compare_value(gold.name, name, value, arguments[name]))
        else:
            verdicts.append(_left_out(name, value, schema))
    return worst(verdicts)


def verify_tools(candidate: Candidate, action: Action) -> Verdict:
    """Scores messages and tool calls by the rules in terminal.py. Never raises on `action`."""
    gold, _ = terminal_cases.gold_calls(candidate)
    if gold is None or not all(isinstance(call.arguments, dict) for call in gold):
        return Verdict(0.0, "expected_action", "the gold's calls cannot be read")
    verdict = problem(action, gold)
    if verdict is not None:
        return verdict
    if not gold:
        if action.calls:
            return Verdict(0.0, "called", f"called {show(action.calls[0].name)} where the gold is a message")
        if "<tool_call>" in action.content:
            return Verdict(0.0, "malformed", "a tool call that could not be parsed was left in the text")
        return OK if says_something(action.content) else Verdict(0.0, "empty", "no text and no call")
    if len(action.calls) != len(gold):
        reason = "count" if action.calls else "no_call"
        return Verdict(0.0, reason, f"{len(action.calls)} calls, want {len(gold)}")
    docs = function_docs(candidate.tools)
    given = ([without_undeclared_nulls(call, docs) for call in calls] for calls in (gold, action.calls))
    return _compare_calls(candidate, *given)


def _compare_calls(candidate: Candidate, gold: list[Call], actual: list[Call]) -> Verdict:
    schemas = schemas_of(candidate.tools)
    if len(gold) == 1:
        verdict = _compare_call(gold[0], actual[0], schemas)
        if verdict.reason == "undecided":
            texts = [as_text({"name": c.name, "arguments": c.arguments}) for c in (gold[0], actual[0])]
            question = Question("terminal", terminal_cases.task_of(candidate), *texts)
            return dataclasses.replace(verdict, question=question)
        return verdict
    pairs = [sorted(calls, key=lambda c: (c.name, as_text(c.arguments))) for calls in (gold, actual)]
    verdict = worst([_compare_call(want, got, schemas) for want, got in zip(*pairs)])
    if verdict.reward or len(gold) > MAX_BATCH:
        return verdict
    choices = [
        [i for i, got in enumerate(actual) if _compare_call(want, got, schemas).reward] for want in gold
    ]
    return OK if len(matched(choices)) == len(gold) else verdict
