"""Makes learners, optimizers and routers from a config's sections; says which fields identify a training."""

from typing import Any

from jax.sharding import Mesh

from pivotrl_jax.models import config as model_config_lib
from pivotrl_jax.models import decoder, sharding
from pivotrl_jax.records import InputError
from pivotrl_jax.run import fields, resume
from pivotrl_jax.run.options import OPTIONS
from pivotrl_jax.run.options_beyond import OFF
from pivotrl_jax.training import method, objectives
from pivotrl_jax.training.learner import Compute, Learner, Routers
from pivotrl_jax.training.optimizer import make_optimizer, without
from pivotrl_jax.training.tables import TABLES


def grpo_learner(
    config: Any,
    model_config: model_config_lib.ModelConfig,
    mesh: Mesh,
    frozen: decoder.Params | None = None,
) -> Learner:
    """The learner of `config.grpo`; `config` is the run's. `frozen`: the base model beside LoRA's adapters.
    Raises InputError for unknown names, and for router settings when the model is dense and has no
    routers."""
    fields.check_names(config, OPTIONS.values(), TABLES)  # a notebook does not go through cli.start
    c = config.grpo
    routers = routers_of(c)
    if routers != Routers() and not any(moe for *_, moe in model_config.segments()):
        raise InputError(
            f"config.grpo.router is {c.router!r}, routing_agreement {c.routing_agreement} and "
            f"balance_coefficient {c.balance_coefficient}, but the model is dense; want 'train', False and 0"
        )
    optimizer = optimizer_of(c)
    return Learner(
        model_config,
        compute_of(config, mesh, c.microbatch_rows, c.offload_optimizer),
        without(optimizer, "router") if c.router == "frozen" else optimizer,
        objectives.policy_gradient(c),
        config.sampling.temperature,
        frozen,
        routers,
    )


def sft_learner(
    config: Any,
    model_config: model_config_lib.ModelConfig,
    mesh: Mesh,
    frozen: decoder.Params | None = None,
    steps: int = 0,
) -> Learner:
    """The learner of `config.sft`; arguments as for `grpo_learner`. `steps`: the length of training, which a
    learning rate that decays needs."""
    compute = compute_of(config, mesh, config.sft.microbatch_rows)
    optimizer = optimizer_of(config.sft, steps if config.sft.decay == "linear" else 0)
    return Learner(model_config, compute, optimizer, objectives.negative_log_likelihood, 1.0, frozen)


def compute_of(config: Any, mesh: Mesh, microbatch_rows: int, offload_optimizer: bool = False) -> Compute:
    """How a step is computed, as `config.compute` says; microbatch rows are rounded up to fit the mesh."""
    c = config.compute
    rows = sharding.whole_rows(mesh, microbatch_rows)
    return Compute(c.attention_chunk, c.log_prob_chunk, c.remat, rows, offload_optimizer, mesh)


def optimizer_of(c: Any, decay_steps: int = 0):
    """The optimizer of a training section, `config.grpo` or `config.sft`."""
    rates = c.weight_decay, c.b1, c.b2, c.max_grad_norm
    return make_optimizer(c.learning_rate, c.warmup_steps, *rates, c.optimizer_dtype, decay_steps)


def routers_of(c: Any) -> Routers:
    """What a step does with routers, as `config.grpo` says. Replayed choices are compared, too."""
    replay = c.router == "replay"
    return Routers(replay, replay or c.routing_agreement, c.balance_coefficient)


def fixed(c: Any) -> dict:
    """The fields of `config.grpo` that must be equal to continue a checkpoint; the number of steps may grow.
    The load-balance loss is computed per microbatch, so with it `microbatch_rows` must be equal too. Options
    that are off are left out, so that checkpoints of a time without them are continued."""
    free = set(resume.FREE_GRPO) - ({"microbatch_rows"} if c.balance_coefficient else set())
    fields = {name: value for name, value in c.to_dict().items() if name not in free}
    return {name: value for name, value in fields.items() if OFF.get(name, ...) != value}


def fixed_sft(c: Any) -> dict:
    """The fields of `config.sft` that must be equal to continue a checkpoint. "falls" tells rates that decay
    after a warm-up from those of earlier versions, which the warm-up never brought up to the rate."""
    fields = {name: value for name, value in c.to_dict().items() if name not in method.FREE}
    return fields | ({"falls": "after warm-up"} if c.decay == "linear" and c.warmup_steps else {})
