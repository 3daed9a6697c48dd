"""docs/verifiers.md has a table of pairs for every verifier, and every row is true."""

import pytest
from support.pair_tables import PAGE, pair, sections
from support.paths import ROOT

from pivotrl_jax.verifiers import VERIFIERS

SECTIONS = sections(PAGE.read_text("utf-8"))
ELSEWHERE = {"swe"}  # in docs/verifiers_swe.md, whose rows test_swe_table.py runs
MIN_ROWS = 20
ROWS = [(section, row) for section in SECTIONS.values() for row in section.rows]


def test_every_strict_verifier_has_its_table():
    strict = {verifier.name for verifier in dict(VERIFIERS).values() if ":" not in verifier.name}
    assert strict - set(SECTIONS) <= ELSEWHERE
    assert set(SECTIONS) <= strict


@pytest.mark.parametrize("name", SECTIONS)
def test_a_table_has_text_and_enough_rows_of_both_kinds(name):
    section = SECTIONS[name]
    assert len(section.text.split()) > 20
    assert len(section.rows) >= MIN_ROWS
    rewards = [row.reward for row in section.rows]
    assert rewards.count(1) >= 5 and rewards.count(0) >= 5
    pairs = [(row.demonstration, row.action) for row in section.rows]
    assert len(set(pairs)) == len(pairs)


@pytest.mark.parametrize(
    ("section", "row"), ROWS, ids=[f"{section.name}-{i}" for i, (section, _) in enumerate(ROWS)]
)
def test_a_row_says_what_the_verifier_decides(section, row):
    verdict = VERIFIERS[section.name].verify(*pair(section, row))
    assert (verdict.reward, verdict.reason) == (row.reward, row.reason), verdict.details
    assert row.why


def test_the_page_is_linked():
    assert "(docs/verifiers.md)" in (ROOT / "README.md").read_text("utf-8")


PAGE_OF_ONE_ROW = """# Title

## tool_call

Text.

| demonstration | action | reward | why |
|---|---|---|---|
| `{"f": {"command": "a \\| b"}}` | `[{"f": {"command": "a \\| b"}}]` | 1 | `ok`: the same |
"""


def test_a_cell_may_hold_a_pipe():
    section = sections(PAGE_OF_ONE_ROW)["tool_call"]
    candidate, action = pair(section, section.rows[0])
    assert action.calls[0].arguments == {"command": "a | b"}
    assert candidate.demonstration["tool_calls"][0]["function"]["arguments"] == {"command": "a | b"}
    assert (section.rows[0].reason, section.rows[0].why) == ("ok", "the same")
