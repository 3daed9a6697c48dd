"""Packing: sequences that share prefixes become token trees, trees become rows. Pure numpy.

A row of T slots holds one or more trees in depth-first order, with three integers per token beside its id:

    position     depth from the tree's root: the RoPE position
    parent       slot whose hidden state predicts this token (-1 for a root)
    subtree_end  first slot past this token's subtree

Slot i sees slot j exactly when `j <= i < subtree_end[j]`: causal masking, packing, group prefix sharing and
multi-turn trunk sharing in one rule. Worked example, prompts [5 6] and [5 6 7 8], each with one branch [9]:

    slot         0  1  2  3  4  5
    tokens       5  6  9  7  8  9
    position     0  1  2  2  3  4
    parent      -1  0  1  1  3  4
    subtree_end  6  6  3  6  6  6
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from pivotrl_jax.records import InputError


@dataclasses.dataclass
class _Node:
    tokens: np.ndarray  # the edge into this node
    children: list["_Node"] = dataclasses.field(default_factory=list)
    shared: bool = True  # False: a branch, never merged with another even when equal
    slot: int = -1  # filled by the layout


class Tree:
    """A token tree: a radix trie of prompts, and unshared branches (completions) hanging off their ends."""

    def __init__(self):
        self.root = _Node(np.zeros(0, np.int32))
        self.size = 0
        self._branches: list[tuple[_Node, _Node]] = []

    def add_prompt(self, ids: Sequence[int]) -> _Node:
        """Insert a prompt, sharing whatever prefix is shared; returns the node at whose last token it
        ends."""
        ids = np.asarray(ids, np.int32)
        if not len(ids):
            raise InputError("an empty prompt cannot be packed: there is no token to predict from")
        node, done = self.root, 0
        while done < len(ids):
            rest = ids[done:]
            child = next((c for c in node.children if c.shared and c.tokens[0] == rest[0]), None)
            if child is None:
                child = _Node(rest)
                node.children.append(child)
                self.size += len(rest)
                return child
            n = min(len(rest), len(child.tokens))
            differ = np.flatnonzero(child.tokens[:n] != rest[:n])
            same = int(differ[0]) if len(differ) else n
            if same < len(
                child.tokens
            ):  # split the edge; the existing node keeps its lower half and identity
                upper = _Node(child.tokens[:same], [child])
                node.children[next(i for i, c in enumerate(node.children) if c is child)] = upper
                child.tokens = child.tokens[same:]
                child = upper
            node, done = child, done + same
        return node

    def add_branch(self, prompt: _Node, ids: Sequence[int]) -> _Node:
        """Hang a completion off the last token of `prompt`. Equal completions stay apart: each has its own
        loss."""
        branch = _Node(np.asarray(ids, np.int32), shared=False)
        prompt.children.append(branch)
        self.size += len(branch.tokens)
        return branch

    def layout(self) -> dict[str, np.ndarray]:
        """Depth-first arrays tokens, position, parent, subtree_end; sets every node's first slot."""
        out = {
            "tokens": np.zeros(self.size, np.int32),
            "position": np.zeros(self.size, np.int32),
            "parent": np.zeros(self.size, np.int32),
            "subtree_end": np.zeros(self.size, np.int32),
        }
        slot, stack = 0, [(self.root, -1, 0, False)]
        while stack:
            node, parent, depth, leaving = stack.pop()
            n = len(node.tokens)
            if leaving:
                out["subtree_end"][node.slot : node.slot + n] = slot
                continue
            node.slot = slot
            out["tokens"][slot : slot + n] = node.tokens
            out["position"][slot : slot + n] = np.arange(depth, depth + n)
            out["parent"][slot : slot + n] = np.arange(slot - 1, slot + n - 1)
            if n:
                out["parent"][slot] = parent
            slot += n
            stack.append((node, parent, depth, True))
            last = slot - 1 if n else parent
            stack.extend((child, last, depth + n, False) for child in reversed(node.children))
        return out


def last_slot(node: _Node) -> int:
    """The slot of a prompt's last token, after `layout`: where its continuations branch off."""
    return node.slot + len(node.tokens) - 1


@dataclasses.dataclass(frozen=True)
class Piece:
    """A prompt and its completions, to be packed together with the pieces that share its prefix.

    `branches` are completions to score or train on; `samples` counts completions still to be drawn here. A
    piece has one or the other.
    """

    key: int  # the caller's name for it
    prompt: Sequence[int]
    branches: Sequence[Sequence[int]] = ()
    samples: int = 0
    first: int = 0  # index of the first branch or sample, when a piece that was too big has been cut


@dataclasses.dataclass(frozen=True)
class Placed:
    """Where a piece, or a part of one, went: its row, the slot of its last prompt token, and the first slot
    of each of its branches, which are the caller's branches (or samples) from `first` on."""

    key: int
    row: int
    prompt_slot: int
    branch_slots: tuple[int, ...]
    samples: int
    first: int


@dataclasses.dataclass(frozen=True)
class Forest:
    """Packed rows. Arrays are int32 [R, T]; padding slots have parent -1 and subtree_end 0 (they see
    nothing)."""

    tokens: np.ndarray
    position: np.ndarray
    parent: np.ndarray
    subtree_end: np.ndarray
    placed: tuple[Placed, ...]

    @property
    def fill(self) -> float:
        """Share of slots that hold a token."""
        return float((self.subtree_end > 0).mean())

    def write(self, target_RT: np.ndarray, placed: Placed, branch: int, values: Sequence) -> None:
        """Write per-token values of one branch into an array of the forest's shape."""
        start = placed.branch_slots[branch]
        target_RT[placed.row, start : start + len(values)] = values


def _plant(pieces: Sequence[Piece]) -> tuple[Tree, list[tuple[Piece, _Node, list[_Node]]]]:
    tree, nodes = Tree(), []
    for piece in pieces:
        end = tree.add_prompt(piece.prompt)
        nodes.append((piece, end, [tree.add_branch(end, ids) for ids in piece.branches]))
    return tree, nodes


def _fit(pieces: list[Piece], slots: int, samples: int) -> list[tuple[Tree, list]]:
    """Trees within the budget: a tree that is too big is halved, its shared path repeated in both halves."""
    tree, nodes = _plant(pieces)
    if tree.size <= slots and sum(p.samples for p in pieces) <= samples:
        return [(tree, nodes)]
    if len(pieces) > 1:
        half = len(pieces) // 2
        return _fit(pieces[:half], slots, samples) + _fit(pieces[half:], slots, samples)
    piece = pieces[0]
    if max(len(piece.branches), piece.samples) > 1:
        b, n = len(piece.branches) // 2, piece.samples // 2
        left = dataclasses.replace(piece, branches=piece.branches[:b], samples=n)
        right = dataclasses.replace(
            piece, branches=piece.branches[b:], samples=piece.samples - n, first=piece.first + max(b, n)
        )
        return _fit([left], slots, samples) + _fit([right], slots, samples)
    raise InputError(
        f"piece {piece.key}: {tree.size} tokens and {piece.samples} samples do not fit a row of {slots} "
        f"slots and {samples} samples; raise the row budget or lower the prompt limit"
    )


def pack(groups: Sequence[Sequence[Piece]], slots: int, samples: int, rows_multiple: int = 1) -> Forest:
    """Pack groups of pieces into rows of `slots` tokens and at most `samples` samples to draw.

    Pieces of one group share a tree (a group is usually a trajectory); groups never do. Trees go longest
    first into the first row with room. The number of rows is padded to `rows_multiple`. Raises InputError
    for a piece that cannot fit.
    """
    trees = [tree for group in groups for tree in _fit(list(group), slots, samples)]
    order = sorted(range(len(trees)), key=lambda i: (-trees[i][0].size, i))
    room: list[list[int]] = []  # per row: free slots, free samples
    rows: list[list[int]] = []
    for i in order:
        size, draws = trees[i][0].size, sum(piece.samples for piece, _, _ in trees[i][1])
        fits = (r for r, (free, free_draws) in enumerate(room) if size <= free and draws <= free_draws)
        row = next(fits, len(rows))
        if row == len(rows):
            rows.append([])
            room.append([slots, samples])
        rows[row].append(i)
        room[row][0] -= size
        room[row][1] -= draws
    return _lay_out([[trees[i] for i in row] for row in rows], slots, rows_multiple)


def _lay_out(rows: list[list[tuple[Tree, list]]], slots: int, rows_multiple: int) -> Forest:
    R = max(-(-len(rows) // rows_multiple), 1) * rows_multiple
    arrays = {
        name: np.zeros((R, slots), np.int32) for name in ("tokens", "position", "parent", "subtree_end")
    }
    arrays["parent"][:] = -1
    placed = []
    for r, trees in enumerate(rows):
        start = 0
        for tree, nodes in trees:
            local, stop = tree.layout(), start + tree.size
            arrays["tokens"][r, start:stop] = local["tokens"]
            arrays["position"][r, start:stop] = local["position"]
            arrays["parent"][r, start:stop] = np.where(local["parent"] < 0, -1, local["parent"] + start)
            arrays["subtree_end"][r, start:stop] = local["subtree_end"] + start
            for piece, end, branches in nodes:
                at = tuple(branch.slot + start for branch in branches)
                end_slot = last_slot(end) + start
                placed.append(Placed(piece.key, r, end_slot, at, piece.samples, piece.first))
            start = stop
    return Forest(**arrays, placed=tuple(placed))


def round_up(n: int, buckets: Sequence[int]) -> int:
    """The smallest bucket that holds n. Raises InputError when none does."""
    for bucket in sorted(buckets):
        if n <= bucket:
            return bucket
    raise InputError(f"{n} tokens exceed the largest shape {max(buckets)}; raise the limit in the config")
