"""Numbers and figures of finished runs: `python experiments/claims/tables.py [--base=runs/claims] [NAME...]`

Names are folders of experiments/: table_in_domain, table_out_of_domain, ablations, e2e_efficiency,
variance_collapse. Each gets results.json and figure.svg. Seeds are those that all compared runs have.
"""

import argparse
import json
from pathlib import Path

import matplotlib
import numpy as np
import pooling
import runs

matplotlib.use("Agg")
from matplotlib import pyplot as plt

EXPERIMENTS = runs.ROOT / "experiments"


def _bars(ax, names: list[str], entries: list[dict], base: float | None) -> None:
    values = np.array([e["value"] for e in entries])
    spread = np.array([[e["value"] - e["low"] for e in entries], [e["high"] - e["value"] for e in entries]])
    ax.bar(names, values, yerr=np.maximum(spread, 0), capsize=4, color="#7a9cc6")
    if base is not None:
        ax.axhline(base, color="#444", linestyle=":", label="pi_0")
        ax.legend()
    ax.tick_params(axis="x", rotation=20)


def _save(figure, name: str) -> None:
    folder = EXPERIMENTS / name
    folder.mkdir(exist_ok=True)
    figure.tight_layout()
    figure.savefig(folder / "figure.svg", metadata={"Date": None})
    plt.close(figure)


def _compared(base: Path, names: list[str], measures: list[str]) -> dict:
    """measure -> {"pi_0", run -> summary, "A - B" -> difference from the first run}."""
    seeds = pooling.common(base, names)
    if not seeds:
        raise SystemExit(
            f"no seed has all of {names}; run experiments/claims/runs.py --runs={','.join(names)}"
        )
    out: dict = {"seeds": seeds}
    for measure in measures:
        before, clusters = pooling.stacked(base, names[0], seeds, "before", measure)
        entry = {"pi_0": pooling.interval(before, clusters), "n": len(clusters)}
        entry |= {name: pooling.summary(base, name, measure, seeds) for name in names}
        for other in names[1:]:
            entry[f"{names[0]} - {other}"] = pooling.versus(base, names[0], other, measure, seeds)
        out[measure] = entry
    return out


def table_in_domain(base: Path) -> dict:
    """Base, SFT and PivotRL on held-out episodes and turns."""
    names = ["pivotrl", "sft"]
    out = _compared(base, names, ["episode_success", "call_turn_pass", "text_turn_pass"])
    out["demonstrations"] = _sweep(base)
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2))
    for ax, measure in zip(axes, ("episode_success", "call_turn_pass")):
        _bars(ax, names, [out[measure][n]["after"] for n in names], out[measure]["pi_0"]["value"])
        ax.set_title(measure.replace("_", " "))
    _save(figure, "table_in_domain")
    return out


def _sweep(base: Path) -> dict:
    """Number of demonstrations -> both methods, where their runs are done."""
    found = {}
    for count, names in {16: ("pivotrl_16", "sft_16"), 256: ("pivotrl_256", "sft_256")}.items():
        if pooling.common(base, list(names)):
            found[count] = _compared(base, list(names), ["episode_success", "out_of_domain"])
    return found


def table_out_of_domain(base: Path) -> dict:
    """The skills of pi_0 that nobody trains, overall and by family."""
    seeds = pooling.common(base, ["pivotrl", "sft"])
    families = [m for m in pooling.series(base, "pivotrl", seeds[0], "after") if m.startswith("family:")]
    out = _compared(base, ["pivotrl", "sft"], ["out_of_domain", *families])
    figure, ax = plt.subplots(figsize=(7, 3.2))
    at = np.arange(len(families))
    for shift, name in ((-0.2, "pivotrl"), (0.2, "sft")):
        ax.bar(at + shift, [out[f][name]["change"]["value"] for f in families], 0.4, label=name)
    ax.set_xticks(at, [f.removeprefix("family:") for f in families], rotation=30, ha="right")
    ax.axhline(0, color="#444", linewidth=0.8)
    ax.set_ylabel("change from pi_0")
    ax.legend()
    _save(figure, "table_out_of_domain")
    return out


def ablations(base: Path) -> dict:
    """No filter, exact reward, neither; and what is there of lambda_diff and group size."""
    names = ["pivotrl", "random_turns", "exact", "random_exact"]
    names = [n for n in names if pooling.finished(base, n)]
    out = _compared(base, names, ["episode_success", "call_turn_pass", "out_of_domain"])
    swept = [n for n in ("lambda_0.3", "lambda_0.9", "group_4", "group_16") if pooling.finished(base, n)]
    for name in swept:
        out[name] = _compared(base, ["pivotrl", name], ["episode_success", "out_of_domain"])
    figure, ax = plt.subplots(figsize=(6, 3.2))
    scores = out["episode_success"]
    _bars(ax, names, [scores[n]["after"] for n in names], scores["pi_0"]["value"])
    ax.set_ylabel("episode success")
    _save(figure, "ablations")
    return out


def e2e_efficiency(base: Path) -> dict:
    """Success against rollout turns and seconds spent, PivotRL (profiling included) and end-to-end RL."""
    names = ["pivotrl", "e2e_rl"]
    out = _compared(base, names, ["episode_success", "out_of_domain"])
    for name in names:
        facts = [runs.facts(runs.workdir_of(base, name, seed)) for seed in out["seeds"]]
        spent = [
            f["counts"]["profiling_rollout_turns"] + f["counts"]["training_rollout_turns"] for f in facts
        ]
        seconds = [f["seconds"].get("profiling", 0.0) + f["seconds"]["training"] for f in facts]
        out[name] = {"rollout_turns": float(np.mean(spent)), "seconds": float(np.mean(seconds))}
        out[name]["gain_per_1000_turns"] = (
            1000 * out["episode_success"][name]["change"]["value"] / out[name]["rollout_turns"]
        )
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True)
    for ax, cost in zip(axes, ("rollout_turns", "seconds")):
        for name in names:
            y = [out["episode_success"]["pi_0"]["value"], out["episode_success"][name]["after"]["value"]]
            ax.plot([0, out[name][cost]], y, marker="o", label=name)
        ax.set_xlabel(cost.replace("_", " "))
    axes[0].set_ylabel("episode success")
    axes[0].legend()
    _save(figure, "e2e_efficiency")
    return out


def variance_collapse(base: Path) -> dict:
    """Reward std of groups over training: pivots against random turns."""
    names = ["pivotrl", "random_turns"]
    seeds = pooling.common(base, names)
    figure, ax = plt.subplots(figsize=(6, 3.2))
    out: dict = {"seeds": seeds}
    for name in names:
        logs = [pooling.metrics_of(base, name, seed) for seed in seeds]
        std = np.array([[line["group_reward_std"] for line in log] for log in logs])
        mixed = np.array([[line["mixed_groups"] for line in log] for log in logs])
        quarter = max(1, std.shape[1] // 4)
        out[name] = {
            "group_reward_std": {
                "first": float(std[:, :quarter].mean()),
                "last": float(std[:, -quarter:].mean()),
            },
            "mixed_groups": {
                "first": float(mixed[:, :quarter].mean()),
                "last": float(mixed[:, -quarter:].mean()),
            },
        }
        ax.plot(std.mean(0), label=name)
        ax.fill_between(range(std.shape[1]), std.min(0), std.max(0), alpha=0.2)
    profiles = [runs.facts(runs.workdir_of(base, "pivotrl", seed))["counts"] for seed in seeds]
    equal = [(c["all_fail"] + c["all_pass"]) / c["candidates"] for c in profiles]
    out["uninformative_turns"] = {"mean": float(np.mean(equal)), "by_seed": equal}
    ax.set_xlabel("step")
    ax.set_ylabel("reward std within groups")
    ax.legend()
    _save(figure, "variance_collapse")
    return out


TABLES = {
    f.__name__: f
    for f in (table_in_domain, table_out_of_domain, ablations, e2e_efficiency, variance_collapse)
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=list(TABLES))
    parser.add_argument("--base", type=Path, default=runs.ROOT / "runs" / "claims")
    options = parser.parse_args()
    for name in options.names or TABLES:
        found = TABLES[name](options.base.resolve())
        text = json.dumps(found, indent=1)
        (EXPERIMENTS / name).mkdir(exist_ok=True)
        (EXPERIMENTS / name / "results.json").write_text(text + "\n", "utf-8")
        print(name, text)


if __name__ == "__main__":
    main()
