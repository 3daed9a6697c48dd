"""What a notebook shows of turns, selections, runs, evaluations and trajectories: small pieces of HTML.

Every value goes through jinja2's autoescape, whatever a model or a file wrote; only the plots, which hold
numbers and the program's own words, are inserted as they are. Nothing here runs a script.
"""

import collections
import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from pivotrl_jax.pivots.selection import OUTCOMES, RARE
from pivotrl_jax.report.inputs import estimate
from pivotrl_jax.report.page import message_text, visible
from pivotrl_jax.views import templates

if TYPE_CHECKING:
    from pivotrl_jax.views.opened import Evaluation, OpenedRun, Selection, Trajectories, Turn

MAX_TURNS = 100  # of a list; beyond it they are counted
MAX_MESSAGES = 6  # at the end of a prompt
MAX_CHARACTERS = 4000  # of one text

CURVES = {  # metric -> its title
    "reward_mean": "Mean reward of the batch",
    "group_reward_std": "Standard deviation of rewards within a group",
    "validation/episode_success": "Validation: episode success",
    "validation/turn_pass": "Validation: turns passed",
    "kl_per_turn": "KL to the reference policy, nats per turn",
    "loss": "Loss, with all its terms",
}


# ---- the pieces


def turn(turn: "Turn") -> str:
    """A candidate: the end of its prompt, the demonstration, and every sample with its verdict."""
    return _render("turn", turn=_turn(turn), open=True)


def turns(turns: Sequence["Turn"]) -> str:
    """A list of candidates, each to be opened."""
    return _render("turns", turns=[_turn(t) for t in turns[:MAX_TURNS]], count=len(turns))


def selection(selection: "Selection") -> str:
    """The outcomes of call and text turns as a table, and the histogram of profile means."""
    return _render("selection", **_selection(selection))


def run(run: "OpenedRun") -> str:
    """A run: its closing table, what became of the candidates, its curves, before and after."""
    chosen = run.selection
    return _render(
        "run",
        path=run.path,
        model=run.facts.get("model", ""),
        table=run.table,
        selection=_selection(chosen) if chosen else None,
        curves=_curves(run.metrics),
        measures=_before_and_after(run.evaluation),
        steps=len(run.metrics),
    )


def evaluation(evaluation: "Evaluation") -> str:
    """The measures of a checkpoint with their intervals."""
    return _render("evaluation", evaluation=evaluation, rows=evaluation.estimates())


def trajectories(trajectories: "Trajectories") -> str:
    """How many trajectories of which source, with how many turns, and what was left out."""
    by_source = collections.defaultdict(list)
    for t in trajectories:
        by_source[t.source].append(t)
    rows = [
        {
            "source": source,
            "count": len(group),
            "turns": sum(m["role"] == "assistant" for t in group for m in t.messages),
            "calls": sum(bool(m.get("tool_calls")) for t in group for m in t.messages),
            "dialects": ", ".join(sorted({t.dialect for t in group if t.dialect})),
            "verifiers": ", ".join(sorted({t.verifier for t in group})),
            "rewards": _rewards([t.reward for t in group]),
        }
        for source, group in by_source.items()
    ]
    left_out = list(trajectories.left_out.items())
    return _render("trajectories", rows=rows, left_out=left_out[:20], more=max(0, len(left_out) - 20))


# ---- their parts


def _turn(turn: "Turn") -> dict[str, Any]:
    candidate, profile = turn.candidate, turn.profile
    tail = candidate.messages[-MAX_MESSAGES:]
    demonstration = message_text(candidate.demonstration)
    same: dict[tuple, list] = {}
    for rollout in turn.rollouts:
        same.setdefault((rollout.text, rollout.reward, rollout.reason, rollout.finished), []).append(rollout)
    return {
        "id": candidate.id,
        "number": candidate.turn,
        "kind": "call" if candidate.is_call else "text",
        "verifier": profile.verifier if profile else candidate.verifier,
        "outcome": turn.outcome.replace("_", " ") or "not profiled",
        "mean": f"{profile.mean:.2f}" if profile and profile.rewards else "–",
        "marks": "".join(_mark(r) for r in profile.rewards[:64]) if profile else "",
        "gist": " ".join(demonstration[:400].split())[:140],
        "earlier": len(candidate.messages) - len(tail),
        "messages": [(m.get("role", "?"), message_text(m)) for m in tail],
        "demonstration": demonstration,
        "samples": [
            {
                "times": len(group),
                "reward": "undecided" if reward is None else f"{reward:g}",
                "grade": _grade(reward),
                "reason": reason,
                "details": group[0].details,
                "finished": finished,
                "text": text,
            }
            for (text, reward, reason, finished), group in same.items()
        ],
    }


def _grade(reward: float | None) -> str:
    if reward is None:
        return "open"
    return "pass" if reward >= 1 else "part" if reward > 0 else "fail"


def _mark(reward: float) -> str:
    return "●" if reward >= 1 else "○" if reward <= 0 else "◐"


def _selection(selection: "Selection") -> dict[str, Any]:
    from pivotrl_jax.report import plots  # loads matplotlib

    expected = {kind: selection.expected_counts(kind) for kind in (True, False, None)}
    names = {k: name for k, name in OUTCOMES.items() if k not in RARE or expected[None][k]}
    rows = [
        {
            "turns": label,
            "counts": [round(expected[kind][k], 1) for k in names],
            "total": sum(selection.counts(kind).values()),
            "uninformative": _percent(selection.uninformative(kind)),
            "mean": _number(selection.mean(kind)),
        }
        for label, kind in (("call", True), ("text", False), ("all", None))
    ]
    decided = [p for p in selection.profiles if p.rewards]
    calls, texts = ([p.mean for p in decided if p.is_call == kind] for kind in (True, False))
    group = max((len(p.rewards) + p.abstained for p in selection.profiles), default=1)
    histogram = plots.mean_histogram(calls, texts, group, selection.lambda_diff)
    return {
        "names": list(names.values()),
        "rows": rows,
        "kept": len(selection.kept),
        "lambda_diff": selection.lambda_diff,
        "survival": selection.survival(),
        "histogram": Markup(histogram),
    }


def _curves(lines: Sequence[dict]) -> list[tuple[str, Markup]]:
    from pivotrl_jax.report import plots  # loads matplotlib

    drawn = []
    for name, title in CURVES.items():
        points = [(line["step"], line[name]) for line in lines if _is_number(line.get(name))]
        if points:
            drawn.append((title, Markup(plots.curve(*zip(*points), title, False))))
    return drawn


def _before_and_after(evaluation: dict | None) -> list[tuple[str, list[str]]]:
    """(measure, [before, after, difference]) in words."""
    if not evaluation:
        return []
    sides = [evaluation.get(side) or {} for side in ("before", "after", "difference")]
    names = [name for name, value in sides[0].items() if isinstance(value, dict) and "value" in value]
    return [(name, [_estimate(side.get(name)) for side in sides]) for name in names]


def _estimate(value: Any) -> str:
    found = estimate({"": value}, "")
    return found.text() if found else "–"


def _rewards(rewards: Sequence[float | None]) -> str:
    known = [r for r in rewards if r is not None]
    return f"{sum(r >= 1 for r in known)} of {len(known)} passed" if known else "none recorded"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "–"


def _percent(value: float) -> str:
    return f"{value:.0%}" if math.isfinite(value) else "–"


# ---- templates


def _shown(value: Any) -> str:
    """Text with its unseen characters written out, cut where it is very long."""
    text = str(value)
    if len(text) <= MAX_CHARACTERS:
        return visible(text)
    return f"{visible(text[:MAX_CHARACTERS])} … {len(text) - MAX_CHARACTERS:,} more characters"


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.DictLoader(templates.TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = _shown
    return environment


def _render(name: str, **values: Any) -> str:
    return _environment().get_template(name).render(values)
