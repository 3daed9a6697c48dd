"""terminal: the demonstrated step in a terminal, Terminus JSON or the tools of a coding agent. Strict mode.

Terminus (see terminal_rows.py for what is Terminus):
- the action is one JSON object, alone or after a think block; a code fence or prose around it is rejected, as
  NVIDIA's verifier rejects it (the agent that runs would warn, and the model would learn to be warned);
- it satisfies the schema of its harness; it claims completion exactly where the gold does;
- it types the same: what all commands type together is compared in the normal form of terminal_shell.py, with
  the Enter at the end and the special keys (C-c) between. Analysis, plan, durations and blocking are free.

Tools (codex, opencode, agent006, stirrup and others; the name of the harness changes nothing):
- where the gold is a message, any message that is not blank, without a call;
- the same calls, in any order; a batch of one is a call; the declared schema holds where one is declared;
- no argument that the gold lacks; one left out equals its default, or nothing at all ("", [], false, null);
- commands (`cmd`, `command`) as what is typed above; paths after normalisation; the content of files, edits,
  patches and programs exactly, but for \\r\\n and outer blank lines; queries and reasons as prose;
- plans and a subagent's prompt are free but not empty; of todos the status and priority count; the
  description and the time limit beside a command are free.

Similarity never accepts a command. Where the rules contradict each other's text (other numbers, flags, quoted
text, files) the action is rejected; where they leave it open (another tool for the same end) and the texts
have half of their characters in common, the verdict is "undecided", reward 0, with a question for a judge.
"""

import dataclasses

from pivotrl_jax.chat import json_text
from pivotrl_jax.records import Action, Candidate, Question, Verdict
from pivotrl_jax.verifiers import terminal_cases
from pivotrl_jax.verifiers.base import Verifier
from pivotrl_jax.verifiers.common import show
from pivotrl_jax.verifiers.compare import keystrokes
from pivotrl_jax.verifiers.compare.schemas import SCHEMAS, fits, strokes
from pivotrl_jax.verifiers.terminal_tools import as_text, compare_typed, verify_tools, worst


def _read_answer(texts: list[str]) -> dict | None:
    """The JSON object that one of `texts` is. The gold and the action may begin with a think block, and a
    `</think>` may also be typed: the text as it is, after the first one and after the last one are tried.
    """
    for text in texts:
        for part in (text, text.partition("</think>")[2], text.rpartition("</think>")[2]):
            try:
                value = json_text.loads(part.strip())
            except ValueError:
                continue
            if isinstance(value, dict):
                return value
    return None


def _gold(candidate: Candidate) -> tuple[dict | None, str]:
    """(the gold, its harness). None: the row is not usable."""
    text = terminal_cases.gold_text(candidate)
    gold = _read_answer([text]) if text is not None else None
    if gold is None:
        return None, ""
    harness = terminal_cases.harness_of(candidate, gold)
    return gold, harness if isinstance(harness, str) else ""


def _verify_terminus(candidate: Candidate, action: Action) -> Verdict:
    gold, harness = _gold(candidate)
    if gold is None:
        return Verdict(0.0, "expected_answer", "the gold is no JSON object in a string")
    if harness not in SCHEMAS:
        return Verdict(0.0, "unknown_harness", f"want one of {list(SCHEMAS)} in metadata.harness")
    if not fits(harness, gold):
        return Verdict(0.0, "expected_answer", f"the gold does not satisfy the schema of {harness}")
    if action.calls:
        return Verdict(0.0, "called", f"called {show(action.calls[0].name)}; want a JSON text")
    answer = _read_answer([action.content, action.text])
    if answer is None:
        return Verdict(0.0, "not_json", f"no JSON object alone: {show(action.content or action.text)}")
    if not fits(harness, answer):
        return Verdict(0.0, "schema", f"does not satisfy the schema of {harness}")
    done = [bool(x.get("task_complete") or x.get("is_task_complete")) for x in (gold, answer)]
    if done[0] != done[1]:
        return Verdict(0.0, "task_complete", f"claims {done[1]}, want {done[0]}")
    verdict = _type(strokes(gold), strokes(answer))
    if verdict.reason == "undecided":
        question = Question("terminal", terminal_cases.task_of(candidate), as_text(gold), as_text(answer))
        return dataclasses.replace(verdict, question=question)
    return verdict


def _type(gold: list[str], actual: list[str]) -> Verdict:
    if bool(gold) != bool(actual):
        return Verdict(0.0, "commands", f"{len(actual)} commands, want {len(gold)}")
    want, got = keystrokes.typed(gold), keystrokes.typed(actual)
    if want[1::2] != got[1::2]:
        return Verdict(0.0, "keys", f"special keys {show(got[1::2])}, want {show(want[1::2])}")
    verdicts = [compare_typed(*pair) for pair in zip(want[::2], got[::2]) if pair[0] != pair[1]]
    return worst(verdicts)


def verify(candidate: Candidate, action: Action) -> Verdict:
    """Reward 1 iff the action does what the demonstration does. Never raises on `action`."""
    return (_verify_terminus if terminal_cases.is_terminus(candidate) else verify_tools)(candidate, action)


VERIFIERS = (Verifier("terminal", "1", verify, terminal_cases.read_case("terminal")),)
