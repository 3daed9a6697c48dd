"""PivotRL from trajectories to a better policy: `python -m pivotrl_jax.train --config=configs/bfcl.py`

    demonstrations -> candidates (self-checked) -> profile -> pivots -> evaluate pi_0 -> GRPO
    -> Hugging Face export (and PEFT adapter) -> evaluate -> report

`config.method` puts a rival in the place of profile, pivots and GRPO, everything else being equal: "sft" on
the same trajectories, "e2e_rl" on the same tasks, "random_turns" (GRPO on the unfiltered candidates).

`config.validation` scores the policy while it trains, and `config.reprofile` finds pivots anew under it when
those of pi_0 have taught what they can. Every stage leaves its files in config.workdir and is taken up from
there when the program runs again.
"""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from pivotrl_jax import (
    check_config,
    cli,
    compilations,
    e2e_stage,
    evaluation,
    grpo_stage,
    hf,
    lora,
    metrics,
    monitor,
    peft_export,
    profile_stage,
    records,
    report,
    reprofile,
    sft_stage,
    validation,
)
from pivotrl_jax import run as run_lib

NAMES = {
    "episode_success": "episode success",
    "call_turn_pass": "call-turn pass",
    "text_turn_pass": "text-turn pass",
    "out_of_domain": "out of domain",
}


def main() -> None:
    config = cli.CONFIG.value
    check_config.check_training(config)
    run = run_lib.open_run(config)
    run_lib.claim(run)
    with run.stage("candidates"):
        data, held = validation.load(config)
        candidates = run_lib.make_candidates(run, data)
        tasks = run_lib.held_out_tasks(run, data)
    selection, rollouts = None, []
    if config.method == "pivotrl":
        with run.stage("profiling"):
            selection, rollouts = profile_stage.find_pivots(run, candidates)
            selection.require_pivots()
    with run.stage("evaluation before"):
        before = run_lib.evaluate(run, run.params, tasks, "before", run.policy)
    with run.stage("training"):
        validate = validation.make(run, held)
        if config.method == "sft":
            params, totals = sft_stage.train(run, data.demonstrations, validate)
        elif config.method == "e2e_rl":
            params, totals = e2e_stage.train(run, data.train_rows, validate)
        else:
            turns = [p.candidate for p in selection.pivots(candidates)] if selection else candidates
            params, totals = grpo_stage.train(run, turns, candidates, validate)
        lines = metrics.read_metrics(run.workdir)
    with run.stage("export"):
        export = run.shared / "hf"
        hf.save(export, run.model_config, lora.merged(run.trained_config, params), run.checkpoint)
        if run.trained_config.lora:
            peft_export.save_adapter(run.shared / "adapter", run.trained_config, params, base_name(run))
    with run.stage("evaluation after"):
        after = run_lib.evaluate(run, params, tasks, "after", hf.fingerprint(export))
    result = {
        "before": evaluation.summarise(before),
        "after": evaluation.summarise(after),
        "difference": evaluation.compare(before, after),
    }
    records.write_json(run.workdir / "evaluation.json", result)
    profiled = len(rollouts) + monitor.total(lines, monitor.ROLLOUTS)
    run.facts |= {
        "counts": {
            "trajectories": len(data.demonstrations),
            "candidates": len(candidates),
            **(selection.counts() if selection else {}),
            "profiling_rollout_turns": profiled,
            "training_rollout_turns": totals["rollout_turns"],
            "trained_tokens": totals["trained_tokens"],
            "validation_rollout_turns": monitor.total(lines, validation.ROLLOUTS),
            "evaluation_rollout_turns": before["rollout_turns"] + after["rollout_turns"],
            "evaluation_abstained": evaluation.abstentions(before) + evaluation.abstentions(after),
        },
        "table": table_rows(
            run, len(data.demonstrations), candidates, selection, result, profiled + totals["rollout_turns"]
        ),
    }
    run.write()
    page = report.write_report(run.workdir)
    print_table(run.facts["table"] + [("report", str(page)), ("all files", str(run.shared))])


def table_rows(run, trajectories: int, candidates, selection, result, turns: int) -> list[tuple[str, str]]:
    """The short table at the end, as (name, text)."""
    rows = [("method", run.config.method)]
    rows += [("candidates", f"{len(candidates)} turns of {trajectories} trajectories")]
    if selection:
        rows += selection_rows(selection)
        rule, pivots = reprofile.rule_of(run.config.reprofile), selection.counts()["pivot"]
        told = monitor.story(metrics.read_metrics(run.workdir), rule, pivots)
        rows += [("re-profiled", text) for text in told]
    for key, name in NAMES.items():
        if key in result["before"]:
            rows.append((name, change(result, key)))
    # of a blend
    by_verifier = {when: part["verifiers"] for when, part in result.items() if "verifiers" in part}
    rows += [(f"turns of {name}", change(by_verifier, name)) for name in by_verifier.get("before", {})]
    seconds = sum(run.seconds.values())
    spent = f"{turns} rollout turns (profiling and training), {seconds:.0f} s in all"
    rows += [("spent", spent), ("checkpoints", str(run.shared / "checkpoints"))]
    compiled = compilations.since(run.began)
    names = ", ".join(f"{count} {name}" for name, count in compiled["programs"].items())
    rows += [("programs compiled", f"{names}; {compiled['seconds']:.0f} s")]
    rows += [("Hugging Face export", str(run.shared / "hf"))]
    return rows + ([("PEFT adapter", str(run.shared / "adapter"))] if run.trained_config.lora else [])


def selection_rows(selection) -> list[tuple[str, str]]:
    """What became of the candidates."""
    counts = selection.counts()
    uninformative = f"{selection.uninformative():.0%} of all"
    if any(selection.counts(True).values()):
        uninformative += f", {selection.uninformative(True):.0%} of call turns"
    others = f"{counts['all_fail']} all fail, {counts['all_pass']} all pass, {counts['too_easy']} too easy"
    if counts["undecided"]:
        others += f", {counts['undecided']} undecided"
    return [
        ("uninformative groups", uninformative),
        ("pivots kept", f"{counts['pivot']} (mixed rewards, mean below {selection.lambda_diff:g})"),
        ("others", others),
    ]


def base_name(run) -> str:
    """What an adapter's users load it upon: the checkpoint's name on the hub, or its directory."""
    name = run.config.model.checkpoint
    local = run.checkpoint in (run_lib.EMBEDDED, Path(name))
    return str(run.checkpoint.resolve()) if local else name


def change(result: dict, key: str) -> str:
    """'0.412 [0.35, 0.47] -> 0.560 [0.49, 0.63], change +0.148 [+0.09, +0.21]', 95 % intervals."""
    before, after = (
        f"{part['value']:.3f} [{part['low']:.3f}, {part['high']:.3f}]"
        for part in (result["before"][key], result["after"][key])
    )
    d = result["difference"][key]
    return f"{before} -> {after}, change {d['value']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}]"


def print_table(rows: list[tuple[str, str]]) -> None:
    table = Table(show_header=False, title="PivotRL", title_justify="left")
    for name, text in rows:
        table.add_row(name, text)
    Console(soft_wrap=False).print(table)


if __name__ == "__main__":
    cli.start(main)
