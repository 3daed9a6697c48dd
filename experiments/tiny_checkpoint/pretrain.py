"""Pretrain the embedded checkpoint: `python experiments/tiny_checkpoint/pretrain.py --out=runs/tiny`.

Draws the corpus phase by phase (copy, calls, episodes), trains with the project's SFT step over packed rows,
and writes a Hugging Face directory. A phase ends when its token budget is spent; the copy phase also ends
when its loss falls below 0.25. Matrices are trained by Muon, the rest (embedding, router, norms) by AdamW.
Over the last third of all steps, in the last phase, the learning rate decays to 2 %. State is saved every few
minutes; a killed run continues with --resume.

Left out: a validation set. `experiments/tiny_checkpoint/README.md` has the held-out numbers.
"""

import argparse
import collections
import dataclasses
import json
import os
import pickle
import time
from collections.abc import Iterator
from pathlib import Path

import corpus
import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import contrib

from pivotrl_jax.checkpoints import hf
from pivotrl_jax.models import config as model_config
from pivotrl_jax.models import decoder, forest, sharding
from pivotrl_jax.training import learner as learner_lib
from pivotrl_jax.training import losses, objectives

ROOT = Path(__file__).resolve().parents[2]
CONFIG = model_config.ModelConfig(
    model_type="qwen3_moe",
    vocab_size=1664,
    hidden_size=128,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    head_dim=32,
    mlp_size=0,
    expert_size=128,
    num_experts=8,
    experts_per_token=2,
    dense_layers=(),
    norm_topk_prob=True,
    attention_bias=False,
    mlp_bias=False,
    rope_theta=10_000.0,
    rope_scaling=None,
    rms_norm_eps=1e-6,
    tie_embeddings=True,
    dtype="float32",
    lora=None,
)
# phase: tokens, slots of a row, rows of a step (8,192 slots a step throughout)
PHASES = {"copy": (400_000, 256, 32), "calls": (2_500_000, 256, 32), "episodes": (12_000_000, 1024, 8)}
COPY_DONE = 0.25  # nats per trained token


def optimizer(steps: int) -> optax.GradientTransformation:
    """Muon (learning rate 0.02) for matrices, AdamW (3e-3) for the rest. Warm-up takes 20 steps; the last
    third of the steps is linear decay."""
    knots = {20: 1.0, max(steps * 2 // 3, 21): 1.0, max(steps, 22): 0.02}

    def schedule(peak):
        at, factor = jnp.array([0, *knots]), jnp.array([0.05, *knots.values()])
        return lambda step: peak * jnp.interp(step, at, factor)

    dims = contrib.MuonDimensionNumbers
    # leaves are [L, inputs..., outputs...] ([L, E, inputs, outputs] for experts); L and E are batch axes
    matrices = {"q": dims(1, (2, 3)), "k": dims(1, (2, 3)), "v": dims(1, (2, 3)), "o": dims((1, 2), 3)}
    matrices |= {"gate": dims(2, 3), "up": dims(2, 3), "down": dims(2, 3)}

    def numbers(params):
        return jax.tree_util.tree_map_with_path(lambda path, _: matrices.get(path[-1].key), params)

    return optax.chain(
        optax.clip_by_global_norm(1.0),
        contrib.muon(
            schedule(0.02),
            adam_learning_rate=schedule(3e-3),
            muon_weight_dimension_numbers=numbers,
            adam_b2=0.98,
            weight_decay=0.01,
            consistent_rms=None,
        ),
    )


def batches(phase: str, seed: int) -> Iterator[tuple[losses.Batch, int]]:
    """Endless (forest arrays of whole conversations, number of tokens in them). The weights make the loss a
    mean over trained tokens. Conversations longer than a row are left out."""
    _, slots, rows = PHASES[phase]
    waiting, size = [], 0
    for block in corpus.batches(phase, seed):
        block = [(ids, mask) for _, ids, mask in block if len(ids) <= slots]
        waiting += block
        size += sum(len(ids) for ids, _ in block)
        while size > 1.5 * rows * slots:
            batch, waiting = fill(waiting, rows, slots)
            size = sum(len(ids) for ids, _ in waiting)
            yield batch, int((batch["subtree_end"] > 0).sum())


def fill(items: list, rows: int, slots: int) -> tuple[losses.Batch, list]:
    """(batch, conversations that did not fit). Conversations are laid out longest first; each is a tree
    without branches."""
    batch = {name: np.zeros((rows, slots), np.int32) for name in forest.ARRAYS}
    batch["weight"] = np.zeros((rows, slots), np.float32)
    free, left = [0] * rows, []
    for ids, mask in sorted(items, key=lambda item: -len(item[0])):
        n = len(ids)
        row = next((r for r in range(rows) if free[r] + n <= slots), None)
        if row is None:
            left.append((ids, mask))
            continue
        start = free[row]
        here = slice(start, start + n)
        batch["tokens"][row, here], batch["position"][row, here] = ids, np.arange(n)
        batch["parent"][row, here] = np.arange(start - 1, start + n - 1)
        batch["parent"][row, start] = -1
        batch["subtree_end"][row, here], batch["weight"][row, here] = start + n, mask
        free[row] += n
    batch["weight"] /= batch["weight"].sum()
    return batch, left


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "tiny")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies every phase's tokens")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    steps = int(sum(tokens for tokens, _, _ in PHASES.values()) * options.scale / 8192 / 0.98)
    mesh = sharding.make_mesh({})
    compute = learner_lib.Compute(attention_chunk=128, log_prob_chunk=128, remat="nothing")

    def make(rows: int) -> learner_lib.Learner:
        return learner_lib.Learner(
            CONFIG,
            dataclasses.replace(compute, rows=rows, mesh=mesh),
            optimizer(steps),
            objectives.negative_log_likelihood,
            1.0,
        )

    state = make(1).init_state(decoder.init_params(CONFIG, jax.random.key(options.seed)))
    done: dict[str, float] = {}  # tokens spent per phase
    saved = options.out / "state.pickle"
    if options.resume:
        leaves, done = pickle.loads(saved.read_bytes())
        state = jax.tree.unflatten(jax.tree.structure(state), [jnp.asarray(x) for x in leaves])

    log = (options.out / "pretrain.jsonl").open("a")
    began, last_save = time.time(), time.time()
    for number, (phase, (budget, _, rows)) in enumerate(PHASES.items()):
        learner, recent = make(rows), collections.deque(maxlen=20)
        spent = done.get(phase, 0)
        # the seed depends on the tokens spent, so that a resumed phase draws new data
        for batch, tokens in batches(phase, options.seed * 1000 + number * 100 + spent):
            if spent >= budget * options.scale or (phase == "copy" and spent and np.mean(recent) < COPY_DONE):
                break
            state, metrics = learner.step(state, batch)
            spent += tokens
            recent.append(metrics["loss"])
            done[phase] = spent
            if int(state.step) % 20 == 0:
                line = {"phase": phase, "step": int(state.step), "tokens": spent}
                line |= {
                    "loss": float(np.mean(recent)),
                    "seconds": round(time.time() - began, 1),
                    "grad_norm": metrics["grad_norm"],
                }
                print(json.dumps(line), file=log, flush=True)
                print(line, flush=True)
            if time.time() - last_save > 120:
                temporary = saved.with_suffix(".tmp")
                temporary.write_bytes(pickle.dumps(([np.asarray(x) for x in jax.tree.leaves(state)], done)))
                os.replace(temporary, saved)
                hf.save(options.out / "hf", CONFIG, state.params, corpus.ASSETS)
                last_save = time.time()
        done[phase] = max(spent, budget * options.scale)
    hf.save(options.out / "hf", CONFIG, state.params, corpus.ASSETS)
    print(f"{sum(done.values()):,.0f} tokens in {time.time() - began:,.0f} s -> {options.out / 'hf'}")


if __name__ == "__main__":
    main()
