"""Fields of what goes beyond the paper; see options.py. Off by default, they change nothing."""

import dataclasses

from pivotrl_jax.run.fields import ABOVE_ZERO, SHARE_OR_NONE, field


@dataclasses.dataclass(frozen=True)
class SkipList:
    """Part of section grpo: candidates that will hardly teach are not sampled, as their rewards in training
    say."""

    skip_below: float = field(
        0.0,
        "Skip a candidate whose chance of a mixed group is below this share of an unseen candidate's, given "
        "the rewards that training has drawn for it; 0 skips none.",
        SHARE_OR_NONE,
        unit="share of an unseen candidate's chance",
    )
    skip_half_life: float = field(
        20.0,
        "A reward counts half after this many steps, so that a skipped candidate comes back.",
        ABOVE_ZERO,
        unit="optimizer steps",
    )


OFF = {f.name: f.default for f in dataclasses.fields(SkipList)}  # values that change nothing
