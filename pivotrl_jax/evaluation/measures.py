"""From an evaluation's results to numbers: values with intervals, and differences between two evaluations.

Results are JSON, as `evaluation.evaluate` returns them. A measure's values are clustered by task (episodes),
scenario (turns) or question (skills), since the values of a cluster succeed and fail together.
"""

import itertools
from typing import Any

from pivotrl_jax.evaluation import intervals
from pivotrl_jax.records import InputError

Results = dict[str, Any]  # {"episodes": [...], "turns": [...], "skills": [...], "rollout_turns": n}


def series(results: Results) -> dict[str, tuple[list[float], list[str]]]:
    """Measure -> (values, clusters). Turns whose samples were all undecided are left out. All are rates,
    better when higher, but "bits_per_byte" of text, better when lower, which is a mean over passages."""
    episodes = results["episodes"]
    measures = {"episode_success": ([e["success"] for e in episodes], [e["row"] for e in episodes])}
    for name, is_call in (("call_turn_pass", True), ("text_turn_pass", False)):
        turns = [t for t in results["turns"] if t["is_call"] == is_call and t["mean"] is not None]
        measures[name] = [t["mean"] for t in turns], [t["scenario"] for t in turns]
    names = sorted({t["verifier"] for t in results["turns"]})
    for name in names if len(names) > 1 else []:
        turns = [t for t in results["turns"] if t["verifier"] == name and t["mean"] is not None]
        measures[f"verifier:{name}"] = [t["mean"] for t in turns], [t["scenario"] for t in turns]
    texts = [a for a in results["skills"] if "bits_per_byte" in a]
    answers = [a for a in results["skills"] if "correct" in a]
    measures["out_of_domain"] = [a["correct"] for a in answers], [a["id"] for a in answers]
    for family in dict.fromkeys(a["family"] for a in answers):
        of_family = [a for a in answers if a["family"] == family]
        measures[f"family:{family}"] = [a["correct"] for a in of_family], [a["id"] for a in of_family]
    # no rate, so it stands beside the mean over families instead of in it
    measures["bits_per_byte"] = [a["bits_per_byte"] for a in texts], [a["id"] for a in texts]
    return {name: pair for name, pair in measures.items() if pair[0]}


def _nested(flat: dict[str, dict]) -> dict:
    """{"family:x": value} as {"families": {"x": value}}, and the same for verifiers."""
    nested: dict[str, dict] = {}
    for name, value in flat.items():
        kind, colon, inner = name.partition(":")
        if colon:
            nested.setdefault({"family": "families", "verifier": "verifiers"}[kind], {})[inner] = value
        else:
            nested[name] = value
    return nested


def summarise(results: Results) -> dict:
    """Measure -> {"value", "low", "high", "n", "clusters"} with 95 % intervals: Wilson's over the clusters
    where each has one value that is 0 or 1, or all values are 0 or all 1; else
    `intervals.cluster_bootstrap`."""
    flat = {}
    for name, (values, clusters) in series(results).items():
        count = len(set(clusters))
        alike = count == len(values) or len(set(values)) == 1  # within each cluster
        interval = (
            intervals.wilson(round(count * sum(values) / len(values)), count)
            if alike and set(values) <= {0.0, 1.0}
            else intervals.cluster_bootstrap(values, clusters)
        )
        flat[name] = _estimate(interval, clusters)
    return _nested(flat)


def compare(before: Results, after: Results) -> dict:
    """Measure -> {"value", "low", "high", "n", "clusters"} of after - before on the same tasks, by a paired,
    clustered bootstrap. Only turns that were decided in both count, so a measure may be of fewer values than
    on either side, or not there. Raises InputError when the tasks differ."""
    flat = {}
    before, after = _decided_in_both(before, after)
    after_series = series(after)
    for name, (values, clusters) in series(before).items():
        if name not in after_series or after_series[name][1] != clusters:
            raise InputError(
                f"the two evaluations are not of the same tasks ({name} differs); evaluate both again"
            )
        interval = intervals.paired_difference(values, after_series[name][0], clusters)
        flat[name] = _estimate(interval, clusters)
    return _nested(flat)


def _decided_in_both(before: Results, after: Results) -> tuple[Results, Results]:
    pairs = list(itertools.zip_longest(before["turns"], after["turns"]))  # both are in the order of the tasks
    decided = [pair for pair in pairs if not any(turn and turn["mean"] is None for turn in pair)]
    return tuple(
        {**results, "turns": [pair[side] for pair in decided if pair[side]]}
        for side, results in enumerate((before, after))
    )


def abstentions(results: Results) -> int:
    """The number of samples at held-out turns that neither a rule nor a judge decided."""
    return sum(turn.get("abstained", 0) for turn in results["turns"])


def _estimate(interval: intervals.Interval, clusters: list[str]) -> dict:
    """`clusters` has one entry per value."""
    mean, low, high = interval
    return {"value": mean, "low": low, "high": high, "n": len(clusters), "clusters": len(set(clusters))}
