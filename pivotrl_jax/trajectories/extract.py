"""Trajectories -> candidates: every assistant turn is a state and the action demonstrated there."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence

from pivotrl_jax.chat.template import Chat
from pivotrl_jax.records import Candidate, Trajectory


def extract(trajectories: Iterable[Trajectory]) -> list[Candidate]:
    """One candidate per assistant turn that its trajectory does not skip, in order.

    A greeting that opens a trajectory has no state before it and gives none; it still counts in `turn`, as a
    skipped turn does.
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


def limit_prompts(
    candidates: Iterable[Candidate], count_tokens: Callable[[Candidate], int], max_prompt: int
) -> tuple[list[Candidate], dict[str, str]]:
    """(candidates whose prompt has at most `max_prompt` tokens, candidate id -> why it was left out)."""
    kept, skipped = [], {}
    for candidate in candidates:
        count = count_tokens(candidate)
        if count <= max_prompt:
            kept.append(candidate)
        else:
            skipped[candidate.id] = (
                f"{candidate.id}: the prompt has {count} tokens, more than the limit of {max_prompt}; "
                "raise the limit or shorten the trajectory"
            )
    return kept, skipped


def digest(candidates: Sequence[Candidate], prompts: Sequence[Sequence[int]]) -> str:
    """A fingerprint of candidates in order: content, and prompt ids, so template and tokenizer count too."""
    h = hashlib.sha256()
    for c, prompt in zip(candidates, prompts):
        h.update(
            json.dumps(
                [c.id, c.messages, c.tools, c.demonstration, c.verifier, c.case, list(prompt)], sort_keys=True
            ).encode()
        )
    return h.hexdigest()[:16]


def prompts_of(chat: Chat, candidates: Sequence[Candidate]) -> list[list[int]]:
    """Rendered prompt ids of every candidate."""
    return [chat.prompt_ids(c.messages, c.tools) for c in candidates]


def within_limit(
    chat: Chat, candidates: Sequence[Candidate], limit: int
) -> tuple[list[Candidate], dict[str, str]]:
    """(candidates whose prompt has at most `limit` tokens, id -> why another is left out)."""
    return limit_prompts(candidates, lambda c: len(chat.prompt_ids(c.messages, c.tools)), limit)


def turns_of(
    chat: Chat, trajectories: Sequence[Trajectory], limit: int
) -> tuple[list[Candidate], list[list[int]], int]:
    """(turns of trajectories to score a policy at, their prompt ids, how many were left out as too long)."""
    turns, too_long = within_limit(chat, extract(trajectories), limit)
    return turns, prompts_of(chat, turns), len(too_long)
