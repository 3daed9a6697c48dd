"""GRPO at pivots: sample a batch of pivots, roll out, verify, group-normalise, one update; resumable.

What a step does is a function of (seed, step, parameters) alone: the order of pivots comes from the seed and
the step, PRNG keys from the step and the candidate. So a killed run that restarts from a checkpoint ends as
one that was never killed, bit for bit on the same machine. Where the policy is profiled again while training
(reprofile.py), the metrics of earlier steps say when, and each profile begins a phase with pivots of its own.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np

from pivotrl_jax import forest, grpo, loop, model, update
from pivotrl_jax.chat import Chat
from pivotrl_jax.checkpoint import Checkpoints
from pivotrl_jax.judge import Judge
from pivotrl_jax.records import Candidate, Rollout
from pivotrl_jax.rollout import Actor, RoutedRollout, roll_out


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The numbers of the algorithm (PivotRL, section 3; Qwen3-30B recipe in NeMo-RL)."""

    steps: int
    pivots_per_step: int
    group_size: int
    advantage_eps: float
    kl_coefficient: float
    seed: int
    # what follows reproduces the published recipe unless it is set
    baseline: str = "mean"  # a key of grpo.BASELINES
    normalise: str = "std"  # or "none"
    aggregation: str = "token_mean"  # as grpo.token_weights knows it
    max_tokens: int = 0  # of a completion: what "fixed_length" divides by
    mask_unfinished: bool = False  # a completion cut at the limit counts in the baseline, not in the loss
    malformed_advantage: float = 0.0  # takes the place of a malformed sample's advantage; 0: it keeps its own
    advantage_clip: float = 0.0  # bound on an advantage's size; 0: none
    dynamic_rounds: int = 0  # further rounds of sampling, in place of groups that teach nothing
    kl_in: str = "loss"  # or "reward"


@dataclasses.dataclass(frozen=True)
class Phase:
    """The pivots that are trained on from step `first` on, until another phase begins."""

    candidates: Sequence[Candidate]
    prompts: Sequence[Sequence[int]]
    first: int = 0


class OnePhase:
    """The phases of a run that is profiled once; `reprofile.Phases` has the same two methods."""

    def __init__(self, candidates: Sequence[Candidate], prompts: Sequence[Sequence[int]]):
        self._phase = Phase(candidates, prompts)

    def due(self, step: int) -> bool:
        """Whether a new phase may begin with this step: before it the policy is profiled again."""
        return False

    def at(self, step: int, params) -> tuple[Phase, dict[str, float]]:
        """The phase that a step is of, and metrics to log with it. `params` are the current parameters."""
        return self._phase, {}


def pivots_of_step(step: int, count: int, per_step: int, seed: int) -> list[int]:
    """Indices of the pivots of a step: every epoch is a fresh permutation, and no pivot is left out of
    one."""
    chosen = []
    for position in range(step * per_step, (step + 1) * per_step):
        epoch, at = divmod(position, count)
        chosen.append(int(np.random.default_rng([seed, epoch]).permutation(count)[at]))
    return chosen


def pivots_of_round(
    step: int, round_: int, count: int, missing: int, seed: int, seen: Sequence[int]
) -> list[int]:
    """Indices of the pivots of a step's further round: in an order of its own, those that the step has not
    seen first. Those it has come again, with other keys, when there are too few others."""
    order = np.random.default_rng([seed, step, round_]).permutation(count).tolist()
    order.sort(key=set(seen).__contains__)
    return [order[i % count] for i in range(missing)]


def sample_groups(
    draw: Callable[[list[int], jax.Array], list[list[Rollout]]],
    step: int,
    count: int,
    recipe: Recipe,
    key: jax.Array,
) -> tuple[list[int], list[list[Rollout]], list[list[Rollout]]]:
    """(pivots, their groups, all groups that were sampled) of a step; `draw(pivots, key)` samples.

    With `recipe.dynamic_rounds` groups of equal rewards are left out and others are drawn in their place, in
    at most that many rounds, until `pivots_per_step` are mixed (DAPO's dynamic sampling, arXiv 2503.14476,
    section 3.2). What is still missing then is missing from the batch. Where nothing is mixed, the first
    round is kept as it is, and teaches nothing.
    """
    pivots = pivots_of_step(step, count, recipe.pivots_per_step, recipe.seed)
    groups = draw(pivots, key)
    if not recipe.dynamic_rounds:
        return pivots, groups, groups
    for round_ in range(1, recipe.dynamic_rounds + 1):
        missing = recipe.pivots_per_step - int(grpo.mixed_groups(rewards_of(groups)).sum())
        if not missing:
            break
        more = pivots_of_round(step, round_, count, missing, recipe.seed, pivots)
        pivots, groups = pivots + more, groups + draw(more, jax.random.fold_in(key, round_))
    mixed = np.flatnonzero(grpo.mixed_groups(rewards_of(groups)))
    kept = mixed if len(mixed) else range(recipe.pivots_per_step)
    return [pivots[i] for i in kept], [groups[i] for i in kept], groups


def grpo_batch(
    candidates: Sequence[Candidate],
    prompts: Sequence[Sequence[int]],
    groups: Sequence[Sequence[Rollout]],
    advantage_PG: np.ndarray,
    slots: Sequence[int],
    rows: int,
    kept_PG: np.ndarray | None = None,
    aggregation: str = "token_mean",
    max_tokens: int = 0,
) -> update.Batch:
    """A packed forest of prompts and their rollouts, with the loss's fields. A token weighs what
    `grpo.token_weights` gives its sample (`max_tokens` is for "fixed_length"), wherever it is packed;
    `sequence` numbers the samples of a row from 1.

    Groups of equal rewards have zero advantage; their tokens still count in the denominator. Rollouts that
    are not to be trained on (False in `kept_PG`; None: all are) do not: their fields stay zero.
    """
    trees: dict[str, list[forest.Piece]] = {}
    for i, (candidate, prompt, group) in enumerate(zip(candidates, prompts, groups)):
        piece = forest.Piece(i, prompt, [rollout.token_ids for rollout in group])
        trees.setdefault(candidate.trajectory_id, []).append(piece)
    packed = forest.pack_shortest(list(trees.values()), slots, rows)
    fields = {
        name: np.zeros(packed.tokens.shape, np.float32)
        for name in ("weight", "behaviour_log_prob", "advantage")
    }
    fields["sequence"] = np.zeros(packed.tokens.shape, np.int32)
    length_PG = np.array([[len(rollout.token_ids) for rollout in group] for group in groups])
    if kept_PG is not None:
        length_PG = length_PG * kept_PG
    weight_PG = grpo.token_weights(length_PG, aggregation, max_tokens)
    samples = [0] * len(packed.tokens)  # of a row
    for placed in packed.placed:
        for branch in range(len(placed.branch_slots)):
            at, g = placed.key, placed.first + branch
            n = length_PG[at, g]
            samples[placed.row] += n > 0
            packed.write(fields["weight"], placed, branch, [weight_PG[at, g]] * n)
            packed.write(fields["behaviour_log_prob"], placed, branch, groups[at][g].log_probs[:n])
            packed.write(fields["advantage"], placed, branch, [advantage_PG[at, g]] * n)
            packed.write(fields["sequence"], placed, branch, [samples[placed.row]] * n)
    arrays = {name: getattr(packed, name) for name in ("tokens", "position", "parent", "subtree_end")}
    if isinstance(groups[0][0], RoutedRollout):
        fields["experts"] = _experts(packed, groups, length_PG)
    return {**arrays, **fields}


def _experts(packed: forest.Forest, groups: Sequence[Sequence[RoutedRollout]], length_PG) -> np.ndarray:
    """[R, T, L, A]: the experts that the sampler gave every slot's token; -1 where it gave none, which
    is at a completion's last token and at padding."""
    some = groups[0][0].prompt_experts
    out = np.full((*packed.tokens.shape, *some.shape[1:]), -1, some.dtype)
    for placed in packed.placed:
        prompt = forest.path_to(packed.subtree_end[placed.row], placed.prompt_slot)
        out[placed.row, prompt] = groups[placed.key][0].prompt_experts
        for branch in range(len(placed.branch_slots)):
            g = placed.first + branch
            packed.write(out, placed, branch, groups[placed.key][g].experts[: length_PG[placed.key, g]])
    return out


def rewards_of(groups: Sequence[Sequence[Rollout]]) -> np.ndarray:
    """float64 [P, G]; an abstention (None) becomes NaN."""
    return np.array([[rollout.reward for rollout in group] for group in groups], np.float64)


def kept_of(groups: Sequence[Sequence[Rollout]], recipe: Recipe) -> np.ndarray:
    """bool [P, G]: the rollouts that are trained on, of which there is a reward."""
    finished = np.array([[rollout.finished for rollout in group] for group in groups])
    return ~np.isnan(rewards_of(groups)) & (finished | (not recipe.mask_unfinished))


def advantages_of(groups: Sequence[Sequence[Rollout]], recipe: Recipe) -> np.ndarray:
    """float64 [P, G]: the recipe's advantages, clipped; then its own number for what cannot be parsed, which
    costs the same whatever the rest of the group earned (NeMo-RL's penalty)."""
    advantage_PG = grpo.advantages(
        rewards_of(groups), recipe.baseline, recipe.normalise, recipe.advantage_eps
    )
    if recipe.advantage_clip:
        advantage_PG = advantage_PG.clip(-recipe.advantage_clip, recipe.advantage_clip)
    if recipe.malformed_advantage:
        malformed = [[rollout.reason == "malformed" for rollout in group] for group in groups]
        advantage_PG = np.where(malformed, recipe.malformed_advantage, advantage_PG)
    return advantage_PG


def group_metrics(groups: Sequence[Sequence[Rollout]]) -> dict[str, float]:
    """What a batch of groups looked like: reward mean and std, share of mixed groups, lengths. Of rewards:
    the decided ones (NaN where there is none); "abstained" counts the others."""
    decided = [[rollout.reward for rollout in group if rollout.reward is not None] for group in groups]
    decided = [np.array(group) for group in decided if group] or [np.array([np.nan])]
    rewards = np.concatenate(decided)
    lengths = [len(rollout.token_ids) for group in groups for rollout in group]
    flat = [rollout for group in groups for rollout in group]
    return {
        "reward_mean": float(rewards.mean()),
        "reward_std": float(rewards.std()),
        "group_reward_std": float(np.mean([group.std() for group in decided])),
        "mixed_groups": float(np.mean([np.ptp(group) > 0 for group in decided])),
        "completion_tokens": float(np.mean(lengths)),
        "unfinished": float(np.mean([not rollout.finished for rollout in flat])),
        "malformed": float(np.mean([rollout.reason == "malformed" for rollout in flat])),
        "abstained": float(sum(rollout.reward is None for rollout in flat)),
    }


def domain_metrics(groups: Sequence[Sequence[Rollout]], verifiers: dict[str, str]) -> dict[str, float]:
    """Rewards by verifier ("reward_mean/swe"), where candidates of several are trained together; `verifiers`
    names every candidate's by its id. A verifier without a group in the batch has no number."""
    if len(set(verifiers.values())) < 2:
        return {}
    by_verifier: dict[str, list[Sequence[Rollout]]] = {}
    for group in groups:
        by_verifier.setdefault(verifiers[group[0].candidate_id], []).append(group)
    return {
        f"{metric}/{verifier}": value
        for verifier, mine in sorted(by_verifier.items())
        for metric, value in group_metrics(mine).items()
        if metric in ("reward_mean", "mixed_groups")
    }


def take_off_kl(batch: update.Batch, coefficient: float) -> float:
    """Take the KL to the reference off the advantages of a batch, in place, as a part of the reward; after
    they were divided by a std, so that the coefficient means what it means in the loss. Returns its mean per
    trained token."""
    behaviour, reference = batch["behaviour_log_prob"], batch.pop("reference_log_prob")
    trained = batch["sequence"] > 0
    batch["advantage"] -= coefficient * grpo.kl_penalty(behaviour, reference, batch["sequence"])
    return float((behaviour - reference)[trained].mean()) if trained.any() else 0.0


def learn(
    learner: update.Learner,
    actor: Actor,
    chat: Chat,
    reference,
    phases: OnePhase,
    recipe: Recipe,
    *,
    slots: Sequence[int],
    verifier: str | None,
    judge: Judge | None = None,
    checkpoints: Checkpoints,
    save_every: int,
    workdir,
    resume: bool,
    on_step: Callable[[int], None] = lambda step: None,
    validate: Callable[[int, model.Params], dict[str, float]] = lambda steps, params: {},
) -> tuple[update.TrainState, dict]:
    """Train from the reference parameters (of what is trained: under LoRA, fresh adapters) for
    `recipe.steps` steps on the pivots that `phases` gives each. Returns the state and totals.

    Totals ("rollout_turns", "trained_tokens", "seconds") run over resumes; profiles while training are not
    in them.
    """
    kept = None
    if recipe.kl_coefficient:  # adapters come from the host: once, not with every batch
        kept = learner.place(reference) if learner.frozen else reference
    stream = jax.random.fold_in(jax.random.key(recipe.seed), 3)

    def make_batch(step: int, params) -> loop.Made:
        phase, news = phases.at(step, params)
        candidates, prompts = phase.candidates, phase.prompts
        policy = actor.place(params)

        def draw(pivots, key):
            here, texts = [candidates[i] for i in pivots], [prompts[i] for i in pivots]
            return roll_out(actor, policy, chat, here, texts, recipe.group_size, key, verifier, judge=judge)

        key = jax.random.fold_in(stream, step)
        pivots, groups, sampled = sample_groups(draw, step - phase.first, len(candidates), recipe, key)
        batch = grpo_batch(
            [candidates[i] for i in pivots],
            [prompts[i] for i in pivots],
            groups,
            advantages_of(groups, recipe),
            slots,
            learner.rows,
            kept_of(groups, recipe),
            recipe.aggregation,
            recipe.max_tokens,
        )
        verifiers = {candidate.id: verifier or candidate.verifier for candidate in candidates}
        seen = news | group_metrics(sampled) | domain_metrics(sampled, verifiers)
        if recipe.dynamic_rounds:
            seen |= {"sampled_groups": len(sampled), "trained_groups": len(groups)}
        if recipe.kl_coefficient:
            batch["reference_log_prob"] = learner.score(kept, batch)
        if recipe.kl_coefficient and recipe.kl_in == "reward":
            seen["kl"] = take_off_kl(batch, recipe.kl_coefficient)
        return loop.Made(batch, seen, sum(map(len, sampled)))

    keeping = loop.Keeping(checkpoints, save_every, workdir, resume, on_step, validate, phases.due)
    state, totals = loop.start(learner, reference, keeping, recipe.steps)
    del reference  # it need not stay in memory beside the state
    return loop.run(learner, state, totals, recipe.steps, make_batch, keeping, "GRPO at pivots")
