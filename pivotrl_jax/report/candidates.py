"""All candidates, searchable, in files beside the page: for runs whose candidates do not fit into it.

    report_data/index.js      a row per candidate: id, tools, outcome, mean, file, place in the file
    report_data/00000.js, ... a hundred candidates each: end of the prompt, demonstration, sampled actions

The page's script adds them as scripts, since a page that is opened as a file may read no others. Each file
is one call with a JSON value in ASCII, of which the page makes text nodes: nothing in it can become HTML or
code. Rollouts are read shard by shard, and one file of candidates is in memory at a time.
"""

import dataclasses
import itertools
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pivotrl_jax.pivots import rollout_files
from pivotrl_jax.pivots.changes import tool_of
from pivotrl_jax.pivots.selection import OUTCOMES, Selection
from pivotrl_jax.records import Candidate, Profile, Rollout
from pivotrl_jax.report import page
from pivotrl_jax.report.inputs import belongs

FOLDER = "report_data"
PER_FILE = 100
PIVOT_ROOM, ROOM = 8_000, 2_000  # characters of a pivot's texts, and of another candidate's
NOT_PROFILED = "not profiled"


@dataclasses.dataclass(frozen=True)
class Table:
    """What the index says about every candidate."""

    candidates: Sequence[Candidate]
    profiles: Mapping[str, Profile]  # by candidate id
    selection: Selection | None

    def outcome(self, candidate_id: str) -> str:
        """Its name in the table, or NOT_PROFILED."""
        found = self.selection.outcomes.get(candidate_id) if self.selection else None
        return OUTCOMES.get(found, found) if found else NOT_PROFILED


def write(workdir: Path, table: Table) -> None:
    """Write `report_data/`, in the place of an earlier one. Raises InputError for a malformed rollout."""
    folder, work = workdir / FOLDER, workdir / f"{FOLDER}.tmp"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    rows: dict[str, list] = {}
    groups = _groups(workdir / "rollouts", table)
    for number in itertools.count():
        details = []
        for candidate, rollouts in itertools.islice(groups, PER_FILE):
            rows[candidate.id] = _row(candidate, table, number, len(details))
            details.append(_detail(candidate, table, rollouts))
        if not details:
            break
        _write(work, f"{number:05d}", details)
    _write(work, "index", [rows[candidate.id] for candidate in table.candidates])
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(work, folder)


def _write(folder: Path, name: str, value: list) -> None:
    text = f'pivotrlData("{name}", {json.dumps(value)});\n'
    (folder / f"{name}.js").write_text(text, "ascii")


def _groups(folder: Path, table: Table) -> Iterator[tuple[Candidate, list[Rollout]]]:
    """Every candidate once, with the rollouts of its profile: in the order of the rollouts, then those
    without any."""
    missing = {candidate.id: candidate for candidate in table.candidates}
    for file in sorted(folder.glob("*.jsonl")):
        rollouts = rollout_files.summaries(file, table.profiles)
        for name, group in itertools.groupby(rollouts, key=lambda rollout: rollout.candidate_id):
            if own := [r for r in group if name in missing and belongs(r, table.profiles[name])]:
                yield missing.pop(name), own
    yield from ((candidate, []) for candidate in missing.values())


def _row(candidate: Candidate, table: Table, number: int, place: int) -> list:
    profile = table.profiles.get(candidate.id)
    mean = round(profile.mean, 3) if profile and profile.rewards else None
    words = (_cut(candidate.id, 200), _cut(tool_of(candidate), 200), table.outcome(candidate.id))
    return [*words, mean, number, place]


def _detail(candidate: Candidate, table: Table, rollouts: Sequence[Rollout]) -> dict:
    profile, tail = table.profiles.get(candidate.id), candidate.messages[-page.TAIL_MESSAGES :]
    messages = [(str(message.get("role", "?")), page.message_text(message)) for message in tail]
    gold, merged = page.message_text(candidate.demonstration), page.merge(rollouts)
    shown, others = merged[: page.MAX_ACTIONS], merged[page.MAX_ACTIONS :]
    words = [gold, *(said for _, said in messages)]
    words += [text for group in shown for text in (group[0].text, group[0].details)]
    is_pivot = table.outcome(candidate.id) == OUTCOMES["pivot"]
    level = page.level_of((len(str(word)) for word in words), PIVOT_ROOM if is_pivot else ROOM)
    return {
        "about": _about(candidate, profile),
        "earlier": len(candidate.messages) - len(tail),
        "messages": [[_cut(role, 40), _cut(said, level)] for role, said in messages],
        "gold": _cut(gold, level),
        "actions": [_action(group, level) for group in shown],
        "others": sum(map(len, others)),
    }


def _about(candidate: Candidate, profile: Profile | None) -> str:
    words = [f"turn {candidate.turn}", f"verifier {profile.verifier if profile else candidate.verifier}"]
    if profile:
        words += [f"rewards {' '.join(f'{r:g}' for r in profile.rewards[:64])}"] * bool(profile.rewards)
        words += [f"{profile.abstained} undecided"] * bool(profile.abstained)
    return _cut(" · ".join(words), 600)


def _action(group: Sequence[Rollout], level: int) -> list:
    first = group[0]
    cut = "" if first.finished else "cut at the token limit"
    words = [_cut(first.reason, 40), cut, _cut(first.text, level), _cut(first.details, level)]
    return [page.grade(first.reward), first.reward, len(group), *words]


def _cut(value: str, room: int) -> str:
    value = str(value)
    more = len(value) - room
    return page.visible(value[:room]) + (f" … {more:,} more characters" if more > 0 else "")


def section(count: int) -> str:
    """The search in `count` candidates; the page's script fills it in."""
    outcomes = "".join(f"<option>{name}</option>" for name in (*OUTCOMES.values(), NOT_PROFILED))
    body = (
        '<form id="search" hidden><label>Search <input type="search" id="words" '
        'placeholder="an id, a tool, an outcome"></label><label>Outcome <select id="outcome">'
        f'<option value="">all</option>{outcomes}</select></label><output id="found"></output></form>'
        f'<p class="note" id="no-data">{count:,} candidates are in {FOLDER}/, which must be beside this '
        'page; it needs scripts.</p><div id="candidates"></div>'
        '<p><button type="button" id="more" hidden>Show more</button></p>'
    )
    return page.section("All candidates", body, "Every candidate of the run, whatever became of it.")
