"""Packing: shared prefixes once, branches apart, visibility = ancestry, rows never overlap."""

import numpy as np
import pytest
from forests import ancestors, groups_of_pieces, path_tokens
from hypothesis import given, settings

from pivotrl_jax.attention import visible
from pivotrl_jax.forest import Piece, Tree, last_slot, pack, round_up
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


def test_a_split_edge_keeps_the_branches_of_its_lower_end():
    tree = Tree()
    long = tree.add_prompt([1, 2, 3, 4])
    branch = tree.add_branch(long, [9])
    short = tree.add_prompt([1, 2])
    fork = tree.add_prompt([1, 2, 5])
    layout = tree.layout()
    assert tree.size == 6 and layout["tokens"][last_slot(short)] == 2
    assert layout["parent"][branch.slot] == last_slot(long)
    assert layout["parent"][last_slot(fork)] == last_slot(short)


def check(groups, forest, slots):
    """Everything a forest promises, by walking parents."""
    pieces = {p.key: p for group in groups for p in group}
    placed_branches = sorted((p.key, p.first + b) for p in forest.placed for b in range(len(p.branch_slots)))
    assert placed_branches == sorted((k, b) for k, p in pieces.items() for b in range(len(p.branches)))
    assert {p.key for p in forest.placed} == set(pieces)
    used = np.zeros(forest.tokens.shape, int)
    for placed in forest.placed:
        piece = pieces[placed.key]
        assert path_tokens(forest, placed.row, placed.prompt_slot) == list(piece.prompt)
        for slot, ids in zip(placed.branch_slots, piece.branches[placed.first :]):
            used[placed.row, slot : slot + len(ids)] += 1
            for n in range(len(ids)):
                path = path_tokens(forest, placed.row, slot + n)
                assert path == [*piece.prompt, *ids[: n + 1]]
    assert used.max(initial=0) <= 1  # no two branches share a slot
    for r in range(len(forest.tokens)):
        truth = ancestors(forest.parent[r])
        taken = forest.subtree_end[r] > 0
        truth &= taken[:, None] & taken[None, :]
        rule = np.asarray(visible(np.arange(slots), forest.subtree_end[r]))
        assert (rule[taken] == truth[taken]).all() and not rule[~taken].any()
        assert (forest.position[r][taken] == truth.sum(1)[taken] - 1).all()  # depth


@settings(max_examples=30, deadline=None)
@given(groups_of_pieces())
def test_random_forests_keep_every_promise(groups):
    forest = pack(groups, 44, 0)
    check(groups, forest, 44)
    # 44 slots hold any group whole, so every distinct prefix of a group's prompts is there exactly once
    prefixes = {
        (g, tuple(p.prompt[:n]))
        for g, group in enumerate(groups)
        for p in group
        for n in range(1, len(p.prompt) + 1)
    }
    completions = sum(len(ids) for group in groups for p in group for ids in p.branches)
    assert (forest.subtree_end > 0).sum() == len(prefixes) + completions


@settings(max_examples=30, deadline=None)
@given(groups_of_pieces())
def test_random_forests_split_to_fit_small_rows(groups):
    check(groups, pack(groups, 21, 0), 21)  # any piece fits
    check(groups, pack(groups, 13, 0), 13)  # a prompt and one completion fit: pieces are cut as well


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
    trunk = [1, 2, 3]
    pieces = [Piece(i, [*trunk, 10 + i], [[20 + i, 30]]) for i in range(4)]
    forest = pack([pieces], 10, 0)
    check([pieces], forest, 10)
    rows = {p.row for p in forest.placed}
    assert len(rows) == 2  # 3 + 4 x 3 = 15 slots do not fit; 3 + 2 x 3 = 9 do
    assert all(forest.tokens[r, :3].tolist() == trunk for r in rows)


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
