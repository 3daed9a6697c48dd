"""experiments/RESULTS.md from the results.json of every folder: claim, our number, interval, verdict.

A verdict depends only on the interval: *reproduced* if the interval lies on the claim's side of zero (or of
the bound that the row names), *partly* if only the estimate does, *not* otherwise.
"""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Row:
    """One claim and our result."""

    claim: str
    paper: str
    ours: str
    interval: str
    verdict: str
    where: str  # the folder of the result


def signed(entry: dict, side: int, bound: float = 0.0) -> str:
    """The verdict of an interval. `side` is 1 if the claim is a number above `bound`, -1 if below."""
    value, low, high = (side * (entry[key] - bound) for key in ("value", "low", "high"))
    if min(low, high) > 0:
        return "reproduced"
    return "partly" if value > 0 else "not"


def change(entry: dict) -> tuple[str, str]:
    """(value, interval), signed."""
    value, low, high = (round(entry[key], 3) + 0.0 for key in ("value", "low", "high"))  # turns -0.0 into 0.0
    return f"{value:+.3f}", f"[{low:+.3f}, {high:+.3f}]"


def exact(error: float) -> tuple[str, str, str]:
    return f"error {error:.1e}", "1e-6 allowed", "reproduced" if error < 1e-6 else "not"


def theorem_rows(read) -> Iterator[Row]:
    if found := read("theorem_3_2"):
        table = found["tabular"]
        for name, claim in (
            ("natural_gradient", "3.2 (i): Fisher norm of the natural gradient = reward std"),
            ("grpo_score", "3.2 (ii): population GRPO score = sigma / beta^2"),
        ):
            yield Row(claim, "theorem", *exact(table[name]["max_abs_error"]), "theorem_3_2")
        value, low, high = found["policy"]["all_states"]["grpo_gradient"]["pearson"]
        entry = {"value": value, "low": low, "high": high}
        ours = f"r = {value:.2f} of GRPO's gradient norm with the profiled std"
        yield Row(
            "... on the real policy: the profile predicts the gradient",
            "theorem",
            ours,
            f"[{low:.2f}, {high:.2f}]",
            signed(entry, 1),
            "theorem_3_2",
        )
    if found := read("theorem_3_3"):
        table = found["tabular"]
        worst = max(
            table[k] for k in ("max_probability_error", "max_inside_ratio_change", "max_outside_ratio_change")
        )
        yield Row("3.3: least KL keeps ratios in and out of M(s)", "theorem", *exact(worst), "theorem_3_3")
        for kind in ("skills", "toolbox"):
            if entry := found["order"].get(kind, {}).get("pivotrl less sft"):
                value, low, high = entry["tau"]
                yield Row(
                    f"... after training, order kept better than by SFT ({kind})",
                    "theorem",
                    f"tau-b {value:+.4f}",
                    f"[{low:+.4f}, {high:+.4f}]",
                    signed({"value": value, "low": low, "high": high}, 1),
                    "theorem_3_3",
                )


def table_rows(read) -> Iterator[Row]:
    folder = "table_in_domain"
    if found := read(folder):
        entry = found["episode_success"]
        d = entry["pivotrl"]["change"]
        yield Row("in domain, PivotRL gains on pi_0", "+14.11", *change(d), signed(d, 1), folder)
        d = entry["pivotrl - sft"]
        yield Row("in domain, PivotRL above SFT", "+4.17", *change(d), signed(d, 1), folder)
        for told, one in found["demonstrations"].items():
            if told == "64":  # that is the row above
                continue
            key = next(k for k in one["episode_success"] if " - " in k)
            d = one["episode_success"][key]
            yield Row(
                f"... of {told} demonstrations (seeds: {len(one['seeds'])})",
                "",
                *change(d),
                signed(d, 1),
                folder,
            )
    folder = "table_out_of_domain"
    if found := read(folder):
        entry = found["out_of_domain"]
        d = entry["pivotrl"]["change"]
        kept = "reproduced" if d["low"] > -0.02 else "not"
        yield Row(
            "out of domain, PivotRL keeps what pi_0 had (within 0.02)", "+0.21", *change(d), kept, folder
        )
        d = entry["sft"]["change"]
        yield Row("out of domain, SFT loses", "-9.83", *change(d), signed(d, -1), folder)
        d = entry["pivotrl - sft"]
        yield Row("out of domain, PivotRL above SFT", "+10.04", *change(d), signed(d, 1), folder)


def training_rows(read) -> Iterator[Row]:
    folder = "ablations"
    if found := read(folder):
        names = {
            "random_turns": ("without the pivot filter it is worse", "59.68 against 63.81"),
            "exact": ("without the functional reward it is worse", "57.34 against 63.81"),
            "random_exact": ("without either it is worse", ""),
        }
        for name, (claim, paper) in names.items():
            if d := found["episode_success"].get(f"pivotrl - {name}"):
                minus = {"value": -d["value"], "low": -d["high"], "high": -d["low"]}
                yield Row(claim, paper, *change(minus), signed(minus, -1), folder)
    folder = "variance_collapse"
    if found := read(folder):
        by_seed = found["uninformative_turns"]["by_seed"]
        entry = {"value": found["uninformative_turns"]["mean"], "low": min(by_seed), "high": max(by_seed)}
        yield Row(
            "most turns are uninformative (above one half)",
            "about 71 %",
            f"{entry['value']:.0%}",
            f"seeds from {entry['low']:.0%} to {entry['high']:.0%}",
            signed(entry, 1, 0.5),
            folder,
        )
        std = {name: found[name]["group_reward_std"] for name in ("pivotrl", "random_turns")}
        more = [a - b for a, b in zip(*(std[n]["first"]["by_seed"] for n in ("pivotrl", "random_turns")))]
        entry = {"value": sum(more) / len(more), "low": min(more), "high": max(more)}
        spread = f"seeds from {entry['low']:+.2f} to {entry['high']:+.2f}"
        yield Row(
            "reward std is higher on pivots, first quarter of training",
            "figure",
            f"{entry['value']:+.2f}",
            spread,
            signed(entry, 1),
            folder,
        )
        kept = {n: std[n]["last"]["mean"] / std[n]["first"]["mean"] for n in std}
        more = [a - b for a, b in zip(*(std[n]["last"]["by_seed"] for n in ("pivotrl", "random_turns")))]
        entry = {"value": sum(more) / len(more), "low": min(more), "high": max(more)}
        yield Row(
            "reward std lasts on pivots: still higher in the last quarter",
            "figure",
            f"{entry['value']:+.2f}; {kept['pivotrl']:.0%} of the start is left, of random turns' "
            f"{kept['random_turns']:.0%}",
            f"seeds from {entry['low']:+.2f} to {entry['high']:+.2f}",
            signed(entry, 1),
            folder,
        )
    folder = "e2e_efficiency"
    if found := read(folder):
        for cost, paper in (("rollout_turns", "4x"), ("seconds", "about 5.5x")):
            ratio, level = found["matched"][cost]["ratio"], found["matched"]["level"]
            yield Row(
                f"end-to-end RL needs more {cost.replace('_', ' ')} for {level:.3f} of the episodes",
                paper,
                f"{ratio['value']:.1f}x",
                f"[{ratio['low']:.1f}, {ratio['high']:.1f}]",
                signed(ratio, 1, 1.0),
                folder,
            )


def adaptive_rows(read) -> Iterator[Row]:
    if found := read("adaptive_profiling"):
        line = next(x for x in found["table"] if x["round"] == 1 and x["error"] == 0.1)
        good = line["rollouts"] <= 0.5 and line["f1"] >= 0.95
        yield Row(
            "ours: the same pivots (F1 0.95) for half the rollouts, error 0.1, rounds of 1",
            "",
            f"F1 {line['f1']:.3f} for {line['rollouts']:.0%}",
            f"{found['candidates']} candidates of {found['runs']} runs",
            "reached" if good else "not",
            "adaptive_profiling",
        )


def rows(folder: Path) -> list[Row]:
    """Every row whose results are under `folder`."""

    def read(name: str) -> dict | None:
        file = folder / name / "results.json"
        return json.loads(file.read_text("utf-8")) if file.is_file() else None

    parts = (theorem_rows, table_rows, training_rows, adaptive_rows)
    return [row for part in parts for row in part(read)]


def markdown(found: list[Row], linked: bool) -> list[str]:
    lines = ["| claim | paper | ours | interval | verdict | where |", "|---|---|---|---|---|---|"]
    for r in found:
        where = f"[{r.where}]({r.where}/README.md)" if linked else r.where
        lines.append(f"| {r.claim} | {r.paper} | {r.ours} | {r.interval} | {r.verdict} | {where} |")
    return lines


def write(full: Path, quick: Path | None, page: Path) -> None:
    """Write the page. The results of the small versions, in `quick`, go into a second table."""
    note = (HERE / "RESULTS.in.md").read_text("utf-8")
    parts = [note.rstrip(), "", *markdown(rows(full), True)]
    if quick and (small := rows(quick)):
        parts += [
            "",
            "## Small versions, as they ran last",
            "",
            "`python experiments/run_all.py --quick`: one seed, 24 demonstrations, 24 held-out tasks, six",
            "steps. They show that every command runs; their numbers and verdicts mean little.",
            "",
            *markdown(small, False),
        ]
    page.write_text("\n".join(parts) + "\n", "utf-8")
