"""Whether a work directory belongs to this run, and which fields may change when it is taken up again."""

import json
import shutil

from pivotrl_jax.checkpoints.identity import flatten, require_same
from pivotrl_jax.run import options
from pivotrl_jax.run.run import Run

RESULTS = (  # what the stages write into a work directory
    "run.json candidates.jsonl skipped.jsonl rollouts profiles.jsonl pivots.jsonl reprofiled checkpoints "
    "metrics.jsonl trained_rewards.jsonl tensorboard evaluations evaluation.json hf adapter served "
    "report.html report_data rescored.txt"
).split()


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
    "rollouts.",  # settings.json says what decides the profile of a served model
    *(f"judge.{x}" for x in ("base_url", "api_key_env", "concurrency", "timeout", "retries")),
)

FREE_BEFORE_TRAINING = (
    *("grpo.", "model.lora.", "validation.", "reprofile."),
    *("profile.lambda_diff", "profile.keep_all_fail"),
)

KEPT = ("skipped", "counts", "table", "merged", "rescored")  # facts of run.json that outlast a resume


def prepare_workdir(run: Run) -> None:
    """Prepare the work directory for this run, before anything is written there.

    With resume off, the files of an earlier run are deleted. Otherwise the facts in its run.json are kept.
    Raises InputError naming the differences when rollouts of another config or policy are there; fields in
    FREE may differ.
    """
    if not run.config.resume:
        for name in RESULTS:
            path = run.workdir / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return
    file = run.workdir / "run.json"
    if not file.is_file() or not (run.workdir / "rollouts").is_dir():
        return
    trained = any((run.shared / "checkpoints").glob("[0-9]*"))
    free = FREE if trained else FREE + FREE_BEFORE_TRAINING
    page = json.loads(file.read_text("utf-8"))
    # a field that was not there yet had the effect of its default
    there, here = {**flatten(options.defaults().to_dict()), **flatten(page["config"])}, run.config.to_dict()
    if page["policy"] and run.policy:  # "" of a run that loaded no weights
        there, here = {**there, "policy": page["policy"]}, {**here, "policy": run.policy}
    require_same(run.workdir, "results", there, here, free)
    run.seconds |= page.get("seconds", {})
    run.facts |= {name: page[name] for name in KEPT if name in page}
