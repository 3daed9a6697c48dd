"""The report: one self-contained HTML page about a run; of more than 300 candidates, with files beside it.

    python -m pivotrl_jax.report --workdir=runs/bfcl

Steps: read what the run left in its working directory, say the verdict in one sentence, plot training,
profiles and evaluation, list the pivots with their sampled actions, write `report.html`. Only `run.json` is
required; a section whose file is missing says so in its place. The report measures nothing itself: outcomes
come from pivots/selection.py, intervals from the evaluation, and a change counts only where the interval of
the difference excludes zero.

`run.json` is one object; these keys are read, each may be absent: `config` (object), `model` (text or
object), `policy` (fingerprint), `versions` (package -> version), `seconds` (stage -> seconds), `counts`
(name -> number) and `table` (rows of cells, first cell the name).
"""

import argparse
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path

from pivotrl_jax.pivots.selection import OUTCOMES, RARE, Selection, select
from pivotrl_jax.records import Candidate, read_records
from pivotrl_jax.report import candidates, page, plots
from pivotrl_jax.report.inputs import Inputs, estimate, number, part, read_inputs
from pivotrl_jax.run import disk, paths

_IN_DOMAIN = {
    "episode_success": "episode success",
    "call_turn_pass": "call-turn pass rate",
    "text_turn_pass": "text-turn pass rate",
}

_OUT_OF_DOMAIN = {"out_of_domain": "out-of-domain accuracy"}
_RATES = _IN_DOMAIN | _OUT_OF_DOMAIN


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def _selection(inputs: Inputs) -> Selection | None:
    """What became of every profiled candidate; None without profiles or the run's lambda_diff."""
    profile = part(part(inputs.run, "config"), "profile")
    lambda_diff = number(profile.get("lambda_diff"))
    if not inputs.profiles or lambda_diff is None:
        return None
    return select(inputs.profiles, lambda_diff, _group_size(inputs), profile.get("keep_all_fail") is True)


def _group_size(inputs: Inputs) -> int:
    """Rollouts of a full profile."""
    drawn = max(len(p.rewards) + p.abstained for p in inputs.profiles)
    size = number(part(part(inputs.run, "config"), "profile").get("group_size"))
    return max(drawn, round(size or 0))


def _points(change: float) -> str:
    return f"{100 * change:+.1f}".replace("-", "−")


def verdict(evaluation: dict | None) -> tuple[str, str]:
    """One sentence about what training changed, and "good", "bad" or "open".

    A change counts where the interval of the difference excludes zero; a harmful one makes the verdict "bad".
    """
    if evaluation is None:
        return "There is no evaluation in this directory, so this run has no verdict yet.", "open"
    raised, lowered, unclear = [], [], []
    improved = False
    for name, words in _RATES.items():
        change = estimate(part(evaluation, "difference"), name)
        if change is None:
            continue
        value, low, high = change
        group = raised if low > 0 else lowered if high < 0 else unclear
        by = f"by {abs(100 * value):.1f} points " if group is not unclear else ""
        group.append(f"{words} {by}({_points(low)} to {_points(high)})")
        improved = improved or (group is raised and name in _IN_DOMAIN)
    parts = [
        start + ", ".join(group[:-1]) + (" and " if len(group) > 1 else "") + group[-1]
        for start, group in (("raised ", raised), ("lowered ", lowered), ("did not clearly change ", unclear))
        if group
    ]
    if not parts:
        return "The evaluation holds no before-and-after difference, so this run has no verdict.", "open"
    state = "bad" if lowered else "good" if improved else "open"
    return f"Training {'; it '.join(parts)}.", state


def _tiles(inputs: Inputs) -> Iterator[tuple[str, str, str]]:
    """(label, value, remark) of each key number."""
    profiles, pivots = inputs.profiles, inputs.pivots
    if inputs.candidates is not None:
        profiled = "" if profiles is None else f"{len(profiles):,} profiled"
        yield "candidates", f"{inputs.candidates:,}", profiled
    if selection := _selection(inputs):
        share = number(selection.uninformative())
        shown = "–" if share is None else _percent(share)
        expected = ", as expected of full groups" if selection.chances else ""
        yield "uninformative turns", shown, "all rewards of the group equal" + expected
    if count := sum(p.abstained for p in profiles or []):
        yield "undecided actions", f"{count:,}", "the judge gave no verdict"
    if pivots is not None and selection and selection.keep_all_fail:
        counts = selection.counts()
        parts = f"{counts['pivot']:,} pivots, and {counts['all_fail']:,} that all fail"
        yield "turns trained on", f"{len(pivots):,}", parts
    elif pivots is not None:
        yield "pivots kept", f"{len(pivots):,}", _percent(len(pivots) / len(profiles)) if profiles else ""
    for name, words in _RATES.items():
        before = estimate(part(inputs.evaluation, "before"), name)
        after = estimate(part(inputs.evaluation, "after"), name)
        change = estimate(part(inputs.evaluation, "difference"), name)
        if after is None:
            continue
        remark = "" if before is None else f"from {_percent(before[0])}"
        if change is not None:
            remark += "; {} ({}\u00a0to\u00a0{})".format(*map(_points, change))
        yield words, _percent(after[0]), remark.removeprefix("; ")
    if inputs.metrics:
        tokens = sum(number(m.get("tokens")) or 0 for m in inputs.metrics)
        yield "train steps", f"{len(inputs.metrics):,}", f"{tokens:,.0f} tokens" if tokens else ""
    seconds = [number(s) or 0 for s in part(inputs.run, "seconds").values()]
    if seconds:
        yield "time", _duration(sum(seconds)), f"in {len(seconds)} stages"


def _missing(file: str) -> str:
    return f'<p class="lead">Left out: there is no {file} in this directory.</p>'


def _training(inputs: Inputs) -> str:
    if not inputs.metrics:
        return page.section("Training", _missing("metrics.jsonl"))
    wanted = {
        "reward_mean": "Mean reward of the batch",
        "group_reward_std": "Standard deviation of rewards within a group, mean over groups",
        **{f"validation/{name}": f"Validation: {words}" for name, words in _IN_DOMAIN.items()},
        "loss": "Loss, with all its terms",
        "kl": "KL to the reference policy",
        "kl_per_turn": "KL to the reference policy, nats per turn",
        "rollouts_per_mixed_group": "Rollouts per mixed group",
        "grad_norm": "Gradient norm",
        "clip_fraction": "Share of clipped tokens",
    }
    profiled = [m["step"] for m in inputs.metrics if m.get("reprofiled")]
    drawn = []
    for name, title in wanted.items():
        points = [(m["step"], number(m[name])) for m in inputs.metrics if name in m]
        if points:
            steps, values = zip(*points)
            values = [math.nan if v is None else v for v in values]
            tall = name.startswith(("reward", "group_reward", "validation"))
            drawn.append(page.figure(title, plots.curve(steps, values, title, tall, profiled)))
    body = f'<div class="plots">{"".join(drawn)}</div>'
    lead = "Thin: every training step. Thick: a moving mean over a tenth of the run."
    dashed = " Dashed: the policy was profiled again, and training went on with the pivots found there."
    return page.section("Training", body, lead + (dashed if profiled else ""))


def _profiles(inputs: Inputs) -> str:
    profiles, title = inputs.profiles, "Profiles and pivots"
    if not profiles:
        return page.section(title, _missing("profiles.jsonl"))
    selection = _selection(inputs)
    lambda_diff = selection.lambda_diff if selection else None
    group = _group_size(inputs)
    decided = [p for p in profiles if p.rewards]
    means = {kind: [p.mean for p in decided if p.is_call is kind] for kind in (True, False)}
    figures = page.figure(
        "Profile means", plots.mean_histogram(means[True], means[False], group, lambda_diff)
    )
    lead = f"G = {group} actions sampled per candidate; a pivot has mixed rewards"
    lead += "." if lambda_diff is None else f" and a mean below λ_diff = {lambda_diff:g}."
    if selection and selection.keep_all_fail:
        lead += " Candidates whose rewards are all 0 are trained on, too."
    if selection is None:
        rest = '<p class="lead">Left out: run.json does not say which lambda_diff selected the pivots.</p>'
        return page.section(title, f'<div class="plots">{figures}</div>{rest}', lead)
    calls, texts = (selection.expected_counts(is_call) for is_call in (True, False))
    rows = [(name, calls[key], texts[key]) for key, name in OUTCOMES.items()]
    rows = [row for row in rows if row[0] not in RARE or any(row[1:])]
    label = "What became of the candidates"
    figures += page.figure(label, plots.stacked_bars(rows, label))
    if again := part(inputs.run, "rescored"):
        lead += f" The rollouts were scored again: {again.get('pivots gained')} pivots were gained and "
        lead += f"{again.get('pivots lost')} lost, as rescored.txt says."
    if screened := calls["screened"] + texts["screened"]:
        lead += f" {screened:g} candidates were screened, so that nothing was sampled there: plainly easy by "
        lead += "the log-prob of the demonstration, or turns that only talk."
    if selection.chances:
        lead += f" Adaptive profiling: {page.text(selection.expectation())}. The means of those groups are "
        lead += "of the actions that were sampled, and lie further apart than those of full groups."
    return page.section(title, f'<div class="plots">{figures}</div>', lead)


def _evaluation(inputs: Inputs) -> str:
    if inputs.evaluation is None:
        return page.section("Before and after", _missing("evaluation.json"))
    sides = [part(inputs.evaluation, side) for side in ("before", "after")]
    families = [part(side, "families") for side in sides]
    names = list(dict.fromkeys([*families[0], *families[1]]))

    def rows(values, keys):
        found = [(page.visible(w), estimate(values[0], k), estimate(values[1], k)) for k, w in keys.items()]
        return [row for row in found if row[1] or row[2]]

    inside = rows(sides, _IN_DOMAIN)
    outside = rows(sides, {"out_of_domain": "all families"}) + rows(families, {n: n for n in names})
    figures = "".join(
        page.figure(title, plots.before_after(shown, title))
        for title, shown in (("In-domain", inside), ("Out-of-domain, by family", outside))
        if shown
    )

    def cell(values, name, scale=100, digits=1):
        measured, n = estimate(values, name), part(values, name).get("n")
        if measured is None:
            return "–"
        value, low, high = (f"{scale * x:.{digits}f}".replace("-", "−") for x in measured)
        return f"{value}\u00a0({low}\u00a0to\u00a0{high})" + ("" if n is None else f", n\u00a0=\u00a0{n}")

    difference = part(inputs.evaluation, "difference")
    lines = [(w, *(cell(s, k) for s in sides), cell(difference, k)) for k, w in _RATES.items()]
    change = part(difference, "families")
    lines += [(name, *(cell(f, name) for f in families), cell(change, name)) for name in names]
    if any(estimate(side, "bits_per_byte") for side in sides):
        bits = (cell(values, "bits_per_byte", 1, 3) for values in (*sides, difference))
        lines.append(("text, bits per byte (lower is better)", *bits))
    numbers = page.table(("rate, %", "before", "after", "difference"), lines)
    return page.section(
        "Before and after",
        f'<div class="plots">{figures}</div>'
        f'<details class="more"><summary>The numbers</summary>{numbers}</details>',
        "The same held-out tasks and the same seeds for both policies, with confidence intervals.",
    )


def _run(inputs: Inputs) -> str:
    """Time, the closing table, versions and the config."""
    run, parts = inputs.run, []
    seconds = {k: number(v) for k, v in part(run, "seconds").items()}
    timed = [(page.visible(stage), s) for stage, s in seconds.items() if s is not None]
    if timed:
        label = "Time by stage"
        parts.append(f'<div class="plots">{page.figure(label, plots.bars(timed, _duration, label))}</div>')
    else:
        parts.append(_missing("list of seconds per stage in run.json"))
    closing = run.get("table") if isinstance(run.get("table"), list) else []
    closing = [row.values() if isinstance(row, dict) else row for row in closing]
    closing = [[row] if isinstance(row, (str, int, float)) else list(row) for row in closing if row]
    for title, rows in (
        ("The run's closing table", closing),
        ("Counts", list(part(run, "counts").items())),
        ("Versions", list(part(run, "versions").items())),
    ):
        if rows:
            parts.append(f'<details class="more"><summary>{title}</summary>{page.table((), rows)}</details>')
    config = page.clip(json.dumps(run.get("config"), indent=2, ensure_ascii=False), 60_000)
    parts.append(f'<details class="more"><summary>Config</summary><pre>{config}</pre></details>')
    return page.section("The run", "".join(parts))


def _pivots(inputs: Inputs) -> str:
    if inputs.pivots is None:
        return page.section("Pivots", _missing("pivots.jsonl"))
    if not inputs.pivots:
        return page.section("Pivots", '<p class="lead">No candidate passed the filter.</p>')
    lead = (
        "The turns that teach: open one for what was asked, what the expert did, and what the policy tried."
    )
    return page.section("Pivots", page.pivot_browser(inputs.pivots, inputs.samples.of), lead)


def _candidates(inputs: Inputs) -> str:
    return candidates.section(inputs.candidates) if _is_large(inputs) else ""


def _is_large(inputs: Inputs) -> bool:
    """Whether there are more candidates than the page shows pivots, so that they get files of their own."""
    return (inputs.candidates or 0) > page.MAX_PIVOTS


def render(inputs: Inputs, name: str) -> str:
    """The page as a string; `name` is what the run is called when its config has no name."""
    run = inputs.run
    named = part(run, "config").get("name")
    title = f"PivotRL: {named if isinstance(named, str) and named else name}"
    model = run.get("model")
    what = [
        model if isinstance(model, str) else json.dumps(model, ensure_ascii=False) if model else "",
        f"policy {run['policy']}" if run.get("policy") else "",
    ]
    sentence, state = verdict(inputs.evaluation)
    tiles = "".join(
        f'<div class="tile"><span>{page.text(label)}</span><b>{page.text(value)}</b>'
        f"<span>{page.text(remark)}</span></div>"
        for label, value, remark in _tiles(inputs)
    )
    header = (
        f"<header><h1>{page.text(title)}</h1>"
        f'<p class="what">{page.clip(" · ".join(filter(None, what)), 2000)}</p>'
        f'<p class="verdict {state}">{page.text(sentence)}</p></header><div class="tiles">{tiles}</div>'
    )
    sections = (_evaluation, _training, _profiles, _pivots, _candidates, _run)
    return page.page(title, header + "".join(make(inputs) for make in sections))


def write_report(workdir: Path) -> Path:
    """Write `report.html`, and for many candidates `report_data/`, into a run's working directory, each whole
    or not at all, and return the path of the page.

    Raises InputError for a missing directory or run.json, and for a file that is not what its stage writes.
    """
    workdir = Path(workdir)
    inputs = read_inputs(workdir)
    html = render(inputs, workdir.resolve().name)
    if _is_large(inputs):
        profiles = {profile.candidate_id: profile for profile in inputs.profiles or ()}
        records = read_records(workdir / "candidates.jsonl", Candidate)
        candidates.write(workdir, candidates.Table(records, profiles, _selection(inputs)))
    path = workdir / "report.html"
    temporary = workdir / "report.html.tmp"
    temporary.write_text(html, encoding="utf-8")
    os.replace(temporary, path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pivotrl_jax.report", description="Write report.html about a run."
    )
    parser.add_argument(
        "--workdir", type=paths.argument, required=True, help="the directory the run wrote to"
    )
    workdir = parser.parse_args().workdir
    with disk.explained(workdir):
        print(write_report(workdir))
