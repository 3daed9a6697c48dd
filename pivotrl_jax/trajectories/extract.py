"""Trajectories -> candidates: every assistant turn is a state and the action demonstrated there."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence

from pivotrl_jax.chat.template import Chat
from pivotrl_jax.records import Candidate, Prompt, Trajectory


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


def digest(prompts: Sequence[Prompt]) -> str:
    """A fingerprint of prompts in order: the candidates' content and the token ids, so that template and
    tokenizer count too."""
    h = hashlib.sha256()
    for prompt in prompts:
        c = prompt.candidate
        content = [c.id, c.messages, c.tools, c.demonstration, c.verifier, c.case, list(prompt.ids)]
        h.update(json.dumps(content, sort_keys=True).encode())
    return h.hexdigest()[:16]


def render(chat: Chat, candidates: Sequence[Candidate]) -> list[Prompt]:
    """The prompt of every candidate, in order."""
    return [Prompt(c, chat.prompt_ids(c.messages, c.tools)) for c in candidates]


def within_limit(
    chat: Chat, candidates: Sequence[Candidate], limit: int
) -> tuple[list[Prompt], dict[str, str]]:
    """(prompts of at most `limit` tokens, candidate id -> why another is left out)."""
    prompts = render(chat, candidates)
    lengths = {prompt.candidate.id: len(prompt.ids) for prompt in prompts}
    kept, too_long = limit_prompts(candidates, lambda c: lengths[c.id], limit)
    ids = {c.id for c in kept}
    return [prompt for prompt in prompts if prompt.candidate.id in ids], too_long
