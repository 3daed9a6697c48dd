"""Alpaca rows, as LLaMA-Factory reads them -> trajectories.

    {"instruction": "...", "input": "...", "output": "...", "system": "...", "history": [["q", "a"]]}

The user says the instruction and the input, the output is the last turn. Of a row with `chosen` and
`rejected` the chosen answer is demonstrated. `kto_tag` is the reward. Rows are read on as chat messages
(openai_chat).
"""

import dataclasses
from pathlib import Path
from typing import Any

from pivotrl_jax.chat.messages import require
from pivotrl_jax.records import Trajectory
from pivotrl_jax.trajectories.readers import building, openai_chat

OUTPUTS = ("output", "chosen", "response")


def recognise(sample: Any, path: Path) -> bool:
    """Whether it is a row with an instruction and an output, and without messages."""
    if not isinstance(sample, dict) or not isinstance(sample.get("instruction"), str):
        return False
    return any(isinstance(sample.get(key), str) for key in OUTPUTS) and "messages" not in sample


def trajectory(document: Any, where: str) -> Trajectory:
    """One row. Raises InputError."""
    row = require(document, dict, "a row")
    messages = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    for pair in require(row.get("history") or [], list, '"history"'):
        asked, answered = [*require(pair, list, "a pair of the history"), None, None][:2]
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    said = [require(row.get("instruction"), str, '"instruction"')]
    said += [require(row["input"], str, '"input"')] if row.get("input") else []
    answer = next((row[key] for key in OUTPUTS if row.get(key) is not None), None)
    messages += [{"role": "user", "content": "\n".join(said)}]
    messages += [{"role": "assistant", "content": require(answer, str, '"output"')}]
    rest = {key: row[key] for key in ("id", "scenario", "tools", "reward") if row.get(key) is not None}
    reward = building.number(row.get("kto_tag"))
    chat = openai_chat.trajectory({**rest, "messages": messages}, where)
    return dataclasses.replace(chat, source="alpaca", reward=chat.reward if reward is None else reward)
