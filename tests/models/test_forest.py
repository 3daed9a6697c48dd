"""Packing: shared prefixes once, branches apart, visibility = ancestry, rows never overlap."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.forests import ancestors, groups_of_pieces, path_tokens

from pivotrl_jax.models.attention import visible
from pivotrl_jax.models.forest import Piece, pack, pack_shortest, round_up
from pivotrl_jax.records import InputError


def one_row(*pieces, slots=16):
    return pack([list(pieces)], slots, 0)


def test_the_worked_example_of_the_docstring():
    forest = one_row(Piece(0, [5, 6], [[9]]), Piece(1, [5, 6, 7, 8], [[9]]), slots=6)
    assert forest.tokens.tolist() == [[5, 6, 9, 7, 8, 9]]
    assert forest.position.tolist() == [[0, 1, 2, 2, 3, 4]]
    assert forest.parent.tolist() == [[-1, 0, 1, 1, 3, 4]]
    assert forest.subtree_end.tolist() == [[6, 6, 3, 6, 6, 6]]
    assert [(p.prompt_slot, p.branch_slots) for p in forest.placed] == [(1, (2,)), (4, (5,))]
    assert forest.fill == 1.0


def test_a_longer_prompt_first_gives_the_same_tree():
    a, b = Piece(0, [5, 6], [[9]]), Piece(1, [5, 6, 7, 8], [[9]])
    forest = one_row(b, a)
    assert (forest.subtree_end > 0).sum() == 6
    ends = {p.key: path_tokens(forest, p.row, p.branch_slots[0]) for p in forest.placed}
    assert ends == {0: [5, 6, 9], 1: [5, 6, 7, 8, 9]}


def test_equal_completions_stay_apart():
    forest = one_row(Piece(0, [1, 2], [[7, 8], [7, 8]]))
    assert (forest.subtree_end > 0).sum() == 6
    first, second = forest.placed[0].branch_slots
    assert (first, second) == (2, 4) and forest.parent[0, [first, second]].tolist() == [1, 1]


def test_equal_prompts_of_two_pieces_are_one_path():
    forest = one_row(Piece(0, [1, 2], [[7]]), Piece(1, [1, 2], [[8]]))
    assert (forest.subtree_end > 0).sum() == 4
    assert {p.prompt_slot for p in forest.placed} == {1}


def test_an_empty_completion_takes_no_slot():
    forest = one_row(Piece(0, [1, 2], [[], [7], []]), slots=3)
    assert forest.tokens.tolist() == [[1, 2, 7]]
    values = np.zeros((1, 3))
    for branch, written in enumerate([[], [5.0], []]):
        forest.write(values, forest.placed[0], branch, written)
    assert values.tolist() == [[0, 0, 5]]


def test_a_prompt_that_extends_anothers_completion_does_not_merge_with_it():
    # the next turn's prompt repeats the sampled tokens, but its hidden states are nobody's completion
    forest = one_row(Piece(0, [1, 2], [[7, 8]]), Piece(1, [1, 2, 7, 8, 3], [[4]]))
    assert (forest.subtree_end > 0).sum() == 2 + 2 + 3 + 1
    assert path_tokens(forest, 0, forest.placed[1].branch_slots[0]) == [1, 2, 7, 8, 3, 4]
    assert path_tokens(forest, 0, forest.placed[0].branch_slots[0] + 1) == [1, 2, 7, 8]


def test_prompts_fork_inside_others_whatever_their_order():
    pieces = [Piece(0, [1, 2, 3, 4], [[9]]), Piece(1, [1, 2]), Piece(2, [1, 2, 5])]
    for order in itertools.permutations(pieces):
        forest = one_row(*order, slots=6)
        long, short, fork = sorted(forest.placed, key=lambda p: p.key)
        assert forest.fill == 1.0 and forest.tokens[0, short.prompt_slot] == 2
        assert forest.parent[0, long.branch_slots[0]] == long.prompt_slot
        assert forest.parent[0, fork.prompt_slot] == short.prompt_slot


# ---- merged branches


def test_merged_completions_of_a_trajectory_are_its_prefix():
    whole = [1, 2, 7, 8, 3, 9, 8]
    forest = one_row(Piece(0, [1, 2], [[7, 8]], merge=True), Piece(1, [1, 2, 7, 8, 3], [[9, 8]], merge=True))
    assert forest.tokens[0].tolist() == whole + [0] * 9
    values = np.zeros((1, 16))
    for placed, written in zip(forest.placed, ([1, 2], [3, 4])):
        forest.write(values, placed, 0, written)
        assert forest.read(values, placed, 0, 2).tolist() == written
    assert values[0, :7].tolist() == [0, 0, 1, 2, 0, 3, 4]


def test_a_merged_branch_that_another_path_leaves_in_its_middle_keeps_its_slots():
    forest = one_row(Piece(0, [1], [[5, 7, 7]], merge=True), Piece(1, [1, 5, 6], [[4]]))
    assert forest.tokens[0, :6].tolist() == [1, 5, 6, 4, 7, 7]
    values = np.zeros((1, 16))
    for placed in forest.placed:
        forest.write(values, placed, 0, {0: [1, 2, 3], 1: [9]}[placed.key])
    assert values[0, :6].tolist() == [0, 1, 0, 9, 2, 3]


def test_weights_of_merged_branches_add():
    pieces = [Piece(i, [1, 2], [[7, 8 + i // 2]], merge=True) for i in range(3)]
    forest = one_row(*pieces)
    weight = np.zeros((1, 16))
    for placed in forest.placed:
        forest.add(weight, placed, 0, [0.5, 0.25])
    assert forest.tokens[0, :5].tolist() == [1, 2, 7, 8, 9]
    assert weight[0, :5].tolist() == [0, 0, 1.5, 0.5, 0.25]


# ---- every promise, by walking parents


def check(groups, forest, slots, samples=0):
    """Whatever is packed: every branch and sample once, on the right path, apart where it must be; nothing
    twice in a tree; and no more repeated than a path per cut."""
    pieces = {p.key: p for group in groups for p in group}
    assert {p.key for p in forest.placed} == set(pieces)
    wanted = [(k, n) for k, p in pieces.items() for n in range(max(len(p.branches), p.samples))]
    found = [(p.key, p.first + n) for p in forest.placed for n in range(max(len(p.branch_slots), p.samples))]
    assert sorted(found) == sorted(wanted)
    own, shared = np.zeros(forest.tokens.shape, int), np.zeros(forest.tokens.shape, bool)
    for placed in forest.placed:
        piece, row = pieces[placed.key], placed.row
        assert path_tokens(forest, row, placed.prompt_slot) == list(piece.prompt)
        shared[row] |= ancestors(forest.parent[row])[placed.prompt_slot]
        for b in range(len(placed.branch_slots)):
            ids = piece.branches[placed.first + b]
            at = forest.read(np.indices(forest.tokens.shape)[1], placed, b, len(ids))
            for n, slot in enumerate(at):
                assert path_tokens(forest, row, slot) == [*piece.prompt, *ids[: n + 1]]
            if piece.merge:
                shared[row, at] = True
            else:
                own[row, at] += 1
    assert own.max(initial=0) <= 1 and not (own & shared).any()  # branches are apart from everything
    taken = forest.subtree_end > 0
    assert (taken == ((own > 0) | shared)).all()
    for r in range(len(forest.tokens)):
        assert sum(p.samples for p in forest.placed if p.row == r) <= samples
        truth = ancestors(forest.parent[r]) & taken[r][:, None] & taken[r][None, :]
        rule = np.asarray(visible(np.arange(slots), forest.subtree_end[r]))
        assert (rule[taken[r]] == truth[taken[r]]).all() and not rule[~taken[r]].any()
        assert (forest.position[r][taken[r]] == truth.sum(1)[taken[r]] - 1).all()  # depth
        root = truth.argmax(1)
        once = [(root[i], *path_tokens(forest, r, i)) for i in np.flatnonzero(shared[r])]
        assert len(once) == len(set(once))


def roots(forest) -> int:
    return int(((forest.subtree_end > 0) & (forest.parent < 0)).sum())


ALL_KINDS = "branches merged samples"


@settings(max_examples=30, deadline=None)
@given(groups_of_pieces(kinds=ALL_KINDS))
def test_random_forests_keep_every_promise(groups):
    forest = pack(groups, 44, 6)
    check(groups, forest, 44, 6)
    # 44 slots and 6 samples hold any group whole: every distinct prefix of its prompts is there exactly once
    prefixes, completions = set(), 0
    for g, group in enumerate(groups):
        for p in group:
            paths = [p.prompt, *([*p.prompt, *ids] for ids in p.branches if p.merge)]
            prefixes |= {(g, tuple(ids[:n])) for ids in paths for n in range(1, len(ids) + 1)}
            completions += 0 if p.merge else sum(map(len, p.branches))
    assert (forest.subtree_end > 0).sum() == len(prefixes) + completions


@settings(max_examples=60, deadline=None)
@given(groups_of_pieces(pieces=4, kinds=ALL_KINDS), st.sampled_from([13, 17, 21, 30]), st.integers(1, 4))
def test_random_forests_split_to_fit_small_rows(groups, slots, samples):
    """13 slots hold any prompt and one completion: pieces are cut as well."""
    forest, whole = pack(groups, slots, samples), pack(groups, 200, 100)
    check(groups, forest, slots, samples)
    cuts, longest = roots(forest) - roots(whole), 13
    repeated = (forest.subtree_end > 0).sum() - (whole.subtree_end > 0).sum()
    assert 0 <= cuts and 0 <= repeated <= cuts * longest


@settings(max_examples=20, deadline=None)
@given(groups_of_pieces(pieces=4, kinds="branches merged"))
def test_the_shortest_packing_has_the_fewest_slots(groups):
    lengths = (30, 13, 60)
    best = pack_shortest(groups, lengths, 2)
    fits = [
        n
        for n in lengths
        if all(len(p.prompt) + max(map(len, p.branches), default=0) <= n for g in groups for p in g)
    ]
    assert best.tokens.size == min(pack(groups, n, 0, 2).tokens.size for n in fits)
    check(groups, best, best.tokens.shape[1])


def test_packing_is_deterministic():
    rng = np.random.default_rng(0)
    groups = [
        [Piece(i, rng.integers(1, 9, rng.integers(1, 20)).tolist(), [[1] * int(rng.integers(1, 5))])]
        for i in range(40)
    ]
    a, b = pack(groups, 32, 0), pack(groups, 32, 0)
    assert all((getattr(a, n) == getattr(b, n)).all() for n in ("tokens", "position", "parent"))
    assert a.placed == b.placed and a.fill > 0.85


def test_a_tree_too_big_for_a_row_repeats_its_shared_path():
    prefix = [1, 2, 3]
    pieces = [Piece(i, [*prefix, 10 + i], [[20 + i, 30]]) for i in range(4)]
    forest = pack([pieces], 10, 0)
    check([pieces], forest, 10)
    rows = {p.row for p in forest.placed}
    assert len(rows) == 2  # 3 + 4 x 3 = 15 slots do not fit; 3 + 2 x 3 = 9 do
    assert all(forest.tokens[r, :3].tolist() == prefix for r in rows)


def test_what_shares_most_stays_together():
    """Two bundles that leave the prefix early, each with a long stem of its own, given in turn."""
    stems = [[1, 10, *[20] * 6], [1, 11, *[21] * 6]]
    pieces = [Piece(i, [*stems[i % 2], 30 + i], [[40]]) for i in range(8)]
    forest = pack([pieces], 17, 0)
    rows = [{p.key % 2 for p in forest.placed if p.row == r} for r in range(2)]
    assert len(forest.tokens) == 2 and rows == [{0}, {1}]
    assert (forest.subtree_end > 0).sum() == 2 * 16  # the prefix of one token, repeated once


def test_siblings_come_in_the_order_of_their_ids():
    forest = one_row(*(Piece(i, [1, n]) for i, n in enumerate([70_000, 256, 2])), slots=4)
    assert forest.tokens[0].tolist() == [1, 2, 256, 70_000]


def test_only_what_does_not_fit_a_row_is_cut_between_its_branches():
    """Three slots are left beside the first piece: room for one branch of the second, which goes on whole."""
    pieces = [Piece(0, [1, 2], [[7, 7, 7]]), Piece(1, [1, 3], [[8, 8], [9, 9]])]
    forest = pack([pieces], 8, 0)
    assert [(p.key, p.row, len(p.branch_slots)) for p in forest.placed] == [(1, 0, 2), (0, 1, 1)]


def test_what_shares_nothing_need_not_stay_together():
    pieces = [Piece(n, [n] * n) for n in (3, 4, 5, 6)]
    assert pack([pieces], 9, 0).fill == 1.0


def test_samples_still_to_draw_limit_a_row():
    groups = [[Piece(i, [1, 2], samples=4)] for i in range(3)]
    forest = pack(groups, 100, 8)
    drawn = [sum(4 for p in forest.placed if p.row == r) for r in range(len(forest.tokens))]
    assert drawn == [8, 4]


def test_a_group_too_big_for_a_row_is_cut_and_keeps_its_numbering():
    forest = pack([[Piece(5, [1, 2, 3], [[10 + g, 20 + g] for g in range(5)])]], 8, 0)
    found = {}
    for placed in forest.placed:
        assert forest.tokens[placed.row, placed.prompt_slot] == 3
        for i, start in enumerate(placed.branch_slots):
            found[placed.first + i] = forest.tokens[placed.row, start : start + 2].tolist()
    assert found == {g: [10 + g, 20 + g] for g in range(5)}
    drawn = pack([[Piece(5, [1, 2, 3], samples=7)]], 8, 3).placed
    assert sorted(n for p in drawn for n in range(p.first, p.first + p.samples)) == list(range(7))
    assert all(p.samples <= 3 for p in drawn)


def test_rows_are_padded_to_a_multiple_with_slots_that_see_nothing():
    forest = pack([[Piece(0, [1, 2])]], 8, 0, rows_multiple=4)
    assert forest.tokens.shape == (4, 8)
    assert forest.subtree_end[1:].max() == 0 and forest.parent[1:].max() == -1
    assert pack([], 8, 0, rows_multiple=2).tokens.shape == (2, 8)


@pytest.mark.parametrize(
    "piece, sentence",
    [
        (Piece(7, [1] * 9, [[2, 3], [4]]), "piece 7: 11 tokens and 0 samples do not fit a row of 10 slots"),
        (Piece(8, [1] * 11, samples=3), "piece 8: 11 tokens and 1 samples do not fit a row of 10 slots"),
        (Piece(9, []), "an empty prompt cannot be packed"),
    ],
)
def test_what_cannot_be_packed_is_refused_in_a_sentence(piece, sentence):
    with pytest.raises(InputError, match=sentence):
        pack([[Piece(0, [1, 2]), piece]], 10, 2)


def test_round_up_takes_the_smallest_bucket():
    assert [round_up(n, (64, 16, 32)) for n in (1, 16, 17, 64)] == [16, 16, 32, 64]
    with pytest.raises(InputError, match="65 tokens exceed the largest shape 64"):
        round_up(65, (16, 64))
