"""The rewards of NeMo Gym's `terminus_judge`: actions of the Terminus terminal agent, which are JSON texts.

    {"analysis": "...", "plan": "...", "commands": [{"keystrokes": "ls -la\\n"}], "task_complete": false}

It is part of "terminal:nemo_gym" (terminal.py). `candidate.case` holds the released row (`row`, or the row's
fields themselves) with `expected_answer`, `metadata` and `threshold`, and its `config`. Without an
`expected_answer`, the demonstration's text is the gold.

Steps, as released: the text after the last `</think>` is a JSON object; gold and action satisfy the schema
of `metadata.harness`; the action claims completion if the gold does; then all keystrokes, joined to one
string, are similar enough, or a judge decides. The judge is not called here: where it would be, the verdict
carries a question. Where the released code raises (HTTP 500), the reward is 0.
"""

from bisect import bisect_left
from collections import Counter
from difflib import Match, SequenceMatcher
from typing import Any

from pivotrl_jax.chat.json_text import loads
from pivotrl_jax.records import Action, Candidate, Question, Verdict
from pivotrl_jax.verifiers.common import show
from pivotrl_jax.verifiers.compare.schemas import SCHEMAS, fits, strokes
from pivotrl_jax.verifiers.terminal_cases import gold_text, harness_of, row_of, spoken, task_of

# the class defaults of the released server, for options that a `config` leaves out
CLASS_DEFAULTS = {
    "enable_string_similarity": False,
    "string_similarity_threshold": 0.95,
    "enable_llm_judge": True,
}


# the released string-only configuration, for a case without `config`
STRING_ONLY = {
    "enable_string_similarity": True,
    "string_similarity_threshold": 0.9,
    "enable_llm_judge": False,
}


# ---- the released similarity, in bounded time

MAX_STEPS = 10_000_000  # of the inner loop: two seconds; ordinary texts of 50,000 characters take fewer


class _TooMuchWork(Exception):
    """The comparison would take too long."""


class _Metered(SequenceMatcher):
    """difflib's SequenceMatcher without junk: the same matches in fewer steps, which are bounded."""

    left = MAX_STEPS

    def find_longest_match(self, alo: int = 0, ahi: Any = None, blo: int = 0, bhi: Any = None) -> Match:
        a, b, b2j = self.a, self.b, self.b2j
        besti, bestj, size = alo, blo, 0
        lengths: dict[int, int] = {}  # of the match that ends at a[i - 1] and b[j], by j
        for i in range(alo, ahi):
            places = b2j.get(a[i], ())
            start = bisect_left(places, blo)  # difflib steps through the earlier places
            places = places[start : bisect_left(places, bhi, start)]
            self.left -= len(places) + 1
            if self.left < 0:
                raise _TooMuchWork
            longer: dict[int, int] = {}
            for j in places:
                k = longer[j] = lengths.get(j - 1, 0) + 1
                if k > size:
                    besti, bestj, size = i - k + 1, j - k + 1, k
            lengths = longer
        # characters too frequent for b2j (autojunk) extend a match
        while besti > alo and bestj > blo and a[besti - 1] == b[bestj - 1]:
            besti, bestj, size = besti - 1, bestj - 1, size + 1
        while besti + size < ahi and bestj + size < bhi and a[besti + size] == b[bestj + size]:
            size += 1
        return Match(besti, bestj, size)


def similar(first: str, second: str, threshold: float) -> tuple[bool | None, str]:
    """(whether `SequenceMatcher(None, first, second).ratio() >= threshold`, the score in words).

    As released, the order of the two matters and autojunk is on. The upper bounds that difflib documents
    (lengths, then counts of characters) decide most hostile pairs; None if the others would take too long.
    """
    if first == second:
        return threshold <= 1.0, "similarity 1"
    total = len(first) + len(second)
    bounds = (
        lambda: min(len(first), len(second)),
        lambda: (Counter(first) & Counter(second)).total(),
    )
    for matches in bounds:
        bound = 2.0 * matches() / total
        if bound < threshold:
            return False, f"similarity at most {bound:.4f}, want {threshold}"
    try:
        ratio = _Metered(None, first, second).ratio()
    except _TooMuchWork:
        return None, f"{total} characters that take too long to compare"
    return ratio >= threshold, f"similarity {ratio:.4f}, want {threshold}"


def _read_gold(text: str | None) -> dict | None:
    try:
        gold = loads(text or "")
    except ValueError:
        return None
    return gold if isinstance(gold, dict) else None


def _complete(gold: dict, answer: dict) -> bool:
    """Whether the action claims completion if the gold does. As released, a premature claim passes."""
    for name in ("task_complete", "is_task_complete"):
        if gold.get(name):
            return bool(answer.get(name))
    return True


def read_threshold(row: dict, config: dict) -> float:
    """The row's threshold, or else that which `config` gives for the row, or else the server's. Raises
    ValueError if it is no number."""
    for value in (row.get("threshold"), config.get("threshold"), config.get("string_similarity_threshold")):
        if value is not None:
            if not isinstance(value, (int, float, str)) or len(str(value)) > 100:
                break
            return float(value)
    raise ValueError("no threshold")


def verify(candidate: Candidate, action: Action) -> Verdict:
    """The reward that the released server gives. Never raises on `action`."""
    gold_json = gold_text(candidate)
    gold = _read_gold(gold_json)
    if gold is None:
        return Verdict(0.0, "expected_answer_invalid", f"the gold is no JSON object: {show(gold_json)}")
    text = spoken(action).strip()
    if "</think>" in text:
        text = text.rpartition("</think>")[2].strip()
    try:
        answer = loads(text)
    except ValueError as e:
        return Verdict(0.0, "model_output_invalid", f"not JSON ({str(e)[:120]})")
    if not isinstance(answer, dict):
        return Verdict(0.0, "model_output_invalid", f"a JSON {type(answer).__name__}, want an object")
    harness = harness_of(candidate, gold)
    if not isinstance(harness, str) or harness not in SCHEMAS:
        return Verdict(0.0, "unknown_harness", f"the harness is {show(harness)}, want one of {list(SCHEMAS)}")
    if not fits(harness, gold):
        return Verdict(0.0, "expected_answer_invalid", f"the gold does not satisfy the schema of {harness}")
    if not fits(harness, answer):
        return Verdict(0.0, "schema_check_failed", f"the action does not satisfy the schema of {harness}")
    if not _complete(gold, answer):
        return Verdict(0.0, "task_complete_check_failed", "the gold completes the task")
    question = Question("terminal", task_of(candidate), gold_json, text)
    return _compare(candidate.case, strokes(gold), strokes(answer), question)


def _compare(case: dict, gold: list[str], actual: list[str], question: Question) -> Verdict:
    given = case["config"] if isinstance(case.get("config"), dict) else {}
    # a threshold alone is the row's, and says nothing about the server's other options
    config = {**(CLASS_DEFAULTS if given.keys() - {"threshold"} else STRING_ONLY), **given}
    details = "similarity is switched off"
    if config["enable_string_similarity"]:
        try:
            threshold = read_threshold(row_of(case), config)
        except ValueError:
            return Verdict(0.0, "threshold", "the row's threshold is not a number")
        if bool(gold) != bool(actual):  # no command at all differs even from an empty one
            passed, details = 0.0 >= threshold, "one of the two has no command"
        else:
            passed, details = similar("".join(gold), "".join(actual), threshold)
        if passed is None:
            return Verdict(0.0, "too_long", details)
        if passed:
            return Verdict(1.0, "ok", details)
    elif not config["enable_llm_judge"]:
        return Verdict(1.0, "ok", "satisfies the schema, and nothing else is checked")
    if config["enable_llm_judge"]:
        return Verdict(0.0, "undecided", details, question)
    return Verdict(0.0, "string_similarity_below_threshold", details)
