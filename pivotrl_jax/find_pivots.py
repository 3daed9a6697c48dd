"""The offline half of PivotRL: `python -m pivotrl_jax.find_pivots --config=configs/bfcl.py`

    demonstrations -> candidates (self-checked) -> profile under pi_0 -> pivots.jsonl

With `config.rollouts.base_url` the profile is that of a served model: no weights are loaded.

`--self_check` stops after the self-check, which covers all trajectories of the source (there is no split) and
needs no model beyond its tokenizer: every demonstration must pass its own verifier, and an empty and a
garbage action must fail it.

`--config.profile.shard=3/16` is the third of sixteen independent jobs, which `merge_profiles` puts together.
"""

from absl import flags

from pivotrl_jax.pivots import candidates as candidates_lib
from pivotrl_jax.pivots import profiling
from pivotrl_jax.run import check_config, cli, resume
from pivotrl_jax.run import run as run_lib
from pivotrl_jax.training.tables import TABLES
from pivotrl_jax.trajectories import extract, sources

SELF_CHECK = flags.DEFINE_bool(
    "self_check", False, "Only check that verifiers accept gold and reject garbage."
)


def main() -> None:
    config = cli.CONFIG.value
    if SELF_CHECK.value:
        check_config.check(config)
        data = sources.load(config.data, config.seed)
        for where, why in data.skipped.items():
            print(f"left out {where}: {why}")
        chat = run_lib.load_chat(config)
        result = candidates_lib.self_check(extract.extract([*data.demonstrations, *data.held_out]), chat)
        print("\n".join(result.table()))
        return
    run = run_lib.open_run(config, weights=not config.rollouts.base_url)
    resume.prepare_workdir(run)
    with run.stage("candidates"):
        data, _ = sources.load_with_validation(config)
        candidates = candidates_lib.make_candidates(run, data)
    with run.stage("profiling"):
        selection = profiling.find_pivots(run, candidates)
    print(f"{len(selection.kept)} pivots: {run.workdir / 'pivots.jsonl'}")
    if config.profile.shard:
        print(f"this was shard {config.profile.shard}; merge_profiles makes one profile of all of them")


if __name__ == "__main__":
    cli.start(main, TABLES)
