"""Qwen3, dense and mixture-of-experts: the layer, the fields of config.json, the names of the weights.

Source: transformers' Qwen3ForCausalLM and Qwen3MoeForCausalLM (compared in tests/models/test_parity.py).
"""

from flax import linen as nn

from pivotrl_jax.models import layers
from pivotrl_jax.models.families.base import ATTENTION_NAMES, FIELDS, MLP_NAMES, TOP_NAMES, Family, Field
from pivotrl_jax.models.mixture import mixture


class Layer(layers.Layer):
    """Attention with norms on q and k, then an MLP or a mixture of experts. Each of the two normalises its
    input and is added to it."""

    @nn.compact
    def __call__(self, x, layer_inputs, angles, context, token_weight):
        cache, recorded = layer_inputs
        bias = self.config.attention_bias
        h = self.norm("attn_norm", x)
        q = self.project(h, "q", "D", "HK", bias)
        k = self.project(h, "k", "D", "NK", bias)
        v = self.project(h, "v", "D", "NK", bias)
        q = layers.rope(self.norm("q_norm", q, "K"), angles)
        k = layers.rope(self.norm("k_norm", k, "K"), angles)
        values, new_cache = self.attend(q, k, v, cache, context)
        x = x + self.project(values, "o", "HK", "D", bias)

        h = self.norm("mlp_norm", x)
        if self.moe:
            out, router_stats = mixture(self, h, recorded, token_weight)
        else:
            out, router_stats = self.mlp(h), {}
        return x + out, (new_cache, router_stats)


_ATTENTION_BIAS = Field("attention_bias", bool, ("attention_bias",), default=False)
_MLP_SIZE = Field("mlp_size", int, ("intermediate_size",))

_NAMES = ATTENTION_NAMES | {
    "q_norm": ("self_attn.q_norm.weight", "K"),
    "k_norm": ("self_attn.k_norm.weight", "K"),
}

DENSE = Family(
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
    title="Qwen3",
    layer=Layer,
    fields=(*FIELDS, _ATTENTION_BIAS, _MLP_SIZE),
    head_dim_optional=False,
    dense_names=_NAMES | MLP_NAMES,
    moe_names=None,
    top_names=TOP_NAMES,
)

MIXTURE = Family(
    model_type="qwen3_moe",
    architecture="Qwen3MoeForCausalLM",
    title="Qwen3-MoE",
    layer=Layer,
    fields=(
        *FIELDS,
        _ATTENTION_BIAS,
        _MLP_SIZE,  # of the layers without experts, if there are any
        Field("expert_size", int, ("moe_intermediate_size",)),
        Field("num_experts", int, ("num_experts", "num_local_experts")),  # transformers 5 saves the second
        Field("experts_per_token", int, ("num_experts_per_tok",)),
        Field("norm_topk_prob", bool, ("norm_topk_prob",)),
    ),
    head_dim_optional=True,  # the rule of transformers' Qwen3MoeAttention
    dense_names=_NAMES | MLP_NAMES,
    moe_names=_NAMES
    | {
        "mlp_norm": ("post_attention_layernorm.weight", "D"),
        "router": ("mlp.gate.weight", "E D"),
        "gate": ("mlp.experts.{e}.gate_proj.weight", "F D"),
        "up": ("mlp.experts.{e}.up_proj.weight", "F D"),
        "down": ("mlp.experts.{e}.down_proj.weight", "D F"),
    },
    top_names=TOP_NAMES,
)
