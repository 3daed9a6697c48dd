"""Tiny models, random forests and the naive padded batch that they must equal. Shared by the array tests."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from hypothesis import strategies as st

from pivotrl_jax.models import config as model_config
from pivotrl_jax.models import decoder, rope
from pivotrl_jax.models.forest import Forest, Piece, Placement
from pivotrl_jax.training import learner as learner_lib
from pivotrl_jax.training import objectives

MOE = model_config.ModelConfig(
    model_type="qwen3_moe",
    vocab_size=61,
    hidden_size=16,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=6,
    mlp_size=0,
    expert_size=12,
    num_experts=5,
    experts_per_token=2,
    dense_layers=(),
    norm_topk_prob=True,
    attention_bias=False,
    mlp_bias=False,
    rope_theta=1e4,
    rope_scaling=None,
    rms_norm_eps=1e-6,
    tie_embeddings=True,
    dtype="float32",
    lora=None,
)

DENSE = dataclasses.replace(
    MOE,
    model_type="qwen3",
    num_experts=0,
    experts_per_token=0,
    expert_size=0,
    mlp_size=20,
    tie_embeddings=False,
)


# every kind of layer and option in one model
MIXED = dataclasses.replace(
    MOE,
    num_layers=4,
    mlp_size=20,
    dense_layers=(0, 2),
    attention_bias=True,
    rope_scaling=rope.Yarn(4.0, 16, 32.0, 1.0, 1.1386, True),
)


def sharp_params(config: model_config.ModelConfig, seed: int = 0) -> decoder.Params:
    """Random parameters large enough for distributions far from uniform and routers far from ties."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):  # numpy, because compiling the initialiser takes longer than using the parameters
        norm = path[-1].key.endswith("norm")
        x = rng.uniform(0.5, 1.5, leaf.shape) if norm else rng.normal(size=leaf.shape) * 0.24
        return jnp.asarray(x, leaf.dtype)

    return jax.tree.map_with_path(draw, decoder.param_shapes(config))


def ancestors(parent_T: np.ndarray) -> np.ndarray:
    """bool [T, T]: whether slot j is slot i or one of its ancestors, by walking parents. The slow truth."""
    T = len(parent_T)
    out = np.zeros((T, T), bool)
    for i in range(T):
        j = i
        while j >= 0:
            out[i, j] = True
            j = parent_T[j]
    return out


def path_tokens(forest: Forest, row: int, slot: int) -> list[int]:
    """Tokens from the root to `slot`, by walking parents."""
    out = []
    while slot >= 0:
        out.append(int(forest.tokens[row, slot]))
        slot = forest.parent[row, slot]
    return out[::-1]


def padded(groups: list[list[Piece]], rows: int, slots: int) -> Forest:
    """The naive batch: every prompt and completion alone in a row, padded on the right; keys (key,
    branch)."""
    shape = (rows, slots)
    arrays = {name: np.zeros(shape, np.int32) for name in ("tokens", "position", "subtree_end")}
    parent = np.full(shape, -1, np.int32)
    placed = []
    for piece in (p for group in groups for p in group):
        for b, branch in enumerate(piece.branches):
            ids, r = [*piece.prompt, *branch], len(placed)
            n = len(ids)
            arrays["tokens"][r, :n], arrays["position"][r, :n] = ids, np.arange(n)
            arrays["subtree_end"][r, :n] = n
            parent[r, :n] = np.arange(n) - 1
            at = len(piece.prompt)
            placed.append(Placement((piece.key, b), r, at - 1, (at,), 0, 0))
    return Forest(**arrays, parent=parent, placed=tuple(placed))


def widen(forest: Forest, rows: int, slots: int) -> Forest:
    """The forest with empty rows and slots added, so that many forests share one compiled shape."""
    R, T = forest.tokens.shape
    extra = ((0, rows - R), (0, slots - T))
    return Forest(
        np.pad(forest.tokens, extra),
        np.pad(forest.position, extra),
        np.pad(forest.parent, extra, constant_values=-1),
        np.pad(forest.subtree_end, extra),
        forest.placed,
    )


def spread(forest: Forest, values: dict[tuple, np.ndarray]) -> np.ndarray:
    """float32 [R, T]: the values of every (piece key, branch) at its slots, zero elsewhere; where merged
    branches share a slot, their sum."""
    out = np.zeros(forest.tokens.shape, np.float32)
    for placed in forest.placed:
        for b in range(len(placed.branch_slots)):
            key = placed.key if isinstance(placed.key, tuple) else (placed.key, placed.first + b)
            forest.add(out, placed, b, values[key])
    return out


def collect(forest: Forest, x_RT: np.ndarray, lengths: dict[tuple, int]) -> dict[tuple, np.ndarray]:
    """The values at the slots of every (piece key, branch)."""
    out = {}
    for placed in forest.placed:
        for b in range(len(placed.branch_slots)):
            key = placed.key if isinstance(placed.key, tuple) else (placed.key, placed.first + b)
            out[key] = forest.read(np.asarray(x_RT), placed, b, lengths[key])
    return out


def per_token(groups: list[list[Piece]], rng, draw=None) -> dict[tuple, np.ndarray]:
    """Random numbers, one per completion token of every (piece key, branch)."""
    draw = draw or (lambda n: rng.normal(size=n).astype(np.float32))
    return {(p.key, b): draw(len(ids)) for group in groups for p in group for b, ids in enumerate(p.branches)}


def random_groups(
    rng, groups: int, pieces: int, branches: int, prompt: int, branch: int, vocab: int = 4
) -> list[list[Piece]]:
    """Groups with exactly the given counts and lengths; a small vocabulary makes prompts share prefixes."""
    draw = lambda n: rng.integers(1, vocab, n).tolist()  # noqa: E731
    keys = iter(range(groups * pieces))
    return [
        [Piece(next(keys), draw(prompt), [draw(branch) for _ in range(branches)]) for _ in range(pieces)]
        for _ in range(groups)
    ]


def often_seen_gradient(mesh, dtype: str) -> dict[str, np.ndarray]:
    """Gradients of embed and unembed where each of 8 tokens is seen some 500 times, chunk by chunk."""
    config = dataclasses.replace(DENSE, dtype=dtype, num_layers=1, vocab_size=8)
    tokens = np.random.default_rng(0).integers(0, 8, (2, 2048)).astype(np.int32)
    row = np.arange(2048, dtype=np.int32)[None].repeat(2, 0)
    batch = {"tokens": tokens, "position": row % 64, "parent": row - 1, "subtree_end": row // 64 * 64 + 64}
    batch["weight"] = ((row % 64 > 0) / 4000).astype(np.float32)
    compute = learner_lib.Compute(attention_chunk=64, log_prob_chunk=32, remat="nothing")
    learner = learner_lib.Learner(
        config,
        dataclasses.replace(compute, rows=2, mesh=mesh),
        optax.sgd(1.0),
        objectives.negative_log_likelihood,
        1.0,
    )
    params = sharp_params(config)
    state, _ = learner.step(learner.init_state(params), batch)
    return {name: np.asarray(params[name] - state.params[name]) for name in ("embed", "unembed")}


@st.composite
def groups_of_pieces(
    draw, groups: int = 3, pieces: int = 2, branches: int = 3, prompt: int = 9, kinds: str = "branches"
):
    """A few groups of pieces: shared prefixes, prompts that extend other prompts and completions, equal ones,
    equal, empty and single-token completions. `kinds` (words of "branches", "merged", "samples") are mixed
    within a group."""
    token, keys = st.integers(1, 3), iter(range(groups * pieces))

    def piece(paths):
        base = draw(st.sampled_from(paths))
        own = draw(st.lists(token, min_size=0 if base else 1, max_size=prompt))
        ids, kind = (base + own)[:prompt], draw(st.sampled_from(kinds.split()))
        if kind == "samples":
            return Piece(next(keys), ids, samples=draw(st.integers(1, branches)))
        ends = draw(st.lists(st.lists(token, max_size=4), max_size=branches))
        paths += [ids, *(ids + end for end in ends)]
        return Piece(next(keys), ids, ends, merge=kind == "merged")

    def group():
        paths = [[]]
        return [piece(paths) for _ in range(draw(st.integers(1, pieces)))]

    return [group() for _ in range(draw(st.integers(1, groups)))]
