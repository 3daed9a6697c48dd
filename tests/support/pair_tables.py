"""The tables of docs/verifiers.md: sections, rows, and the (candidate, action) that a row stands for."""

import dataclasses
import json
import re
from typing import Any

from pivotrl_jax.chat.actions import parse_action
from pivotrl_jax.records import Action, Candidate
from pivotrl_jax.verifiers.cases import calls_message
from support.hostile_actions import act
from support.paths import ROOT

PAGE = ROOT / "docs" / "verifiers.md"
HEADER = "| demonstration | action | reward | why |"


@dataclasses.dataclass(frozen=True)
class Row:
    demonstration: str
    action: str
    reward: float
    reason: str
    why: str


@dataclasses.dataclass(frozen=True)
class Section:
    """What the page says of one verifier: text, the fixture of its rows, and the rows."""

    name: str
    text: str
    fixture: dict
    rows: list[Row]


def _cells(line: str) -> list[str]:
    cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
    return [cell.strip().strip("`").replace(r"\|", "|") for cell in cells]


def _row(line: str) -> Row:
    demonstration, action, reward, why = _cells(line)
    reason, _, words = why.partition(":")
    return Row(demonstration, action, float(reward), reason.strip("`"), words.strip())


def _section(text: str) -> Section:
    heading, _, body = text.partition("\n")
    fixture = re.search(r"^```json\n(.*?)^```", body, re.MULTILINE | re.DOTALL)
    _, _, table = body.partition(HEADER)
    lines = [line for line in table.splitlines()[2:] if line.startswith("|")]
    before = re.split(r"^(?:```|\| )", body, maxsplit=1, flags=re.MULTILINE)[0]
    return Section(
        heading.strip(" `"), before, json.loads(fixture[1]) if fixture else {}, [_row(line) for line in lines]
    )


def sections(page: str) -> dict[str, Section]:
    """Verifier -> its section; a section is a heading of the second level with a table."""
    found = [_section(part) for part in re.split(r"^## ", page, flags=re.MULTILINE)[1:] if HEADER in part]
    return {section.name: section for section in found}


def _read(cell: str, named: dict) -> Any:
    """The value of a cell: JSON, or the name of something in the fixture."""
    return named[cell] if cell in named else json.loads(cell)


def _calls(value: Any) -> list[tuple[str, Any]]:
    """{"f": {...}} or a list of these -> [("f", {...})]."""
    return [pair for call in (value if isinstance(value, list) else [value]) for pair in call.items()]


def pair(section: Section, row: Row) -> tuple[Candidate, Action]:
    """The candidate and the action of a row."""
    fixture, actions = section.fixture, section.fixture.get("actions", {})
    state = fixture.get("states", {}).get(row.demonstration)
    if state is None:
        state = {"demonstration": _read(row.demonstration, actions)}
    state = {"messages": [], "tools": [], "case": {}, "demonstration": "", **fixture, **state}
    shown, done = state["demonstration"], _read(row.action, actions)
    message = (
        {"role": "assistant", "content": shown} if isinstance(shown, str) else calls_message(_calls(shown))
    )
    candidate = Candidate(
        "t@1", "t", 0, state["messages"], state["tools"], message, section.name, state["case"], "t"
    )
    return candidate, parse_action(done) if isinstance(done, str) else act(*_calls(done))
