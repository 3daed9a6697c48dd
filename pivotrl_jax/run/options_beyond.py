"""Fields of what goes beyond the paper; see options.py. Off by default, they change nothing."""

import dataclasses

from pivotrl_jax.run.fields import ABOVE_ZERO, NOT_NEGATIVE, PROBABILITY, SHARE_OR_NONE, field, number


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


@dataclasses.dataclass(frozen=True)
class Guided(SkipList):
    """Part of section grpo: what else training learns from, and how far it may go."""

    demonstration_in_failed_groups: bool = field(
        False, "Where all rewards of a group are 0, the demonstration takes the place of the last sample."
    )
    kl_budget: float = field(
        0.0,
        "Training stops before the KL to the reference, measured on its rollouts, exceeds this; 0 sets no "
        "bound.",
        NOT_NEGATIVE,
        unit="nats per turn",
    )


@dataclasses.dataclass(frozen=True)
class Screen:
    """Sort out plainly easy candidates before anything is sampled."""

    probability: float = field(
        0.0,
        "Sort out a candidate if the policy writes its demonstration, token for token, with at least this "
        "chance: its pass rate is no lower. 0 sorts out none.",
        number(PROBABILITY.test, "a chance from 0 to 1"),
        unit="probability",
    )
    text_turns: bool = field(
        False, "Sort out every candidate whose demonstration only talks, without scoring it."
    )


OFF = {f.name: f.default for f in dataclasses.fields(Guided)}  # values that change nothing
