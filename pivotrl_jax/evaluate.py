"""Evaluate a checkpoint in and out of domain: `python -m pivotrl_jax.evaluate --config=... --checkpoint=DIR`

Plays the config's held-out episodes, scores its held-out turns and out-of-domain skills, prints a table, and
writes the results to config.workdir/evaluations. Without --checkpoint it evaluates the config's own model.
"""

import json

from absl import flags

from pivotrl_jax import api
from pivotrl_jax.run import cli
from pivotrl_jax.training.tables import TABLES

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Directory in Hugging Face layout, e.g. runs/bfcl/hf")


def main() -> None:
    found = api.evaluate(cli.CONFIG.value, CHECKPOINT.value)
    print(found)
    page = {"checkpoint": found.checkpoint, "policy": found.policy, "results": str(found.file)}
    print(json.dumps(page))


if __name__ == "__main__":
    cli.start(main, TABLES)
