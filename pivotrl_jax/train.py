"""PivotRL from trajectories to a better policy: `python -m pivotrl_jax.train --config=configs/bfcl.py`

    demonstrations -> candidates (self-checked) -> profile -> pivots -> evaluate pi_0 -> GRPO
    -> Hugging Face export (and PEFT adapter) -> evaluate -> report

`config.method` replaces profile, pivots and GRPO with another method, everything else being equal: "sft" on
the same trajectories, "e2e_rl" on the same tasks, "random_turns" (GRPO on the unfiltered candidates).

`config.validation` scores the policy while it trains. `config.reprofile` finds new pivots under the current
policy when those of pi_0 have taught what they can. Every stage writes its files to config.workdir, and the
program resumes from them when it runs again.
"""

from pivotrl_jax import records
from pivotrl_jax.evaluation import evaluation, measures, validation
from pivotrl_jax.pivots import candidates as candidates_lib
from pivotrl_jax.pivots import profiling
from pivotrl_jax.report import report
from pivotrl_jax.report.table import print_table, table_rows
from pivotrl_jax.run import check_config, cli, export, metrics, resume
from pivotrl_jax.run import run as run_lib
from pivotrl_jax.training import e2e_rl, monitor, pivotrl, reprofile, sft
from pivotrl_jax.training.tables import TABLES
from pivotrl_jax.trajectories import sources


def main() -> None:
    config = cli.CONFIG.value
    check_config.check_training(config)
    run = run_lib.open_run(config)
    resume.prepare_workdir(run)
    with run.stage("candidates"):
        data, validation_set = sources.load_with_validation(config)
        candidates = candidates_lib.make_candidates(run, data)
        held_out = evaluation.make_held_out(run, data)
    selection = None
    if config.method == "pivotrl":
        with run.stage("profiling"):
            (selection := profiling.find_pivots(run, candidates)).require_pivots()
    with run.stage("evaluation before"):
        before = evaluation.evaluate_run(run, run.params, held_out, "before", run.policy)
    with run.stage("training"):
        validate = validation.make(run, validation_set)
        if config.method == "sft":
            params, totals = sft.train(run, data.demonstrations, validate)
        elif config.method == "e2e_rl":
            params, totals = e2e_rl.train(run, data.train_tasks, validate)
        else:
            turns = [p.candidate for p in selection.pivots(candidates)] if selection else candidates
            params, totals = pivotrl.train(run, turns, candidates, validate)
        lines = metrics.read_metrics(run.workdir)
    with run.stage("export"):
        fingerprint = export.write(run, params)
    with run.stage("evaluation after"):
        exported = run
        if run.trained_config.lora:  # what is evaluated is what hf/ holds
            run.params = params = None
            exported, params = export.read_back(run)
        after = evaluation.evaluate_run(exported, params, held_out, "after", fingerprint)
    result = {
        "before": measures.summarise(before),
        "after": measures.summarise(after),
        "difference": measures.compare(before, after),
    }
    records.write_json(run.workdir / "evaluation.json", result)
    drawn = selection.rollouts if selection else 0
    counts = {
        "trajectories": len(data.demonstrations),
        "candidates": len(candidates),
        **(selection.counts() | selection.counts_of_full_profile() if selection else {}),
        "profiling_rollout_turns": drawn + monitor.total(lines, monitor.ROLLOUTS),
        "training_rollout_turns": totals["rollout_turns"],
        "trained_tokens": totals["trained_tokens"],
        "validation_rollout_turns": monitor.total(lines, validation.ROLLOUTS),
        "evaluation_rollout_turns": before["rollout_turns"] + after["rollout_turns"],
        "evaluation_abstained": measures.abstentions(before) + measures.abstentions(after),
    }
    reprofilings = []
    if selection:
        rule = reprofile.rule_of(config.reprofile)
        reprofilings = monitor.story(lines, rule, len(selection.kept))
    run.facts |= {"counts": counts, "table": table_rows(run, selection, result, counts, reprofilings)}
    run.write()
    page = report.write_report(run.workdir)
    print_table(run.facts["table"] + [("report", str(page)), ("all files", str(run.shared))])


if __name__ == "__main__":
    cli.start(main, TABLES)
