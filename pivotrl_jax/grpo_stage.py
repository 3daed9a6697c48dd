"""The training stage of a run: config -> recipe, learner, checkpoints -> trained parameters."""

import dataclasses

from pivotrl_jax import learning, lora, profiling, reprofile, sharding, update, validation
from pivotrl_jax import run as run_lib
from pivotrl_jax.checkpoint import Checkpoints
from pivotrl_jax.optimizer import make_optimizer, without
from pivotrl_jax.records import Candidate, InputError


def train(
    run: run_lib.Run, pivots: list[Candidate], candidates: list[Candidate], validate: validation.Validate
):
    """Train on the pivots as `config.grpo` says. Returns (parameters, totals). Raises InputError.

    Where `config.reprofile` says so, other pivots are found among all `candidates` on the way. With LoRA the
    parameters returned are the base and its adapters. Without it, pi_0 is given up.
    """
    c, compute, config = run.config.grpo, run.config.compute, run.trained_config
    recipe = learning.Recipe(
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
    prompts = run_lib.prompts_of(run, pivots)
    identity = {
        "policy": run.policy,
        "model": dataclasses.asdict(config),
        "grpo": fixed(c),
        "sampling": run.config.sampling.to_dict(),
        "reward": run.config.reward,
        "pivots": profiling.digest(pivots, prompts),
        "seed": run.config.seed,
        **reprofile.identity(run.config),
    }
    if run.judge:
        identity["judge"] = run.judge.settings
    with Checkpoints(run.shared / "checkpoints", identity, c.keep_checkpoints) as checkpoints:
        state, totals = learning.learn(
            learner,
            run.actor(c.batch, config, routers_of(c).agreement),
            run.chat,
            lora.init(config, run.config.seed) if config.lora else run.give_params(),
            reprofile.phases_of(run, candidates, pivots, prompts),
            recipe,
            slots=compute.slots,
            verifier=run.verifier,
            judge=run.judge,
            checkpoints=checkpoints,
            save_every=c.save_every,
            workdir=run.workdir,
            resume=run.config.resume,
            validate=validate,
        )
    return lora.join(learner.frozen, state.params), totals


def fixed(c) -> dict:
    """What of `config.grpo` must be equal for a checkpoint to be continued; a longer run of the same recipe
    may be. The load-balance loss is of a microbatch's tokens, so that with it their number is no free choice.
    """
    free = set(run_lib.FREE_GRPO) - ({"microbatch_rows"} if c.balance_coefficient else set())
    return {name: value for name, value in c.to_dict().items() if name not in free}


def make_learner(run: run_lib.Run) -> update.Learner:
    """The learner of a GRPO loss as `config.grpo` says. Raises InputError for what a dense model has not."""
    c, compute, config = run.config.grpo, run.config.compute, run.trained_config
    if routers_of(c) != update.Routers() and not any(moe for *_, moe in config.segments()):
        raise InputError(
            f"config.grpo.router is {c.router!r}, routing_agreement {c.routing_agreement} and "
            f"balance_coefficient {c.balance_coefficient}, but the model is dense; want 'train', False and 0"
        )
    return update.Learner(
        config,
        update.Compute(compute.attention_chunk, compute.log_prob_chunk, compute.remat),
        run.mesh,
        optimizer_of(c),
        loss_of(c),
        run.config.sampling.temperature,
        sharding.whole_rows(run.mesh, c.microbatch_rows),
        frozen=run.params if config.lora else None,
        offload=c.offload_optimizer,
        routers=routers_of(c),
    )


def routers_of(c) -> update.Routers:
    """What is done about routers, as `config.grpo` says. What is replayed is compared, too."""
    replay = c.router == "replay"
    return update.Routers(replay, replay or c.routing_agreement, c.balance_coefficient)


def loss_of(c) -> update.Loss:
    """The loss as `config.grpo` says."""
    return update.grpo_loss(
        c.clip_low,
        c.clip_high,
        c.kl_coefficient if c.kl_in == "loss" else 0.0,
        surrogate=c.loss,
        importance=c.importance,
        importance_cap=c.importance_cap,
        kl_estimator=c.kl_estimator,
    )


def optimizer_of(c):
    """The optimizer as `config.grpo` says."""
    optimizer = make_optimizer(
        c.learning_rate, c.warmup_steps, c.weight_decay, c.b1, c.b2, c.max_grad_norm, c.optimizer_dtype
    )
    return without(optimizer, "router") if c.router == "frozen" else optimizer
