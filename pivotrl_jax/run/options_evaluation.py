"""Fields of the sections that measure the policy: see options.py."""

from pivotrl_jax.run.fields import FRACTION, at_least, field, one_of, seeds
from pivotrl_jax.run.options_training import Batch, section


@section
class Validation:
    """Scores the policy while it trains, on single turns that are neither trained on nor held out for the
    test."""

    every: int = field(0, "How often to validate; 0 is never.", at_least(0), unit="optimizer steps")
    tasks: int = field(
        32, "toolbox: episodes of the expert whose turns are scored.", at_least(1), unit="tasks"
    )
    share: float = field(
        0.1,
        "bfcl, paths: the part of the training scenarios that is taken for validation and not trained on.",
        FRACTION,
        unit="share of scenarios",
    )
    turns: int = field(
        0,
        "bfcl, paths: take whole scenarios until they hold this many turns; 0 takes `share` instead.",
        at_least(0),
        unit="turns",
    )
    seed: int = field(
        1,
        "Which tasks or scenarios are chosen; the toolbox needs another number than data.held_out_seed.",
        seeds(),
        unit="seed",
    )
    samples: int = field(1, "Samples per turn.", at_least(1), unit="samples")
    attempts: int = field(
        0, "Episodes per task, where tasks can be played; 0 plays none.", at_least(0), unit="episodes"
    )
    batch: Batch = Batch(rows=16, samples_per_row=4, decode_slots=4)


@section
class Evaluate:
    """What the policy is scored on, before and after training."""

    tasks: int = field(200, "Held-out tasks that are played.", at_least(0), unit="tasks")
    attempts: int = field(1, "Episodes per task.", at_least(1), unit="episodes")
    turn_trajectories: int = field(
        80,
        "Held-out trajectories whose turns are scored, but for those that the self-check leaves out.",
        at_least(0),
        unit="trajectories",
    )
    samples: int = field(1, "Samples per held-out turn.", at_least(1), unit="samples")
    pivots: int = field(
        16,
        "train: pivots that the final policy samples again, as in their profile, for the report to show the "
        "same turns before and after; 0 samples none.",
        at_least(0),
        unit="pivots",
    )
    skills: str = field(
        "toy",
        "The out-of-domain suite.",
        one_of(
            {
                "toy": "short tasks and made-up facts that the embedded policy was pretrained on",
                "language": "facts, arithmetic, instructions, small talk and text, for pretrained models",
            }
        ),
    )
    skill_items: int = field(50, "Questions per out-of-domain family.", at_least(0), unit="questions")
    max_steps: int = field(
        6,
        "The most that an episode may take; then it ends.",
        at_least(1),
        unit="calling actions per user turn",
    )
    batch: Batch = Batch(rows=16, samples_per_row=4, decode_slots=4)
