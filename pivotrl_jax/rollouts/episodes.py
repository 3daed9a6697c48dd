"""Whole episodes played by a policy, all in step: for evaluation, and for end-to-end RL."""

import collections
import dataclasses
from collections.abc import Sequence

from pivotrl_jax.chat.template import Chat
from pivotrl_jax.environments.base import Task
from pivotrl_jax.rollouts import progress
from pivotrl_jax.rollouts.actor import Actor, Completion, Request


@dataclasses.dataclass
class EpisodeResult:
    """One episode: its outcome, and every turn's prompt and completion as token ids."""

    id: str  # "{row id}#{attempt}"
    row: Task
    success: float = 0.0
    reason: str = "unfinished"
    turns: list[tuple[list[int], Completion]] = dataclasses.field(default_factory=list)


def play(
    actor: Actor,
    params,
    chat: Chat,
    rows: Sequence[Task],
    attempts: int,
    max_steps: int,
    max_prompt: int,
    stream,
    title: str = "episodes",
) -> list[EpisodeResult]:
    """Play every row `attempts` times, all episodes in step; in the order of rows, then attempts.

    `params` as `Actor.place` returns them, `stream` a PRNG key. An episode whose next prompt would exceed
    `max_prompt` tokens ends as a failure with the reason "too_long".
    """
    played, seen = [], collections.Counter()
    for row in rows:
        for _ in range(attempts):  # a row that occurs twice is played on, with keys of its own
            played.append(EpisodeResult(f"{row.id}#{seen[row.id]}", row))
            seen[row.id] += 1
    live = [(one, one.row.start(max_steps)) for one in played]
    with progress.bar(len(played), title, "episodes") as bar:
        while live:
            playing, requests = [], []
            for one, episode in live:
                prompt = chat.prompt_ids(episode.messages, episode.tools)
                if len(prompt) > max_prompt:
                    one.reason = "too_long"
                    bar.update(1)
                    continue
                # the attempts of a row begin alike: as one tree their prompts are computed once
                requests.append(Request(f"{one.id}#{episode.turns}", prompt, one.row.id, 1))
                playing.append((one, episode))
            live = []
            for (one, episode), request, (drawn,) in zip(
                playing, requests, actor.act(params, requests, stream)
            ):
                one.turns.append((list(request.prompt), drawn))
                episode.step(chat.parse(chat.decode(drawn.token_ids)))
                if episode.done:
                    verdict = episode.check()
                    one.success, one.reason = verdict.reward, verdict.reason
                    bar.update(1)
                else:
                    live.append((one, episode))
    return played
