"""Which turns of which trajectories SFT imitates, and in how many steps."""

import collections
import math
from collections.abc import Sequence

from pivotrl_jax.chat.template import Chat, Unwritable
from pivotrl_jax.records import Trajectory
from pivotrl_jax.training import batches
from pivotrl_jax.trajectories import extract


def turns_of(
    chat: Chat, trajectories: Sequence[Trajectory], max_prompt: int, limit: int
) -> tuple[list[list[batches.Turn]], dict[str, str]]:
    """(turns of every trajectory that has any, where -> why a turn was left out). `max_prompt` bounds the
    tokens of a prompt, as in the other methods, and `limit` those of a prompt plus its completion. The turns
    are those of `extract`: one that is skipped, or a greeting that answers no prompt, is not trained. Raises
    InputError where the chat template refuses a turn."""
    by_trajectory: dict[str, list[batches.Turn]] = {}
    left_out = {}
    for prompt in extract.render(chat, extract.extract(trajectories)):
        c = prompt.candidate
        try:
            chat.check_calls([*c.messages, c.demonstration])
            completion = chat.completion_ids(c.messages, c.tools, c.demonstration)
        except Unwritable as e:
            left_out[c.id] = str(e)
            continue
        tokens = len(prompt.ids) + len(completion)
        if len(prompt.ids) > max_prompt:
            left_out[c.id] = f"its prompt has {len(prompt.ids)} tokens, more than {max_prompt}"
        elif tokens > limit:
            left_out[c.id] = (
                f"{tokens} tokens with its prompt, more than {limit}, a row or the model's context"
            )
        else:
            turn = batches.Turn(c.trajectory_id, prompt.ids, completion)
            by_trajectory.setdefault(c.trajectory_id, []).append(turn)
    return list(by_trajectory.values()), left_out


def steps_of(epochs: float, count: int, per_step: int) -> int:
    """As many steps as it takes to see each of `count` trajectories `epochs` times, at least."""
    return max(1, math.ceil(epochs * count / per_step - 1e-9))


def reasoning_lost(chat: Chat, trajectories: Sequence[Trajectory]) -> int:
    """How many of the turns have reasoning that is not imitated, since the chat template writes none."""
    if chat.writes_thinking:
        return 0
    return sum(bool(c.demonstration.get("reasoning_content")) for c in extract.extract(trajectories))


def skipped(trajectories: Sequence[Trajectory]) -> dict[str, int]:
    """Why turns are not imitated -> how many, the most frequent reason first."""
    return dict(collections.Counter(why for t in trajectories for why in t.skip.values()).most_common())
