"""Which prompt tokens a row of the cache holds: a radix trie of token ids. Pure numpy.

A node is a run of tokens and the slots of the row in which their keys and values are. Prompts that begin
alike share nodes. A node that a sample uses stays, and so do its ancestors; of the others, those that were
used last stay until their slots are needed. The slots of a path are in no particular order: masks say who
sees whom.
"""

import dataclasses
import heapq
import itertools

import numpy as np


@dataclasses.dataclass(eq=False)
class Node:
    tokens: np.ndarray  # int32
    slots: np.ndarray  # int32: the slot of each token
    parent: "Node | None"
    children: dict[int, "Node"] = dataclasses.field(default_factory=dict)  # by their first token
    users: int = 0
    used: int = 0  # when it was last used, in calls of `Row.take`


@dataclasses.dataclass(frozen=True)
class Path:
    """A prompt in a row. The first `cached` tokens were there before; the caller computes the others."""

    node: Node  # the last one, which the caller uses until it releases it
    slots: np.ndarray  # int32 [prompt tokens]
    cached: int


class Row:
    """The slots of one row and the prompts in them."""

    def __init__(self, slots: int):
        self._free = np.ones(slots, bool)
        self._root = Node(np.zeros(0, np.int32), np.zeros(0, np.int32), None)
        self._clock = itertools.count(1)

    def shared(self, ids: np.ndarray) -> int:
        """How many leading tokens of a prompt the row holds."""
        return sum(taken for _, taken in self._walk(ids))

    def held(self) -> int:
        """How many slots hold a token."""
        return int((~self._free).sum())

    def take(self, ids: np.ndarray) -> Path | None:
        """A path for a prompt, with slots for the tokens that the row does not hold. None if there is no
        room, whatever is given up."""
        now, node, cached = next(self._clock), self._root, 0
        slots = [node.slots]
        for below, taken in list(self._walk(ids)):  # the whole walk, before a node is split
            node = below if taken == len(below.tokens) else self._split(below, taken)
            node.used = now
            slots.append(node.slots)
            cached += taken
        more = len(ids) - cached
        node.users += 1  # stays while others go
        if not self._make_room(more):
            node.users -= 1
            return None
        if more:
            node.users -= 1
            at = np.flatnonzero(self._free)[:more].astype(np.int32)
            self._free[at] = False
            leaf = Node(np.array(ids[cached:], np.int32), at, node, users=1, used=now)
            node.children[int(ids[cached])] = node = leaf
            slots.append(at)
        return Path(node, np.concatenate(slots), cached)

    def release(self, path: Path) -> None:
        """The path's sample has ended. Its tokens stay until their slots are needed."""
        path.node.users -= 1

    def _walk(self, ids: np.ndarray):
        """(node, how many of its tokens agree) along a prompt. Only the last may agree in part."""
        node, at = self._root, 0
        while at < len(ids) and (node := node.children.get(int(ids[at]))):
            n = min(len(node.tokens), len(ids) - at)
            differ = node.tokens[:n] != ids[at : at + n]
            taken = int(differ.argmax()) if differ.any() else n
            yield node, taken
            at += taken
            if taken < len(node.tokens):
                return

    def _split(self, node: Node, at: int) -> Node:
        """Cut a node in two. The lower part remains `node`, with its users. Returns the upper one."""
        upper = Node(node.tokens[:at], node.slots[:at], node.parent, used=node.used)
        node.parent.children[int(node.tokens[0])] = upper
        node.tokens, node.slots, node.parent = node.tokens[at:], node.slots[at:], upper
        upper.children[int(node.tokens[0])] = node
        return upper

    def _make_room(self, slots: int) -> bool:
        """Give up nodes without users and children, least recently used first, until that many slots are
        free. Returns False, and gives up none, if that is not enough."""
        free = int(self._free.sum())
        if free >= slots:
            return True
        nodes, kept = [self._root], {self._root}
        for node in nodes:  # which grows meanwhile
            nodes += node.children.values()
        for node in nodes:
            if node.users:
                while node not in kept:
                    kept.add(node)
                    node = node.parent
        if free + sum(len(node.slots) for node in nodes if node not in kept) < slots:
            return False
        order = itertools.count()
        leaves: list[tuple[int, int, Node]] = []

        def consider(node: Node) -> None:
            if not node.children and node not in kept:
                heapq.heappush(leaves, (node.used, next(order), node))

        for node in nodes:
            consider(node)
        while leaves and free < slots:
            node = heapq.heappop(leaves)[2]
            self._free[node.slots] = True
            free += len(node.slots)
            del node.parent.children[int(node.tokens[0])]
            consider(node.parent)
        return True
