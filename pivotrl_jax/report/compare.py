"""Several runs on one page: what they are, what each changed, where their configs differ, their curves."""

import os
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pivotrl_jax.checkpoints.identity import flatten
from pivotrl_jax.records import InputError
from pivotrl_jax.report import before_after, page, plots, sections
from pivotrl_jax.report.inputs import Inputs, change_of, number, part, read_inputs

_PLACES = ("workdir", "name")  # fields of the config that differ without meaning anything
_ROWS = 60  # of differing fields


def write_comparison(workdirs: Sequence[Path], out: Path) -> Path:
    """Write the page that compares these runs and return its path. Raises InputError for a directory that is
    no run's, for too many of them, and where `out` is a file that this program did not write."""
    if len(workdirs) > len(plots.OVERLAID):
        raise InputError(
            f"{len(workdirs)} runs on one page are too many to tell apart; name at most {len(plots.OVERLAID)}"
        )
    runs = [read_inputs(workdir) for workdir in workdirs]
    if out.exists() and f'content="{page.GENERATOR}"' not in _head(out):
        raise InputError(f"{out}: is there, and no report; name another file with --out")
    html = render(runs, [str(workdir) for workdir in workdirs])
    temporary = out.with_name(out.name + ".tmp")
    temporary.write_text(html, encoding="utf-8")
    os.replace(temporary, out)
    return out


def _head(path: Path) -> str:
    if path.is_dir():
        return ""
    with path.open("rb") as f:
        return f.read(2000).decode("utf-8", "replace")


def render(runs: Sequence[Inputs], places: Sequence[str]) -> str:
    """The page as a string; `places` are the directories."""
    letters = string.ascii_uppercase[: len(runs)]
    title = f"{len(runs)} runs compared"
    header = page.render("header", title=title, about=(), sentence="", state="", tiles=())
    parts = [header, _runs(runs, letters, places), _measures(runs, letters), _curves(runs, letters)]
    return page.page(title, page.join([*parts, _differences(runs, letters)]))


def _runs(runs: Sequence[Inputs], letters: str, places: Sequence[str]) -> Markup:
    """A row per fact, a column per run."""
    facts = [_facts(run, place) for run, place in zip(runs, places)]
    rows = [(name, *("–" if known[name] is None else known[name] for known in facts)) for name in facts[0]]
    return page.section("The runs", page.table(("", *letters), rows, wide=True))


def _facts(run: Inputs, place: str) -> dict[str, Any]:
    seconds = sum(number(s) or 0 for s in part(run.run, "seconds").values())
    known, model = part(run.run, "provenance"), run.run.get("model")
    return {
        "run": place,
        "method": run.method or None,
        "model": page.clip(model, 200) if isinstance(model, str) else None,
        "candidates": run.candidates,
        "pivots": None if run.pivots is None else len(run.pivots),
        "train steps": None if run.metrics is None else len(run.metrics),
        "time": sections.duration(seconds) if seconds else None,
        "started": known.get("started"),
        "commit": known.get("commit"),
        "host": known.get("host"),
    }


def _measures(runs: Sequence[Inputs], letters: str) -> Markup:
    """A row per measure, a column per run."""
    names = [(name, "", words) for name, words in before_after.RATES.items()]
    every = dict.fromkeys(name for run in runs for name in before_after.families(run.evaluation))
    names += [(name, "families", name) for name in every]
    names.append((before_after.BITS, "", "bits per byte (lower is better)"))
    rows = []
    for name, group, words in names:
        found = [change_of(run.evaluation, name, group) for run in runs]
        if any(after for _, after, _ in found):
            scale = (1, 3) if name == before_after.BITS and not group else (100, 1)
            rows.append((words, *(_cell(*measured, *scale) for measured in found)))
    if not rows:
        return page.section("Before and after", page.lead("None of these runs was evaluated."))
    return page.section(
        "Before and after",
        page.table(("rate, %", *letters), rows, wide=True),
        "After training, the change with its 95 % interval, paired by task, and what it was before. Runs can "
        "be compared where they were evaluated on the same held-out tasks: equal models then have equal "
        "values before.",
    )


def _cell(before: Any, after: Any, change: Any, scale: float, digits: int) -> str:
    if after is None:
        return "–"
    if change is None:
        return before_after.cell(after, scale, digits)
    value, start = (f"{scale * e.value:.{digits}f}" if e else "–" for e in (after, before))
    by = f"{scale * change.value:+.{digits}f}"
    if not (ends := change.why_no_interval):
        ends = f"{scale * change.low:+.{digits}f} to {scale * change.high:+.{digits}f}"
    return f"{value}, {by} ({ends}) from {start}".replace("-", "−")


def _curves(runs: Sequence[Inputs], letters: str) -> Markup:
    drawn = []
    for name, title in sections.CURVES.items():
        found = [sections.points(run.metrics, name) for run in runs]
        if any(found):
            lines = [(letter, *f) if f else None for letter, f in zip(letters, found)]
            drawn.append(page.figure(title, plots.overlay(lines, title)))
    if not drawn:
        return page.section("Training", page.lead("None of these runs was trained."))
    words = "Moving means over a tenth of each run; under the pointer, the values themselves."
    return page.section("Training", page.figures(drawn), words)


def _differences(runs: Sequence[Inputs], letters: str) -> Markup:
    """The fields of the config in which the runs differ."""
    flat = [flatten(run.config) for run in runs]
    names = dict.fromkeys(name for config in flat for name in config)
    rows = []
    for name in names:
        values = [page.clip(config.get(name, "–"), 120) for config in flat]
        if len(set(values)) > 1 and name not in _PLACES:
            rows.append((name, *values))
    if not rows:
        return page.section("Config", page.lead("The configs of these runs do not differ."))
    rest = [page.lead(f"{len(rows) - _ROWS} more fields differ.")] * (len(rows) > _ROWS)
    table = page.table(("field", *letters), rows[:_ROWS], wide=True)
    return page.section("Config", page.join([table, *rest]), "The fields in which the runs differ.")
