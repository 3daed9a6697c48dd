"""A step whose numbers are not finite ends training before anything of it is saved."""

import contextlib
from pathlib import Path

import numpy as np

from pivotrl_jax.checkpoints.orbax import Checkpoints
from pivotrl_jax.records import InputError
from pivotrl_jax.training.losses import Batch

# Finite parameters stay finite under a finite update, so the norm of the update stands for theirs.
CHECKED = {"loss": "the loss", "grad_norm": "the gradient's norm", "update_norm": "the update's norm"}


def require_finite(
    step: int, values: dict[str, float], batch: Batch, checkpoints: Checkpoints, workdir: Path
) -> None:
    """Raises InputError when the loss, gradient or update of a step is not finite, after writing the batch
    to `workdir`/nonfinite_step_{step}.npz. `values` are the step's metrics."""
    bad = {name: values[name] for name in CHECKED if not np.isfinite(values[name])}
    if not bad:
        return
    file = workdir / f"nonfinite_step_{step}.npz"
    kept = f"what the step trained on could not be written to {file}"
    with contextlib.suppress(OSError):
        np.savez_compressed(file, **{name: np.asarray(x) for name, x in batch.items()})
        kept = f"what the step trained on is in {file}"
    latest = checkpoints.latest_step()
    said = ", ".join(f"{CHECKED[name]} is {value}" for name, value in bad.items())
    saved = "no checkpoint is there yet" if latest is None else f"the latest checkpoint is of step {latest}"
    raise InputError(
        f"step {step}: {said}; training stops before this step is saved, and {saved}; {kept}; lower the "
        "learning rate or config.grpo.max_grad_norm, or look for extreme weights in that batch"
    )
