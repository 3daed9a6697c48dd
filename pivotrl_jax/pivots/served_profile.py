"""The profile of a served model: which way it is asked, and whose weights it says something about."""

import collections
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from pivotrl_jax.pivots import rollout_files
from pivotrl_jax.records import InputError, Prompt, Rollout
from pivotrl_jax.rollouts.served import ServedActor, make_served
from pivotrl_jax.run import hosts
from pivotrl_jax.run.run import Run

PARTIAL = ".partial"  # suffix of a shard's completions while it is drawn
_WEIGHTS = re.compile("[0-9a-f]{16}")  # what our own server gives as its fingerprint: that of its weights


def make_actor(run: Run, prompts: Sequence[Prompt]) -> ServedActor:
    """The actor of `config.rollouts`, which asks as an interrupted profile in the work directory did. So the
    server need not be there for a profile that is whole. Raises InputError when it cannot be asked."""
    directory, mode, there = run.workdir / "rollouts", "", {}
    for partial in directory.glob(f"*{PARTIAL}"):
        if partial.with_suffix(".jsonl").is_file():  # killed between writing one and deleting the other
            partial.unlink()
    file = directory / "settings.json"
    if run.config.resume and file.is_file() and begun(directory):
        there = json.loads(file.read_text("utf-8"))["model"]
    if there.get("served") == run.config.rollouts.model and run.config.rollouts.mode in (
        "auto",
        there["mode"],
    ):
        mode = there["mode"]
    return make_served(run, prompts, mode, on_first_process=hosts.on_first_process)


def begun(directory: Path) -> bool:
    """Whether anything of a profile's rollouts is there, whole or in part."""
    there = (path for path in directory.iterdir() if path.name != "settings.json")
    return any(path.suffix in (".json", ".jsonl", PARTIAL) for path in there)


def tell(run: Run, actor: ServedActor) -> None:
    """Print what the profile cost, and keep for the report which models answered and whether training starts
    from their weights. Raises InputError if it is said to and does not."""
    c = run.config.rollouts
    run.facts["served_by"] = hosts.on_first_process(lambda: _served_by(run.workdir / "rollouts"))
    for line in warnings(run.facts["served_by"]):
        print(line)
    other = [f for _, f in run.facts["served_by"] if _WEIGHTS.fullmatch(f) and f != run.policy]
    if c.same_weights and run.policy and other:
        raise InputError(
            f"config.rollouts.same_weights is True, but the server's weights are {other[0]} and those of "
            f"{run.checkpoint} are {run.policy}; serve that checkpoint, or leave same_weights out"
        )
    if actor.drawn:
        print(actor.summary())
    said = "the same weights as pi_0" if c.same_weights else "maybe other weights than pi_0"
    run.facts["profiled"] = f"{c.model}, served ({actor.mode}): {said}"
    if run.params is not None and not c.same_weights:  # training follows
        print(
            f"the profile is that of {c.model} as it is served, and training starts from {run.checkpoint}: "
            "if these are the same weights, say so with --config.rollouts.same_weights=True"
        )


def models_of(rollouts: Iterable[Rollout]) -> collections.Counter[tuple[str, str]]:
    """(model, fingerprint), as the server names them -> how many rollouts it gave."""
    served = [rollout.served for rollout in rollouts if rollout.served]
    return collections.Counter((s.get("model", ""), s.get("fingerprint", "")) for s in served)


def warnings(served_by: Iterable[Sequence[str]]) -> list[str]:
    """What is to be said if more than one model answered."""
    names = [f"{model or 'no name'} ({fingerprint or 'no fingerprint'})" for model, fingerprint in served_by]
    if len(names) < 2:
        return []
    return [
        f"warning: {len(names)} models gave these rollouts: {', '.join(names)}; their rewards are not those "
        "of one policy. Profile again if the weights behind the server changed, and not only its name"
    ]


def _served_by(folder: Path) -> list[list[str]]:
    """The models that answered, in order of their names."""
    found = collections.Counter()
    for file in sorted(folder.glob("*.jsonl")):
        found |= models_of(rollout_files.summaries(file))
    return [list(names) for names in sorted(found)]
