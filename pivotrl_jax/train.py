"""PivotRL from trajectories to a better policy: `python -m pivotrl_jax.train --config=configs/bfcl.py`

    demonstrations -> candidates (self-checked) -> profile -> pivots -> evaluate pi_0 -> GRPO
    -> Hugging Face export (and PEFT adapter) -> evaluate -> report

`config.method` replaces profile, pivots and GRPO with another method, everything else being equal: "sft" on
the same trajectories, "e2e_rl" on the same tasks, "random_turns" (GRPO on the unfiltered candidates).

`config.validation` scores the policy while it trains. `config.reprofile` finds new pivots under the current
policy when those of pi_0 have taught what they can. Every stage writes its files to config.workdir, and the
program resumes from them when it runs again. From Python this is `pivotrl_jax.api.train(config)`.
"""

from pivotrl_jax import api, terminal
from pivotrl_jax.run import cli
from pivotrl_jax.training.tables import TABLES


def main() -> None:
    run = api.train(cli.CONFIG.value)
    files = [("report", str(run.path / "report.html")), ("all files", str(run.path))]
    terminal.print_table([*run.table, *files], "PivotRL")


if __name__ == "__main__":
    cli.start(main, TABLES)
