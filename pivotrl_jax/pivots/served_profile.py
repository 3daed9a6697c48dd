"""The profile of a served model: which way it is asked, and whose weights it says something about."""

import json
from collections.abc import Sequence

from pivotrl_jax.records import Prompt
from pivotrl_jax.rollouts.served import ServedActor, make_served
from pivotrl_jax.run import hosts
from pivotrl_jax.run.run import Run

PARTIAL = ".partial"  # suffix of a shard's completions while it is drawn


def make_actor(run: Run, prompts: Sequence[Prompt]) -> ServedActor:
    """The actor of `config.rollouts`, which asks as an interrupted profile in the work directory did. So the
    server need not be there for a profile that is whole. Raises InputError when it cannot be asked."""
    directory, mode, there = run.workdir / "rollouts", "", {}
    for partial in directory.glob(f"*{PARTIAL}"):
        if partial.with_suffix(".jsonl").is_file():  # killed between writing one and deleting the other
            partial.unlink()
    file = directory / "settings.json"
    if run.config.resume and file.is_file():
        there = json.loads(file.read_text("utf-8"))["model"]
    if there.get("served") == run.config.rollouts.model and run.config.rollouts.mode in (
        "auto",
        there["mode"],
    ):
        mode = there["mode"]
    return make_served(run, prompts, mode, on_first_process=hosts.on_first_process)


def tell(run: Run, actor: ServedActor) -> None:
    """Print what the profile cost, and keep for the report whether training starts from its weights."""
    c = run.config.rollouts
    if actor.drawn:
        print(actor.summary())
    said = "the same weights as pi_0" if c.same_weights else "maybe other weights than pi_0"
    run.facts["profiled"] = f"{c.model}, served ({actor.mode}): {said}"
    if run.params is not None and not c.same_weights:  # training follows
        print(
            f"the profile is that of {c.model} as it is served, and training starts from {run.checkpoint}: "
            "if these are the same weights, say so with --config.rollouts.same_weights=True"
        )
