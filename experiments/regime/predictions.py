"""The predictions of README.md as ranges, and what the pooled results say of each.

"hit": the estimate lies in the range. "miss": the whole 95 % interval lies outside. "open": the estimate
lies outside, but the interval reaches in. A ratio of one seed has no interval: it is a hit or open.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pooled
from pooled import intervals

SFT = "sft_1_3e-4"
ANY = math.inf
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # Student's t, by the number of seeds
Found = dict[str, float] | None


@dataclasses.dataclass(frozen=True)
class Prediction:
    """`find` gives {"value", "low", "high", "seeds"} and, of a paired difference, "p"; None as long as
    nothing is measured."""

    claim: str
    what: str
    low: float
    high: float
    find: Callable[[], Found]
    is_ratio: bool = False

    def outcome(self, found: dict[str, float]) -> str:
        if self.low <= found["value"] <= self.high:
            return "hit"
        return "miss" if found["low"] > self.high or found["high"] < self.low else "open"


def less(one: tuple, other: tuple, measure: str) -> Callable[[], Found]:
    """One (test, arm, step) less another."""
    return lambda: pooled.difference(one, other, measure)


def spread(values: list[float]) -> Found:
    """The mean of one value per seed, with the interval of Student's t."""
    if not values:
        return None
    S = len(values)
    half = T_95[S] * np.std(values, ddof=1) / math.sqrt(S) if S > 1 else math.nan
    mean = float(np.mean(values))
    return {"value": mean, "low": mean - half, "high": mean + half, "seeds": S}


def std_ratio(steps: slice) -> Found:
    """Group reward std of T1's pivots over that of its random turns."""
    which = pooled.seeds("T1", "pivotrl", "random_turns")
    means = [
        pooled.curve("T1", arm, "group_reward_std", which)[:, steps].mean(1)
        for arm in ("pivotrl", "random_turns")
        if which
    ]
    return spread(list(means[0] / means[1])) if which else None


def e2e_cost(profiling: bool) -> Found:
    """Rollouts of end-to-end RL to the success that PivotRL has at 40 steps, over PivotRL's."""
    ratios = []
    for seed in pooled.seeds("T3", "pivotrl", "e2e_rl"):
        target = float(np.mean(pooled.result("T3", "pivotrl", seed)["40"]["episodes"]))
        profile, trained = pooled.rollouts("T3", "pivotrl", 40, seed)
        policies = ["pi_0", *pooled.steps("T3", "e2e_rl", seed)]
        won = [np.mean(pooled.result("T3", "e2e_rl", seed)[str(p)]["episodes"]) for p in policies]
        spent = [0.0, *(float(sum(pooled.rollouts("T3", "e2e_rl", p, seed))) for p in policies[1:])]
        needed = intervals.needed(np.array(spent), np.array(won), target)
        ratios.append(needed / (trained + profile * profiling))
    return spread(ratios)


def at(test: str, arm: str, step: int | str) -> tuple[str, str, int | str]:
    return test, arm, step


PIVOTS_10, PIVOTS_40 = at("T1", "pivotrl", 10), at("T1", "pivotrl", 40)
RANDOM_10, RANDOM_40 = at("T1", "random_turns", 10), at("T1", "random_turns", 40)
T2_PIVOTS, PI_0 = at("T2", "pivotrl", 40), "pi_0"

PREDICTIONS = [
    Prediction(
        "filter", "pivots less random turns, 10 steps", 0.03, 0.08, less(PIVOTS_10, RANDOM_10, "episodes")
    ),
    Prediction("filter", "the same, 40 steps", -0.03, 0.03, less(PIVOTS_40, RANDOM_40, "episodes")),
    Prediction(
        "filter",
        "the same, 40 steps on 64 demonstrations (8 visits per pivot and more)",
        -0.10,
        -0.03,
        less(at("T1", "pivotrl_64", 40), at("T1", "random_64", 40), "episodes"),
    ),
    Prediction(
        "variance",
        "std on pivots over random turns, steps 1 to 10",
        3,
        ANY,
        lambda: std_ratio(slice(10)),
        True,
    ),
    Prediction(
        "variance",
        "the same, steps 26 to 40 (should fail: under 3)",
        0,
        3,
        lambda: std_ratio(slice(25, 40)),
        True,
    ),
    Prediction(
        "functional reward",
        "T1: exact less functional, 40 steps",
        -0.03,
        0.03,
        less(at("T1", "exact", 40), PIVOTS_40, "episodes"),
    ),
    Prediction(
        "functional reward",
        "T2: string match less functional, 40 steps",
        -ANY,
        -0.05,
        less(at("T2", "exact_string", 40), T2_PIVOTS, "episodes"),
    ),
    Prediction(
        "out of domain",
        "T1: SFT less pi_0, pretrain split",
        -0.06,
        -0.02,
        less(at("T1", SFT, -1), at("T1", SFT, PI_0), "pretrain_split"),
    ),
    Prediction(
        "out of domain",
        "T1: PivotRL less pi_0, pretrain split",
        -0.01,
        0.04,
        less(PIVOTS_40, at("T1", "pivotrl", PI_0), "pretrain_split"),
    ),
    Prediction(
        "out of domain",
        "T2: SFT less pi_0, pretrain split",
        -ANY,
        -0.06,
        less(at("T2", SFT, -1), at("T2", SFT, PI_0), "pretrain_split"),
    ),
    Prediction(
        "above SFT in domain", "T1: PivotRL less SFT", -ANY, 0, less(PIVOTS_40, at("T1", SFT, -1), "episodes")
    ),
    Prediction(
        "above SFT in domain",
        "T2: PivotRL less SFT",
        -0.04,
        0.04,
        less(T2_PIVOTS, at("T2", SFT, -1), "episodes"),
    ),
    Prediction(
        "end-to-end RL", "T3: its rollouts over those of PivotRL", 5, 10, lambda: e2e_cost(False), True
    ),
    Prediction("end-to-end RL", "T3: the same, profiling counted", 0.7, 1.5, lambda: e2e_cost(True), True),
    Prediction(
        "end-to-end RL",
        "T3: end-to-end less PivotRL, 40 steps",
        0,
        ANY,
        less(at("T3", "e2e_rl", 40), at("T3", "pivotrl", 40), "episodes"),
    ),
]
