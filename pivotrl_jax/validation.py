"""Validation: the policy in training, scored every few steps on items that are neither trained nor tested on.

The toolbox writes other tasks of the held-out kind under another seed. Other sources give a share of their
training scenarios, which are not trained on then. Single turns are scored as in evaluation.py; where there is
a world, whole episodes too, if the config asks for them.
"""

import dataclasses
import math
import time
from collections.abc import Callable

import jax

from pivotrl_jax import data as data_lib
from pivotrl_jax import evaluation
from pivotrl_jax import run as run_lib
from pivotrl_jax.environments import episode, toolbox
from pivotrl_jax.environments.rows import Row
from pivotrl_jax.records import InputError, Trajectory
from pivotrl_jax.trajectories.split import split

PREFIX = "validation/"
ROLLOUTS = f"{PREFIX}rollout_turns"


@dataclasses.dataclass(frozen=True)
class Held:
    """What is held for validation: the experts' trajectories, and the tasks among them that can be played."""

    trajectories: list[Trajectory]
    rows: list[Row]


def load(config) -> tuple[data_lib.Data, Held]:
    """(the run's data without what is held for validation, that). `config` is a run's. Raises InputError when
    there are too few scenarios to take any out."""
    data, c = data_lib.load(config.data, config.seed), config.validation
    if not c.every:
        return data, Held([], [])
    if config.data.source == "toolbox":
        rows = toolbox.rows("test", c.tasks, c.seed)
        return data, Held([episode.replay(row) for row in rows], rows)
    scenarios = len({t.scenario for t in data.demonstrations})
    if scenarios < 2:
        raise InputError(
            f"config.validation.share is {c.share}, but {scenarios} training scenario cannot be divided; "
            "give more trajectories, or set config.validation.every to 0"
        )
    kept, taken = split(data.demonstrations, c.share, c.seed)
    ids = {t.id for t in taken}
    rows = [row for row in data.train_rows if row.id in ids]
    train_rows = [row for row in data.train_rows if row.id not in ids]
    return dataclasses.replace(data, demonstrations=kept, train_rows=train_rows), Held(taken, rows)


Validate = Callable[[int, dict], dict[str, float]]  # as loop.Keeping has it


def make(run: run_lib.Run, held: Held) -> Validate:
    """What validates a policy as `config.validation` says: its metrics after every so many steps, {} after
    the others. Its draws come from the seed and the number of steps. Raises InputError when no turn is left
    to score."""
    c = run.config.validation
    if not c.every:
        return lambda steps, params: {}
    turns, prompts, too_long = run_lib.turns_of(run, held.trajectories)
    run.facts["validation"] = {"turns": len(turns), "prompts_too_long": too_long}
    if not turns:
        raise InputError(
            f"no turn is left for validation: {too_long} prompts are longer than "
            f"config.data.max_prompt_tokens, {run.config.data.max_prompt_tokens}; raise it, or set "
            "config.validation.every to 0"
        )
    tasks = evaluation.Tasks(held.rows if c.attempts else [], turns, prompts, [])
    actor = run.actor(c.batch, run.trained_config)

    def validate(steps: int, params: dict) -> dict[str, float]:
        if steps % c.every:
            return {}
        began = time.perf_counter()
        results = evaluation.evaluate(
            actor,
            params,
            run.chat,
            tasks,
            stream=stream_of(run.config.seed, steps),
            attempts=c.attempts,
            samples=c.samples,
            max_steps=run.config.evaluate.max_steps,
            max_prompt=run.config.data.max_prompt_tokens,
            judge=run.judge,
        )
        return {**metrics_of(results), f"{PREFIX}seconds": time.perf_counter() - began}

    return validate


def stream_of(seed: int, steps: int) -> jax.Array:
    """The PRNG key of the validation after so many steps."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 5), steps)


def metrics_of(results: evaluation.Results) -> dict[str, float]:
    """Means of what evaluation.py measures, and of all turns together: "validation/turn_pass",
    "validation/call_turn_pass", "validation/verifier/swe". NaN where nobody could decide a single turn."""
    means = {name: math.fsum(v) / len(v) for name, (v, _) in evaluation.series(results).items()}
    turns = [turn["mean"] for turn in results["turns"] if turn["mean"] is not None]
    means = {"turn_pass": math.fsum(turns) / len(turns) if turns else math.nan, **means}
    counts = {ROLLOUTS: results["rollout_turns"]}
    return {f"{PREFIX}{name.replace(':', '/')}": value for name, value in means.items()} | counts
