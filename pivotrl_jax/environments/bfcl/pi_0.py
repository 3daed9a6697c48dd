"""What makes the checkpoint "smollm2_pi0": BFCL's rows, with refusals in SmolLM2's own words.

`environment` is the data source of configs/bfcl.py:smollm2_pi0: the rows of the config's categories in the
folds that train; those of irrelevance, and LIVE_REFUSALS of live_irrelevance, answered as SmolLM2 answers
them when it sees no functions; and general prompts with its answers. BFCL itself has no words for a refusal:
with one placeholder for all of them, pi_0 answered everything with it.

The replies are in assets/smollm2_pi0/own_words.jsonl; experiments/smollm2/own_words.py asked for them.
"""

import dataclasses
import functools
import hashlib
import json
from pathlib import Path
from typing import Any

from pivotrl_jax.environments.base import fold_of
from pivotrl_jax.environments.bfcl import Bfcl, demonstrations
from pivotrl_jax.records import Trajectory

_ASSETS = Path(__file__).parents[2] / "assets" / "smollm2_pi0"
OWN_WORDS = _ASSETS / "own_words.jsonl"
LIVE_REFUSALS = 75  # about 50 of them within data.max_prompt_tokens


def _of_training(rows: list[Trajectory], data: Any) -> list[Trajectory]:
    return [t for t in rows if fold_of(t.scenario, data.folds) in data.train_folds]


def refusals(data: Any) -> list[Trajectory]:
    """The rows of the training folds in which nothing is to be called: all of irrelevance, and LIVE_REFUSALS
    of live_irrelevance in the order of a hash of their ids. `data` is the config's section."""
    rows = _of_training(demonstrations.single_turn(("irrelevance",)), data)
    live = _of_training(demonstrations.single_turn(("live_irrelevance",)), data)
    live.sort(key=lambda t: hashlib.sha256(t.id.encode()).digest())
    return rows + live[:LIVE_REFUSALS]


def prompts() -> dict[str, list[dict]]:
    """Id -> the messages of a general prompt."""
    lines = (_ASSETS / "prompts.txt").read_text("utf-8").splitlines()
    questions = [line for line in lines if line and not line.startswith("#")]
    return {f"prompt_{i}": [{"role": "user", "content": q}] for i, q in enumerate(questions)}


@functools.cache
def own_words() -> dict[str, str]:
    """Id of a row or prompt -> SmolLM2's reply."""
    lines = OWN_WORDS.read_text("utf-8").splitlines()
    return {record["id"]: record["reply"] for record in map(json.loads, lines)}


def _said(messages: list[dict], reply: str) -> list[dict]:
    return [*messages, {"role": "assistant", "content": reply}]


class Pi0(Bfcl):
    """The demonstrations of pi_0; nothing is held out."""

    name, prefixes = "smollm2_pi0", ()

    def train_tasks(self, data: Any, seed: int) -> list[Trajectory]:
        calls = [c for c in data.categories if "irrelevance" not in c]
        rows = _of_training(demonstrations.single_turn(calls), data)
        replies = own_words()
        rows += [
            dataclasses.replace(t, messages=_said(t.messages[:-1], replies[t.id]))
            for t in refusals(data)
            if t.id in replies
        ]
        rows += [
            Trajectory(id, _said(messages, replies[id]), [], self.name, id, verifier="exact")
            for id, messages in prompts().items()
            if id in replies
        ]
        return rows

    def held_out_tasks(self, data: Any, seed: int) -> list[Trajectory]:
        return []


environment = Pi0()
