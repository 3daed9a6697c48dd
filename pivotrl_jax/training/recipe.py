"""From a config's `grpo` section to the learner, loss, optimizer and routers."""

import dataclasses

from pivotrl_jax.models import sharding
from pivotrl_jax.records import InputError
from pivotrl_jax.run import resume
from pivotrl_jax.run import run as run_lib
from pivotrl_jax.training import learner as learner_lib
from pivotrl_jax.training import losses
from pivotrl_jax.training.optimizer import make_optimizer, without


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The numbers of the algorithm (PivotRL, section 3; Qwen3-30B recipe in NeMo-RL)."""

    steps: int
    pivots_per_step: int
    group_size: int
    advantage_eps: float
    kl_coefficient: float
    seed: int
    # what follows reproduces the published recipe unless it is set
    baseline: str = "mean"  # a key of grpo.BASELINES
    normalise: str = "std"  # or "none"
    aggregation: str = "token_mean"  # as grpo.token_weights knows it
    max_tokens: int = 0  # of a completion: what "fixed_length" divides by
    mask_unfinished: bool = False  # a completion cut at the limit counts in the baseline, not in the loss
    malformed_advantage: float = 0.0  # takes the place of a malformed sample's advantage; 0: it keeps its own
    advantage_clip: float = 0.0  # bound on an advantage's size; 0: none
    dynamic_rounds: int = 0  # further rounds of sampling, in place of groups that teach nothing
    kl_in: str = "loss"  # or "reward"


def fixed(c) -> dict:
    """What of `config.grpo` must be equal for a checkpoint to be continued; a longer run of the same recipe
    may be. The load-balance loss is of a microbatch's tokens, so that with it their number is no free choice.
    """
    free = set(resume.FREE_GRPO) - ({"microbatch_rows"} if c.balance_coefficient else set())
    return {name: value for name, value in c.to_dict().items() if name not in free}


def make_learner(run: run_lib.Run) -> learner_lib.Learner:
    """The learner of a GRPO loss as `config.grpo` says. Raises InputError for what a dense model has not."""
    c, compute, config = run.config.grpo, run.config.compute, run.trained_config
    if routers_of(c) != learner_lib.Routers() and not any(moe for *_, moe in config.segments()):
        raise InputError(
            f"config.grpo.router is {c.router!r}, routing_agreement {c.routing_agreement} and "
            f"balance_coefficient {c.balance_coefficient}, but the model is dense; want 'train', False and 0"
        )
    return learner_lib.Learner(
        config,
        learner_lib.Compute(compute.attention_chunk, compute.log_prob_chunk, compute.remat),
        run.mesh,
        optimizer_of(c),
        loss_of(c),
        run.config.sampling.temperature,
        sharding.whole_rows(run.mesh, c.microbatch_rows),
        frozen=run.params if config.lora else None,
        offload=c.offload_optimizer,
        routers=routers_of(c),
    )


def routers_of(c) -> learner_lib.Routers:
    """What is done about routers, as `config.grpo` says. What is replayed is compared, too."""
    replay = c.router == "replay"
    return learner_lib.Routers(replay, replay or c.routing_agreement, c.balance_coefficient)


def loss_of(c) -> losses.Loss:
    """The loss as `config.grpo` says."""
    return losses.grpo_loss(
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
