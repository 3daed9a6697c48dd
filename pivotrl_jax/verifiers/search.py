"""search: the same step of a search as the demonstrated one.

The tool must be the same. Each argument is compared by its role, which follows from its name (ROLES) or from
`candidate.case["roles"]` = {"argument" or "tool.argument": role}:

- `query`: the same topic, numbers, signs, quoted phrases, operators and small words (`web.query_difference`;
  `case["query_similarity"]` is its threshold). Lists of queries are matched one to one in any order. SQL, and
  what tools look for in code, files or databases, is compared exactly.
- `page`: an address of the same page (`web.page`). A value that is no address is compared exactly.
- `evidence`: what is looked for or quoted in a page. One text contains the other; a text longer than the
  demonstrated one must occur in an earlier tool output, if there is any.
- `answer`: an answer given through a tool, compared as below.
- `free`: instructions to a reader of pages. They are not compared and may be left out.
- `exact`, and every other argument (ids, result indices, cursors, page numbers): compared as in tool_call.

Several calls are matched one to one and counted by `case["calls"]` (compare/arguments.py).

A turn that only talks is the final answer. It is right if the marked answer, or the whole text, equals
`case["answer"]` (a string or a list of strings) or the demonstration, after normalisation of numbers, dates,
case and articles. Otherwise the reward is 0 with a `question` of the kind "answer", so that a judge can
decide.
"""

import functools
from collections.abc import Callable
from typing import Any

from pivotrl_jax.records import Action, Call, Candidate, InputError, Question, Verdict
from pivotrl_jax.verifiers.base import Verifier
from pivotrl_jax.verifiers.common import (
    demonstrated_calls,
    function_docs,
    no_call,
    problem,
    show,
    text_verdict,
)
from pivotrl_jax.verifiers.compare import prose
from pivotrl_jax.verifiers.compare.answers import final_answer, same_answer
from pivotrl_jax.verifiers.compare.arguments import (
    as_object,
    count_verdict,
    matched,
    normal_call,
    parameters,
    read_fields,
    without_undeclared_nulls,
)
from pivotrl_jax.verifiers.compare.web import (
    QUERY_SIMILARITY,
    page,
    query_difference,
    same_page,
    same_passage,
    words,
)

NAME = "search"

ROLES = {
    "query": "query queries q search_query search_queries search_term search_terms keyword keywords",
    "page": "url urls link links uri href page_url website",
    "evidence": "pattern quote quotes evidence passage snippet find needle find_text search_text",
    "answer": "answer final_answer exact_answer",
    "free": "goal",
}

_ROLE = {argument: role for role, names in ROLES.items() for argument in names.split()}

_REASONS = {
    "query": "query",
    "page": "page",
    "evidence": "evidence",
    "answer": "answer",
    "exact": "arguments",
}

MAX_QUESTION = 20_000  # characters of an answer in a judge's prompt


@functools.lru_cache(maxsize=64)  # the rollouts of a group share their history
def _page_words(text: str) -> str:
    return " ".join(words(text))


class _Step:
    """What a comparison of calls depends on: the tools, the case's rules, and the tool outputs so far."""

    def __init__(self, candidate: Candidate):
        case = candidate.case
        self.docs, self.fields = function_docs(candidate.tools), read_fields(case)
        self.similarity, self.roles = case.get("query_similarity", QUERY_SIMILARITY), case.get("roles", {})
        if isinstance(self.similarity, bool) or not isinstance(self.similarity, (int, float)):
            raise InputError(
                f'"query_similarity" of the case is {show(self.similarity)}; want a number in (0, 1]'
            )
        if not isinstance(self.roles, dict) or not all(r in (*ROLES, "exact") for r in self.roles.values()):
            raise InputError(
                f'"roles" of the case is {show(self.roles)}; want argument -> {[*ROLES, "exact"]}'
            )
        self.messages = candidate.messages
        self._pages: str | None = None

    def pages(self) -> str | None:
        """The words of all tool outputs so far; None if there are none."""
        if self._pages is None:
            outputs = [m["content"] for m in self.messages if m.get("role") == "tool"]
            self._pages = " ".join(_page_words(text) for text in outputs if isinstance(text, str))
        return self._pages or None

    def role(self, tool: str, argument: str, want: Any) -> str:
        """The role of an argument; "exact" if the demonstrated value `want` does not suit the role."""
        role = self.roles.get(f"{tool}.{argument}", self.roles.get(argument, _ROLE.get(argument, "exact")))
        if role == "free":
            return role
        named = argument in self.roles or f"{tool}.{argument}" in self.roles
        if role in ("query", "evidence") and not named and self._takes_code(tool, argument):
            return "exact"
        texts = want if isinstance(want, list) else [want]
        if not texts or not all(isinstance(text, str) for text in texts):
            return "exact"
        if role == "exact" and argument not in self.roles and all("://" in t and page(t) for t in texts):
            return "page"  # in some browser tools, `id` is a result's number or an address
        return role

    def _takes_code(self, tool: str, argument: str) -> bool:
        """Whether a tool searches code, files or a database, where case and signs count, or the argument's
        schema speaks for code.
        """
        schema = as_object(as_object(parameters(tool, self.docs).get("properties")).get(argument))
        described = [schema, as_object(schema.get("items"))]
        about = as_object(self.docs.get(tool)).get("description")
        return prose.tool_takes_code(tool, about) or prose.speaks_for_code("", described)

    def same(self, role: str, want: str, got: str) -> bool:
        """Whether two texts of one role mean the same."""
        if role == "query" and (prose.is_statement(want) or prose.is_statement(got)):
            return want == got
        if role == "query":
            return not query_difference(want, got, self.similarity)
        if role == "page":
            return same_page(want, got)
        if role == "evidence":
            return same_passage(want, got, self.pages() if len(got) > len(want) else None)
        return same_answer(want, got)

    def texts_differ(self, role: str, want: Any, got: Any) -> bool:
        """Whether arguments of a role differ: texts, or lists of texts in any order."""
        if isinstance(want, str) and isinstance(got, str):
            return not self.same(role, want, got)
        if not isinstance(want, list) or not isinstance(got, list) or len(want) != len(got):
            return True
        if not all(isinstance(text, str) for text in got):
            return True
        return len(matched(_choices(want, got, lambda a, b: self.same(role, a, b)))) < len(want)

    def difference(self, want: Call, got: Call) -> str:
        """The role or rule by which `got` differs from the demonstrated call; "" if it does not."""
        if want.name != got.name:
            return "name"
        if not isinstance(want.arguments, dict) or not isinstance(got.arguments, dict):
            same = normal_call(want, {}) == normal_call(got, {})
            return "" if same else "arguments"
        want, got = without_undeclared_nulls(want, self.docs), without_undeclared_nulls(got, self.docs)
        roles = {}
        for name in [*want.arguments, *got.arguments]:
            roles[name] = self.role(want.name, name, want.arguments.get(name))
        plain = [{k: v for k, v in call.arguments.items() if roles[k] == "exact"} for call in (want, got)]
        ours, theirs = (normal_call(Call(want.name, given), self.docs, self.fields) for given in plain)
        if ours != theirs:
            return "arguments"
        for name, role in sorted(roles.items(), key=lambda item: item[1] == "answer"):  # answers last
            if role in ("exact", "free"):
                continue
            if self.texts_differ(role, want.arguments.get(name), got.arguments.get(name)):
                return role
        return ""


def _choices(want: list, got: list, same: Callable[[Any, Any], bool]) -> list[list[int]]:
    return [[j for j, b in enumerate(got) if same(a, b)] for a in want]


def _question(candidate: Candidate, gold: str, actual: str) -> Question:
    question = candidate.case.get("question")
    if not isinstance(question, str):
        users = [m.get("content") for m in candidate.messages if m.get("role") == "user"]
        question = next((text for text in reversed(users) if isinstance(text, str)), "")
    return Question("answer", question, gold, actual[:MAX_QUESTION])


def _answer(candidate: Candidate, action: Action) -> Verdict:
    """The verdict on a final answer in text."""
    verdict = text_verdict(action)
    if verdict.reward == 0:
        return verdict
    golds = candidate.case.get("answer")
    golds = [golds] if isinstance(golds, str) else golds if isinstance(golds, list) else []
    demonstration = candidate.demonstration.get("content")
    demonstration = demonstration if isinstance(demonstration, str) else ""
    answer = final_answer(action.content)
    for want in [*golds, final_answer(demonstration)]:
        if isinstance(want, str) and (same_answer(want, answer) or same_answer(want, action.content)):
            return Verdict(1.0, "ok", "the same answer after normalisation")
    gold = next((k for k in golds if isinstance(k, str)), final_answer(demonstration))
    details = f"the answer {show(answer)}, want {show(gold)}"
    return Verdict(0.0, "answer", details, _question(candidate, gold, answer))


def verify(candidate: Candidate, action: Action) -> Verdict:
    """Reward 1 iff the action takes the demonstrated step. Never raises on `action`.

    Raises InputError for a case whose "roles", "query_similarity", "fields" or "calls" cannot be used.
    """
    expected, step = demonstrated_calls(candidate), _Step(candidate)
    verdict = problem(action, expected)
    if verdict is not None:
        return verdict
    if not expected:
        return _answer(candidate, action)
    if not action.calls:
        return no_call(expected)
    differences = [[step.difference(want, got) for got in action.calls] for want in expected]
    choices = [[j for j, difference in enumerate(row) if not difference] for row in differences]
    verdict = count_verdict(candidate.case, len(matched(choices)), len(expected), len(action.calls))
    if verdict.reward or verdict.reason != "arguments":
        return verdict
    row = next((row for row, fits in zip(differences, choices) if not fits), differences[0])
    near = next((d for d in row if d not in ("", "name")), "name")
    details = f"called {show([(c.name, c.arguments) for c in action.calls])}"
    details += f", want {show([(c.name, c.arguments) for c in expected])}"
    question = None
    if near == "answer" and len(expected) == len(action.calls) == 1:
        texts = [_answer_text(call) for call in (expected[0], action.calls[0])]
        question = _question(candidate, *texts) if all(texts) else None
    return Verdict(0.0, _REASONS.get(near, near), details, question)


def _answer_text(call: Call) -> str:
    """The answer among a call's arguments; "" if there is none or it is not a string."""
    arguments = as_object(call.arguments)
    return next((v for k, v in arguments.items() if _ROLE.get(k) == "answer" and isinstance(v, str)), "")


VERIFIERS = (Verifier(NAME, "7", verify),)
