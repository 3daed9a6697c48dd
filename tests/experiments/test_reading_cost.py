"""What docs/extending.md says to read before extending the package stays short."""

import sys

import pytest
from support.paths import ROOT


@pytest.fixture
def reading_cost(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    import reading_cost

    yield reading_cost
    sys.modules.pop("reading_cost")


OPEN: set[str] = set()  # goals that are not met yet


def test_the_goals_are_met(reading_cost, capsys):
    reading_cost.main()
    lines = capsys.readouterr().out.splitlines()[1:]
    missed = {line[:14].strip() for line in lines if "MISSED" in line}
    assert missed == OPEN, lines


def test_a_section_names_its_files(reading_cost):
    page = (
        "# T\n\n## A verifier\n\nRead: `a.py` and\n`b/c.py`.\n\nMore: `d.py`.\n\n## Other\n\nRead: `e`.\n\n"
    )
    assert reading_cost.files_of(page) == {"verifier": ["a.py", "b/c.py"]}


def test_a_long_file_and_a_missing_section_are_missed_goals(reading_cost, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("## A verifier\n\nRead: `pivotrl_jax/models/decoder.py`.\n\n")
    assert reading_cost.main(page) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "MISSED  pivotrl_jax/models/decoder.py" in lines[1]
    assert lines[2].split()[:4] == ["reader", "402", "-", "120"] and "MISSED" in lines[2]
