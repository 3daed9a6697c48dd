"""The numbers of a checkpoint's config.json, and what is derived from them: axis sizes, runs of equal layers,
RoPE frequencies."""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Yarn:
    """YaRN (arXiv 2309.00071), the one RoPE scaling that Qwen3 documents, as in config.json."""

    factor: float
    original_max_position_embeddings: int
    beta_fast: float
    beta_slow: float
    attention_factor: float  # cos and sin are multiplied by it
    truncate: bool  # round the ends of the ramp to whole dimensions


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
    attention_bias: bool  # on q, k, v and o
    rope_theta: float
    yarn: Yarn | None
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
        """Radians per position for every pair of dimensions, float32 [K/2]. With YaRN they are blended as in
        transformers' `_compute_yarn_parameters`."""
        half = self.head_dim // 2
        plain = self.rope_theta ** -(np.arange(half, dtype=np.float64) / half)
        if self.yarn is None:
            return plain.astype(np.float32)
        y = self.yarn

        def dimension(turns: float) -> float:  # the one that rotates `turns` times over the original context
            span = y.original_max_position_embeddings / (turns * 2 * math.pi)
            return self.head_dim * math.log(span) / (2 * math.log(self.rope_theta))

        low, high = dimension(y.beta_fast), dimension(y.beta_slow)
        if y.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, self.head_dim - 1)
        high += 0.001 * (low == high)
        ramp = np.clip((np.arange(half) - low) / (high - low), 0, 1)
        return (plain / y.factor * ramp + plain * (1 - ramp)).astype(np.float32)
