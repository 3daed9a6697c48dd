"""What a step trains on, as one packed forest with the loss's fields: rollouts of pivots, whole episodes, or
whole trajectories; and the metrics of such a batch.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pivotrl_jax.models import forest
from pivotrl_jax.records import InputError, Prompt, Rollout
from pivotrl_jax.rollouts import episodes
from pivotrl_jax.rollouts.rollout import RoutedRollout
from pivotrl_jax.training import losses


class Turn(NamedTuple):
    """One assistant turn, as token ids."""

    trajectory_id: str
    prompt: np.ndarray  # int32 [T]: everything before the turn, as rendered for it
    completion: Sequence[int]  # the turn itself, stop token included


def sft_batch(turns: Sequence[Turn], row_lengths: Sequence[int], rows: int) -> losses.Batch:
    """A packed forest of whole trajectories with the loss's weights. All rows have one of the `row_lengths`,
    and their number is a multiple of `rows`.

    Where a turn's prompt repeats the turns before it, token for token, the trajectory is one path and every
    token of it is computed once. Where the chat template rewrites history, only the equal prefix is shared.

    Token-mean: every completion token weighs 1 / (number of completion tokens), wherever it is packed, and
    prompt tokens weigh 0. A slot that several turns train (equal completions of equal prompts) has the sum of
    their weights, so that sharing does not change the loss; the loss's token count then counts it once.
    Raises InputError when there is nothing to train, and for a turn that fits no row.
    """
    total = sum(len(turn.completion) for turn in turns)
    if not total:
        raise InputError(f"{len(turns)} turns have no token to train; check what was read and filtered")
    trees: dict[str, list[forest.Piece]] = {}
    for i, turn in enumerate(turns):
        piece = forest.Piece(i, turn.prompt, [turn.completion], merge=True)
        trees.setdefault(turn.trajectory_id, []).append(piece)
    packed = forest.pack_shortest(list(trees.values()), row_lengths, rows)
    weight = np.zeros(packed.tokens.shape, np.float32)
    for placement in packed.placed:
        count = len(turns[placement.key].completion)
        packed.add(weight, placement, 0, np.full(count, 1 / total, np.float32))
    return {**packed.arrays(), "weight": weight}


def episodes_batch(
    groups: Sequence[Sequence[episodes.EpisodeResult]],
    advantage_PG: np.ndarray,
    row_lengths: Sequence[int],
    rows: int,
) -> losses.Batch:
    """A packed forest of all turns of all episodes, one tree per task, with the loss's fields. Token-mean."""
    trees, owners = [], []
    for p, group in enumerate(groups):
        pieces = []
        for g, episode in enumerate(group):
            for prompt, completion in episode.turns:
                pieces.append(forest.Piece(len(owners), prompt, [completion.token_ids]))
                owners.append((completion, advantage_PG[p, g]))
        trees.append(pieces)
    packed = forest.pack_shortest([tree for tree in trees if tree], row_lengths, rows)
    names = ("weight", "behaviour_log_prob", "advantage")
    fields = {name: np.zeros(packed.tokens.shape, np.float32) for name in names}
    total = sum(len(completion.token_ids) for completion, _ in owners)
    for placement in packed.placed:
        completion, advantage = owners[placement.key]
        n = len(completion.token_ids)
        packed.write(fields["weight"], placement, 0, np.full(n, 1 / total, np.float32))
        packed.write(fields["behaviour_log_prob"], placement, 0, completion.log_probs)
        packed.write(fields["advantage"], placement, 0, np.full(n, advantage, np.float32))
    return {**packed.arrays(), **fields}


def episode_metrics(groups: Sequence[Sequence[episodes.EpisodeResult]]) -> dict[str, float]:
    """Metrics of a batch of episodes, named as in `group_metrics` where they mean the same."""
    reward_PG = np.array([[episode.success for episode in group] for group in groups])
    flat = [episode for group in groups for episode in group]
    completions = [completion for episode in flat for _, completion in episode.turns]
    mean = lambda values: float(np.mean(values)) if values else np.nan  # noqa: E731
    return {
        "reward_mean": float(reward_PG.mean()),
        "reward_std": float(reward_PG.std()),
        "group_reward_std": float(reward_PG.std(axis=1).mean()),
        "mixed_groups": float((np.ptp(reward_PG, axis=1) > 0).mean()),
        "turns_per_episode": len(completions) / len(flat),
        "completion_tokens": mean([len(c.token_ids) for c in completions]),
        "unfinished": mean([not c.finished for c in completions]),
        "too_long": mean([episode.reason == "too_long" for episode in flat]),
    }


def grpo_batch(
    prompts: Sequence[Prompt],
    groups: Sequence[Sequence[Rollout]],
    advantage_PG: np.ndarray,
    weight_PG: np.ndarray,
    row_lengths: Sequence[int],
    rows: int,
) -> losses.Batch:
    """A packed forest of prompts and their rollouts with the loss's fields. All rows have one of the
    `row_lengths`, and their number is a multiple of `rows`.

    Every token of a rollout has the rollout's advantage and weight (`advantages.token_weights`), wherever it
    is packed; a rollout of weight 0 is not trained on, and its fields stay zero. `sequence` numbers the
    trained rollouts of a row from 1.
    """
    trees: dict[str, list[forest.Piece]] = {}
    for i, (prompt, group) in enumerate(zip(prompts, groups)):
        piece = forest.Piece(i, prompt.ids, [rollout.token_ids for rollout in group])
        trees.setdefault(prompt.candidate.trajectory_id, []).append(piece)
    packed = forest.pack_shortest(list(trees.values()), row_lengths, rows)
    fields = {
        name: np.zeros(packed.tokens.shape, np.float32)
        for name in ("weight", "behaviour_log_prob", "advantage")
    }
    fields["sequence"] = np.zeros(packed.tokens.shape, np.int32)
    samples = [0] * len(packed.tokens)  # trained rollouts in each row so far
    for placement in packed.placed:
        for branch in range(len(placement.branch_slots)):
            p, g = placement.key, placement.first + branch
            n = len(groups[p][g].token_ids) if weight_PG[p, g] else 0
            samples[placement.row] += n > 0
            packed.write(fields["weight"], placement, branch, [weight_PG[p, g]] * n)
            packed.write(fields["behaviour_log_prob"], placement, branch, groups[p][g].log_probs[:n])
            packed.write(fields["advantage"], placement, branch, [advantage_PG[p, g]] * n)
            packed.write(fields["sequence"], placement, branch, [samples[placement.row]] * n)
    if isinstance(groups[0][0], RoutedRollout):
        fields["experts"] = _experts(packed, groups, weight_PG > 0)
    return {**packed.arrays(), **fields}


def _experts(packed: forest.Forest, groups: Sequence[Sequence[RoutedRollout]], trained_PG) -> np.ndarray:
    """[R, T, L, A]: the experts that the sampler chose for every slot's token; -1 where there are none: at a
    completion's last token, at rollouts that are not trained on, and at padding."""
    example = groups[0][0].prompt_experts
    out = np.full((*packed.tokens.shape, *example.shape[1:]), -1, example.dtype)
    for placement in packed.placed:
        prompt = forest.path_to(packed.subtree_end[placement.row], placement.prompt_slot)
        out[placement.row, prompt] = groups[placement.key][0].prompt_experts
        for branch in range(len(placement.branch_slots)):
            g = placement.first + branch
            if trained_PG[placement.key, g]:
                packed.write(out, placement, branch, groups[placement.key][g].experts)
    return out


def group_metrics(groups: Sequence[Sequence[Rollout]]) -> dict[str, float]:
    """Metrics of a batch of groups: reward mean and std, share of mixed groups, lengths. Reward metrics are
    over the decided rewards (NaN where there is none); "abstained" counts the others."""
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
    """Reward metrics by verifier ("reward_mean/swe"), where candidates of several verifiers are trained
    together. `verifiers`: candidate id -> verifier. A verifier without a group in the batch has no metric."""
    if len(set(verifiers.values())) < 2:
        return {}
    by_verifier: dict[str, list[Sequence[Rollout]]] = {}
    for group in groups:
        by_verifier.setdefault(verifiers[group[0].candidate_id], []).append(group)
    return {
        f"{metric}/{verifier}": value
        for verifier, members in sorted(by_verifier.items())
        for metric, value in group_metrics(members).items()
        if metric in ("reward_mean", "mixed_groups")
    }
