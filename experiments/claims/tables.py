"""Numbers and figures of finished runs: `python experiments/claims/tables.py [--base=runs/claims] [NAME...]`

Names are folders of experiments/: table_in_domain, table_out_of_domain, ablations, e2e_efficiency,
variance_collapse. Each gets results.json and figure.svg under --out. A comparison uses the seeds that all its
runs have; it is left out if its runs are missing.
"""

import argparse
import json
import subprocess
from pathlib import Path

import efficiency
import matplotlib
import numpy as np
import pooling
import runs

matplotlib.use("Agg")
from matplotlib import pyplot as plt

matplotlib.rcParams["svg.hashsalt"] = "claims"  # so that the same numbers give the same file

EXPERIMENTS = runs.ROOT / "experiments"
DEMONSTRATIONS = {  # kind of demonstrations -> the two runs trained on them
    "16": ("pivotrl_16", "sft_16"),
    "64": ("pivotrl", "sft"),
    "256": ("pivotrl_256", "sft_256"),
    "64, clean": ("pivotrl_clean", "sft_clean"),
    "64, clumsy": ("pivotrl_clumsy", "sft_clumsy"),
}
SWEPT = ("reprofile", "lambda_0.3", "lambda_0.9", "group_4", "group_16")


def bars(ax, names: list[str], entries: list[dict], base: float | None, shift: float = 0.0, **kw) -> None:
    """Draw values with their intervals, and `base` as a dotted line."""
    values = np.array([e["value"] for e in entries])
    spread = np.array([[e["value"] - e["low"] for e in entries], [e["high"] - e["value"] for e in entries]])
    style = {"width": 0.7, "color": "#7a9cc6"} | kw
    ax.bar(np.arange(len(names)) + shift, values, yerr=np.maximum(spread, 0), capsize=3, **style)
    ax.set_xticks(range(len(names)), names, rotation=20, ha="right")
    if base is not None:
        ax.axhline(base, color="#444", linestyle=":", label="pi_0")
    ax.spines[["top", "right"]].set_visible(False)


def save(figure, out: Path, name: str) -> None:
    figure.tight_layout()
    figure.savefig(out / name / "figure.svg", metadata={"Date": None})
    plt.close(figure)


def compared(base: Path, names: list[str], measures: list[str]) -> dict:
    """measure -> {"pi_0", run -> summary, "A - B" -> difference from the first run}."""
    seeds = pooling.common(base, names)
    if not seeds:
        raise SystemExit(
            f"no seed has all of {names}; run experiments/claims/runs.py --runs={','.join(names)}"
        )
    out: dict = {"seeds": seeds}
    for measure in measures:
        before, clusters = pooling.stacked(base, names[0], seeds, "before", measure)
        entry = {"n": len(clusters), "pi_0": pooling.interval(before, clusters)}
        entry |= {name: pooling.summary(base, name, measure, seeds) for name in names}
        for other in names[1:]:
            entry[f"{names[0]} - {other}"] = pooling.versus(base, names[0], other, measure, seeds)
        out[measure] = entry
    return out


def table_in_domain(base: Path, out: Path) -> dict:
    """Base, SFT and PivotRL on held-out episodes and turns, for each kind of demonstrations."""
    found = compared(base, ["pivotrl", "sft"], ["episode_success", "call_turn_pass", "text_turn_pass"])
    sweep = {
        told: compared(base, list(names), ["episode_success", "call_turn_pass", "out_of_domain"])
        for told, names in DEMONSTRATIONS.items()
        if pooling.common(base, list(names))
    }
    found["demonstrations"] = sweep
    figure, ax = plt.subplots(figsize=(7, 3.4))
    for shift, which, colour in ((-0.2, 0, "#7a9cc6"), (0.2, 1, "#d9a066")):
        entries = [sweep[t]["episode_success"][DEMONSTRATIONS[t][which]]["after"] for t in sweep]
        label = ("PivotRL", "SFT")[which]
        base_line = found["episode_success"]["pi_0"]["value"] if which else None
        bars(ax, list(sweep), entries, base_line, shift, width=0.38, color=colour, label=label)
    ax.set_xlabel("demonstrations")
    ax.set_ylabel("episodes won")
    ax.legend()
    save(figure, out, "table_in_domain")
    return found


def table_out_of_domain(base: Path, out: Path) -> dict:
    """The skills of pi_0 that no run trains, overall and by family."""
    seeds = pooling.common(base, ["pivotrl", "sft"])
    families = [m for m in pooling.series(base, "pivotrl", seeds[0], "after") if m.startswith("family:")]
    found = compared(base, ["pivotrl", "sft"], ["out_of_domain", *families])
    others = [n for n in ("e2e_rl", "random_turns", "exact") if pooling.finished(base, n)]
    if others:
        found["others"] = compared(base, ["pivotrl", *others], ["out_of_domain"])
    figure, ax = plt.subplots(figsize=(7, 3.4))
    names = ["all", *(f.removeprefix("family:") for f in families)]
    for shift, name, colour in ((-0.2, "pivotrl", "#7a9cc6"), (0.2, "sft", "#d9a066")):
        entries = [found[f][name]["change"] for f in ("out_of_domain", *families)]
        bars(ax, names, entries, None, shift, width=0.38, color=colour, label=name)
    ax.axhline(0, color="#444", linewidth=0.8)
    ax.set_ylabel("change from pi_0")
    ax.legend()
    save(figure, out, "table_out_of_domain")
    return found


def ablations(base: Path, out: Path) -> dict:
    """Ablations: no filter, exact reward, neither; and lambda_diff and group size, as far as runs exist."""
    names = [n for n in ("pivotrl", "random_turns", "exact", "random_exact") if pooling.finished(base, n)]
    measures = ["episode_success", "call_turn_pass", "out_of_domain"]
    found = compared(base, names, measures)
    found["swept"] = {
        name: compared(base, ["pivotrl", name], measures)
        for name in SWEPT
        if pooling.common(base, ["pivotrl", name])
    }
    for name, one in found["swept"].items():
        counts = [runs.facts(runs.workdir_of(base, name, seed))["counts"] for seed in one["seeds"]]
        one["pivots"] = [c["pivot"] for c in counts]
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True)
    scores = found["episode_success"]
    bars(axes[0], names, [scores[n]["after"] for n in names], scores["pi_0"]["value"])
    swept = list(found["swept"])
    entries = [found["swept"][n]["episode_success"][n]["after"] for n in swept]
    bars(axes[1], ["pivotrl", *swept], [scores["pivotrl"]["after"], *entries], scores["pi_0"]["value"])
    axes[0].set_ylabel("episodes won")
    axes[0].legend()
    save(figure, out, "ablations")
    return found


def e2e_efficiency(base: Path, out: Path) -> dict:
    """Success against rollout turns and seconds, for PivotRL (including profiling) and end-to-end RL."""
    found = compared(base, ["pivotrl", "e2e_rl"], ["episode_success", "call_turn_pass", "out_of_domain"])
    found |= efficiency.matched(base, found["seeds"])
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True)
    for ax, cost in zip(axes, ("rollout_turns", "seconds")):
        for name in ("pivotrl", "e2e_rl"):
            points = found["curves"][name]
            ax.plot([p[cost] for p in points], [p["success"] for p in points], marker="o", label=name)
        ax.set_xlabel(cost.replace("_", " "))
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("episodes won")
    axes[0].legend()
    save(figure, out, "e2e_efficiency")
    return found


def variance_collapse(base: Path, out: Path) -> dict:
    """The reward std of groups over training: pivots compared with random turns."""
    names = ["pivotrl", "random_turns"]
    seeds = pooling.common(base, names)
    figure, ax = plt.subplots(figsize=(6, 3.4))
    found: dict = {"seeds": seeds}
    for name in names:
        logs = [pooling.metrics_of(base, name, seed) for seed in seeds]
        found[name] = {}
        for key in ("group_reward_std", "mixed_groups"):
            value_ST = np.array([[line[key] for line in log] for log in logs])
            quarter = max(1, value_ST.shape[1] // 4)
            parts = {"first": value_ST[:, :quarter], "last": value_ST[:, -quarter:]}
            found[name][key] = {
                part: {"mean": float(x.mean()), "by_seed": [round(float(v), 4) for v in x.mean(1)]}
                for part, x in {**parts, "all": value_ST}.items()
            }
            if key == "group_reward_std":
                ax.plot(value_ST.mean(0), label=name)
                ax.fill_between(range(value_ST.shape[1]), value_ST.min(0), value_ST.max(0), alpha=0.2)
    profiles = [runs.facts(runs.workdir_of(base, "pivotrl", seed))["counts"] for seed in seeds]
    equal = [(c["all_fail"] + c["all_pass"]) / c["candidates"] for c in profiles]
    found["uninformative_turns"] = {"mean": float(np.mean(equal)), "by_seed": [round(x, 4) for x in equal]}
    ax.set_xlabel("step")
    ax.set_ylabel("reward std within groups")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend()
    save(figure, out, "variance_collapse")
    return found


TABLES = {
    f.__name__: f
    for f in (table_in_domain, table_out_of_domain, ablations, e2e_efficiency, variance_collapse)
}


def commit() -> str:
    """The last commit that changed code that the runs execute."""
    paths = ["pivotrl_jax", "configs"]
    command = ["git", "log", "-1", "--format=%h", "--", *paths]
    return subprocess.run(command, cwd=runs.ROOT, capture_output=True, text=True).stdout.strip()


def make(base: Path, out: Path, names: list[str]) -> None:
    """Write the tables `names` of the runs in `base` to folders of `out`."""
    for name in names:
        (out / name).mkdir(parents=True, exist_ok=True)
        found = {"config": "configs/bfcl.py", "commit": commit(), **TABLES[name](base, out)}
        (out / name / "results.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=", ".join(TABLES))
    parser.add_argument("--base", type=Path, default=runs.ROOT / "runs" / "claims")
    parser.add_argument("--out", type=Path, default=EXPERIMENTS)
    options = parser.parse_args()
    make(options.base.resolve(), options.out, options.names or list(TABLES))


if __name__ == "__main__":
    main()
