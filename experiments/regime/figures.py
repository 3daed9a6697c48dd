"""The figures of README.md: phase diagrams with the measured points, and the front of success against KL.

The model of pivots against random turns (regime M3): Adam cancels the size of a gradient, so what a filter
changes is signal to noise, which grows with the root of the share of groups that are mixed. Random turns win
A(s) = A_0 + (A_1 - A_0)(1 - exp(-s / tau)) in s steps, and pivots win A of the sum over their steps of
sqrt(m_p / m_r), where log m, the log of the share of mixed groups, falls linearly with steps and, on pivots,
with visits. That needs pools of two sizes; with one, visits and steps are the same.
"""

import math
from pathlib import Path

import matplotlib
import numpy as np
import pooled
from predictions import SFT

matplotlib.use("Agg")
from matplotlib import pyplot as plt

matplotlib.rcParams["svg.hashsalt"] = "regime"  # so that the same numbers give the same file
HERE = Path(__file__).resolve().parent
POOLS = {
    832: ("pivotrl", "random_turns"),
    256: ("pivotrl_256", "random_256"),
    64: ("pivotrl_64", "random_64"),
}
COLOURS = {
    "pivotrl": "#2b6cb0",
    "random_turns": "#7a9cc6",
    "exact": "#9f7aea",
    "online": "#2f855a",
    "guided": "#68d391",
    SFT: "#e0a458",
    "sft_4_3e-4": "#c05621",
    "e2e_rl": "#4a5568",
}


CAPTIONS = {
    "filter.svg": "What the filter gains, by visits per pivot and steps. The shades are a model: a filter "
    "changes signal to noise, by the root of the share of mixed groups; that share falls with steps and "
    "visits, as measured, and random turns learn as measured (`figures.py`).",
    "methods.svg": "PivotRL less SFT, by how far the expert is from pi_0 and how much of it there is.",
    "fronts.svg": "What a distance from pi_0, and a rollout, buys: T1 at steps 10 and 40, and SFT's end.",
}


def gains() -> list[dict]:
    """Measured points: visits per pivot, step, and episodes of pivots less those of random turns."""
    points = []
    for arms in POOLS.values():
        which = pooled.seeds("T1", *arms)
        for step in pooled.steps("T1", arms[0], which[0]) if which else []:
            found = pooled.difference(("T1", arms[0], step), ("T1", arms[1], step), "episodes")
            visits = float(np.mean([pooled.visits("T1", arms[0], step, seed) for seed in which]))
            points.append({"visits": visits, "step": step, **found})
    return points


def mixed_shares() -> tuple[np.ndarray, np.ndarray] | None:
    """Least squares for log m: of pivots (constant, per step, per visit), of random turns (constant, per
    step). None with fewer than two pools."""
    pivots, random = [], []
    if sum(bool(pooled.seeds("T1", *arms)) for arms in POOLS.values()) < 2:
        return None
    for one, other in POOLS.values():
        for seed in pooled.seeds("T1", one, other):
            visits = pooled.visits("T1", one, 1, seed)
            for arm, rows in ((one, pivots), (other, random)):
                for s, m in enumerate(pooled.curve("T1", arm, "mixed_groups", [seed])[0]):
                    row = (1, s, visits * s) if arm == one else (1, s)
                    rows.append((row, math.log(max(m, 0.03))))  # of 16 groups perhaps none was mixed
    fits = [
        np.linalg.lstsq(*map(np.array, zip(*rows, strict=True)), rcond=None)[0] for rows in (pivots, random)
    ]
    return fits[0], fits[1]


def learning_curve() -> tuple[float, float, float] | None:
    """(A_0, A_1, tau) of random turns on 832 demonstrations, through what was measured at 0, 10 and 40."""
    which = pooled.seeds("T1", "random_turns")
    if not which:
        return None
    at = {
        step: float(np.mean(pooled.stacked("T1", "random_turns", step, "episodes", which)[0]))
        for step in ("pi_0", 10, 40)
    }
    first, last = at[10] - at["pi_0"], at[40] - at["pi_0"]
    taus = np.linspace(2, 200, 2000)
    shape = (1 - np.exp(-10 / taus)) / (1 - np.exp(-40 / taus))
    tau = float(taus[np.argmin(np.abs(shape - first / last))])
    return at["pi_0"], at["pi_0"] + last / (1 - math.exp(-40 / tau)), tau


def modelled(visits: float, step: float, shares: tuple, curve: tuple) -> float:
    """The model's gain of pivots over random turns where the pivots were visited so often after so many
    steps. `shares` from mixed_shares, `curve` from learning_curve."""
    (a, b, c), (d, e) = shares
    low, high, tau = curve
    steps = np.linspace(0, step, 200)
    log_ratio = a + (b + c * visits / step) * steps - d - e * steps
    effective = np.trapezoid(np.exp(log_ratio / 2), steps)
    return (high - low) * (math.exp(-step / tau) - math.exp(-effective / tau))


def filter_diagram(out: Path) -> None:
    """Gain of pivots over random turns over visits per pivot and steps."""
    points = gains()
    fig, ax = plt.subplots(figsize=(7, 4.2))
    scale = max(0.08, np.abs([p["value"] for p in points]).max())
    if (curve := learning_curve()) and (shares := mixed_shares()):
        xs, ys = np.geomspace(0.05, 30, 60), np.linspace(2, 45, 44)
        field = np.array([[modelled(x, y, shares, curve) for x in xs] for y in ys])
        ax.contourf(xs, ys, field, np.linspace(-scale, scale, 17), cmap="RdBu", extend="both", alpha=0.6)
    style = {"cmap": "RdBu", "vmin": -scale, "vmax": scale, "edgecolors": "#222", "zorder": 3}
    x, y, gain = ([p[name] for p in points] for name in ("visits", "step", "value"))
    marks = ax.scatter(x, y, 90, gain, **style)
    for p in points:
        text = f"{p['value']:+.3f}\n[{p['low']:+.3f}, {p['high']:+.3f}]"
        offset = (9, -4) if p["visits"] < 5 else (-9, -4)
        side = "left" if p["visits"] < 5 else "right"
        ax.annotate(text, (p["visits"], p["step"]), offset, textcoords="offset points", fontsize=7, ha=side)
    ax.axvspan(0.07, 0.12, color="#222", alpha=0.15)
    ax.text(0.092, 3, "the paper's visits\nper pivot", fontsize=7, ha="center")
    ax.set(xscale="log", xlim=(0.05, 30), ylim=(2, 45), xlabel="visits per pivot", ylabel="steps")
    ax.set_title("Episodes won: pivots less random turns. Points: measured; shades: model", fontsize=9)
    fig.colorbar(marks, ax=ax)
    fig.tight_layout()
    fig.savefig(out, metadata={"Date": None})
    plt.close(fig)


# (test, PivotRL, SFT, demonstrations): the cells of the second diagram
METHODS = (
    ("T1", "pivotrl", SFT, 832),
    ("T1", "pivotrl_256", "sft_256", 256),
    ("T1", "pivotrl_64", "sft_64", 64),
    ("T2", "pivotrl", SFT, 832),
)


def method_points() -> list[dict]:
    """PivotRL less SFT in episodes, with the expert's gap in nats per token and the demonstrations."""
    points = []
    for test, pivotrl, sft, demonstrations in METHODS:
        which = pooled.seeds(test, pivotrl, sft)
        if which:
            found = pooled.difference((test, pivotrl, -1), (test, sft, -1), "episodes")
            gap = float(np.mean([pooled.expert_gap(test, pivotrl, seed) for seed in which]))
            points.append({"test": test, "gap": gap, "demonstrations": demonstrations, **found})
    return points


def method_diagram(out: Path) -> None:
    """PivotRL less SFT over the expert's gap and the number of demonstrations."""
    points = method_points()
    fig, ax = plt.subplots(figsize=(7, 3.4))
    scale = max([0.1] + [abs(p["value"]) for p in points])
    marks = ax.scatter(
        [p["gap"] for p in points],
        [p["demonstrations"] for p in points],
        120,
        [p["value"] for p in points],
        cmap="RdBu",
        vmin=-scale,
        vmax=scale,
        edgecolors="#222",
    )
    for p in points:
        text = f"{p['test']}: {p['value']:+.3f} [{p['low']:+.3f}, {p['high']:+.3f}]"
        ax.annotate(text, (p["gap"], p["demonstrations"]), (9, -3), textcoords="offset points", fontsize=8)
    ax.set_yscale("log")
    ax.set_yticks([64, 256, 832], ["64", "256", "832"])
    ax.set_ylim(45, 1200)
    ax.set_xlim(0, max([0.3] + [1.7 * p["gap"] for p in points]))
    ax.set_xlabel("the expert's gap: nats per token of the demonstrations under pi_0")
    ax.set_ylabel("demonstrations")
    ax.set_title("Episodes won: PivotRL less SFT", fontsize=9)
    fig.colorbar(marks, ax=ax)
    fig.tight_layout()
    fig.savefig(out, metadata={"Date": None})
    plt.close(fig)


def kl_front(out: Path) -> None:
    """Episodes won against KL per turn and against rollouts (profiling counted), of T1's measured steps."""
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    for arm, colour in COLOURS.items():
        which = pooled.seeds("T1", arm)
        if not which:
            continue
        won = [float(np.mean(pooled.stacked("T1", arm, "pi_0", "episodes", which)[0]))]
        kl, spent = [0.0], [0.0]
        for step in pooled.steps("T1", arm, which[0]):
            won.append(float(np.mean(pooled.stacked("T1", arm, step, "episodes", which)[0])))
            kl.append(float(np.mean(pooled.stacked("T1", arm, step, "held_out", which)[0])))
            spent.append(float(np.mean([sum(pooled.rollouts("T1", arm, step, seed)) for seed in which])))
        axes[0].plot(kl, won, "o-", color=colour, markersize=4, linewidth=1.2, label=arm)
        if spent[-1]:
            axes[1].plot(spent[1:], won[1:], "o-", color=colour, markersize=4, linewidth=1.2)
    axes[0].set_xlabel("KL to pi_0, nats per turn")
    axes[1].set_xlabel("rollouts, profiling counted")
    axes[0].set_ylabel("episodes won")
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=7)
    fig.tight_layout()
    fig.savefig(out, metadata={"Date": None})
    plt.close(fig)


def draw(folder: Path = HERE) -> list[str]:
    """Draw what there are points for; the names of the files."""
    drawn = []
    for name, figure, there in (
        ("filter.svg", filter_diagram, gains()),
        ("methods.svg", method_diagram, method_points()),
        ("fronts.svg", kl_front, True),
    ):
        if there:
            figure(folder / name)
            drawn.append(name)
    return drawn
