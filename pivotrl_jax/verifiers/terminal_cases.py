"""Rows of the terminal verifiers -> (candidate, action), and the gold action of a candidate.

Terminus, whose actions are JSON texts (the released row is `row`, or the line itself):

    {"id", "row": {"expected_answer": JSON text, "metadata": {"harness"}, "threshold"?}, "candidate",
     "config"?}

Multi-harness, whose actions are tool calls and messages:

    {"id", "harness", "expected_action": {...}, "candidate", "tools", "threshold"?, "config"?}

`candidate` is a text or a list of Responses items. In training, a candidate's demonstration is the gold: an
assistant message whose content is the JSON text, or one with tool calls.
"""

from typing import Any

from pivotrl_jax.chat.actions import message_to_action
from pivotrl_jax.chat.json_text import loads
from pivotrl_jax.chat.responses import output_texts
from pivotrl_jax.records import Action, Call, Candidate, InputError
from pivotrl_jax.verifiers.cases import CaseReader, case_candidate
from pivotrl_jax.verifiers.common import show

TERMINUS = ("terminus_1", "terminus_2")


def row_of(case: dict) -> dict:
    """The released row: `case["row"]`, or the case itself."""
    return case["row"] if isinstance(case.get("row"), dict) else case


def gold_text(candidate: Candidate) -> str | None:
    """The gold's JSON text; None for a row that the released server refuses."""
    row = row_of(candidate.case)
    expected, metadata = row.get("expected_answer"), row.get("metadata")
    if not isinstance(expected, str | None) or not isinstance(metadata, dict | None):
        return None
    if expected:
        return expected
    if metadata and metadata.get("expected_answer") is not None:
        return str(metadata["expected_answer"])
    if "row" in candidate.case or "expected_answer" in candidate.case:
        return ""
    return message_to_action(candidate.demonstration).content


def spoken(action: Action) -> str:
    """The assistant's text. A broken tool call is text too, as in the released code."""
    if action.malformed and "<tool_call>" in action.text:
        return action.text.rpartition("</think>")[2]
    return action.content


def task_of(candidate: Candidate) -> str:
    """The instruction for a judge's prompt: the first user message."""
    texts = [m.get("content") for m in candidate.messages if m.get("role") == "user"]
    return texts[0] if texts and isinstance(texts[0], str) else ""


# ---- Terminus


def harness_of(candidate: Candidate, gold: dict) -> Any:
    """The row's `metadata.harness`. If an empty case names none, the gold's keys decide."""
    row = row_of(candidate.case)
    harness = (row.get("metadata") or {}).get("harness") or candidate.case.get("harness")
    if harness is None and "row" not in candidate.case and "expected_answer" not in candidate.case:
        return "terminus_1" if "state_analysis" in gold else "terminus_2"
    return harness


def read_text(items: Any) -> Action:
    """An action from a text or Responses items: all texts of the assistant's messages, joined by newlines."""
    if isinstance(items, str):
        return Action(items, text=items)
    texts = []
    for item in items if isinstance(items, list) else []:
        if not isinstance(item, dict) or item.get("type") != "message":
            continue
        content = item.get("content") if item.get("role", "assistant") == "assistant" else None
        if isinstance(content, str):
            texts.append(content)
        elif isinstance(content, list):
            texts += [p["text"] for p in content if isinstance(p, dict) and isinstance(p.get("text"), str)]
    text = "\n".join(texts)
    return Action(text.strip(), text=text)


# ---- multi-harness


def read_call(item: Any) -> Call | None:
    """A function_call item as a call, or None. Arguments that are not JSON remain a string."""
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        return None
    arguments = item.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = loads(arguments)
        except ValueError:
            pass
    return Call(item["name"], arguments)


def gold_calls(candidate: Candidate) -> tuple[list[Call] | None, bool]:
    """(the gold's calls, whether they are a batch): no calls for a message, None if one cannot be read."""
    expected = candidate.case.get("expected_action")
    if expected is None:
        calls = list(message_to_action(candidate.demonstration).calls)
        return calls, len(calls) > 1
    if not isinstance(expected, dict):
        return None, False
    kind = expected.get("type")
    items = {"message": [], "function_call": [expected], "function_call_batch": expected.get("calls")}
    members = items.get(kind) if isinstance(kind, str) else None
    calls = [read_call(item) for item in members] if isinstance(members, list) else [None]
    return (None if None in calls else calls), kind == "function_call_batch"


def read_action(items: Any) -> Action:
    """An action from a text or Responses items: all calls, and all texts of the messages, joined.

    An item that cannot be read becomes a call without arguments, which no verifier accepts.
    """
    if isinstance(items, str):
        return Action(items, text=items)
    calls, texts = [], []
    for item in items if isinstance(items, list) else [items]:
        kind = item.get("type") if isinstance(item, dict) else "function_call"
        if kind == "function_call":
            calls.append(read_call(item) or Call("", None))
        elif kind == "message" and item.get("role", "assistant") == "assistant":
            texts += [text for text in output_texts(item) if isinstance(text, str)]
    text = "".join(texts)
    return Action(text, calls=tuple(calls), text=text)


def is_terminus(candidate: Candidate) -> bool:
    """Whether the Terminus rules apply. The case decides, or else the demonstration."""
    if "expected_action" in candidate.case or candidate.is_call:
        return False
    if "expected_answer" in candidate.case or isinstance(candidate.case.get("row"), dict):
        return True
    if candidate.case.get("harness") not in (None, *TERMINUS):
        return False
    text = message_to_action(candidate.demonstration).content
    return '"commands"' in text and text.rstrip().endswith("}")


_CASE_FIELDS = ("row", "expected_answer", "metadata", "threshold", "config", "harness", "expected_action")


def read_case(verifier: str) -> CaseReader:
    """A reader of both kinds of rows, for the verifier of that name."""

    def read(case: dict) -> tuple[Candidate, Action]:
        if "candidate" not in case:
            raise InputError('the field "candidate" is missing; add it (a text or Responses items)')
        extra = {name: case[name] for name in _CASE_FIELDS if case.get(name) is not None}
        if not isinstance(extra.get("config", {}), dict):
            raise InputError(f'the field "config" is {show(extra["config"])}; want an object')
        if not {"expected_action", "row", "expected_answer", "metadata"} & case.keys():
            raise InputError('neither "expected_answer" (Terminus) nor "expected_action" is there; add one')
        tools = case.get("tools") or case.get("declared_tools")
        tools = tools if isinstance(tools, list) else []
        if "expected_action" in case:
            extra["expected_action"] = case["expected_action"] or {}
            candidate = case_candidate(case, verifier, {"role": "assistant"}, tools, extra)
            return candidate, read_action(case["candidate"])
        extra["expected_answer"] = row_of(case).get("expected_answer")
        candidate = case_candidate(case, verifier, {"role": "assistant"}, [], extra)
        return candidate, read_text(case["candidate"])

    return read
