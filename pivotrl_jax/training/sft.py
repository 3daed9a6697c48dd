"""The SFT baseline of a run: all assistant turns of the same trajectories -> trained parameters.

Every assistant turn is trained, its stop token included, in packed whole trajectories; an epoch is a fresh
permutation of the trajectories. Nothing is sampled and nothing is verified.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence

from pivotrl_jax.chat.template import Chat
from pivotrl_jax.checkpoints.orbax import Checkpoints
from pivotrl_jax.models import lora, sharding
from pivotrl_jax.records import InputError, Trajectory
from pivotrl_jax.run import run as run_lib
from pivotrl_jax.training import batches, loop, losses
from pivotrl_jax.training import learner as learner_lib
from pivotrl_jax.training.optimizer import make_optimizer


def turns_of(
    chat: Chat, trajectories: Sequence[Trajectory], limit: int
) -> tuple[list[list[batches.Turn]], dict[str, str]]:
    """(turns of every trajectory that has any, where -> why a turn was left out): `limit` is on the tokens of
    a prompt and its completion. A greeting that opens a trajectory answers no prompt and is not trained."""
    found, left_out = [], {}
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
            found.append(turns)
    return found, left_out


def train(run: run_lib.Run, trajectories: Sequence[Trajectory], validate: loop.Validate):
    """Fine-tune as `config.sft` says. Returns (parameters, totals), as `grpo_stage.train` does. Raises
    InputError when no turn fits a row."""
    c, compute, config = run.config.sft, run.config.compute, run.trained_config
    turns, left_out = turns_of(run.chat, trajectories, max(compute.row_lengths))
    run.facts["sft_turns_left_out"] = left_out
    if not turns:
        raise InputError(
            f"no turn of {len(trajectories)} trajectories fits a row; lengthen compute.row_lengths"
        )
    steps = max(1, round(c.epochs * len(turns) / c.trajectories_per_step))
    optimizer = make_optimizer(
        c.learning_rate, c.warmup_steps, c.weight_decay, c.b1, c.b2, c.max_grad_norm, c.optimizer_dtype
    )
    learner = learner_lib.Learner(
        config,
        learner_lib.Compute(compute.attention_chunk, compute.log_prob_chunk, compute.remat),
        run.mesh,
        optimizer,
        losses.sft_loss,
        1.0,
        sharding.whole_rows(run.mesh, c.microbatch_rows),
        frozen=run.params if config.lora else None,
    )

    def make_batch(step: int, params) -> loop.StepBatch:
        chosen = loop.pivots_of_step(step, len(turns), c.trajectories_per_step, run.config.seed)
        # a trajectory drawn twice in a step, at the seam of two epochs, is one tree and counts twice
        flat = [turn for i in chosen for turn in turns[i]]
        return loop.StepBatch(batches.sft_batch(flat, compute.row_lengths, learner.rows))

    words = json.dumps([[t.prompt, t.completion] for several in turns for t in several])
    identity = {
        "method": "sft",
        "policy": run.policy,
        "model": dataclasses.asdict(config),
        "sft": {k: v for k, v in c.to_dict().items() if k not in ("save_every", "keep_checkpoints")},
        "turns": hashlib.sha256(words.encode()).hexdigest()[:16],
        "seed": run.config.seed,
    }
    with Checkpoints(run.shared / "checkpoints", identity, c.keep_checkpoints) as checkpoints:
        where = checkpoints, c.save_every, run.workdir, run.config.resume
        keeping = loop.LoopIO(*where, validate=validate)
        start = lora.init(config, run.config.seed) if config.lora else run.take_params()
        state, totals = loop.start(learner, start, keeping, steps)
        del start
        state, totals = loop.run(learner, state, totals, steps, make_batch, keeping, "SFT")
    return lora.join(learner.frozen, state.params), totals
