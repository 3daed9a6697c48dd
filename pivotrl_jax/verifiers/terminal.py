"""terminal: the demonstrated step in a terminal, as Terminus JSON or a call of a coding agent's tools.

Terminus (`terminal_cases.is_terminus`):
- The action is one JSON object, alone or after a think block. A code fence or prose around it is rejected, as
  NVIDIA's verifier rejects it: the running agent would answer with a warning.
- It satisfies the schema of its harness, and claims completion if and only if the gold does.
- It types the same: the keystrokes of all commands together are compared in the normal form of
  compare/keystrokes.py, including the final Enter and the special keys (C-c) in between. The analysis, the
  plan, durations and blocking are not compared. What a program reads (an editor, an interpreter,
  `cat > file`) must be the same, character by character (compare/programs.py).

Tools (codex, opencode, agent006, stirrup and others; the rules do not depend on the harness):
- Where the gold is a message, any non-blank message without a call is accepted.
- Otherwise the calls must be the same, in any order, and each must satisfy its tool's schema if one is
  declared.
- A call may have no argument that the gold lacks. An argument left out equals null, the default of its
  schema, or that of a well-known tool (replaceAll: false).
- Commands (`cmd`, `command`) are compared as keystrokes, and paths after normalisation. The content of files,
  edits, patches and programs must be equal except for \\r\\n and leading or trailing blank lines, which
  count in a script that begins with #!. Queries and reasons are compared by words and signs.
- Plans and a subagent's prompt may be anything but empty. Todos are compared by status and priority. The
  description beside a command is not compared, nor is a time limit of a minute or more.

The shell text of commands is read as for `swe` (compare/shell.py), but stricter: what is typed counts line
by line. Similarity never accepts a command. If two commands differ in what decides their effect (numbers,
flags, quoted text, files), the action is rejected. If they may have the same effect (another tool for the
same end) and share half of their characters, the verdict is "undecided": reward 0, with a question for a
judge.
"""

import dataclasses

from pivotrl_jax.chat import json_text
from pivotrl_jax.records import Action, Candidate, Question, Verdict
from pivotrl_jax.verifiers import terminal_cases
from pivotrl_jax.verifiers.base import Verifier
from pivotrl_jax.verifiers.common import show
from pivotrl_jax.verifiers.compare import keystrokes, programs
from pivotrl_jax.verifiers.compare.schemas import SCHEMAS, fits, strokes
from pivotrl_jax.verifiers.terminal_tools import as_text, compare_read, compare_typed, verify_tools, worst


def _read_answer(texts: list[str]) -> dict | None:
    """The first of `texts` that is a JSON object. A text may begin with a think block, and a `</think>` may
    also be typed, so each is tried whole, after its first `</think>` and after its last.
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
    """(the gold, its harness); the gold is None if the row cannot be used."""
    text = terminal_cases.gold_text(candidate)
    gold = _read_answer([text]) if text is not None else None
    if gold is None:
        return None, ""
    harness = terminal_cases.harness_of(candidate, gold)
    return gold, harness if isinstance(harness, str) else ""


def _verify_terminus(candidate: Candidate, action: Action) -> Verdict:
    gold, harness = _gold(candidate)
    if gold is None:
        return Verdict(0.0, "expected_answer", "the gold is not a JSON object in a string")
    if harness not in SCHEMAS:
        return Verdict(0.0, "unknown_harness", f"want one of {list(SCHEMAS)} in metadata.harness")
    if not fits(harness, gold):
        return Verdict(0.0, "expected_answer", f"the gold does not satisfy the schema of {harness}")
    if action.calls:
        return Verdict(0.0, "called", f"called {show(action.calls[0].name)}; want a JSON text")
    if action.malformed and action.reasoning and not action.content:  # all of it is thinking
        return Verdict(0.0, "malformed", action.malformed)
    answer = _read_answer([action.content, action.text])
    if answer is None:
        return Verdict(0.0, "not_json", f"not a single JSON object: {show(action.content or action.text)}")
    if not fits(harness, answer):
        return Verdict(0.0, "schema", f"does not satisfy the schema of {harness}")
    done = [bool(x.get("task_complete") or x.get("is_task_complete")) for x in (gold, answer)]
    if done[0] != done[1]:
        return Verdict(0.0, "task_complete", f"claims {done[1]}, want {done[0]}")
    verdict = _type(strokes(gold), strokes(answer), programs.runs_there(candidate.messages))
    if verdict.reason == "undecided":
        question = Question("terminal", terminal_cases.task_of(candidate), as_text(gold), as_text(answer))
        return dataclasses.replace(verdict, question=question)
    return verdict


def _type(gold: list[str], actual: list[str], inside: bool) -> Verdict:
    """The verdict on what is typed; `inside` says that a program reads it, no shell."""
    if bool(gold) != bool(actual):
        return Verdict(0.0, "commands", f"{len(actual)} commands, want {len(gold)}")
    want, got = keystrokes.typed(gold), keystrokes.typed(actual)
    if want[1::2] != got[1::2]:
        return Verdict(0.0, "keys", f"special keys {show(got[1::2])}, want {show(want[1::2])}")
    verdicts = []
    for pair in zip(want[::2], got[::2]):
        begins = [0, 0] if inside else [programs.program_from(text) for text in pair]
        inside = inside or begins[0] is not None
        if pair[0] == pair[1]:
            continue
        if None in begins:  # a shell reads both, or nobody knows
            begins = [len(text) if begins == [None, None] else 0 for text in pair]
        verdicts.append(compare_typed(*(text[:at] for text, at in zip(pair, begins))))
        verdicts.append(compare_read(*(text[at:] for text, at in zip(pair, begins))))
    return worst(verdicts)


def verify(candidate: Candidate, action: Action) -> Verdict:
    """Reward 1 iff the action does what the demonstration does. Never raises on `action`."""
    return (_verify_terminus if terminal_cases.is_terminus(candidate) else verify_tools)(candidate, action)


VERIFIERS = (Verifier("terminal", "7", verify, terminal_cases.read_case("terminal")),)
