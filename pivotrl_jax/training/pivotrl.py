"""GRPO at pivots: sample a batch of pivots, roll out, verify, group-normalise, one update; resumable.

What a step does is a function of (seed, step, parameters) alone: the order of pivots comes from the seed and
the step, PRNG keys from the step and the candidate. So a killed run that restarts from a checkpoint ends as
one that was never killed, bit for bit on the same machine. Where the policy is profiled again while training
(reprofile.py), the metrics of earlier steps say when, and each profile begins a phase with pivots of its own.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np

from pivotrl_jax.chat.template import Chat
from pivotrl_jax.checkpoints.orbax import Checkpoints
from pivotrl_jax.models import decoder, lora
from pivotrl_jax.records import Candidate, Rollout
from pivotrl_jax.rollouts.actor import Actor, make_actor
from pivotrl_jax.rollouts.rollout import roll_out
from pivotrl_jax.run import run as run_lib
from pivotrl_jax.training import advantages, loop, reprofile
from pivotrl_jax.training import learner as learner_lib
from pivotrl_jax.training.advantages import advantages_of, kept_of, rewards_of, take_off_kl
from pivotrl_jax.training.batches import domain_metrics, group_metrics, grpo_batch
from pivotrl_jax.training.loop import pivots_of_step
from pivotrl_jax.training.recipe import Recipe, fixed, make_learner, routers_of
from pivotrl_jax.training.reprofile import OnePhase
from pivotrl_jax.trajectories import extract
from pivotrl_jax.verifiers.judge import Judge


def pivots_of_round(
    step: int, round_: int, count: int, missing: int, seed: int, seen: Sequence[int]
) -> list[int]:
    """Indices of the pivots of a step's further round: in an order of its own, those that the step has not
    seen first. Those it has come again, with other keys, when there are too few others."""
    order = np.random.default_rng([seed, step, round_]).permutation(count).tolist()
    order.sort(key=set(seen).__contains__)
    return [order[i % count] for i in range(missing)]


def sample_groups(
    draw: Callable[[list[int], jax.Array], list[list[Rollout]]],
    step: int,
    count: int,
    recipe: Recipe,
    key: jax.Array,
) -> tuple[list[int], list[list[Rollout]], list[list[Rollout]]]:
    """(pivots, their groups, all groups that were sampled) of a step; `draw(pivots, key)` samples.

    With `recipe.dynamic_rounds` groups of equal rewards are left out and others are drawn in their place, in
    at most that many rounds, until `pivots_per_step` are mixed (DAPO's dynamic sampling, arXiv 2503.14476,
    section 3.2). What is still missing then is missing from the batch. Where nothing is mixed, the first
    round is kept as it is, and teaches nothing.
    """
    pivots = pivots_of_step(step, count, recipe.pivots_per_step, recipe.seed)
    groups = draw(pivots, key)
    if not recipe.dynamic_rounds:
        return pivots, groups, groups
    for round_ in range(1, recipe.dynamic_rounds + 1):
        missing = recipe.pivots_per_step - int(advantages.mixed_groups(rewards_of(groups)).sum())
        if not missing:
            break
        more = pivots_of_round(step, round_, count, missing, recipe.seed, pivots)
        pivots, groups = pivots + more, groups + draw(more, jax.random.fold_in(key, round_))
    mixed = np.flatnonzero(advantages.mixed_groups(rewards_of(groups)))
    kept = mixed if len(mixed) else range(recipe.pivots_per_step)
    return [pivots[i] for i in kept], [groups[i] for i in kept], groups


def learn(
    learner: learner_lib.Learner,
    actor: Actor,
    chat: Chat,
    reference,
    phases: OnePhase,
    recipe: Recipe,
    *,
    slots: Sequence[int],
    verifier: str | None,
    judge: Judge | None = None,
    checkpoints: Checkpoints,
    save_every: int,
    workdir,
    resume: bool,
    on_step: Callable[[int], None] = lambda step: None,
    validate: Callable[[int, decoder.Params], dict[str, float]] = lambda steps, params: {},
) -> tuple[learner_lib.TrainState, dict]:
    """Train from the reference parameters (of what is trained: under LoRA, fresh adapters) for
    `recipe.steps` steps on the pivots that `phases` gives each. Returns the state and totals.

    Totals ("rollout_turns", "trained_tokens", "seconds") run over resumes; profiles while training are not
    in them.
    """
    kept = None
    if recipe.kl_coefficient:  # adapters come from the host: once, not with every batch
        kept = learner.place(reference) if learner.frozen else reference
    stream = jax.random.fold_in(jax.random.key(recipe.seed), 3)

    def make_batch(step: int, params) -> loop.StepBatch:
        phase, news = phases.at(step, params)
        candidates, prompts = phase.candidates, phase.prompts
        policy = actor.place(params)

        def draw(pivots, key):
            here, texts = [candidates[i] for i in pivots], [prompts[i] for i in pivots]
            return roll_out(actor, policy, chat, here, texts, recipe.group_size, key, verifier, judge=judge)

        key = jax.random.fold_in(stream, step)
        pivots, groups, sampled = sample_groups(draw, step - phase.first, len(candidates), recipe, key)
        batch = grpo_batch(
            [candidates[i] for i in pivots],
            [prompts[i] for i in pivots],
            groups,
            advantages_of(groups, recipe),
            slots,
            learner.rows,
            kept_of(groups, recipe),
            recipe.aggregation,
            recipe.max_tokens,
        )
        verifiers = {candidate.id: verifier or candidate.verifier for candidate in candidates}
        seen = news | group_metrics(sampled) | domain_metrics(sampled, verifiers)
        if recipe.dynamic_rounds:
            seen |= {"sampled_groups": len(sampled), "trained_groups": len(groups)}
        if recipe.kl_coefficient:
            batch["reference_log_prob"] = learner.score(kept, batch)
        if recipe.kl_coefficient and recipe.kl_in == "reward":
            seen["kl"] = take_off_kl(batch, recipe.kl_coefficient)
        return loop.StepBatch(batch, seen, sum(map(len, sampled)))

    keeping = loop.LoopIO(checkpoints, save_every, workdir, resume, on_step, validate, phases.due)
    state, totals = loop.start(learner, reference, keeping, recipe.steps)
    del reference  # it need not stay in memory beside the state
    return loop.run(learner, state, totals, recipe.steps, make_batch, keeping, "GRPO at pivots")


def train(run: run_lib.Run, pivots: list[Candidate], candidates: list[Candidate], validate: loop.Validate):
    """Train on the pivots as `config.grpo` says. Returns (parameters, totals). Raises InputError.

    Where `config.reprofile` says so, other pivots are found among all `candidates` on the way. With LoRA the
    parameters returned are the base and its adapters. Without it, pi_0 is given up.
    """
    c, compute, config = run.config.grpo, run.config.compute, run.trained_config
    recipe = Recipe(
        steps=c.steps,
        pivots_per_step=c.pivots_per_step,
        group_size=c.group_size,
        advantage_eps=c.advantage_eps,
        kl_coefficient=c.kl_coefficient,
        seed=run.config.seed,
        baseline=c.baseline,
        normalise=c.normalise,
        aggregation=c.aggregation,
        max_tokens=run.config.sampling.max_tokens,
        mask_unfinished=c.mask_unfinished,
        malformed_advantage=c.malformed_advantage,
        advantage_clip=c.advantage_clip,
        dynamic_rounds=c.dynamic_rounds,
        kl_in=c.kl_in,
    )
    learner = make_learner(run)
    prompts = extract.prompts_of(run.chat, pivots)
    identity = {
        "policy": run.policy,
        "model": dataclasses.asdict(config),
        "grpo": fixed(c),
        "sampling": run.config.sampling.to_dict(),
        "reward": run.config.reward,
        "pivots": extract.digest(pivots, prompts),
        "seed": run.config.seed,
        **reprofile.identity(run.config),
    }
    if run.judge:
        identity["judge"] = run.judge.settings
    with Checkpoints(run.shared / "checkpoints", identity, c.keep_checkpoints) as checkpoints:
        state, totals = learn(
            learner,
            make_actor(run, c.batch, config, routers_of(c).agreement),
            run.chat,
            lora.init(config, run.config.seed) if config.lora else run.take_params(),
            reprofile.phases_of(run, candidates, pivots, prompts),
            recipe,
            slots=compute.row_lengths,
            verifier=run.verifier,
            judge=run.judge,
            checkpoints=checkpoints,
            save_every=c.save_every,
            workdir=run.workdir,
            resume=run.config.resume,
            validate=validate,
        )
    return lora.join(learner.frozen, state.params), totals
