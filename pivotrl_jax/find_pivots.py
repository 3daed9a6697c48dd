"""The offline half alone: `python -m pivotrl_jax.find_pivots --config=configs/bfcl.py`

    demonstrations -> candidates (self-checked) -> profile under pi_0 -> pivots.jsonl

`--self_check` stops after the self-check: every demonstration is verified against itself, an empty and a
garbage action, over all trajectories of the source (no split, no model beyond its tokenizer).
"""

from absl import flags

from pivotrl_jax import check_config, cli, pivots, profile_stage, validation, verifiers
from pivotrl_jax import data as data_lib
from pivotrl_jax import run as run_lib
from pivotrl_jax.trajectories import candidates as candidates_lib

SELF_CHECK = flags.DEFINE_bool(
    "self_check", False, "Only check that verifiers accept gold and reject garbage."
)


def main() -> None:
    config = cli.CONFIG.value
    if SELF_CHECK.value:
        check_config.check(config)
        data = data_lib.load(config.data, config.seed)
        for where, why in data.skipped.items():
            print(f"left out {where}: {why}")
        checked = pivots.self_check(
            candidates_lib.extract([*data.demonstrations, *data.held_out]), verifiers.VERIFIERS
        )
        print("\n".join(checked.table()))
        return
    run = run_lib.open_run(config)
    run_lib.claim(run)
    with run.stage("candidates"):
        data, _ = validation.load(config)
        candidates = run_lib.make_candidates(run, data)
    with run.stage("profiling"):
        selection, _ = profile_stage.find_pivots(run, candidates)
    print(f"{selection.counts()['pivot']} pivots: {run.workdir / 'pivots.jsonl'}")


if __name__ == "__main__":
    cli.start(main)
