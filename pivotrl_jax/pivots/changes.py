"""What a re-scoring changed: counts of verdicts, outcomes and pivots, with examples, as lines of text."""

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from pivotrl_jax.pivots.selection import OUTCOMES
from pivotrl_jax.records import Candidate, Rollout
from pivotrl_jax.verifiers.common import show

EXAMPLES = 3  # shown of each kind of change
ROWS = 30  # of a table, those with most changes; the rest is counted
NAMED = 5  # candidates named on the terminal; all are in the file


def state_of(rollout: Rollout) -> str:
    """What a reward is called in the table: partial rewards count as passed, as they do in a profile."""
    if rollout.reward is None:
        return "undecided"
    return "pass" if rollout.reward > 0 else "fail"


def tool_of(candidate: Candidate) -> str:
    """The tools that the demonstration calls, or "(talk)"."""
    calls = candidate.demonstration.get("tool_calls") or ()
    return ", ".join(dict.fromkeys(str(call["function"]["name"]) for call in calls)) or "(talk)"


@dataclasses.dataclass
class Verdicts:
    """The verdicts of all rollouts before and after, added group by group."""

    by_verifier: dict = dataclasses.field(
        default_factory=lambda: collections.defaultdict(collections.Counter)
    )
    by_tool: dict = dataclasses.field(default_factory=lambda: collections.defaultdict(collections.Counter))
    reasons: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    examples: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)  # one of a candidate

    def add(
        self,
        candidate: Candidate,
        labels: tuple[str, str],
        before: Iterable[Rollout],
        after: Iterable[Rollout],
    ) -> None:
        """Add a candidate's rollouts; `labels` are those of its verifiers before and after."""
        label = labels[0] if labels[0] == labels[1] else " -> ".join(labels)
        for old, new in zip(before, after, strict=True):
            was, is_ = state_of(old), state_of(new)
            kind = f"{was} -> {is_}" if was != is_ else "same" if old.reward == new.reward else "other reward"
            counts = {"rollouts": 1, "passed before": was == "pass", "passed now": is_ == "pass", kind: 1}
            self.by_verifier[label].update(counts)
            self.by_tool[tool_of(candidate)].update(counts)
            if kind != "same" or old.reason != new.reason:
                self.reasons[kind, old.reason, new.reason] += 1
            examples = self.examples.setdefault(kind, {}) if kind != "same" else {}
            if len(examples) < EXAMPLES:
                examples.setdefault(candidate.id, _example(candidate, old, new))

    @property
    def total(self) -> collections.Counter:
        """Rollouts, those passed before and now, and how many changed in which way."""
        return sum(self.by_verifier.values(), collections.Counter())

    def lines(self) -> list[str]:
        """The tables by verifier, by tool and by reason."""
        total = self.total
        shown = ["rollouts", "passed before", "passed now"]
        kinds = [name for name, _ in total.most_common() if name not in (*shown, "same")]
        columns = shown + kinds

        def rows(found: Mapping[str, collections.Counter]):
            order = sorted(found.items(), key=lambda item: (item[1]["same"] - item[1]["rollouts"], item[0]))
            return [
                (show(name, 60)[1:-1], *(str(counts[x]) for x in columns)) for name, counts in order[:ROWS]
            ]

        changed = total["rollouts"] - total["same"]
        lines = [f"{changed} of {total['rollouts']} rewards changed", ""]
        lines += table([("verifier", *columns), *rows(self.by_verifier)])
        lines += ["", *table([("tool", *columns), *rows(self.by_tool)])]
        lines += [f"... and {len(self.by_tool) - ROWS} tools more"] * (len(self.by_tool) > ROWS)
        if self.reasons:
            some = self.reasons.most_common(ROWS)
            reasons = [(*names, str(count)) for names, count in some]
            lines += ["", *table([("change", "reason before", "reason now", "rollouts"), *reasons], left=3)]
            if rest := sum(self.reasons.values()) - sum(count for _, count in some):
                lines.append(f"... and {rest} rollouts with other reasons")
        return lines

    def example_lines(self) -> list[str]:
        return [line for kind, some in self.examples.items() for line in ("", f"{kind}:", *some.values())]


def outcome_lines(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """The outcomes of the candidates before and now; `after` has no candidate that is left out now."""
    moves = collections.Counter((outcome, after.get(id, "left out")) for id, outcome in before.items())
    rows = [(_name(was), _name(now), str(count)) for (was, now), count in moves.most_common() if was != now]
    if not rows:
        return ["no outcome changed"]
    same = sum(count for (was, now), count in moves.items() if was == now)
    return [*table([("outcome before", "outcome now", "candidates"), *rows], left=2), f"the same: {same}"]


def gained_and_lost(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Ids of the candidates that are pivots now only, and of those that were pivots before only."""
    was, is_ = ([id for id, outcome in x.items() if outcome == "pivot"] for x in (before, after))
    return [id for id in is_ if id not in set(was)], [id for id in was if id not in set(is_)]


def some(ids: Sequence[str]) -> str:
    """How many, and the first of them."""
    more = ", ..." if ids[NAMED:] else ""
    return f"{len(ids)}" + (f" ({', '.join(show(id) for id in ids[:NAMED])}{more})" if ids else "")


def _name(outcome: str) -> str:
    return OUTCOMES.get(outcome, outcome)


def _example(candidate: Candidate, old: Rollout, new: Rollout) -> str:
    """Four lines about one rollout; what the model wrote is escaped and cut."""
    demonstration = candidate.demonstration.get("tool_calls") or candidate.demonstration.get("content")
    calls = [call["function"] for call in demonstration] if isinstance(demonstration, list) else demonstration
    return "\n".join(
        [
            f"  {show(candidate.id)} sample {old.sample}: {show(new.text, 400)}",
            f"    demonstrated: {show(calls, 400)}",
            f"    before: {old.reward} {old.reason}: {show(old.details, 300)}",
            f"    now:    {new.reward} {new.reason}: {show(new.details, 300)}",
        ]
    )


def table(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Columns of text, the first `left` of them aligned to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join(
            x.ljust(w) if i < left else x.rjust(w) for i, (x, w) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]
