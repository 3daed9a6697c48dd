"""End-to-end RL, the paper's expensive rival: the policy plays whole episodes, the episode's check is the
reward, and every turn of an episode shares its advantage.

A group is the `grpo.group_size` episodes of one task. Only what the policy sampled is trained (its own turns,
not users' and tools'), with one weight per token over the whole batch. Every action counts as a rollout turn,
so that budgets compare with PivotRL's single turns.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from pivotrl_jax.checkpoints.orbax import Checkpoints
from pivotrl_jax.environments.base import Task
from pivotrl_jax.models import lora
from pivotrl_jax.records import InputError
from pivotrl_jax.rollouts import episodes
from pivotrl_jax.rollouts.actor import make_actor
from pivotrl_jax.run import run as run_lib
from pivotrl_jax.training import advantages, loop, recipe
from pivotrl_jax.training.batches import episode_metrics, episodes_batch


def train(run: run_lib.Run, rows: Sequence[Task], validate: loop.Validate):
    """Train on the demonstrations' own tasks as `config.grpo` and `config.e2e` say. Returns (parameters,
    totals). Raises InputError when the data have no tasks that can be played."""
    if not rows:
        raise InputError(
            f"config.data.source {run.config.data.source!r} has no tasks that can be played, which "
            'config.method "e2e_rl" needs; name an environment, such as "toolbox", or take another method'
        )
    c, e2e = run.config.grpo, run.config.e2e
    learner = recipe.make_learner(run)
    actor = make_actor(run, e2e.batch, run.trained_config)
    stream = jax.random.fold_in(jax.random.key(run.config.seed), 4)
    limit = run.config.data.max_prompt_tokens

    def make_batch(step: int, params) -> loop.StepBatch:
        chosen = loop.pivots_of_step(step, len(rows), e2e.tasks_per_step, run.config.seed)
        key = jax.random.fold_in(stream, step)
        here = [rows[i] for i in chosen]
        played = episodes.play(
            actor, actor.place(params), run.chat, here, c.group_size, e2e.max_steps, limit, key, "episodes"
        )
        groups = [played[i : i + c.group_size] for i in range(0, len(played), c.group_size)]
        reward_PG = np.array([[episode.success for episode in group] for group in groups])
        advantage_PG = advantages.advantages(reward_PG, c.baseline, c.normalise, c.advantage_eps)
        batch = episodes_batch(groups, advantage_PG, run.config.compute.row_lengths, learner.rows)
        turns = sum(len(episode.turns) for episode in played)
        return loop.StepBatch(batch, episode_metrics(groups), turns)

    identity = {
        "method": "e2e_rl",
        "policy": run.policy,
        "model": dataclasses.asdict(run.trained_config),
        "grpo": recipe.fixed(c),
        "e2e": {name: value for name, value in e2e.to_dict().items() if name != "batch"},
        "sampling": run.config.sampling.to_dict(),
        "rows": [row.id for row in rows],
        "seed": run.config.seed,
    }
    with Checkpoints(run.shared / "checkpoints", identity, c.keep_checkpoints) as checkpoints:
        where = checkpoints, c.save_every, run.workdir, run.config.resume
        keeping = loop.LoopIO(*where, validate=validate)
        config = run.trained_config
        start = lora.init(config, run.config.seed) if config.lora else run.take_params()
        state, totals = loop.start(learner, start, keeping, c.steps)
        del start
        state, totals = loop.run(learner, state, totals, c.steps, make_batch, keeping, "end-to-end RL")
    return lora.join(learner.frozen, state.params), totals
