"""PivotRL: a step samples and verifies a group of actions at each of a few pivots and makes one GRPO update.

What a step does is a function of (seed, step, parameters) alone: the order of pivots comes from the seed and
the step, PRNG keys from the step and the candidate. So a killed run that restarts from a checkpoint gives the
result of one that was never killed, bit for bit on the same machine. If the policy is profiled again during
training (reprofile.py), the metrics of earlier steps say when; each profile begins a phase with new pivots.

`config.method` "random_turns" is the same method on unfiltered candidates.
"""

import math
from collections.abc import Callable, Container, Sequence
from typing import Any

import jax
import numpy as np

from pivotrl_jax.models import decoder
from pivotrl_jax.records import Candidate, Prompt, Rollout
from pivotrl_jax.rollouts.rollout import Rollouts, make_rollouts
from pivotrl_jax.run import run as run_lib
from pivotrl_jax.run.metrics import Validate
from pivotrl_jax.training import (
    demonstrations,
    kl_budget,
    loop,
    losses,
    method,
    recipe,
    reprofile,
    served_rollouts,
)
from pivotrl_jax.training import skip_list as skip_list_lib
from pivotrl_jax.training.advantages import (
    advantages_of,
    mixed_groups,
    rewards_of,
    subtract_kl,
    teaching_groups,
    token_weights,
    trained_of,
)
from pivotrl_jax.training.batches import domain_metrics, group_metrics, grpo_batch
from pivotrl_jax.training.learner import Learner
from pivotrl_jax.trajectories import extract


def train(run: run_lib.Run, pivots: Sequence[Candidate], candidates: Sequence[Candidate], validate: Validate):
    """Train on the pivots as `config.grpo` says. Returns (parameters, totals). Raises InputError.

    If `config.reprofile` asks for it, new pivots are found among all `candidates` during training. With LoRA
    the parameters returned are the base and its adapters. Without it, the run drops pi_0.
    """
    config, c = run.config, run.config.grpo
    learner = recipe.grpo_learner(config, run.trained_config, run.mesh, run.frozen)
    prompts = extract.render(run.chat, pivots)
    if config.rollouts.train:
        rollouts = served_rollouts.make_rollouts(run, prompts)
    else:
        rollouts = make_rollouts(run, c.batch, trained=True, record_experts=recipe.routers_of(c).agreement)
    phases = reprofile.phases_of(run, candidates, prompts)
    identity = run.identity(
        grpo=recipe.fixed(c),
        pivots=extract.digest(prompts),
        sampling=config.sampling.to_dict(),
        reward=config.reward,
        **({"judge": run.judge.settings} if run.judge else {}),
        **({"rollouts": rollouts.actor.identity} if config.rollouts.train else {}),
        **reprofile.identity(config),
    )
    reference = reference_params(run, learner) if c.kl_coefficient or c.kl_budget else None
    make_batch = batches_of(config, rollouts, learner, phases, reference, skip_list_of(run))
    job = method.Job(
        "GRPO at pivots", c.steps, learner, make_batch, identity, c, phases.due, stops=bool(c.kl_budget)
    )
    return loop.train(run, job, validate)


def batches_of(
    config: Any,
    rollouts: Rollouts,
    learner: Learner,
    phases: reprofile.OnePhase,
    reference: decoder.Params | None,
    skip_list: skip_list_lib.SkipList | None = None,
) -> method.MakeBatch:
    """The `make_batch` of a job: samples and packs what a step trains on.

    `config` is the run's; `reference` is what `reference_params` returns, None without a KL; `skip_list` is
    what `skip_list_of` returns.
    """
    c = config.grpo
    stream = jax.random.fold_in(jax.random.key(config.seed), 3)
    guide = demonstrations.Demonstrations(rollouts) if c.demonstration_in_failed_groups else None

    def make_batch(step: int, params: decoder.Params) -> method.StepBatch:
        phase, phase_metrics = phases.at(step, params)
        actor_params, prompts = rollouts.actor.place(params), phase.prompts
        drawn: list[list[Rollout]] = []  # as sampled; a demonstration may replace one in what is trained on

        def draw(pivots: list[int], key: jax.Array) -> list[list[Rollout]]:
            chosen = [prompts[i] for i in pivots]
            drawn.extend(groups := rollouts.sample(actor_params, chosen, c.group_size, key))
            return guide.put_in(chosen, groups) if guide else groups

        key = jax.random.fold_in(stream, step)
        skipped = skip_list.skipped(step, [p.candidate.id for p in prompts]) if skip_list else ()
        pivots, groups, _ = sample_groups(
            draw, step - phase.first, len(prompts), c, config.seed, key, skipped
        )
        batch = pack([prompts[i] for i in pivots], groups, config, learner)
        verifiers = {p.candidate.id: rollouts.verifier or p.candidate.verifier for p in prompts}
        metrics = phase_metrics | group_metrics(drawn) | domain_metrics(drawn, verifiers)
        if c.dynamic_rounds:
            metrics |= {"sampled_groups": len(drawn), "trained_groups": len(groups)}
        if skip_list:
            skip_list.add(step, drawn)
            metrics["skipped_candidates"] = len(skipped)
        if c.dynamic_rounds or skip_list:
            metrics["rollouts_per_mixed_group"] = rollouts_per_mixed_group(groups, drawn)
        if guide:
            metrics["demonstrated_groups"] = demonstrations.demonstrated(groups)
        metrics |= add_log_probs(batch, learner, params, reference, c)
        stop = kl_budget.why_stop(step, metrics["kl_per_turn"], c.kl_budget) if c.kl_budget else ""
        return method.StepBatch(batch, metrics, sum(map(len, drawn)), stop)

    return make_batch


def add_log_probs(
    batch: losses.Batch, learner: Learner, params: decoder.Params, reference: decoder.Params | None, c: Any
) -> dict[str, float]:
    """Add what the loss needs beyond the sampler's log-probs, those of demonstrations and of the reference,
    as `c`, which is `config.grpo`, says. Returns metrics of the KL."""
    metrics, demonstrated = {}, demonstrations.score(batch, learner, params)
    in_reward = c.kl_coefficient and c.kl_in == "reward"
    if c.kl_coefficient or c.kl_budget:
        batch["reference_log_prob"] = learner.score(reference, batch)
    if c.kl_budget or in_reward:  # the sampler's own numbers, compared with the learner's, are no KL
        own = learner.score(params, batch)
    if c.kl_budget:
        metrics["kl_per_turn"] = kl_budget.per_turn(batch, own, ~demonstrated)
    if in_reward:
        metrics["kl"] = subtract_kl(batch, own, c.kl_coefficient)
    elif not c.kl_coefficient:
        batch.pop("reference_log_prob", None)
    return metrics


def pack(
    prompts: Sequence[Prompt], groups: Sequence[Sequence[Rollout]], config: Any, learner: Learner
) -> losses.Batch:
    """The groups of these prompts as a packed forest, with the advantages and weights of `config.grpo`."""
    c = config.grpo
    lengths = np.array([[len(rollout.token_ids) for rollout in group] for group in groups])
    weights = token_weights(lengths * trained_of(groups, c), c.aggregation, config.sampling.max_tokens)
    row_lengths = config.compute.row_lengths
    return grpo_batch(prompts, groups, advantages_of(groups, c), weights, row_lengths, learner.rows)


def reference_params(run: run_lib.Run, learner: Learner) -> decoder.Params:
    """The initial parameters of what is trained. Adapters are placed on the mesh, so that they are not copied
    from the host with every batch."""
    params = run.initial_params()
    return learner.place(params) if run.trained_config.lora else params


def sample_groups(
    draw: Callable[[list[int], jax.Array], list[list[Rollout]]],
    step: int,
    count: int,
    config: Any,
    seed: int,
    key: jax.Array,
    skipped: Container[int] = (),
) -> tuple[list[int], list[list[Rollout]], list[list[Rollout]]]:
    """(pivots, their groups, all sampled groups) of a step. There are `count` pivots to choose from;
    `draw(pivots, key)` samples their groups; `config` is the run's `config.grpo`. Others are chosen in place
    of the `skipped`, unless there are too few others.

    With `config.dynamic_rounds`, groups without an advantage, as those of equal rewards, are left out and
    others are drawn in their place, in at most that many rounds, until `pivots_per_step` teach (DAPO's
    dynamic sampling, arXiv 2503.14476, section 3.2). If fewer teach by then, the batch is smaller. If none
    does, the first round is the batch, and its gradient is zero.
    """
    pivots = method.items_of_step(step, count, config.pivots_per_step, seed)
    if missing := sum(i in skipped for i in pivots):
        pivots = [i for i in pivots if i not in skipped]
        pivots += pivots_of_round([seed, step, 0], count, missing, pivots, skipped)
    groups = draw(pivots, key)
    if not config.dynamic_rounds:
        return pivots, groups, groups
    for round_ in range(1, config.dynamic_rounds + 1):
        missing = config.pivots_per_step - int(teaching_groups(groups, config).sum())
        if not missing:
            break
        more = pivots_of_round([seed, step, round_], count, missing, pivots, skipped)
        pivots, groups = pivots + more, groups + draw(more, jax.random.fold_in(key, round_))
    teaching = np.flatnonzero(teaching_groups(groups, config))
    chosen = teaching if len(teaching) else range(config.pivots_per_step)
    return [pivots[i] for i in chosen], [groups[i] for i in chosen], groups


def pivots_of_round(
    seed: Sequence[int], count: int, missing: int, sampled: Sequence[int], skipped: Container[int] = ()
) -> list[int]:
    """Indices of `missing` pivots for a further round: in a random order, but those not yet sampled in this
    step first, and the skipped last. If there are too few of them, pivots are sampled again, with other
    keys."""
    order = np.random.default_rng(list(seed)).permutation(count).tolist()
    before = set(sampled)
    order.sort(key=lambda i: (i in skipped, i in before))
    return [order[i % count] for i in range(missing)]


def rollouts_per_mixed_group(
    groups: Sequence[Sequence[Rollout]], sampled: Sequence[Sequence[Rollout]]
) -> float:
    """What a step's mixed groups cost: rollouts sampled per trained group of mixed rewards; NaN without
    one."""
    mixed = int(mixed_groups(rewards_of(groups)).sum())
    return sum(map(len, sampled)) / mixed if mixed else math.nan


def skip_list_of(run: run_lib.Run) -> skip_list_lib.SkipList | None:
    """The skip list of `config.grpo`; None if it is off."""
    c = run.config.grpo
    if not c.skip_below:
        return None
    guided = c.demonstration_in_failed_groups
    rule = skip_list_lib.SkipRule(c.skip_below, c.skip_half_life, c.group_size, guided)
    return skip_list_lib.SkipList(rule, run.workdir)
