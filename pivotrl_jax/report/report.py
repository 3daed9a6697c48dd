"""The report: one self-contained HTML page about a run; of more than 500 candidates, with files beside it.

    python -m pivotrl_jax.report runs/bfcl             runs/bfcl/report.html
    python -m pivotrl_jax.report runs/a runs/b         comparison.html: these runs on one page

Steps: read what the run left in its working directory, read every candidate with its sampled actions, say the
verdict in one sentence, plot training, profiles and evaluation, write `report.html`. Only `run.json` is
required; a section whose file is missing says so in its place. The report measures nothing itself: outcomes
come from pivots/selection.py, intervals from the evaluation, and a change counts only where the interval of
the difference excludes zero.

`run.json` is one object; these keys are read, each may be absent: `config` (object), `model` (text or
object), `policy` (fingerprint), `provenance` (object), `chat` (object), `devices` (list), `versions`
(package -> version), `seconds` (stage -> seconds), `counts` (name -> number) and `table` (rows of cells,
first cell the name).
"""

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path

from pivotrl_jax.pivots.notation import notation_of
from pivotrl_jax.pivots.selection import Selection
from pivotrl_jax.records import Candidate, InputError, read_records
from pivotrl_jax.report import before_after, candidates, compare, page, resampled, sections
from pivotrl_jax.report.card import METHODS
from pivotrl_jax.report.inputs import Inputs, change_of, number, part, read_inputs
from pivotrl_jax.run import disk, paths

TITLES = {
    "pivotrl": "PivotRL",
    "random_turns": "GRPO on random turns",
    "sft": "Supervised fine-tuning",
    "e2e_rl": "End-to-end RL",
}


def _tiles(inputs: Inputs, selection: Selection | None) -> Iterator[tuple[str, str, str]]:
    """(label, value, remark) of each key number."""
    profiles, pivots = inputs.profiles, inputs.pivots
    if inputs.candidates is not None:
        profiled = "" if profiles is None else f"{len(profiles):,} profiled"
        yield "candidates", f"{inputs.candidates:,}", profiled
    if selection:
        share = number(selection.uninformative())
        shown = "–" if share is None else before_after.percent(share)
        expected = ", as expected of full groups" if selection.chances else ""
        yield "uninformative turns", shown, "all rewards of the group equal" + expected
    if count := sum(p.abstained for p in profiles or []):
        yield "undecided actions", f"{count:,}", "the judge gave no verdict"
    if pivots is not None and selection and selection.keep_all_fail:
        counts = selection.counts()
        parts = f"{counts['pivot']:,} pivots, and {counts['all_fail']:,} that all fail"
        yield "turns trained on", f"{len(pivots):,}", parts
    elif pivots is not None:
        share = before_after.percent(len(pivots) / len(profiles)) if profiles else ""
        yield "pivots kept", f"{len(pivots):,}", share
    for name, words in before_after.RATES.items():
        before, after, change = change_of(inputs.evaluation, name)
        if after is None:
            continue
        remark = [] if before is None else [f"from {before_after.percent(before.value)}"]
        remark += [] if change is None else [before_after.change_text(change)]
        yield words, before_after.percent(after.value), "; ".join(remark)
    if inputs.metrics:
        tokens = sum(number(m.get("tokens")) or 0 for m in inputs.metrics)
        yield "train steps", f"{len(inputs.metrics):,}", f"{tokens:,.0f} tokens" if tokens else ""
    seconds = [number(s) or 0 for s in part(inputs.run, "seconds").values()]
    if seconds:
        yield "time", sections.duration(sum(seconds)), f"in {len(seconds)} stage{'s' * (len(seconds) > 1)}"


def _about(inputs: Inputs) -> Iterator[str]:
    """Lines under the title: the method, the model, where the run comes from."""
    run = inputs.run
    if inputs.method:
        yield METHODS.get(inputs.method, inputs.method)
    model = run.get("model")
    model = model if isinstance(model, str) else json.dumps(model, ensure_ascii=False) if model else ""
    yield page.clip(
        " · ".join(filter(None, [model, f"policy {run['policy']}" if run.get("policy") else ""])), 2000
    )
    known = part(run, "provenance")
    found = [known.get("started"), known.get("host"), known.get("commit") and f"commit {known['commit']}"]
    yield page.clip(" · ".join(str(x) for x in found if x), 400)


def title_of(inputs: Inputs, name: str) -> str:
    """What the run is called; `name` if its config has no name."""
    named = inputs.config.get("name")
    return f"{TITLES.get(inputs.method, 'Run')}: {named if isinstance(named, str) and named else name}"


def _pairs(inputs: Inputs) -> list[resampled.Pair]:
    """The profiles of the pivots that the final policy sampled again, before and after training."""
    before = inputs.profiles or [pivot.profile for pivot in inputs.pivots or ()]
    return resampled.pairs_of(before, inputs.resampled or ())


def render(inputs: Inputs, name: str, selection: Selection | None, browser: candidates.Browser | None) -> str:
    """The page as a string; `name` is what the run is called when its config has no name."""
    title = title_of(inputs, name)
    sentence, state = before_after.verdict(inputs.evaluation)
    header = page.render(
        "header",
        title=title,
        about=list(filter(None, _about(inputs))),
        sentence=sentence,
        state=state,
        tiles=list(_tiles(inputs, selection)),
    )
    parts = [header, before_after.section(inputs)]
    if browser:
        parts.append(resampled.section(inputs, browser.pairs, browser.reasons))
    parts += [sections.training(inputs), sections.profiles(inputs)]
    if browser is None:
        parts.append(page.section("All candidates", page.missing("candidates.jsonl")))
    else:
        parts += [browser.totals.section(), candidates.section(browser, inputs.profiles is not None)]
    return page.page(title, page.join([*parts, sections.run(inputs)]))


def write_report(workdir: Path) -> Path:
    """Write `report.html`, and for many candidates `report_data/`, into a run's working directory, and return
    the path of the page. Nothing is replaced before all of it could be made.

    Raises InputError for a missing directory or run.json, and for a file that is not what its stage writes.
    """
    workdir = Path(workdir)
    inputs = read_inputs(workdir)
    selection, browser = sections.selection_of(inputs), None
    records = [pivot.candidate for pivot in inputs.pivots or ()]
    if inputs.candidates is not None:
        records = read_records(workdir / "candidates.jsonl", Candidate)
    if records:
        profiles = {profile.candidate_id: profile for profile in inputs.profiles or ()}
        notation = notation_of(inputs.run, workdir / "rollouts")
        pairs = {before.candidate_id: (before, after) for before, after in _pairs(inputs)}
        table = candidates.Table(records, profiles, selection, notation, pairs)
        browser = candidates.collect(workdir, table)
    html = render(inputs, workdir.resolve().name, selection, browser)
    path = workdir / "report.html"
    temporary = workdir / "report.html.tmp"
    temporary.write_text(html, encoding="utf-8")
    if browser:
        candidates.publish(workdir, browser)
    os.replace(temporary, path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="pivotrl report",
        description="Write report.html about a run, or one page that compares several.",
    )
    parser.add_argument("runs", type=paths.argument, nargs="*", help="directories that runs wrote to")
    parser.add_argument(
        "--workdir", type=paths.argument, help="the directory of one run, the same as naming it"
    )
    parser.add_argument(
        "--out",
        type=paths.argument,
        help="the page that compares several runs (comparison.html)",
    )
    asked = parser.parse_args()
    workdirs = [*([asked.workdir] if asked.workdir else []), *asked.runs]
    if not workdirs:
        raise InputError(
            "no run is named; give the directory that a run wrote to, or several to compare them"
        )
    if len(workdirs) == 1:
        if asked.out:
            raise InputError(
                f"--out={asked.out} names the page of several runs; that of one is {workdirs[0]}/report.html"
            )
        with disk.explained(workdirs[0]):
            print(write_report(workdirs[0]))
    else:
        out = asked.out or Path("comparison.html")
        out.parent.mkdir(parents=True, exist_ok=True)
        with disk.explained(out.parent):
            print(compare.write_comparison(workdirs, out))
