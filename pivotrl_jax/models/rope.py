"""Scaled RoPE: what config.json's `rope_scaling` (or `rope_parameters`) makes of the plain frequencies.

Each class holds the numbers of one kind as in config.json, and equals transformers' function of the same kind
in modeling_rope_utils.py. Kinds that depend on the length of the sequence ("dynamic", "longrope") have none.
"""

import dataclasses
import math
from typing import ClassVar

import numpy as np


@dataclasses.dataclass(frozen=True)
class Linear:
    """Position interpolation (arXiv 2306.15595): every frequency is divided by `factor`."""

    kind: ClassVar[str] = "linear"
    attention_factor: ClassVar[float] = 1.0

    factor: float

    def scaled(self, plain: np.ndarray, theta: float) -> np.ndarray:
        """The scaled frequencies, float64 [K/2], of the plain ones. Every kind has this function."""
        return plain / self.factor


@dataclasses.dataclass(frozen=True)
class Llama3:
    """Llama 3.1's: wavelengths above original / low_freq_factor are stretched by `factor`, those below
    original / high_freq_factor stay, and between the two it is interpolated."""

    kind: ClassVar[str] = "llama3"
    attention_factor: ClassVar[float] = 1.0

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int

    def scaled(self, plain: np.ndarray, theta: float) -> np.ndarray:
        rotations = self.original_max_position_embeddings * plain / (2 * math.pi)  # over the original context
        kept = (rotations - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        kept = np.clip(kept, 0, 1)
        return plain / self.factor * (1 - kept) + plain * kept


@dataclasses.dataclass(frozen=True)
class Yarn:
    """YaRN (arXiv 2309.00071), which Qwen2.5 and Qwen3 document."""

    kind: ClassVar[str] = "yarn"

    factor: float
    original_max_position_embeddings: int
    beta_fast: float
    beta_slow: float
    attention_factor: float  # cos and sin are multiplied by it
    truncate: bool  # round the ends of the ramp to whole dimensions

    def scaled(self, plain: np.ndarray, theta: float) -> np.ndarray:
        half = len(plain)

        def dimension(turns: float) -> float:  # the one that rotates `turns` times over the original context
            span = self.original_max_position_embeddings / (turns * 2 * math.pi)
            return 2 * half * math.log(span) / (2 * math.log(theta))

        low, high = dimension(self.beta_fast), dimension(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, 2 * half - 1)
        high += 0.001 * (low == high)
        ramp = np.clip((np.arange(half) - low) / (high - low), 0, 1)
        return plain / self.factor * ramp + plain * (1 - ramp)


RopeScaling = Linear | Llama3 | Yarn
