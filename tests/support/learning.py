"""What the tests of training share: a recipe, a kill, and how a run's metrics and parameters compare."""

import json
from types import SimpleNamespace

import jax
import numpy as np
from ml_collections import ConfigDict

from pivotrl_jax.checkpoints.orbax import Checkpoints
from pivotrl_jax.run.metrics import MEASURED
from pivotrl_jax.training import loop, method, pivotrl, reprofile
from support import tiny_run
from support.configs import CONFIGS

PROMPTS = tiny_run.conversations(3)


def config_of(**changes) -> ConfigDict:
    """The main job's config with four tiny steps. `changes` are of `config.grpo`, but for `seed` and
    `max_tokens`."""
    config = CONFIGS.get_config()
    config.compute.row_lengths = tiny_run.TRAIN_SLOTS
    config.seed = changes.pop("seed", 0)
    config.sampling.max_tokens = changes.pop("max_tokens", 64)
    config.grpo.update({"steps": 4, "pivots_per_step": 2, "group_size": 4, "kl_coefficient": 0.0, **changes})
    return config


def metrics(workdir) -> list[dict]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [{k: v for k, v in line.items() if k not in MEASURED} for line in lines]


def equal(a, b) -> bool:
    return jax.tree.all(jax.tree.map(lambda x, y: x.tobytes() == y.tobytes(), a, b))


class Killed(BaseException):
    """Not an Exception, like a signal: nothing may catch it and tidy up."""


def fit(config, rollouts, learner, phases, io: loop.LoopIO, save_every: int = 2):
    """(state, totals) of GRPO at pivots from the tiny policy on."""
    reference = tiny_run.policy()
    kept = reference if config.grpo.kl_coefficient or config.grpo.kl_budget else None
    skip_list = pivotrl.skip_list_of(SimpleNamespace(config=config, workdir=io.workdir))
    make_batch = pivotrl.batches_of(config, rollouts, learner, phases, kept, skip_list)
    section = SimpleNamespace(save_every=save_every)
    stops = bool(config.grpo.kl_budget)
    job = method.Job("GRPO", config.grpo.steps, learner, make_batch, {}, section, phases.due, stops)
    state, totals = loop.start(job, reference, io)
    return loop.loop(job, state, totals, io)


def learn(
    workdir,
    prompts=PROMPTS,
    identity=None,
    learner=None,
    rollouts=None,
    resume=True,
    on_step=lambda step: None,
    validate=lambda steps, params: {},
    **changes,
):
    """GRPO with a checkpoint after every second step: (parameters, totals). `changes` as in `config_of`."""
    config = config_of(**changes)
    learner = learner or tiny_run.learner(kl_coefficient=config.grpo.kl_coefficient)
    with Checkpoints(workdir / "checkpoints", identity or {"seed": 0}, 2) as checkpoints:
        io = loop.LoopIO(checkpoints, workdir, resume, validate, on_step)
        state, totals = fit(config, rollouts or tiny_run.rollouts(), learner, reprofile.OnePhase(prompts), io)
    return jax.tree.map(np.asarray, jax.device_get(state.params)), totals
