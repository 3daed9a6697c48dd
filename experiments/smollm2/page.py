"""The tables and the figure of README.md, from results/: `python experiments/smollm2/page.py`

Intervals are 95 % bootstraps over rows and, where an arm has several seeds, over seeds; changes are paired
with pi_0 row by row. Arms that are not finished are left out, and the number of seeds is said.
"""

import itertools
import json
import sys
from pathlib import Path

import matplotlib
import measure
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # experiments/, see intervals.py
import intervals

matplotlib.use("Agg")
from matplotlib import pyplot as plt

matplotlib.rcParams["svg.hashsalt"] = "smollm2"  # so that the same numbers give the same file

HERE = Path(__file__).resolve().parent
ARMS = ("pivotrl", "random_turns", "exact", "sft_1", "sft_4", "sft_own_1", "sft_own_4")
COLOURS = dict(zip(ARMS, ("#2b6cb0", "#7a9cc6", "#9f7aea", "#e0a458", "#c05621", "#8fbc6f", "#4a7c34")))
CATEGORIES = [name for group in ("python", "live", "irrelevance") for name in measure.GROUPS[group]]
BITS = "bits per byte of text"


def load(arm: str) -> dict[int, dict]:
    """Seed -> results, of an arm's finished seeds."""
    files = {seed: HERE / "results" / f"{arm}_seed{seed}.json" for seed in range(10)}
    return {seed: json.loads(p.read_text("utf-8")) for seed, p in files.items() if p.is_file()}


def scores(result: dict) -> dict[str, dict[str, float]]:
    """Measure -> item -> value, of one result."""
    found: dict[str, dict[str, float]] = {}
    for turn, reply in result["turns"].items():
        group, category = measure.group_of(turn), measure.category_of(turn)
        names = ["all rows", f"group {group}", f"category {category}"]
        names += ["call turns"] if group != "irrelevance" else []
        for name in names:
            found.setdefault(name, {})[turn] = float(reply["reward"])
    for answer in result["skills"]:
        value = answer.get("correct", answer.get("bits_per_byte"))
        name = answer["family"] if "correct" in answer else BITS
        found.setdefault(name, {})[answer["id"]] = value
        if "correct" in answer:
            found.setdefault("out of domain", {})[answer["id"]] = value
    return found


def compared(pi_0: dict, results: list[dict], name: str) -> tuple[dict, dict]:
    """(the arm's value, its change from pi_0), each with an interval."""
    before = scores(pi_0)[name]
    after = np.array([[values[name][item] for item in before] for values in map(scores, results)])
    first = np.array([list(before.values())] * len(results))
    return intervals.interval(after, list(before)), intervals.interval(after - first, list(before))


def table(
    pi_0: dict, arms: dict[str, list[dict]], rows: dict[str, str], shipped: dict | None = None
) -> list[str]:
    """A table of values; the change from pi_0 stands below each. `shipped`: of the model before pi_0."""
    heads = ["| | n", *(["as shipped"] if shipped else []), "pi_0", *arms]
    lines = [" | ".join([*heads, ""]).rstrip(), "|---" * (len(heads) + 1) + "|"]
    before, first = scores(pi_0), scores(shipped) if shipped else {}
    for name, title in rows.items():
        if name not in before:
            continue
        cells = [f"{len(before[name])}"]
        cells += [f"{np.mean(list(values[name].values())):.3f}" for values in (first, before) if values]
        for results in arms.values():
            after, change = compared(pi_0, results, name)
            numbers = f"{change['value']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}]"
            cells.append(f"{after['value']:.3f}<br>{numbers}")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return lines


def costs(arms: dict[str, list[dict]]) -> list[str]:
    """What every arm took and how far it went from pi_0."""
    lines = [
        "| arm | seeds | KL to pi_0, nats per turn | steps | rollouts trained on | trained tokens | "
        "seconds of training |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm, results in arms.items():
        kl = intervals.interval(
            np.array([r["kl"] for r in results]), [str(i) for i in range(measure.KL_TURNS)]
        )
        first = results[0]
        steps = 55 if arm.endswith("_1") else len(first["metrics"])
        share = steps / len(first["metrics"])
        seconds = np.mean([r["seconds"]["training"] for r in results])
        lines.append(
            f"| {arm} | {len(results)} | {intervals.show(kl)} | {steps} | "
            f"{first['counts']['training_rollout_turns']:,} | "
            f"{share * first['counts']['trained_tokens']:,.0f} | {share * seconds:,.0f} |"
        )
    return lines


def differences(pi_0: dict, arms: dict[str, dict[int, dict]]) -> dict[str, dict]:
    """ "one - other" -> measure -> the paired difference over the seeds that both have, and their number; for
    ../results_page.py."""
    found = {}
    for one, other in itertools.permutations((*arms, "pi_0"), 2):
        if one == "pi_0":
            continue
        beside = dict.fromkeys(arms[one], pi_0) if other == "pi_0" else arms[other]
        pairs = [(scores(arms[one][seed]), scores(beside[seed])) for seed in arms[one] if seed in beside]
        if not pairs:
            continue
        found[f"{one} - {other}"] = here = {}
        for name in ("all rows", "call turns", "group irrelevance", "out of domain"):
            items = list(pairs[0][0][name])
            change = np.array([[a[name][item] - b[name][item] for item in items] for a, b in pairs])
            here[name] = intervals.interval(change, items) | {"seeds": len(pairs)}
    return found


def profile(result: dict) -> str:
    """What became of the candidates in a profile."""
    counts = result["counts"]
    total = counts["candidates"]
    parts = {k: v for k, v in counts.items() if k in ("pivot", "too_easy", "all_pass", "all_fail")}
    shares = ", ".join(f"{k.replace('_', ' ')} {v} ({v / total:.0%})" for k, v in parts.items())
    return f"{total} candidates: {shares}"


def figure(pi_0: dict, arms: dict[str, list[dict]], rows: dict[str, str]) -> None:
    """Changes from pi_0 with their intervals, one row per measure and one mark per arm."""
    rows = {name: title for name, title in rows.items() if name in scores(pi_0)}
    fig, ax = plt.subplots(figsize=(8, 0.55 * len(rows) + 1))
    for i, (arm, results) in enumerate(arms.items()):
        for y, name in enumerate(rows):
            _, change = compared(pi_0, results, name)
            at = y + (i - (len(arms) - 1) / 2) * 0.15
            ax.plot([change["low"], change["high"]], [at, at], color=COLOURS[arm], linewidth=1.5)
            ax.plot(change["value"], at, "o", color=COLOURS[arm], markersize=4, label=arm if y == 0 else None)
    ax.axvline(0, color="#444", linewidth=0.8)
    ax.set_yticks(range(len(rows)), rows.values())
    ax.invert_yaxis()
    ax.set_xlabel("change from pi_0, with 95 % interval")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, ncols=len(arms), loc="upper center", bbox_to_anchor=(0.4, 1.1), fontsize=8)
    fig.tight_layout()
    fig.savefig(HERE / "figure.svg", metadata={"Date": None})


def main() -> None:
    pi_0 = json.loads((HERE / "results" / "pi_0.json").read_text("utf-8"))
    seeds = {arm: results for arm in ARMS if (results := load(arm))}
    arms = {arm: list(results.values()) for arm, results in seeds.items()}
    before = scores(pi_0)
    sums = ("all rows", "call turns")
    groups = {f"group {g}": g for g in ("python", "live", "irrelevance")}
    in_domain = dict(zip(sums, sums)) | groups
    families = [f for f in before if f not in (*sums, BITS) and not f.startswith(("group", "category"))]
    out_of_domain = {"out of domain": "all five families"} | {
        f: f.replace("_", " ") for f in families if f != "out of domain"
    }
    out_of_domain[BITS] = f"{BITS} (lower is better)"
    parts = ["## Results", "", "Value, and below it the paired change from pi_0.", ""]
    parts += ["**In domain**, the share of held-out rows that pass at temperature 0:", ""]
    parts += table(pi_0, arms, in_domain)
    parts += ["", "By category:", ""]
    parts += table(pi_0, arms, {f"category {c}": c for c in CATEGORIES})
    parts += ["", "**Out of domain**, the share of right answers:", ""]
    file = HERE / "results" / "shipped.json"
    parts += table(pi_0, arms, out_of_domain, json.loads(file.read_text("utf-8")) if file.is_file() else None)
    if arms:
        parts += ["", "**Distance and cost:**", "", *costs(arms), ""]
        parts += [f"{arm}: {profile(arms[arm][0])}." for arm in ("pivotrl", "exact") if arm in arms]
        figure(pi_0, arms, in_domain | {n: t for n, t in out_of_domain.items() if n != BITS})
        parts += ["", "![changes](figure.svg)"]
    intervals.put_between_marks(HERE / "README.md", "\n".join(parts))
    results = {"differences": differences(pi_0, seeds)}
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
