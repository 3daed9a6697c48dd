"""The engine draws what the sampler draws, whatever else it is doing, and computes shared prompts once."""

import contextlib
import dataclasses
import functools
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import tiny_run
from support.forests import DENSE, MOE, sharp_params, widen
from support.frequencies import chi_square

from pivotrl_jax.models import decoder, forest
from pivotrl_jax.rollouts import sampler
from pivotrl_jax.rollouts import sampling as sampling_lib
from pivotrl_jax.serve import chunks, programs
from pivotrl_jax.serve import engine as engine_lib
from pivotrl_jax.serve.engine import Engine, Failed, Full, Sample, Settings
from pivotrl_jax.serve.programs import Capacity

STOPS, TOKENS, SEED = tiny_run.STOPS, 7, 11
CAPACITY = Capacity(rows=2, slots=3, row_tokens=40, completion_tokens=8)
TRUNK = [4, 9, 16, 25, 36, 49, 12, 5, 7]
PROMPTS = [TRUNK, TRUNK[:4], [*TRUNK[:6], 40, 41], [*TRUNK, 30, 31, 32], [50, 2, 17], [50], [*range(1, 31)]]
EACH = 3


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Prompts are longer than a chunk, a chunk holds parts of several, and both rows are computed at once,
    beside a row of padding."""
    monkeypatch.setattr(chunks, "CHUNKS", (8,))
    monkeypatch.setattr(chunks, "BESIDE", {8: 3})


class Drawn:
    """What the engine delivers, by sample."""

    def __init__(self):
        self.pieces, self.wake = {}, threading.Condition()

    def __call__(self, pieces):
        with self.wake:
            for sample, piece in pieces:
                self.pieces.setdefault(sample, []).append(piece)
            self.wake.notify_all()

    def wait(self, samples):
        with self.wake:
            assert self.wake.wait_for(lambda: all(self.finish(s) for s in samples), 120)
        return [self.all(sample) for sample in samples]

    def finish(self, sample):
        return self.pieces[sample][-1].finish if sample in self.pieces else None

    def all(self, sample):
        """(tokens, log-probs, the model's log-probs, why it ended)."""
        lists = ("tokens", "log_probs", "model_log_probs")
        joined = [[x for piece in self.pieces[sample] for x in getattr(piece, name)] for name in lists]
        return *joined, self.finish(sample)


@contextlib.contextmanager
def running(config=MOE, capacity=CAPACITY, by_layer=False, **more):
    drawn, params = Drawn(), params_of(config)
    params = decoder.by_layer(config, params) if by_layer else params
    engine = Engine(config, params, capacity, STOPS, drawn, **more)
    engine.start()
    yield engine, drawn
    engine.stop()


@functools.cache
def params_of(config):
    return sharp_params(config)


def samples_of(prompts=PROMPTS, each=EACH, **settings):
    settings = Settings(**{"max_tokens": TOKENS, "seed": SEED, **settings})
    return [Sample(prompt, settings, i) for prompt in prompts for i in range(each)]


def draw(samples, config=MOE, by_layer=False):
    with running(config, by_layer=by_layer) as (engine, drawn):
        engine.submit(samples)
        return drawn.wait(samples)


def from_sampler(config, **settings):
    """The same completions by `sampler.sample`, with the keys that the engine's docstring states."""
    settings = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, **settings}
    sampling = sampling_lib.Sampling(**settings, max_tokens=TOKENS, stop_ids=STOPS)
    draws = sampler.Sampler(config, sampling, 4, 16, tiny_run.mesh())
    pieces = [[forest.Piece(i, prompt, samples=EACH)] for i, prompt in enumerate(PROMPTS)]
    packed = widen(forest.pack(pieces, 40, len(PROMPTS) * EACH, 2), 2, 40)
    branch = np.full((2, len(PROMPTS) * EACH), -1, np.int32)
    numbers, at, taken = np.zeros((*branch.shape, 1), np.int32), {}, [0, 0]
    for placed in packed.placed:
        for i in range(EACH):
            r, s = at[placed.key, i] = placed.row, taken[placed.row]
            branch[r, s], numbers[r, s] = placed.prompt_slot, i
            taken[r] += 1
    out = draws(params_of(config), packed, branch, jax.random.key(SEED), numbers)
    for key in ((p, i) for p in range(len(PROMPTS)) for i in range(EACH)):
        place = at[key]
        n = out.length[place]
        arrays = [x[place][:n] for x in (out.tokens, out.log_probs, out.model_log_probs)]
        yield *arrays, "stop" if out.finished[place] else "length"


@pytest.mark.parametrize(
    "config, settings, by_layer",
    [
        (MOE, {}, True),
        (MOE, {"temperature": 0.0}, False),
        (MOE, {"temperature": 0.7, "top_p": 0.9, "top_k": 7, "min_p": 0.1}, False),
        (DENSE, {"temperature": 0.7}, False),
        (DENSE, {"temperature": 0.7}, True),
    ],
)
def test_tokens_and_log_probs_are_the_samplers(config, settings, by_layer):
    kinds, drawn = set(), draw(samples_of(**settings), config, by_layer)
    for got, want in zip(drawn, from_sampler(config, **settings), strict=True):
        assert got[0] == want[0].tolist() and got[3] == want[3]
        np.testing.assert_allclose(got[1], want[1], atol=1e-5)
        np.testing.assert_allclose(got[2], want[2], atol=1e-5)
        kinds.add(got[3])
    assert kinds == {"stop", "length"}


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_first_tokens_of_seeds_of_their_own_follow_the_softmax(temperature):
    """What a client's profile draws: every rollout has another seed."""
    settings = Settings(max_tokens=1, temperature=temperature)
    samples = [Sample(TRUNK, dataclasses.replace(settings, seed=1000 + i)) for i in range(1500)]
    with running(max_waiting=len(samples)) as (engine, drawn):
        engine.submit(samples)
        tokens = [tokens[0] for tokens, *_ in drawn.wait(samples)]
    logits = decoder.logits(MOE, params_of(MOE), jnp.asarray([TRUNK]))[0, -1]
    probs = np.exp(scaled := np.asarray(logits, np.float64) / temperature) / np.exp(scaled).sum()
    statistic, bound = chi_square(np.bincount(tokens, minlength=MOE.vocab_size), probs)
    assert statistic < bound


def test_a_sample_does_not_depend_on_what_runs_beside_it():
    alone = [draw([sample])[0] for sample in samples_of(PROMPTS[:2], 2)]
    crowd = samples_of(PROMPTS[2:], 4, seed=5, temperature=0.5, top_k=3)
    mine = samples_of(PROMPTS[:2], 2)
    with running() as (engine, drawn):
        engine.submit([*crowd[:9], *mine, *crowd[9:]])
        together = drawn.wait(mine)
    for a, b in zip(alone, together):
        assert a[0] == b[0] and a[3] == b[3]
        np.testing.assert_allclose(a[1], b[1], atol=1e-5)


def test_seed_and_index_decide_the_tokens():
    one, two = draw(samples_of([TRUNK], 2)), draw(samples_of([TRUNK], 2, seed=12))
    assert one == draw(samples_of([TRUNK], 2))
    assert one[0][0] != one[1][0] and one[0][0] != two[0][0]
    assert draw(samples_of([TRUNK], 1, seed=2**63 - 1)) != draw(samples_of([TRUNK], 1, seed=2**32 - 1))


def test_shared_prefixes_are_computed_once():
    with running(capacity=dataclasses.replace(CAPACITY, rows=1)) as (engine, drawn):
        first = samples_of([TRUNK], 3)
        engine.submit(first)
        drawn.wait(first)
        assert engine.counts.prefilled == len(TRUNK) - 1  # the last token begins the sample
        later = samples_of([[*TRUNK, 1, 2, 3], TRUNK[:5]], 1)
        engine.submit(later)
        drawn.wait(later)
        assert engine.counts.prefilled == len(TRUNK) - 1 + 3
        assert [s.cached for s in first] == [0, 8, 8] and [s.cached for s in later] == [8, 4]


def test_tokens_come_a_few_at_a_time_when_asked_for():
    with running() as (engine, drawn):
        sample = samples_of([TRUNK], 1, soon=True, ignore_stop=True)
        engine.submit(sample)
        drawn.wait(sample)
        assert [len(p.tokens) for p in drawn.pieces[sample[0]]] == [engine_lib.FEW, TOKENS - engine_lib.FEW]


def test_the_most_likely_tokens_are_reported():
    with running() as (engine, drawn):
        sample = samples_of([TRUNK], 1, top=True, temperature=0.0)
        engine.submit(sample)
        drawn.wait(sample)
        piece = drawn.pieces[sample[0]][0]
        assert [row[0][0] for row in piece.top] == piece.tokens
        np.testing.assert_allclose([row[0][1] for row in piece.top], piece.model_log_probs, atol=1e-6)
        assert all(len(row) == programs.TOP and sum(np.exp([p for _, p in row])) < 1 for row in piece.top)


def test_too_many_are_refused_all_or_none():
    engine = Engine(MOE, params_of(MOE), CAPACITY, STOPS, Drawn(), max_waiting=4)
    engine.submit(samples_of([TRUNK], 8))
    with pytest.raises(Full) as e:
        engine.submit(samples_of([TRUNK], 3))
    assert e.value.seconds >= 1 and engine.waiting() == 8
    engine.submit(samples_of([TRUNK], 2))


def test_cancelled_samples_free_their_slots():
    long = samples_of([TRUNK], 6, ignore_stop=True, max_tokens=8, soon=True)
    short = samples_of([[50, 2]], 2)
    with running() as (engine, drawn):
        engine.submit([*long, *short])
        engine.cancel(long)
        drawn.wait(short)
        with drawn.wake:
            assert drawn.wake.wait_for(lambda: engine.counts.samples == 8, 60)
        assert engine.running() == engine.waiting() == 0


def test_a_failure_is_told_to_everybody(monkeypatch):
    monkeypatch.setattr(programs, "decode", lambda *_: 1 / 0)
    with running() as (engine, drawn):
        samples = samples_of([TRUNK], 8)
        engine.submit(samples)
        assert [x[3] for x in drawn.wait(samples)] == ["error"] * 8
        assert "ZeroDivisionError" in engine.failed
        with pytest.raises(Failed):
            engine.submit(samples)


def test_settings_of_their_own_restrict_as_the_samplers_do():
    rng = np.random.default_rng(0)
    scores = jnp.asarray(rng.normal(size=(40, 30)) * 2, jnp.float32)
    settings = [
        (p, int(k), m)
        for p, k, m in zip(
            rng.choice([1.0, 0.3, 0.9], 40), rng.choice([0, 1, 5, 99], 40), rng.choice([0.0, 0.2, 1.0], 40)
        )
    ]
    columns = [
        jnp.asarray(x, jnp.float32 if i != 1 else jnp.int32)[:, None] for i, x in enumerate(zip(*settings))
    ]
    for several in (scores, scores.round()):  # rounded, many are equal
        got = programs.restrict_each(several, *columns)
        for row, one, (p, k, m) in zip(got, several, settings):
            np.testing.assert_array_equal(row, sampling_lib.restrict(one, p, k, m))
