"""What makes pi_0 of experiments/smollm2: BFCL's rows, with refusals in SmolLM2's own words.

`python experiments/smollm2/pi_0.py` asks SmolLM2 as it is shipped, and writes own_words.jsonl: what it
answers to the questions of the irrelevance rows when it sees no functions, and to prompts.txt. Each gets the
reply at temperature 0 if it ends within the limit, else the first of SAMPLES at 0.7 that does; a question
without one is left out and counted.

`environment` is the data source of configs/bfcl.py:smollm2_pi0: the rows of the config's categories, those of
irrelevance with these replies, LIVE_REFUSALS rows of live_irrelevance, and the prompts. BFCL itself has no
words for a refusal. With one placeholder for all of them, pi_0 answered everything with it.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pivotrl_jax.environments.bfcl import Bfcl, demonstrations
from pivotrl_jax.records import Trajectory
from pivotrl_jax.trajectories.split import split_folds

HERE = Path(__file__).resolve().parent
OWN_WORDS = HERE / "own_words.jsonl"
SAMPLES, REPLY_TOKENS = 8, 96
LIVE_REFUSALS = 75  # about 50 of them within data.max_prompt_tokens


def refusals(data: Any) -> list[Trajectory]:
    """The rows of the config's training folds in which nothing is to be called: all of irrelevance, and
    LIVE_REFUSALS of live_irrelevance in the order of a hash of their ids. `data` is the config's section."""
    rows = demonstrations.single_turn(("irrelevance", "live_irrelevance"))
    rows, _ = split_folds(rows, data.folds, data.train_folds, ())
    live = [t for t in rows if t.id.startswith("live_")]
    live.sort(key=lambda t: hashlib.sha256(t.id.encode()).digest())
    return [t for t in rows if not t.id.startswith("live_")] + live[:LIVE_REFUSALS]


def prompts() -> dict[str, list[dict]]:
    """Id -> the messages of a line of prompts.txt."""
    lines = (HERE / "prompts.txt").read_text("utf-8").splitlines()
    questions = [line for line in lines if line and not line.startswith("#")]
    return {f"prompt_{i}": [{"role": "user", "content": q}] for i, q in enumerate(questions)}


@functools.cache
def own_words() -> dict[str, str]:
    """Id of a row or prompt -> SmolLM2's reply."""
    lines = OWN_WORDS.read_text("utf-8").splitlines()
    return {record["id"]: record["reply"] for record in map(json.loads, lines)}


def said(messages: list[dict], reply: str) -> list[dict]:
    return [*messages, {"role": "assistant", "content": reply}]


class Pi0(Bfcl):
    """The demonstrations of pi_0; nothing is held out."""

    name, prefixes = "smollm2_pi0", ()

    def train_tasks(self, data: Any, seed: int) -> list[Trajectory]:
        calls = [c for c in data.categories if "irrelevance" not in c]
        rows, _ = split_folds(demonstrations.single_turn(calls), data.folds, data.train_folds, ())
        replies = own_words()
        rows += [
            dataclasses.replace(t, messages=said(t.messages[:-1], replies[t.id]))
            for t in refusals(data)
            if t.id in replies
        ]
        rows += [
            Trajectory(id, said(messages, replies[id]), [], self.name, id, verifier="exact")
            for id, messages in prompts().items()
            if id in replies
        ]
        return rows

    def held_out_tasks(self, data: Any, seed: int) -> list[Trajectory]:
        return []


environment = Pi0()


def first_finished(completions: Iterable, chat) -> str | None:
    """The first reply that ends within the limit, in words."""
    for completion in completions:
        action = chat.parse(chat.decode(completion.token_ids))
        if completion.finished and action.content and not (action.calls or action.malformed):
            return action.content
    return None


def main() -> None:
    import jax

    from pivotrl_jax import api
    from pivotrl_jax.rollouts import progress
    from pivotrl_jax.rollouts.actor import Request, make_actor
    from pivotrl_jax.run import run as run_lib

    config = api.load_config(str(HERE.parents[1] / "configs" / "bfcl.py:smollm2_pi0"))
    config.workdir, config.data.source = "runs/bfcl_smollm2_own_words", "bfcl"
    run = run_lib.open_run(config)
    limit = config.data.max_prompt_tokens
    short = [t for t in refusals(config.data) if len(run.chat.prompt_ids(t.messages[:-1], t.tools)) <= limit]
    asked = {t.id: list(t.messages[:-1]) for t in short} | prompts()
    replies: dict[str, str | None] = dict.fromkeys(asked)
    for temperature, samples in ((0.0, 1), (0.7, SAMPLES)):
        sampling = {"temperature": temperature, "max_tokens": REPLY_TOKENS}
        actor = make_actor(run, config.evaluate.batch, run.model_config, sampling=sampling)
        missing = [id for id, reply in replies.items() if reply is None]
        requests = [Request(id, run.chat.prompt_ids(asked[id], []), id, samples) for id in missing]
        with progress.bar(len(requests) * samples, f"at temperature {temperature}", "replies") as bar:
            groups = actor.act(actor.place(run.params), requests, jax.random.key(0), bar.update)
        replies |= {id: first_finished(group, run.chat) for id, group in zip(missing, groups)}
    with OWN_WORDS.open("w", encoding="utf-8") as f:
        for id, reply in replies.items():
            if reply is not None:
                f.write(json.dumps({"id": id, "reply": reply}, ensure_ascii=False) + "\n")
    left_out = [id for id, reply in replies.items() if reply is None]
    print(f"{len(replies) - len(left_out)} replies; {len(left_out)} without one that ends: {left_out}")


if __name__ == "__main__":
    main()
