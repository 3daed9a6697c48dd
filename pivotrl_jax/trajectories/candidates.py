"""Trajectories -> candidates: every assistant turn is a state and the action demonstrated there."""

from collections.abc import Callable, Iterable

from pivotrl_jax.records import Candidate, Trajectory


def extract(trajectories: Iterable[Trajectory]) -> list[Candidate]:
    """One candidate per assistant turn that its trajectory does not skip, in order.

    A greeting that opens a trajectory has no state before it and gives none; it still counts in `turn`, as a
    skipped turn does.
    """
    candidates = []
    for trajectory in trajectories:
        turns = [i for i, m in enumerate(trajectory.messages) if m["role"] == "assistant"]
        candidates += [
            Candidate(
                id=f"{trajectory.id}@{i}",
                trajectory_id=trajectory.id,
                turn=turn,
                messages=trajectory.messages[:i],
                tools=trajectory.tools,
                demonstration=trajectory.messages[i],
                verifier=trajectory.verifier,
                case=trajectory.cases.get(i, {}),
                scenario=trajectory.scenario,
            )
            for turn, i in enumerate(turns)
            if i > 0 and i not in trajectory.skip
        ]
    return candidates


def limit_prompts(
    candidates: Iterable[Candidate], count_tokens: Callable[[Candidate], int], max_prompt: int
) -> tuple[list[Candidate], dict[str, str]]:
    """(candidates whose prompt has at most `max_prompt` tokens, candidate id -> why it was left out)."""
    kept, skipped = [], {}
    for candidate in candidates:
        count = count_tokens(candidate)
        if count <= max_prompt:
            kept.append(candidate)
        else:
            skipped[candidate.id] = (
                f"{candidate.id}: the prompt has {count} tokens, more than the limit of {max_prompt}; "
                "raise the limit or shorten the trajectory"
            )
    return kept, skipped
