"""Metrics: a resumed file holds each step once, intervals cover what they claim to."""

import json
import math

import numpy as np
import pytest

from pivotrl_jax.evaluation import intervals
from pivotrl_jax.records import InputError
from pivotrl_jax.run import metrics


def test_what_is_written_is_read(tmp_path):
    with metrics.MetricsWriter(tmp_path, start_step=0) as w:
        w.write(0, {"loss": np.float32(0.5), "reward": 1})
        w.write(1, {"loss": math.nan, "reward": math.inf})
        with pytest.raises(ValueError, match="not a metric's name"):
            w.write(2, {"step": 3})
    assert metrics.read_metrics(tmp_path) == [
        {"step": 0, "loss": 0.5, "reward": 1.0},
        {"step": 1, "loss": None, "reward": None},
    ]
    assert list((tmp_path / "tensorboard").iterdir())
    assert metrics.read_metrics(tmp_path / "nowhere") == []


def test_a_resumed_run_has_each_step_once(tmp_path):
    with metrics.MetricsWriter(tmp_path, start_step=0) as w:
        for step in range(5):
            w.write(step, {"loss": step})
    with (tmp_path / "metrics.jsonl").open("a") as f:
        f.write('{"step": 5, "lo')  # killed in the middle of a line
    assert [line["step"] for line in metrics.read_metrics(tmp_path)] == [0, 1, 2, 3, 4]
    with metrics.MetricsWriter(tmp_path, start_step=3) as w:
        for step in range(3, 6):
            w.write(step, {"loss": step + 100})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(x["step"], x["loss"]) for x in lines] == [(0, 0), (1, 1), (2, 2), (3, 103), (4, 104), (5, 105)]


@pytest.mark.parametrize("bad", ["{", "[]", '{"loss": 1}', '{"step": "1"}'])
def test_a_bad_line_is_named(tmp_path, bad):
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n' + bad + '\n{"step": 2}\n')
    with pytest.raises(InputError, match=r"metrics\.jsonl:2: not a metrics line"):
        metrics.read_metrics(tmp_path)


def test_wilson_against_published_values():
    # Newcombe 1998, table I, method 3: 81/263, 15/148, 0/20, 1/29
    for successes, n, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        interval = intervals.wilson(successes, n)
        assert interval[1:] == pytest.approx((low, high), abs=5e-5)
        assert interval.mean == successes / n
    assert intervals.wilson(20, 20).high == 1.0
    assert intervals.wilson(0, 0)[1:] == (0.0, 1.0)
    with pytest.raises(ValueError, match="3 of 2"):
        intervals.wilson(3, 2)


def draw_episodes(rng, episodes=60, turns=5):
    """Turn results that share an episode's luck: mean 0.5, strongly correlated within an episode."""
    luck = rng.choice([0.1, 0.9], size=episodes)
    values = rng.random((episodes, turns)) < luck[:, None]
    return values.ravel().astype(float), np.repeat(np.arange(episodes), turns)


def test_cluster_intervals_cover_where_naive_ones_do_not():
    rng = np.random.default_rng(1)
    covered = {"clustered": 0, "one by one": 0}
    for _ in range(200):
        values, clusters = draw_episodes(rng)
        for name, ids in (("clustered", clusters), ("one by one", np.arange(len(values)))):
            covered[name] += intervals.cluster_bootstrap(values, ids.tolist(), draws=400).contains(0.5)
    assert 0.90 <= covered["clustered"] / 200 <= 0.99
    assert covered["one by one"] / 200 < 0.80


def test_bootstrap_of_single_tasks_agrees_with_wilson():
    values = [1.0] * 120 + [0.0] * 280
    interval, exact = intervals.cluster_bootstrap(values, range(400)), intervals.wilson(120, 400)
    assert interval.mean == pytest.approx(0.3)
    assert interval[1:] == pytest.approx(exact[1:], abs=0.005)
    assert interval == intervals.cluster_bootstrap(values, range(400))  # the seed is fixed


def test_pairing_sees_a_small_change_that_independent_intervals_miss():
    rng = np.random.default_rng(2)
    before = (rng.random(300) < 0.5).astype(float)
    after = before.copy()
    after[np.flatnonzero(before == 0)[:15]] = 1.0  # 5 % of the tasks are newly solved, none lost
    change = intervals.paired_difference(before, after, list(range(300)))
    assert change.mean == pytest.approx(0.05) and change.low > 0.02 and change.high < 0.08
    a, b = (intervals.wilson(int(x.sum()), 300) for x in (before, after))
    assert a.high > b.low
    assert intervals.paired_difference(before, before, list(range(300))) == (0.0, 0.0, 0.0)


def test_bootstrap_refuses_what_has_no_mean():
    with pytest.raises(ValueError, match="equal lengths"):
        intervals.cluster_bootstrap([], [])
    with pytest.raises(ValueError, match="equal lengths"):
        intervals.cluster_bootstrap([1.0], ["a", "b"])
    with pytest.raises(ValueError, match="before"):
        intervals.paired_difference([1.0], [1.0, 2.0], ["a", "b"])
