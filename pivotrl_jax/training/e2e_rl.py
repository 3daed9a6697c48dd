"""End-to-end RL, the paper's expensive baseline: the policy plays whole episodes, the episode's check is the
reward, and every turn of an episode shares its advantage.

A group is the `grpo.group_size` episodes of one task. Only what the policy sampled is trained on (its own
turns, not those of users and tools), and every such token of the batch weighs the same. Every action counts
as a rollout turn, so budgets can be compared with PivotRL's single turns.
"""

from collections.abc import Sequence

import jax
import numpy as np

from pivotrl_jax.environments.base import Task
from pivotrl_jax.records import InputError
from pivotrl_jax.rollouts import episodes
from pivotrl_jax.rollouts.rollout import make_rollouts
from pivotrl_jax.run import run as run_lib
from pivotrl_jax.run.metrics import Validate
from pivotrl_jax.training import loop, method, recipe
from pivotrl_jax.training.advantages import advantages
from pivotrl_jax.training.batches import episode_metrics, episodes_batch


def require_tasks(config, tasks: Sequence[Task]) -> None:
    """Raises InputError when the data have no tasks that can be played."""
    if not tasks:
        raise InputError(
            f"config.data.source {config.data.source!r} has no tasks that can be played, which "
            'config.method "e2e_rl" needs; name an environment, such as "toolbox", or take another method'
        )


def train(run: run_lib.Run, tasks: Sequence[Task], validate: Validate):
    """Train on the demonstrations' own tasks as `config.grpo` and `config.e2e` say. Returns (parameters,
    totals). Raises InputError when the data have no tasks that can be played."""
    config, c, e2e = run.config, run.config.grpo, run.config.e2e
    require_tasks(config, tasks)
    learner = recipe.grpo_learner(config, run.trained_config, run.mesh, run.frozen)
    rollouts = make_rollouts(run, e2e.batch, trained=True)
    stream = jax.random.fold_in(jax.random.key(config.seed), 4)

    def make_batch(step: int, params) -> method.StepBatch:
        chosen = method.items_of_step(step, len(tasks), e2e.tasks_per_step, config.seed)
        results = episodes.play(
            rollouts,
            rollouts.actor.place(params),
            [tasks[i] for i in chosen],
            c.group_size,
            e2e.max_steps,
            config.data.max_prompt_tokens,
            jax.random.fold_in(stream, step),
        )
        groups = [results[i : i + c.group_size] for i in range(0, len(results), c.group_size)]
        reward_PG = np.array([[episode.success for episode in group] for group in groups])
        advantage_PG = advantages(reward_PG, c.baseline, c.normalise, c.advantage_eps)
        batch = episodes_batch(groups, advantage_PG, config.compute.row_lengths, learner.rows)
        turns = sum(len(episode.turns) for episode in results)
        return method.StepBatch(batch, episode_metrics(groups), turns)

    identity = run.identity(
        grpo=recipe.fixed(c),
        e2e={name: value for name, value in e2e.to_dict().items() if name != "batch"},
        rows=[task.id for task in tasks],
        sampling=config.sampling.to_dict(),
    )
    job = method.Job("end-to-end RL", c.steps, learner, make_batch, identity, c)
    return loop.train(run, job, validate)
