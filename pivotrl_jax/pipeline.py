"""The stages of a run, put together: what the programs and `pivotrl_jax.api` do with a config.

    train        demonstrations -> candidates (self-checked) -> profile -> pivots -> evaluate pi_0 -> GRPO
                 -> Hugging Face export (and PEFT adapter) -> evaluate, sample some pivots again -> report
    find_pivots  demonstrations -> candidates (self-checked) -> profile under pi_0 -> pivots.jsonl
    evaluate     held-out episodes, held-out turns and out-of-domain skills of one checkpoint

All of them run in every process of a run on several hosts. They raise InputError for a config, data or a
checkpoint that cannot be used.
"""

import contextlib
import dataclasses
from typing import Any

from pivotrl_jax import records
from pivotrl_jax.chat.template import Chat
from pivotrl_jax.evaluation import evaluation, measures, validation
from pivotrl_jax.pivots import candidates as candidates_lib
from pivotrl_jax.pivots import profiling, resampling
from pivotrl_jax.pivots.selection import Selection
from pivotrl_jax.records import InputError
from pivotrl_jax.report import report, resampled
from pivotrl_jax.report.table import table_rows
from pivotrl_jax.run import check_config, export, fields, lock, metrics, resume, tracking
from pivotrl_jax.run import run as run_lib
from pivotrl_jax.run.options import OPTIONS
from pivotrl_jax.run.run import Run
from pivotrl_jax.training import e2e_rl, monitor, pivotrl, reprofile, sft
from pivotrl_jax.training.tables import TABLES
from pivotrl_jax.trajectories import extract, sources

PROBED = 32  # trajectories that are checked before weights are loaded


def check_names(config: Any) -> None:
    """Raises InputError when a field names what no table has. Programs do this as they start."""
    fields.check_names(config, OPTIONS.values(), TABLES)


def _read(config: Any) -> tuple[sources.Data, sources.ValidationSet, Chat]:
    """(data, validation set, chat), before any weight is loaded or downloaded. Raises InputError, also when
    the self-check rejects every turn of some trajectories from all over the data: most likely the verifier
    does not know these tools."""
    check_config.check(config)
    data, validation_set = sources.load_with_validation(config)
    chat = run_lib.load_chat(config)
    some = data.demonstrations[:: max(1, len(data.demonstrations) // PROBED)]
    turns = extract.extract(some)
    checked = candidates_lib.self_check(turns, chat, run_lib.rewarding_all(config))
    if turns and not checked.kept:
        where, why = next(iter(checked.left_out.items()))
        raise InputError(
            f"the self-check rejects all {len(turns)} turns of {len(some)} trajectories, e.g. {where}: "
            f"{why.removeprefix(f'{where}: ')}; no model was loaded: mend the data, or name another "
            "verifier (config.data.verifier); find_pivots --self_check says why of each"
        )
    return data, validation_set, chat


@lock.released()
def train(config: Any) -> Run:
    """The whole method, or another one that `config.method` names. Returns the finished run."""
    check_config.check(config)
    check_config.check_training(config)
    data, validation_set, chat = _read(config)
    if config.method == "e2e_rl":
        e2e_rl.require_tasks(config, data.train_tasks)
    run = run_lib.open_run(config, chat=chat)
    resume.prepare_workdir(run)
    with contextlib.closing(tracking.of(config, run.workdir)) as run.tracking:
        _train(run, data, validation_set)
    return run


def _train(run: Run, data: sources.Data, validation_set: sources.ValidationSet) -> None:
    """Every stage of `train`."""
    config = run.config
    with run.stage("candidates"):
        candidates = candidates_lib.make_candidates(run, data)
        held_out = _make_held_out(run, data)
    selection = None
    if config.method == "pivotrl":
        with run.stage("profiling"):
            (selection := profiling.find_pivots(run, candidates)).require_pivots()
    with run.stage("evaluation before"):
        before = evaluation.evaluate_run(run, run.params, held_out, "before", run.policy)
    with run.stage("training"):
        validate = validation.make(run, _checked_validation(run, validation_set))
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
        drawn_again = _resample(exported, params, fingerprint, selection, candidates)
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
        **({"resampled_rollout_turns": drawn_again} if drawn_again else {}),
        "evaluation_abstained": measures.abstentions(before) + measures.abstentions(after),
    }
    _finish(run, selection, result, counts, lines)


def _make_held_out(run: Run, data: sources.Data) -> evaluation.HeldOut:
    """`evaluation.make_held_out` of the turns that the self-check keeps; run.json counts the others."""
    some = data.held_out[: run.config.evaluate.turn_trajectories]
    kept, count = candidates_lib.skip_unpassable(some, run.chat, "held-out turns")
    run.facts["held_out_self_check"] = count
    return evaluation.make_held_out(run, dataclasses.replace(data, held_out=kept))


def _checked_validation(run: Run, found: sources.ValidationSet) -> sources.ValidationSet:
    """The validation set without the turns that the self-check leaves out; run.json counts them."""
    kept, count = candidates_lib.skip_unpassable(found.trajectories, run.chat, "validation")
    run.facts["validation_self_check"] = count
    return dataclasses.replace(found, trajectories=kept)


def _resample(run: Run, params, fingerprint: str, selection: Selection | None, candidates) -> int:
    """Sample some pivots again with the final policy. Returns the number of rollouts."""
    run.facts.pop(resampling.DIRECTORY, None)  # an earlier policy's
    pivots = selection.pivots(candidates) if selection else resampling.own_pivots(run)
    profiles = resampling.resample(run, params, fingerprint, pivots)
    if not profiles:
        return 0
    found = resampled.summary(resampled.pairs_of([pivot.profile for pivot in pivots], profiles))
    run.facts[resampling.DIRECTORY] = found
    return found["rollouts"]


def _finish(run: Run, selection: Selection | None, result: dict, counts: dict, lines: list[dict]) -> None:
    """Write run.json with the closing table, and the report; tell the trackers."""
    reprofilings = []
    if selection:
        rule = reprofile.rule_of(run.config.reprofile)
        reprofilings = monitor.story(lines, rule, len(selection.kept))
    run.facts |= {"counts": counts, "table": table_rows(run, selection, result, counts, reprofilings)}
    run.write()
    report.write_report(run.workdir)
    final = {
        f"{when}/{name}": value["value"]
        for when, part in result.items()
        for name, value in part.items()
        if "value" in value
    }
    folders = [run.shared / name for name in ("hf", "adapter") if run.config.track.export]
    run.tracking.finish(final, [folder for folder in folders if folder.is_dir()])


@lock.released()
def find_pivots(config: Any) -> tuple[Run, Selection]:
    """The offline half. With `config.rollouts.base_url` no weights are loaded."""
    check_config.check(config)
    check_config.check_profile(config)
    data, _, chat = _read(config)
    run = run_lib.open_run(config, weights=not config.rollouts.base_url, chat=chat)
    resume.prepare_workdir(run)
    with run.stage("candidates"):
        candidates = candidates_lib.make_candidates(run, data)
    with run.stage("profiling"):
        selection = profiling.find_pivots(run, candidates)
    return run, selection


def self_check(config: Any) -> tuple[candidates_lib.SelfCheck, dict[str, str]]:
    """(the self-check of all turns of the source, place -> why what is there was left out of the data). There
    is no split, and of the model only the tokenizer is needed."""
    check_config.check(config)
    data = sources.load(config.data, config.seed)
    chat = run_lib.load_chat(config)
    turns = extract.extract([*data.demonstrations, *data.held_out])
    return candidates_lib.self_check(turns, chat), data.skipped


@lock.released()
def evaluate(config: Any) -> tuple[Run, evaluation.Results]:
    """Evaluate the config's model. The results are also in config.workdir/evaluations/, named by policy."""
    check_config.check(config)
    config = run_lib.as_stored(config)
    run = run_lib.open_run(config)
    held_out = _make_held_out(run, sources.load(config.data, config.seed))
    return run, evaluation.evaluate_run(run, run.params, held_out, run.policy, run.policy)
