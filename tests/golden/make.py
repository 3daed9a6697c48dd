"""Make the golden fixtures: random tiny checkpoints with transformers' own logits and greedy tokens.

    pip install -e '.[parity]' && python tests/golden/make.py [name ...]

Each fixture is a directory written by `save_pretrained`, so the layout is the real one, plus `answers.npz`:
`tokens` [2, 12], `logits` [2, 12, V] (float32) and `greedy` [2, 8], the continuation of `tokens` by argmax.
Weights are drawn larger than transformers' 0.02 and norms away from 1: a wrong norm, rotation or router must
show. They are rounded to bfloat16, which halves the files, before the answers are computed in float32.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

HERE = Path(__file__).parent
BASE = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "dtype": "float32",
}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "intermediate_size": 64}
CASES = {
    "dense_tied": {
        **{"vocab_size": 67, "num_hidden_layers": 2, "intermediate_size": 48, "tie_word_embeddings": True},
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    },
    "dense_untied": {
        **{"vocab_size": 61, "num_hidden_layers": 3, "intermediate_size": 40, "tie_word_embeddings": False},
        **{"num_key_value_heads": 1, "head_dim": 12, "rms_norm_eps": 1e-5},
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    },
    "moe_normed": {
        **MOE,
        **{"vocab_size": 67, "num_hidden_layers": 2, "norm_topk_prob": True, "tie_word_embeddings": False},
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e7},
    },
    "moe_raw": {
        **MOE,
        **{"vocab_size": 59, "num_hidden_layers": 2, "norm_topk_prob": False, "tie_word_embeddings": True},
        **{"num_experts": 5, "num_experts_per_tok": 3, "num_key_value_heads": 4, "fused": True},
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    },
    "moe_sharded": {
        **MOE,
        **{"vocab_size": 64, "num_hidden_layers": 2, "norm_topk_prob": True, "tie_word_embeddings": False},
        **{"head_dim": 16, "moe_intermediate_size": 8, "shard": "20KB"},
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e6},
    },
    "dense_yarn_bias": {
        **{"vocab_size": 53, "num_hidden_layers": 2, "intermediate_size": 40, "tie_word_embeddings": False},
        **{"head_dim": 16, "attention_bias": True, "max_position_embeddings": 64},
        "rope_parameters": {
            **{"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16},
            **{"beta_fast": 4.0, "beta_slow": 0.1, "mscale": 1.5, "mscale_all_dim": 0.5, "truncate": False},
        },
    },
    "moe_mixed": {
        **MOE,
        **{"vocab_size": 47, "num_hidden_layers": 4, "norm_topk_prob": True, "tie_word_embeddings": True},
        **{"moe_intermediate_size": 8, "intermediate_size": 24, "mlp_only_layers": [2]},
        "max_position_embeddings": 64,
        "rope_parameters": {
            **{"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0},
            "original_max_position_embeddings": 16,
        },
    },
    "llama_scaled": {  # Llama 3.1's RoPE, head_dim from the hidden size, every bias
        **{"model_type": "llama", "head_dim": None, "attention_bias": True, "mlp_bias": True},
        **{"vocab_size": 71, "num_hidden_layers": 2, "intermediate_size": 40, "tie_word_embeddings": False},
        **{"rms_norm_eps": 1e-5, "max_position_embeddings": 128},
        "rope_parameters": {
            **{"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0},
            **{"high_freq_factor": 4.0, "original_max_position_embeddings": 16},
        },
    },
    "llama_tied": {  # as SmolLM2: three query heads for each key/value head
        **{"model_type": "llama", "hidden_size": 36, "num_attention_heads": 9, "num_key_value_heads": 3},
        **{"head_dim": 4, "vocab_size": 73, "num_hidden_layers": 2, "intermediate_size": 44},
        **{"tie_word_embeddings": True, "rms_norm_eps": 1e-5},
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e5},
    },
    "qwen2": {
        **{"model_type": "qwen2", "vocab_size": 63, "num_hidden_layers": 2, "intermediate_size": 44},
        **{"tie_word_embeddings": True},
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    },
}


def draw(seed: int, **fields) -> torch.nn.Module:
    """A random float32 model. Without `model_type` it is a Qwen3, with experts if `num_experts` is given."""
    usual = "qwen3_moe" if "num_experts" in fields else "qwen3"
    torch.manual_seed(seed)
    config = AutoConfig.for_model(**{"model_type": usual, **BASE, **fields})
    built = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, weight in built.named_parameters():
            if name.endswith("norm.weight"):
                weight.uniform_(0.5, 1.5)
            else:
                weight.normal_(0.0, 1.0 if "embed_tokens" in name else 0.2)
            weight.copy_(weight.bfloat16())
    return built


def answers(model: torch.nn.Module, seed: int, length: int = 12, new: int = 8) -> dict[str, np.ndarray]:
    """Tokens, their logits, and the greedy continuation computed without a cache."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, model.config.vocab_size, (2, length), generator=generator)
    with torch.no_grad():
        logits, longer = model(tokens, use_cache=False).logits, tokens
        for _ in range(new):
            longer = torch.cat([longer, model(longer, use_cache=False).logits[:, -1:].argmax(-1)], 1)
    return {"tokens": tokens.numpy(), "logits": logits.numpy(), "greedy": longer[:, length:].numpy()}


def main(names: list[str]) -> None:
    for name in names or CASES:
        seed, fields = list(CASES).index(name), dict(CASES[name])
        fused, shard = fields.pop("fused", False), fields.pop("shard", "5GB")
        model = draw(seed, **fields)
        expected = answers(model, seed)
        directory = HERE / name
        shutil.rmtree(directory, ignore_errors=True)
        # save_original_format=False keeps transformers 5's fused experts; True writes one tensor per expert
        model.to(torch.bfloat16).save_pretrained(
            directory, max_shard_size=shard, save_original_format=not fused
        )
        np.savez_compressed(directory / "answers.npz", **expected)
        print(name, sum(f.stat().st_size for f in directory.iterdir()), "bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
