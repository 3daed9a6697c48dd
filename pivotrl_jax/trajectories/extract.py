"""Trajectories -> candidates: every assistant turn is a state and the action demonstrated there."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from pivotrl_jax.chat import prefixes
from pivotrl_jax.chat.template import Chat
from pivotrl_jax.records import Candidate, InputError, Prefix, Prompt, Trajectory, by_trajectory


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
                messages=Prefix(trajectory.messages, i),
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
    for group in by_trajectory(prompts):
        # what the prompts of a trajectory share is written as JSON once
        last = max(group, key=lambda prompt: len(prompt.candidate.messages)).candidate
        messages = [_dumps(message) for message in last.messages]
        tools, ids_of = _dumps(last.tools), _id_writer([prompt.ids for prompt in group])
        for prompt in group:
            c = prompt.candidate
            history = f"[{', '.join(messages[: len(c.messages)])}]"
            rest = [_dumps(x) for x in (c.demonstration, c.verifier, c.case)]
            h.update(f"[{', '.join([_dumps(c.id), history, tools, *rest, ids_of(prompt.ids)])}]".encode())
    return h.hexdigest()[:16]


def _dumps(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _id_writer(prompts: Sequence[np.ndarray]) -> Callable[[np.ndarray], str]:
    """`_dumps` for token ids, made for those of some prompts, most of which are prefixes of the longest."""
    longest = max(prompts, key=len)
    numbers = [str(i) for i in longest.tolist()]
    text, ends = ", ".join(numbers), np.cumsum([len(n) + 2 for n in numbers]) - 2

    def write(ids: np.ndarray) -> str:
        n = len(ids)
        if n and np.array_equal(longest[:n], ids):
            return f"[{text[: ends[n - 1]]}]"
        return _dumps(ids.tolist())

    return write


def encode(chat: Chat, candidates: Iterable[Candidate]) -> Iterator[tuple[Candidate, prefixes.Ids]]:
    """(candidate, token ids of its prompt), in order; an InputError stands for the ids of a prompt that the
    template refuses."""
    waiting: list[Candidate] = []

    def conversations() -> Iterator[prefixes.Conversation]:
        for group in by_trajectory(candidates):
            waiting.extend(group)
            ends = [len(c.messages) for c in group]
            longest = max(group, key=lambda c: len(c.messages))
            yield prefixes.Conversation(longest.messages, ends, longest.tools)

    for several in prefixes.prompt_ids(chat, conversations()):
        yield from zip(waiting, several)
        del waiting[: len(several)]


def render(chat: Chat, candidates: Iterable[Candidate]) -> list[Prompt]:
    """The prompt of every candidate, in order. Raises InputError where the template refuses one."""
    prompts = []
    for candidate, ids in encode(chat, candidates):
        if isinstance(ids, InputError):
            raise ids
        prompts.append(Prompt(candidate, ids))
    return prompts


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
