"""Trajectories -> candidates: every assistant turn is a state and the action demonstrated there."""

import hashlib
import json
from collections.abc import Iterable, Sequence

from pivotrl_jax.chat.template import Chat
from pivotrl_jax.records import Candidate, Prompt, Trajectory


def extract(trajectories: Iterable[Trajectory]) -> list[Candidate]:
    """One candidate per assistant turn that its trajectory does not skip, in order.

    A greeting that opens a trajectory has no state before it, so it gives no candidate. It still counts in
    `turn`, and so do skipped turns.
    """
    candidates = []
    for trajectory in trajectories:
        turns = [i for i, m in enumerate(trajectory.messages) if m["role"] == "assistant"]
        candidates += [
            Candidate(
                id=f"{trajectory.id}@{i}",
                trajectory_id=trajectory.id,
                turn=turn,
                messages=trajectory.messages[:i],
                tools=trajectory.tools,
                demonstration=trajectory.messages[i],
                verifier=trajectory.verifier,
                case=trajectory.cases.get(i, {}),
                scenario=trajectory.scenario,
            )
            for turn, i in enumerate(turns)
            if i > 0 and i not in trajectory.skip
        ]
    return candidates


def digest(prompts: Sequence[Prompt]) -> str:
    """A fingerprint of prompts in order: of the candidates' content, and of the token ids, since these depend
    on the template and the tokenizer."""
    h = hashlib.sha256()
    for prompt in prompts:
        c = prompt.candidate
        content = [c.id, c.messages, c.tools, c.demonstration, c.verifier, c.case, list(prompt.ids)]
        h.update(json.dumps(content, sort_keys=True).encode())
    return h.hexdigest()[:16]


def render(chat: Chat, candidates: Sequence[Candidate]) -> list[Prompt]:
    """The prompt of every candidate, in order."""
    return [Prompt(c, chat.prompt_ids(c.messages, c.tools)) for c in candidates]


def limit_prompts(prompts: Iterable[Prompt], limit: int) -> tuple[list[Prompt], dict[str, str]]:
    """(prompts of at most `limit` tokens, candidate id -> why its prompt was left out)."""
    short, left_out = [], {}
    for prompt in prompts:
        if len(prompt.ids) <= limit:
            short.append(prompt)
        else:
            left_out[prompt.candidate.id] = (
                f"{prompt.candidate.id}: the prompt has {len(prompt.ids)} tokens, more than the limit of "
                f"{limit}; raise the limit or shorten the trajectory"
            )
    return short, left_out


def within_limit(
    chat: Chat, candidates: Sequence[Candidate], limit: int
) -> tuple[list[Prompt], dict[str, str]]:
    """Render the candidates' prompts and apply `limit_prompts`."""
    return limit_prompts(render(chat, candidates), limit)
