"""What a user should know of a set of trajectories before any rollout, in a few lines."""

from collections import Counter
from collections.abc import Iterable, Sequence

from pivotrl_jax.chat.dialects.base import schemas_of
from pivotrl_jax.records import Candidate, Trajectory
from pivotrl_jax.verifiers.compare.coding_tools import family

FEW_CALLS = 0.1  # a smaller share of call turns, where tools are documented, is a warning
MOST_FIELDS = 12  # named in one line


def reasons(counts: Counter) -> str:
    """Counts in words, the largest first: "call_error 3, greeting 1"."""
    return ", ".join(f"{slug} {n}" for slug, n in sorted(counts.items(), key=lambda i: (-i[1], i[0])))


def dialects(trajectories: Iterable[Trajectory]) -> str:
    """The forms in which calls are written: "hermes, native"."""
    return ", ".join(sorted({t.dialect for t in trajectories if t.dialect}))


def warnings(trajectories: Sequence[Trajectory], candidates: Sequence[Candidate]) -> list[str]:
    """Fields with content that were not read, tools that are hardly called, tools that `swe` does not know,
    and called tools without a doc."""
    lines = []
    unused = Counter(name for t in trajectories for name in t.unused)
    if unused:
        more = f", and {len(unused) - MOST_FIELDS} more" if len(unused) > MOST_FIELDS else ""
        lines.append(
            f"fields that were not read: {reasons(Counter(dict(unused.most_common(MOST_FIELDS))))}{more}"
        )
    documented = {t.id for t in trajectories if t.tools}
    turns = [c.is_call for c in candidates if c.trajectory_id in documented]
    if turns and sum(turns) < FEW_CALLS * len(turns):
        lines.append(
            f"warning: only {sum(turns)} of {len(turns)} turns with tool docs call a tool; if calls are "
            "written in the text, docs/formats.md says in which forms they are read"
        )
    unknown, undocumented = Counter(), Counter()
    for c in candidates:
        verifier = c.verifier.partition(":")[0]
        for call in c.demonstration.get("tool_calls") or ():
            name = call["function"]["name"]
            unknown[name] += verifier == "swe" and not family(name)
            undocumented[name] += bool(c.tools) and name not in schemas_of(c.tools)
    if +unknown:
        lines.append(
            f"tools that swe does not know, so that all their arguments must match: {reasons(+unknown)}"
        )
    if +undocumented:
        lines.append(f"tools that are called and have no doc: {reasons(+undocumented)}")
    return lines


def describe(trajectories: Sequence[Trajectory], candidates: Sequence[Candidate]) -> list[str]:
    """The turns of a run's candidates, how their calls were written, and the warnings."""
    calls = sum(c.is_call for c in candidates)
    written = dialects(trajectories)
    line = f"{len(candidates)} candidates: {calls} call turns, {len(candidates) - calls} talk turns"
    return [line + (f"; calls in {written}" if written else ""), *warnings(trajectories, candidates)]
