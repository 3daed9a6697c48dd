"""Fields of the section on experiment trackers; see options.py."""

import dataclasses

from pivotrl_jax.run.fields import Rule, field

TRACKERS = {"wandb": "Weights & Biases", "mlflow": "MLflow"}
NAMES = Rule(
    lambda x: isinstance(x, (tuple, list)) and all(name in TRACKERS for name in x),
    f"a tuple of {' and '.join(map(repr, TRACKERS))}, e.g. ('wandb',), or ()",
)


@dataclasses.dataclass(frozen=True)
class Track:
    """Experiment trackers that a training also reports to: config, curves, pivots, results. metrics.jsonl and
    TensorBoard's file are always written. Where they report to is theirs to know: WANDB_MODE, WANDB_ENTITY,
    MLFLOW_TRACKING_URI."""

    to: tuple = field((), "Which trackers.", NAMES, unit="names, e.g. ('wandb',)")
    project: str = field("pivotrl_jax", "The tracker's project or experiment.", unit="name")
    name: str = field("", "The run's name there; '' takes the work directory's.", unit="name")
    export: bool = field(False, "Upload the export as well: hf/, and adapter/ under LoRA.")
