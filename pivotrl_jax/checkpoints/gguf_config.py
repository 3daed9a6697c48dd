"""The settings of a GGUF file -> config.json, and the names and layout of its tensors -> Hugging Face's.

Equal to transformers' own reading (modeling_gguf_pytorch_utils.py), except where that one loses what the file
says: the head size of Qwen3, the expert size of Qwen3-MoE, the RoPE scaling of Llama 3 and YaRN.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from pivotrl_jax.checkpoints.gguf_file import Gguf
from pivotrl_jax.records import InputError

ROPE_FACTORS = "rope_freqs.weight"  # Llama 3: what each frequency is divided by


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What a `general.architecture` is called in config.json."""

    model_type: str
    name: str
    permuted: bool = False  # llama.cpp stores q and k in another order of rows
    experts: bool = False


ARCHITECTURES = {
    "llama": Architecture("llama", "LlamaForCausalLM", permuted=True),
    "qwen2": Architecture("qwen2", "Qwen2ForCausalLM"),
    "qwen3": Architecture("qwen3", "Qwen3ForCausalLM"),
    "qwen3moe": Architecture("qwen3_moe", "Qwen3MoeForCausalLM", experts=True),
}

_READ = (
    "block_count context_length embedding_length feed_forward_length vocab_size attention.head_count "
    "attention.head_count_kv attention.layer_norm_rms_epsilon attention.key_length attention.value_length "
    "rope.freq_base rope.dimension_count rope.scaling.type rope.scaling.factor "
    "rope.scaling.original_context_length rope.scaling.finetuned expert_count expert_used_count "
    "expert_feed_forward_length expert_weights_norm tensor_data_layout"
).split()
# settings that change nothing at these values; any of them may also be 0 or false
_NEUTRAL = {
    "attention.causal": True,
    "expert_gating_func": 1,  # softmax
    "expert_weights_scale": 1.0,
    "rope.scale_linear": 1.0,
    "rope.scaling.attn_factor": 1.0,
}

_TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate_inp": "mlp.gate",
}
_EXPERTS = {"ffn_gate_exps": "gate_proj", "ffn_up_exps": "up_proj", "ffn_down_exps": "down_proj"}


class _Settings:
    """The settings of one architecture, without its name in front. Raises InputError that names the file."""

    def __init__(self, file: Gguf):
        self.file = file
        self.name = file.get("general.architecture", str)
        if self.name not in ARCHITECTURES:
            raise InputError(
                f"{file.path}: general.architecture {self.name!r} is not read from GGUF; use one of "
                f"{', '.join(ARCHITECTURES)}"
            )

    def refused(self, why: str) -> InputError:
        return InputError(f"{self.file.path}: {why}; use another checkpoint")

    def get(self, key: str) -> Any:
        return self.file.fields.get(f"{self.name}.{key}")

    def number(self, key: str, kind: type, missing: float | None = None) -> Any:
        """A number above 0; a list that says the same for every layer counts as one."""
        value = self.get(key)
        if isinstance(value, np.ndarray) and value.size and (value == value[0]).all():
            value = value[0].item()
        if value is None:
            value = missing
        right = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
        if not right or not 0 < value < 1e12:
            what = "differs between layers" if isinstance(value, np.ndarray) else f"is {value!r}"
            raise self.refused(f"{self.name}.{key} {what}, want a number above 0")
        # stored as float32: 1e-5, not 9.999999747378752e-06, and still the same float32
        return value if kind is int else float(str(np.float32(value)))


def read_config(file: Gguf) -> dict[str, Any]:
    """config.json of the file, without the ids of special tokens. Raises InputError."""
    settings = _Settings(file)
    kind = ARCHITECTURES[settings.name]
    for key, value in file.fields.items():
        short = key.removeprefix(settings.name + ".")
        known = short == key or short in _READ or not np.any(value)
        if not known and not np.array_equal(value, _NEUTRAL.get(short)):
            raise settings.refused(f"{key} is {value!r}, which is not implemented")
    heads = settings.number("attention.head_count", int)
    # a damaged number must not make anyone list the names of a billion tensors
    for key, most in (("block_count", len(file.tensors)), ("expert_count", 10_000)):
        stated = settings.get(key)
        if isinstance(stated, int) and stated > most:
            raise settings.refused(f"{settings.name}.{key} is {stated}, more than can be")
    config = {
        "architectures": [kind.name],
        "model_type": kind.model_type,
        "vocab_size": _rows(settings, "token_embd.weight"),
        "hidden_size": settings.number("embedding_length", int),
        "num_hidden_layers": settings.number("block_count", int),
        "num_attention_heads": heads,
        "num_key_value_heads": settings.number("attention.head_count_kv", int, heads),
        "head_dim": _head_dim(settings, heads),
        "hidden_act": "silu",
        "max_position_embeddings": settings.number("context_length", int),
        "rms_norm_eps": settings.number("attention.layer_norm_rms_epsilon", float),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "attention_dropout": 0.0,
        **_rope(settings),
        **_mlp(settings, kind),
        "torch_dtype": "bfloat16" if file.tensors["token_embd.weight"].kind == "BF16" else "float32",
    }
    if kind.model_type == "qwen2":
        config["use_sliding_window"] = False  # its q, k and v always have a bias, its output never
    else:
        config["attention_bias"] = "blk.0.attn_output.bias" in file.tensors
    return config


def _rows(settings: _Settings, name: str) -> int:
    if name not in settings.file.tensors:
        raise settings.refused(f"the tensor {name} is missing")
    return settings.file.tensors[name].shape[0]


def _head_dim(settings: _Settings, heads: int) -> int:
    """llama.cpp's default is the hidden size over the heads."""
    default = settings.number("embedding_length", int) // heads
    size = settings.number("attention.key_length", int, default)
    for key in ("attention.value_length", "rope.dimension_count"):
        if (other := settings.number(key, int, size)) != size:
            raise settings.refused(
                f"{settings.name}.{key} is {other} where heads have {size}, which is not implemented"
            )
    return size


def _mlp(settings: _Settings, kind: Architecture) -> dict[str, Any]:
    if not kind.experts:
        if settings.get("expert_count"):
            raise settings.refused(f"{settings.name} with experts (Mixtral) is not implemented")
        size = settings.number("feed_forward_length", int)
        bias = {"mlp_bias": False} if kind.model_type == "llama" else {}
        return {"intermediate_size": size, **bias}
    size = settings.number("expert_feed_forward_length", int)
    return {
        "intermediate_size": settings.number("feed_forward_length", int, size),
        "moe_intermediate_size": size,
        "num_experts": settings.number("expert_count", int),
        "num_experts_per_tok": settings.number("expert_used_count", int),
        # rarely in the file: llama.cpp always does it for this architecture
        "norm_topk_prob": settings.get("expert_weights_norm") is not False,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }


# ---- RoPE


def _rope(settings: _Settings) -> dict[str, Any]:
    theta = settings.number("rope.freq_base", float, 10000.0)  # the default of the format
    unnamed = "none" if settings.get("rope.scaling.factor") in (None, 0, 1) else "linear"
    kind = settings.file.get(f"{settings.name}.rope.scaling.type", str) or unnamed
    scaling = None
    if kind == "yarn":
        scaling = {
            "rope_type": "yarn",
            "factor": settings.number("rope.scaling.factor", float),
            "original_max_position_embeddings": settings.number("rope.scaling.original_context_length", int),
        }
    elif kind != "none":
        raise settings.refused(f"rope.scaling.type {kind!r} is not implemented")
    if ROPE_FACTORS in settings.file.tensors:
        if scaling:
            raise settings.refused(f"rope.scaling.type {kind!r} beside {ROPE_FACTORS} is not implemented")
        scaling = _llama3(settings, theta)
    rope = scaling or {"rope_type": "default"}
    # transformers 5 reads rope_parameters; everything older reads rope_theta and rope_scaling
    return {"rope_theta": theta, "rope_scaling": scaling, "rope_parameters": rope | {"rope_theta": theta}}


def _llama3(settings: _Settings, theta: float) -> dict[str, Any] | None:
    """Llama 3's scaling, of which the file has the result: what each frequency is divided by.

    The released models differ in `factor` only, which is the largest divisor. Raises InputError if the
    others are not those of the released settings.
    """
    stored = settings.file.values(ROPE_FACTORS).astype(np.float64)
    if (stored == 1).all():
        return None
    scaling = {
        "rope_type": "llama3",
        "factor": float(stored.max()),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    wavelength = 2 * math.pi * theta ** (np.arange(len(stored)) / len(stored))
    # transformers' _compute_llama3_parameters: between the two wavelengths the divisor changes smoothly
    share = np.clip((8192 / wavelength - 1) / (4 - 1), 0, 1)
    expected = 1 / ((1 - share) / scaling["factor"] + share)
    if len(stored) * 2 != _head_dim(
        settings, settings.number("attention.head_count", int)
    ) or not np.allclose(stored, expected, rtol=1e-4):
        raise settings.refused(f"{ROPE_FACTORS} is not the RoPE scaling of a released Llama 3")
    return scaling


# ---- tensors


@dataclasses.dataclass(frozen=True)
class Weight:
    """A tensor of the checkpoint to write."""

    shape: tuple[int, ...]
    dtype: np.dtype
    values: Callable[[], np.ndarray]

    @property
    def size(self) -> int:
        """In bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def tensors(file: Gguf) -> dict[str, Weight]:
    """Hugging Face's name -> tensor, for every tensor in the file. Raises InputError for one that is not
    known."""
    settings = _Settings(file)
    kind = ARCHITECTURES[settings.name]
    found: dict[str, Weight] = {}
    for name, tensor in file.tensors.items():
        if name == ROPE_FACTORS:
            continue
        layer, place, last = _place(name)
        if place in _EXPERTS and len(tensor.shape) == 3:
            whole = _Experts(file, name)
            for e in range(tensor.shape[0]):
                key = f"model.layers.{layer}.mlp.experts.{e}.{_EXPERTS[place]}.{last}"
                found[key] = Weight(tensor.shape[1:], tensor.dtype, functools.partial(whole, e))
            continue
        key = _TOP.get(name) or f"model.layers.{layer}.{_LAYER.get(place)}.{last}"
        if name not in _TOP and place not in _LAYER:
            raise settings.refused(f"the tensor {name} is not known of {settings.name}")
        heads = 0
        if kind.permuted and place in ("attn_q", "attn_k"):
            heads = settings.number("attention.head_count", int)
            if place == "attn_k":
                heads = settings.number("attention.head_count_kv", int, heads)
        found[key] = Weight(tensor.shape, tensor.dtype, functools.partial(_values, file, name, heads))
    return found


def _place(name: str) -> tuple[str, str, str]:
    """ "blk.3.attn_q.weight" -> ("3", "attn_q", "weight"); ("", "", "") for a tensor outside the layers."""
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    return match.groups() if match else ("", "", "")


def _values(file: Gguf, name: str, heads: int) -> np.ndarray:
    """With `heads`, undo llama.cpp's order of the rows of q and k: it pairs neighbouring rows for RoPE, where
    Hugging Face pairs the halves of a head."""
    x = file.values(name)
    if not heads:
        return x
    pairs = x.reshape(heads, x.shape[0] // heads // 2, 2, *x.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(x.shape)


class _Experts:
    """The experts of one tensor, which is dequantised at the first call and kept until the last expert."""

    def __init__(self, file: Gguf, name: str):
        self._file, self._name, self._values = file, name, None

    def __call__(self, expert: int) -> np.ndarray:
        whole = self._file.values(self._name) if self._values is None else self._values
        self._values = None if expert == len(whole) - 1 else whole
        return np.ascontiguousarray(whole[expert])
