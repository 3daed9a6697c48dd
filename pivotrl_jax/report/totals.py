"""Totals over all rollouts of a profile: by the verifier's reason, by tool, and of what copies the expert."""

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup

from pivotrl_jax.records import Rollout
from pivotrl_jax.report import page
from pivotrl_jax.report.notation import Said

ROWS = 30  # of a table; the rest is one row


@dataclasses.dataclass
class Sum:
    """Samples and their rewards."""

    samples: int = 0
    decided: int = 0
    reward: float = 0.0
    failed: int = 0
    candidates: int = 0
    all_fail: int = 0

    def add(self, rollouts: Sequence[Rollout]) -> None:
        """Samples with one verdict."""
        reward, count = rollouts[0].reward, len(rollouts)
        self.samples += count
        if reward is not None:
            self.decided += count
            self.reward += reward * count
            self.failed += count * (reward <= 0)

    def join(self, other: "Sum") -> None:
        for field in dataclasses.fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    @property
    def mean(self) -> str:
        return f"{self.reward / self.decided:.3f}" if self.decided else "–"


@dataclasses.dataclass
class Totals:
    """Added candidate by candidate."""

    reasons: dict[str, Sum] = dataclasses.field(default_factory=lambda: collections.defaultdict(Sum))
    tools: dict[str, Sum] = dataclasses.field(default_factory=lambda: collections.defaultdict(Sum))
    copies: Sum = dataclasses.field(default_factory=Sum)  # samples that do what the demonstration does
    unread: int = 0  # samples whose calls cannot be read

    def add(self, tool: str, outcome: str, merged: Iterable[tuple[list[Rollout], Said]]) -> None:
        """A candidate and its samples, merged where they are equal."""
        of_tool, seen = self.tools[tool], set()
        of_tool.candidates += 1
        of_tool.all_fail += outcome == "all_fail"
        for group, said in merged:
            of_tool.add(group)
            self.reasons[group[0].reason].add(group)
            seen.add(group[0].reason)
            self.unread += len(group) * bool(said.fault)
            if said.same:
                self.copies.add(group)
        for reason in seen:
            self.reasons[reason].candidates += 1

    def section(self) -> Markup:
        """Two tables and a sentence; nothing without samples."""
        samples = sum(total.samples for total in self.tools.values())
        if not samples:
            return Markup("")
        reasons = [
            (name, f"{t.samples:,}", f"{t.samples / samples:.1%}", f"{t.candidates:,}", t.mean)
            for name, t in _largest(self.reasons, lambda t: t.samples)
        ]
        count = sum(total.candidates for total in self.tools.values())
        tools = [
            (
                name,
                f"{t.candidates:,}",
                f"{t.candidates / count:.1%}",
                f"{t.all_fail:,}",
                f"{t.samples:,}",
                t.mean,
            )
            for name, t in _largest(self.tools, lambda t: t.candidates)
        ]
        tables = [
            page.titled(
                "By the verifier's reason",
                page.table(("reason", "samples", "share", "of candidates", "mean reward"), reasons),
            ),
            page.titled(
                "By the tool of the demonstration",
                page.table(("tool", "candidates", "share", "all fail", "samples", "mean reward"), tools),
            ),
        ]
        return page.section(
            "Verdicts", Markup('<div class="pair">{}</div>').format(page.join(tables)), self._words()
        )

    def _words(self) -> str:
        copies = self.copies
        words = f"{copies.samples:,} samples do what the demonstration does"
        if copies.failed:
            words += f", and {copies.failed:,} of them got no reward: read those first, for the verifier errs"
        elif copies.samples:
            words += ", and none of them was left without a reward"
        if self.unread:
            words += f". The calls of {self.unread:,} samples cannot be read"
        return f"{words}."


def _largest(found: Mapping[str, Sum], size) -> list[tuple[str, Sum]]:
    rows = sorted(found.items(), key=lambda item: -size(item[1]))
    rest = Sum()
    for _, total in rows[ROWS:]:
        rest.join(total)
    return rows[:ROWS] + [(f"{len(rows) - ROWS} others", rest)] * bool(rows[ROWS:])
