"""Trajectories -> self-checked candidates: a demonstration passes its own verifier, garbage does not."""

import dataclasses
import json
from collections.abc import Sequence

from pivotrl_jax import verifiers
from pivotrl_jax.chat.actions import message_to_action
from pivotrl_jax.records import Action, Call, Candidate, InputError, write_records
from pivotrl_jax.run.run import Run
from pivotrl_jax.trajectories import extract, sources
from pivotrl_jax.trajectories.extract import within_limit
from pivotrl_jax.verifiers.base import Verifier

EMPTY = Action()
GARBAGE_CALL = Action(calls=(Call("made_up_function_zq", {"made_up_argument": "zq"}),))
GARBAGE_TEXT = Action(content="zq zq zq", text="zq zq zq")


# ---- self-check


@dataclasses.dataclass(frozen=True)
class SelfCheck:
    """Candidates whose verifier tells the demonstration from garbage, and why the others were left out."""

    kept: list[Candidate]
    left_out: dict[str, str]  # candidate id -> why

    def table(self) -> list[str]:
        """Lines for the terminal: the counts, then every candidate that was left out."""
        total = len(self.kept) + len(self.left_out)
        lines = [f"self-check: {len(self.kept)} of {total} candidates kept"]
        return lines + [f"  left out {id}: {why}" for id, why in self.left_out.items()]


def _check(candidate: Candidate, verifier: Verifier) -> str:
    """Why the verifier cannot be trusted at this candidate; "" when it can. A reward of None means that a
    judge must decide. No judge is asked here, so None counts neither as a pass nor as a failure."""
    gold = verifier.verify(candidate, message_to_action(candidate.demonstration))
    if gold.reward not in (1, None):
        return f"{verifier.label} rejects the demonstration itself ({gold.reason}: {gold.details})"
    wrong = {"an empty action": EMPTY, "a call to a made-up function": GARBAGE_CALL}
    if candidate.is_call:  # where the demonstration talks, any text may be legitimate
        wrong["garbage text"] = GARBAGE_TEXT
    for name, action in wrong.items():
        verdict = verifier.verify(candidate, action)
        if verdict.reward not in (0, None):
            return f"{verifier.label} gives {name} a reward of {verdict.reward:g}"
    return ""


def self_check(candidates: Sequence[Candidate]) -> SelfCheck:
    """Verify every demonstration against itself (must get 1), and an empty and a garbage action (must get 0).

    Raises InputError when a candidate names a verifier that does not exist.
    """
    kept, left_out = [], {}
    for candidate in candidates:
        try:
            verifier = verifiers.get(candidate.verifier)
        except InputError as e:
            raise InputError(f"{candidate.id}: {e}") from None
        try:
            why = _check(candidate, verifier)
        except InputError as e:
            why = f"the case cannot be used: {e}"
        if why:
            left_out[candidate.id] = why
        else:
            kept.append(candidate)
    return SelfCheck(kept, left_out)


def make_candidates(run: Run, data: sources.Data) -> list[Candidate]:
    """Cut, check, limit and write candidates.jsonl; what was left out goes to skipped.jsonl and the
    terminal."""
    prompts, too_long = within_limit(
        run.chat, extract.extract(data.demonstrations), run.config.data.max_prompt_tokens
    )
    checked = self_check([prompt.candidate for prompt in prompts])
    left_out = {**data.skipped, **too_long, **checked.left_out}
    run.facts["skipped"] = {
        "rows": len(data.skipped),
        "prompts_too_long": len(too_long),
        "self_check": len(checked.left_out),
        "pass_rate": sum(why.startswith("pass_rate_") for why in data.skipped.values()),
        "without_pass_rate_kept": data.unrated,
    }
    for where, why in list(left_out.items())[:10]:
        print(f"left out {where}: {why.removeprefix(f'{where}: ')}")
    if data.unrated:
        print(f"{data.unrated} trajectories have no published pass rate and were kept")
    if len(left_out) > 10:
        print(f"... and {len(left_out) - 10} more, all in {run.workdir / 'skipped.jsonl'}")
    lines = [json.dumps({"where": where, "why": why}) + "\n" for where, why in left_out.items()]
    (run.workdir / "skipped.jsonl").write_text("".join(lines), "utf-8")
    write_records(run.workdir / "candidates.jsonl", checked.kept)
    if not checked.kept:
        raise InputError(
            f"no candidate is left of {len(data.demonstrations)} trajectories; see skipped.jsonl"
        )
    return checked.kept
