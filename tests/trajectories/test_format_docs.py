"""docs/formats.md: every format is in its table, and every example there is read as it says."""

import re

import pytest
from support.format_examples import EXAMPLES, PAGE

from pivotrl_jax.trajectories import reading
from pivotrl_jax.trajectories.readers import terminus


def test_every_format_has_a_line_in_the_table_and_an_example():
    rows = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert set(rows) == {name for name, _ in EXAMPLES} == set(reading.READERS)


@pytest.mark.parametrize("name, text", EXAMPLES)
def test_an_example_is_recognised_and_its_call_is_read(tmp_path, name, text):
    path = tmp_path / "example"
    path.write_text(text, encoding="utf-8")
    assert reading.recognise(path) == name
    (trajectory,), left_out = reading.read(path)
    assert left_out == {} and trajectory.skip == {}
    assert [m["role"] for m in trajectory.messages] == ["user", "assistant"]
    assert trajectory.messages[0]["content"] == "list"
    answer = trajectory.messages[1]
    if name == "terminus":
        assert terminus.turn(answer["content"]) == (("ls\n",), False)
    else:
        (call,) = answer["tool_calls"]
        command = {"name": "bash", "arguments": {"command": "ls"}}
        assert call["function"] in ({"name": "ls", "arguments": {}}, command)
