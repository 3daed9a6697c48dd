"""Llama-shaped models (Llama 2 and 3, SmolLM2 and others): the layer, the fields of config.json, the names.

Source: transformers' LlamaForCausalLM (compared in tests/models/test_parity.py).
"""

from flax import linen as nn

from pivotrl_jax.models import layers
from pivotrl_jax.models.families.base import ATTENTION_NAMES, FIELDS, MLP_NAMES, TOP_NAMES, Family, Field


class Layer(layers.Layer):
    """Attention, then an MLP. Each of the two normalises its input and is added to it."""

    @nn.compact
    def __call__(self, x, layer_inputs, angles, context, token_weight):
        cache, _ = layer_inputs
        bias = self.config.attention_bias
        h = self.norm("attn_norm", x)
        q = layers.rope(self.project(h, "q", "D", "HK", bias), angles)
        k = layers.rope(self.project(h, "k", "D", "NK", bias), angles)
        v = self.project(h, "v", "D", "NK", bias)
        values, new_cache = self.attend(q, k, v, cache, context)
        x = x + self.project(values, "o", "HK", "D", bias)
        return x + self.mlp(self.norm("mlp_norm", x)), (new_cache, {})


LLAMA = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    title="Llama",
    layer=Layer,
    fields=(
        *(field for field in FIELDS if field.name != "num_kv_heads"),
        # Llama 1's files have no groups of heads
        Field("num_kv_heads", int, ("num_key_value_heads",), default="num_heads"),
        Field("mlp_size", int, ("intermediate_size",)),
        Field("attention_bias", bool, ("attention_bias",), default=False),
        Field("mlp_bias", bool, ("mlp_bias",), default=False),
    ),
    head_dim_optional=True,
    dense_names=ATTENTION_NAMES | MLP_NAMES,
    moe_names=None,
    top_names=TOP_NAMES,
    rope_theta=1e4,  # Llama 2's files have none
)
