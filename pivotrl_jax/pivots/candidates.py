"""Trajectories -> self-checked candidates: a demonstration passes its own verifier, garbage does not.

The demonstration goes the policy's road: it is rendered by the chat template, tokenised, decoded and parsed
before it is verified. What does not survive that could never be rewarded.
"""

import dataclasses
import json
from collections.abc import Sequence

from pivotrl_jax import verifiers
from pivotrl_jax.chat.actions import message_to_action
from pivotrl_jax.chat.template import Chat
from pivotrl_jax.records import Action, Call, Candidate, InputError, Trajectory, write_records
from pivotrl_jax.run.run import Run
from pivotrl_jax.trajectories import extract, sources, summary
from pivotrl_jax.trajectories.extract import within_limit
from pivotrl_jax.verifiers import exact
from pivotrl_jax.verifiers.base import Verifier
from pivotrl_jax.verifiers.common import function_docs

EMPTY = Action()
GARBAGE_CALL = Action(calls=(Call("made_up_function_zq", {"made_up_argument": "zq"}),))
GARBAGE_TEXT = Action(content="zq zq zq", text="zq zq zq")

NAMED = 10  # turns left out that are printed


# ---- self-check


@dataclasses.dataclass(frozen=True)
class SelfCheck:
    """Candidates whose verifier tells the demonstration from garbage, and why the others were left out."""

    kept: list[Candidate]
    left_out: dict[str, str]  # candidate id -> why
    tools: dict[str, tuple[int, int]]  # called tool -> (candidates kept, candidates)

    def table(self) -> list[str]:
        """Lines for the terminal: the counts, by tool where some were left out, and every such candidate."""
        total = len(self.kept) + len(self.left_out)
        calls = sum(c.is_call for c in self.kept)
        lines = [
            f"self-check: {len(self.kept)} of {total} candidates kept, {calls} call turns and "
            f"{len(self.kept) - calls} talk turns"
        ]
        lines += [
            f"  {name}: {kept} of {count} demonstrations accepted"
            for name, (kept, count) in sorted(self.tools.items(), key=lambda item: -item[1][1])
            if kept < count
        ]
        return lines + [f"  left out {id}: {why}" for id, why in self.left_out.items()]


class PolicyRoad:
    """Turns demonstrations into the actions for which a policy would be scored if it wrote them.

    How a template writes a turn depends on what came since the last user message, and on whether there are
    tools but not on their docs, which take long to render. So only that much is rendered, with the first of
    the tools, once it was seen for one candidate per set of tools that this gives the same tokens as the
    whole state.
    """

    def __init__(self, chat: Chat):
        self._chat = chat
        self._short: dict[tuple[str, ...], bool] = {}  # names of tools -> whether the short state is enough

    def action(self, candidate: Candidate) -> Action:
        """The action as written and read back. Raises InputError if the chat template cannot write it, or the
        calls before it."""
        chat, names = self._chat, tuple(sorted(function_docs(candidate.tools)))
        chat.check_calls([*candidate.messages, candidate.demonstration])
        ids = self._completion(candidate, short=self._short.get(names, False))
        if names not in self._short:
            self._short[names] = ids == self._completion(candidate, short=True)
        return chat.parse(chat.decode(ids), candidate.tools)

    def _completion(self, candidate: Candidate, short: bool) -> list[int]:
        messages, tools = list(candidate.messages), candidate.tools
        if short:
            users = [i for i, m in enumerate(messages) if m["role"] == "user"]
            messages, tools = messages[users[-1] if users else 0 :], tools[:1]
        return self._chat.completion_ids(messages, tools, candidate.demonstration)


def _check(candidate: Candidate, verifier: Verifier, road: PolicyRoad | None) -> str:
    """Why the verifier cannot be trusted at this candidate; "" when it can. A reward of None means that a
    judge must decide. No judge is asked here, so None counts neither as a pass nor as a failure."""
    gold = verifier.verify(candidate, message_to_action(candidate.demonstration))
    if gold.reward not in (1, None):
        return f"{verifier.label} rejects the demonstration itself ({gold.reason}: {gold.details})"
    if road is not None:
        try:
            gold = verifier.verify(candidate, road.action(candidate))
        except InputError as e:
            return str(e)
        if gold.reward not in (1, None):
            return (
                f"{verifier.label} rejects the demonstration as the policy must write it "
                f"({gold.reason}: {gold.details})"
            )
    wrong = {"an empty action": EMPTY, "a call to a made-up function": GARBAGE_CALL}
    if candidate.is_call:  # where the demonstration talks, any text may be legitimate
        wrong["garbage text"] = GARBAGE_TEXT
    for name, action in wrong.items():
        verdict = verifier.verify(candidate, action)
        if verdict.reward not in (0, None):
            return f"{verifier.label} gives {name} a reward of {verdict.reward:g}"
    return ""


def self_check(
    candidates: Sequence[Candidate], chat: Chat | None = None, rewarding: str | None = None
) -> SelfCheck:
    """Verify every demonstration against itself (must get 1), and an empty and a garbage action (must get 0).

    With a `chat` the demonstration is also verified as the policy must write it. `rewarding` names a verifier
    that rewards rollouts at all candidates; it must pass, too, unless it is an ablation of exact.py. Raises
    InputError when a candidate names a verifier that does not exist.
    """
    others = [] if rewarding in (None, *exact.NAMES) else [verifiers.get(rewarding)]
    kept, left_out = [], {}
    road = PolicyRoad(chat) if chat is not None else None
    tools: dict[str, tuple[int, int]] = {}
    for candidate in candidates:
        try:
            checked = [verifiers.get(candidate.verifier), *others]
        except InputError as e:
            raise InputError(f"{candidate.id}: {e}") from None
        try:
            why = next(filter(None, (_check(candidate, verifier, road) for verifier in checked)), "")
        except InputError as e:
            why = f"the case cannot be used: {e}"
        if why:
            left_out[candidate.id] = why
        else:
            kept.append(candidate)
        for name in {c["function"]["name"] for c in candidate.demonstration.get("tool_calls") or ()}:
            accepted, count = tools.get(name, (0, 0))
            tools[name] = accepted + (not why), count + 1
    return SelfCheck(kept, left_out, tools)


def skip_unpassable(
    trajectories: Sequence[Trajectory], chat: Chat, what: str
) -> tuple[list[Trajectory], int]:
    """The trajectories, in which the turns that the self-check leaves out are skipped, and the number of
    these: at such a turn every policy would fail, or any would pass. They are printed as left out of
    `what`."""
    left_out = self_check(extract.extract(trajectories), chat).left_out
    for where, why in list(left_out.items())[:NAMED]:
        print(f"left out of {what} {where}: {why.removeprefix(f'{where}: ')}")
    if len(left_out) > NAMED:
        print(f"... and {len(left_out) - NAMED} more; find_pivots --self_check names them")
    kept = []
    for t in trajectories:
        unpassable = {i: "self_check" for i in range(len(t.messages)) if f"{t.id}@{i}" in left_out}
        kept.append(dataclasses.replace(t, skip={**t.skip, **unpassable}))
    return kept, len(left_out)


def make_candidates(run: Run, data: sources.Data) -> list[Candidate]:
    """Cut, check, limit and write candidates.jsonl; what was left out goes to skipped.jsonl and the
    terminal."""
    prompts, too_long = within_limit(
        run.chat, extract.extract(data.demonstrations), run.config.data.max_prompt_tokens
    )
    checked = self_check([prompt.candidate for prompt in prompts], run.chat, run.verifier)
    left_out = {**data.skipped, **too_long, **checked.left_out}
    run.facts["skipped"] = {
        "rows": len(data.skipped),
        "prompts_too_long": len(too_long),
        "self_check": len(checked.left_out),
        "pass_rate": sum(why.startswith("pass_rate_") for why in data.skipped.values()),
        "without_pass_rate_kept": data.unrated,
    }
    print("\n".join(summary.describe(data.demonstrations, checked.kept)))
    for where, why in list(left_out.items())[:NAMED]:
        print(f"left out {where}: {why.removeprefix(f'{where}: ')}")
    if data.unrated:
        print(f"{data.unrated} trajectories have no published pass rate and were kept")
    if len(left_out) > NAMED:
        print(f"... and {len(left_out) - NAMED} more, all in {run.workdir / 'skipped.jsonl'}")
    lines = [json.dumps({"where": where, "why": why}) + "\n" for where, why in left_out.items()]
    (run.workdir / "skipped.jsonl").write_text("".join(lines), "utf-8")
    write_records(run.workdir / "candidates.jsonl", checked.kept)
    if not checked.kept:
        raise InputError(
            f"no candidate is left of {len(data.demonstrations)} trajectories; see skipped.jsonl"
        )
    return checked.kept
