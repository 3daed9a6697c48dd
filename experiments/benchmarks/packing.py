"""Packing speed: `python experiments/benchmarks/packing.py`

Packs synthetic batches into rows of 8192 slots, as a training step does on the host, several times each.
Prints one JSON line: for each case the input tokens, the output slots, the fill of the rows, and the median
seconds, in total and per 100,000 slots. The target is below 0.2 s per 100,000. JAX is not used.
"""

import dataclasses
import json
import platform
import statistics
import time

import numpy as np

from pivotrl_jax.models import forest
from pivotrl_jax.models.forest import Piece

SLOTS, REPEATS = 8192, 7
RNG = np.random.default_rng(0)


def draw(n: int) -> list[int]:
    return RNG.integers(0, 150_000, n).tolist()


def completions(count: int = 8, tokens: int = 32) -> list[list[int]]:
    return [draw(tokens) for _ in range(count)]


def trajectories(count: int, turns: int, longest: int) -> list[list[Piece]]:
    """Every turn has 8 completions, and its prompt extends that of the turn before."""
    return [
        [Piece(i, whole[: longest * (i + 1) // turns], completions()) for i in range(turns)]
        for whole in (draw(longest) for _ in range(count))
    ]


def demonstrations(count: int, turns: int, longest: int) -> list[list[Piece]]:
    """Whole trajectories for SFT: a turn's completion is part of the next turn's prompt."""
    ends = [longest * (i + 1) // turns for i in range(turns)]
    return [
        [Piece(i, whole[: end - 32], [whole[end - 32 : end]], merge=True) for i, end in enumerate(ends)]
        for whole in (draw(longest) for _ in range(count))
    ]


def bushy(prompts: int, prefix: int, own: int) -> list[Piece]:
    """One tree: every prompt branches off an earlier one at a random place and continues with its own
    tokens."""
    paths = [draw(prefix)]
    for _ in range(prompts - 1):
        base = paths[RNG.integers(len(paths))]
        paths.append(base[: RNG.integers(prefix // 2, len(base) + 1)][:2000] + draw(own))
    return [Piece(i, path, completions(4, 16)) for i, path in enumerate(paths)]


def arrays(groups: list[list[Piece]]) -> list[list[Piece]]:
    """The same pieces with numpy arrays instead of lists."""

    def one(piece):
        branches = [np.array(ids, np.int32) for ids in piece.branches]
        return dataclasses.replace(piece, prompt=np.array(piece.prompt, np.int32), branches=branches)

    return [[one(piece) for piece in group] for group in groups]


def cases() -> dict[str, list[list[Piece]]]:
    turns = trajectories(64, 8, 1500)
    return {
        "64 trajectories of 8 turns, lists": turns,
        "64 trajectories of 8 turns, arrays": arrays(turns),
        "64 whole trajectories of 8 turns": demonstrations(64, 8, 1500),
        "one tree of 1000 prompts": [bushy(1000, 400, 40)],
        "2000 short pieces": [[Piece(i, draw(40), [draw(10)])] for i in range(2000)],
        "2000 pieces of one group that share nothing": [
            [Piece(i, [i, *draw(39)], [draw(10)]) for i in range(2000)]
        ],
    }


def measure(groups: list[list[Piece]]) -> dict[str, float]:
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        packed = forest.pack(groups, SLOTS, 0)
        times.append(time.perf_counter() - began)
    used, seconds = int((packed.subtree_end > 0).sum()), statistics.median(times)
    pieces = [piece for group in groups for piece in group]
    return {
        "input_tokens": sum(len(p.prompt) + sum(map(len, p.branches)) for p in pieces),
        "slots": used,
        "rows": len(packed.tokens),
        "fill": round(packed.fill, 3),
        "seconds": round(seconds, 4),
        "seconds_per_100k_slots": round(seconds * 1e5 / used, 4),
    }


def main() -> None:
    found = {name: measure(groups) for name, groups in cases().items()}
    machine = f"{platform.machine()}, numpy {np.__version__}"
    print(json.dumps({"benchmark": "packing", "machine": machine, "row": SLOTS, "cases": found}))


if __name__ == "__main__":
    main()
