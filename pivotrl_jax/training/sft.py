"""Supervised fine-tuning, the baseline: the turns of the same trajectories that PivotRL makes candidates of.

Every such turn is trained, its stop token included, in packed whole trajectories; an epoch is a fresh
permutation of the trajectories. Turns in `Trajectory.skip` are part of the history alone. Nothing is sampled
and nothing is verified.
"""

import hashlib
import json
from collections.abc import Sequence

from pivotrl_jax.checkpoints import hf_config
from pivotrl_jax.records import InputError, Trajectory
from pivotrl_jax.run import run as run_lib
from pivotrl_jax.run.metrics import Validate
from pivotrl_jax.training import batches, loop, method, recipe
from pivotrl_jax.training.sft_turns import reasoning_lost, skipped, steps_of, turns_of


def train(run: run_lib.Run, trajectories: Sequence[Trajectory], validate: Validate):
    """Fine-tune as `config.sft` says. Returns (parameters, totals), as `pivotrl.train` does. Raises
    InputError when no turn fits a row."""
    config, c = run.config, run.config.sft
    row_lengths = config.compute.row_lengths
    context = hf_config.context_length(run.checkpoint) or max(row_lengths)
    limit = min(context, max(row_lengths))
    turns, left_out = turns_of(run.chat, trajectories, config.data.max_prompt_tokens, limit)
    run.facts["sft_turns_left_out"] = left_out
    run.facts["sft_reasoning_lost"] = reasoning_lost(run.chat, trajectories)
    if lost := run.facts["sft_reasoning_lost"]:
        print(
            f"reasoning of {lost} turns is not imitated: the chat template does not write reasoning_content"
        )
    run.facts["sft_turns_skipped"] = skipped(trajectories)
    if run.facts["sft_turns_skipped"]:
        reasons = ", ".join(f"{why} {count}" for why, count in run.facts["sft_turns_skipped"].items())
        print(f"turns that are not imitated: {reasons}")
    if not turns:
        raise InputError(
            f"no turn of {len(trajectories)} trajectories is imitated and fits; raise "
            "config.data.max_prompt_tokens or config.compute.row_lengths, or see which turns the filters of "
            "config.data leave out"
        )
    steps = steps_of(c.epochs, len(turns), c.trajectories_per_step)
    learner = recipe.sft_learner(config, run.trained_config, run.mesh, run.frozen, steps)

    def make_batch(step: int, params) -> method.StepBatch:
        chosen = method.items_of_step(step, len(turns), c.trajectories_per_step, config.seed)
        # a trajectory drawn twice in a step, at the seam of two epochs, is one tree and counts twice
        flat = [turn for i in chosen for turn in turns[i]]
        return method.StepBatch(batches.sft_batch(flat, row_lengths, learner.rows))

    tokens = json.dumps([[t.prompt.tolist(), t.completion] for several in turns for t in several])
    identity = run.identity(
        sft=recipe.fixed_sft(c),
        turns=hashlib.sha256(tokens.encode()).hexdigest()[:16],
    )
    job = method.Job("SFT", steps, learner, make_batch, identity, c)
    return loop.train(run, job, validate)
