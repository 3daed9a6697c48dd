"""What a model family is: its decoder layer, the fields of its config.json, and the names of its weights.

The tables here hold what most families share. A family's file starts from them.
"""

import dataclasses

from flax import linen as nn

# Our parameter -> (Hugging Face's name, our axis letters on each of its axes). Hugging Face stores a linear
# weight as [out, in], with heads and their dimensions in one axis: our `q` [D, H, K] is "HK D" there.
Names = dict[str, tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of ModelConfig and where config.json has it."""

    name: str
    kind: type  # int or float, for a number above 0, or bool
    keys: tuple[str, ...]  # any of them is read; the first is written
    default: bool | str | None = None  # if the file may omit it: a flag's value, or the field it then equals


@dataclasses.dataclass(frozen=True)
class Family:
    """Models that share a decoder layer and, in Hugging Face checkpoints, a `model_type`.

    Fields that need a rule rather than a name (RoPE, the layers without experts, the dtype) are read in the
    same way for every family, by checkpoints/hf_config.py.
    """

    model_type: str
    architecture: str
    title: str  # in reports: "Qwen3-MoE"
    layer: type[nn.Module]  # with the fields and the call signature of layers.Layer
    fields: tuple[Field, ...]
    head_dim_optional: bool  # if config.json has no head_dim, it is hidden_size / num_attention_heads
    dense_names: Names  # of a layer without experts, after "model.layers.{layer}."
    moe_names: Names | None  # of a layer with experts; {e} is the expert's number. None: no such layers
    top_names: Names  # of the parameters outside the layers
    rope_theta: float | None = None  # of a config.json that has none, where released ones leave it out


FIELDS = (
    Field("vocab_size", int, ("vocab_size",)),
    Field("hidden_size", int, ("hidden_size",)),
    Field("num_layers", int, ("num_hidden_layers",)),
    Field("num_heads", int, ("num_attention_heads",)),
    Field("num_kv_heads", int, ("num_key_value_heads",)),
    Field("head_dim", int, ("head_dim",)),
    Field("rms_norm_eps", float, ("rms_norm_eps",)),
    Field("tie_embeddings", bool, ("tie_word_embeddings",), default=False),
)

TOP_NAMES: Names = {
    "embed": ("model.embed_tokens.weight", "V D"),
    "final_norm": ("model.norm.weight", "D"),
    "unembed": ("lm_head.weight", "V D"),
}

ATTENTION_NAMES: Names = {
    "attn_norm": ("input_layernorm.weight", "D"),
    "q": ("self_attn.q_proj.weight", "HK D"),
    "k": ("self_attn.k_proj.weight", "NK D"),
    "v": ("self_attn.v_proj.weight", "NK D"),
    "o": ("self_attn.o_proj.weight", "D HK"),
    "q_bias": ("self_attn.q_proj.bias", "HK"),
    "k_bias": ("self_attn.k_proj.bias", "NK"),
    "v_bias": ("self_attn.v_proj.bias", "NK"),
    "o_bias": ("self_attn.o_proj.bias", "D"),
}

MLP_NAMES: Names = {
    "mlp_norm": ("post_attention_layernorm.weight", "D"),
    "gate": ("mlp.gate_proj.weight", "I D"),
    "up": ("mlp.up_proj.weight", "I D"),
    "down": ("mlp.down_proj.weight", "D I"),
    "gate_bias": ("mlp.gate_proj.bias", "I"),
    "up_bias": ("mlp.up_proj.bias", "I"),
    "down_bias": ("mlp.down_proj.bias", "D"),
}
