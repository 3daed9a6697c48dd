"""Sessions of coding agents: Claude Code, Codex, OpenHands V1, mini-swe-agent."""

import json

import pytest
from support.reader_samples import call, only, read

from pivotrl_jax.records import InputError
from pivotrl_jax.trajectories import filters, reading


def lines(*values):
    return "\n".join(json.dumps(v) for v in values) + "\n"


def roles(trajectory):
    return [m["role"] for m in trajectory.messages]


# ---- Claude Code


def said(uuid, parent, content, **more):
    head = {"type": "user", "uuid": uuid, "parentUuid": parent, "sessionId": "s", "isSidechain": False}
    return {**head, "message": {"role": "user", "content": content}, **more}


def spoke(uuid, parent, id, *blocks, **more):
    message = {"id": id, "role": "assistant", "model": "c", "content": list(blocks)}
    return {**said(uuid, parent, ""), "type": "assistant", "message": message, **more}


def use(id, name="Bash", **given):
    return {"type": "tool_use", "id": id, "name": name, "input": given}


def result(id, content, **more):
    return {"type": "tool_result", "tool_use_id": id, "content": content, **more}


TEXT = {"type": "text", "text": "Look."}


def test_lines_of_one_message_are_one_turn(tmp_path):
    session = [
        {"type": "summary", "summary": "x", "leafUuid": "e"},
        {"type": "file-history-snapshot", "messageId": "a", "snapshot": {}},
        said("a", None, "fix"),
        spoke("b", "a", "m1", {"type": "thinking", "thinking": "hm", "signature": "x"}),
        spoke("c", "b", "m1", TEXT),
        spoke("d", "c", "m1", use("t1", command="ls")),
        said("e", "d", [result("t1", "a.py")]),
        spoke("f", "d", "m1", use("t2", command="pwd")),
        spoke("g", "d", "m1", use("t2", command="pwd")),  # told twice
        said("h", "f", [result("t2", [{"type": "text", "text": "/w"}], is_error=True)]),
        spoke("i", "h", "m2", {"type": "text", "text": "Done."}),
    ]
    t = only(tmp_path, lines(*session), name="x.jsonl")
    assert (t.id, t.scenario, t.verifier, t.tools) == ("s", "s", "swe", [])
    calls = [call("Bash", {"command": "ls"}, "t1"), call("Bash", {"command": "pwd"}, "t2")]
    assert t.messages == [
        {"role": "user", "content": "fix"},
        {"role": "assistant", "content": "Look.", "tool_calls": calls, "reasoning_content": "hm"},
        {"role": "tool", "content": "a.py", "tool_call_id": "t1", "name": "Bash"},
        {"role": "tool", "content": "/w", "tool_call_id": "t2", "name": "Bash", "error": True},
        {"role": "assistant", "content": "Done."},
    ]
    assert t.skip == {} and filters.skip_errors([t])[0].skip == {1: "call_error"}
    assert read(tmp_path, json.dumps(session), "x.json")[0][0].messages == t.messages


def test_meta_lines_and_local_commands_are_not_turns_of_the_user(tmp_path):
    session = [
        said("a", None, "Caveat: ...", isMeta=True),
        said("b", "a", "<command-name>/clear</command-name>"),
        said("c", "b", "<local-command-stdout></local-command-stdout>"),
        said("d", "c", "fix"),
        spoke("e", "d", "m1", TEXT),
        said("f", "e", "<command-message>init</command-message>\n<command-name>/init</command-name>"),
        said("g", "f", "Write a page about this folder.", isMeta=True),
        spoke("h", "g", "m2", use("t1", command="ls")),
    ]
    t = only(tmp_path, lines(*session), name="x.jsonl")
    contents = [m["content"] for m in t.messages if m["role"] == "user"]
    assert contents == ["fix", "Write a page about this folder."]  # the second is all that turn answers


def test_a_command_is_said_where_the_model_answers_nothing_else(tmp_path):
    name = "<command-name>/review</command-name>"
    both = [{"type": "text", "text": name}, {"type": "text", "text": "Review the change."}]
    for content, seen in ((name, name), (both, "Review the change.")):
        session = [said("a", None, content), spoke("b", "a", "m1", use("t1", command="git diff"))]
        t = only(tmp_path, lines(*session), name="x.jsonl")
        assert t.messages[0] == {"role": "user", "content": seen} and t.skip == {}


def test_a_sidechain_is_a_trajectory_of_its_own(tmp_path):
    def side(line):
        return {**line, "isSidechain": True}

    session = [
        said("a", None, "fix"),
        spoke("b", "a", "m1", use("t1", "Task", prompt="find")),
        side(said("c", None, "find")),
        side(said("p", None, "count")),
        side(spoke("d", "c", "n1", use("x1", "Grep", pattern="f"))),
        side(spoke("q", "p", "k1", {"type": "text", "text": "three"})),
        side(said("e", "d", [result("x1", "a.py:1")])),
        side(spoke("f", "e", "n2", {"type": "text", "text": "in a.py"})),
        said("g", "b", [result("t1", "in a.py")]),
        spoke("h", "g", "m2", {"type": "text", "text": "Done."}),
    ]
    (main, first, second), named = read(tmp_path, lines(*session), "x.jsonl")
    assert named == {} and [t.id for t in (main, first, second)] == ["s", "s~2", "s~3"]
    assert {t.scenario for t in (main, first, second)} == {"s"}
    assert roles(main) == ["user", "assistant", "tool", "assistant"]
    assert roles(first) == ["user", "assistant", "tool", "assistant"]
    assert [m["content"] for m in second.messages] == ["count", "three"]
    (alone,), _ = read(tmp_path, lines(*session[3:4], session[5]), "agent-1.jsonl")
    assert roles(alone) == ["user", "assistant"]


def test_after_a_compaction_the_model_sees_the_summary_alone(tmp_path):
    session = [
        said("a", None, "fix"),
        spoke("b", "a", "m1", TEXT),
        {"type": "system", "subtype": "compact_boundary", "uuid": "c", "parentUuid": None, "sessionId": "s"},
        said("d", "c", "This session is being continued ...", isCompactSummary=True),
        spoke("e", "d", "m2", use("t1", command="ls")),
    ]
    (before, after), named = read(tmp_path, lines(*session), "x.jsonl")
    assert named == {} and roles(before) == roles(after) == ["user", "assistant"]
    assert after.messages[0]["content"].startswith("This session")
    assert before.scenario == after.scenario


def test_a_branch_that_the_user_went_back_from_is_named(tmp_path):
    session = [
        said("a", None, "fix"),
        spoke("b", "a", "m1", use("t1", command="ls")),
        said("c", "b", [result("t1", "a.py")]),
        spoke("d", "c", "m2", {"type": "text", "text": "What now?"}),
        said("e", "d", "delete it"),
        spoke("f", "e", "m3", use("t2", command="rm a.py")),
        said("g", "f", [result("t2", "")]),
        said("h", "d", "read it"),  # the user went back to "What now?"
        spoke("i", "h", "m4", use("t3", command="cat a.py")),
        said("j", "i", [result("t3", "x = 1")]),
    ]
    (t,), named = read(tmp_path, lines(*session), "x.jsonl")
    assert [c["function"]["arguments"]["command"] for m in t.messages for c in m.get("tool_calls", ())] == [
        "ls",
        "cat a.py",
    ]
    assert list(named.values()) == [
        "a branch that the user went back from, with 1 of the model's lines; not read"
    ]
    (t,), named = read(
        tmp_path, lines(*session[1:]), "x.jsonl"
    )  # where lines are missing, nothing is dropped
    assert named == {} and len(t.messages) == 9


def test_what_the_client_says_in_the_models_place_is_context(tmp_path):
    session = [
        said("a", None, "fix"),
        spoke("b", "a", "m1", {"type": "text", "text": "API Error: 529"}, isApiErrorMessage=True),
        said("c", "b", "again"),
        spoke("d", "c", "m2", {"type": "text", "text": "Done."}),
    ]
    t = only(tmp_path, lines(*session), name="x.jsonl")
    assert t.skip == {1: "context"}


def test_stream_json_of_claude_code(tmp_path):
    def line(kind, message, parent=None):
        return {"type": kind, "message": message, "parent_tool_use_id": parent, "session_id": "s"}

    session = [
        {"type": "system", "subtype": "init", "session_id": "s", "tools": ["Bash", "Task"]},
        line("user", {"role": "user", "content": "fix"}),
        line("assistant", {"id": "m1", "role": "assistant", "content": [use("t1", "Task", prompt="find")]}),
        line("user", {"role": "user", "content": [{"type": "text", "text": "find"}]}, "t1"),
        line("assistant", {"id": "n1", "role": "assistant", "content": [TEXT]}, "t1"),
        line("user", {"role": "user", "content": [result("t1", "there")]}),
        line("assistant", {"id": "m2", "role": "assistant", "content": [{"type": "text", "text": "Done."}]}),
        {"type": "result", "subtype": "success", "result": "Done.", "session_id": "s"},
    ]
    (main, side), named = read(tmp_path, lines(*session), "x.jsonl")
    assert named == {} and roles(main) == ["user", "assistant", "tool", "assistant"]
    assert [m["content"] for m in side.messages] == ["find", "Look."]


def test_a_session_is_read_up_to_a_line_that_cannot_be_read(tmp_path):
    session = [said("a", None, "fix"), spoke("b", "a", "m1", TEXT)]
    (t,), named = read(tmp_path, lines(*session) + '{"type": "assis', "x.jsonl")
    assert roles(t) == ["user", "assistant"]
    ((where, why),) = named.items()
    assert where.endswith("x.jsonl:3") and why.endswith("the session is read up to here")


# ---- Codex


def item(**payload):
    return {"timestamp": "t", "type": "response_item", "payload": payload}


def message(role, text):
    return item(
        type="message",
        role=role,
        content=[{"type": "output_text" if role == "assistant" else "input_text", "text": text}],
    )


META = {
    "type": "session_meta",
    "payload": {
        "id": "s",
        "base_instructions": {"text": "You are Codex."},
        "dynamic_tools": [{"name": "lookup", "description": "d", "input_schema": {"type": "object"}}],
    },
}
SHELL = item(type="function_call", name="shell", arguments='{"command": ["ls"]}', call_id="c1")
OUT = item(type="function_call_output", call_id="c1", output="a.py")


def test_codex(tmp_path):
    t = only(
        tmp_path,
        lines(
            META,
            message("developer", "sandbox"),
            message("user", "fix"),
            {"type": "event_msg", "payload": {"type": "user_message", "message": "fix"}},
            {"type": "turn_context", "payload": {"model": "m"}},
            item(type="reasoning", summary=[{"type": "summary_text", "text": "look"}], encrypted_content="x"),
            message("assistant", "Looking."),
            SHELL,
            item(type="custom_tool_call", name="apply_patch", input="*** Begin Patch", call_id="c2"),
            OUT,
            item(type="custom_tool_call_output", call_id="c2", output="Success"),
            item(
                type="local_shell_call",
                call_id="c3",
                status="completed",
                action={"type": "exec", "command": ["pwd"], "timeout_ms": None},
            ),
            item(type="function_call_output", call_id="c3", output={"content": "/w", "success": True}),
            message("assistant", "Done."),
        ),
        name="x.jsonl",
    )
    assert (t.id, t.scenario, t.verifier, t.skip) == ("s", "s", "swe", {})
    assert t.tools == [{"name": "lookup", "description": "d", "parameters": {"type": "object"}}]
    assert t.messages == [
        {"role": "system", "content": "You are Codex."},
        {"role": "system", "content": "sandbox"},
        {"role": "user", "content": "fix"},
        {
            "role": "assistant",
            "content": "Looking.",
            "reasoning_content": "look",
            "tool_calls": [
                call("shell", {"command": ["ls"]}, "c1"),
                call("apply_patch", {"input": "*** Begin Patch"}, "c2"),
            ],
        },
        {"role": "tool", "content": "a.py", "tool_call_id": "c1", "name": "shell"},
        {"role": "tool", "content": "Success", "tool_call_id": "c2", "name": "apply_patch"},
        {"role": "assistant", "content": "", "tool_calls": [call("local_shell", {"command": ["pwd"]}, "c3")]},
        {"role": "tool", "content": "/w", "tool_call_id": "c3", "name": "local_shell"},
        {"role": "assistant", "content": "Done."},
    ]


def test_the_old_layouts_of_codex(tmp_path):
    items = [x["payload"] for x in (message("user", "fix"), SHELL, OUT, message("assistant", "Done."))]
    header = {"id": "s", "timestamp": "t", "instructions": None, "git": {}}
    state = {"record_type": "state"}
    rows = only(tmp_path, lines(header, state, *items), name="x.jsonl")
    assert rows.id == "s" and roles(rows) == ["user", "assistant", "tool", "assistant"]
    whole = only(tmp_path, {"session": header, "items": items}, name="x.json")
    assert whole.messages == rows.messages and whole.id == "s"


@pytest.mark.parametrize(
    "compaction, history",
    [
        ({"message": "So far: a.py."}, ["fix", "So far: a.py."]),
        (
            {"message": "", "replacement_history": [message("user", "Summary: a.py.")["payload"]]},
            ["Summary: a.py."],
        ),
    ],
)
def test_a_compacted_codex_session_goes_on_with_what_the_model_saw(tmp_path, compaction, history):
    compacted = {"type": "compacted", "payload": compaction}
    session = [META, message("user", "fix"), SHELL, OUT, compacted, message("assistant", "Done.")]
    (before, after), named = read(tmp_path, lines(*session), "x.jsonl")
    assert named == {} and roles(before) == ["system", "user", "assistant", "tool"]
    assert [m["content"] for m in after.messages] == ["You are Codex.", *history, "Done."]


def test_turns_that_were_rolled_back_are_not_history(tmp_path):
    back = {"type": "event_msg", "payload": {"type": "thread_rolled_back", "num_turns": 1}}
    session = [message("user", "fix"), SHELL, OUT, message("user", "rm"), message("assistant", "No."), back]
    t = only(
        tmp_path, lines(META, *session, message("user", "go"), message("assistant", "Done.")), name="x.jsonl"
    )
    assert [m["content"] for m in t.messages if m["role"] == "user"] == ["fix", "go"]


def test_after_a_search_of_the_api_nothing_is_demonstrated(tmp_path):
    search = item(type="web_search_call", status="completed", action={"type": "search", "query": "x"})
    session = [META, message("user", "fix"), SHELL, OUT, search, message("assistant", "Done.")]
    t = only(tmp_path, lines(*session), name="x.jsonl")
    assert t.skip == {4: "not_text"}


# ---- OpenHands V1


def event(kind, **fields):
    return {"id": fields.pop("id", "x"), "source": fields.pop("source", "agent"), "kind": kind, **fields}


def act(id, call_id, response, name="terminal", arguments='{"command": "ls"}', **more):
    made = {"id": call_id, "name": name, "arguments": arguments}
    fields = {"thought": [], "tool_name": name, "tool_call_id": call_id, "tool_call": made}
    return event("ActionEvent", id=id, llm_response_id=response, **{**fields, **more})


def saw(call_id, text, **more):
    seen = {"content": [{"type": "text", "text": text}], "is_error": False, **more}
    return event("ObservationEvent", id=f"o{call_id}", tool_call_id=call_id, observation=seen)


def says(role, text, **more):
    content = [{"type": "text", "text": text}]
    return event("MessageEvent", id=f"m{text}", llm_message={"role": role, "content": content}, **more)


EVENTS = [
    event("ConversationStateUpdateEvent", key="stats", value={}),
    event(
        "SystemPromptEvent",
        system_prompt={"type": "text", "text": "sys"},
        dynamic_context={"type": "text", "text": "repo"},
        tools=[{"title": "terminal", "description": "d", "kind": "TerminalTool"}],
    ),
    says("user", "fix", source="user"),
    act("1", "c1", "r1", thought=[{"type": "text", "text": "Both."}], reasoning_content="hm"),
    act("2", "c2", "r1"),
    saw("c1", "a.py"),
    saw("c2", "no such tool", is_error=True),
    act("3", "c3", "r2", arguments="{"),
    event("AgentErrorEvent", tool_call_id="c3", tool_name="terminal", error="Bad JSON"),
    act("4", "c4", "r3", action=None),
    event("UserRejectObservation", tool_call_id="c4", rejection_reason="no"),
    says("assistant", "Done."),
]


def test_openhands_v1(tmp_path):
    t = only(tmp_path, lines(*EVENTS), name="x.jsonl")
    assert t.messages[:2] == [{"role": "system", "content": "sys\nrepo"}, {"role": "user", "content": "fix"}]
    assert t.messages[2] == {
        "role": "assistant",
        "content": "Both.",
        "reasoning_content": "hm",
        "tool_calls": [call("terminal", {"command": "ls"}, "c1"), call("terminal", {"command": "ls"}, "c2")],
    }
    assert roles(t)[3:] == ["tool", "tool", "assistant", "tool", "assistant", "tool", "assistant"]
    assert "error" not in t.messages[3] and t.messages[4]["error"] is True
    assert t.messages[8]["content"] == "Action rejected: no" and t.messages[8]["error"] is True
    assert t.skip == {5: "unparseable_call"} and t.verifier == "swe"
    assert t.tools == [{"name": "terminal", "description": "d", "parameters": {}}]
    row = {"instance_id": "a__b-1", "history": EVENTS, "test_result": {"report": {"resolved": True}}}
    r = only(tmp_path, row, name="output.jsonl")
    assert (r.id, r.scenario, r.reward, r.messages) == ("a__b-1", "a__b-1", 1.0, t.messages)


def test_a_conversation_that_the_sdk_wrote_as_a_folder(tmp_path):
    folder = tmp_path / "runs" / "conversation-1"
    (folder / "events").mkdir(parents=True)
    (folder / "base_state.json").write_text("{}", encoding="utf-8")
    for i, one in enumerate(EVENTS):
        (folder / "events" / f"event-{i:05}-abc.json").write_text(json.dumps(one), encoding="utf-8")
    for path in (tmp_path, folder):
        (t,), named = reading.read(path)
        assert named == {} and t.id == "conversation-1" and len(t.messages) == 10
    (folder / "events" / "event-00007-abc.json").write_text("{", encoding="utf-8")
    (t,), named = reading.read(tmp_path)
    assert len(t.messages) == 5 and "read up to here" in next(iter(named.values()))


def test_after_a_condensation_the_model_sees_the_summary(tmp_path):
    condensed = event("Condensation", forgotten_event_ids=["2", "oc2"], summary="So far.", summary_offset=2)
    session = [
        says("user", "fix", source="user"),
        act("1", "c1", "r1"),
        saw("c1", "a.py"),
        act("2", "c2", "r2"),
        saw("c2", "b.py"),
        condensed,
        act("3", "c3", "r3"),
    ]
    (before, after), named = read(tmp_path, lines(*session), "x.jsonl")
    assert named == {} and before.scenario == after.scenario == "x"
    assert roles(before) == ["user", "assistant", "tool", "assistant", "tool"]
    assert [m["content"] for m in after.messages if m["role"] == "user"][:2] == ["fix", "So far."]
    assert after.skip == {1: "context"} and roles(after)[-1] == "assistant"


def test_an_image_leaves_out_what_follows(tmp_path):
    image = saw("c1", "ok")
    image["observation"]["content"].append({"type": "image", "image_urls": ["data:..."]})
    session = [says("user", "fix", source="user"), act("1", "c1", "r1"), image, says("assistant", "Done.")]
    assert only(tmp_path, lines(*session), name="x.jsonl").skip == {3: "not_text"}


# ---- mini-swe-agent


def mini(*messages):
    head = [{"role": "system", "content": "s"}, {"role": "user", "content": "fix"}]
    return {
        "info": {"mini_version": "2.1"},
        "trajectory_format": "mini-swe-agent-1.1",
        "messages": [*head, *messages],
    }


def answer(content, *commands):
    return {"role": "assistant", "content": content, "extra": {"actions": [{"command": c} for c in commands]}}


@pytest.mark.parametrize(
    "message, command, content",
    [
        (answer("Look.\n<mswea_bash_command>ls -la</mswea_bash_command>", "ls -la"), "ls -la", "Look."),
        (answer("Look.\n<mswea_bash_command>\nls\n</mswea_bash_command>"), "ls", "Look."),
        (
            answer("A ```bash fence.\n<mswea_bash_command>cat <<'E'\n`x`\nE\n</mswea_bash_command>"),
            "cat <<'E'\n`x`\nE",
            "A ```bash fence.",
        ),
        (answer("Run @@ls@@", "ls"), "ls", "Run @@ls@@"),
        (answer("<mswea_bash_command>a</mswea_bash_command> or ```bash\nb\n```"), None, None),
        (answer("<mswea_bash_command>ls"), None, None),
        (answer("Nothing."), None, None),
    ],
)
def test_the_command_of_a_text(tmp_path, message, command, content):
    t = only(tmp_path, mini(message, {"role": "user", "content": "ok"}), name="x.traj.json")
    if command is None:
        assert t.skip == {2: "unparseable_call"} and "tool_calls" not in t.messages[2]
    else:
        assert t.skip == {} and t.messages[2]["content"] == content
        assert [c["function"]["arguments"] for c in t.messages[2]["tool_calls"]] == [{"command": command}]
        assert t.messages[3]["role"] == "tool"


def test_responses_of_mini_swe_agent(tmp_path):
    response = {
        "object": "response",
        "output": [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "message", "content": [{"type": "output_text", "text": "Look."}]},
            {"type": "function_call", "call_id": "c1", "name": "bash", "arguments": '{"command": "ls"}'},
        ],
    }
    out = {
        "type": "function_call_output",
        "call_id": "c1",
        "output": "<returncode>0</returncode>",
        "extra": {},
    }
    again = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Format error"}]}
    t = only(
        tmp_path, mini(response, out, again, {**response, "output": response["output"][1:2]}), name="x.json"
    )
    made = [call("bash", {"command": "ls"}, "c1")]
    assert t.messages[2] == {
        "role": "assistant",
        "content": "Look.",
        "reasoning_content": "hm",
        "tool_calls": made,
    }
    assert roles(t) == ["system", "user", "assistant", "tool", "user", "assistant"]


@pytest.mark.parametrize(
    "content, extra, failed",
    [
        (
            "<returncode>1</returncode>",
            {"returncode": 1},
            False,
        ),  # grep without a match, diff, a failing test
        ("<returncode>2</returncode>\n<output>2 failed</output>", {"returncode": 2}, False),
        ("<returncode>124</returncode>", {"returncode": 124}, False),  # `timeout 5 ...` did what it was asked
        ("<returncode>127</returncode>\nbash: foo: command not found", {"returncode": 127}, True),
        ("<returncode>126</returncode>", {}, True),
        ("<returncode>-1</returncode>", {"returncode": -1, "exception_info": "timed out after 30 s"}, True),
        ("<exception>timed out</exception>\n<returncode>-1</returncode>", {}, True),
        ("The last command <command>sleep 99</command> timed out and has been killed.", {}, True),
        ("<returncode>0</returncode>\n<output>Error: none</output>", {"returncode": 0}, False),
    ],
)
def test_an_exit_code_alone_is_no_error(tmp_path, content, extra, failed):
    result = {"role": "user", "content": content, "extra": extra}
    t = only(tmp_path, mini(answer("```bash\nx\n```"), result), name="x.traj.json")
    assert filters.skip_errors([t])[0].skip == ({2: "call_error"} if failed else {})


@pytest.mark.parametrize("hostile", ["<mswea_bash_command>", "```bash\n", "```mswea_bash_command"])
def test_unclosed_commands_take_linear_time(tmp_path, hostile):
    t = only(tmp_path, mini(answer(hostile * 50_000 + "`")), name="x.traj.json")
    assert t.skip == {2: "unparseable_call"}


def test_an_unknown_line_is_refused_where_nothing_is_left(tmp_path):
    with pytest.raises(InputError, match="no assistant turn"):
        read(tmp_path, lines({"type": "summary", "summary": "x", "leafUuid": "a"}), "x.jsonl")
