"""What training changed: the verdict in a sentence, the rates before and after, and their numbers."""

from collections.abc import Sequence

from markupsafe import Markup

from pivotrl_jax.report import page, plots
from pivotrl_jax.report.inputs import Estimate, Inputs, change_of, part

IN_DOMAIN = {
    "episode_success": "episode success",
    "call_turn_pass": "call-turn pass rate",
    "text_turn_pass": "text-turn pass rate",
}
OUT_OF_DOMAIN = {"out_of_domain": "out-of-domain accuracy"}
RATES = IN_DOMAIN | OUT_OF_DOMAIN
BITS = "bits_per_byte"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _points(change: float) -> str:
    return f"{100 * change:+.1f}".replace("-", "−")


def change_text(change: Estimate) -> str:
    """'+18.0 (+11.0 to +25.0)' in points; of few or equal values without an interval."""
    if why := change.why_no_interval:
        return f"{_points(change.value)} ({why})"
    return "{} ({}\u00a0to\u00a0{})".format(*map(_points, change[:3]))


def verdict(evaluation: dict | None) -> tuple[str, str]:
    """One sentence about what training changed, and "good", "bad" or "open".

    A change counts where the interval of the difference has a width and excludes zero, and of few clusters
    never; a harmful one makes the verdict "bad".
    """
    if evaluation is None:
        return "There is no evaluation in this directory, so this run has no verdict yet.", "open"
    raised, lowered, unclear, few, alike = [], [], [], [], []
    improved = False
    for name, words in RATES.items():
        change = change_of(evaluation, name)[2]
        if change is None:
            continue
        if change.too_few:
            few.append(f"{words} ({change.size})")
            continue
        value, low, high = change[:3]
        if low == high:
            alike.append(f"{words} ({_points(value)})")
            continue
        group = raised if low > 0 else lowered if high < 0 else unclear
        by = f"by {abs(100 * value):.1f} points " if group is not unclear else ""
        group.append(f"{words} {by}({_points(low)} to {_points(high)})")
        improved = improved or (group is raised and name in IN_DOMAIN)
    parts = [
        start + _listed(group)
        for start, group in (("raised ", raised), ("lowered ", lowered), ("did not clearly change ", unclear))
        if group
    ]
    end = f" Too few were measured to say anything about {_listed(few)}." if few else ""
    end += f" All changes are alike, which gives no interval, in {_listed(alike)}." if alike else ""
    if not parts:
        return (
            end.strip() or "The evaluation holds no before-and-after difference, so this run has no verdict."
        ), "open"
    state = "bad" if lowered else "good" if improved else "open"
    return f"Training {'; it '.join(parts)}.{end}", state


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + (" and " if len(words) > 1 else "") + words[-1]


def cell(measured: Estimate | None, scale: float = 100, digits: int = 1) -> str:
    """'64.0 (58.2 to 69.1), n = 240'; of few or equal values without an interval."""
    if measured is None:
        return "–"
    value, low, high = (f"{scale * x:.{digits}f}".replace("-", "−") for x in measured[:3])
    count = "" if measured.n is None else f", n\u00a0=\u00a0{measured.n}"
    if why := measured.why_no_interval:
        return f"{value}, {why}" + count * (not measured.too_few)
    return f"{value}\u00a0({low}\u00a0to\u00a0{high}){count}"


def families(evaluation: dict | None) -> list[str]:
    """The out-of-domain families that were measured."""
    sides = [part(part(evaluation, side), "families") for side in ("before", "after")]
    return list(dict.fromkeys([*sides[0], *sides[1]]))


def section(inputs: Inputs) -> Markup:
    evaluation = inputs.evaluation
    if evaluation is None:
        return page.section("Before and after", page.missing("evaluation.json"))
    names = families(evaluation)
    measures = {name: change_of(evaluation, name) for name in RATES}
    of_family = {name: change_of(evaluation, name, "families") for name in names}
    inside = [(IN_DOMAIN[name], *measures[name][:2]) for name in IN_DOMAIN]
    outside = [("all families", *measures["out_of_domain"][:2])]
    outside += [(page.visible(name), *found[:2]) for name, found in of_family.items()]
    drawn = []
    for title, rows in (("In-domain", inside), ("Out-of-domain, by family", outside)):
        if shown := [row for row in rows if row[1] or row[2]]:
            drawn.append(page.figure(title, plots.before_after(shown, title)))
    lines = [(words, *map(cell, measures[name])) for name, words in RATES.items()]
    lines += [(name, *map(cell, found)) for name, found in of_family.items()]
    bits = change_of(evaluation, BITS)
    if any(bits[:2]):
        lines.append(("text, bits per byte (lower is better)", *(cell(b, 1, 3) for b in bits)))
    numbers = page.table(("rate, %", "before", "after", "difference"), lines, wide=True)
    return page.section(
        "Before and after",
        page.join([page.figures(drawn), page.more("The numbers", numbers)]),
        "The same held-out tasks and the same seeds for both policies, with 95 % confidence intervals.",
    )
