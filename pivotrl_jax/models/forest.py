"""Packing: sequences that share prefixes become token trees, and trees are packed into rows. Pure numpy.

A row of T slots holds one or more trees in depth-first order, with three integers per token beside its id:

    position     depth from the tree's root: the RoPE position
    parent       slot whose hidden state predicts this token (-1 for a root)
    subtree_end  first slot past this token's subtree

Slot i sees slot j exactly when `j <= i < subtree_end[j]`. This one rule covers causal masking, packing, and
prefixes shared by a group or by several turns. Worked example: prompts [5 6] and [5 6 7 8], each with one
branch [9]:

    slot         0  1  2  3  4  5
    tokens       5  6  9  7  8  9
    position     0  1  2  2  3  4
    parent      -1  0  1  1  3  4
    subtree_end  6  6  3  6  6  6

The code builds no tree of nodes. Paths (prompts, or whole sequences) in lexicographic order are the
depth-first order of their radix trie: each path adds the tokens that it does not share with the path before
it. A tree that is too big for a row is split into runs of consecutive paths; the first path of a run is laid
out whole.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from pivotrl_jax.records import InputError

ARRAYS = ("tokens", "position", "parent", "subtree_end")  # of a `Forest`, int32 [R, T] each


@dataclasses.dataclass(frozen=True)
class Piece:
    """A prompt and its completions, to be packed together with the pieces that share its prefix.

    `branches` are completions to score or train on; `samples` is the number of completions still to be
    sampled here. A piece has one or the other.

    Branches are alternatives: each follows the prompt's last token in slots of its own, even if two are
    equal. With `merge`, prompt and branch are one known sequence, which shares slots with every sequence that
    has the same prefix: in a trajectory, each completion is part of the prefix of later turns.
    """

    key: int  # the caller's id of the piece
    prompt: Sequence[int]
    branches: Sequence[Sequence[int]] = ()
    samples: int = 0
    first: int = 0  # the caller's index of the first branch or sample
    merge: bool = False


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where a piece, or a part of one, was placed: its row, the slot of its last prompt token, and the first
    slot of each of its branches. These are the caller's branches (or samples) from `first` on.

    Each branch of a merged piece has a Placement of its own.
    """

    key: int
    row: int
    prompt_slot: int
    branch_slots: tuple[int, ...]
    samples: int
    first: int
    # int32 slots of a merged branch, which other paths may interrupt; other branches are consecutive slots
    merged: np.ndarray | None = dataclasses.field(default=None, compare=False)


def path_to(subtree_end_T: np.ndarray, slot: int) -> np.ndarray:
    """The slots from the root of a slot's tree to the slot itself, which are all the slots that it sees."""
    return np.flatnonzero(subtree_end_T[: slot + 1] > slot)


@dataclasses.dataclass(frozen=True)
class Forest:
    """Packed rows. Arrays are int32 [R, T]; padding slots have parent -1 and subtree_end 0 (they see
    nothing)."""

    tokens: np.ndarray
    position: np.ndarray
    parent: np.ndarray
    subtree_end: np.ndarray
    placed: tuple[Placement, ...]

    def arrays(self) -> dict[str, np.ndarray]:
        """The four arrays by name, as in the learner's batches."""
        return {name: getattr(self, name) for name in ARRAYS}

    @property
    def fill(self) -> float:
        """Share of slots that hold a token."""
        return float((self.subtree_end > 0).mean())

    @staticmethod
    def _slots(placed: Placement, branch: int, count: int):
        if placed.merged is not None:
            return placed.row, placed.merged[:count]
        start = placed.branch_slots[branch]
        return placed.row, slice(start, start + count)

    def write(self, target_RT: np.ndarray, placed: Placement, branch: int, values: Sequence) -> None:
        """Write per-token values of one branch into an array of the forest's shape. A slot that merged
        branches share keeps the value written last."""
        target_RT[self._slots(placed, branch, len(values))] = values

    def add(self, target_RT: np.ndarray, placed: Placement, branch: int, values: Sequence) -> None:
        """Add per-token values of one branch to an array of the forest's shape.

        Use it for the weights of merged branches: a slot that two of them share then counts twice in the
        loss, as it would if each branch had its own slots.
        """
        target_RT[self._slots(placed, branch, len(values))] += values

    def read(self, source_RT: np.ndarray, placed: Placement, branch: int, count: int) -> np.ndarray:
        """The per-token values of one branch of `count` tokens, as `write` wrote them."""
        return source_RT[self._slots(placed, branch, count)]


def pack(groups: Sequence[Sequence[Piece]], slots: int, samples: int, rows_multiple: int = 1) -> Forest:
    """Pack groups of pieces into rows of `slots` tokens and at most `samples` samples.

    Pieces of one group share a tree (a group is usually a trajectory); different groups never do. A tree too
    big for a row is cut between neighbouring paths, and every part repeats the path to its root. The longest
    trees are placed first, each in the first row with room. The number of rows is padded to a multiple of
    `rows_multiple`. Raises InputError for a piece that cannot fit. The same pieces in the same order always
    give the same forest.
    """
    rows = _rows([_sorted_paths(group) for group in groups], slots, samples)
    return _lay_out(rows, slots, rows_multiple)


def pack_shortest(groups: Sequence[Sequence[Piece]], slots: Sequence[int], rows_multiple: int) -> Forest:
    """`pack`, without samples, into rows of whichever length in `slots` takes the fewest slots in total.
    Shorter rows may have to cut a tree, and then every part repeats the shared path."""
    trees = [_sorted_paths(group) for group in groups]
    paths = [path for tree in trees for path in tree]
    longest = max((len(path.ids) + max(map(len, path.branches), default=0) for path in paths), default=0)
    shortest = round_up(longest, slots)
    rows_of = {n: _rows(trees, n, 0) for n in sorted(slots) if n >= shortest}
    best = min(rows_of, key=lambda n: n * _padded(len(rows_of[n]), rows_multiple))
    return _lay_out(rows_of[best], best, rows_multiple)


def round_up(n: int, buckets: Sequence[int]) -> int:
    """The smallest bucket that holds n. Raises InputError when none does."""
    for bucket in sorted(buckets):
        if n <= bucket:
            return bucket
    raise InputError(f"{n} tokens exceed the largest shape {max(buckets)}; raise the limit in the config")


@dataclasses.dataclass
class _Path:
    """A path from the root of a tree, and the branches or samples at its end. It stands for a piece, a part
    of one, or one merged branch."""

    piece: Piece
    ids: np.ndarray  # int32: the prompt, followed by the branch if that is merged
    branches: list[np.ndarray]  # those that are not merged
    samples: int
    first: int
    shared: int = 0  # how many leading tokens are laid out already, by the path before it

    def size(self) -> int:
        return len(self.ids) - self.shared + sum(map(len, self.branches))

    def cut(self, free: int, draws: int) -> tuple["_Path | None", "_Path | None"]:
        """(what fits `free` slots and `draws` samples, the rest); None for a part that would be empty. Each
        part has at least one branch or sample, unless the piece has none."""
        whole = max(len(self.branches), self.samples)
        free -= len(self.ids) - self.shared
        fits = min(self.samples, draws)
        if self.branches:
            fits = int(np.searchsorted(np.cumsum([len(ids) for ids in self.branches]), free, "right"))
        if free < 0 or fits == 0 < whole:
            return None, self
        if fits == whole:
            return self, None
        head = {"branches": self.branches[:fits], "samples": min(self.samples, fits)}
        tail = {"branches": self.branches[fits:], "samples": self.samples - head["samples"]}
        rest = dataclasses.replace(self, **tail, first=self.first + fits, shared=len(self.ids))
        return dataclasses.replace(self, **head), rest


def _sorted_paths(group: Sequence[Piece]) -> list[_Path]:
    """The paths of a group's tree, depth first: a prompt before those that extend it, then by token id."""
    paths = []
    for piece in group:
        if not len(piece.prompt):
            raise InputError("an empty prompt cannot be packed: there is no token to predict from")
        prompt = np.asarray(piece.prompt, np.int32)
        branches = [np.asarray(ids, np.int32) for ids in piece.branches]
        if piece.merge and branches:
            whole = (np.concatenate([prompt, ids]) for ids in branches)
            paths += [_Path(piece, ids, [], 0, piece.first + i) for i, ids in enumerate(whole)]
        else:
            paths.append(_Path(piece, prompt, branches, piece.samples, piece.first))
    if len(paths) > 1:
        paths.sort(key=lambda path: path.ids.astype(">i4").tobytes())  # big-endian bytes sort as numbers do
    for before, path in itertools.pairwise(paths):
        n = min(len(before.ids), len(path.ids))
        differ = before.ids[:n] != path.ids[:n]
        first = int(differ.argmax())
        path.shared = first if differ[first] else n
    return paths


def _parts(paths: Sequence[_Path], slots: int, samples: int) -> list[list[_Path]]:
    """Trees within the budget, made of consecutive paths, because neighbouring paths share the most.

    A path that still fits joins the tree before it; otherwise it starts the next tree, from its root. A path
    is cut between its branches only if it does not fit a whole row.
    """
    parts, free, draws = [], 0, 0
    for path in paths:
        rest = path
        while rest:
            head, tail = rest.cut(free, draws) if rest.shared else (None, rest)  # nothing shared: a new tree
            if tail:
                fresh = dataclasses.replace(rest, shared=0)
                alone, more = fresh.cut(slots, samples)
                if not head or not more:
                    if not alone:
                        raise InputError(_too_big(fresh, slots, samples))
                    head, tail, free, draws = alone, more, slots, samples
                    parts.append([])
            parts[-1].append(head)
            free, draws, rest = free - head.size(), draws - head.samples, tail
    return parts


def _too_big(path: _Path, slots: int, samples: int) -> str:
    least = len(path.ids) + (len(path.branches[0]) if path.branches else 0)
    return (
        f"piece {path.piece.key}: {least} tokens and {min(path.samples, 1)} samples do not fit a row of "
        f"{slots} slots and {samples} samples; raise the row budget or lower the prompt limit"
    )


def _rows(trees: Sequence[Sequence[_Path]], slots: int, samples: int) -> list[list[list[_Path]]]:
    """The trees of each row. The longest trees are placed first, each in the first row with room."""
    parts = [part for tree in trees for part in _parts(tree, slots, samples)]
    size = np.array([sum(path.size() for path in part) for part in parts], int)
    draws = [sum(path.samples for path in part) for part in parts]
    free, free_draws = np.full(len(parts), slots), np.full(len(parts), samples)
    rows: list[list[list[_Path]]] = []
    for i in np.argsort(-size, kind="stable"):
        open_rows = slice(len(rows) + 1)  # the last one is a new row, which always has room
        row = int(((free[open_rows] >= size[i]) & (free_draws[open_rows] >= draws[i])).argmax())
        if row == len(rows):
            rows.append([])
        rows[row].append(parts[i])
        free[row] -= size[i]
        free_draws[row] -= draws[i]
    return rows


def _padded(rows: int, multiple: int) -> int:
    return max(-(-rows // multiple), 1) * multiple


def _lay_out(rows: Sequence[Sequence[Sequence[_Path]]], slots: int, rows_multiple: int) -> Forest:
    """The forest of rows of trees of paths."""
    shape = (_padded(len(rows), rows_multiple), slots)
    tokens, position, subtree_end = (np.zeros(shape, np.int32) for _ in range(3))
    parent = np.full(shape, -1, np.int32)
    count = np.arange(slots, dtype=np.int32)
    placed = []

    def run(r: int, start: int, ids: np.ndarray, depth: int, before: int) -> int:
        """Lay out consecutive tokens; returns the first slot past them."""
        stop = start + len(ids)
        tokens[r, start:stop] = ids
        position[r, start:stop] = count[depth : depth + len(ids)]
        parent[r, start + 1 : stop] = count[start : stop - 1]
        parent[r, start : min(start + 1, stop)] = before
        return stop

    # slots of the current path by depth; the last entry, -1, is a root's parent
    slot_of = np.full(slots + 1, -1, np.int32)
    for r, trees in enumerate(rows):
        at = 0
        for tree in trees:
            depth = 0
            for path in tree:
                shared, start = path.shared, at
                subtree_end[r, slot_of[shared:depth]] = at  # here this path departs from the one before it
                depth = len(path.ids)
                at = run(r, at, path.ids[shared:], shared, slot_of[shared - 1])
                slot_of[shared:depth] = count[start:at]
                branch_slots = []
                for ids in path.branches:
                    branch_slots.append(at)
                    start, at = at, run(r, at, ids, depth, slot_of[depth - 1])
                    subtree_end[r, start:at] = at
                placed.append(_place(path, r, slot_of, branch_slots))
            subtree_end[r, slot_of[:depth]] = at
    return Forest(tokens, position, parent, subtree_end, tuple(placed))


def _place(path: _Path, row: int, slot_of: np.ndarray, branch_slots: list[int]) -> Placement:
    prompt, merged = len(path.piece.prompt), None
    if path.piece.merge and path.piece.branches:
        merged = slot_of[prompt : len(path.ids)].copy()
        branch_slots = [int(merged[0]) if len(merged) else -1]
    end = int(slot_of[prompt - 1])
    return Placement(path.piece.key, row, end, tuple(branch_slots), path.samples, path.first, merged)
