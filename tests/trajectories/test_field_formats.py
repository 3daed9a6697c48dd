"""The recorded cases of formats, folders and errors; skipped where they are absent."""

import pytest
from support.paths import SHARED

from pivotrl_jax.trajectories import extract, filters, reading

CASES = SHARED / "field_cases"

pytestmark = pytest.mark.skipif(
    not CASES.is_dir(), reason="the recorded cases are not part of the repository"
)

# case -> (reader, scenario, reward, calls of the candidates)
EXPECTED = {
    "25_mini_swe_grep_no_match.traj.json": ("mini_swe_agent", None, None, [["bash", "bash"], ["bash"]]),
    "26_mini_swe_xml.traj.json": ("mini_swe_agent", None, None, [["bash"], ["bash"]]),
    "27_mini_swe_responses.traj.json": ("mini_swe_agent", None, None, [["bash"]]),
    "28_openhands_v1_events.jsonl": ("openhands_v1", None, None, [["terminal"], []]),
    "29_tau2_directory": ("tau_bench", "tau2:retail:5", 1.0, [["get_weather"], []]),
    "34_anthropic_blocks.jsonl": ("anthropic", None, None, [["get_weather"], []]),
    "35_claude_code_session.jsonl": ("claude_code", "s1", None, [["Bash"], []]),
    "36_codex_rollout.jsonl": ("codex", "s", None, [["shell"], []]),
    "39_inspect_log.json": ("inspect_log", "t:1", 1.0, [["get_weather"], []]),
}


@pytest.mark.parametrize("case", EXPECTED)
def test_a_recorded_case(case):
    source, scenario, reward, calls = EXPECTED[case]
    (t,), named = reading.read(CASES / case)
    assert named == {} and (t.source, t.reward) == (source, reward) and scenario in (None, t.scenario)
    made = [c.demonstration.get("tool_calls", []) for c in extract.extract(filters.skip_errors([t]))]
    assert [[call["function"]["name"] for call in turn] for turn in made] == calls


def test_the_recorded_harbor_folder():
    made, named = reading.read(CASES / "12_harbor_folder")
    names = ["django__django-11099", "django__django-13447", "django__django-15000"]
    assert [t.scenario for t in made] == names and [t.source for t in made] == ["atif"] * 3
    assert len(filters.successes(made, 1.0)[0]) == 2 and len(named) == 1
