"""What the sampler records is what the model says, whatever is drawn beside it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from forests import DENSE, MOE, arrays_of, sharp_params, widen

from pivotrl_jax import forest, model, sampler, update
from pivotrl_jax.forest import Piece
from pivotrl_jax.sampler import Sampler, Sampling

ROWS, BRANCHES, SLOTS, TOKENS = tiny_run.ROWS, tiny_run.BRANCHES, tiny_run.SLOTS, 5
STREAM = jax.random.key(11)
PLAIN = tiny_run.SAMPLING
COOL = dataclasses.replace(PLAIN, temperature=0.7)
CUT = dataclasses.replace(PLAIN, temperature=0.7, top_p=0.8, top_k=5)
GREEDY = dataclasses.replace(PLAIN, temperature=0.0)

# two trees in one row and one in another: prompts that share nothing, that branch off the middle of another
# prompt, and that extend one
TRUNK = [4, 9, 16, 25, 36, 49, 12, 5, 7]
PROMPTS = {
    0: TRUNK,
    1: TRUNK[:4],
    2: [*TRUNK[:6], 40, 41],
    3: [*TRUNK, 30, 31, 32],
    4: [50, 2, 17],
    5: [50, 2],
}
GROUPS = [[0, 1, 2, 3], [4], [5]]
SAMPLES = {0: 2, 1: 2, 2: 2, 3: 2, 4: 3, 5: 3}


@functools.cache
def sampler_of(config, sampling: Sampling) -> Sampler:
    return Sampler(config, sampling, tiny_run.CHUNK, tiny_run.mesh())


@functools.cache
def params_of(config):
    return sharp_params(config)


def draw_all(config, sampling, groups, samples=SAMPLES):
    """(prompt, sample) -> (tokens, log_probs, finished), drawn together as `groups` says."""
    pieces = [[Piece(k, PROMPTS[k], samples=samples[k]) for k in group] for group in groups]
    packed = widen(forest.pack(pieces, SLOTS, BRANCHES, ROWS), ROWS, SLOTS)
    branch = np.full((ROWS, BRANCHES), -1, np.int32)
    numbers = np.zeros((ROWS, BRANCHES, 2), np.int32)
    at, taken = {}, [0] * ROWS
    for placed in packed.placed:
        for sample in range(samples[placed.key]):
            r, s = at[placed.key, sample] = placed.row, taken[placed.row]
            branch[r, s], numbers[r, s] = placed.prompt_slot, (placed.key, sample)
            taken[r] += 1
    out = sampler_of(config, sampling)(params_of(config), packed, branch, STREAM, numbers)
    found = {}
    for key, (r, s) in at.items():
        n = out.length[r, s]
        assert not out.tokens[r, s, n:].any() and not out.log_probs[r, s, n:].any()
        found[key] = out.tokens[r, s, :n].tolist(), out.log_probs[r, s, :n], bool(out.finished[r, s])
    return found


@functools.cache
def together(config, sampling):
    return draw_all(config, sampling, GROUPS)


@functools.partial(jax.jit, static_argnums=0)
def _logits(config, params, tokens):
    return model.logits(config, params, tokens)


def logits_after(config, sequences: list[list[int]]) -> np.ndarray:
    """[16, 24, V] logits of plain sequences, computed one by one in a padded batch."""
    tokens = np.zeros((16, 24), np.int32)
    for row, ids in zip(tokens, sequences):
        row[: len(ids)] = ids
    return np.asarray(_logits(config, params_of(config), tokens), np.float64)


def slow_log_probs(logits_V, sampling: Sampling) -> np.ndarray:
    """The distribution to draw from, token by token in Python: -inf for what is outside it."""
    scaled = logits_V / sampling.temperature
    probs = np.exp(scaled - scaled.max())
    kept = sorted(range(len(probs)), key=lambda v: -probs[v])
    if sampling.top_k:
        kept = kept[: sampling.top_k]
    nucleus, mass, total = [], 0.0, sum(probs[v] for v in kept)
    for v in kept:
        if mass >= sampling.top_p * total:
            break
        nucleus.append(v)
        mass += probs[v]
    out = np.full(len(probs), -np.inf)
    for v in nucleus:
        out[v] = np.log(probs[v] / mass)
    return out


# ---- log-probs


@pytest.mark.parametrize(
    ("config", "sampling"),
    [(MOE, PLAIN), (MOE, COOL), (MOE, CUT), (DENSE, PLAIN)],
    ids=["moe", "temperature", "cut", "dense"],
)
def test_recorded_log_probs_are_those_of_the_distribution_drawn_from(config, sampling):
    drawn = together(config, sampling)
    logits = logits_after(config, [[*PROMPTS[k], *tokens] for (k, _), (tokens, _, _) in drawn.items()])
    for row, ((k, _), (tokens, log_probs, _)) in zip(logits, drawn.items()):
        for i, token in enumerate(tokens):
            want = slow_log_probs(row[len(PROMPTS[k]) - 1 + i], sampling)[token]
            assert np.isfinite(want), "a token outside the nucleus was drawn"
            assert abs(log_probs[i] - want) < 1e-4


@pytest.mark.parametrize("sampling", [PLAIN, COOL], ids=["1", "0.7"])
def test_the_learner_recomputes_the_sampled_log_probs(sampling):
    drawn = together(MOE, sampling)
    pieces = [[Piece(k, PROMPTS[k], [drawn[k, s][0] for s in range(SAMPLES[k])]) for k in g] for g in GROUPS]
    packed = forest.pack(pieces, 96, 0, 1)
    weight, want = np.zeros(packed.tokens.shape, np.float32), np.zeros(packed.tokens.shape, np.float32)
    for placed in packed.placed:
        for s in range(SAMPLES[placed.key]):
            tokens, log_probs, _ = drawn[placed.key, s]
            packed.write(weight, placed, s, np.ones(len(tokens)))
            packed.write(want, placed, s, log_probs)
    batch = {**arrays_of(packed), "weight": weight}
    compute = update.Compute(tiny_run.CHUNK, 16, "nothing")
    compiled = jax.jit(update.forest_log_probs, static_argnums=(0, 1))
    found, _ = compiled(MOE, compute, params_of(MOE), batch, sampling.temperature)
    assert weight.sum() == sum(len(tokens) for tokens, _, _ in drawn.values())
    np.testing.assert_allclose(found, want, atol=1e-4)


def test_greedy_is_the_argmax_of_every_step():
    drawn = together(MOE, GREEDY)
    sequences = {k: list(prompt) for k, prompt in PROMPTS.items()}
    for _ in range(TOKENS):
        logits = logits_after(MOE, list(sequences.values()))
        for row, (k, ids) in zip(logits, sequences.items()):
            if len(ids) == len(PROMPTS[k]) or ids[-1] not in GREEDY.stop_ids:
                ids.append(int(row[len(ids) - 1].argmax()))
    for (k, _), (tokens, log_probs, _) in drawn.items():
        assert [*PROMPTS[k], *tokens] == sequences[k]
        assert not log_probs.any()


# ---- independence


def test_a_draw_does_not_depend_on_row_or_neighbours():
    """Whole forest, each prompt alone, other company in other rows: the same keys draw the same tokens."""
    expected = together(MOE, PLAIN)
    alone = {}
    for k in PROMPTS:
        alone |= draw_all(MOE, PLAIN, [[k]])
    moved = draw_all(MOE, PLAIN, [[5], [4, 3], [2, 1]], {**SAMPLES, 4: 2})
    assert len({tuple(tokens) for tokens, _, _ in expected.values()}) > 10, "keys differ by sample"
    for found in (alone, moved):
        for key, (tokens, log_probs, finished) in found.items():
            assert (tokens, finished) == (expected[key][0], expected[key][2])
            np.testing.assert_allclose(log_probs, expected[key][1], atol=1e-4)


def test_the_stream_decides_the_draw():
    packed = widen(forest.pack([[Piece(0, TRUNK, samples=8)]], SLOTS, BRANCHES, ROWS), ROWS, SLOTS)
    branch = np.full((ROWS, BRANCHES), -1, np.int32)
    branch[0] = packed.placed[0].prompt_slot
    numbers = np.stack([np.zeros_like(branch), np.arange(16).reshape(2, 8)], -1).astype(np.int32)
    run = functools.partial(sampler_of(MOE, PLAIN), params_of(MOE), packed, branch)
    one, again, other = (run(jax.random.key(n), numbers).tokens for n in (1, 1, 2))
    assert (one == again).all() and (one != other).any()


# ---- the end of a sample


def test_a_stop_token_ends_a_sample_and_belongs_to_it():
    ends = {True: 0, False: 0}
    for tokens, _, finished in together(MOE, PLAIN).values():
        ends[finished] += 1
        stops = [token in PLAIN.stop_ids for token in tokens]
        assert stops == [False] * (len(tokens) - 1) + [finished]
        assert finished or len(tokens) == TOKENS
    assert min(ends.values()) >= 2, "the case must show both ends"


# ---- frequencies


def chi_square(counts: np.ndarray, probs: np.ndarray) -> tuple[float, float]:
    """Pearson's statistic over bins of at least 8 expected draws (the rest pooled), and a 4-sigma bound."""
    expected = probs * counts.sum()
    big = expected >= 8
    observed = np.append(counts[big], counts[~big].sum())
    expected = np.append(expected[big], expected[~big].sum())
    observed, expected = observed[expected > 1], expected[expected > 1]
    df = len(expected) - 1
    return float(((observed - expected) ** 2 / expected).sum()), df + 4 * np.sqrt(2 * df)


NUCLEUS = dataclasses.replace(PLAIN, top_p=0.8)
TOP_K = dataclasses.replace(PLAIN, top_k=5)


@pytest.mark.parametrize("sampling", [PLAIN, CUT, NUCLEUS, TOP_K], ids=["1", "cut", "nucleus", "top_k"])
def test_frequencies_follow_the_distribution(sampling):
    logits = np.random.default_rng(5).normal(size=40) * 1.5
    keys = jax.random.split(jax.random.key(3), 20_000)
    batch = jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (len(keys), 40))
    tokens, log_probs = jax.jit(sampler.draw, static_argnums=2)(batch, keys, sampling)
    want = slow_log_probs(logits, sampling)
    np.testing.assert_allclose(log_probs, want[tokens], atol=1e-4)
    statistic, bound = chi_square(np.bincount(tokens, minlength=40), np.exp(want))
    assert statistic < bound


def test_first_tokens_of_the_sampler_follow_the_softmax():
    counts = np.zeros(MOE.vocab_size, int)
    packed = widen(forest.pack([[Piece(0, TRUNK, samples=8)]], SLOTS, BRANCHES, ROWS), ROWS, SLOTS)
    branch = np.full((ROWS, BRANCHES), -1, np.int32)
    branch[0] = packed.placed[0].prompt_slot
    for call in range(120):
        numbers = np.stack([np.full_like(branch, call), np.arange(16).reshape(2, 8)], -1).astype(np.int32)
        out = sampler_of(MOE, PLAIN)(params_of(MOE), packed, branch, STREAM, numbers)
        counts += np.bincount(out.tokens[0, :, 0], minlength=MOE.vocab_size)
    want = np.exp(slow_log_probs(logits_after(MOE, [TRUNK])[0, len(TRUNK) - 1], PLAIN))
    statistic, bound = chi_square(counts, want)
    assert counts.sum() == 960 and statistic < bound


# ---- top-k and nucleus


@pytest.mark.parametrize(("top_p", "top_k"), [(1.0, 5), (0.8, 0), (0.5, 7), (0.99, 50), (1e-9, 0), (0.3, 1)])
def test_restriction_equals_a_slow_reference(top_p, top_k):
    scores = np.random.default_rng(9).normal(size=(20, 33)).astype(np.float32) * 2
    found = np.asarray(sampler.restrict(jnp.asarray(scores), top_p, top_k))
    for row, got in zip(scores, found):
        slow = slow_log_probs(row.astype(np.float64), Sampling(1.0, top_p, top_k, 1, ()))
        kept = np.isfinite(slow)
        assert kept.any() and (np.isfinite(got) == kept).all()
        assert (got[kept] == row[kept]).all()


def test_the_whole_distribution_is_left_as_it_is():
    scores = jnp.asarray(np.random.default_rng(2).normal(size=(3, 11)), jnp.float32)
    assert (sampler.restrict(scores, 1.0, 0) == scores).all()
