"""Qwen2 and Qwen2.5: the layer, the fields of config.json, the names of the weights.

Source: transformers' Qwen2ForCausalLM (compared in tests/models/test_parity.py).
"""

from flax import linen as nn

from pivotrl_jax.models import layers
from pivotrl_jax.models.families.base import ATTENTION_NAMES, FIELDS, MLP_NAMES, TOP_NAMES, Family, Field


class Layer(layers.Layer):
    """Attention with biases on q, k and v, not on o, then an MLP. Each of the two normalises its input and is
    added to it."""

    @nn.compact
    def __call__(self, x, layer_inputs, angles, context, token_weight):
        cache, _ = layer_inputs
        h = self.norm("attn_norm", x)
        q = layers.rope(self.project(h, "q", "D", "HK", bias=True), angles)
        k = layers.rope(self.project(h, "k", "D", "NK", bias=True), angles)
        v = self.project(h, "v", "D", "NK", bias=True)
        values, new_cache = self.attend(q, k, v, cache, context)
        x = x + self.project(values, "o", "HK", "D")
        return x + self.mlp(self.norm("mlp_norm", x)), (new_cache, {})


QWEN2 = Family(
    model_type="qwen2",
    architecture="Qwen2ForCausalLM",
    title="Qwen2",
    layer=Layer,
    fields=(*FIELDS, Field("mlp_size", int, ("intermediate_size",))),
    head_dim_optional=True,
    dense_names=ATTENTION_NAMES | MLP_NAMES,
    moe_names=None,
    top_names=TOP_NAMES,
)
