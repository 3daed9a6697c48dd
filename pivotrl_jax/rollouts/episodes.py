"""Whole episodes played by a policy, turn by turn and all together: for evaluation and end-to-end RL."""

import collections
import dataclasses
from collections.abc import Sequence

import jax

from pivotrl_jax.environments.base import Task
from pivotrl_jax.models import decoder
from pivotrl_jax.rollouts import progress
from pivotrl_jax.rollouts.actor import Completion, Request
from pivotrl_jax.rollouts.rollout import Rollouts


@dataclasses.dataclass
class EpisodeResult:
    """One episode: its outcome, and every turn's prompt and completion as token ids."""

    id: str  # "{task id}#{attempt}"
    task: Task
    success: float = 0.0
    reason: str = "unfinished"
    turns: list[tuple[list[int], Completion]] = dataclasses.field(default_factory=list)


def play(
    rollouts: Rollouts,
    params: decoder.Params,
    tasks: Sequence[Task],
    attempts: int,
    max_steps: int,
    max_prompt: int,
    key: jax.Array,
) -> list[EpisodeResult]:
    """Play every task `attempts` times. The results are in the order of the tasks, then of the attempts.

    In every round, all unfinished episodes take one turn. `params` are as `Actor.place` returns them; `key`
    is a PRNG key; `max_steps` is passed to `Task.start`. An episode whose next prompt would exceed
    `max_prompt` tokens ends as a failure with the reason "too_long". As in single turns, a completion without
    a stop token fails it ("unfinished"), and so does an id that belongs to no token ("malformed").
    """
    results, repeats = [], collections.Counter()
    for task in tasks:
        for _ in range(attempts):  # a task that occurs twice is played again, with different PRNG keys
            results.append(EpisodeResult(f"{task.id}#{repeats[task.id]}", task))
            repeats[task.id] += 1
    live = [(result, result.task.start(max_steps)) for result in results]
    chat = rollouts.chat
    with progress.bar(len(results), "episodes", "episodes") as bar:
        while live:
            playing, requests = [], []
            for result, episode in live:
                prompt = chat.prompt_ids(episode.messages, episode.tools)
                if len(prompt) > max_prompt:
                    result.reason = "too_long"
                    bar.update(1)
                    continue
                # attempts at one task begin alike; in one tree, what they share is computed once
                requests.append(Request(f"{result.id}#{episode.turns}", prompt, result.task.id, 1))
                playing.append((result, episode))
            live = []
            completions = rollouts.actor.act(params, requests, key)
            for (result, episode), request, (completion,) in zip(playing, requests, completions):
                result.turns.append((list(request.prompt), completion))
                if not completion.finished or chat.unknown_ids(completion.token_ids):
                    result.reason = "malformed" if completion.finished else "unfinished"
                    bar.update(1)
                    continue
                episode.step(chat.parse(chat.decode(completion.token_ids), episode.tools))
                if episode.done:
                    verdict = episode.check()
                    result.success, result.reason = verdict.reward, verdict.reason
                    bar.update(1)
                else:
                    live.append((result, episode))
    return results
