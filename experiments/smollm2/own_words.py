"""SmolLM2's own words: `python experiments/smollm2/own_words.py [pi_0 | refusals]`, 8 minutes on two cores.

Asks SmolLM2 as it is shipped, with no functions in sight. For pi_0: the irrelevance rows of fold 0 and
general prompts (environments/bfcl/pi_0.py), into own_words.jsonl beside the adapter. For the arms `sft_own_1`
and `sft_own_4`: the irrelevance rows of fold 1 (own_refusals.py), into refusals.jsonl beside this file. Each
gets the reply at temperature 0 if it ends within the limit, else the first of SAMPLES at 0.7 that does; a
question without one is left out and counted.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import jax
import own_refusals

from pivotrl_jax import api
from pivotrl_jax.environments.bfcl import pi_0
from pivotrl_jax.rollouts import progress
from pivotrl_jax.rollouts.actor import Request, make_actor
from pivotrl_jax.run import run as run_lib

ROOT = Path(__file__).resolve().parents[2]
SAMPLES, REPLY_TOKENS = 8, 96


def first_finished(completions: Iterable, chat) -> str | None:
    """The first reply that ends within the limit, in words."""
    for completion in completions:
        action = chat.parse(chat.decode(completion.token_ids))
        if completion.finished and action.content and not (action.calls or action.malformed):
            return action.content
    return None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("of", nargs="?", choices=("pi_0", "refusals"), default="pi_0")
    of = parser.parse_args().of
    config = api.load_config(str(ROOT / "configs" / "bfcl.py:smollm2_pi0"))
    config.workdir = str(ROOT / "runs" / "bfcl_smollm2_own_words")
    if of == "refusals":
        config.data.train_folds = (1,)
    run = run_lib.open_run(config)
    limit = config.data.max_prompt_tokens
    rows, file = pi_0.refusals(config.data), pi_0.OWN_WORDS
    if of == "refusals":
        rows, file = own_refusals.rows(config.data), own_refusals.REPLIES
    short = [t for t in rows if len(run.chat.prompt_ids(t.messages[:-1], t.tools)) <= limit]
    asked = {t.id: list(t.messages[:-1]) for t in short}
    if of == "pi_0":
        asked |= pi_0.prompts()
    replies: dict[str, str | None] = dict.fromkeys(asked)
    for temperature, samples in ((0.0, 1), (0.7, SAMPLES)):
        sampling = {"temperature": temperature, "max_tokens": REPLY_TOKENS}
        actor = make_actor(run, config.evaluate.batch, run.model_config, sampling=sampling)
        missing = [id for id, reply in replies.items() if reply is None]
        requests = [Request(id, run.chat.prompt_ids(asked[id], []), id, samples) for id in missing]
        with progress.bar(len(requests) * samples, f"at temperature {temperature}", "replies") as bar:
            groups = actor.act(actor.place(run.params), requests, jax.random.key(0), bar.update)
        replies |= {id: first_finished(group, run.chat) for id, group in zip(missing, groups)}
    with file.open("w", encoding="utf-8") as f:
        for id, reply in replies.items():
            if reply is not None:
                f.write(json.dumps({"id": id, "reply": reply}, ensure_ascii=False) + "\n")
    left_out = [id for id, reply in replies.items() if reply is None]
    print(f"{len(replies) - len(left_out)} replies; {len(left_out)} without one that ends: {left_out}")


if __name__ == "__main__":
    main()
