"""The table in docs/verifiers_swe.md: every row gives the reward that it says."""

import ast
import re

import pytest
from support.paths import ROOT
from support.swe_cases import act, bash, candidate, edit

from pivotrl_jax.verifiers import get

PAGE = ROOT / "docs" / "verifiers_swe.md"
EDITORS = {
    "view": lambda path, first, last: edit("view", path, view_range=[first, last]),
    "str_replace": lambda path, old, new: edit("str_replace", path, old_str=old, new_str=new),
    "insert": lambda path, line, text: edit("insert", path, insert_line=line, new_str=text),
    "create": lambda path, text: edit("create", path, file_text=text),
}


def call(cell):
    """A cell as a call of the shell or of an editor."""
    text = cell.strip().removeprefix("`").removesuffix("`").replace("\\|", "|").replace("⏎", "\n")
    match = re.fullmatch(r"(\w+)(\(.*\))", text)
    if match and match[1] in EDITORS:
        return EDITORS[match[1]](*ast.literal_eval(match[2]))
    return bash(text)


def rows():
    lines = PAGE.read_text("utf-8").splitlines()
    table = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("| `")]
    assert len(table) >= 20 and all(len(row) == 4 for row in table)
    return table


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row[0].strip()} {row[1].strip()}")
def test_a_row_gives_the_reward_that_it_says(row):
    demonstration, action, reward, why = row
    verdict = get("swe").verify(candidate(call(demonstration)), act(call(action)))
    assert verdict.reward == int(reward), (verdict, why)
    if call(action)[0] == "bash" and "to see" not in why:  # more may be shown, not less
        turned = get("swe").verify(candidate(call(action)), act(call(demonstration)))
        assert turned.reward == int(reward), turned
    for cell in (demonstration, action):
        assert get("swe").verify(candidate(call(cell)), act(call(cell))).reward == 1
