r"""Score actions with a verifier; no model needed.

    python -m pivotrl_jax.verify --verifier=tool_call [--mode=nemo_gym] < cases.jsonl

e.g. echo 'CASE' | python -m pivotrl_jax.verify --verifier=tool_call, where CASE is, in one line,

    {"id": "first",
     "expected_action": {"type": "function_call", "name": "book", "arguments": "{\"seat\": \"12A\"}"},
     "candidate": [{"type": "function_call", "name": "book", "arguments": "{\"seat\": \"12A\"}"}]}

Reads one case per line, writes {"id", "reward", "reason"} per line in the same order. A line that cannot be
read is named on stderr with its number and gives no output line; the others are scored; the exit status is 1.
A line whose demonstration cannot be read is scored 0 with the reason "bad_demonstration".

--verifier takes the name of a built-in or an installed verifier, or "package.module:name" for your own
(pivotrl_jax/verifiers/base.py says how to write one).

    ... --judge_url=http://localhost:8000/v1 --judge_model=NAME [--judge_cache=DIR]

asks a judge where the verifier's rules cannot decide, a batch of lines at a time. Its key is read from
$OPENAI_API_KEY. "reward" is null where the judge abstains.
"""

import json
import sys

from absl import flags

from pivotrl_jax import api, terminal, verifiers
from pivotrl_jax.records import InputError

VERIFIER = flags.DEFINE_string("verifier", None, "Name of the verifier.")
MODE = flags.DEFINE_enum(
    "mode", "strict", verifiers.MODES, "Strict rules, or the rewards of the verifier that NVIDIA released."
)
JUDGE_URL = flags.DEFINE_string("judge_url", "", "OpenAI-compatible endpoint of a judge, e.g. .../v1.")
JUDGE_MODEL = flags.DEFINE_string("judge_model", "", "The judge's model.")
JUDGE_CACHE = flags.DEFINE_string("judge_cache", "", "Directory in which the judge's replies are stored.")


def main(arguments: list[str]) -> None:
    """Exit status 1 when a line could not be read, or the verifier or the judge cannot be used."""
    if arguments:
        raise InputError(f"unexpected argument {arguments[0]!r}; give the cases on standard input")
    if VERIFIER.value is None:
        raise InputError("no verifier; name one, e.g. --verifier=tool_call")
    scored = api.verify(
        sys.stdin.buffer,
        VERIFIER.value,
        mode=MODE.value,
        judge_url=JUDGE_URL.value,
        judge_model=JUDGE_MODEL.value,
        judge_cache=JUDGE_CACHE.value,
    )
    unreadable = 0
    for case in scored:
        if case.verdict is None:
            unreadable += 1
            print(f"verify: line {case.number}: {case.error}", file=sys.stderr)
        else:
            verdict = case.verdict
            line = {"id": case.id, "reward": verdict.reward, "reason": verdict.reason}
            print(json.dumps(line), flush=True)
    if unreadable:
        sys.exit(1)


if __name__ == "__main__":
    terminal.run("verify", main)
