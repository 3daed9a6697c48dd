"""Cases -> verdicts, one after the other: what the program `verify` and `pivotrl_jax.api.verify` do."""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator

from pivotrl_jax.records import InputError, Verdict
from pivotrl_jax.verifiers.base import Verifier
from pivotrl_jax.verifiers.cases import BadDemonstration, field
from pivotrl_jax.verifiers.judge import Judge, resolve_with_judge

BATCH = 256  # cases whose questions go to the judge together


@dataclasses.dataclass(frozen=True)
class Scored:
    """A case with its verdict, or with what is wrong with it."""

    number: int  # of the case, from 1
    id: str  # "" for a case that cannot be read
    verdict: Verdict | None  # None for a case that cannot be read
    error: str = ""


def verdict_of(verifier: Verifier, case: dict | str | bytes) -> tuple[str, Verdict]:
    """The id and the verdict of one case, before any judge is asked. Raises InputError when it is no case."""
    if isinstance(case, str | bytes):
        try:
            case = json.loads(case.decode("utf-8") if isinstance(case, bytes) else case)
        except (ValueError, RecursionError) as e:
            raise InputError(f"not valid JSON ({e}); fix or remove the line") from None
    if not isinstance(case, dict):
        raise InputError(f"a JSON {type(case).__name__}, want an object; fix or remove the line")
    try:
        candidate, action = verifier.read_case(case)
    except BadDemonstration as e:  # a well-formed case that no action can pass
        return field(case, "id", str), Verdict(0.0, "bad_demonstration", str(e))
    return candidate.id, verifier.verify(candidate, action)


def score(verifier: Verifier, judge: Judge | None, cases: Iterable[dict | str | bytes]) -> Iterator[Scored]:
    """Every case with its verdict, in order, as soon as it is known. Blank lines are numbered and left out.
    Raises InputError when the judge cannot be asked."""
    numbered = ((n, c) for n, c in enumerate(cases, 1) if not isinstance(c, str | bytes) or c.strip())
    while batch := list(itertools.islice(numbered, BATCH if judge else 1)):
        found = [_scored(verifier, number, case) for number, case in batch]
        read = [s.verdict for s in found if s.verdict is not None]
        verdicts = iter(resolve_with_judge(read, judge))
        yield from (dataclasses.replace(s, verdict=next(verdicts)) if s.verdict else s for s in found)


def _scored(verifier: Verifier, number: int, case: dict | str | bytes) -> Scored:
    try:
        id, verdict = verdict_of(verifier, case)
    except InputError as e:
        return Scored(number, "", None, str(e))
    return Scored(number, id, verdict)
