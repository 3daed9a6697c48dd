"""The tables and figures of README.md, and results.json: `python experiments/regime/page.py`

From results/, where runs.py keeps what it found. Arms that are not finished are left out.
"""

import json
from pathlib import Path

import figures
import numpy as np
import pooled
import predictions
from pooled import intervals
from runs import ARMS

HERE = Path(__file__).resolve().parent


def rows(test: str) -> list[dict]:
    """A row per arm and measured step, pi_0 first; of arms without a finished seed none."""
    found = []
    for arm in ARMS[test]:
        which = pooled.seeds(test, arm)
        if not which:
            continue
        for step in [*(["pi_0"] if not found else []), *pooled.steps(test, arm, which[0])]:
            row = {"arm": "pi_0" if step == "pi_0" else arm, "step": 0 if step == "pi_0" else step}
            row["seeds"] = len(which)
            for measure in (*pooled.MEASURES, *pooled.KL):
                row[measure] = pooled.value(test, arm, step, measure, which)
                if step != "pi_0" and measure in pooled.MEASURES:
                    row[f"{measure}, change"] = pooled.difference(
                        (test, arm, step), (test, arm, "pi_0"), measure
                    )
            spent = np.mean([pooled.rollouts(test, arm, row["step"], seed) for seed in which], axis=0)
            row["profiling rollouts"], row["training rollouts"] = map(float, spent)
            if step == "pi_0":
                row["profiling rollouts"] = 0.0
            row["visits"] = float(np.mean([pooled.visits(test, arm, row["step"], seed) for seed in which]))
            found.append(row)
    return found


def table(found: list[dict]) -> list[str]:
    """Values, and in brackets the interval of the change from pi_0."""
    heads = [
        "arm",
        "seeds",
        "step",
        "visits per pivot or turn",
        *pooled.MEASURES.values(),
        *pooled.KL.values(),
    ]
    heads += ["rollouts: profile", "training"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in found:
        cells = [row["arm"], str(row["seeds"]), str(row["step"])]
        cells.append(f"{row['visits']:.2g}" if row["training rollouts"] else "")
        for measure in pooled.MEASURES:
            cell = f"{row[measure]['value']:.3f}"
            if change := row.get(f"{measure}, change"):
                cell += f"<br>[{change['low']:+.3f}, {change['high']:+.3f}]"
            cells.append(cell)
        cells += [f"{row[measure]['value']:.2f}" for measure in pooled.KL]
        cells += [f"{row[name]:,.0f}" for name in ("profiling rollouts", "training rollouts")]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def outcomes() -> list[dict]:
    """Every prediction with what was found; Holm's p over those that are differences."""
    found = [
        {
            "claim": p.claim,
            "what": p.what,
            "range": [p.low, p.high],
            "is_ratio": p.is_ratio,
            **(p.find() or {"seeds": 0}),
        }
        for p in predictions.PREDICTIONS
    ]
    for prediction, row in zip(predictions.PREDICTIONS, found, strict=True):
        row["outcome"] = prediction.outcome(row) if row["seeds"] else "not run"
    tested = [row for row in found if "p" in row]
    for row, p in zip(tested, intervals.holm([row["p"] for row in tested]), strict=True):
        row["p, Holm"] = p
    return found


def outcome_table(rows: list[dict]) -> list[str]:
    lines = [
        "| claim | what | predicted | found | p, Holm | seeds | outcome |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["range"]
        form = "{:g}".format if row["is_ratio"] else "{:+.2f}".format
        if np.isinf(low) or np.isinf(high):
            predicted = f"at least {form(low)}" if np.isinf(high) else f"at most {form(high)}"
        else:
            predicted = f"{form(low)} to {form(high)}"
        found = intervals.show(row, sign=not row["is_ratio"]) if row["seeds"] else ""
        p = f"{row['p, Holm']:.3f}" if "p" in row else ""
        cells = [row["claim"], row["what"], predicted, found, p, str(row["seeds"]), row["outcome"]]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    found = outcomes()
    tables = {test: rows(test) for test in ARMS}
    drawn = figures.draw()
    parts = ["## Predictions and outcomes", "", *outcome_table(found), ""]
    for name in drawn:
        parts += [figures.CAPTIONS[name], "", f"![{name}]({name})", ""]
    for test, each in tables.items():
        if each:
            parts += [
                f"## {test}",
                "",
                "In brackets: the 95 % interval of the change from pi_0.",
                "",
                *table(each),
                "",
            ]
    for row in found:  # JSON has no infinity
        row["range"] = [None if np.isinf(end) else end for end in row["range"]]
    results = {
        "predictions": found,
        "tables": tables,
        "filter": figures.gains(),
        "methods": figures.method_points(),
    }
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    readme = HERE / "README.md"
    intervals.put_between_marks(readme, "\n".join(parts))


if __name__ == "__main__":
    main()
