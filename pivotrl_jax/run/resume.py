"""Whether a work directory belongs to this run, and which fields may change when it is taken up again."""

import json

from pivotrl_jax.checkpoints.identity import flatten, require_same
from pivotrl_jax.run import fields, hosts, options, ownership
from pivotrl_jax.run.run import Run

# Fields that may change when a run is resumed: they decide how long, where and how fast it runs, not what it
# computes. Before the first checkpoint, filter and recipe may change, too; profiles are then filtered again.
FREE_GRPO = ("steps", "save_every", "keep_checkpoints", "batch", "microbatch_rows", "offload_optimizer")

FREE = (
    "resume",
    "workdir",
    "mesh.",
    "compute.",
    "evaluate.",
    "model.lora.merged_dtype",
    "profile.batch",
    "validation.batch",
    *(f"grpo.{x}" for x in FREE_GRPO),
    *("sft.save_every", "sft.keep_checkpoints"),
    "track.",
    "rollouts.",  # settings.json says what decides the profile of a served model
    *(f"judge.{x}" for x in ("base_url", "api_key_env", "concurrency", "timeout", "retries")),
)

FREE_BEFORE_TRAINING = (
    *("grpo.", "sft.", "model.lora.", "validation.", "reprofile."),
    *("profile.lambda_diff", "profile.keep_all_fail"),
)

# facts of run.json that outlast a resume
KEPT = ("skipped", "counts", "table", "merged", "rescored", "resampled")


def prepare_workdir(run: Run) -> None:
    """Prepare the work directory for this run, before anything is written there.

    With resume off, what an earlier run wrote is deleted. Otherwise the facts in its run.json are kept.
    Raises InputError naming the differences when rollouts of another config or policy are there; fields in
    FREE may differ. Also raises it when files are there that the run would overwrite and no run wrote.
    """
    resume = run.config.resume
    hosts.on_first_process(lambda: ownership.require_own(run.shared, resume))
    ownership.delete_half_written(run.workdir)
    if not resume:
        ownership.require_apart(run.workdir, _inputs(run))
        ownership.delete_results(run.workdir)
    elif (run.workdir / "run.json").is_file() and _has_results(run):
        _take_up(run)
    run.write()  # from now on the directory is this run's


def _inputs(run: Run) -> list[tuple[str, str]]:
    """(config field, a path that it names), of all that a run starts from."""
    names = ("model.checkpoint", "model.chat_template", "data.tools", "data.source")
    values = [(name, fields.value_of(run.config, name)) for name in names]
    return [(name, path.strip()) for name, text in values for path in (text or "").split(",") if path.strip()]


def _has_results(run: Run) -> bool:
    """Whether there is something to take up: rollouts, or a training by a method without a profile."""
    page = json.loads((run.workdir / "run.json").read_text("utf-8"))
    profiled = page["config"].get("method", "pivotrl") == "pivotrl"
    return (run.workdir / "rollouts").is_dir() or (_is_trained(run) and not profiled)


def _is_trained(run: Run) -> bool:
    return any((run.shared / "checkpoints").glob("[0-9]*"))


def _take_up(run: Run) -> None:
    """Keep what run.json knows. Raises InputError when it is of another run."""
    file = run.workdir / "run.json"
    free = FREE if _is_trained(run) else FREE + FREE_BEFORE_TRAINING
    page = json.loads(file.read_text("utf-8"))
    # a field that was not there yet had the effect of its default
    there, here = {**flatten(options.defaults().to_dict()), **flatten(page["config"])}, run.config.to_dict()
    if page["policy"] and run.policy:  # "" of a run that loaded no weights
        there, here = {**there, "policy": page["policy"]}, {**here, "policy": run.policy}
    require_same(run.workdir, "results", there, here, free)
    run.seconds |= page.get("seconds", {})
    run.facts |= {name: page[name] for name in KEPT if name in page}
