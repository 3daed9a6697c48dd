"""experiments/RESULTS.md from the results.json of every folder: claim, our number, interval, verdict, and
what decides it, grouped by regime.

A verdict depends only on the interval: *reproduced* if the interval lies on the claim's side of zero (or of
the bound that the row names), *partly* if only the estimate does, *not* otherwise.
"""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

from results_claims import KEEPS, LANGUAGE, NO_FILTER, NO_FUNCTION, REGIME

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
    decides: str = ""  # what the verdict depends on


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


def kept(entry: dict) -> str:
    """The verdict on `KEEPS`."""
    return "reproduced" if entry["low"] > -0.02 else "not"


def exact(error: float) -> tuple[str, str, str]:
    return f"error {error:.1e}", "1e-6 allowed", "reproduced" if error < 1e-6 else "not"


def theorem_rows(read) -> Iterator[Row]:
    if found := read("theorem_3_2"):
        table = found["tabular"]
        for name, claim in (
            ("natural_gradient", "3.2 (i): Fisher norm of the natural gradient = reward std"),
            ("grpo_score", "3.2 (ii): population GRPO score = sigma / beta^2"),
        ):
            error = exact(table[name]["max_abs_error"])
            yield Row(claim, "theorem", *error, "theorem_3_2", "rounding alone: tabular policies in float64")
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
            "zero against nonzero gradients: among mixed turns alone r = "
            f"{found['policy']['mixed_states']['grpo_gradient']['pearson'][0]:.2f}",
        )
    if found := read("theorem_3_3"):
        table = found["tabular"]
        worst = max(
            table[k] for k in ("max_probability_error", "max_inside_ratio_change", "max_outside_ratio_change")
        )
        claim = "3.3: least KL keeps ratios in and out of M(s)"
        yield Row(claim, "theorem", *exact(worst), "theorem_3_3", "rounding alone")
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
                    "how far each policy went from pi_0",
                )


def table_rows(read) -> Iterator[Row]:
    folder = "table_in_domain"
    if found := read(folder):
        entry = found["episode_success"]
        d = entry["pivotrl"]["change"]
        why = "37 to 60 pivots, learnt after 20 to 30 steps"
        yield Row("in domain, PivotRL gains on pi_0", "+14.11", *change(d), signed(d, 1), folder, why)
        d = entry["pivotrl - sft"]
        why = "demonstrations in pi_0's own style; SFT learns from all of their turns"
        yield Row("in domain, PivotRL above SFT", "+4.17", *change(d), signed(d, 1), folder, why)
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
                "SFT imitates slips and detours, the verifier does not reward them"
                if "clumsy" in told
                else "",
            )
    folder = "table_out_of_domain"
    if found := read(folder):
        entry = found["out_of_domain"]
        d = entry["pivotrl"]["change"]
        why = "eight of ten skills stand at .98 or more and share nothing with what is learnt"
        yield Row(KEEPS, "+0.21", *change(d), kept(d), folder, why)
        d = entry["sft"]["change"]
        yield Row("out of domain, SFT loses", "-9.83", *change(d), signed(d, -1), folder, "the same")
        d = entry["pivotrl - sft"]
        yield Row("out of domain, PivotRL above SFT", "+10.04", *change(d), signed(d, 1), folder, "the same")


def training_rows(read) -> Iterator[Row]:
    folder = "ablations"
    if found := read(folder):
        names = {
            "random_turns": (NO_FILTER, "59.68 against 63.81", "each pivot is visited 11 to 17 times"),
            "exact": (NO_FUNCTION, "57.34 against 63.81", "only a tenth of what is accepted is worded anew"),
            "random_exact": ("without either it is worse", "", "both"),
        }
        for name, (claim, paper, why) in names.items():
            if d := found["episode_success"].get(f"pivotrl - {name}"):
                minus = {"value": -d["value"], "low": -d["high"], "high": -d["low"]}
                yield Row(claim, paper, *change(minus), signed(minus, -1), folder, why)
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
            "the policy: seven in ten turns always pass or always fail",
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
            "the filter: it keeps what varied under pi_0",
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
            "visits: after a dozen a pivot always passes",
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
                "episodes of five turns, profiling counted once; end-to-end RL goes on to a higher end",
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
            "sampling stops at turns that are plainly too easy or all fail",
        )


def regime_rows(read) -> Iterator[Row]:
    """Signs of the differences that regime/README.md predicts; whether a prediction was hit is said there."""
    folder = "regime"
    found = read(folder) or {"predictions": []}
    for claim, what, paper, side, why in REGIME:
        d = next((p for p in found["predictions"] if p["what"] == what and "value" in p), None)
        if not d:
            continue
        claim += f" (seeds: {d['seeds']})"
        if not d["is_ratio"]:
            verdict = kept(d) if claim.startswith(KEEPS) else signed(d, side)
            yield Row(claim, paper, *change(d), verdict, folder, why)
            continue
        if d["seeds"] > 1:
            interval, verdict = f"[{d['low']:.1f}, {d['high']:.1f}]", signed(d, side, 1.0)
        else:
            interval, verdict = "one seed", "partly" if side * (d["value"] - 1) > 0 else "not"
        yield Row(claim, paper, f"{d['value']:.1f}x", interval, verdict, folder, why)


def language_rows(read) -> Iterator[Row]:
    """SmolLM2 on BFCL, see smollm2/page.py."""
    folder = "smollm2"
    found = read(folder) or {"differences": {}}
    for measure, claim, paper, one, other, side, why in LANGUAGE:
        if d := found["differences"].get(f"{one} - {other}", {}).get(measure):
            verdict = kept(d) if claim.startswith(KEEPS) else signed(d, side)
            yield Row(f"{claim} (seeds: {d['seeds']})", paper, *change(d), verdict, folder, why)


def beyond_rows(read) -> Iterator[Row]:
    """What the paper does not have."""
    yield from adaptive_rows(read)
    folder = "profile_screen"
    if found := read(folder):
        by_run = {line["run"]: line for line in found}
        for run, claim, most in (
            ("screen", "half of the candidates need no rollout, for 3 % of the pivots", 0.5),
            ("both", "... with adaptive profiling: a quarter of the rollouts, for 5 %", 0.25),
        ):
            line, full = by_run[run], by_run["full"]
            share, lost = (
                line["rollouts"] / full["rollouts"],
                1 - line["of the full profile"] / full["pivots"],
            )
            verdict = "reached" if share <= most and lost <= (0.03 if run == "screen" else 0.05) else "not"
            ours = f"{share:.0%} of the rollouts, {lost:.1%} of the pivots lost"
            why = "how well the demonstration's chance under pi_0 tells the easy turns"
            yield Row(claim, "", ours, "one profile", verdict, folder, why)
    folder = "regime"
    tables = (read(folder) or {"tables": {}})["tables"].get("T1", [])
    if online := next((r for r in tables if r["arm"] == "online" and r["step"] == 40), None):
        d = online["episodes, change"]
        claim = f"pivots found while training, without a profile: gain on pi_0 (seeds: {d['seeds']})"
        total = online["training rollouts"] + online["profiling rollouts"]
        pivotrl = next(r for r in tables if r["arm"] == "pivotrl" and r["step"] == 40)
        beside = pivotrl["training rollouts"] + pivotrl["profiling rollouts"]
        why = f"the profile, dear at one visit a pivot: {total:,.0f} rollouts in all, PivotRL {beside:,.0f}"
        yield Row(claim, "", *change(d), signed(d, 1), folder, why)


GROUPS = (
    ("Theorems", "Tabular policies in float64, and the embedded checkpoint.", (theorem_rows,)),
    (
        "The paper's regime: many pivots, each visited about once",
        "832 demonstrations, 40 steps of 16 groups of 8, 300 held-out tasks. What was predicted before, and "
        "whether it was hit, is in [regime](regime/README.md).",
        (regime_rows,),
    ),
    (
        "Few demonstrations: each pivot visited 8 to 17 times",
        "64 demonstrations and five seeds unless a row says otherwise, 200 held-out episodes, 500 items out "
        "of domain.",
        (table_rows, training_rows),
    ),
    (
        "A pretrained language model",
        "SmolLM2-135M on BFCL's single turns: 438 rows to train on, 900 held-out rows, 500 items out of "
        "domain.",
        (language_rows,),
    ),
    ("Beyond the paper", "", (beyond_rows,)),
)


def groups(folder: Path) -> list[tuple[str, str, list[Row]]]:
    """(title, what it rests on, rows) of every group that has results under `folder`."""

    def read(name: str):
        file = folder / name / "results.json"
        return json.loads(file.read_text("utf-8")) if file.is_file() else None

    found = [(title, note, [row for part in parts for row in part(read)]) for title, note, parts in GROUPS]
    return [group for group in found if group[2]]


def rows(folder: Path) -> list[Row]:
    """Every row whose results are under `folder`."""
    return [row for _, _, found in groups(folder) for row in found]


def markdown(found: list[Row], linked: bool) -> list[str]:
    lines = [
        "| claim | paper | ours | interval | verdict | what decides it | where |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in found:
        where = f"[{r.where}]({r.where}/README.md)" if linked else r.where
        cells = r.claim, r.paper, r.ours, r.interval, r.verdict, r.decides, where
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def write(full: Path, quick: Path | None, page: Path) -> None:
    """Write the page. The results of the small versions, in `quick`, go into a last table."""
    parts = [(HERE / "RESULTS.in.md").read_text("utf-8").rstrip()]
    for title, note, found in groups(full):
        parts += ["", f"## {title}", "", *([note, ""] if note else []), *markdown(found, True)]
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
