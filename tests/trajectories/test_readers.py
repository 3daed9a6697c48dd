"""Readers of demonstrations: exact messages, calls, skips and rewards per format, and the real files."""

import copy
import json

import pytest
from support.paths import SHARED
from support.reader_samples import ATIF, MINI, OPENAI, SAMPLES, TAU, TERMINUS, call, only, read, typed

from pivotrl_jax.chat.actions import message_to_action
from pivotrl_jax.records import InputError
from pivotrl_jax.trajectories import extract, filters, reading
from pivotrl_jax.trajectories.readers import terminus
from pivotrl_jax.verifiers import VERIFIERS

REAL = SHARED / "trajectories"
needs_real = pytest.mark.skipif(
    not REAL.is_dir(), reason="the real trajectories are not part of the repository"
)


def extracted(trajectories):
    return extract.extract(filters.skip_errors(trajectories))


def own_verdict(candidate):
    """What the candidate's verifier says of the demonstration itself; None: there is no such verifier."""
    verifier = VERIFIERS.get(candidate.verifier)
    return verifier and verifier.verify(candidate, message_to_action(candidate.demonstration))


# ---- what each reader makes of its format


@pytest.mark.parametrize("sample", SAMPLES)
def test_the_format_is_recognised_by_content_alone(tmp_path, sample):
    value, name = SAMPLES[sample]
    path = tmp_path / "x"
    path.write_text(json.dumps(value), encoding="utf-8")
    assert reading.recognise(path) == name


@pytest.mark.parametrize("sample", SAMPLES)
def test_lines_and_lists_of_documents_read_like_single_ones(tmp_path, sample):
    value, name = SAMPLES[sample]
    single, _ = read(tmp_path, value)
    if isinstance(value, dict):
        pair, named = read(tmp_path, [value, value], "list.json")
        assert named == {} and [t.messages for t in pair] == [t.messages for t in single * 2]
    lines, named = read(tmp_path, (json.dumps(value) + "\n") * 2, "lines.jsonl", format=name)
    assert named == {} and [t.messages for t in lines] == [t.messages for t in single * 2]
    assert len({t.id for t in lines}) == len(lines)


def test_openai(tmp_path):
    t = only(tmp_path, OPENAI)
    assert (t.id, t.source, t.verifier, t.reward) == ("o", "openai", "swe", 1.0)
    assert t.messages[3]["tool_calls"] == [call("bash", {"command": "ls"}, "c1")]
    assert t.skip == {1: "greeting", 5: "context"}
    assert [c.id for c in extract.extract([t])] == ["o@3"]


@pytest.mark.parametrize(
    "form",
    [
        OPENAI["messages"],
        {"messages": json.dumps(OPENAI["messages"])},
        {"conversations": [{**m, "from": m["role"]} for m in OPENAI["messages"]]},
    ],
)
def test_openai_messages_under_other_names(tmp_path, form):
    assert only(tmp_path, form).messages == only(tmp_path, OPENAI, name="o.json").messages


def test_sharegpt(tmp_path):
    turns = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]
    t = only(tmp_path, {"conversations": turns})
    assert t.messages == [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]


@pytest.mark.parametrize(
    "names, verifier",
    [
        (["web_search", "open_page"], "search"),
        (["search", "fetch", "find"], "search"),
        (["browser.search", "browser.open"], "search"),
        (["open_file", "find"], "tool_call"),
        (["search_flights", "book_flight"], "tool_call"),
        ([], "tool_call"),
    ],
)
def test_episodes_of_looking_things_up_get_the_search_verifier(tmp_path, names, verifier):
    tools = [{"name": n, "parameters": {}} for n in names]
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "42"}]
    assert only(tmp_path, {"messages": messages, "tools": json.dumps(tools)}).verifier == verifier


def test_tau_bench(tmp_path):
    t = only(tmp_path, TAU)
    assert (t.id, t.scenario, t.verifier, t.reward) == ("data:3:1", "tau:mia:3", "tau2", 0.0)
    expected = {"task_actions": [{"name": "cancel", "kwargs": {"id": 7}}]}
    assert t.cases == {2: expected, 4: expected, 6: expected}
    assert t.messages[2]["tool_calls"] == [call("cancel", {"unparseable": '{"id": 7'}, "t")]
    assert t.skip == {2: "unparseable_call", 4: "no_action"}


def test_tau2_bench(tmp_path):
    (t, other), named = read(tmp_path, SAMPLES["tau2"][0])
    assert named == {} and (t.reward, other.reward) == (1.0, 0.0)
    assert (t.id, other.id) == ("data:7:0", "data:7:1")
    assert t.scenario == other.scenario == "tau2:telecom:7"
    assert t.messages == [
        {"role": "system", "content": "the policy"},
        {"role": "assistant", "content": "Hi! How can I help you today?"},
        {"role": "user", "content": "cancel 7"},
        {"role": "assistant", "content": "", "tool_calls": [call("cancel", {"id": 7}, "t")]},
        {"role": "tool", "content": "no", "tool_call_id": "t", "name": "cancel", "error": True},
    ]
    assert t.skip == {1: "greeting"} and filters.skip_errors([t])[0].skip == {1: "greeting", 3: "call_error"}
    assert t.cases[3] == {
        "task_actions": [{"name": "cancel", "arguments": {"id": 7}, "compare_args": ["id"]}]
    }
    assert t.tools == [
        {"name": "cancel", "description": "Cancel.", "parameters": {"type": "object", "properties": {}}}
    ]


def test_swe_agent_with_function_calls(tmp_path):
    t = only(tmp_path, SAMPLES["swe calls"][0], name="repo__9.traj")
    assert (t.id, t.scenario, t.verifier, t.reward) == ("repo__9", "repo__9", "swe", None)
    assert t.messages[2:4] == [
        {"role": "assistant", "content": "look", "tool_calls": [call("bash", {"command": "ls"}, "x")]},
        {"role": "tool", "content": "a.py", "tool_call_id": "x", "name": "bash"},
    ]
    assert t.skip == {4: "no_action", 5: "unparseable_call"}  # what is printed Python is never evaluated


def test_swe_agent_with_fenced_commands(tmp_path):
    t = only(tmp_path, SAMPLES["swe fences"][0])
    assert t.messages[5:7] == [
        {
            "role": "assistant",
            "content": "First,\n```\ncat a.py\n```\nthen",
            "tool_calls": [call("bash", {"command": "edit 1:2\nx\nend_of_edit"}, "call_0")],
        },
        {
            "role": "tool",
            "content": "Your proposed edit has introduced new syntax error(s).",
            "tool_call_id": "call_0",
            "name": "bash",
            "error": True,
        },
    ]
    assert t.messages[8]["role"] == "user"  # the answer to a turn without a command
    assert [m["role"] for m in t.messages[3:5]] == ["tool", "user"]  # the example's result, then the task
    assert t.messages[9]["tool_calls"] == [call("bash", {"command": "submit"}, "call_0")]
    assert t.skip == {2: "context", 7: "unparseable_call"}
    assert filters.skip_errors([t])[0].skip == {2: "context", 5: "call_error", 7: "unparseable_call"}
    assert [d["function"]["name"] for d in t.tools] == ["bash"]


def test_mini_swe_agent(tmp_path):
    t = only(tmp_path, MINI, name="repo__3.traj.json")
    assert (t.id, t.verifier) == ("repo__3", "swe")
    assert t.messages[2:4] == [
        {
            "role": "assistant",
            "content": "See:",
            "tool_calls": [call("bash", {"command": "ls -a"}, "call_0")],
        },
        {
            "role": "tool",
            "content": "<returncode>1</returncode>\n<output>\n</output>",
            "tool_call_id": "call_0",
            "name": "bash",
        },
    ]
    assert t.messages[5] == {"role": "user", "content": "exactly one, please"}
    assert t.messages[7] == {"role": "tool", "content": "", "tool_call_id": "call_0", "name": "bash"}
    assert t.skip == {4: "unparseable_call"}
    assert filters.skip_errors([t])[0].skip == {4: "unparseable_call"}  # grep without a match returns 1 too


def test_mini_swe_agent_with_native_calls(tmp_path):
    t = only(tmp_path, SAMPLES["mini 2"][0])
    assert t.id == "repo__1" and len(t.messages) == 4
    assert t.messages[2]["tool_calls"] == [call("bash", {"command": "ls"}, "c1")]
    assert "error" not in t.messages[3] and t.skip == {}


def test_openhands(tmp_path):
    t = only(tmp_path, SAMPLES["openhands"][0])
    assert (t.id, t.verifier, t.reward) == ("repo__2", "swe", 1.0)
    assert t.messages == [
        {"role": "system", "content": "sys"},
        {"role": "user", "content": "fix"},
        {
            "role": "assistant",
            "content": "both",
            "tool_calls": [call("run", {"command": "ls"}, "a"), call("run", {"command": "cat x"}, "b")],
        },
        {"role": "tool", "content": "x", "tool_call_id": "a", "name": "run"},
        {"role": "tool", "content": "no", "tool_call_id": "b", "name": "run"},
        {
            "role": "assistant",
            "content": "where?",
            "tool_calls": [call("run", {"command": "pwd"}, "event_7")],
        },
        {"role": "tool", "content": "gone", "tool_call_id": "event_7", "name": "run", "error": True},
        {"role": "assistant", "content": "I give up"},
    ]
    assert t.skip == {} and filters.skip_errors([t])[0].skip == {5: "call_error"}


def test_atif(tmp_path):
    (t, sub), named = read(tmp_path, ATIF)
    assert named == {} and (t.id, t.verifier, t.reward) == ("session", "terminal", None)
    assert t.messages[3] == {
        "role": "assistant",
        "content": "look",
        "reasoning_content": "hm",
        "tool_calls": [
            call("bash_command", {"keystrokes": "ls\n"}, "1"),
            call("bash_command", {"keystrokes": "pwd\n"}, "2"),
        ],
    }
    assert t.messages[4] == {"role": "tool", "content": "a.py", "tool_call_id": "1", "name": "bash_command"}
    assert t.messages[6] == {"role": "user", "content": "idle"}
    assert t.skip == {1: "context", 5: "no_action"}
    assert (sub.id, sub.verifier, sub.reward) == ("sub", "search", 0.5)


@pytest.mark.parametrize(
    "extra, failed",
    [
        ({"exit_code": 1}, False),
        ({"exit_code": 124, "is_error": False}, False),
        ({"exit_code": 127}, True),
        ({"returncode": "126"}, True),
        ({"is_error": True, "exit_code": 0}, True),
    ],
)
def test_what_atif_calls_an_error(tmp_path, extra, failed):
    alone = {**ATIF, "subagent_trajectories": None, "steps": [*ATIF["steps"][2:3], {**ATIF["steps"][3]}]}
    alone["steps"][1]["observation"] = {"results": [{"source_call_id": "1", "content": "x", "extra": extra}]}
    assert filters.skip_errors([only(tmp_path, alone)])[0].skip == ({1: "call_error"} if failed else {})


def test_an_image_or_an_odd_call_costs_turns_of_an_atif_trajectory(tmp_path):
    image = [{"type": "text", "text": "ok"}, {"type": "image", "source": {"path": "a.png"}}]
    step = {"source": "agent", "message": "", "tool_calls": [{"tool_call_id": "1", "function_name": "ls"}]}
    odd = {**step, "tool_calls": [{"tool_call_id": "1", "arguments": {}}]}
    seen = {"observation": {"results": [{"source_call_id": "1", "content": image}]}}
    done = {"source": "agent", "message": "Done."}
    alone = {**ATIF, "subagent_trajectories": None}
    t = only(tmp_path, {**alone, "steps": [ATIF["steps"][2], odd, step | seen, done]})
    assert t.skip == {1: "unparseable_call", 4: "not_text"} and len(t.messages) == 5


@pytest.mark.parametrize("code, failed", [(1, False), (-1, False), (124, False), (126, True), (127, True)])
def test_what_openhands_calls_an_error(tmp_path, code, failed):
    row = copy.deepcopy(SAMPLES["openhands"][0])
    row["history"] = row["history"][:7]
    row["history"][6]["extras"]["metadata"]["exit_code"] = code
    assert filters.skip_errors([only(tmp_path, row)])[0].skip == ({2: "call_error"} if failed else {})


@pytest.mark.parametrize("minor", range(9))
def test_atif_versions(tmp_path, minor):
    assert read(tmp_path, {**ATIF, "schema_version": f"ATIF-v1.{minor}"})[0][0].source == "atif"


@pytest.mark.parametrize("version", ["ATIF-v1.9", "ATIF-v2.0", "ATIF"])
def test_other_atif_versions_are_refused(tmp_path, version):
    alone = {**ATIF, "schema_version": version, "subagent_trajectories": None}
    with pytest.raises(InputError, match=r"want ATIF-v1.0 to ATIF-v1.8"):
        read(tmp_path, alone)


def test_the_reward_of_an_atif_trajectory_is_its_trials(tmp_path):
    alone = {**ATIF, "subagent_trajectories": None}
    verdict = {"verifier_result": {"rewards": {"reward": 1.0}}}
    (tmp_path / "list-files__Ab3").mkdir()
    (tmp_path / "list-files__Ab3" / "result.json").write_text(json.dumps(verdict), encoding="utf-8")
    t = only(tmp_path, alone, name="list-files__Ab3/agent/trajectory.json")
    assert (t.id, t.scenario, t.reward) == ("list-files__Ab3", "list-files", 1.0)
    text = tmp_path / "other__1" / "verifier" / "reward.txt"
    text.parent.mkdir(parents=True)
    text.write_text("0\n", encoding="utf-8")
    assert only(tmp_path, alone, name="other__1/agent/trajectory.json").reward == 0.0


def test_terminus(tmp_path):
    t = only(tmp_path, TERMINUS)
    assert (t.scenario, t.verifier, t.source) == ("list-files", "terminal", "terminus")
    assert t.messages[1] == {"role": "assistant", "content": typed("ls\n"), "reasoning_content": "hm {x}"}
    assert t.skip == {5: "unparseable_call", 7: "no_action", 9: "unparseable_call"}
    assert terminus.turn(t.messages[3]["content"]) == (("cat a.py\n", "\n"), False)
    assert terminus.turn(typed(done=True)) == ((), True)


def test_terminus_folders(tmp_path):
    logs = tmp_path / "list-files.1-of-1" / "agent-logs"
    for i in range(11):  # ten comes after nine
        (logs / f"episode-{i}").mkdir(parents=True)
        (logs / f"episode-{i}" / "prompt.txt").write_text(f"screen {i}", encoding="utf-8")
        (logs / f"episode-{i}" / "response.txt").write_text(typed(f"echo {i}\n"), encoding="utf-8")
    (logs.parent / "results.json").write_text('{"is_resolved": true}', encoding="utf-8")
    (t,), named = reading.read(tmp_path)
    assert (t.id, t.scenario, t.reward) == ("list-files.1-of-1", "list-files", 1.0)
    assert [m["content"] for m in t.messages[::2]] == [f"screen {i}" for i in range(11)]
    assert named == {str(tmp_path): "1 file (results.json) beside trajectories: not read"}
    assert reading.read(logs)[0][0].messages == t.messages


@pytest.mark.parametrize("sample", SAMPLES)
def test_every_demonstration_passes_its_own_verifier(tmp_path, sample):
    made, _ = read(tmp_path, SAMPLES[sample][0])
    failed = [(c.id, v) for c in extracted(made) if (v := own_verdict(c)) and v.reward != 1]
    assert not failed


# ---- real files


@needs_real
@pytest.mark.parametrize(
    "file, format, trajectories, count, skipped",
    [
        ("tau_bench/gpt-4o-airline-first60.json", "tau_bench", 60, 790, {"call_error": 22}),
        ("swe_agent/marshmallow-1867-function-calling.traj", "swe_agent", 1, 11, {"call_error": 1}),
        ("swe_agent/pydicom-1458.traj", "swe_agent", 1, 12, {"call_error": 3}),
        ("mini_swe_agent/github_issue.traj.json", "mini_swe_agent", 1, 10, {}),
        ("mini_swe_agent/local.traj.json", "mini_swe_agent", 1, 2, {}),
        ("openhands/basic.json", "openhands", 1, 2, {}),
    ],
)
def test_real_files(file, format, trajectories, count, skipped):
    path = REAL / file
    assert reading.recognise(path) == format
    made, named = reading.read(path)
    assert named == {} and len(made) == trajectories
    assert all(t.skip == {} for t in made) and len(extract.extract(made)) == count
    turns = sum(m["role"] == "assistant" for t in made for m in t.messages)
    why = [slug for t in filters.cap_repeats(filters.skip_errors(made)) for slug in t.skip.values()]
    assert turns == count and {slug: why.count(slug) for slug in why} == skipped
    assert all(v.reward == 1 for v in map(own_verdict, extracted(made)) if v)


@needs_real
def test_the_real_tau_bench_episodes_bring_rewards_and_expected_actions():
    made, _ = reading.read(REAL / "tau_bench")
    assert sum(t.reward for t in made) == 23 and len({t.scenario for t in made}) == 50  # ten tasks twice
    first = extract.extract(made)[0].case["task_actions"]
    assert [a["name"] for a in first] == ["book_reservation"] and first[0]["kwargs"][
        "user_id"
    ] == "mia_li_3668"


@needs_real
def test_the_real_folder_is_read_whole():
    made, named = reading.read(REAL)
    assert len(made) == 65 and named == {} and len({t.id for t in made}) == 65
