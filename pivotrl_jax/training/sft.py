"""Supervised fine-tuning, the baseline: all assistant turns of the same trajectories.

Every assistant turn is trained, its stop token included, in packed whole trajectories; an epoch is a fresh
permutation of the trajectories. Nothing is sampled and nothing is verified.
"""

import hashlib
import json
from collections.abc import Sequence

from pivotrl_jax.chat.template import Chat
from pivotrl_jax.records import InputError, Trajectory
from pivotrl_jax.run import run as run_lib
from pivotrl_jax.run.metrics import Validate
from pivotrl_jax.training import batches, loop, method, recipe


def turns_of(
    chat: Chat, trajectories: Sequence[Trajectory], limit: int
) -> tuple[list[list[batches.Turn]], dict[str, str]]:
    """(turns of every trajectory that has any, where -> why a turn was left out). `limit` bounds the tokens
    of a prompt plus its completion. A greeting that opens a trajectory answers no prompt and is not
    trained."""
    by_trajectory, left_out = [], {}
    for trajectory in trajectories:
        turns = []
        for i, message in enumerate(trajectory.messages):
            if message["role"] != "assistant" or i == 0:
                continue
            before = trajectory.messages[:i]
            prompt = chat.prompt_ids(before, trajectory.tools)
            completion = chat.completion_ids(before, trajectory.tools, message)
            if len(prompt) + len(completion) <= limit:
                turns.append(batches.Turn(trajectory.id, prompt, completion))
            else:
                left_out[f"{trajectory.id}@{i}"] = (
                    f"{len(prompt) + len(completion)} tokens with its prompt, more than a row of {limit}"
                )
        if turns:
            by_trajectory.append(turns)
    return by_trajectory, left_out


def train(run: run_lib.Run, trajectories: Sequence[Trajectory], validate: Validate):
    """Fine-tune as `config.sft` says. Returns (parameters, totals), as `pivotrl.train` does. Raises
    InputError when no turn fits a row."""
    config, c = run.config, run.config.sft
    row_lengths = config.compute.row_lengths
    turns, left_out = turns_of(run.chat, trajectories, max(row_lengths))
    run.facts["sft_turns_left_out"] = left_out
    if not turns:
        raise InputError(
            f"no turn of {len(trajectories)} trajectories fits a row; lengthen config.compute.row_lengths"
        )
    learner = recipe.sft_learner(config, run.trained_config, run.mesh, run.frozen)

    def make_batch(step: int, params) -> method.StepBatch:
        chosen = method.items_of_step(step, len(turns), c.trajectories_per_step, config.seed)
        # a trajectory drawn twice in a step, at the seam of two epochs, is one tree and counts twice
        flat = [turn for i in chosen for turn in turns[i]]
        return method.StepBatch(batches.sft_batch(flat, row_lengths, learner.rows))

    tokens = json.dumps([[t.prompt, t.completion] for several in turns for t in several])
    identity = run.identity(
        sft={name: value for name, value in c.to_dict().items() if name not in method.FREE},
        turns=hashlib.sha256(tokens.encode()).hexdigest()[:16],
    )
    steps = max(1, round(c.epochs * len(turns) / c.trajectories_per_step))
    job = method.Job("SFT", steps, learner, make_batch, identity, c)
    return loop.train(run, job, validate)
