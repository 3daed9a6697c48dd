"""GRPO at pivots: sample a batch of pivots, roll out, verify, group-normalise, one update; resumable.

What a step does is a function of (seed, step, parameters) alone: the order of pivots comes from the seed and
the step, PRNG keys from the step and the candidate. So a killed run that restarts from a checkpoint ends as
one that was never killed, bit for bit on the same machine.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from pivotrl_jax import forest, grpo, lora, progress, update
from pivotrl_jax.chat import Chat
from pivotrl_jax.checkpoint import Checkpoints
from pivotrl_jax.metrics import MetricsWriter
from pivotrl_jax.records import Candidate, InputError, Rollout
from pivotrl_jax.rollout import Actor, roll_out


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The numbers of the algorithm (PivotRL, section 3; Qwen3-30B recipe in NeMo-RL)."""

    steps: int
    pivots_per_step: int
    group_size: int
    advantage_eps: float
    kl_coefficient: float
    seed: int


def pivots_of_step(step: int, count: int, per_step: int, seed: int) -> list[int]:
    """Indices of the pivots of a step: every epoch is a fresh permutation, and no pivot is left out of
    one."""
    chosen = []
    for position in range(step * per_step, (step + 1) * per_step):
        epoch, at = divmod(position, count)
        chosen.append(int(np.random.default_rng([seed, epoch]).permutation(count)[at]))
    return chosen


def grpo_batch(
    candidates: Sequence[Candidate],
    prompts: Sequence[Sequence[int]],
    groups: Sequence[Sequence[Rollout]],
    advantage_PG: np.ndarray,
    slots: Sequence[int],
    rows: int,
) -> update.Batch:
    """A packed forest of prompts and their rollouts, with the loss's fields. Token-mean: every trained token
    of the batch weighs 1 / (their number), wherever it is packed.

    Groups of equal rewards have zero advantage; their tokens still count in the denominator.
    """
    trees: dict[str, list[forest.Piece]] = {}
    for i, (candidate, prompt, group) in enumerate(zip(candidates, prompts, groups)):
        piece = forest.Piece(i, prompt, [rollout.token_ids for rollout in group])
        trees.setdefault(candidate.trajectory_id, []).append(piece)
    packed = forest.pack_shortest(list(trees.values()), slots, rows)
    fields = {
        name: np.zeros(packed.tokens.shape, np.float32)
        for name in ("weight", "behaviour_log_prob", "advantage")
    }
    total = sum(len(rollout.token_ids) for group in groups for rollout in group)
    for placed in packed.placed:
        for branch in range(len(placed.branch_slots)):
            g = placed.first + branch
            rollout = groups[placed.key][g]
            n = len(rollout.token_ids)
            packed.write(fields["weight"], placed, branch, np.full(n, 1 / total, np.float32))
            packed.write(fields["behaviour_log_prob"], placed, branch, rollout.log_probs)
            packed.write(
                fields["advantage"], placed, branch, np.full(n, advantage_PG[placed.key, g], np.float32)
            )
    arrays = {name: getattr(packed, name) for name in ("tokens", "position", "parent", "subtree_end")}
    return {**arrays, **fields}


def group_metrics(groups: Sequence[Sequence[Rollout]]) -> dict[str, float]:
    """What a batch of groups looked like: reward mean and std, share of mixed groups, lengths."""
    reward_PG = np.array([[rollout.reward for rollout in group] for group in groups])
    lengths = [len(rollout.token_ids) for group in groups for rollout in group]
    flat = [rollout for group in groups for rollout in group]
    return {
        "reward_mean": float(reward_PG.mean()),
        "reward_std": float(reward_PG.std()),
        "group_reward_std": float(reward_PG.std(axis=1).mean()),
        "mixed_groups": float((np.ptp(reward_PG, axis=1) > 0).mean()),
        "completion_tokens": float(np.mean(lengths)),
        "unfinished": float(np.mean([not rollout.finished for rollout in flat])),
        "malformed": float(np.mean([rollout.reason == "malformed" for rollout in flat])),
    }


def _require_finite(step: int, values: dict[str, float]) -> None:
    """Raises InputError when a step's loss or gradient is not a number: before it is saved, not after."""
    if not np.isfinite([values["loss"], values["grad_norm"]]).all():
        raise InputError(
            f"step {step}: the loss is {values['loss']} and the gradient norm {values['grad_norm']}; "
            "training stops here, the latest checkpoint is whole; lower config.grpo.learning_rate"
        )


def _start(learner: update.Learner, reference, checkpoints: Checkpoints, resume: bool, steps: int):
    """(state, totals): of the latest checkpoint, which then is the only state in memory, or of step 0. Raises
    InputError for a checkpoint past `steps`."""
    restored = None
    if resume:
        restored = checkpoints.restore_latest(learner.abstract_state(reference))
    else:
        checkpoints.clear()
    if restored:
        state, host = restored
        if int(state.step) > steps:
            raise InputError(
                f"config.grpo.steps is {steps}, but the latest checkpoint is of step {int(state.step)}; ask "
                "for at least that many, or start over with --config.resume=False"
            )
        return state, host["totals"]
    return learner.init_state(reference), {"rollout_turns": 0, "trained_tokens": 0, "seconds": 0.0}


def learn(
    learner: update.Learner,
    actor: Actor,
    chat: Chat,
    reference,
    candidates: Sequence[Candidate],
    prompts: Sequence[Sequence[int]],
    recipe: Recipe,
    *,
    slots: Sequence[int],
    verifier: str | None,
    checkpoints: Checkpoints,
    save_every: int,
    workdir,
    resume: bool,
    on_step: Callable[[int], None] = lambda step: None,
) -> tuple[update.TrainState, dict]:
    """Train from the reference parameters (of what is trained: under LoRA, fresh adapters) for
    `recipe.steps` steps. Returns the state and totals.

    Totals ("rollout_turns", "trained_tokens", "seconds") run over resumes.
    """
    state, totals = _start(learner, reference, checkpoints, resume, recipe.steps)
    if not recipe.kl_coefficient:
        reference = None  # whoever called may have let go of it, too
    elif learner.frozen:
        reference = learner.place(reference)  # adapters come from the host: once, not with every batch
    stream = jax.random.fold_in(jax.random.key(recipe.seed), 3)
    start = int(state.step)
    with (
        MetricsWriter(workdir, start) as writer,
        progress.bar(recipe.steps, "GRPO at pivots", "steps") as bar,
    ):
        bar.update(start)
        for step in range(start, recipe.steps):
            began = time.perf_counter()
            chosen = pivots_of_step(step, len(candidates), recipe.pivots_per_step, recipe.seed)
            here, texts = [candidates[i] for i in chosen], [prompts[i] for i in chosen]
            key = jax.random.fold_in(stream, step)
            policy = actor.place(lora.join(learner.frozen, state.params))
            groups = roll_out(actor, policy, chat, here, texts, recipe.group_size, key, verifier)
            del policy  # the step below donates what it shares, and needs its room
            rolled = time.perf_counter()
            reward_PG = np.array([[rollout.reward for rollout in group] for group in groups])
            advantage_PG = grpo.group_advantages(reward_PG, recipe.advantage_eps)
            batch = grpo_batch(here, texts, groups, advantage_PG, slots, learner.rows)
            if recipe.kl_coefficient:
                batch["reference_log_prob"] = learner.score(reference, batch)
            state, values = learner.step(state, batch)
            _require_finite(step, values)
            seconds = time.perf_counter() - began
            totals["rollout_turns"] += reward_PG.size
            totals["trained_tokens"] += int(values["tokens"])
            totals["seconds"] += seconds
            seen = group_metrics(groups)
            values["fill"] = float((batch["subtree_end"] > 0).mean())
            timing = {"seconds": seconds, "rollout_seconds": rolled - began}
            writer.write(step, {**seen, **values, **timing})
            bar.set_postfix(
                reward=f"{seen['reward_mean']:.2f}", std=f"{seen['group_reward_std']:.2f}", refresh=False
            )
            bar.update(1)
            if (step + 1) % save_every == 0 or step + 1 == recipe.steps:
                checkpoints.save(step + 1, state, {"step": step + 1, "totals": totals})
            on_step(step + 1)
    return state, totals
