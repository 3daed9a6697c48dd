"""Formats of APIs and evaluations: Anthropic, LangChain, Inspect, tau2's folder, SWE-agent's histories."""

import copy
import json
import random
import zipfile

import pytest
from support.reader_samples import TAU2, call, only, read

from pivotrl_jax.records import InputError
from pivotrl_jax.trajectories import filters, reading

USER = {"role": "user", "content": "list"}
USE = {"type": "tool_use", "id": "t1", "name": "ls", "input": {"path": "."}}
LS = call("ls", {"path": "."}, "t1")


def assistant(*blocks):
    return {"role": "assistant", "content": list(blocks)}


def result(content, **more):
    return {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": "t1", "content": content, **more}],
    }


# ---- Anthropic


def test_anthropic(tmp_path):
    row = {
        "id": "r",
        "task_id": 7,
        "resolved": True,
        "system": [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Use tools."}],
        "messages": [
            USER,
            assistant(
                {"type": "redacted_thinking", "data": "x"},
                {"type": "thinking", "thinking": "hm", "signature": "x"},
                {"type": "text", "text": "Look."},
                USE,
            ),
            {
                "role": "user",
                "content": [*result("no", is_error=True)["content"], {"type": "text", "text": "?"}],
            },
            assistant({"type": "text", "text": "Sorry."}),
        ],
        "tools": [
            {"name": "ls", "description": "d", "input_schema": {"type": "object"}},
            {"type": "web_search_20250305", "name": "web_search"},
        ],
    }
    t = only(tmp_path, row)
    assert (t.id, t.scenario, t.reward, t.verifier, t.skip) == ("r", "7", 1.0, "tool_call", {})
    assert t.messages == [
        {"role": "system", "content": "Be brief.\n\nUse tools."},
        USER,
        {"role": "assistant", "content": "Look.", "tool_calls": [LS], "reasoning_content": "hm"},
        {"role": "tool", "content": "no", "tool_call_id": "t1", "name": "ls", "error": True},
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "Sorry."},
    ]
    assert t.tools == [{"name": "ls", "description": "d", "parameters": {"type": "object"}}]
    assert filters.skip_errors([t])[0].skip == {2: "call_error"}
    assert only(tmp_path, {**row, "system": "Be brief."}, name="s.json").messages[0]["content"] == "Be brief."


@pytest.mark.parametrize(
    "log",
    [
        {"request": {"messages": [USER]}, "response": assistant(USE)},
        {"request_body": {"messages": [USER], "tools": []}, "response_body": assistant(USE)},
        {"messages": [USER], "response": {**assistant(USE), "type": "message", "stop_reason": "tool_use"}},
        {"request": {"messages": [USER]}, "response": {"status": 200, "body": assistant(USE)}},
        {
            "request": {"body": json.dumps({"messages": [USER]})},
            "response": {"body": json.dumps(assistant(USE))},
        },
    ],
)
def test_the_response_of_a_log_is_the_last_turn(tmp_path, log):
    t = only(tmp_path, log)
    assert t.messages == [USER, {"role": "assistant", "content": "", "tool_calls": [LS]}]


@pytest.mark.parametrize(
    "blocks, skip",
    [
        ([{"type": "image", "source": {}}], {3: "not_text"}),
        ([{"type": "text", "text": "a"}], {}),
    ],
)
def test_an_image_leaves_out_the_turns_after_it(tmp_path, blocks, skip):
    row = {"messages": [USER, assistant(USE), result(blocks), assistant({"type": "text", "text": "Done."})]}
    assert only(tmp_path, row).skip == skip


def test_what_the_api_runs_itself_is_not_demonstrated(tmp_path):
    search = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}}
    found = {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}
    row = {
        "messages": [
            USER,
            assistant(USE),
            result("a"),
            assistant(search, found, {"type": "text", "text": "x"}),
        ]
    }
    t = only(tmp_path, row)
    assert t.skip == {3: "not_text"} and t.messages[1]["tool_calls"] == [LS]


@pytest.mark.parametrize("name", [None, "", 3])
def test_a_call_without_a_name_costs_its_turn(tmp_path, name):
    row = {"messages": [USER, assistant(USE), result("a"), assistant({**USE, "name": name})]}
    assert only(tmp_path, row).skip == {3: "unparseable_call"}


def test_a_result_without_its_call_costs_the_turn_before_it(tmp_path):
    row = {"messages": [USER, assistant({"type": "text", "text": "Look."}), result("a"), assistant(USE)]}
    t = only(tmp_path, row)
    assert t.skip == {1: "unparseable_call"} and t.messages[2] == {"role": "user", "content": "a"}


@pytest.mark.parametrize(
    "row, format",
    [
        ({"system": [{"type": "text", "text": "s"}]}, "anthropic"),
        ({"system": "s", "model": "claude-x"}, "openai_chat"),  # a column that says who wrote the row
        ({"tools": [{"name": "ls", "input_schema": {}}]}, "anthropic"),
        *(
            ({"tools": [{"name": "ls", "input_schema": {}}], "messages": [USER, more]}, "openai_chat")
            for more in (
                {"role": "assistant", "content": "x", "weight": 1},
                {"role": "assistant", "content": "x", "function_call": {"name": "ls", "arguments": "{}"}},
                {"role": "tool_call", "content": "{}"},
            )
        ),
        ({"system": ["s"], "messages": [USER], "completion": "x"}, "openai_chat"),
        (
            {"messages": [USER, assistant({"type": "thinking", "thinking": "x", "signature": "y"})]},
            "anthropic",
        ),
        ({"messages": [USER, assistant({"type": "thinking", "thinking": "x"})]}, "openai_chat"),
        ({"messages": [USER, assistant({"type": "text", "text": "x"})]}, "openai_chat"),
        ({"system": "s"}, "openai_chat"),
        ({"messages": [USER, {**assistant(USE), "tool_calls": [{"id": "t1"}]}]}, "openai_chat"),
    ],
)
def test_rows_of_anthropic_and_rows_of_openai(tmp_path, row, format):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"messages": [USER, {"role": "assistant", "content": "x"}], **row}))
    assert reading.recognise(path) == format


# ---- LangChain


def human(text):
    return {"type": "human", "data": {"content": text}}


def ai(**data):
    return {"type": "ai", "data": {"content": "", **data}}


CALLS = [{"name": "ls", "args": {"path": "."}, "id": "t1", "type": "tool_call"}]
OPENAI_CALLS = [{"id": "t1", "type": "function", "function": {"name": "ls", "arguments": '{"path": "."}'}}]


@pytest.mark.parametrize(
    "message",
    [
        ai(tool_calls=CALLS),
        {"type": "AIMessageChunk", "content": "", "tool_calls": CALLS},
        {
            "lc": 1,
            "type": "constructor",
            "id": ["x", "AIMessage"],
            "kwargs": {"content": "", "tool_calls": CALLS},
        },
        ai(additional_kwargs={"tool_calls": OPENAI_CALLS}),
        ai(content=[USE]),
        ai(content=[USE], tool_calls=CALLS),
        {"role": "assistant", "content": None, "tool_calls": OPENAI_CALLS},
    ],
)
def test_the_call_of_a_langchain_message_in_every_form(tmp_path, message):
    answer = {"type": "tool", "data": {"content": "a", "tool_call_id": "t1", "status": "error"}}
    t = only(tmp_path, [human("list"), message, answer])
    assert t.messages == [
        USER,
        {"role": "assistant", "content": "", "tool_calls": [LS]},
        {"role": "tool", "content": "a", "tool_call_id": "t1", "name": "ls", "error": True},
    ]


def test_langchain_calls_that_are_legacy_or_invalid(tmp_path):
    legacy = ai(additional_kwargs={"function_call": {"name": "ls", "arguments": '{"path": "."}'}})
    t = only(tmp_path, [human("list"), legacy])
    assert t.messages[1]["tool_calls"] == [{**LS, "id": "call_0"}]
    invalid = ai(content="Look.", invalid_tool_calls=[{"name": "ls", "args": "{", "id": "t1", "error": "x"}])
    assert only(tmp_path, [human("list"), invalid], name="i.json").skip == {1: "unparseable_call"}


RUN_IN = [[{"type": "system", "content": "s"}, {"type": "human", "content": "list"}]]
RUN_OUT = {"type": "ai", "content": "", "tool_calls": CALLS}


@pytest.mark.parametrize(
    "run",
    [
        {"inputs": {"messages": RUN_IN}, "outputs": {"generations": [[{"text": "", "message": RUN_OUT}]]}},
        {"inputs": {"messages": RUN_IN[0]}, "outputs": {"messages": [*RUN_IN[0], RUN_OUT]}},
        {"inputs": {"messages": RUN_IN[0]}, "outputs": {"output": RUN_OUT}},
        {
            "inputs": {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "list"}]},
            "outputs": {"choices": [{"message": {"role": "assistant", "tool_calls": OPENAI_CALLS}}]},
        },
    ],
)
def test_the_answer_of_a_run_is_the_last_turn(tmp_path, run):
    tools = [{"type": "function", "function": {"name": "ls", "parameters": {}}}]
    row = {"id": "r", "trace_id": "x", "extra": {"invocation_params": {"tools": tools}}, **run}
    t = only(tmp_path, row)
    assert [m["role"] for m in t.messages] == ["system", "user", "assistant"]
    assert t.messages[2]["tool_calls"] == [LS] and (t.id, t.scenario) == ("r", "x")
    assert [d["name"] for d in t.tools] == ["ls"]


# ---- Inspect

KEY = "0123456789abcdef0123456789abcdef"
SAMPLE = {
    "id": 1,
    "epoch": 1,
    "messages": [
        {"role": "system", "content": f"attachment://{KEY}"},
        {"role": "user", "content": "list", "source": "input"},
        {"role": "assistant", "content": "An example.", "source": "input"},
        {"role": "user", "content": "now"},
        {
            "role": "assistant",
            "content": [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "Look."}],
            "tool_calls": [
                {
                    "id": "c1",
                    "function": "ls",
                    "arguments": {"path": f"attachment://{KEY}"},
                    "type": "function",
                },
                {"id": "c2", "function": "ls", "arguments": {}, "type": "function"},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "function": "ls", "content": "a"},
        {
            "role": "tool",
            "tool_call_id": "c2",
            "content": "",
            "error": {"type": "file_not_found", "message": "no such file"},
        },
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "c3", "function": "ls", "arguments": {}, "parse_error": "not JSON"}],
        },
    ],
    "attachments": {KEY: "the text"},
    "scores": {"match": {"value": "C"}},
    "events": [
        {"event": "model", "tools": [{"name": "ls", "description": "d", "parameters": {"type": "object"}}]}
    ],
}


def log(*samples):
    return {"version": 2, "status": "success", "eval": {"task": "t"}, "samples": list(samples)}


def test_inspect_logs(tmp_path):
    (t, again), named = read(tmp_path, log(SAMPLE, {**SAMPLE, "epoch": 2, "scores": {"m": {"value": "I"}}}))
    assert named == {} and (t.id, again.id) == ("t:1:1", "t:1:2")
    assert t.scenario == again.scenario == "t:1" and (t.reward, again.reward) == (1.0, 0.0)
    assert t.messages[0] == {"role": "system", "content": "the text"}
    assert t.messages[4] == {
        "role": "assistant",
        "content": "Look.",
        "reasoning_content": "hm",
        "tool_calls": [call("ls", {"path": "the text"}, "c1"), call("ls", {}, "c2")],
    }
    assert t.messages[6]["content"] == "no such file" and t.messages[6]["error"] is True
    assert t.skip == {2: "context", 7: "unparseable_call"}
    assert t.tools == [{"name": "ls", "description": "d", "parameters": {"type": "object"}}]


@pytest.mark.parametrize(
    "scores, reward",
    [
        ({"a": {"value": "P"}}, 0.5),
        ({"a": {"value": "N"}}, 0.0),
        ({"a": {"value": 0.25}}, 0.25),
        ({"a": {"value": True}}, 1.0),
        ({"a": {"value": "0.5"}}, 0.5),
        ({"a": {"value": "Yes"}}, 1.0),
        ({"a": {"value": "nan"}}, None),
        ({"a": {"value": "good"}}, None),
        ({"a": {"value": {"x": 1}}, "b": {"value": "I"}}, 0.0),
        ({}, None),
        (None, None),
    ],
)
def test_the_reward_is_the_first_score(tmp_path, scores, reward):
    assert only(tmp_path, log({**SAMPLE, "scores": scores})).reward == reward


def archive(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as z:
        for name, text in members.items():
            z.writestr(name, text if isinstance(text, (str, bytes)) else json.dumps(text))
    return path


def test_eval_archives(tmp_path):
    path = archive(
        tmp_path / "x.eval",
        {
            "_journal/start.json": {"eval": {"task": "started"}},
            "samples/1_epoch_1.json": SAMPLE,
            "samples/1_epoch_2.json": {**SAMPLE, "epoch": 2},
            "samples/2_epoch_1.json": "{",
            "summaries.json": [],
            "header.json": {"eval": {"task": "t"}},
        },
    )
    assert reading.recognise(path) == "inspect_log"
    for source in (path, tmp_path):
        made, named = reading.read(source)
        assert [t.id for t in made] == ["t:1:1", "t:1:2"]
        assert list(named) == [f"{path}:3"] and "samples/2_epoch_1.json" in named[f"{path}:3"]
    assert made[0].messages == only(tmp_path / "j", log(SAMPLE)).messages


def test_archives_that_cannot_be_read_are_named(tmp_path, monkeypatch):
    from pivotrl_jax.trajectories.readers import inspect_log

    (tmp_path / "a.eval").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(InputError, match=r"a.eval: no readable .eval archive"):
        reading.read(tmp_path / "a.eval")
    path = archive(tmp_path / "b.eval", {"samples/1_epoch_1.json": {**SAMPLE, "pad": "0" * 100_000}})
    monkeypatch.setattr(inspect_log, "MAX_MEMBER", 50_000)
    with pytest.raises(InputError, match="larger than"):
        reading.read(path)
    raw = bytearray(archive(tmp_path / "c.eval", {"samples/1_epoch_1.json": SAMPLE}).read_bytes())
    raw[60:80] = b"\xff" * 20
    (tmp_path / "c.eval").write_bytes(raw)
    with pytest.raises(InputError, match=r"cannot be unpacked|no readable"):
        reading.read(tmp_path / "c.eval")
    rng = random.Random(0)
    whole = archive(tmp_path / "e.eval", {"samples/1_epoch_1.json": SAMPLE}).read_bytes()
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 5)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        (tmp_path / "e.eval").write_bytes(damaged)
        try:
            reading.read(tmp_path / "e.eval")
        except InputError as e:
            assert "e.eval" in str(e)
    for end in range(0, len(raw), 31):
        (tmp_path / "d.eval").write_bytes(raw[:end])
        with pytest.raises(InputError, match=r"d.eval"):
            reading.read(tmp_path / "d.eval")


def test_attachments_cannot_blow_up_a_sample(tmp_path):
    many = {**SAMPLE, "attachments": {KEY: "x" * 1_000_000}}
    many["messages"] = [{"role": "user", "content": f"attachment://{KEY} " * 100}, *SAMPLE["messages"]]
    with pytest.raises(InputError, match="with its attachments"):
        read(tmp_path, log(many))


# ---- tau2-bench's folder


def tau2_folder(folder, document):
    simulations = folder / "simulations"
    simulations.mkdir(parents=True)
    meta = {k: v for k, v in document.items() if k != "simulations"}
    index = [{"id": f"{s['id']}{i}"} for i, s in enumerate(document["simulations"])]
    (folder / "results.json").write_text(json.dumps({**meta, "simulation_index": index}), encoding="utf-8")
    for i, one in enumerate(document["simulations"]):
        (simulations / f"s{i}.json").write_text(json.dumps({**one, "id": f"s{i}"}), encoding="utf-8")


def test_a_folder_of_tau2_reads_as_its_one_file(tmp_path):
    whole, _ = read(tmp_path, TAU2, "whole/run.json")
    run = tmp_path / "parts" / "run"
    tau2_folder(run, copy.deepcopy(TAU2))
    for path in (tmp_path / "parts", run, run / "results.json", run / "simulations"):
        made, named = reading.read(path)
        assert named == {}
        assert [(t.id, t.messages, t.scenario, t.reward, t.cases, t.tools) for t in made] == [
            (t.id, t.messages, t.scenario, t.reward, t.cases, t.tools) for t in whole
        ]
    (run / "simulations" / "s0.json").unlink()
    (run / "simulations" / "s1.json").write_text("{", encoding="utf-8")
    (run / "simulations" / "s2.json").write_text(json.dumps(TAU2["simulations"][0]), encoding="utf-8")
    made, named = reading.read(run)
    assert [t.id for t in made] == ["run:7:0"]
    assert {where.rpartition("/")[2]: "not valid JSON" in why for where, why in named.items()} == {
        "s0.json": False,
        "s1.json": True,
    }


# ---- SWE-agent


def test_a_history_is_enough_for_swe_agent(tmp_path):
    history = [{"role": "user", "content": "fix"}, {"role": "assistant", "content": "Look.\n```\nls\n```"}]
    t = only(tmp_path, {"history": history, "info": {"resolved": True}}, name="a__b-1.traj")
    assert (t.source, t.id, t.reward) == ("swe_agent", "a__b-1", 1.0)
    assert t.messages[1]["tool_calls"] == [call("bash", {"command": "ls"}, "call_0")]


def test_rows_of_nebius_swe_agent_set(tmp_path):
    row = {
        "instance_id": "a__b-1",
        "target": False,
        "trajectory": [
            {"role": "system", "system_prompt": "SETTING: ...", "text": "", "mask": False},
            {"role": "user", "text": "fix"},
            {"role": "ai", "text": "Look.\n```\nls\n```"},
            {"role": "user", "text": "a.py"},
        ],
    }
    t = only(tmp_path, row)
    assert (t.source, t.scenario, t.reward) == ("swe_agent", "a__b-1", 0.0)
    assert [m["role"] for m in t.messages] == ["system", "user", "assistant", "tool"]
    assert t.messages[0]["content"] == "SETTING: ..." and t.skip == {}
