"""The claims' arithmetic: pooling over seeds and tasks, costs at matched success, verdicts."""

import json
import sys

import numpy as np
import pytest
from support.paths import ROOT

EXPERIMENTS = ROOT / "experiments"


@pytest.fixture(autouse=True)
def modules(monkeypatch):
    for folder in (EXPERIMENTS, EXPERIMENTS / "claims"):
        monkeypatch.syspath_prepend(str(folder))
    yield
    for name in ("runs", "pooling", "efficiency", "intervals", "results_page", "run_all"):
        sys.modules.pop(name, None)


def test_the_interval_covers_the_truth_as_often_as_it_says(monkeypatch):
    """Five seeds and forty tasks, both random; 95 % would be some 90 without the spread of seeds."""
    import intervals

    monkeypatch.setattr(intervals, "REPEATS", 400)
    rng, tasks, inside = np.random.default_rng(0), [str(i) for i in range(40)], 0
    for _ in range(300):
        seed, task = rng.normal(size=(5, 1)) * 0.3, rng.normal(size=(1, 40))
        found = intervals.interval(0.7 + seed + task + rng.normal(size=(5, 40)) * 0.5, tasks)
        inside += found["low"] <= 0.7 <= found["high"]
    assert 0.89 < inside / 300 < 0.98


def test_a_level_is_reached_between_the_checkpoints_around_it():
    import intervals

    cost, won = np.array([0.0, 100.0, 200.0, 400.0]), np.array([0.2, 0.4, 0.3, 0.6])
    for level, want in ((0.2, 0), (0.1, 0), (0.3, 50), (0.4, 100), (0.45, 300), (0.6, 400), (0.61, np.inf)):
        assert intervals.needed(cost, won, level) == pytest.approx(want)


def test_the_ratio_of_costs_is_at_the_success_that_both_reach(tmp_path):
    import efficiency

    def write(name, seed, points):
        folder = tmp_path / name / f"seed{seed}"
        folder.mkdir(parents=True)
        lines = [
            {"rollout_turns": turns, "seconds": turns / 10, "episodes": [1.0] * won + [0.0] * (10 - won)}
            for turns, won in points
        ]
        (folder / "curve.json").write_text(json.dumps(lines))

    for seed in (0, 1):
        write("pivotrl", seed, [(0, 2), (100, 4), (200, 8)])
        write("e2e_rl", seed, [(0, 2), (1000, 4), (2000, 6)])
    found = efficiency.matched(tmp_path, [0, 1])["matched"]
    assert found["level"] == pytest.approx(0.6)
    assert found["rollout_turns"]["pivotrl"] == pytest.approx(150)
    assert found["rollout_turns"]["e2e_rl"] == pytest.approx(2000)
    ratio = found["rollout_turns"]["ratio"]
    assert ratio["value"] == pytest.approx(2000 / 150)
    assert ratio["low"] <= ratio["value"] <= ratio["high"]


def test_a_verdict_is_the_intervals():
    import results_page

    def entry(low, value, high):
        return {"low": low, "value": value, "high": high}

    assert results_page.signed(entry(0.01, 0.1, 0.2), 1) == "reproduced"
    assert results_page.signed(entry(-0.01, 0.1, 0.2), 1) == "partly"
    assert results_page.signed(entry(-0.2, -0.1, 0.2), 1) == "not"
    assert results_page.signed(entry(-0.2, -0.1, -0.05), -1) == "reproduced"
    assert results_page.signed(entry(1.2, 2.0, 3.0), 1, 1.0) == "reproduced"
    assert results_page.signed(entry(0.8, 2.0, 3.0), 1, 1.0) == "partly"
    assert results_page.exact(1e-9)[2] == "reproduced"
    assert results_page.exact(1e-3)[2] == "not"


def test_every_command_of_run_all_is_a_script_that_is_there():
    import run_all

    for quick in (False, True):
        for command in run_all.commands(quick, [0, 1], 2):
            assert (EXPERIMENTS / command[0]).is_file()
    assert "--seeds=0,1" in run_all.commands(False, [0, 1], 2)[1]


def test_the_page_has_a_row_per_claim_whose_numbers_are_there(tmp_path):
    import results_page

    found = results_page.rows(EXPERIMENTS)
    parts = {"theorem_3_2", "theorem_3_3", "regime", "ablations", "smollm2", "adaptive_profiling"}
    assert {row.where for row in found} >= parts
    assert results_page.rows(tmp_path) == []
    results_page.write(EXPERIMENTS, None, tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    groups = results_page.groups(EXPERIMENTS)
    assert len(groups) == 5
    assert all(f"## {title}\n" in page for title, _, _ in groups)
    assert page.count("\n|") == len(found) + 2 * len(groups)


def test_rows_of_the_regime_and_of_the_language_model_have_their_intervals_verdicts():
    import results_page

    def difference(what, low, value, high, **fields):
        numbers = {"low": low, "value": value, "high": high, "seeds": 2, "is_ratio": False}
        return {"what": what, **numbers, **fields}

    predictions = [
        difference("pivots less random turns, 10 steps", 0.01, 0.05, 0.09),
        difference("T1: exact less functional, 40 steps", -0.07, -0.02, 0.03),
        difference("T1: PivotRL less pi_0, pretrain split", -0.03, 0.0, 0.03),
        difference("std on pivots over random turns, steps 1 to 10", 1.2, 3.0, 4.8, is_ratio=True),
        difference("T3: its rollouts over those of PivotRL", 0, 0.8, 0, is_ratio=True, seeds=1),
        {"what": "the same, 40 steps", "seeds": 0, "is_ratio": False},  # not run: no row
    ]
    found = list(results_page.regime_rows(lambda name: {"predictions": predictions}))
    assert [row.verdict for row in found] == ["reproduced", "reproduced", "partly", "not", "not"]
    assert [row.ours for row in found] == ["+0.050", "3.0x", "-0.020", "+0.000", "0.8x"]
    changes = {"all rows": {"low": -0.2, "value": -0.1, "high": -0.05, "seeds": 3}}
    found = list(results_page.language_rows(lambda name: {"differences": {"pivotrl - sft_4": changes}}))
    assert [(row.ours, row.verdict) for row in found] == [("-0.100", "not")]
    assert found[0].claim.endswith("(seeds: 3)")
