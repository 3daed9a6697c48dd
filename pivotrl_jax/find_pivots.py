"""The offline half of PivotRL: `python -m pivotrl_jax.find_pivots --config=configs/bfcl.py`

    demonstrations -> candidates (self-checked) -> profile under pi_0 -> pivots.jsonl

With `config.rollouts.base_url` the profile is that of a served model: no weights are loaded.

`--self_check` stops after the self-check, which covers all trajectories of the source (there is no split) and
needs no model beyond its tokenizer: every demonstration must pass its own verifier, and an empty and a
garbage action must fail it.

`--config.profile.shard=3/16` is the third of sixteen independent jobs, which `merge_profiles` puts together.
"""

from absl import flags

from pivotrl_jax import api
from pivotrl_jax.run import cli
from pivotrl_jax.training.tables import TABLES

SELF_CHECK = flags.DEFINE_bool(
    "self_check", False, "Only check that verifiers accept gold and reject garbage."
)


def main() -> None:
    config = cli.CONFIG.value
    if SELF_CHECK.value:
        from pivotrl_jax import pipeline

        checked, skipped = pipeline.self_check(config)
        for where, why in skipped.items():
            print(f"left out {where}: {why}")
        print("\n".join(checked.table()))
        return
    run = api.find_pivots(config)
    print(f"{len(run.selection.kept)} pivots: {run.path / 'pivots.jsonl'}")
    if config.profile.shard:
        print(f"this was shard {config.profile.shard}; merge_profiles makes one profile of all of them")


if __name__ == "__main__":
    cli.start(main, TABLES)
