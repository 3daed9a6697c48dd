"""What the sampler records is what the model says, whatever is drawn beside it."""

import dataclasses
import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import tiny_run
from support.forests import DENSE, MOE, groups_of_pieces, sharp_params, widen
from support.frequencies import chi_square

from pivotrl_jax.models import decoder, forest
from pivotrl_jax.models.forest import Piece
from pivotrl_jax.rollouts import sampling as sampling_lib
from pivotrl_jax.rollouts.sampler import Sampler
from pivotrl_jax.rollouts.sampling import Sampling
from pivotrl_jax.training import learner

ROWS, BRANCHES, SLOTS, TOKENS = tiny_run.ROWS, tiny_run.BRANCHES, tiny_run.SLOTS, 5
STREAM = jax.random.key(11)
PLAIN = tiny_run.SAMPLING
COOL = dataclasses.replace(PLAIN, temperature=0.7)
CUT = dataclasses.replace(PLAIN, temperature=0.7, top_p=0.9, top_k=7, min_p=0.1)
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
def sampler_of(config, sampling: Sampling, decode_slots: int = tiny_run.DECODE_SLOTS) -> Sampler:
    return Sampler(config, sampling, decode_slots, tiny_run.CHUNK, tiny_run.mesh())


@functools.cache
def params_of(config):
    return sharp_params(config)


@dataclasses.dataclass
class Drawn:
    tokens: list[int]
    log_probs: np.ndarray
    model_log_probs: np.ndarray
    finished: bool


def draw_all(
    config, sampling, groups, samples=SAMPLES, decode_slots=tiny_run.DECODE_SLOTS
) -> dict[tuple, Drawn]:
    """(prompt, sample) -> what was drawn, together as `groups` says."""
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
    out = sampler_of(config, sampling, decode_slots)(params_of(config), packed, branch, STREAM, numbers)
    found = {}
    for key, (r, s) in at.items():
        n = out.length[r, s]
        per_token = [x[r, s] for x in (out.tokens, out.log_probs, out.model_log_probs)]
        assert not any(x[n:].any() for x in per_token)
        tokens, *log_probs = (x[:n] for x in per_token)
        found[key] = Drawn(tokens.tolist(), *log_probs, bool(out.finished[r, s]))
    return found


@functools.cache
def together(config, sampling):
    return draw_all(config, sampling, GROUPS)


@functools.partial(jax.jit, static_argnums=0)
def _logits(config, params, tokens):
    return decoder.logits(config, params, tokens)


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
    nucleus = [v for v in nucleus if probs[v] >= sampling.min_p * max(probs)]
    mass = sum(probs[v] for v in nucleus)
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
    logits = logits_after(config, [[*PROMPTS[k], *found.tokens] for (k, _), found in drawn.items()])
    for row, ((k, _), found) in zip(logits, drawn.items()):
        for i, token in enumerate(found.tokens):
            at = row[len(PROMPTS[k]) - 1 + i]
            want = slow_log_probs(at, sampling)[token]
            assert np.isfinite(want), "a token outside the nucleus was drawn"
            assert abs(found.log_probs[i] - want) < 1e-4
            assert abs(found.model_log_probs[i] - slow_log_probs(at, PLAIN)[token]) < 1e-4


@pytest.mark.parametrize("sampling", [PLAIN, COOL], ids=["1", "0.7"])
def test_the_learner_recomputes_the_sampled_log_probs(sampling):
    drawn = together(MOE, sampling)
    pieces = [
        [Piece(k, PROMPTS[k], [drawn[k, s].tokens for s in range(SAMPLES[k])]) for k in g] for g in GROUPS
    ]
    packed = forest.pack(pieces, 96, 0, 1)
    weight, want = np.zeros(packed.tokens.shape, np.float32), np.zeros(packed.tokens.shape, np.float32)
    for placed in packed.placed:
        for s in range(SAMPLES[placed.key]):
            found = drawn[placed.key, s]
            packed.write(weight, placed, s, np.ones(len(found.tokens)))
            packed.write(want, placed, s, found.log_probs)
    batch = {**packed.arrays(), "weight": weight}
    compute = learner.Compute(tiny_run.CHUNK, 16, "nothing")
    compiled = jax.jit(learner.forest_log_probs, static_argnums=(0, 1))
    found, _ = compiled(MOE, compute, params_of(MOE), batch, sampling.temperature)
    assert weight.sum() == sum(len(found.tokens) for found in drawn.values())
    np.testing.assert_allclose(found, want, atol=1e-4)


def test_greedy_is_the_argmax_of_every_step():
    drawn = together(MOE, GREEDY)
    sequences = {k: list(prompt) for k, prompt in PROMPTS.items()}
    for _ in range(TOKENS):
        logits = logits_after(MOE, list(sequences.values()))
        for row, (k, ids) in zip(logits, sequences.items()):
            if len(ids) == len(PROMPTS[k]) or ids[-1] not in GREEDY.stop_ids:
                ids.append(int(row[len(ids) - 1].argmax()))
    for (k, _), found in drawn.items():
        assert [*PROMPTS[k], *found.tokens] == sequences[k]
        assert not found.log_probs.any() and (found.model_log_probs < 0).all()


# ---- independence


def test_a_draw_does_not_depend_on_row_or_neighbours():
    """Whole forest, each prompt alone, other company in other rows: the same keys draw the same tokens."""
    expected = together(MOE, PLAIN)
    alone = {}
    for k in PROMPTS:
        alone |= draw_all(MOE, PLAIN, [[k]])
    moved = draw_all(MOE, PLAIN, [[5], [4, 3], [2, 1]], {**SAMPLES, 4: 2})
    assert len({tuple(found.tokens) for found in expected.values()}) > 10, "keys differ by sample"
    for drawn in (alone, moved):
        same_draws(drawn, expected)


def same_draws(drawn, expected):
    for key, found in drawn.items():
        assert (found.tokens, found.finished) == (expected[key].tokens, expected[key].finished)
        np.testing.assert_allclose(found.log_probs, expected[key].log_probs, atol=1e-4)


@pytest.mark.parametrize("decode_slots", [1, 2, 8])
def test_a_draw_does_not_depend_on_the_number_of_lanes(decode_slots):
    """One decode slot draws all samples of a row one after another, eight draw them at once."""
    same_draws(draw_all(MOE, PLAIN, GROUPS, decode_slots=decode_slots), together(MOE, PLAIN))


def decode_steps(lengths: list[int], decode_slots: int) -> int:
    """By hand: the steps that a row of `decode_slots` slots takes for samples of these lengths in order. A
    sample's first token comes with the prefill; one that ends with it leaves its slot idle until the next
    step."""
    queue, left, steps = list(lengths), [0] * decode_slots, 0
    while True:
        for i, n in enumerate(left):
            if not n and queue:
                left[i] = queue.pop(0) - 1
        if not any(left) and not queue:
            return steps
        left = [max(n - 1, 0) for n in left]
        steps += 1


def test_a_decode_slot_takes_the_next_sample_when_one_ends():
    packed = widen(forest.pack([[Piece(0, TRUNK, samples=8)]], SLOTS, BRANCHES, ROWS), ROWS, SLOTS)
    branch = np.full((ROWS, BRANCHES), -1, np.int32)
    branch[0] = packed.placed[0].prompt_slot
    numbers = np.stack([np.full_like(branch, 3), np.arange(16).reshape(2, 8)], -1).astype(np.int32)
    seen = {}
    for decode_slots in (1, 3, 8):
        out = sampler_of(MOE, PLAIN, decode_slots)(params_of(MOE), packed, branch, STREAM, numbers)
        seen[decode_slots] = int(out.steps)
        assert seen[decode_slots] == decode_steps(out.length[0].tolist(), decode_slots)
    assert len(set(out.length[0].tolist())) > 2, "the case must have samples of several lengths"
    assert seen[8] < seen[3] < -(-8 // 3) * (TOKENS - 1), "three decode slots wait for nobody"


def test_the_last_samples_of_a_batch_move_to_fewer_decode_slots():
    """One row has eight samples and seven have one: when the batch narrows from sixteen decode slots to four,
    two of them belong to that row and take its samples in turn."""
    rows, decode_slots = 8, 2
    one = forest.pack([[Piece(0, TRUNK, samples=8)]], SLOTS, BRANCHES, 1)
    arrays = {name: np.repeat(x[:1], rows, 0) for name, x in one.arrays().items()}
    packed = widen(forest.Forest(**arrays, placed=()), rows, SLOTS)
    branch = np.full((rows, BRANCHES), -1, np.int32)
    branch[0], branch[1:, 0] = one.placed[0].prompt_slot, one.placed[0].prompt_slot
    numbers = np.stack(np.indices(branch.shape), -1).astype(np.int32)
    found = []
    for by_layer in (True, False):
        sampler = Sampler(MOE, PLAIN, decode_slots, tiny_run.CHUNK, tiny_run.mesh(), True, by_layer)
        found.append(sampler(params_of(MOE), packed, branch, STREAM, numbers))
    narrowed, wide = found
    assert wide.steps > wide.length[1:].max(), "the case must have steps for the samples of one row alone"
    for name in ("tokens", "length", "finished", "steps", "experts", "prefix_experts"):
        np.testing.assert_array_equal(getattr(narrowed, name), getattr(wide, name))
    for name in ("log_probs", "model_log_probs"):
        np.testing.assert_allclose(getattr(narrowed, name), getattr(wide, name), atol=1e-5)


def draw_rows(packed) -> dict[tuple, tuple[list[int], np.ndarray]]:
    """(piece, sample) -> tokens and log-probs; rows as they come, ROWS at a time."""
    found = {}
    for start in range(0, len(packed.tokens), ROWS):
        rows = slice(start, start + ROWS)
        arrays = {name: x[rows] for name, x in packed.arrays().items()}
        part = widen(forest.Forest(**arrays, placed=()), ROWS, SLOTS)
        branch = np.full((ROWS, BRANCHES), -1, np.int32)
        numbers = np.zeros((ROWS, BRANCHES, 2), np.int32)
        at, taken = {}, [0] * ROWS
        for placed in packed.placed:
            r = placed.row - start
            if 0 <= r < ROWS:
                for sample in range(placed.first, placed.first + placed.samples):
                    s = taken[r]
                    at[placed.key, sample], taken[r] = (r, s), s + 1
                    branch[r, s], numbers[r, s] = placed.prompt_slot, (placed.key, sample)
        out = sampler_of(MOE, PLAIN)(params_of(MOE), part, branch, STREAM, numbers)
        for key, (r, s) in at.items():
            n = out.length[r, s]
            found[key] = out.tokens[r, s, :n].tolist(), out.log_probs[r, s, :n]
    return found


def random_forests_draw_what_padded_prompts_draw(groups, slots, samples):
    """Packed, and cut where a row or its share of samples is small, against every prompt alone in a row."""
    pieces = [piece for group in groups for piece in group]
    packed = draw_rows(forest.pack(groups, slots, samples, ROWS))
    alone = {}
    for piece in pieces:
        alone |= draw_rows(forest.pack([[piece]], SLOTS, BRANCHES, ROWS))
    assert packed.keys() == alone.keys() == {(p.key, s) for p in pieces for s in range(p.samples)}
    for key, (tokens, log_probs) in packed.items():
        assert tokens == alone[key][0]
        np.testing.assert_allclose(log_probs, alone[key][1], atol=1e-4)


FORESTS = (
    groups_of_pieces(groups=2, pieces=3, branches=3, kinds="samples"),
    st.sampled_from([9, 13, SLOTS]),
    st.sampled_from([2, BRANCHES]),
)


@settings(max_examples=6, deadline=None)
@given(*FORESTS)
def test_random_forests(groups, slots, samples):
    random_forests_draw_what_padded_prompts_draw(groups, slots, samples)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(*FORESTS)
def test_many_random_forests(groups, slots, samples):
    random_forests_draw_what_padded_prompts_draw(groups, slots, samples)


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
    for found in together(MOE, PLAIN).values():
        ends[found.finished] += 1
        stops = [token in PLAIN.stop_ids for token in found.tokens]
        assert stops == [False] * (len(found.tokens) - 1) + [found.finished]
        assert found.finished or len(found.tokens) == TOKENS
    assert min(ends.values()) >= 2, "the case must show both ends"


# ---- frequencies


NUCLEUS = dataclasses.replace(PLAIN, top_p=0.8)
TOP_K = dataclasses.replace(PLAIN, top_k=5)
MIN_P = dataclasses.replace(PLAIN, min_p=0.15)


@pytest.mark.parametrize(
    "sampling", [PLAIN, CUT, NUCLEUS, TOP_K, MIN_P], ids=["1", "cut", "nucleus", "top_k", "min_p"]
)
def test_frequencies_follow_the_distribution(sampling):
    logits = np.random.default_rng(5).normal(size=40) * 1.5
    keys = jax.random.split(jax.random.key(3), 20_000)
    batch = jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (len(keys), 40))
    drawn = jax.jit(sampling_lib.draw, static_argnums=2)(batch, keys, sampling)
    want = slow_log_probs(logits, sampling)
    np.testing.assert_allclose(drawn.log_prob, want[drawn.token], atol=1e-4)
    np.testing.assert_allclose(drawn.model_log_prob, slow_log_probs(logits, PLAIN)[drawn.token], atol=1e-4)
    statistic, bound = chi_square(np.bincount(drawn.token, minlength=40), np.exp(want))
    assert statistic < bound


def test_a_draw_is_where_its_uniform_number_falls_in_the_cumulated_probabilities():
    V = 5003  # not a whole number of blocks
    rng = np.random.default_rng(2)
    scores = rng.normal(size=(300, V)) * 3
    scores[rng.random(scores.shape) < 0.3] = -np.inf
    scores[0], scores[1] = -np.inf, -np.inf
    scores[0, V - 1], scores[1, 0] = 1.0, 1.0  # only the last token, only the first
    keys = jax.random.split(jax.random.key(4), len(scores))
    drawn = np.asarray(jax.jit(sampling_lib.draw_token)(jnp.asarray(scores, jnp.float32), keys))
    assert (drawn[0], drawn[1]) == (V - 1, 0)
    probs = np.exp(scores - scores.max(-1, keepdims=True))
    ends = np.cumsum(probs / probs.sum(-1, keepdims=True), axis=-1)
    for row, token, key in zip(range(len(scores)), drawn, keys):
        assert probs[row, token] > 0
        u = float(jax.random.uniform(key))
        low = ends[row, token - 1] if token else 0.0
        assert low - 1e-6 <= u <= ends[row, token] + 1e-6


@pytest.mark.parametrize("config", [MOE, DENSE], ids=["moe", "dense"])
def test_decoding_layer_by_layer_draws_what_a_scan_over_layers_draws(config, monkeypatch):
    scanned = Sampler(config, PLAIN, tiny_run.DECODE_SLOTS, tiny_run.CHUNK, tiny_run.mesh(), by_layer=False)
    by_layer = together(config, PLAIN)  # as a CPU does
    monkeypatch.setattr(sys.modules[__name__], "sampler_of", lambda *_: scanned)
    for key, drawn in draw_all(config, PLAIN, GROUPS).items():
        assert drawn.tokens == by_layer[key].tokens
        np.testing.assert_allclose(drawn.log_probs, by_layer[key].log_probs, atol=1e-5)


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


@pytest.mark.parametrize(
    ("top_p", "top_k", "min_p"),
    [
        (1.0, 5, 0.0),
        (0.8, 0, 0.0),
        (0.5, 7, 0.0),
        (0.99, 50, 0.0),
        (1e-9, 0, 0.0),
        (0.3, 1, 0.0),
        (1.0, 0, 0.1),
        (0.9, 9, 0.2),
        (1.0, 0, 1.0),
    ],
)
def test_restriction_equals_a_slow_reference(top_p, top_k, min_p):
    scores = np.random.default_rng(9).normal(size=(20, 33)).astype(np.float32) * 2
    found = np.asarray(sampling_lib.restrict(jnp.asarray(scores), top_p, top_k, min_p))
    for row, got in zip(scores, found):
        slow = slow_log_probs(row.astype(np.float64), Sampling(1.0, top_p, top_k, min_p, 1, ()))
        kept = np.isfinite(slow)
        assert kept.any() and (np.isfinite(got) == kept).all()
        assert (got[kept] == row[kept]).all()


@pytest.mark.parametrize("top_p, count", [(0.2, 1), (0.4, 2), (0.75, 4), (0.99, 4), (0.9999, 5)])
def test_the_nucleus_is_the_smallest_set_even_among_equals(top_p, count):
    """As in transformers, where the order decides among equal logits."""
    got = sampling_lib.restrict(jnp.array([[2.0, -5.0, 2.0, 2.0, 2.0]]), top_p, 0, 0.0)[0]
    assert np.flatnonzero(np.isfinite(got)).tolist() == sorted([0, 2, 3, 4, 1][:count])


def test_the_whole_distribution_is_left_as_it_is():
    scores = jnp.asarray(np.random.default_rng(2).normal(size=(3, 11)), jnp.float32)
    assert (sampling_lib.restrict(scores, 1.0, 0, 0.0) == scores).all()
