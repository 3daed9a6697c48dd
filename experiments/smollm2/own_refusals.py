"""BFCL's rows with refusals in SmolLM2's own words, the data of the arms `sft_own_1` and `sft_own_4`.

BFCL has no words for a refusal: each is the same placeholder, and what is imitated 106 times over becomes the
answer to everything. Here a row in which nothing is to be called is answered as SmolLM2, as it is shipped,
answers it when it sees no functions (own_words.py); a row to which it gives no answer that ends is left out.
"""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

from pivotrl_jax.environments.base import fold_of
from pivotrl_jax.environments.bfcl import Bfcl
from pivotrl_jax.records import Trajectory

REPLIES = Path(__file__).resolve().parent / "refusals.jsonl"


def _refuses(row: Trajectory) -> bool:
    return "irrelevance" in row.id


def rows(data: Any) -> list[Trajectory]:
    """The rows of the training folds in which nothing is to be called."""
    found = Bfcl().train_tasks(data, 0)
    return [t for t in found if _refuses(t) and fold_of(t.scenario, data.folds) in data.train_folds]


@functools.cache
def replies() -> dict[str, str]:
    """Id of a row -> SmolLM2's reply."""
    lines = REPLIES.read_text("utf-8").splitlines()
    return {record["id"]: record["reply"] for record in map(json.loads, lines)}


class OwnRefusals(Bfcl):
    def train_tasks(self, data: Any, seed: int) -> list:
        found = []
        for row in super().train_tasks(data, seed):
            if not _refuses(row):
                found.append(row)
            elif row.id in replies():
                said = {"role": "assistant", "content": replies()[row.id]}
                found.append(dataclasses.replace(row, messages=[*row.messages[:-1], said]))
        return found


environment = OwnRefusals()
