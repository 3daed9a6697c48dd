"""Which of our parameters is which Hugging Face tensor, by the tables of names and axis letters in
models/families.

Layers and experts are separate tensors in a Hugging Face checkpoint; ours are stacked.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from pivotrl_jax.models import decoder
from pivotrl_jax.models.config import ModelConfig
from pivotrl_jax.models.families import family_of
from pivotrl_jax.models.families.base import Names


@dataclasses.dataclass(frozen=True)
class Place:
    """Where one Hugging Face tensor lives in the params: `params[path][index]`, transposed."""

    name: str
    path: tuple[str, ...]
    index: tuple[int, ...]  # (), (layer,) or (layer, expert)
    letters: str  # our axes after the index, e.g. "DHK"
    shape: tuple[int, ...]  # sizes of these axes
    axes: tuple[str, ...]  # our letters that make up each of Hugging Face's axes, e.g. ("HK", "D")

    @property
    def unfolded(self) -> tuple[int, ...]:
        """Sizes of our axes in Hugging Face's order, one axis for each letter."""
        return tuple(self._sizes(self.shape)[letter] for letter in "".join(self.axes))

    @property
    def hf_shape(self) -> tuple[int, ...]:
        return self._folded(self.shape)

    def part(self, index: tuple[slice, ...]) -> tuple[slice, ...]:
        """Slices of our axes, in the order of `unfolded`."""
        where = dict(zip(self.letters, index))
        return tuple(where[letter] for letter in "".join(self.axes))

    def as_hf(self, x: np.ndarray) -> np.ndarray:
        """A view, with Hugging Face's axes, of a contiguous array of ours, whole or a part."""
        order = sorted(self.axes, key=lambda axis: self.letters.index(axis[0]))
        sizes = dict(zip(self.axes, self._folded(x.shape)))
        return x.reshape([sizes[a] for a in order]).transpose([order.index(a) for a in self.axes])

    @property
    def file_order(self) -> tuple[int, ...]:
        """The axes along which the whole parameter can be cut into pieces that are contiguous in the files:
        layers, experts, rows."""
        stacked = len(self.index)
        return *range(stacked), stacked + self.letters.index(self.axes[0][0])

    def _sizes(self, shape: tuple[int, ...]) -> dict[str, int]:
        return dict(zip(self.letters, shape))

    def _folded(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        sizes = self._sizes(shape)
        return tuple(math.prod(sizes[letter] for letter in axis) for axis in self.axes)


def places(config: ModelConfig) -> Iterator[Place]:
    """The Place of every tensor of the checkpoint, layer by layer. A checkpoint never holds adapters."""
    tree, family = abstract_params(dataclasses.replace(config, lora=None)), family_of(config)
    top = {name: tree[name] for name in family.top_names if name in tree}
    yield from _group(top, family.top_names, (), "", ())
    for segment, first, end, moe in config.segments():
        names = family.moe_names if moe else family.dense_names
        for layer in range(first, end):
            yield from _group(tree[segment], names, (segment,), f"model.layers.{layer}.", (layer - first,))


def _group(tree: dict, table: Names, path: tuple[str, ...], prefix: str, lead: tuple[int, ...]):
    for ours in sorted(tree, key=list(table).index):
        name, axes = table[ours]
        shape, letters = tree[ours].value.shape, "".join(tree[ours].names)
        experts = [(e,) for e in range(shape[1])] if "{e}" in name else [()]
        for expert in experts:
            index = (*lead, *expert)
            full = prefix + (name.format(e=expert[0]) if expert else name)
            where = letters[len(index) :], shape[len(index) :]
            yield Place(full, (*path, ours), index, *where, tuple(axes.split()))


@functools.cache  # tracing the model takes a third of a second
def abstract_params(config: ModelConfig) -> dict:
    """`decoder.abstract_params`: shapes with their axis letters."""
    return decoder.abstract_params(config)


def param_shapes(config: ModelConfig) -> dict:
    """The params tree of a checkpoint, with the shape of each leaf."""
    tree = abstract_params(dataclasses.replace(config, lora=None))
    return jax.tree.map(lambda leaf: leaf.value.shape, tree, is_leaf=lambda x: hasattr(x, "names"))


def leaf(tree: Any, path: tuple[str, ...]) -> Any:
    """tree[path[0]][path[1]]..."""
    for key in path:
        tree = tree[key]
    return tree
