"""How exactly a forest agrees with the padded batch: `python experiments/benchmarks/exactness.py`

Runs random forests through the embedded checkpoint (Qwen3-MoE, trained weights) in float32: trajectories of
random tokens, prompts that are prefixes of them of random length (some with a tail of their own), completions
of random length. Each is computed as a packed forest by learner.forest_log_probs, and as the padded batch:
every completion with its whole prompt in a row of its own, all logits, log_softmax, gather. The report gives,
over all forests, the largest absolute difference of a log-prob and the largest relative difference of a
gradient (of a randomly weighted sum of log-probs). The latter is, for every parameter array, the largest
difference over the largest entry, and the norm of the difference over the norm.

Left out: other dtypes and meshes (tests/models/test_sharding.py), generated text
(tests/rollouts/test_sampler.py).
"""

import argparse
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import peers

from pivotrl_jax.models import config as model_config
from pivotrl_jax.models import decoder, forest, sharding
from pivotrl_jax.training import learner

TREES, PROMPTS, BRANCHES, TRUNK, COMPLETION, SLOTS = 3, 3, 3, 160, 24, 512
COMPUTE = learner.Compute(attention_chunk=128, log_prob_chunk=128, remat="nothing")


def random_trees(rng: np.random.Generator, vocabulary: int) -> list[list[forest.Piece]]:
    def draw(most: int) -> list[int]:
        return rng.integers(1, vocabulary, rng.integers(1, most + 1)).tolist()

    trees = []
    for t in range(TREES):
        prefix, pieces = rng.integers(1, vocabulary, TRUNK).tolist(), []
        for p in range(PROMPTS):
            prompt = prefix[: rng.integers(1, TRUNK + 1)] + (draw(8) if rng.integers(2) else [])
            pieces.append(forest.Piece(t * PROMPTS + p, prompt, [draw(COMPLETION) for _ in range(BRANCHES)]))
        trees.append(pieces)
    return trees


def forest_batch(trees, coefficient) -> tuple[dict, dict]:
    """Packed arrays with `weight` and `coefficient`, and the (row, slot) of every completion."""
    packed = forest.pack(trees, SLOTS, 0, TREES)
    batch = packed.arrays()
    batch["weight"] = np.zeros(packed.tokens.shape, np.float32)
    batch["coefficient"] = np.zeros(packed.tokens.shape, np.float32)
    places = {}
    for placed in packed.placed:
        for b, slot in enumerate(placed.branch_slots):
            key = placed.key, placed.first + b
            places[key] = placed.row, slot
            here = placed.row, slice(slot, slot + len(coefficient[key]))
            batch["weight"][here], batch["coefficient"][here] = 1.0, coefficient[key]
    return batch, places


def padded_batch(trees, coefficient) -> tuple[dict, dict]:
    shape = TREES * PROMPTS * BRANCHES, TRUNK + 8 + COMPLETION
    batch = {"tokens": np.zeros(shape, np.int32), "coefficient": np.zeros(shape, np.float32)}
    places = {}
    for piece in (piece for pieces in trees for piece in pieces):
        for b, ids in enumerate(piece.branches):
            row, at = len(places), len(piece.prompt)
            batch["tokens"][row, : at + len(ids)] = [*piece.prompt, *ids]
            batch["coefficient"][row, at : at + len(ids)] = coefficient[piece.key, b]
            places[piece.key, b] = row, at
    return batch, places


def programs(config: model_config.ModelConfig):
    """Two programs, for a forest and for a padded batch; each returns log-probs [R, T] and the gradient."""

    def of_forest(params, batch):
        log_prob, _ = learner.forest_log_probs(config, COMPUTE, params, batch, 1.0)
        return (log_prob * batch["coefficient"]).sum(), log_prob

    def of_padded(params, batch):
        tokens = batch["tokens"]
        log_probs = jax.nn.log_softmax(decoder.logits(config, params, tokens)[:, :-1], axis=-1)
        log_prob = jnp.take_along_axis(log_probs, tokens[:, 1:, None], axis=-1)[..., 0]
        log_prob = jnp.pad(log_prob, ((0, 0), (1, 0)))
        return (log_prob * batch["coefficient"]).sum(), log_prob

    return (jax.jit(jax.grad(f, has_aux=True)) for f in (of_forest, of_padded))


def difference(params, run_forest, run_padded, rng, vocabulary: int) -> dict[str, float]:
    trees = random_trees(rng, vocabulary)
    branches = {(p.key, b): ids for pieces in trees for p in pieces for b, ids in enumerate(p.branches)}
    coefficient = {key: rng.normal(size=len(ids)).astype(np.float32) for key, ids in branches.items()}
    batches = forest_batch(trees, coefficient), padded_batch(trees, coefficient)
    (ours, our_log_prob), (theirs, their_log_prob) = (
        jax.device_get(run(params, batch)) for run, (batch, _) in zip((run_forest, run_padded), batches)
    )

    def at(log_prob, place, n):
        return log_prob[place[0], place[1] : place[1] + n]

    log_prob = max(
        np.abs(
            at(our_log_prob, batches[0][1][key], len(ids)) - at(their_log_prob, batches[1][1][key], len(ids))
        ).max()
        for key, ids in branches.items()
    )
    pairs = list(zip(jax.tree.leaves(ours), jax.tree.leaves(theirs)))
    return {
        "log_prob": float(log_prob),
        "gradient_entry": max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs),
        "gradient_norm": max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in pairs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--forests", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    config, params = peers.load_policy(sharding.make_mesh({}))
    run_forest, run_padded = programs(config)
    found = []
    for i in range(options.forests):
        rng = np.random.default_rng([options.seed, i])
        found.append(difference(params, run_forest, run_padded, rng, config.vocab_size))
        peers.say(f"forest {i}: {found[-1]}")
    page = peers.facts("exactness")
    page |= {
        "forests": options.forests,
        "seed": options.seed,
        "completions": TREES * PROMPTS * BRANCHES,
        "runs": 1,
    }
    for name in found[0]:
        values = [entry[name] for entry in found]
        page |= {f"{name}_max": max(values), f"{name}_median": statistics.median(values)}
    peers.report(page)


if __name__ == "__main__":
    main()
