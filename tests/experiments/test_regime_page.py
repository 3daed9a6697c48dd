"""The page of experiments/regime, from results made up here: what is paired with what, what counts as a hit,
and the statistics that all pages share."""

import json
import math
import sys

import numpy as np
import pytest
from support.paths import ROOT

EXPERIMENTS = ROOT / "experiments"
MODULES = ("intervals", "near", "pooled", "predictions", "figures", "page", "runs", "corpus", "generic")


@pytest.fixture(autouse=True)
def modules(monkeypatch, tmp_path):
    for folder in (EXPERIMENTS, EXPERIMENTS / "regime"):
        monkeypatch.syspath_prepend(str(folder))
    import intervals
    import pooled

    monkeypatch.setattr(pooled, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(intervals, "REPEATS", 200)
    yield
    for name in MODULES:
        sys.modules.pop(name, None)


def policy(rng, won):
    """Made-up measurements: 20 episodes, 6 turns of 3 trajectories, of which 4 are calls."""
    return {
        "episodes": (rng.random(20) < won).tolist(),
        "turns": rng.random(6).round(2).tolist(),
        "is_call": "110110",
        "lengths": [2, 1, 3],
        "near": {
            "pretrain_split": [1.0] * 659,
            "generic_calls": [0.5] * 100,
            "induction": [0.0] * 100,
        },
        "kl": {"held_out": [0.5] * 4, "near": [0.25] * 4},
        "demonstrations": {"log_prob": -30.0, "tokens": 100, "turns": 9},
    }


def write(where, arm, seed, won=0.5, pivots=32, **more):
    """results/T1/{arm}_seed{seed}.json of a run of 40 steps of 16 groups of 8."""
    rng = np.random.default_rng([seed, *arm.encode()])
    counts = {
        "candidates": 320,
        "profiling_rollout_turns": 1000,
        "training_rollout_turns": 40 * 16 * 8,
    }
    metrics = [{"step": s, "mixed_groups": 0.5, "group_reward_std": 0.1 * (seed + 1)} for s in range(40)]
    found = {"counts": counts | ({"pivot": pivots} if pivots else {}), "metrics": metrics, "seconds": {}}
    found |= {"pi_0": policy(rng, 0.2), "10": policy(rng, won), "40": policy(rng, won)} | more
    file = where / "results" / "T1" / f"{arm}_seed{seed}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found))
    return found


def test_a_difference_is_paired_by_the_seeds_that_both_have(tmp_path):
    import pooled

    one = [write(tmp_path, "pivotrl", seed) for seed in (0, 1, 3)]
    other = [write(tmp_path, "random_turns", seed, pivots=0) for seed in (1, 2, 3)]
    assert pooled.seeds("T1", "pivotrl", "random_turns") == [1, 3]
    found = pooled.difference(("T1", "pivotrl", 40), ("T1", "random_turns", 40), "episodes")
    pairs = ((one[1], other[0]), (one[2], other[2]))
    want = np.mean([np.mean(a["40"]["episodes"]) - np.mean(b["40"]["episodes"]) for a, b in pairs])
    assert found["value"] == pytest.approx(want) and found["seeds"] == 2
    assert found["low"] <= found["value"] <= found["high"] and 0 < found["p"] <= 1
    assert pooled.difference(("T1", "pivotrl", 40), ("T1", "exact", 40), "episodes") is None


def test_the_calls_of_a_trajectory_are_one_cluster(tmp_path):
    import pooled

    found = write(tmp_path, "pivotrl", 0)["10"]
    values, clusters = pooled.series(found, "call turns")
    assert values == [found["turns"][i] for i in (0, 1, 3, 4)] and clusters == ["0", "0", "2", "2"]
    values, clusters = pooled.series(found, "pretrain_split")
    assert len(values) == len(clusters) and len(set(clusters)) == 100
    other = write(tmp_path, "pivotrl", 1)
    (other["10"]["lengths"], other["10"]["is_call"]) = [3, 3], "110110"
    write(tmp_path, "pivotrl", 1, **{"10": other["10"]})
    with pytest.raises(ValueError, match="not measured on the same items"):
        pooled.stacked("T1", "pivotrl", 10, "call turns", [0, 1])


def test_visits_and_rollouts_are_those_up_to_a_step(tmp_path):
    import pooled

    write(tmp_path, "pivotrl", 0)
    write(tmp_path, "random_turns", 0, pivots=0)
    assert pooled.visits("T1", "pivotrl", 10, 0) == 10 * 16 / 32
    assert pooled.visits("T1", "random_turns", 10, 0) == 10 * 16 / 320
    assert pooled.rollouts("T1", "pivotrl", 10, 0) == (1000, 10 * 128)
    sampled = [{"step": s, "sampled_groups": 30 if s < 10 else 10} for s in range(40)]
    write(tmp_path, "online", 0, pivots=0, metrics=sampled)
    assert pooled.rollouts("T1", "online", 10, 0)[1] == 5120 // 2
    assert pooled.expert_gap("T1", "pivotrl", 0) == 0.3


@pytest.mark.parametrize(
    "value, low, high, outcome",
    [
        (0.04, -0.1, 0.2, "hit"),
        (0.02, 0.0, 0.04, "open"),
        (0.02, 0.01, 0.029, "miss"),
        (0.2, 0.081, 0.3, "miss"),
        (0.2, math.nan, math.nan, "open"),
    ],
)
def test_what_counts_as_a_hit(value, low, high, outcome):
    import predictions

    prediction = predictions.Prediction("", "", 0.03, 0.08, lambda: None)
    assert prediction.outcome({"value": value, "low": low, "high": high}) == outcome


def test_the_cost_of_end_to_end_rl_is_read_off_its_curve(tmp_path):
    import predictions

    def won(share):
        return {"episodes": [i < 10 * share for i in range(10)]}

    (tmp_path / "results" / "T3").mkdir(parents=True)
    for arm, at_10, at_40, turns in (("pivotrl", 0.3, 0.4, 4000), ("e2e_rl", 0.2, 0.6, 40_000)):
        counts = {"profiling_rollout_turns": 6000 * (arm == "pivotrl"), "training_rollout_turns": turns}
        found = {"counts": counts, "metrics": [{}] * 40, "pi_0": won(0.1), "10": won(at_10), "40": won(at_40)}
        (tmp_path / "results" / "T3" / f"{arm}_seed0.json").write_text(json.dumps(found))
    # .4 lies half way between step 10 (10,000 turns) and step 40 (40,000)
    assert predictions.e2e_cost(False)["value"] == pytest.approx(25_000 / 4000)
    assert predictions.e2e_cost(True)["value"] == pytest.approx(25_000 / 10_000)
    assert math.isnan(predictions.e2e_cost(True)["low"])


def test_the_page_shows_what_is_there_and_says_what_is_not(tmp_path, monkeypatch):
    import figures
    import page

    for seed in (0, 1):
        for arm, pivots in (("pivotrl", 320), ("random_turns", 0), ("pivotrl_64", 16), ("random_64", 0)):
            write(tmp_path, arm, seed, won=0.6, pivots=pivots)
    (tmp_path / "README.md").write_text("before\n<!-- results -->\nold\n<!-- end -->after\n")
    monkeypatch.setattr(page, "HERE", tmp_path)
    monkeypatch.setattr(figures, "HERE", tmp_path)
    monkeypatch.setattr(figures.draw, "__defaults__", (tmp_path,))
    page.main()
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("before\n<!-- results -->\n") and text.endswith("<!-- end -->after\n")
    assert "old" not in text and "| pivotrl_64 | 2 | 40 |" in text and "## T2" not in text
    results = json.loads((tmp_path / "results.json").read_text())
    assert {p["outcome"] for p in results["predictions"] if p["seeds"] == 0} == {"not run"}
    assert sum(p["seeds"] == 2 for p in results["predictions"]) == 6
    assert [(p["visits"], p["step"]) for p in results["filter"]] == [(0.5, 10), (2, 40), (10, 10), (40, 40)]
    assert (tmp_path / "filter.svg").stat().st_size > 5000 and not (tmp_path / "methods.svg").is_file()


def test_the_model_of_the_filter_is_zero_without_a_difference_of_mixed_shares():
    import figures

    curve = (0.2, 0.6, 30.0)
    assert figures.modelled(1, 20, ((-1, -0.02, 0), (-1, -0.02)), curve) == pytest.approx(0)
    # four times the share of mixed groups: the way of twice the steps
    gain = figures.modelled(1, 20, ((math.log(4), 0, 0), (0, 0)), curve)
    assert gain == pytest.approx(0.4 * (math.exp(-20 / 30) - math.exp(-40 / 30)))


def test_holm_and_p_values():
    import intervals

    assert intervals.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert intervals.holm([0.5, 0.9]) == pytest.approx([1, 1])
    rng = np.random.default_rng(0)
    clusters = [str(i) for i in range(200)]
    assert intervals.p_value(1 + rng.normal(size=(3, 200)) * 0.1, clusters) == 1 / 200
    assert intervals.p_value(rng.normal(size=(1, 200)) * 0.1, clusters) > 0.05


def test_a_page_without_its_marks_is_left_as_it_is(tmp_path):
    import intervals

    page = tmp_path / "README.md"
    page.write_text("text\n<!-- results -->\nmore\n")
    with pytest.raises(ValueError, match="needs the lines"):
        intervals.put_between_marks(page, "new")
    assert page.read_text() == "text\n<!-- results -->\nmore\n"
