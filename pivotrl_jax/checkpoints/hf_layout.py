"""Our parameters <-> Hugging Face's tensors: one table of names and axis letters (of `model.py`).

Hugging Face keeps a linear weight as [out, in], with heads and their dimensions as one axis: `q`, ours
[D, H, K], is there "HK D". Layers and experts are tensors of their own there; ours are stacked.
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

# Our name -> Hugging Face name, and our letters on each of its axes.
TOP = {
    "embed": ("model.embed_tokens.weight", "V D"),
    "final_norm": ("model.norm.weight", "D"),
    "unembed": ("lm_head.weight", "V D"),
}


LAYER = {
    "attn_norm": ("input_layernorm.weight", "D"),
    "q": ("self_attn.q_proj.weight", "HK D"),
    "k": ("self_attn.k_proj.weight", "NK D"),
    "v": ("self_attn.v_proj.weight", "NK D"),
    "o": ("self_attn.o_proj.weight", "D HK"),
    "q_bias": ("self_attn.q_proj.bias", "HK"),
    "k_bias": ("self_attn.k_proj.bias", "NK"),
    "v_bias": ("self_attn.v_proj.bias", "NK"),
    "o_bias": ("self_attn.o_proj.bias", "D"),
    "q_norm": ("self_attn.q_norm.weight", "K"),
    "k_norm": ("self_attn.k_norm.weight", "K"),
    "mlp_norm": ("post_attention_layernorm.weight", "D"),
}


DENSE = LAYER | {
    "gate": ("mlp.gate_proj.weight", "I D"),
    "up": ("mlp.up_proj.weight", "I D"),
    "down": ("mlp.down_proj.weight", "D I"),
}


MOE = LAYER | {
    "router": ("mlp.gate.weight", "E D"),
    "gate": ("mlp.experts.{e}.gate_proj.weight", "F D"),
    "up": ("mlp.experts.{e}.up_proj.weight", "F D"),
    "down": ("mlp.experts.{e}.down_proj.weight", "D F"),
}


@dataclasses.dataclass(frozen=True)
class Place:
    """Where one Hugging Face tensor lives in the params: `params[path][index]`, transposed."""

    name: str
    path: tuple[str, ...]
    index: tuple[int, ...]  # (), (layer,) or (layer, expert)
    letters: str  # our axes behind the index, say "DHK"
    shape: tuple[int, ...]  # ours, behind the index
    axes: tuple[str, ...]  # our letters on each of Hugging Face's axes: ("HK", "D")

    @property
    def unfolded(self) -> tuple[int, ...]:
        """Sizes of our axes in Hugging Face's order, one axis for each letter."""
        return tuple(self._sizes(self.shape)[letter] for letter in "".join(self.axes))

    @property
    def hf_shape(self) -> tuple[int, ...]:
        return self._folded(self.shape)

    def part(self, index: tuple[slice, ...]) -> tuple[slice, ...]:
        """A part of ours as a part of `unfolded`."""
        where = dict(zip(self.letters, index))
        return tuple(where[letter] for letter in "".join(self.axes))

    def as_hf(self, x: np.ndarray) -> np.ndarray:
        """A contiguous array of ours, whole or a part, in Hugging Face's axes: a view of the same memory."""
        order = sorted(self.axes, key=lambda axis: self.letters.index(axis[0]))
        sizes = dict(zip(self.axes, self._folded(x.shape)))
        return x.reshape([sizes[a] for a in order]).transpose([order.index(a) for a in self.axes])

    @property
    def file_order(self) -> tuple[int, ...]:
        """The axes of the whole parameter along which it can be cut into what lies together in the files:
        layers, experts, rows."""
        stacked = len(self.index)
        return *range(stacked), stacked + self.letters.index(self.axes[0][0])

    def _sizes(self, shape: tuple[int, ...]) -> dict[str, int]:
        return dict(zip(self.letters, shape))

    def _folded(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        sizes = self._sizes(shape)
        return tuple(math.prod(sizes[letter] for letter in axis) for axis in self.axes)


def places(config: ModelConfig) -> Iterator[Place]:
    """Every tensor of the checkpoint, layer by layer; without adapters, which no checkpoint holds."""
    tree = abstract_params(dataclasses.replace(config, lora=None))
    yield from _group({name: tree[name] for name in TOP if name in tree}, TOP, (), "", ())
    for segment, first, end, moe in config.segments():
        for layer in range(first, end):
            table = MOE if moe else DENSE
            yield from _group(tree[segment], table, (segment,), f"model.layers.{layer}.", (layer - first,))


def _group(tree: dict, table: dict, path: tuple[str, ...], prefix: str, lead: tuple[int, ...]):
    for ours in sorted(tree, key=list(table).index):
        name, axes = table[ours]
        shape, letters = tree[ours].value.shape, "".join(tree[ours].names)
        experts = [(e,) for e in range(shape[1])] if "{e}" in name else [()]
        for expert in experts:
            index = (*lead, *expert)
            full = prefix + (name.format(e=expert[0]) if expert else name)
            where = letters[len(index) :], shape[len(index) :]
            yield Place(full, (*path, ours), index, *where, tuple(axes.split()))


@functools.cache  # it traces the model: a third of a second
def abstract_params(config: ModelConfig) -> dict:
    """`model.abstract_params`: shapes with their axis letters."""
    return decoder.abstract_params(config)


def param_shapes(config: ModelConfig) -> dict:
    """The params tree of a checkpoint, each leaf its shape."""
    tree = abstract_params(dataclasses.replace(config, lora=None))
    return jax.tree.map(lambda leaf: leaf.value.shape, tree, is_leaf=lambda x: hasattr(x, "names"))


def leaf(tree: Any, path: tuple[str, ...]) -> Any:
    """tree[path[0]][path[1]]..."""
    for key in path:
        tree = tree[key]
    return tree
