"""The numbers of a checkpoint's config.json, and what is derived from them: axis sizes, runs of equal layers,
RoPE frequencies."""

import dataclasses

import numpy as np

from pivotrl_jax.models.rope import RopeScaling


@dataclasses.dataclass(frozen=True)
class Lora:
    """Low-rank adapters on every attention and MLP matrix (arXiv 2106.09685): x W + alpha / rank x A B."""

    rank: int
    alpha: float

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The numbers of a checkpoint's config.json. They differ between checkpoints, so none has a default."""

    model_type: str  # the family, a key of families.FAMILIES
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_size: int  # intermediate_size, of dense layers; 0 if every layer has experts
    expert_size: int  # moe_intermediate_size, of one expert; 0: dense
    num_experts: int  # 0: dense
    experts_per_token: int  # 0: dense
    dense_layers: tuple[int, ...]  # the layers without experts, in a model with experts
    norm_topk_prob: bool
    attention_bias: bool  # on q, k, v and o, in families that leave it to config.json
    mlp_bias: bool  # on gate, up and down of dense layers
    rope_theta: float
    rope_scaling: RopeScaling | None
    rms_norm_eps: float
    tie_embeddings: bool
    dtype: str  # compute dtype: "float32" or "bfloat16"
    lora: Lora | None  # None: every parameter is trained

    def sizes(self) -> dict[str, int]:
        """Axis letter -> size."""
        return {
            "D": self.hidden_size,
            "H": self.num_heads,
            "N": self.num_kv_heads,
            "K": self.head_dim,
            "E": self.num_experts,
            "F": self.expert_size,
            "I": self.mlp_size,
            "V": self.vocab_size,
            "U": self.lora.rank if self.lora else 0,
        }

    def segments(self) -> list[tuple[str, int, int, bool]]:
        """Runs of equal layers: (name in the params, first layer, one past the last, whether they have
        experts). Each run is one scan. A model whose layers are all equal has one run, named "layers"."""
        kinds = [bool(self.num_experts) and i not in self.dense_layers for i in range(self.num_layers)]
        starts = [i for i in range(self.num_layers) if i == 0 or kinds[i] != kinds[i - 1]]
        ends = [*starts[1:], self.num_layers]
        if len(starts) == 1:
            return [("layers", 0, self.num_layers, kinds[0])]
        return [(f"layers_{n}", a, b, kinds[a]) for n, (a, b) in enumerate(zip(starts, ends))]

    def rope_frequencies(self) -> np.ndarray:
        """Radians per position for every pair of dimensions, float32 [K/2]."""
        half = self.head_dim // 2
        plain = self.rope_theta ** -(np.arange(half, dtype=np.float64) / half)
        scaling = self.rope_scaling
        return (scaling.scaled(plain, self.rope_theta) if scaling else plain).astype(np.float32)
