"""Memory of one update at Qwen3's vocabulary: `python experiments/benchmarks/memory.py`

Compiles, without running it, the gradient of a GRPO microbatch for a small Qwen3, dense and MoE (2 layers,
hidden 256, vocabulary 151,936, float32): a prompt of 7,680 tokens and its group of 8 completions of 64
tokens. It compares three ways:

ours       learner.Learner.accumulate over the group's forest: one row of 8,192 slots
padded     the same loss over 8 rows of prompt and completion, with logits for every token
one_row    the same, one of the 8 rows at a time

Bytes are counted by XLA (arguments, temporaries and results, minus what is aliased). The script also counts
arrays in the compiled programs that have both a token axis (8,192 or a padded row's length) and a vocabulary
axis. All three ways recompute layers in the backward pass and use our attention, whose memory is linear, so
the comparison shows the effect of sharing the prompt and of not making logits. Left out: the optimizer's
state, which is the same for all.
"""

import argparse
import dataclasses
import math
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import peers

from pivotrl_jax.models import config as model_config
from pivotrl_jax.models import decoder, sharding
from pivotrl_jax.models import log_probs as log_probs_lib
from pivotrl_jax.training import batches, losses, objectives, optimizer
from pivotrl_jax.training import learner as learner_lib

CHUNK = 512
SMALL = dict(
    hidden_size=256,
    num_layers=2,
    num_heads=8,
    num_kv_heads=2,
    head_dim=32,
    dense_layers=(),
    norm_topk_prob=True,
    attention_bias=False,
    mlp_bias=False,
    rope_theta=1e6,
    rope_scaling=None,
    rms_norm_eps=1e-6,
    tie_embeddings=False,
    dtype="float32",
    lora=None,
)
KINDS = {
    "dense": dict(model_type="qwen3", mlp_size=768, expert_size=0, num_experts=0, experts_per_token=0),
    "moe": dict(model_type="qwen3_moe", mlp_size=0, expert_size=96, num_experts=16, experts_per_token=8),
}
LOSS = objectives.policy_gradient(peers.GRPO)


def forest_batch(prompt: int, group: int, completion: int, slots: int) -> losses.Batch:
    """The packed forest of a group, made of arbitrary tokens, with the fields of the loss."""
    ids, zeros = [1] * completion, [0.0] * completion
    drawn = SimpleNamespace(token_ids=ids, log_probs=zeros, model_log_probs=zeros, finished=True)
    prompts, weights = (
        [peers.made_up_prompt("0", [1] * prompt)],
        np.full((1, group), 1 / (group * completion)),
    )
    return batches.grpo_batch(prompts, [[drawn] * group], np.zeros((1, group)), weights, [slots], 1)


def shapes_of(batch: losses.Batch, rows: int, slots: int) -> losses.Batch:
    return {name: jax.ShapeDtypeStruct((rows, slots), x.dtype) for name, x in batch.items()}


def ours(config: model_config.ModelConfig, shapes, batch):
    """Learner.accumulate, compiled."""
    adamw = optimizer.make_optimizer(1e-6, 0, 0.0, 0.9, 0.95, 1.0)
    compute = learner_lib.Compute(CHUNK, CHUNK, "full")
    learner = learner_lib.Learner(
        config, dataclasses.replace(compute, rows=1, mesh=sharding.make_mesh({})), adamw, LOSS, 1.0
    )
    return learner.accumulate.lower(shapes, {}, shapes, batch).compile()


def padded(config: model_config.ModelConfig, shapes, batch):
    """The textbook way: whole sequences, all logits, log_softmax, gather."""

    def loss(params, batch):
        rows = decoder.Rows(batch["tokens"], batch["position"], batch["subtree_end"])
        hidden = decoder.hidden_states(config, params, rows, CHUNK, "full")
        log_probs = jax.nn.log_softmax(log_probs_lib.logits_of(config, params, hidden[:, :-1]), axis=-1)
        log_prob = jnp.take_along_axis(log_probs, batch["tokens"][:, 1:, None], axis=-1)[..., 0]
        log_prob = jnp.pad(log_prob, ((0, 0), (1, 0)))
        return LOSS(log_prob, jnp.zeros_like(log_prob), batch)

    def accumulate(params, grads, batch):
        more, sums = jax.grad(loss, has_aux=True)(params, batch)
        return jax.tree.map(jnp.add, grads, more), sums

    return jax.jit(accumulate, donate_argnums=1).lower(shapes, shapes, batch).compile()


def bytes_of(compiled) -> dict[str, int]:
    m = compiled.memory_analysis()
    names = ("argument", "temp", "output", "alias")
    argument, temp, output, alias = (getattr(m, f"{name}_size_in_bytes") for name in names)
    return {"peak": argument + temp + output - alias, "argument": argument, "temp": temp}


def wide_arrays(compiled, tokens: int, vocabulary: int) -> list[str]:
    """Shapes in the program that have a vocabulary axis and at least `tokens` entries per vocabulary
    token."""
    found = set()
    for shape in re.findall(r"\b[a-z]+[0-9]*\[([0-9,]+)\]", compiled.as_text()):
        sizes = [int(n) for n in shape.split(",")]
        if vocabulary in sizes and math.prod(sizes) // vocabulary >= tokens:
            found.add(shape)
    return sorted(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompt", type=int, default=7680)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--completion", type=int, default=64)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    options = parser.parse_args()
    slots, row = options.prompt + options.group * options.completion, options.prompt + options.completion
    batch = forest_batch(options.prompt, options.group, options.completion, slots)
    page = peers.facts("memory")
    page |= {name: getattr(options, name) for name in ("prompt", "group", "completion", "vocabulary")}
    page |= {"slots": slots, "layers": SMALL["num_layers"], "hidden": SMALL["hidden_size"], "runs": 1}
    for kind, sizes in KINDS.items():
        config = model_config.ModelConfig(vocab_size=options.vocabulary, **SMALL, **sizes)
        shapes = decoder.param_shapes(config)
        ways = {
            "ours": (ours, shapes_of(batch, 1, slots), slots),
            "padded": (padded, shapes_of(batch, options.group, row), row),
            "one_row": (padded, shapes_of(batch, 1, row), row - 1),
        }
        for name, (way, arrays, tokens) in ways.items():
            compiled = way(config, shapes, arrays)
            page[f"{kind}_{name}_bytes"] = bytes_of(compiled)
            page[f"{kind}_{name}_wide_arrays"] = wide_arrays(compiled, tokens, options.vocabulary)
            peers.say(kind, name, page[f"{kind}_{name}_bytes"], page[f"{kind}_{name}_wide_arrays"])
        for name in ("padded", "one_row"):
            peak = {way: page[f"{kind}_{way}_bytes"]["peak"] for way in ("ours", name)}
            page[f"{kind}_ratio_{name}"] = peak[name] / peak["ours"]
    peers.report(page)


if __name__ == "__main__":
    main()
