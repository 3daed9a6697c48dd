"""The simulation of online pivots and the comparison of screened profiles, on a few made-up candidates."""

import importlib.util

import numpy as np
import pytest
from support import tiny_run
from support.paths import ROOT

from pivotrl_jax.pivots import screening
from pivotrl_jax.pivots.selection import make_profile, select
from pivotrl_jax.records import Rollout, write_records


def script(folder):
    path = ROOT / "experiments" / folder / "run.py"
    spec = importlib.util.spec_from_file_location(f"{folder}_run", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_on_a_pool_that_is_visited_again_the_skip_list_saves():
    """Of 64 candidates, 16 are mixed half of the time or more; the others never."""
    simulate = script("online_pivots").simulate
    rates = np.array([0.5] * 16 + [0.0] * 32 + [1.0] * 16)
    plain, skipping = (simulate(rates, below, 20.0, 20)[-1] for below in (0.0, 0.5))
    assert plain["skipped"] == 0 < skipping["skipped"] <= 48
    assert skipping["rollouts_per_mixed_group"] < 0.7 * plain["rollouts_per_mixed_group"]


def test_a_screened_profile_is_compared_with_the_full_one(tmp_path):
    candidates = [tiny_run.candidate(id) for id in "abcd"]
    rewards = {"a": [0, 1], "b": [1, 0], "c": [1, 1], "d": [0, 0]}
    chance = {"a": 0.1, "b": 0.6, "c": 0.99, "d": 0.01}
    for run, out in (("full", ""), ("screened", "bc")):
        profiles, groups = [], []
        for c in candidates:
            id, early = c.trajectory_id, "screened" if c.trajectory_id in out else ""
            drawn = [] if early else [float(r) for r in rewards[id]]
            profiles.append(make_profile(c, drawn, "pi", "toy/1", 1.0, 0, early))
            groups += [Rollout(c.id, i, [1], [0.0], [0.0], True, "", r, "") for i, r in enumerate(drawn)]
        write_records(tmp_path / run / "profiles.jsonl", profiles)
        write_records(tmp_path / run / "pivots.jsonl", select(profiles, 0.6).pivots(candidates))
        write_records(tmp_path / run / "rollouts/00000.jsonl", groups)
    decisions = [
        screening.Decision(c.id, c.trajectory_id in "bc", float(np.log(chance[c.trajectory_id])))
        for c in candidates
    ]
    screening.write(tmp_path / "screened/rollouts/00000.jsonl", decisions)
    compare = script("profile_screen").compare
    assert compare(tmp_path / "full", tmp_path / "full")["of the full profile"] == 2
    line = compare(tmp_path / "full", tmp_path / "screened")
    counts = [line[name] for name in ("rollouts", "pivots", "of the full profile", "screened", "scored")]
    assert counts == [4, 1, 1, 2, 4]
    assert line["by threshold"]["0.5"] == {"share screened": 0.5, "pivots lost": 1}
    correlation = np.corrcoef(list(chance.values()), [0.5, 0.5, 1, 0])[0, 1]
    assert line["correlation"] == pytest.approx(correlation, abs=1e-3)
