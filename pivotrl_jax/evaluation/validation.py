"""Validation: scores the policy every few training steps, on items used for neither training nor testing.

An environment may provide tasks for it (`validation_tasks`). Otherwise a share of the training scenarios is
set aside and not trained on. Single turns are scored as in evaluation.py and, if the config asks for them and
the tasks can be played, whole episodes too.
"""

import math
import time

import jax

from pivotrl_jax.evaluation import evaluation, measures
from pivotrl_jax.records import InputError
from pivotrl_jax.run import run as run_lib
from pivotrl_jax.run.metrics import Validate
from pivotrl_jax.trajectories import extract
from pivotrl_jax.trajectories.sources import ValidationSet

PREFIX = "validation/"
ROLLOUTS = f"{PREFIX}rollout_turns"


def make(run: run_lib.Run, validation_set: ValidationSet) -> Validate:
    """A function (steps so far, parameters) -> the metrics of `config.validation` after every `every` steps,
    and {} after the others. Its randomness depends on the seed and the number of steps only.

    Raises InputError when no turn is left to score.
    """
    c = run.config.validation
    if not c.every:
        return lambda steps, params: {}
    turns = extract.extract(validation_set.trajectories)
    if not turns:
        raise InputError(
            "no turn is left for validation: the self-check accepts none of its trajectories' turns; mend "
            "the data, or set config.validation.every to 0"
        )
    prompts, too_long = extract.within_limit(run.chat, turns, run.config.data.max_prompt_tokens)
    run.facts["validation"] = {"turns": len(prompts), "prompts_too_long": len(too_long)}
    if not prompts:
        raise InputError(
            f"no turn is left for validation: {len(too_long)} prompts are longer than "
            f"config.data.max_prompt_tokens, {run.config.data.max_prompt_tokens}; raise it, or set "
            "config.validation.every to 0"
        )
    held_out = evaluation.HeldOut(validation_set.tasks if c.attempts else [], prompts, [])
    rollouts = evaluation.evaluation_rollouts(run, c.batch, trained=True)

    def validate(steps: int, params: dict) -> dict[str, float]:
        if steps % c.every:
            return {}
        began = time.perf_counter()
        results = evaluation.evaluate(
            rollouts,
            params,
            held_out,
            key=key_of(run.config.seed, steps),
            attempts=c.attempts,
            samples=c.samples,
            max_steps=run.config.evaluate.max_steps,
            max_prompt=run.config.data.max_prompt_tokens,
        )
        return {**metrics_of(results), f"{PREFIX}seconds": time.perf_counter() - began}

    return validate


def key_of(seed: int, steps: int) -> jax.Array:
    """The PRNG key of the validation after `steps` steps."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 5), steps)


def metrics_of(results: measures.Results) -> dict[str, float]:
    """Means of the measures, and of all turns together as "validation/turn_pass", which is NaN if no turn
    was decided. Others: "validation/call_turn_pass", "validation/verifier/swe"."""
    means = {name: math.fsum(v) / len(v) for name, (v, _) in measures.series(results).items()}
    turns = [turn["mean"] for turn in results["turns"] if turn["mean"] is not None]
    means = {"turn_pass": math.fsum(turns) / len(turns) if turns else math.nan, **means}
    counts = {ROLLOUTS: results["rollout_turns"]}
    return {f"{PREFIX}{name.replace(':', '/')}": value for name, value in means.items()} | counts
