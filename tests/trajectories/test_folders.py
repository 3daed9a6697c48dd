"""Folders as harnesses write them: a trial is read once, with its reward and its scenario."""

import json

import pytest
from support.reader_samples import ATIF, MINI2, OPENAI, SWE_FENCES, only, typed

from pivotrl_jax.records import InputError
from pivotrl_jax.trajectories import filters, reading

ALONE = {**ATIF, "subagent_trajectories": None}


def put(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


def trial(job, name, reward, atif=True, **result):
    """A trial of Harbor, with the files that it writes around a trajectory."""
    folder = job / name
    put(folder / "config.json", {"task": {}})
    put(folder / "trial.log", "...")
    put(folder / "result.json", {"verifier_result": {"rewards": {"reward": reward}}, **result})
    put(folder / "verifier" / "reward.txt", f"{reward}\n")
    put(folder / "verifier" / "ctrf.json", {"results": {}})
    put(folder / "artifacts" / "manifest.json", [])
    put(folder / "agent" / "mini-swe-agent.trajectory.json", MINI2)
    put(folder / "agent" / "mini-swe-agent.txt", "...")
    if atif:
        put(folder / "agent" / "trajectory.json", ALONE)
    return folder


@pytest.fixture
def job(tmp_path):
    job = tmp_path / "jobs" / "2026-01-01"
    put(job / "config.json", {})
    put(job / "result.json", {"stats": {}})
    put(job / "job.log", "...")
    trial(job, "django__django-1__AbC", 1.0)
    trial(job, "django__django-1__XyZ", 0.0)
    trial(job, "hello-world__QqQ", 1.0)
    return job


def test_harbor_one_trial_once(job):
    made, named = reading.read(job)
    assert [(t.id, t.scenario, t.reward, t.source) for t in made] == [
        ("django__django-1__AbC", "django__django-1", 1.0, "atif"),
        ("django__django-1__XyZ", "django__django-1", 0.0, "atif"),
        ("hello-world__QqQ", "hello-world", 1.0, "atif"),
    ]
    assert [t.id for t in filters.successes(made, 1.0)[0]] == ["django__django-1__AbC", "hello-world__QqQ"]
    ((where, sentence),) = named.items()
    assert where == str(job)
    assert "6 files (mini-swe-agent.trajectory.json, mini-swe-agent.txt) beside trajectory.json" in sentence
    assert "result.json" in sentence or "config.json" in sentence


def test_files_beside_trajectories_do_not_stop_a_strict_reading(job):
    assert len(reading.read(job, on_bad_row="stop")[0]) == 3
    put(job / "more.json", {"what": 1})
    with pytest.raises(InputError, match=r"more.json: the format is not known"):
        reading.read(job, on_bad_row="stop")


def test_a_trial_by_name_is_the_same_trial(job):
    folder = job / "django__django-1__AbC"
    whole = reading.read(job)[0][0]
    for path in (folder, folder / "agent", folder / "agent" / "trajectory.json"):
        (t,), _ = reading.read(path)
        assert (t.id, t.scenario, t.reward, t.messages) == (whole.id, whole.scenario, 1.0, whole.messages)


def test_a_trial_without_harbors_own_file_is_read_from_the_agents(tmp_path):
    trial(tmp_path, "django__django-1__AbC", 0.5, atif=False)
    (t,), _ = reading.read(tmp_path)
    assert (t.source, t.id) == ("mini_swe_agent", "django__django-1__AbC")
    assert (t.scenario, t.reward) == ("django__django-1", 0.5)


def test_a_session_deep_in_a_trial_has_its_reward(tmp_path):
    folder = trial(tmp_path, "a-task__AbC", 1.0, atif=False)
    (folder / "agent" / "mini-swe-agent.trajectory.json").unlink()
    line = {"type": "user", "sessionId": "s", "message": {"role": "user", "content": "fix"}}
    answer = {"type": "assistant", "sessionId": "s", "message": {"role": "assistant", "content": "Done."}}
    put(
        folder / "agent" / "sessions" / "projects" / "-app" / "s.jsonl",
        f"{json.dumps(line)}\n{json.dumps(answer)}\n",
    )
    (t,), _ = reading.read(tmp_path)
    assert (t.source, t.scenario, t.reward) == ("claude_code", "a-task", 1.0)


def test_the_continuations_of_a_trial_are_read_too(job):
    put(job / "hello-world__QqQ" / "agent" / "trajectory.cont-1.json", ALONE)
    made, _ = reading.read(job)
    assert [t.id for t in made][-2:] == ["hello-world__QqQ", "hello-world__QqQ~2"]
    assert made[-1].scenario == "hello-world" and made[-1].reward == 1.0


@pytest.mark.parametrize(
    "result, reward_txt, reward",
    [
        ({"verifier_result": {"rewards": {"reward": 0.25}}}, "1", 0.25),
        ({"verifier_result": {"rewards": {"accuracy": 0.75}}}, "1", 0.75),
        ({"verifier_result": {"rewards": {"a": 0.75, "b": 1}}}, "1", 1.0),
        ({"verifier_result": None}, "0", 0.0),
        ({}, "none", None),
        ("{", None, None),
    ],
)
def test_the_reward_of_a_trial(tmp_path, result, reward_txt, reward):
    folder = tmp_path / "t__A"
    put(folder / "agent" / "trajectory.json", ALONE)
    put(folder / "result.json", result)
    if reward_txt is not None:
        put(folder / "verifier" / "reward.txt", reward_txt)
    assert reading.read(tmp_path)[0][0].reward == reward


def test_the_task_that_a_result_names_is_the_scenario(tmp_path):
    trial(
        tmp_path, "a-very-long-name-cut-at-32-let__AbC", 1.0, task_name="a-very-long-name-cut-at-32-letters"
    )
    assert reading.read(tmp_path)[0][0].scenario == "a-very-long-name-cut-at-32-letters"


WRONG = ("", "[", "[]", "null", "1", '"x"', '{"verifier_result": 1}', '{"verifier_result": {"rewards": []}}')
WRONG += ('{"verifier_result": {"rewards": {"reward": "x"}}, "task_name": []}', '{"resolved_ids": 1}')
WRONG += ('{"resolved_ids": [1, null, {}], "x": [[]]}', '{"django__django-1": {"resolved": "x"}}', "[" * 9999)


@pytest.mark.parametrize("wrong", WRONG)
def test_damaged_results_and_reports_are_not_believed(job, wrong):
    put(job / "django__django-1__AbC" / "result.json", wrong)
    put(job / "results.json", wrong)
    (job / "django__django-1__AbC" / "verifier" / "reward.txt").unlink()
    made, _ = reading.read(job)
    assert [t.reward for t in made] == [None, 0.0, 1.0]
    assert [t.scenario for t in made] == ["django__django-1", "django__django-1", "hello-world"]


# ---- reports beside trajectories


@pytest.mark.parametrize(
    "report",
    [
        {"resolved_ids": ["a__b-1"], "unresolved_ids": ["a__b-2"], "submitted_ids": ["a__b-1", "a__b-2"]},
        {"resolved": ["a__b-1"], "generated": ["a__b-1", "a__b-2"]},
        {"a__b-1": {"resolved": True}, "a__b-2": {"resolved": False}},
    ],
)
def test_swe_agents_folder_with_a_report(tmp_path, report):
    run = tmp_path / "run"
    for number in (1, 2, 3):
        name = f"a__b-{number}"
        put(run / name / f"{name}.traj", SWE_FENCES)
        put(run / name / f"{name}.pred", {"model_patch": ""})
        put(run / name / f"{name}.patch", "diff")
        put(run / name / f"{name}.config.yaml", "x: 1")
    put(run / "preds.json", {"a__b-1": {}})
    put(run / "results.json", report)
    made, named = reading.read(tmp_path)
    assert [(t.id, t.reward) for t in made] == [("a__b-1", 1.0), ("a__b-2", 0.0), ("a__b-3", None)]
    assert list(named) == [str(tmp_path)] and "11 files (a__b-1.config.yaml" in named[str(tmp_path)]


def test_a_report_that_swe_bench_named_after_the_model(tmp_path):
    put(tmp_path / "a__b-1" / "a__b-1.traj.json", MINI2 | {"instance_id": "a__b-1"})
    put(tmp_path / "gpt-5.run-1.json", {"submitted_ids": ["a__b-1"], "resolved_ids": ["a__b-1"]})
    (t,), named = reading.read(tmp_path)
    assert t.reward == 1.0 and "1 file (gpt-5.run-1.json)" in named[str(tmp_path)]


def test_terminal_benchs_folder(tmp_path):
    trial = tmp_path / "run" / "list-files" / "list-files.1-of-1.run"
    for i in range(2):
        put(trial / "agent-logs" / f"episode-{i}" / "prompt.txt", f"screen {i}")
        put(trial / "agent-logs" / f"episode-{i}" / "response.txt", typed(f"echo {i}\n"))
    put(trial / "results.json", {"is_resolved": False})
    put(trial / "commands.txt", "ls")
    put(trial / "panes" / "post-agent.txt", "$")
    put(trial / "sessions" / "agent.cast", "{}")
    for name in ("results.json", "run_metadata.json", "tb.lock", "run.log"):
        put(tmp_path / "run" / name, {"results": []})
    (t,), named = reading.read(tmp_path)
    assert (t.source, t.scenario, t.reward) == ("terminus", "list-files", 0.0)
    assert list(named) == [str(tmp_path)] and named[str(tmp_path)].startswith("8 files")


def test_a_reward_of_the_trajectory_itself_stays(tmp_path):
    put(tmp_path / "a.json", {**OPENAI, "scenario": "x", "reward": 1})
    put(tmp_path / "report.json", {"resolved_ids": [], "unresolved_ids": ["x"]})
    assert reading.read(tmp_path)[0][0].reward == 1.0


def test_openhands_output_with_its_report(tmp_path):
    events = [
        {"id": 0, "source": "user", "action": "message", "args": {"content": "fix"}},
        {"id": 1, "source": "agent", "action": "run", "args": {"command": "ls"}},
    ]
    rows = [{"instance_id": name, "history": events} for name in ("a", "b")]
    put(tmp_path / "output.jsonl", "\n".join(map(json.dumps, rows)))
    put(tmp_path / "metadata.json", {"agent_class": "CodeActAgent"})
    put(tmp_path / "report.json", {"resolved_ids": ["b"], "unresolved_ids": ["a"]})
    put(tmp_path / "output.swebench.jsonl", json.dumps({"instance_id": "a", "model_patch": ""}))
    put(tmp_path / "llm_completions" / "a" / "1.json", {"messages": OPENAI["messages"]})
    made, named = reading.read(tmp_path)
    assert [(t.id, t.reward) for t in made] == [("a", 0.0), ("b", 1.0)]
    assert "1 file (1.json) beside output.jsonl, which holds the same trial" in named[str(tmp_path)]


def test_a_session_folder_of_openhands(tmp_path):
    events = [{"id": 0, "source": "user", "action": "message", "args": {"content": "fix"}}]
    events += [
        {"id": i, "source": "agent", "action": "run", "args": {"command": f"ls {i}"}} for i in range(1, 12)
    ]
    for one in events:
        put(tmp_path / "sessions" / "abc" / "events" / f"{one['id']}.json", one)
    (t,), named = reading.read(tmp_path)
    assert named == {} and t.id == "abc" and t.source == "openhands"
    commands = [m["tool_calls"][0]["function"]["arguments"]["command"] for m in t.messages[1:]]
    assert commands == [f"ls {i}" for i in range(1, 12)]  # ten comes after nine


def test_a_companions_name_does_not_hide_trajectories(tmp_path):
    put(tmp_path / "results.json", [OPENAI])
    put(tmp_path / "config.json", {"x": 1})
    made, named = reading.read(tmp_path)
    assert len(made) == 1 and named == {str(tmp_path): "1 file (config.json) beside trajectories: not read"}


def test_a_reader_that_was_chosen_gets_files_of_every_name(tmp_path):
    put(tmp_path / "a.json", OPENAI)
    put(tmp_path / "config.json", {"x": 1})
    named = reading.read(tmp_path, format="openai_chat")[1]
    assert set(named) == {f"{tmp_path / 'config.json'}:1"}


def test_a_file_of_another_name_is_named_by_itself(tmp_path):
    put(tmp_path / "a.json", OPENAI)
    put(tmp_path / "b.json", {"x": 1})
    put(tmp_path / "notes.txt", "x")
    assert set(reading.read(tmp_path)[1]) == {str(tmp_path / n) for n in ("b.json", "notes.txt")}
    assert only(tmp_path / "o", OPENAI)
