"""Any checkpoint that a training kept, in Hugging Face layout, as the end of a run writes it.

    pivotrl export --workdir=runs/bfcl --step=20 --out=runs/bfcl_20
    pivotrl evaluate --config=bfcl --checkpoint=runs/bfcl_20/hf

--step is a number of optimizer steps, "last", or "best": the kept checkpoint with the highest
validation/turn_pass in metrics.jsonl. Writes hf/, with adapters merged, and under LoRA adapter/ beside it;
hf/ is read back and compared bit by bit. It may be used while the run is still training.
"""

import argparse
import dataclasses
import os
from pathlib import Path

from absl import logging

from pivotrl_jax import terminal
from pivotrl_jax.checkpoints import orbax
from pivotrl_jax.pivots.stored import require_new
from pivotrl_jax.records import InputError, write_json
from pivotrl_jax.run import disk, export, metrics, options, paths, stored
from pivotrl_jax.run import run as run_lib
from pivotrl_jax.training.monitor import VALIDATION


def choose_step(workdir: Path, wanted: str) -> tuple[int, str]:
    """(the step that `wanted` names, a remark about it). Raises InputError that names the steps there are."""
    steps = orbax.steps_in(workdir / "checkpoints")
    if not steps:
        raise InputError(f"{workdir / 'checkpoints'}: holds no checkpoint; train the run first")
    kept = f"kept are {', '.join(map(str, steps))} (config.grpo.keep_checkpoints says how many)"
    if wanted == "last":
        return steps[-1], "the last"
    if wanted != "best":
        if not wanted.isdecimal() or int(wanted) not in steps:
            raise InputError(f"--step={wanted}: there is no such checkpoint in {workdir}; {kept}")
        return int(wanted), "as asked"
    # the line of step s was validated after s + 1 steps
    lines = metrics.read_metrics(workdir)
    scores = {line["step"] + 1: line[VALIDATION] for line in lines if line.get(VALIDATION) is not None}
    if not scores:
        raise InputError(
            f"--step=best: nothing was validated in {workdir} (config.validation.every was 0, or no turn was "
            f"decided); name a step; {kept}"
        )
    found = [step for step in steps if step in scores]
    best = max(scores, key=scores.get)
    if not found:
        raise InputError(
            f"--step=best: no checkpoint that is kept was validated; {kept}, and validated were "
            f"{', '.join(map(str, scores))}; name a step"
        )
    step = max(found, key=scores.get)
    remark = f"{VALIDATION} {scores[step]:.3f}, the highest of {len(found)} kept and validated checkpoints"
    if scores[best] > scores[step]:
        remark += f"; step {best} had {scores[best]:.3f} and is no longer kept"
    return step, remark


def export_step(workdir: Path, wanted: str, out: Path, checkpoint: str = "") -> list[str]:
    """Write a step's policy to `out`; returns lines for the terminal. Raises InputError."""
    require_new(out)
    config = stored.config_of(stored.read_object(workdir / "run.json"), workdir, checkpoint)
    config.mesh = options.defaults().mesh  # the devices of this machine
    step, remark = choose_step(workdir, wanted)
    run = dataclasses.replace(run_lib.open_run(config, writes=False), shared=out)
    params = export.restore(run, workdir / "checkpoints" / str(step))
    out.mkdir(parents=True, exist_ok=True)
    fingerprint = export.write(run, params)
    export.require_equal(run, params, export.read_back(run)[1])
    page = {"run": str(workdir), "step": step, "pi_0": run.policy, "policy": fingerprint, **run.facts}
    write_json(out / "export.json", page)
    written = " and ".join(str(out / name) for name in ("hf", "adapter") if (out / name).is_dir())
    return [f"step {step} ({remark}) is in {written}, read back bit by bit; policy {fingerprint}"]


def main() -> None:
    """Raises InputError when the checkpoint cannot be exported."""
    parser = argparse.ArgumentParser(
        prog="pivotrl export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=paths.argument, required=True, help="the work directory of a run")
    parser.add_argument("--step", required=True, help="a number of steps, 'best' or 'last'")
    parser.add_argument("--out", type=paths.argument, required=True, help="a new directory")
    parser.add_argument("--checkpoint", default="", help="the model that the run began with, if it has moved")
    flags = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.set_verbosity(logging.WARNING)
    with disk.explained(flags.out):
        print("\n".join(export_step(flags.workdir, flags.step, flags.out, flags.checkpoint)))


if __name__ == "__main__":
    with terminal.ending("export"):
        main()
