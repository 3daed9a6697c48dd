"""Score actions with a verifier; no model needed.

    python -m pivotrl_jax.verify --verifier=tool_call [--mode=nemo_gym] < cases.jsonl

Reads one case per line, writes {"id", "reward", "reason"} per line in the same order. A line that cannot be
read is named on stderr with its number and gives no output line; the others are scored; the exit status is 1.
A line whose demonstration cannot be read is scored 0 with the reason "bad_demonstration".

--verifier takes the name of a built-in or an installed verifier, or "package.module:name" for your own
(pivotrl_jax/verifiers/base.py says how to write one).

    ... --judge_url=http://localhost:8000/v1 --judge_model=NAME [--judge_cache=DIR]

asks a judge where the verifier's rules cannot decide, a batch of lines at a time. Its key is read from
$OPENAI_API_KEY. "reward" is null where the judge abstains.
"""

import itertools
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from absl import app, flags

from pivotrl_jax import verifiers
from pivotrl_jax.records import InputError, Verdict
from pivotrl_jax.verifiers import judge, judge_templates
from pivotrl_jax.verifiers.base import Verifier
from pivotrl_jax.verifiers.cases import BadDemonstration, field

VERIFIER = flags.DEFINE_string("verifier", None, "Name of the verifier.", required=True)
MODE = flags.DEFINE_enum(
    "mode", "strict", verifiers.MODES, "Strict rules, or the rewards of the verifier that NVIDIA released."
)
JUDGE_URL = flags.DEFINE_string("judge_url", None, "OpenAI-compatible endpoint of a judge, e.g. .../v1.")
JUDGE_MODEL = flags.DEFINE_string("judge_model", None, "The judge's model.")
JUDGE_CACHE = flags.DEFINE_string("judge_cache", None, "Directory in which the judge's replies are stored.")

BATCH = 256  # lines whose questions go to the judge together


def verdict_of(verifier: Verifier, raw: bytes) -> tuple[str, Verdict]:
    """The id and the verdict of one line. Raises InputError when the line is not a case."""
    try:
        case = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as e:
        raise InputError(f"not valid JSON ({e}); fix or remove the line") from None
    if not isinstance(case, dict):
        raise InputError(f"a JSON {type(case).__name__}, want an object; fix or remove the line")
    try:
        candidate, action = verifier.read_case(case)
    except BadDemonstration as e:  # a well-formed case that no action can pass
        return field(case, "id", str), Verdict(0.0, "bad_demonstration", str(e))
    return candidate.id, verifier.verify(candidate, action)


def score(verifier: Verifier, judged_by: judge.Judge | None, lines: Iterable[tuple[int, bytes]]) -> int:
    """Score (number, line) pairs and print a line for each. Returns how many could not be read. Raises
    InputError when the judge cannot be asked.
    """
    unreadable, ids, verdicts = 0, [], []
    for number, raw in lines:
        try:
            id, verdict = verdict_of(verifier, raw)
        except InputError as e:
            unreadable += 1
            print(f"verify: line {number}: {e}", file=sys.stderr)
        else:
            ids.append(id)
            verdicts.append(verdict)
    for id, verdict in zip(ids, judge.resolve_with_judge(verdicts, judged_by)):
        print(json.dumps({"id": id, "reward": verdict.reward, "reason": verdict.reason}), flush=True)
    return unreadable


def make_judge() -> judge.Judge | None:
    """The judge that the flags name. Raises InputError."""
    if not JUDGE_URL.value:
        if JUDGE_MODEL.value or JUDGE_CACHE.value:
            raise InputError("--judge_model and --judge_cache need --judge_url, the judge's endpoint")
        return None
    cache = Path(JUDGE_CACHE.value) if JUDGE_CACHE.value else None
    return judge.Judge(JUDGE_URL.value, JUDGE_MODEL.value or "", judge_templates.load(), cache=cache)


def main(argv: list[str]) -> None:
    """Exit status 1 when a line could not be read, or the verifier or the judge cannot be used."""
    try:
        if len(argv) > 1:
            raise InputError(f"unexpected argument {argv[1]!r}; give the cases on standard input")
        verifier = verifiers.register(verifiers.full_name(VERIFIER.value, MODE.value), "--verifier")
        judged_by = make_judge()
        lines = ((number, raw) for number, raw in enumerate(sys.stdin.buffer, 1) if raw.strip())
        unreadable = 0
        while batch := list(itertools.islice(lines, BATCH if judged_by else 1)):
            unreadable += score(verifier, judged_by, batch)
    except InputError as e:
        sys.exit(f"verify: {e}")
    except BrokenPipeError:  # the reader closed the pipe (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the flush at exit must not fail
        return
    if unreadable:
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
