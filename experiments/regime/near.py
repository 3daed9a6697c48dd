"""Families near what training changes: new rows of the pretrain split, calls to invented services, induction.

The ten toy families of the main job share nothing with function calling and are answered at .98 and more, so
they show no damage. These share its form. Rows are made as for pretraining, with seeds that pretraining did
not use.
"""

import random
import sys
from pathlib import Path

from pivotrl_jax.environments import toolbox
from pivotrl_jax.records import Trajectory

sys.path.append(str(Path(__file__).resolve().parents[1] / "tiny_checkpoint"))
import corpus
import generic

SEED = 2_000_000_011  # pretraining's seeds are multiples of 1_000_003 plus a few thousand; this is none
FAMILIES = ("pretrain_split", "generic_calls", "induction")


def trajectories(family: str, count: int) -> list[Trajectory]:
    """`count` trajectories of a family; a turn of them is an item."""
    if family == "pretrain_split":
        return [toolbox.demonstrate(task) for task in toolbox.tasks("pretrain", count, SEED)]
    rng = random.Random(f"near {family}")
    if family == "generic_calls":
        pool = corpus.value_pool()
        return [_one(family, i, "tool_call", generic.single_call(rng, pool)) for i in range(count)]
    if family == "induction":
        words = corpus.all_words()
        return [_one(family, i, "exact", corpus.induction(rng, words)) for i in range(count)]
    raise ValueError(f"{family!r} is none of {FAMILIES}")


def _one(family: str, i: int, verifier: str, example: corpus.Example) -> Trajectory:
    messages, tools = example
    name = f"{family}_{i}"
    messages = [_in_full(m) for m in messages]
    return Trajectory(name, messages, tools, "near", name, verifier)


def _in_full(message: dict) -> dict:
    """The message in the form of records.py: calls with an id and a "function"."""
    calls = [
        {"id": f"call_{i}", "type": "function", "function": call.get("function", call)}
        for i, call in enumerate(message.get("tool_calls") or [])
    ]
    return {**message, "tool_calls": calls} if calls else message
