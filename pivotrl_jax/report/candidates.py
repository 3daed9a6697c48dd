"""All candidates, to be searched and opened one by one: for few in the page itself, for many beside it.

    index        the names of tools, outcomes and reasons, and a row per candidate (see `_row`)
    00000, ...   a hundred candidates each: end of the prompt, demonstration, sampled actions

Beside the page they are report_data/index.js, report_data/00000.js, ...: the page's script adds them as
scripts, since a page that is opened as a file may read no others. Each is one call with a JSON value in
ASCII, of which the page makes text nodes: nothing in it can become HTML or code. In the page the same values
are one block of JSON. Rollouts are read shard by shard, and beside the page one file of candidates is in
memory at a time.
"""

import contextlib
import dataclasses
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pivotrl_jax.pivots import rollout_files
from pivotrl_jax.pivots.changes import tool_of
from pivotrl_jax.pivots.notation import Notation
from pivotrl_jax.pivots.selection import OUTCOMES, Selection
from pivotrl_jax.records import Candidate, Profile, Rollout
from pivotrl_jax.report import page, resampled
from pivotrl_jax.report.inputs import belongs
from pivotrl_jax.report.notation import Reader, Said
from pivotrl_jax.report.totals import Totals

FOLDER = "report_data"
OWN = ("[0-9][0-9][0-9][0-9][0-9].js", "index.js")  # what this program writes there
PER_FILE = 100
MOST_INSIDE = 500  # candidates that the page holds itself
MAX_ACTIONS = 16  # distinct actions shown of a candidate
TAIL_MESSAGES = 6
# Bytes of texts as JSON, of a candidate: a pivot has four times as much, one that all fails twice. What was
# sampled again after training has room of its own, as much again.
BESIDE, INSIDE = 2_000, 6_000
WEIGHTS = {"pivot": 4, "all_fail": 2}
PAGE_ROOM = 1_000_000  # of all candidates that are in the page
NOT_PROFILED = "not profiled"
# in the order in which they are worth reading: where all fail, the question is whether the verifier errs
SHOWN = {"all_fail": "all fail", "pivot": "pivot", "too_easy": "too easy"}
SHOWN |= {key: name for key, name in OUTCOMES.items() if key not in SHOWN} | {"": NOT_PROFILED}


@dataclasses.dataclass(frozen=True)
class Table:
    """What is known about every candidate."""

    candidates: Sequence[Candidate]
    profiles: Mapping[str, Profile]  # by candidate id
    selection: Selection | None
    notation: Notation
    # by candidate id: profiles before and after training, of what the final policy sampled again
    pairs: Mapping[str, resampled.Pair] = dataclasses.field(default_factory=dict)

    def outcome(self, candidate_id: str) -> str:
        """A key of SHOWN."""
        found = self.selection.outcomes.get(candidate_id, "") if self.selection else ""
        return found if found in SHOWN else ""

    def weight(self, candidate_id: str) -> int:
        """The candidate's share of the room for texts."""
        return WEIGHTS.get(self.outcome(candidate_id), 1) * (2 if candidate_id in self.pairs else 1)

    def room(self) -> int:
        """Bytes for the texts of a candidate of weight 1."""
        if not self.inside:
            return BESIDE
        return min(INSIDE, PAGE_ROOM // max(1, sum(self.weight(c.id) for c in self.candidates)))

    @property
    def inside(self) -> bool:
        """Whether the page holds the candidates itself."""
        return len(self.candidates) <= MOST_INSIDE


@dataclasses.dataclass
class Browser:
    """What `collect` has read: totals, and in `inside` the values for the page, if there are few."""

    count: int
    totals: Totals
    inside: dict[str, Any] | None
    pairs: list[resampled.Pair]  # of what was sampled again after training
    reasons: resampled.Reasons  # of the same


class _Names:
    """Names in the order in which they were first seen, so that rows can hold their numbers."""

    def __init__(self, names: Iterable[str] = ()):
        self.numbers = {name: i for i, name in enumerate(names)}

    def __call__(self, name: str) -> int:
        return self.numbers.setdefault(name, len(self.numbers))


def collect(workdir: Path, table: Table) -> Browser:
    """Read every candidate and its rollouts. Of many candidates the files are written beside the page, under
    names that `publish` makes final. Raises InputError for a malformed rollout."""
    folder = workdir / FOLDER
    _delete(folder, ".tmp")
    inside: dict[str, Any] | None = {} if table.inside else None
    rows: dict[str, list] = {}
    totals, tools, reasons = Totals(), _Names(), _Names()
    room, groups, compared = table.room(), _groups(workdir / "rollouts", table), resampled.Reasons()
    again = rollout_files.Index(workdir / resampled.FOLDER / "rollouts", table.pairs)

    def keep(name: str, value: Any) -> None:
        if inside is not None:
            inside[name] = value
        else:
            folder.mkdir(exist_ok=True)
            text = f'pivotrlData("{name}", {_encoded(value)});\n'
            (folder / f"{name}.js.tmp").write_text(text, "ascii")

    for number in itertools.count():
        details = []
        for candidate, rollouts in itertools.islice(groups, PER_FILE):
            reader, later = Reader(table.notation, candidate), []
            merged = merge(rollouts, reader)
            totals.add(tool_of(candidate), table.outcome(candidate.id), merged)
            if pair := table.pairs.get(candidate.id):
                later = [r for r in again.read(candidate.id) if belongs(r, pair[1])]
                compared.add(rollouts, later)
            row = _row(candidate, table, rollouts, tools, reasons)
            rows[candidate.id] = [*row, number, len(details)]
            details.append(
                _detail(candidate, table, merged, merge(later, reader), room * table.weight(candidate.id))
            )
        if not details:
            break
        keep(f"{number:05d}", details)
    index = {
        "tools": [_cut(name, 200) for name in tools.numbers],
        "outcomes": list(SHOWN.values()),
        "reasons": [_cut(name, 80) for name in reasons.numbers],
        "changes": list(resampled.CHANGES.values()),
        "rows": [rows[candidate.id] for candidate in table.candidates],
    }
    keep("index", index)
    return Browser(len(table.candidates), totals, inside, list(table.pairs.values()), compared)


def publish(workdir: Path, browser: Browser) -> None:
    """Put the files of `collect` in the place of those of an earlier report. Other files are left alone."""
    folder = workdir / FOLDER
    new = [] if browser.inside is not None else sorted(folder.glob("*.js.tmp"))
    for path in new:
        os.replace(path, path.with_suffix(""))
    _delete(folder, "", keep={path.stem for path in new})
    with contextlib.suppress(OSError):  # missing, or not empty
        folder.rmdir()


def _delete(folder: Path, end: str, keep: Iterable[str] = ()) -> None:
    for pattern in OWN:
        for path in folder.glob(pattern + end):
            if path.name not in keep and not path.is_dir():
                path.unlink()


def section(browser: Browser, sampled: bool) -> Markup:
    """The search in all candidates; the page's script fills it in. `sampled`: there are profiles."""
    data = None if browser.inside is None else Markup(_encoded(browser.inside))
    place = f"in {FOLDER}/, which must be beside this page" if data is None else "in this page"
    body = page.render(
        "browser",
        count=f"{browser.count:,}",
        place=place,
        data=data,
        sampled=sampled,
        again=bool(browser.pairs),
    )
    words = "Open one for what was asked and what the expert did"
    if sampled:
        words += ", and for what the policy tried, with the verdict on it. Where all fail, ask whether the "
        words += "verifier errs. One mark per sample: ● full reward, ◐ part, ○ none."
        words += " After an arrow: what the final policy did at the same turn." if browser.pairs else ""
    else:
        words += ". No actions were sampled at them."
    return page.section("All candidates", body, words)


# ---- one candidate


def merge(rollouts: Sequence[Rollout], reader: Reader) -> list[tuple[list[Rollout], Said]]:
    """Groups of equal actions with equal verdicts, and what each says: the best reward first, and common
    actions before rare ones."""
    same: dict[tuple, list[Rollout]] = {}
    for rollout in rollouts:
        verdict = (rollout.reward, rollout.reason, rollout.details, rollout.finished)
        same.setdefault((*verdict, reader.said(rollout)), []).append(rollout)
    groups = sorted(same.items(), key=lambda item: _rank(item[1]))
    return [(group, key[-1]) for key, group in groups]


def _rank(group: Sequence[Rollout]) -> tuple:
    first = group[0]
    return first.reward is None, -(first.reward or 0), -len(group), first.sample


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


def _row(
    candidate: Candidate, table: Table, rollouts: Sequence[Rollout], tools: _Names, reasons: _Names
) -> list:
    """[id, tool, outcome, mean, turn, 1 for a call, marks, reasons, gist, after], to which `collect` adds the
    number of the file and the place in it. Tool, outcome and reasons are numbers of names; `after` is [mean,
    marks, numbers of changes] of what was sampled again after training, or null."""
    profile = table.profiles.get(candidate.id)
    gist = " ".join(page.message_text(candidate.demonstration)[:300].split())
    return [
        _cut(candidate.id, 200),
        tools(tool_of(candidate)),
        list(SHOWN).index(table.outcome(candidate.id)),
        _mean(profile),
        candidate.turn,
        int(candidate.is_call),
        _marks(profile),
        sorted({reasons(rollout.reason) for rollout in rollouts}),
        _cut(gist[:80], 120),
        _after(table.pairs.get(candidate.id)),
    ]


def _after(pair: resampled.Pair | None) -> list | None:
    if pair is None:
        return None
    numbers = [list(resampled.CHANGES).index(change) for change in resampled.changes_of(pair)]
    return [_mean(pair[1]), _marks(pair[1]), numbers]


def _mean(profile: Profile | None) -> float | None:
    return round(profile.mean, 3) if profile and profile.rewards else None


def _marks(profile: Profile | None) -> str:
    return "".join(map(_mark, profile.rewards[:64])) if profile else ""


def _mark(reward: float) -> str:
    return "1" if reward >= 1 else "0" if reward <= 0 else "p"


Merged = Sequence[tuple[list[Rollout], Said]]


def _detail(candidate: Candidate, table: Table, merged: Merged, later: Merged, room: int) -> dict:
    """What is shown of a candidate: `merged` samples of its profile, and `later` ones of the final policy."""
    tail = candidate.messages[-TAIL_MESSAGES:]
    messages = [(str(message.get("role", "?")), page.message_text(message)) for message in tail]
    gold = page.message_text(candidate.demonstration)
    words = [gold, *(said for _, said in messages)]
    for samples in (merged, later):
        words += [text for group, said in samples[:MAX_ACTIONS] for text in (said.text, group[0].details)]
    level, pair = level_of(map(_size, words), room), table.pairs.get(candidate.id)
    return {
        "about": _about(candidate, table.profiles.get(candidate.id)),
        "earlier": len(candidate.messages) - len(tail),
        "messages": [[_cut(role, 40), _cut(said, level)] for role, said in messages],
        "gold": _cut(gold, level),
        **_actions(merged, level),
        "after": {"about": _rewards(pair[1]), **_actions(later, level)} if pair else None,
    }


def _actions(merged: Merged, level: int) -> dict:
    shown, others = merged[:MAX_ACTIONS], merged[MAX_ACTIONS:]
    return {
        "actions": [_action(group, said, level) for group, said in shown],
        "others": sum(len(group) for group, _ in others),
    }


def _about(candidate: Candidate, profile: Profile | None) -> str:
    words = [f"turn {candidate.turn}", f"verifier {profile.verifier if profile else candidate.verifier}"]
    words += [_rewards(profile)] if profile else []
    return _cut(" · ".join(filter(None, words)), 600)


def _rewards(profile: Profile) -> str:
    words = []
    if profile.rewards:
        words += [f"mean {profile.mean:.3f}, variance {profile.variance:.3f}"]
        words += [f"rewards {' '.join(f'{r:g}' for r in profile.rewards[:64])}"]
    if profile.abstained:
        words += [f"{profile.abstained} undecided"]
    return " · ".join(words)


def _action(group: Sequence[Rollout], said: Said, level: int) -> list:
    first = group[0]
    notes = [] if first.finished else ["cut at the token limit"]
    if said.fault:
        notes.append(
            "as it was sampled" if said.fault in first.details else f"as it was sampled: {said.fault}"
        )
    notes += ["what the demonstration does"] * said.same
    reason, note = _cut(first.reason, 80), _cut("; ".join(notes), 300)
    comparable = int(not said.fault)
    words = [reason, note, _cut(said.text, level), _cut(first.details, level)]
    return [grade(first.reward), first.reward, len(group), *words, comparable]


def grade(reward: float | None) -> str:
    if reward is None:
        return "open"
    return "pass" if reward >= 1 else "part" if reward > 0 else "fail"


# ---- JSON, and room for texts in it

_MARKUP = {ord(c): f"\\u{ord(c):04x}" for c in "<>&"}  # in JSON these are in strings only


def _encoded(value: Any) -> str:
    """JSON in ASCII that ends no script element."""
    return json.dumps(value, separators=(",", ":")).translate(_MARKUP)


def _size(text: str) -> int:
    """Bytes of a text in `_encoded`; that of two texts is the sum of theirs."""
    encoded = json.encoder.encode_basestring_ascii(page.visible(text))
    return len(encoded) - 2 + sum(map(encoded.count, "<>&")) * (len("\\u0026") - 1)


def _cut(value: Any, room: int) -> str:
    """`value` as visible text of at most `room` bytes of JSON, and how many characters were left out."""
    value = str(value)
    head = value[:room]  # encoded, no character is shorter than one byte
    if len(head) == len(value) and _size(head) <= room:
        return page.visible(value)
    fits, above = 0, len(head)  # so many characters fit, and no more than `above`
    while fits < above:
        middle = (fits + above + 1) // 2
        size = _size(head[fits:middle])
        if size <= room:
            fits, room = middle, room - size
        else:
            above = middle - 1
    return f"{page.visible(head[:fits])} … {len(value) - fits:,} more characters"


def level_of(lengths: Iterable[int], room: int) -> int:
    """The most bytes each text may take so that all take at most `room`; what short ones do not need goes to
    the long ones."""
    sizes = sorted(lengths)
    for i, size in enumerate(sizes):
        if size * (len(sizes) - i) > room:
            return room // (len(sizes) - i)
        room -= size
    return max(sizes, default=0)
