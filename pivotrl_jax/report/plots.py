"""The report's plots: matplotlib figures turned into inline SVG whose colours follow the page.

Every figure is drawn once, in stand-in colours; `_svg` swaps those for the page's CSS variables, so one
picture is legible on light and dark ground. Text stays text and takes the page's font. Words from data
are drawn without mathtext and escaped by matplotlib's SVG writer. Curves carry their numbers in an attribute,
so that the page's script can show the value under the pointer; without it they are pictures all the same.
"""

import html
import io
import json
import math
import re
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from pivotrl_jax.report.inputs import Estimate

# Stand-in colour -> CSS variable of the page. Figures use no other colours.
_COLOURS = {
    "#010203": "--ink",
    "#010204": "--muted",
    "#010205": "--line",
    "#010206": "--call",
    "#010207": "--text",
    "#010208": "--before",
    "#010209": "--after",
    "#01020a": "--mark",
}

INK, MUTED, LINE, CALL, TEXT, BEFORE, AFTER, MARK = _COLOURS
_WIDTH = 4.4  # inches; about what a phone shows, so that labels are not scaled down there


Line = tuple[str, Sequence[float], Sequence[float]]  # a short name in the program's own words, steps, values


def _svg(draw: Callable[[Axes], None], height: float, label: str, lines: Sequence[Line] = ()) -> str:
    """Draw on one axes and return an `<svg>` element without size, metadata or unused ids. `lines` are the
    curves whose values the page's script may show."""
    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": label,  # ids differ between figures of one page, and are the same on every run
        "text.parse_math": False,
        "font.size": 9,
        "text.color": INK,
        "axes.edgecolor": LINE,
        "axes.labelcolor": MUTED,
        "xtick.color": LINE,
        "ytick.color": LINE,
        "xtick.labelcolor": MUTED,
        "ytick.labelcolor": MUTED,
        "grid.color": LINE,
        "grid.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.axisbelow": True,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        figure.patch.set_visible(False)
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        draw(axes)
        out = io.StringIO()
        figure.savefig(
            out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    view_box = re.search(r'viewBox="([-\d. ]+)"', svg).group(1)
    data = f' data-curve="{_numbers(axes, lines)}"' if lines else ""
    svg = f'<svg viewBox="{view_box}" role="img" aria-label="{label}"{data}>' + svg[svg.index(">") + 1 :]
    used = set(re.findall(r"#(\w+)", svg))
    svg = re.sub(r' id="([\w.]+)"', lambda m: m.group() if m.group(1) in used else "", svg)
    svg = re.sub(r'style="font: (?:[\w ]+ )?([\d.]+)px [^;"]*', r'style="font-size: \1px', svg)
    svg = re.sub(r"font-family: [^;\"]*; ?", "", svg)  # how newer versions of matplotlib write it
    for colour, variable in _COLOURS.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg


def _numbers(axes: Axes, lines: Sequence[Line]) -> str:
    """Where the axes are in the picture, what they span, and the lines, as JSON for an attribute."""
    width, height = 72 * axes.figure.get_size_inches()
    place = axes.get_position()
    left, right = place.x0 * width, place.x1 * width
    bottom, top = height - place.y0 * height, height - place.y1 * height  # y points down in SVG

    def short(values: Sequence[float]) -> list[float | None]:
        return [float(f"{x:.4g}") if math.isfinite(x) else None for x in map(float, values)]

    page = {
        "box": [round(x, 2) for x in (left, right, bottom, top)],
        "x": list(map(float, axes.get_xlim())),
        "y": list(map(float, axes.get_ylim())),
        "lines": [[name, list(map(float, steps)), short(values)] for name, steps, values in lines],
    }
    return html.escape(json.dumps(page, separators=(",", ":")))


MAX_POINTS = 300  # of a curve; longer runs are drawn as means of neighbouring steps


def smooth(value_S: Sequence[float], window: int) -> np.ndarray:
    """Centred moving mean over `window` steps, shorter at the ends; it ignores values that are not finite."""
    value_S = np.asarray(value_S, float)
    half = window // 2
    means = []
    for i in range(len(value_S)):
        near = value_S[max(0, i - half) : i + half + 1]
        near = near[np.isfinite(near)]
        means.append(near.mean() if len(near) else math.nan)
    return np.array(means)


def _thinned(step_S: Sequence[float], value_S: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    value_S = np.where(np.isfinite(np.asarray(value_S, float)), value_S, math.nan)
    thin = -(-len(value_S) // MAX_POINTS)
    return np.asarray(step_S)[::thin], smooth(value_S, thin)[::thin]


def _steps(axes: Axes) -> None:
    axes.set_xlabel("train step")
    axes.grid(axis="y")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.margins(x=0.02)


def curve(
    step_S: Sequence[float], value_S: Sequence[float], label: str, tall: bool, marks: Sequence[float] = ()
) -> str:
    """One metric over steps: raw values thin, with a moving mean over a tenth of the run on top. `marks` are
    steps that get a dashed line."""
    step_S, value_S = _thinned(step_S, value_S)
    window = max(1, len(value_S) // 10)

    def draw(axes: Axes) -> None:
        if window > 1:
            axes.plot(step_S, value_S, color=CALL, alpha=0.35, linewidth=1)
            axes.plot(step_S, smooth(value_S, window), color=CALL, linewidth=2)
        else:
            few = len(value_S) < 12
            axes.plot(step_S, value_S, color=CALL, linewidth=2, marker="o" if few else None, markersize=4)
        for mark in marks:
            axes.axvline(mark, color=MARK, linewidth=1.5, linestyle=(0, (4, 3)))
        _steps(axes)
        if not np.isfinite(value_S).any():
            axes.text(0.5, 0.5, "no finite value", transform=axes.transAxes, ha="center", color=MUTED)

    return _svg(draw, 2.2 if tall else 1.6, label, [("", step_S, value_S)])


OVERLAID = [
    (colour, dashes) for dashes in ("-", (0, (4, 2))) for colour in (CALL, TEXT, AFTER, MARK)
]  # how the lines of several runs are drawn


def overlay(lines: Sequence[Line | None], label: str) -> str:
    """One metric of several runs, each a moving mean over a tenth of its steps, in the styles of OVERLAID.
    None is a run without it, which keeps its style."""
    drawn = [(*style, line[0], *_thinned(*line[1:])) for style, line in zip(OVERLAID, lines) if line]

    def draw(axes: Axes) -> None:
        for colour, dashes, name, steps, values in drawn:
            means = smooth(values, max(1, len(values) // 10))
            look = {"color": colour, "linestyle": dashes, "linewidth": 1.8, "markersize": 4}
            axes.plot(steps, means, marker="o" if len(values) < 12 else None, label=name, **look)
        _steps(axes)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=8, borderaxespad=0.1, handlelength=1.6)

    return _svg(draw, 2.2, label, [line for _, _, *line in drawn])


def mean_histogram(
    call_means: Sequence[float], text_means: Sequence[float], group: int, lambda_diff: float | None
) -> str:
    """Profile means of call and text turns, stacked; one bar per possible mean of `group` 0/1 rewards."""
    means = [m for m in (*call_means, *text_means) if math.isfinite(m)]
    low, high = min([0.0, *means]), max([1.0, *means])
    bins = group if 1 < group <= 20 else 20
    half = (high - low) / bins / 2
    edges = np.linspace(low - half, high + half, bins + 2)

    def draw(axes: Axes) -> None:
        count_B = np.zeros(bins + 1)
        for values, colour, name in ((call_means, CALL, "call turns"), (text_means, TEXT, "text turns")):
            heights, _ = np.histogram([v for v in values if math.isfinite(v)], edges)
            centres = (edges[:-1] + edges[1:]) / 2
            axes.bar(centres, heights, 1.6 * half, bottom=count_B, color=colour, label=name)
            count_B = count_B + heights
        if lambda_diff is not None:
            axes.axvline(
                lambda_diff,
                color=MARK,
                linewidth=1.5,
                linestyle=(0, (4, 3)),
                label=f"λ_diff = {lambda_diff:g}",
            )
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.1, handlelength=1.4)
        axes.set_xlabel("mean reward of the candidate's group")
        axes.set_ylabel("candidates")
        axes.grid(axis="y")
        axes.yaxis.get_major_locator().set_params(integer=True)

    return _svg(draw, 2.6, "Histogram of profile means, call turns and text turns")


def _rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [n if len(n) <= 28 else n[:27] + "…" for n in names], color=INK)
    axes.invert_yaxis()
    axes.grid(axis="x")
    axes.tick_params(axis="y", pad=3)
    axes.spines["bottom"].set_visible(False)


def stacked_bars(rows: Sequence[tuple[str, float, float]], label: str) -> str:
    """Horizontal bars of (name, call turns, text turns), the total written at the end of each."""

    def draw(axes: Axes) -> None:
        total = max(1, sum(c + t for _, c, t in rows))
        place = range(len(rows))
        calls = [c for _, c, _ in rows]
        axes.barh(place, calls, 0.62, color=CALL, label="call turns")
        axes.barh(place, [t for _, _, t in rows], 0.62, left=calls, color=TEXT, label="text turns")
        for i, (_, c, t) in enumerate(rows):
            axes.annotate(
                f"{round(c + t, 1):,} ({(c + t) / total:.0%})",
                (c + t, i),
                (4, 0),
                textcoords="offset points",
                va="center",
            )
        _rows(axes, [name for name, _, _ in rows])
        axes.set_xlim(0, 1.32 * max(1, *(c + t for _, c, t in rows)))
        axes.xaxis.get_major_locator().set_params(integer=True, nbins=5)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.1, handlelength=1.4)

    return _svg(draw, 0.9 + 0.34 * len(rows), label)


def bars(rows: Sequence[tuple[str, float]], written: Callable[[float], str], label: str) -> str:
    """Horizontal bars of (name, value), each value written beside its bar."""

    def draw(axes: Axes) -> None:
        axes.barh(range(len(rows)), [v for _, v in rows], 0.62, color=CALL)
        for i, (_, value) in enumerate(rows):
            axes.annotate(written(value), (value, i), (4, 0), textcoords="offset points", va="center")
        _rows(axes, [name for name, _ in rows])
        axes.set_xlim(0, 1.3 * max([v for _, v in rows] + [1e-9]))
        axes.set_xticks([])

    return _svg(draw, 0.35 + 0.34 * len(rows), label)


def before_after(rows: Sequence[tuple[str, Estimate | None, Estimate | None]], label: str) -> str:
    """Paired horizontal bars of rates in [0, 1] with their confidence intervals; None leaves a bar out."""

    def draw(axes: Axes) -> None:
        for column, colour, name, shift in ((1, BEFORE, "before", -0.19), (2, AFTER, "after", 0.19)):
            shown = [(i + shift, row[column]) for i, row in enumerate(rows) if row[column] is not None]
            if not shown:
                continue
            place = [p for p, _ in shown]
            # of too few values there is a bar and no interval
            spans = [(e.value, e.value, e.value) if e.too_few else e[:3] for _, e in shown]
            value, low, high = np.array(spans, float).T
            # An interval that misses its own value (rounding, another estimator) is drawn as far as it goes.
            reach = np.maximum(0, [value - low, high - value])
            axes.barh(place, value, 0.36, color=colour, label=name)
            axes.errorbar(value, place, xerr=reach, fmt="none", color=INK, elinewidth=1.1, capsize=2.5)
            for p, v, h in zip(place, value, np.maximum(value, high)):
                axes.annotate(
                    f"{100 * v:.0f}", (h, p), (5, 0), textcoords="offset points", va="center", fontsize=8.5
                )
        _rows(axes, [name for name, _, _ in rows])
        axes.set_xlim(0, 1.12)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.1, handlelength=1.4)

    return _svg(draw, 0.75 + 0.5 * len(rows), label)
