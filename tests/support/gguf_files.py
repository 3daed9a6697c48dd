"""Small GGUF files of random models, as llama.cpp's converter would write them."""

import functools
import json
import zlib
from pathlib import Path

import numpy as np

WORDS = "the capital of France is Paris; call(f, x=12) 'it's  34 naïve 日本\n\n\tdef go(): return 1\r\n" * 3
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
USER_DEFINED = ["<think>", "</think>"]
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
)

HIDDEN, HEADS, KEY_HEADS, MLP, EXPERTS = 256, 4, 2, 256, 4
# the matrices of a layer, which are quantised
BIG = (
    "attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down ffn_gate_exps ffn_up_exps ffn_down_exps"
).split()


@functools.cache
def byte_level_tokens(split: str | None) -> tuple[list[str], list[str], object]:
    """(tokens, merges, the tokenizers.Tokenizer) of a byte-level BPE that splits text by a pattern."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    steps = [pre_tokenizers.Split(Regex(split), "isolated")] if split else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*steps, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=340, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([WORDS], trainer)
    tokenizer.add_special_tokens([AddedToken(x, special=True, normalized=False) for x in CONTROL])
    tokenizer.add_tokens([AddedToken(x, special=False, normalized=False) for x in USER_DEFINED])
    merges = [" ".join(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    tokens = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    return tokens, merges, tokenizer


def shapes(architecture: str, head_dim: int) -> dict[str, tuple[int, ...]]:
    """GGUF's names and shapes of a model of two layers, without the embedding."""
    q, k = HEADS * head_dim, KEY_HEADS * head_dim
    layer = {"attn_norm": (HIDDEN,), "ffn_norm": (HIDDEN,), "attn_q": (q, HIDDEN), "attn_k": (k, HIDDEN)}
    layer |= {"attn_v": (k, HIDDEN), "attn_output": (HIDDEN, q)}
    if architecture.startswith("qwen3"):
        layer |= {"attn_q_norm": (head_dim,), "attn_k_norm": (head_dim,)}
    if architecture == "qwen3moe":
        layer |= {"ffn_gate_inp": (EXPERTS, HIDDEN), "ffn_gate_exps": (EXPERTS, MLP, HIDDEN)}
        layer |= {"ffn_up_exps": (EXPERTS, MLP, HIDDEN), "ffn_down_exps": (EXPERTS, HIDDEN, MLP)}
    else:
        layer |= {"ffn_gate": (MLP, HIDDEN), "ffn_up": (MLP, HIDDEN), "ffn_down": (HIDDEN, MLP)}
    found = {f"blk.{i}.{name}.weight": shape for i in range(2) for name, shape in layer.items()}
    if architecture == "qwen2":
        found |= {f"blk.{i}.attn_{x}.bias": (q if x == "q" else k,) for i in range(2) for x in "qkv"}
    return found | {"output_norm.weight": (HIDDEN,)}


def fields_of(architecture: str, head_dim: int, pre: str = "qwen2") -> dict:
    """The settings of the file, as Python values. uint32, float32, bool, text and lists of them."""
    from pivotrl_jax.checkpoints.gguf_tokenizer import SPLITS

    tokens, merges, _ = byte_level_tokens(SPLITS[pre])
    ids = {token: i for i, token in enumerate(tokens)}
    model = {
        "block_count": 2,
        "context_length": 512,
        "embedding_length": HIDDEN,
        "feed_forward_length": MLP,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KEY_HEADS,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.freq_base": 10000.0,
        "rope.dimension_count": head_dim,
    }
    if architecture.startswith("qwen3"):
        model |= {"attention.key_length": head_dim, "attention.value_length": head_dim}
        del model["rope.dimension_count"]
    if architecture == "qwen3moe":
        model |= {"expert_count": EXPERTS, "expert_used_count": 2, "expert_feed_forward_length": MLP}
    return {f"{architecture}.{key}": value for key, value in model.items()} | {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if t in CONTROL else 4 if t in USER_DEFINED else 1 for t in tokens],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.eos_token_id": ids["<|endoftext|>"],
        "tokenizer.ggml.padding_token_id": ids["<|endoftext|>"],
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TEMPLATE,
    }


def weights(architecture: str, head_dim: int, vocab: int, tied: bool) -> dict[str, np.ndarray]:
    """Random weights under GGUF's names, in Hugging Face's order of rows."""
    wanted = shapes(architecture, head_dim) | {"token_embd.weight": (vocab, HIDDEN)}
    wanted |= {} if tied else {"output.weight": (vocab, HIDDEN)}
    found = {}
    for name, shape in wanted.items():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        x = rng.standard_normal(shape, np.float32) / 16
        found[name] = x + 1 if "norm" in name else x
    return found


def permuted(x: np.ndarray, heads: int) -> np.ndarray:
    """`permute` of llama.cpp's convert_hf_to_gguf.py."""
    return x.reshape(heads, 2, x.shape[0] // heads // 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def write(path: Path, architecture: str, kind: str = "F32", head_dim: int = 64, tied: bool = True, **other):
    """Write a file and return what its weights are once dequantised, under GGUF's names but in Hugging Face's
    order of rows. `other`: `fields` to add or, if None, to leave out; `tensors` likewise."""
    fields = fields_of(architecture, head_dim, other.get("pre", "qwen2")) | other.get("fields", {})
    values = weights(architecture, head_dim, len(fields["tokenizer.ggml.tokens"]), tied) | other.get(
        "tensors", {}
    )
    return write_raw(path, architecture, kind, fields, {k: v for k, v in values.items() if v is not None})


def write_raw(path: Path, architecture: str, kind: str, fields: dict, values: dict[str, np.ndarray]) -> dict:
    """Matrices of the layers are stored as `kind`, the embedding as Q8_0 if that is a quantisation."""
    from gguf import GGMLQuantizationType, GGUFWriter, quants

    writer = GGUFWriter(path, architecture)
    for key, value in fields.items():
        if value is not None:
            adds = {
                bool: writer.add_bool,
                int: writer.add_uint32,
                float: writer.add_float32,
                str: writer.add_string,
            }
            adds.get(type(value), writer.add_array)(key, value)
    back = {}
    for name, x in values.items():
        place = name.split(".")[2] if name.startswith("blk.") else name
        stored = {"F16": "F16", "BF16": "BF16", "F32": "F32"}.get(kind, "Q8_0")
        stored = kind if place in BIG and name.endswith(".weight") else stored if x.ndim > 1 else "F32"
        form = GGMLQuantizationType[stored]
        heads = {"attn_q": HEADS, "attn_k": KEY_HEADS}.get(place) if architecture == "llama" else None
        x = permuted(x, heads) if heads else x
        if stored in ("F32", "F16"):
            data = x.astype(np.float32 if stored == "F32" else np.float16)
            writer.add_tensor(name, data)
        else:
            data = quants.quantize(x, form) if "_K" not in stored else _random_blocks(name, x.shape, form)
            writer.add_tensor(name, data, raw_dtype=form)
        back[name] = quants.dequantize(data, form) if data.dtype == np.uint8 else data.astype(np.float32)
        if heads:
            half = x.shape[0] // heads // 2
            halves = back[name].reshape(heads, half, 2, *x.shape[1:]).swapaxes(1, 2)
            back[name] = halves.reshape(x.shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return back


def _random_blocks(name: str, shape: tuple[int, ...], form) -> np.ndarray:
    """Blocks of a quantisation that the package only undoes: random bytes, with scales that are numbers."""
    from gguf import GGML_QUANT_SIZES

    block, size = GGML_QUANT_SIZES[form]
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    data = rng.integers(0, 256, (*shape[:-1], shape[-1] // block, size), np.uint8)
    scale = np.frombuffer(np.float16(0.001).tobytes(), np.uint8)
    at = {"Q6_K": (208,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q3_K": (108,), "Q2_K": (80, 82)}[form.name]
    for start in at:
        data[..., start : start + 2] = scale
    return data.reshape(*shape[:-1], -1)


def sentencepiece_fields() -> dict:
    """What a file with a sentencepiece tokenizer says in place of `fields_of`'s."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces = ["▁t", "he", "▁the", "▁c", "at", "▁cat", "th", "▁", "t", "h", "e", "c", "a"]  # the best first
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": None,
        "tokenizer.ggml.merges": None,
        "tokenizer.ggml.tokens": [*tokens, *pieces],
        "tokenizer.ggml.scores": [0.0] * len(tokens) + [-float(i) for i in range(len(pieces))],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(pieces),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": None,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": None,
    }
