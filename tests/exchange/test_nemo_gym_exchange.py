"""NeMo Gym's rows: what is written, that a round trip loses nothing, and the program."""

import dataclasses
import json
import math
import os
import subprocess
import sys

import pydantic
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import reader_samples
from support.nemo_gym_samples import (
    AGENT,
    CANDIDATE,
    CONFIG,
    HISTORY,
    PROFILE,
    TERMINUS,
    TOOL,
    TWO,
    read_one,
    theirs,
)
from support.paths import ROOT

from pivotrl_jax.exchange import contract, rows
from pivotrl_jax.records import (
    Candidate,
    Pivot,
    Profile,
    Rollout,
    Trajectory,
    read_records,
    to_json,
    write_records,
)
from pivotrl_jax.trajectories import extract
from pivotrl_jax.trajectories.readers import nemo_gym

# ---- writing


def test_a_row_satisfies_the_contract_and_says_the_profile():
    row = rows.row_of(Pivot(CANDIDATE, PROFILE), None, AGENT)
    assert contract.validate(row, AGENT) == []
    assert row["source_model_info"] == {
        "rewards": [0.0, 1.0, 1.0, 0.0],
        "reward_mean": 0.5,
        "reward_std": 0.5,
        "reward_var": 0.25,
    }
    assert row["meta_info"] == {"turn": 2, "step": 0, "assistant_depth": 2}
    assert row["expected_action"] == {
        "type": "function_call",
        "name": "get_order",
        "arguments": '{"id": 3}',
    }
    assert (row["uuid"], row["trajectory_id"]) == ("t@7", "t")
    params = row["responses_create_params"]
    assert params["tool_choice"] == "auto" and "metadata" not in params
    assert [i["type"] for i in params["input"]] == [
        *("message", "message", "reasoning", "message", "function_call", "function_call"),
        *("function_call_output", "function_call_output", "message", "message"),
    ]


def test_openai_s_own_models_take_the_items():
    types = pytest.importorskip("openai.types.responses")
    kinds = {
        "reasoning": types.ResponseReasoningItem,
        "function_call": types.ResponseFunctionToolCall,
        "function_call_output": types.response_input_param.FunctionCallOutput,
    }
    row = rows.row_of(CANDIDATE, PROFILE, AGENT)
    for item in row["responses_create_params"]["input"]:
        plain = types.EasyInputMessageParam
        message = types.ResponseOutputMessage if item.get("role") == "assistant" else plain
        pydantic.TypeAdapter(kinds.get(item["type"], message)).validate_python(item)
    for tool in row["responses_create_params"]["tools"]:
        pydantic.TypeAdapter(types.FunctionToolParam).validate_python(tool)
    (made,) = rows.rollout_rows(CANDIDATE, [Rollout("t@7", 0, [], [], [], True, "hi", 1.0, "ok")], 0)
    assert types.Response.model_validate(made["response"]).output_text == "hi"


@pytest.mark.parametrize(
    "path, value, says",
    [
        ("agent_ref", None, "agent_ref is missing"),
        ("agent_ref.name", "other", "agent_ref.name is 'other'"),
        ("agent_ref.type", "x", "agent_ref.type"),
        ("responses_create_params.metadata", None, "metadata is null"),
        ("responses_create_params.tool_choice", "required", "tool_choice"),
        ("responses_create_params.parallel_tool_calls", 1, "parallel_tool_calls"),
        ("responses_create_params.surprise", 1, "surprise is unknown"),
        ("responses_create_params.tools", None, "tools is missing"),
        ("responses_create_params.tools", [], "'get_order', which is not among"),
        ("responses_create_params.input", [], "input is not a non-empty list"),
        ("responses_create_params.input", [{"type": "reasoning", "summary": []}], "id is missing"),
        ("responses_create_params.input", [{"role": "tool", "content": ""}], "the role is 'tool'"),
        ("expected_action", {"type": "message", "content": None}, "content is not text"),
        ("expected_action", {"type": "note"}, "type is 'note'"),
        ("expected_action", {**TWO, "calls": TWO["calls"][:1]}, "fewer than two calls"),
        ("expected_action.arguments", {"id": 3}, "arguments is a dict"),
        ("expected_action.arguments", "{", "not a JSON object"),
        ("expected_action.name", "", "name is ''"),
    ],
)
def test_the_contract_names_what_is_wrong(path, value, says):
    row = json.loads(json.dumps(rows.row_of(CANDIDATE, PROFILE, AGENT)))
    *folders, last = path.split(".")
    inner = row
    for name in folders:
        inner = inner[name]
    inner[last] = value
    faults = contract.validate(row, AGENT)
    assert any(says in fault for fault in faults), faults


def test_released_rows_have_the_faults_they_are_known_for():
    faults = contract.validate({k: v for k, v in theirs().items() if k != "agent_ref"})
    assert any("agent_ref is missing" in f for f in faults) and any("metadata is null" in f for f in faults)


def test_the_yaml_defines_the_agents_that_rows_name():
    terminus = read_one(theirs(expected_action=None, expected_answer=TERMINUS, metadata={"harness": "x"}))
    harness = read_one(theirs(harness="codex", declared_tools=[TOOL]))
    search = read_one(theirs(agent_ref={"name": "search_pivot"}))
    agents = contract.agents_of([CANDIDATE, terminus, harness, search, CANDIDATE], "x")
    assert agents[0] == agents[4] and len(set(agents)) == 4
    config = yaml.safe_load(contract.yaml_config((a, f"{i}.jsonl") for i, a in enumerate(agents[:4])))
    assert len(config) == 8
    for i, agent in enumerate(agents[:4]):
        (block,) = config[agent.name]["responses_api_agents"].values()
        assert block["datasets"][0]["jsonl_fpath"] == f"{i}.jsonl"
        assert agent.server in config[block["resources_server"]["name"]]["resources_servers"]
    server = config[agents[3].server_name]["resources_servers"][agents[3].server]
    assert server[CONFIG] == {"word_count_similarity_threshold": 0.3}
    assert agents[3].name == "x_single_step_tool_use_with_argument_comparison_2_agent"


def test_rollouts_are_rows_with_responses():
    text = 'a plan</think>\n\n<tool_call>\n{"name": "get_order", "arguments": {"id": 3}}\n</tool_call>'
    rollouts = [
        Rollout("t@7", 0, [], [], [], True, text, 1.0, "ok"),
        Rollout("t@7", 1, [], [], [], False, "a</think>cut <tool_call>", 0.0, "malformed", "never closed"),
        Rollout("t@7", 2, [], [], [], True, "?", None, "abstained"),
    ]
    made = rows.rollout_rows(CANDIDATE, rollouts, 5, AGENT, thinking_open=True)
    assert [(r["_ng_task_index"], r["_ng_rollout_index"], r["reward"]) for r in made] == [
        (5, 0, 1.0),
        (5, 1, 0.0),
    ]
    assert [i["type"] for i in made[0]["response"]["output"]] == ["reasoning", "function_call"]
    assert made[1]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert "<tool_call>" in made[1]["response"]["output"][-1]["content"][0]["text"]
    placed = [("f:1", made[0]), ("f:2", made[1])]
    ((where, one),) = rows.gather(placed, rows.task_rewards(placed))
    candidate, profile = rows.record_of(one, where)
    assert profile.rewards == [1.0, 0.0] and profile.variance == 0.25
    assert candidate.demonstration["tool_calls"][0]["function"]["arguments"] == {"id": 3}


def test_a_rollout_of_a_chat_server_is_what_the_server_parsed_not_what_its_text_looks_like():
    call = {"type": "function", "function": {"name": "get_order", "arguments": '{"id": 3}'}}
    served = {"mode": "chat", "message": {"content": "so:", "tool_calls": [call]}}
    rollout = Rollout("t@7", 0, [], [], [], True, "shown in another way", 1.0, "ok", served=served)
    (made,) = rows.rollout_rows(CANDIDATE, [rollout], 0, AGENT, dialect="json")
    assert [i["type"] for i in made["response"]["output"]] == ["message", "function_call"]
    assert json.loads(made["response"]["output"][1]["arguments"]) == {"id": 3}


def of(*texts):
    return [Rollout("t@7", i, [], [], [], True, text, 1.0, "ok") for i, text in enumerate(texts)]


def test_where_the_run_does_not_say_each_completion_shows_whether_it_began_inside_thinking():
    call = '<tool_call>\n{"name": "get_order", "arguments": {"id": 3}}\n</tool_call>'
    texts = [f"a plan</think>\n\n{call}", call, f"<think>\na plan\n</think>\n\n{call}", "plain talk"]
    made = rows.rollout_rows(CANDIDATE, of(*texts), 0, AGENT, thinking_open=None)
    kinds = [[item["type"] for item in row["response"]["output"]] for row in made]
    thought, called = ["reasoning", "function_call"], ["function_call"]
    assert kinds == [thought, called, thought, ["message"]]


# ---- round trips


def there_and_back(candidate, profile):
    row = json.loads(json.dumps(rows.row_of(candidate, profile, AGENT), ensure_ascii=False))
    return row, rows.record_of(row, "rows.jsonl:1")


def test_a_row_of_theirs_comes_back_as_it_was():
    first = theirs(qwen_235b_info={"rewards": [0, 1], "reward_mean": 0.5}, pass_rate=0.5, uuid="u-1")
    candidate, profile = rows.record_of(first, "rows.jsonl:1")
    assert profile.rewards == [0.0, 1.0] and profile.policy == "nemo_gym:qwen_235b_info"
    assert profile.seed == -1
    row, again = there_and_back(candidate, profile)
    assert contract.validate(row, AGENT) == []
    for key in ("qwen_235b_info", "pass_rate", "uuid", "trajectory_id", "expected_action"):
        assert row[key] == first[key]
    assert to_json(again[0]) == to_json(candidate) and again[1] == profile


def test_without_a_decided_reward_no_pass_rate_is_claimed():
    """Of a candidate that was screened, or that the judge left undecided throughout."""
    undecided = dataclasses.replace(PROFILE, rewards=[], mean=0.0, variance=0.0, abstained=8)
    row, (_, profile) = there_and_back(CANDIDATE, undecided)
    assert "source_model_info" not in row and nemo_gym.pass_rate(row) is None and profile == undecided
    assert rows.record_of({k: v for k, v in row.items() if k != "pivotrl"}, "rows.jsonl:1")[1] is None
    assert nemo_gym.pass_rate({"source_model_info": {"rewards": [], "reward_mean": 0.0}}) is None
    row["source_model_info"] = {"rewards": [0.0, 1.0]}
    assert rows.record_of(row, "rows.jsonl:1")[1].rewards == [0.0, 1.0], "what was added later counts"


def test_what_somebody_changed_in_a_row_is_what_counts():
    row, (same, _) = there_and_back(CANDIDATE, PROFILE)
    assert same.verifier == "tool_call"
    row["expected_action"]["arguments"] = '{"id": 4}'
    changed, profile = rows.record_of(row, "rows.jsonl:1")
    assert changed.demonstration["tool_calls"][0]["function"]["arguments"] == {"id": 4}
    assert changed.verifier == "tool_call:nemo_gym" and profile.policy == "nemo_gym:source_model_info"


@pytest.mark.parametrize("name", reader_samples.SAMPLES)
def test_candidates_of_every_reader_go_out_clean_and_come_back(name, tmp_path):
    made, _ = reader_samples.read(tmp_path, reader_samples.SAMPLES[name][0])
    for candidate in extract.extract(made):
        row, (same, profile) = there_and_back(candidate, None)
        assert to_json(same) == to_json(candidate) and profile is None
        faults = [f for f in contract.validate(row) if "not among responses_create_params.tools" not in f]
        assert not faults  # some samples bring no docs of their tools


TEXT = st.text(max_size=12) | st.sampled_from(["a\n\nb", " ", "<think>\nx\n</think>\n\ny", "é\t", '{"a": 1}'])
NAMES = st.sampled_from(["f", "g.h", "get_order"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(TEXT, VALUES, max_size=3)


@st.composite
def turns(draw):
    """One assistant message, whole or odd: no text, thinking alone, several calls."""
    message = {"role": "assistant", "content": draw(TEXT | st.just(TERMINUS))}
    if draw(st.booleans()):
        message["reasoning_content"] = draw(TEXT)
    made = [
        {
            "id": draw(st.sampled_from(["call_0", "x", f"c{i}"])),
            "type": "function",
            "function": {"name": draw(NAMES), "arguments": draw(OBJECTS)},
        }
        for i in range(draw(st.integers(0, 3)))
    ]
    return {**message, "tool_calls": made} if made or draw(st.booleans()) else message


@st.composite
def histories(draw):
    messages = []
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["user", "system", "developer", "assistant", "assistant", "tool"]))
        if kind == "assistant":
            messages.append(draw(turns()))
            for made in messages[-1].get("tool_calls", []):
                if draw(st.booleans()):
                    result = {"role": "tool", "tool_call_id": made["id"], "content": draw(TEXT)}
                    result |= {"name": made["function"]["name"]} if draw(st.booleans()) else {}
                    messages.append(result | ({"error": True} if draw(st.booleans()) else {}))
        elif kind == "tool":  # an answer to nothing
            messages.append({"role": "tool", "content": draw(TEXT)})
        else:
            messages.append({"role": kind, "content": draw(TEXT)})
    return messages


@st.composite
def tool_lists(draw):
    docs = []
    for name in draw(st.lists(NAMES, max_size=3, unique=True)):
        doc = {"name": name, "description": draw(TEXT), "parameters": draw(OBJECTS), "strict": True}
        doc = {k: v for k, v in doc.items() if k == "name" or draw(st.booleans())}
        form = draw(st.sampled_from(["bare", "flat", "wrapped"]))
        docs.append(
            {"type": "function", "function": doc}
            if form == "wrapped"
            else {"type": "function", **doc}
            if form == "flat"
            else doc
        )
    return docs


CASES = [
    {},
    {"expected_answer": TERMINUS, "metadata": {"harness": "terminus_2"}, "threshold": 0.5},
    {"harness": "codex", "expected_action": theirs()["expected_action"]},
    {"nemo_gym": {"trajectory_id": 3, "pass_rate": 0.5, "meta_info": {"turn": 1}}},
    {"nemo_gym": {"responses_create_params": {"temperature": 0.7, "parallel_tool_calls": False}}},
]


@st.composite
def candidates(draw):
    verifier = draw(st.sampled_from(["tool_call", "tool_call:nemo_gym", "search", "swe", "terminal", "tau2"]))
    case = draw(OBJECTS) | draw(st.sampled_from(CASES))
    return Candidate(
        draw(TEXT),
        draw(TEXT),
        draw(st.integers(0, 9)),
        draw(histories()),
        draw(tool_lists()),
        draw(turns()),
        verifier,
        case,
        draw(TEXT),
    )


@st.composite
def profiles(draw, candidate):
    rewards = draw(st.lists(st.floats(0, 1), max_size=8))
    numbers = st.floats(0, 1)
    return Profile(
        *(candidate.id, rewards, draw(numbers), draw(numbers), candidate.is_call, draw(TEXT)),
        *("v/1", draw(st.floats(0, 2)), draw(st.integers(0, 2**40)), draw(st.integers(0, 3))),
    )


def round_trip(data):
    """(what goes there, what comes back), in writing: 0.0 is not -0.0, 1 is not 1.0."""
    candidate = data.draw(candidates())
    profile = data.draw(st.none() | profiles(candidate))
    _, (same, kept) = there_and_back(candidate, profile)
    assert kept == profile
    return (to_json(candidate), repr(profile)), (to_json(same), repr(kept))


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_candidate_to_row_and_back_loses_nothing(data):
    there, back = round_trip(data)
    assert there == back


@pytest.mark.slow
@settings(max_examples=2_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_candidate_to_row_and_back_loses_nothing_in_2000_cases(data):
    there, back = round_trip(data)
    assert there == back


# ---- the program


ROLLOUTS = "rollouts_nemo_gym.jsonl"


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "pivotrl_jax.exchange", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def workdir(tmp_path):
    folder = tmp_path / "run"
    write_records(folder / "pivots.jsonl", [Pivot(CANDIDATE, PROFILE)])
    faulty = Candidate("u@1", "u", 0, HISTORY[:2], [], CANDIDATE.demonstration, "tool_call", {}, "u")
    write_records(folder / "candidates.jsonl", [CANDIDATE, faulty])
    write_records(folder / "profiles.jsonl", [PROFILE])
    rollouts = [
        Rollout("t@7", i, [1], [0.0], [0.0], True, "hi", r, "") for i, r in enumerate([0, 1, 1, 0, None])
    ]
    write_records(folder / "rollouts" / "00000.jsonl", rollouts)
    return folder


def test_a_run_goes_out_and_comes_back(workdir, tmp_path):
    done = run("export", f"--workdir={workdir}", f"--out={tmp_path / 'out'}", "--name=mine")
    assert done.returncode == 0, done.stderr
    assert "1 rows in" in done.stdout and "4 rollouts in" in done.stdout
    (row,) = map(json.loads, (tmp_path / "out" / "pivots_nemo_gym.jsonl").open())
    config = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert row["agent_ref"]["name"] in config and row["agent_ref"]["name"].startswith("mine_")
    back = run("import", tmp_path / "out" / "pivots_nemo_gym.jsonl", f"--out={tmp_path / 'pivots.jsonl'}")
    assert back.returncode == 0, back.stderr
    assert (tmp_path / "pivots.jsonl").read_text() == (workdir / "pivots.jsonl").read_text()
    rolled = run(
        "import", tmp_path / "out" / "rollouts_nemo_gym.jsonl", f"--out={tmp_path / 'pivots2.jsonl'}"
    )
    assert rolled.returncode == 0, rolled.stderr
    assert read_records(tmp_path / "pivots2.jsonl", Pivot)[0].profile.rewards == [0.0, 1.0, 1.0, 0.0]


def test_completions_are_read_as_run_json_says(workdir, tmp_path):
    """One mentions </think> in a call; none began inside thinking."""
    call = '<tool_call>\n{"name": "get_order", "arguments": {"id": "</think>"}}\n</tool_call>'
    rewards = [0.0, 1.0, 1.0, 0.0]
    drawn = [
        Rollout("t@7", i, [1], [0.0], [0.0], True, call if i else "hi", r, "") for i, r in enumerate(rewards)
    ]
    write_records(workdir / "rollouts" / "00000.jsonl", drawn)
    (workdir / "run.json").write_text('{"chat": {"dialect": "hermes", "opens_thinking": false}}')
    done = run("export", f"--workdir={workdir}", f"--out={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    made = [json.loads(line)["response"]["output"] for line in (tmp_path / "out" / ROLLOUTS).open()]
    assert [[item["type"] for item in items] for items in made] == [["message"], *[["function_call"]] * 3]


def test_what_is_no_json_is_left_out_and_an_earlier_export_goes(workdir, tmp_path):
    """Into a folder under the user's home, with files of an earlier export and of somebody else."""
    infinite = {**TOOL, "parameters": {"type": "object", "properties": {"id": {"maximum": math.inf}}}}
    endless = dataclasses.replace(CANDIDATE, id="inf@7", tools=[infinite])
    write_records(workdir / "pivots.jsonl", [Pivot(CANDIDATE, PROFILE), Pivot(endless, PROFILE)])
    out = tmp_path / "out"
    out.mkdir()
    for name in ("pivots_nemo_gym_2.jsonl", "pivots_nemo_gym_mine.jsonl"):
        (out / name).write_text("{}\n")
    done = run("export", "--workdir=~/run", "--out=~/out", HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "1 rows in" in done.stdout and "inf@7: no JSON can be made of it" in done.stderr
    names = {"config.yaml", "pivots_nemo_gym.jsonl", "pivots_nemo_gym_mine.jsonl", ROLLOUTS}
    assert {file.name for file in out.iterdir()} == names


def test_a_faulty_row_is_named_and_left_out(workdir, tmp_path):
    done = run("export", f"--workdir={workdir}", f"--out={tmp_path / 'out'}", "--rows=candidates")
    assert done.returncode == 0 and "1 rows in" in done.stdout
    assert "u@1: expected_action calls 'get_order', which is not among" in done.stderr


def test_what_is_wrong_is_said(tmp_path):
    """All in one process: the program's flags have names that other programs' flags have too."""
    (tmp_path / "rows.jsonl").write_text(json.dumps(theirs()) + "\n{}\n", encoding="utf-8")
    cases = [
        ([], "want export or import"),
        (["import", "rows.jsonl", "--out=x.jsonl"], "give --kind"),
        (["import", "rows.jsonl", "--out=pivots.jsonl"], "none of the rows gives pivots"),
        (["import", "no.jsonl", "--out=pivots.jsonl"], "no.jsonl: no such file"),
        (["import", "--out=pivots.jsonl"], "no input"),
        (["import", "rows.jsonl"], "no output"),
        (["export", "--out=o", "--workdir=."], "pivots.jsonl: no such file"),
        (["export", "x", "--out=o", "--workdir=."], "and no file"),
        (
            ["export", "--out=gs://b/x", "--workdir=."],
            "--out is 'gs://b/x', and only paths of this machine's",
        ),
        (["export", "--rows=x", "--out=o"], "--rows"),
    ]
    code = (
        "import json, sys\nfrom pivotrl_jax import terminal\n"
        "from pivotrl_jax.exchange import convert as exchange\n"
        "for arguments in json.loads(sys.argv[1]):\n"
        "    exchange.flags.FLAGS.unparse_flags()\n"
        "    for f in exchange.OUT, exchange.WORKDIR, exchange.ROWS: exchange.flags.FLAGS[f.name].unparse()\n"
        "    sys.argv = ['exchange', *arguments]\n"
        "    try: terminal.run('exchange', exchange.run)\n"
        "    except SystemExit as e: print(e)\n"
    )
    listed = json.dumps([arguments for arguments, _ in cases])
    done = subprocess.run(
        [sys.executable, "-c", code, listed],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    said = done.stdout.splitlines()
    assert len(said) == len(cases), done.stdout + done.stderr
    for (_, says), line in zip(cases, said):
        assert line.startswith("exchange: ") and says in line


def test_a_history_that_their_items_cannot_hold_goes_along_as_it_is():
    """An empty message before a call is one turn with it in their items."""
    said = [HISTORY[0], HISTORY[1], {"role": "assistant", "content": ""}, CANDIDATE.demonstration, HISTORY[1]]
    said.append(CANDIDATE.demonstration)
    trajectory = Trajectory("e", said, [], "openai", "e", "tool_call", skip={2: "no_action", 3: "context"})
    (candidate,) = extract.extract([trajectory])
    row, (same, _) = there_and_back(candidate, None)
    assert row["pivotrl"]["messages"] == said[:5] and same.messages == candidate.messages
