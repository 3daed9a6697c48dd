"""Rollouts saved by adaptive profiling: `python experiments/adaptive_profiling/run.py RUN_DIRECTORY...`

Replays finished full profiles (candidates.jsonl and profiles.jsonl of a run): it hands out the same rewards
in rounds, in the shuffled shards that an adaptive profile has. Prints and writes, per bound on missed pivots
and per round, the share of rollouts used, how well the pivots agree with those of the full profile (F1,
missed, taken), and the shares of uninformative candidates that the table shows and that the bare rewards
would show. No new rollouts are sampled.
"""

import argparse
import json
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from pivotrl_jax.pivots import adaptive, profiling, selection
from pivotrl_jax.records import Candidate, Profile, read_records

HERE = Path(__file__).parent
ROUNDS, ERRORS = (1, 2), (0.0, 0.02, 0.05, 0.1, 0.2)


class Full(NamedTuple):
    """A full profile."""

    profiles: list[Profile]  # of all candidates
    shards: list[list[int]]  # their indices, as an adaptive profile would cut them
    group_size: int
    lambda_diff: float


def read(run: Path) -> Full:
    config = json.loads((run / "run.json").read_text("utf-8"))["config"]
    candidates, c = read_records(run / "candidates.jsonl", Candidate), config["profile"]
    seed = config["seed"] if c["seed"] < 0 else c["seed"]
    shards = profiling.shards_of(candidates, c["trajectories_per_shard"], seed)
    return Full(read_records(run / "profiles.jsonl", Profile), shards, c["group_size"], c["lambda_diff"])


def replay(full: Full, rule: adaptive.StoppingRule) -> selection.Selection:
    """What adaptive profiling selects."""
    seen: dict[int, list[float]] = {}
    for shard in full.shards:

        def draw(indices, first, number, shard=shard):
            some = [full.profiles[shard[i]].rewards[first : first + number] for i in indices]
            return [[SimpleNamespace(reward=r) for r in rewards] for rewards in some]

        groups = adaptive.groups(draw, len(shard), rule, list(seen.values()))
        seen |= zip(shard, ([rollout.reward for rollout in group] for group in groups))
    plan = rule.plan(adaptive.pass_rates(list(seen.values())))
    profiles = []
    for i, profile in enumerate(full.profiles):
        candidate = SimpleNamespace(id=profile.candidate_id, is_call=profile.is_call)
        early = plan.outcome(seen[i]) if len(seen[i]) < full.group_size else ""
        profiles.append(selection.make_profile(candidate, seen[i], "", "", 1.0, 0, early))
    return selection.select(profiles, full.lambda_diff, full.group_size)


def line(fulls: list[Full], number: int, error: float) -> dict:
    """A row of the table, over all profiles."""
    drawn = asked = expected = bare = equal = 0.0
    found, want = [], []
    for full in fulls:
        taken = replay(full, adaptive.StoppingRule(full.group_size, full.lambda_diff, number, error))
        whole = selection.select(full.profiles, full.lambda_diff)
        drawn += sum(len(profile.rewards) for profile in taken.profiles)
        asked += full.group_size * len(full.profiles)
        equal += whole.uninformative() * len(full.profiles)
        expected += taken.uninformative() * len(full.profiles)
        bare += sum(profile.variance == 0 for profile in taken.profiles)
        found += [outcome == "pivot" for outcome in taken.outcomes.values()]
        want += [outcome == "pivot" for outcome in whole.outcomes.values()]
    f, w = np.array(found), np.array(want)
    counts = {"pivots": w.sum(), "missed": (w & ~f).sum(), "taken": (f & ~w).sum()}
    shares = {"full": equal, "expected": expected, "bare": bare}
    return {
        "round": number,
        "error": error,
        "rollouts": round(drawn / asked, 3),
        "f1": round(float(2 * (f & w).sum() / (f.sum() + w.sum())), 3),
        **{name: int(count) for name, count in counts.items()},
        "missed_share": round(float(counts["missed"] / w.sum()), 3),
        "uninformative": {name: round(float(x / len(w)), 3) for name, x in shares.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    fulls = [read(run) for run in options.runs]
    table = [line(fulls, number, error) for number in ROUNDS for error in ERRORS]
    candidates = sum(len(full.profiles) for full in fulls)
    out = {"runs": len(fulls), "candidates": candidates, "table": table}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(out, indent=1) + "\n", "utf-8")
    print(json.dumps(out))


if __name__ == "__main__":
    main()
