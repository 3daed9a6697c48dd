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

from pivotrl_jax import forest, grpo, grpo_stage, learning, loop, lora, play, update, validation
from pivotrl_jax import run as run_lib
from pivotrl_jax.checkpoint import Checkpoints
from pivotrl_jax.environments.rows import Row
from pivotrl_jax.records import InputError


def episodes_batch(
    groups: Sequence[Sequence[play.Played]], advantage_PG: np.ndarray, slots: Sequence[int], rows: int
) -> update.Batch:
    """A packed forest of all turns of all episodes, one tree per task, with the loss's fields. Token-mean."""
    trees, owners = [], []
    for p, group in enumerate(groups):
        pieces = []
        for g, episode in enumerate(group):
            for prompt, drawn in episode.turns:
                pieces.append(forest.Piece(len(owners), prompt, [drawn.token_ids]))
                owners.append((drawn, advantage_PG[p, g]))
        trees.append(pieces)
    packed = forest.pack_shortest([tree for tree in trees if tree], slots, rows)
    names = ("weight", "behaviour_log_prob", "advantage")
    fields = {name: np.zeros(packed.tokens.shape, np.float32) for name in names}
    total = sum(len(drawn.token_ids) for drawn, _ in owners)
    for placed in packed.placed:
        drawn, advantage = owners[placed.key]
        n = len(drawn.token_ids)
        packed.write(fields["weight"], placed, 0, np.full(n, 1 / total, np.float32))
        packed.write(fields["behaviour_log_prob"], placed, 0, drawn.log_probs)
        packed.write(fields["advantage"], placed, 0, np.full(n, advantage, np.float32))
    arrays = {name: getattr(packed, name) for name in ("tokens", "position", "parent", "subtree_end")}
    return {**arrays, **fields}


def batch_metrics(groups: Sequence[Sequence[play.Played]]) -> dict[str, float]:
    """What a batch of episodes looked like; the names of `learning.group_metrics` where they mean the
    same."""
    reward_PG = np.array([[episode.success for episode in group] for group in groups])
    flat = [episode for group in groups for episode in group]
    drawn = [completion for episode in flat for _, completion in episode.turns]
    return {
        "reward_mean": float(reward_PG.mean()),
        "reward_std": float(reward_PG.std()),
        "group_reward_std": float(reward_PG.std(axis=1).mean()),
        "mixed_groups": float((np.ptp(reward_PG, axis=1) > 0).mean()),
        "turns_per_episode": len(drawn) / len(flat),
        "completion_tokens": float(np.mean([len(c.token_ids) for c in drawn])),
        "unfinished": float(np.mean([not c.finished for c in drawn])),
    }


def train(run: run_lib.Run, rows: Sequence[Row], validate: validation.Validate):
    """Train on the demonstrations' own tasks as `config.grpo` and `config.e2e` say. Returns (parameters,
    totals). Raises InputError when the data have no tasks that can be played."""
    if not rows:
        raise InputError(
            f"config.data.source {run.config.data.source!r} has no tasks that can be played, which "
            'config.method "e2e_rl" needs; take "toolbox" or "bfcl", or another method'
        )
    c, e2e = run.config.grpo, run.config.e2e
    learner = grpo_stage.make_learner(run)
    actor = run.actor(e2e.batch, run.trained_config)
    stream = jax.random.fold_in(jax.random.key(run.config.seed), 4)
    limit = run.config.data.max_prompt_tokens

    def make_batch(step: int, params) -> loop.Made:
        chosen = learning.pivots_of_step(step, len(rows), e2e.tasks_per_step, run.config.seed)
        key = jax.random.fold_in(stream, step)
        here = [rows[i] for i in chosen]
        played = play.play(
            actor, actor.place(params), run.chat, here, c.group_size, e2e.max_steps, limit, key, "episodes"
        )
        groups = [played[i : i + c.group_size] for i in range(0, len(played), c.group_size)]
        reward_PG = np.array([[episode.success for episode in group] for group in groups])
        advantage_PG = grpo.advantages(reward_PG, c.baseline, c.normalise, c.advantage_eps)
        batch = episodes_batch(groups, advantage_PG, run.config.compute.slots, learner.rows)
        turns = sum(len(episode.turns) for episode in played)
        return loop.Made(batch, batch_metrics(groups), turns)

    identity = {
        "method": "e2e_rl",
        "policy": run.policy,
        "model": dataclasses.asdict(run.trained_config),
        "grpo": grpo_stage.fixed(c),
        "e2e": {name: value for name, value in e2e.to_dict().items() if name != "batch"},
        "sampling": run.config.sampling.to_dict(),
        "rows": [row.id for row in rows],
        "seed": run.config.seed,
    }
    with Checkpoints(run.shared / "checkpoints", identity, c.keep_checkpoints) as checkpoints:
        where = checkpoints, c.save_every, run.workdir, run.config.resume
        keeping = loop.Keeping(*where, validate=validate)
        config = run.trained_config
        start = lora.init(config, run.config.seed) if config.lora else run.give_params()
        state, totals = loop.start(learner, start, keeping, c.steps)
        del start
        state, totals = loop.run(learner, state, totals, c.steps, make_batch, keeping, "end-to-end RL")
    return lora.join(learner.frozen, state.params), totals
