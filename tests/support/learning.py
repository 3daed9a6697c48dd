"""What the tests of training share: a recipe, a kill, and how a run's metrics and parameters compare."""

import json

import jax
import numpy as np

from pivotrl_jax.checkpoints.orbax import Checkpoints
from pivotrl_jax.training import pivotrl, reprofile
from pivotrl_jax.training.recipe import Recipe
from support import tiny_run

RECIPE = Recipe(steps=4, pivots_per_step=2, group_size=4, advantage_eps=1e-6, kl_coefficient=0.0, seed=0)


def metrics(workdir) -> list[dict]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [{k: v for k, v in line.items() if "seconds" not in k} for line in lines]


def equal(a, b) -> bool:
    return jax.tree.all(jax.tree.map(lambda x, y: x.tobytes() == y.tobytes(), a, b))


class Killed(BaseException):
    """Not an Exception, like a signal: nothing may catch it and tidy up."""


CANDIDATES, PROMPTS = tiny_run.conversations(3)


def learn(
    workdir,
    candidates=CANDIDATES,
    prompts=PROMPTS,
    identity=None,
    learner=None,
    actor=None,
    resume=True,
    **more,
):
    """`learning.learn` with a checkpoint after every second step: (parameters, totals)."""
    recipe = Recipe(**{**vars(RECIPE), **{k: v for k, v in more.items() if k in vars(RECIPE)}})
    with Checkpoints(workdir / "checkpoints", identity or {"seed": 0}, 2) as checkpoints:
        state, totals = pivotrl.learn(
            learner or tiny_run.learner(kl_coefficient=recipe.kl_coefficient),
            actor or tiny_run.actor(),
            tiny_run.Numbers(),
            tiny_run.policy(),
            reprofile.OnePhase(candidates, prompts),
            recipe,
            slots=tiny_run.TRAIN_SLOTS,
            verifier=None,
            checkpoints=checkpoints,
            save_every=2,
            workdir=workdir,
            resume=resume,
            on_step=more.get("on_step", lambda step: None),
        )
    return jax.tree.map(np.asarray, jax.device_get(state.params)), totals
