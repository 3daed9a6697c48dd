"""bfcl_ast: BFCL's rule for single-turn categories, which compares calls with lists of possible answers.

This is a new implementation of the rule of `bfcl_eval/eval_checker/ast_eval/ast_checker.py` (bfcl-eval
2026.3.23, Apache-2.0). Quirks that decide verdicts are reproduced and marked "quirk". Two things differ: no
action raises (BFCL's code raises on unexpected types), and an action with an unreadable call is rejected as a
whole (BFCL drops the call).

`candidate.case` = {"category", "function_docs", "possible_answer"}. `possible_answer` is a list of
{function: {argument: [alternatives]}}; "" among the alternatives means that the argument may be left out.
Irrelevance categories need no answers: there any non-empty text without a call is accepted.
"""

from typing import Any

from pivotrl_jax.records import Action, Call, Candidate, InputError, Verdict
from pivotrl_jax.verifiers.base import Verifier
from pivotrl_jax.verifiers.cases import case_candidate, field
from pivotrl_jax.verifiers.common import problem, show, text_verdict
from pivotrl_jax.verifiers.compare.literals import JAVA_TYPES, JAVASCRIPT_TYPES, java_value, javascript_value

PYTHON_TYPES = {
    "string": str,
    "integer": int,
    "float": float,
    "number": float,
    "boolean": bool,
    "array": list,
    "tuple": list,
    "dict": dict,
    "object": dict,
    "any": str,
}

_DROPPED = str.maketrans("", "", " ,./-_*^")
Fault = tuple[str, str] | None  # (reason, details) of a rejection, None for an accepted call


def _standard(value: Any) -> Any:
    """A string as BFCL standardises it; other values unchanged. Tabs, line breaks and `!:;?` stay (quirk)."""
    return value.translate(_DROPPED).lower().replace("'", '"') if type(value) is str else value


def _standard_list(value: Any) -> list | None:
    """A list with its strings standardised; a string counts as the list of its characters (quirk)."""
    return [_standard(v) for v in value] if isinstance(value, (list, str)) else None


# ---- types


def _answer_type(answers: list) -> type | None:
    return next((type(a) for a in answers if a != ""), None)


def _type_check(value: Any, answers: list, expected: type, nested: type | None) -> tuple[bool, bool]:
    """(whether the type is accepted, whether the value is a variable).

    A value counts as a variable if the type of the answers is not the documented one.
    """
    answer_type = _answer_type(answers)
    variable = answer_type is not None and answer_type is not expected
    if type(value) is expected:
        if nested is None:
            return True, variable
        # some answer must fit all items; an answer that is not a list fits any item (quirk)
        fits = any(
            type(answer) is not list or all(_type_check(v, answer, nested, None)[0] for v in value)
            for answer in answers
        )
        return fits, variable
    return (True, True) if answer_type is not None and type(value) is answer_type else (False, False)


def _python_type(doc: dict) -> tuple[type, type | None]:
    expected = PYTHON_TYPES.get(doc.get("type"), str)
    items = doc.get("items")
    nested = PYTHON_TYPES.get(items.get("type")) if expected is list and isinstance(items, dict) else None
    return expected, nested


def _typed(value: Any, doc: dict, language: str) -> tuple[Any, type, type | None] | None:
    """(value as its documented type, that type, item type).

    None if the language is Java or JavaScript and the value is not a string that holds a literal.
    """
    kind = doc.get("type")
    if language == "python":
        expected, nested = _python_type(doc)
        if expected is float and type(value) is int:
            try:
                value = float(value)
            except OverflowError:
                pass  # stays an int, which is not a float
        return value, expected, nested
    types, convert = (JAVA_TYPES, java_value) if language == "java" else (JAVASCRIPT_TYPES, javascript_value)
    if type(value) is not str:
        return None
    items = doc.get("items")
    inner = items.get("type") if kind in ("Array", "ArrayList", "array") and isinstance(items, dict) else None
    return convert(value, kind, inner), types.get(kind, str), types.get(inner) if inner else None


# ---- values


def _dict_matches(value: Any, answers: list) -> bool:
    """Whether a dict fits an answer {key: [alternatives]}; only keys that allow "" may be missing."""
    if not isinstance(value, dict):
        return False
    for answer in answers:
        if not isinstance(answer, dict):
            continue
        alternatives = {k: v if isinstance(v, list) else [v] for k, v in answer.items()}
        fits = all(
            k in alternatives and _standard(v) in [_standard(a) for a in alternatives[k]]
            for k, v in value.items()
        )
        if fits and all(k in value or "" in v for k, v in alternatives.items()):
            return True
    return False


def _value_matches(value: Any, answers: list, expected: type, nested: type | None, variable: bool) -> bool:
    if variable:
        return value in answers
    if expected is dict:
        return _dict_matches(value, answers)
    if expected is list and nested is dict:
        # an answer "" is an empty list (quirk)
        return any(
            isinstance(answer, (list, str))
            and len(value) == len(answer)
            and all(_dict_matches(v, [a]) for v, a in zip(value, answer))
            for answer in answers
        )
    if expected is str:
        return _standard(value) in [_standard(a) for a in answers if type(a) is str]
    if expected is list:
        return [_standard(v) for v in value] in [_standard_list(a) for a in answers]
    return value in answers


# ---- calls


def _call_fault(call: Call, doc: dict, answer: dict, language: str) -> Fault:
    """Why one call is rejected against one function doc and one possible answer."""
    answers = next(iter(answer.values()))
    parameters = doc["parameters"]
    if call.name != doc["name"]:
        return "name", f"called {show(call.name)}, want {doc['name']}"
    for name in parameters.get("required") or []:
        if name not in call.arguments:
            return "missing", f"{doc['name']} without the required {name}"
    for name, value in call.arguments.items():
        if name not in parameters["properties"] or name not in answers:
            return "unexpected", f"{doc['name']} has an unexpected argument {show(name)}"
        typed = _typed(value, parameters["properties"][name], language)
        if typed is None:
            return "type", f"{name} = {show(value)}, want a {language} literal in a string"
        typed_value, expected, nested = typed
        accepted, variable = _type_check(typed_value, answers[name], expected, nested)
        if not accepted:
            return "type", f"{name} = {show(value)}, want {parameters['properties'][name].get('type')}"
        if not _value_matches(typed_value, answers[name], expected, nested, variable):
            return "value", f"{name} = {show(value)}, want one of {show(answers[name])}"
    for name, alternatives in answers.items():
        if name not in call.arguments and "" not in alternatives:
            return "missing", f"{doc['name']} without {name}, which has no accepted default"
    return None


def _doc_of(docs: list[dict], answer: dict) -> dict:
    name = next(iter(answer))
    for doc in docs:
        if doc["name"] == name:
            return doc
    raise InputError(
        f'"function_docs" has no function {show(name)} that "possible_answer" calls; add its doc'
    )


def _calls_fault(calls: tuple[Call, ...], case: dict) -> Fault:
    category, docs, answers = case["category"], case["function_docs"], case["possible_answer"]
    language = "javascript" if "javascript" in category else "java" if "java" in category else "python"
    parallel, multiple = "parallel" in category, "multiple" in category
    if len(calls) != (len(answers) if parallel or multiple else 1):
        return "count", f"{len(calls)} calls, want {len(answers)}"
    if not parallel:
        doc = _doc_of(docs, answers[0]) if multiple else docs[0]
        return _call_fault(calls[0], doc, answers[0], language)
    remaining = list(calls)
    for answer in answers:  # greedy, in the order of the answers, without backtracking (quirk)
        doc = _doc_of(docs, answer)
        faults = []
        for i, call in enumerate(remaining):
            fault = _call_fault(call, doc, answer, language)
            if fault is None:
                del remaining[i]
                break
            faults.append(fault)
        else:
            return "no_match", f"no call matches {doc['name']}: " + "; ".join(d for _, d in faults)[:300]
    return None


def _check_case(case: dict) -> None:
    """Raises InputError for a case that cannot be used, since cases are the user's data."""
    category = field(case, "category", str)
    if "relevance" in category:
        return
    for doc in field(case, "function_docs", list) or [None]:
        parameters = doc.get("parameters") if isinstance(doc, dict) and "name" in doc else None
        if not isinstance(parameters, dict) or not isinstance(parameters.get("properties"), dict):
            raise InputError(
                f'"function_docs" holds {show(doc)}; want objects with "name" and "parameters.properties"'
            )
    for answer in field(case, "possible_answer", list) or [None]:
        arguments = next(iter(answer.values()), None) if isinstance(answer, dict) else None
        if not isinstance(arguments, dict) or not all(isinstance(v, list) for v in arguments.values()):
            raise InputError(
                f'"possible_answer" holds {show(answer)}; want objects {{function: {{argument: [values]}}}}'
            )


def verify(candidate: Candidate, action: Action) -> Verdict:
    """Reward 1 iff BFCL's rule accepts. Never raises on `action`; raises InputError for an unusable case."""
    _check_case(candidate.case)
    verdict = problem(action)
    if verdict is not None:
        return verdict
    category = candidate.case["category"]
    if "irrelevance" in category:
        return text_verdict(action)
    if not action.calls:
        return Verdict(0.0, "no_call", "no call where one is needed")
    if "relevance" in category:
        return Verdict(1.0, "ok", "makes a call, as is needed")
    fault = _calls_fault(action.calls, candidate.case)
    return Verdict(1.0, "ok", "a possible answer") if fault is None else Verdict(0.0, *fault)


def read_case(case: dict) -> tuple[Candidate, Action]:
    """A line of {"id", "category", "function_docs", "possible_answer", "candidate": [{function: arguments}]}.

    Raises InputError for missing or wrong fields, except inside "candidate", which is model output.
    """
    _check_case(case)
    calls, malformed = [], ""
    for item in field(case, "candidate", list):
        if isinstance(item, dict) and len(item) == 1:
            calls.append(Call(*next(iter(item.items()))))
        else:
            malformed = malformed or f"a decoded call is {show(item)}, want {{function: arguments}}"
    extra = {k: case.get(k, []) for k in ("category", "function_docs", "possible_answer")}
    # decoded calls come without their text: an empty list stands for an action that only talked
    content = "" if calls or malformed else "(text)"
    action = Action(content, "", tuple(calls), malformed, content)
    tools = [d for d in extra["function_docs"] if isinstance(d, dict)]
    return case_candidate(case, "bfcl_ast", {"role": "assistant", "content": ""}, tools, extra), action


VERIFIERS = (Verifier("bfcl_ast", "1", verify, read_case),)
