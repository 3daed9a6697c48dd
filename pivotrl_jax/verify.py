"""Score actions with a verifier; no model needed.

    python -m pivotrl_jax.verify --verifier=tool_call [--mode=nemo_gym] < cases.jsonl

Reads one case per line, writes {"id", "reward", "reason"} per line in the same order. A line that cannot be
read is named on stderr with its number and gives no output line; the others are scored; the exit status is 1.
"""

import json
import sys

from absl import app, flags

from pivotrl_jax import verifiers
from pivotrl_jax.records import InputError

VERIFIER = flags.DEFINE_string("verifier", None, "Name of the verifier.", required=True)
MODE = flags.DEFINE_enum("mode", "strict", verifiers.MODES, "Ours, or the rewards that NVIDIA's code gives.")


def score_line(verifier: verifiers.Verifier, raw: bytes) -> str:
    """One line of cases.jsonl -> one line of output. Raises InputError when the line is no case."""
    try:
        case = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as e:
        raise InputError(f"not valid JSON ({e}); fix or remove the line") from None
    if not isinstance(case, dict):
        raise InputError(f"a JSON {type(case).__name__}, want an object; fix or remove the line")
    candidate, action = verifier.read_case(case)
    verdict = verifier.verify(candidate, action)
    return json.dumps({"id": candidate.id, "reward": verdict.reward, "reason": verdict.reason})


def main(argv: list[str]) -> None:
    """Exit status 1 when a line was bad or the verifier is unknown."""
    try:
        if len(argv) > 1:
            raise InputError(f"unexpected argument {argv[1]!r}; give the cases on standard input")
        verifier = verifiers.get(VERIFIER.value, MODE.value)
    except InputError as e:
        sys.exit(f"verify: {e}")
    bad = 0
    for number, raw in enumerate(sys.stdin.buffer, 1):
        if not raw.strip():
            continue
        try:
            print(score_line(verifier, raw), flush=True)
        except InputError as e:
            bad += 1
            print(f"verify: line {number}: {e}", file=sys.stderr)
    if bad:
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
