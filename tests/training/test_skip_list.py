"""The skip list: what rewards say about a candidate, when it comes back, and that a kill changes nothing."""

import dataclasses
import itertools
import json
import math
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from support import tiny_run
from support.configs import CONFIGS
from support.learning import Killed, config_of, equal, learn, metrics

from pivotrl_jax import verifiers
from pivotrl_jax.pivots import adaptive
from pivotrl_jax.records import InputError, Rollout, Verdict
from pivotrl_jax.run import check_config
from pivotrl_jax.training import pivotrl, recipe
from pivotrl_jax.training.method import items_of_step
from pivotrl_jax.training.skip_list import FILE, SkipList, SkipRule

G = 8
EVEN = np.full(len(adaptive.GRID), 1 / len(adaptive.GRID))


def group(id, rewards):
    return [Rollout(id, i, [1], [0.0], [0.0], True, "", r, "ok") for i, r in enumerate(rewards)]


def a_list(directory, below=0.5, half_life=20.0) -> SkipList:
    return SkipList(SkipRule(below, half_life, G), directory)


# ---- the chance of a mixed group


def test_the_chance_of_a_mixed_group_by_hand():
    """Two rates, equally likely: one half, where every other group of 2 is mixed, and 1, where none is."""
    prior = np.where(np.isin(adaptive.GRID, [adaptive.GRID[50], 1.0]), 0.5, 0.0)
    p = float(adaptive.GRID[50])
    mixed = 2 * p * (1 - p)
    seen = np.array([0, 1, 0, 0.5]), np.array([0, 1, 1, 0.5])
    nothing, success, failure, half = SkipRule(0.5, 20.0, 2).chances(*seen, prior)
    assert nothing == pytest.approx(mixed / 2)
    assert success == pytest.approx(mixed * p / (1 + p))
    assert failure == pytest.approx(mixed), "a failure rules out the rate of 1"
    guided = SkipRule(0.5, 20.0, 2, failures_teach=True).chances(*seen, prior)
    assert guided[2] == pytest.approx(1 - p**2), "with a demonstration, two failures teach as well"
    assert half == pytest.approx(mixed * p**0.5 / (1 + p**0.5)), "half a success counts half"


@pytest.mark.parametrize("k, n", [(0, 0), (0, 8), (8, 8), (3, 8), (1, 16)])
def test_the_chance_is_the_share_of_mixed_groups_of_a_simulation(k, n):
    rng = np.random.default_rng(0)
    rates = rng.choice(adaptive.GRID, 400_000)
    rates = rates[rng.binomial(n, rates) == k]
    successes = rng.binomial(G, rates)
    share = np.mean((successes > 0) & (successes < G))
    got = SkipRule(0.5, 20.0, G).chances(np.array([float(k)]), np.array([float(n)]), EVEN)[0]
    assert got == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / len(rates)) + 1e-3)


# ---- who is skipped, and for how long


def some_steps(skip_list):
    """A population in which half fail always, a quarter pass always, and a quarter are mixed."""
    for step in range(4):
        assert skip_list.skipped(step, []) == set()
        rows = [
            ("hopeless", [0.0] * G),
            ("never", [0.0] * G),
            ("easy", [1.0] * G),
            ("mixed", [1.0, 0.0] * (G // 2)),
        ]
        skip_list.add(step, [group(f"{name} {step}", rewards) for name, rewards in rows])


def test_equal_groups_are_skipped_and_mixed_and_unseen_ones_are_not(tmp_path):
    skip_list = a_list(tmp_path)
    some_steps(skip_list)
    ids = ["hopeless 3", "unseen", "easy 2", "mixed 1", "never 0"]
    assert skip_list.skipped(4, ids) == {0, 2, 4}
    assert a_list(tmp_path, below=0.0001).skipped(4, ids) == set()


def test_where_demonstrations_teach_only_the_easy_are_skipped(tmp_path):
    skip_list = SkipList(SkipRule(0.5, 20.0, G, failures_teach=True), tmp_path)
    some_steps(skip_list)
    assert skip_list.skipped(4, ["hopeless 3", "unseen", "easy 2", "mixed 1", "never 0"]) == {2}


def test_a_skipped_candidate_comes_back(tmp_path):
    """Its rewards count less from step to step, until its chance is again half of an unseen candidate's."""
    skip_list = a_list(tmp_path, half_life=5.0)
    some_steps(skip_list)
    waits = []
    for step in range(4, 40):
        waits.append(skip_list.skipped(step, ["hopeless 3", "easy 3"]))
        skip_list.add(step, [])
    assert waits[0] == {0, 1} and waits[-1] == set()
    assert all(later <= earlier for earlier, later in itertools.pairwise(waits)), "nobody leaves twice"
    quick = a_list(tmp_path, half_life=1.0)
    assert quick.skipped(10, ["hopeless 3", "easy 3"]) == set() != waits[6]


def test_an_absent_reward_counts_nowhere_and_a_partial_one_keeps_its_candidate(tmp_path):
    skip_list = a_list(tmp_path)
    some_steps(skip_list)
    skip_list.skipped(4, [])
    rows = {"judged": [None] * G, "half": [0.5] * G, "failed": [0.0] * (G - 1) + [None]}
    skip_list.add(4, [group(id, rewards) for id, rewards in rows.items()])
    assert skip_list.skipped(5, list(rows)) == {2}


# ---- the choice of a step's candidates


def chosen(skipped, count=9, step=0, mixed=frozenset(), **changes):
    """The pivots of every draw of a step."""
    draws = []

    def draw(pivots, key):
        draws.append(pivots)
        return [group(str(i), [1.0, 0.0] if i in mixed else [0.0, 0.0]) for i in pivots]

    c = config_of(pivots_per_step=4, **changes).grpo
    pivotrl.sample_groups(draw, step, count, c, 0, jax.random.key(0), skipped)
    return draws


def test_others_take_the_place_of_the_skipped():
    plain = items_of_step(0, 9, 4, 0)
    assert chosen(()) == [plain]
    (pivots,) = chosen({plain[1], plain[2]})
    assert pivots[:2] == [plain[0], plain[3]] and len(set(pivots)) == 4
    assert not {plain[1], plain[2]} & set(pivots)
    assert chosen({plain[1], plain[2]}) == [pivots], "a function of seed, step and skip list"


def test_further_rounds_draw_the_skipped_last():
    plain = items_of_step(0, 9, 4, 0)
    rest = [i for i in range(9) if i not in plain]
    first, second = chosen(set(rest[:2]), dynamic_rounds=1)
    assert first == plain and not set(second) & set(rest[:2]) and set(rest[2:]) <= set(second)
    (pivots,) = chosen(set(range(9)))
    assert len(pivots) == 4, "with nobody left, the skipped are drawn after all"


def test_the_cost_of_a_mixed_group_is_counted():
    mixed, equal = group("a", [1.0, 0.0]), group("b", [0.0, 0.0])
    assert pivotrl.rollouts_per_mixed_group([mixed], [equal, equal, mixed]) == 6
    assert math.isnan(pivotrl.rollouts_per_mixed_group([equal], [equal, equal]))


# ---- a run


PROMPTS = tiny_run.conversations(5)
MORE = {"prompts": PROMPTS, "steps": 6, "dynamic_rounds": 1, "skip_below": 0.9}


def half_hopeless(patch):
    """Half of the made-up candidates accept a third of what the policy draws, and half nothing."""
    third = tiny_run.verifier(lambda ids: ids[0] % 3 == 1)

    def verify(candidate, action):
        return third.verify(candidate, action) if candidate.turn else Verdict(0.0, "toy")

    patch.setitem(verifiers.VERIFIERS, "toy", dataclasses.replace(third, verify=verify))


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    half_hopeless(monkeypatch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(workdir, parameters) of six steps in one go."""
    workdir = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        half_hopeless(patch)
        return workdir, learn(workdir, **MORE)[0]


def journal(workdir):
    return [json.loads(line) for line in (workdir / FILE).read_text("utf-8").splitlines()]


def test_hopeless_candidates_are_sampled_less_often(whole):
    workdir, _ = whole
    lines, drawn = metrics(workdir), journal(workdir)
    assert [line["step"] for line in drawn] == list(range(6))
    assert [len(line["groups"]) for line in drawn] == [line["sampled_groups"] for line in lines]
    assert lines[0]["skipped_candidates"] == 0 < lines[-1]["skipped_candidates"]
    for line in lines:
        cost = line["rollouts_per_mixed_group"]
        mixed = line["mixed_groups"] * line["sampled_groups"]
        assert cost is None if not mixed else cost >= 4
    late = [id for line in drawn[2:] for id, _ in line["groups"]]
    hopeless = sum(id.endswith("@0") for id in late)
    assert hopeless < len(late) - hopeless, "half of the candidates, and less than half of what is sampled"


@pytest.mark.parametrize("last", [3, 4])
def test_a_killed_run_is_the_same_run(whole, tmp_path, last):
    """After 3 steps the latest checkpoint is of step 2, so a line too many is on disk; a torn one, too."""

    def kill(step):
        if step == last:
            raise Killed

    with pytest.raises(Killed):
        learn(tmp_path, on_step=kill, **MORE)
    with (tmp_path / FILE).open("a") as f:
        f.write('{"step": ')
    params, _ = learn(tmp_path, **MORE)
    assert equal(params, whole[1]) and metrics(tmp_path) == metrics(whole[0])
    assert (tmp_path / FILE).read_bytes() == (whole[0] / FILE).read_bytes()


@pytest.mark.parametrize(
    "damage, sentence",
    [
        (lambda text: "", "holds 0 of the 2 steps before the checkpoint"),
        (lambda text: text.replace('"step": 1', '"step": 7'), ":2: .*step 7 stands where"),
        (lambda text: text.replace("[", "{", 1), ":1: not the rewards of a step"),
    ],
)
def test_without_the_rewards_of_earlier_steps_it_stops(tmp_path, damage, sentence):
    learn(tmp_path, **{**MORE, "steps": 2})
    file = tmp_path / FILE
    file.write_text(damage(file.read_text("utf-8")), "utf-8")
    with pytest.raises(InputError, match=sentence):
        learn(tmp_path, **MORE)


def test_off_it_leaves_no_trace(tmp_path):
    learn(tmp_path, prompts=PROMPTS, steps=1)
    assert not (tmp_path / FILE).exists()
    (line,) = metrics(tmp_path)
    assert not {"skipped_candidates", "rollouts_per_mixed_group"} & set(line)
    off = recipe.fixed(CONFIGS.get_config().grpo)
    assert not {"skip_below", "skip_half_life"} & set(off), "checkpoints of a time without it are continued"
    assert recipe.fixed(config_of(skip_below=0.5).grpo)["skip_below"] == 0.5


def test_end_to_end_rl_has_no_skip_list():
    config = CONFIGS.get_config()
    config.method, config.grpo.skip_below = "e2e_rl", 0.5
    with pytest.raises(InputError, match=r"config\.grpo\.skip_below is 0\.5, which config\.method 'e2e_rl'"):
        check_config.check_training(config)
    run = SimpleNamespace(config=CONFIGS.get_config(), workdir=None)
    assert pivotrl.skip_list_of(run) is None
