"""Chat rows in every public form: calls are calls, nothing falls silently, one odd call costs one turn."""

import json
import random

import pytest
from support.fuzzing import cases
from support.written_calls import FORMS, TAGGED, random_calls, schemas_for

from pivotrl_jax.chat.actions import message_to_action
from pivotrl_jax.records import Call, InputError
from pivotrl_jax.trajectories import reading
from pivotrl_jax.trajectories.readers import openai_chat

CASES = cases(60)  # random rows per form; 100,000 were run by hand

TOOL = {
    "name": "find_flight",
    "description": "Flights to a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "day": {"type": "integer"}},
        "required": ["city"],
    },
}
ASK = {"role": "user", "content": "Fly me to Rome on day 3."}
FLIGHT = Call("find_flight", {"city": "Rome", "day": 3})
HERMES = '<tool_call>\n{"name": "find_flight", "arguments": {"city": "Rome", "day": 3}}\n</tool_call>'


def read(row) -> openai_chat.Trajectory:
    return openai_chat.trajectory(row, "rows.jsonl:1")


def said(content, **more):
    return {"role": "assistant", "content": content, **more}


def calls_of(trajectory):
    return [message_to_action(m).calls for m in trajectory.messages if m["role"] == "assistant"]


# ---- calls written in the text

WRITTEN = {
    "hermes": (f"<think>\nfly\n</think>\n\n{HERMES}", "<tool_response>\n7\n</tool_response>"),
    "hermes in Python's form": (
        "<tool_call>\n{'name': 'find_flight', 'arguments': {'city': 'Rome', 'day': 3}}\n</tool_call>",
        "<tool_response>\n7\n</tool_response>",
    ),
    "hermes with text as arguments": (
        '<tool_call>{"name": "find_flight", '
        '"arguments": "{\\"city\\": \\"Rome\\", \\"day\\": 3}"}</tool_call>',
        "<tool_response>\n7\n</tool_response>",
    ),
    "qwen3_coder": (
        "<function=find_flight>\n<parameter=city>Rome</parameter>\n<parameter=day>3</parameter>\n</function>",
        "OBSERVATION:\n7",
    ),
    "qwen3_coder cut at its stop sequence": (
        "<function=find_flight>\n<parameter=city>Rome</parameter>\n<parameter=day>3</parameter>\n",
        "EXECUTION RESULT of [find_flight]:\n7",
    ),
    "json": ('{"name": "find_flight", "parameters": {"city": "Rome", "day": 3}}', '{"flight": 7}'),
    "pythonic": ('[find_flight(city="Rome", day=3)]', '[{"flight": 7}]'),
    "react": (
        'Thought: fly\nAction: find_flight\nAction Input: {"city": "Rome", "day": 3}',
        "Observation: 7",
    ),
    "functioncall": (
        """<functioncall> {"name": "find_flight", "arguments": '{"city": "Rome", "day": 3}'} <|endoftext|>""",
        "FUNCTION RESPONSE: 7",
    ),
    "tool_token": (
        '<TOOLCALL>[{"name": "find_flight", "arguments": {"city": "Rome", "day": 3}}]</TOOLCALL>',
        "<tool_response>7</tool_response>",
    ),
    "pythonic after prose": ('I look.\n[find_flight(city="Rome", day=3)]', '[{"flight": 7}]'),
    "pythonic alone": ('find_flight(city="Rome", day=3)', '[{"flight": 7}]'),
    "json_fence": ('```json\n{"name": "find_flight", "arguments": {"city": "Rome", "day": 3}}\n```', "[7]"),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_call_in_the_text_is_a_call_turn_and_its_answer_a_result(name):
    text, answer = WRITTEN[name]
    row = {
        "messages": [ASK, said(text), {"role": "user", "content": answer}, said("Booked.")],
        "tools": [TOOL],
    }
    t = read(row)
    assert t.dialect == name.partition(" ")[0] and t.skip == {}
    assert [m["role"] for m in t.messages] == ["user", "assistant", "tool", "assistant"]
    assert calls_of(t) == [(FLIGHT,), ()] and t.messages[2]["name"] == "find_flight"


def test_a_shell_fence_is_a_call_where_the_conversation_shows_that_it_was_run():
    answer = {"role": "user", "content": "<returncode>0</returncode>\n<output>a</output>"}
    rows = [ASK, said("THOUGHT: look\n\n```bash\nls -la\n```"), answer, said("I am done, am I not?")]
    t = read({"instance_id": "x__y-1", "messages": rows})
    assert (t.dialect, t.verifier, t.scenario) == ("bash_fence", "swe", "x__y-1")
    assert calls_of(t) == [(Call("bash", {"command": "ls -la"}),), ()]
    assert t.skip == {3: "unparseable_call"}  # the format requires a fence
    assert t.tools[0]["function"]["name"] == "bash"


def test_a_shell_fence_in_advice_is_talk():
    t = read({"messages": [ASK, said("Run this:\n```bash\nls\n```")]})
    assert (t.dialect, t.skip, calls_of(t)) == ("", {}, [()])


def test_the_last_fence_is_the_command_where_the_prompt_is_swe_agents():
    answer = {"role": "user", "content": "a.py\n(Open file: n/a)\n(Current directory: /x)\nbash-$"}
    t = read({"messages": [ASK, said("Look.\n```\nls\n```"), answer, said("Go.\n```\nsubmit\n```")]})
    assert t.dialect == "last_fence"
    assert calls_of(t) == [(Call("bash", {"command": "ls"}),), (Call("bash", {"command": "submit"}),)]


def test_parallel_calls_and_their_results_in_one_message():
    answer = {
        "role": "tool",
        "content": "<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response>",
    }
    t = read({"messages": [ASK, said(HERMES + "\n" + HERMES), answer, said("Two.")], "tools": [TOOL]})
    assert [m["content"] for m in t.messages[2:4]] == ["1", "2"]
    assert len({m["tool_call_id"] for m in t.messages[2:4]}) == 2


def test_a_call_in_text_parts_is_found():
    parts = [{"type": "thinking", "thinking": "fly"}, {"type": "text", "text": HERMES}]
    t = read({"messages": [ASK, said(parts)], "tools": [TOOL]})
    assert calls_of(t) == [(FLIGHT,)] and t.messages[1]["reasoning_content"] == "fly"


def test_fences_without_a_language_are_commands_where_they_were_run():
    t = read(
        {"messages": [ASK, said("Look.\n```\ncat a.py\n```"), {"role": "user", "content": "OBSERVATION:\nx"}]}
    )
    assert (t.dialect, calls_of(t)) == ("last_fence", [(Call("bash", {"command": "cat a.py"}),)])


FOREIGN = [
    '<tool_call id="1">f</tool_call>',
    "<|tool_call_start|>[f()]<|tool_call_end|>",
    "<execute>\nls()\n</execute>",
    '{"action": "f", "action_input": "x"}',
    "✿FUNCTION✿: f",
    "Thought: so\nAction: f",
    "THOUGHT: I should go.\nIt is near.\nACTION: go to desk 1",
    "Think: that is all\n\nAct: answer(1)",
    "Thought: done\n<code>\nfinal_answer(7)\n</code>",
    "[f(x=5, y=foo)]",
]


@pytest.mark.parametrize("text", FOREIGN)
def test_a_call_in_a_form_that_is_not_read_is_skipped(text):
    t = read(
        {"messages": [ASK, said("Well."), ASK, said(text), {"role": "user", "content": "7"}, said("Done.")]}
    )
    assert t.skip == {3: "unparseable_call"}, text


def test_what_was_answered_as_calls_are_is_no_talk():
    t = read(
        {"messages": [ASK, said("Well."), ASK, said("%ls"), {"role": "user", "content": "Observation: a.py"}]}
    )
    assert t.skip == {3: "unparseable_call"}
    t = read({"messages": [ASK, said("Well."), ASK, said("%ls"), {"role": "tool", "content": "a.py"}]})
    assert t.skip == {3: "unparseable_call"}


UNREADABLE = {
    "beside readable calls": [
        said(HERMES),
        {"role": "tool", "content": "7"},
        said("<tool_call>\n{oops\n</tool_call>"),
    ],
    "alone": [said("Well."), ASK, said("<tool_call>\n{oops\n</tool_call>")],
    "in native rows": [
        said("", tool_calls=[{"id": "a", "function": {"name": "f", "arguments": "{}"}}]),
        {"role": "tool", "tool_call_id": "a", "content": "7"},
        said("<function=find_flight><parameter=city>Rome</parameter></function>"),
    ],
    "a documented name in stray JSON": [
        said("Well."),
        ASK,
        said('I run {"tool": "find_flight", "city": "Rome"}.'),
    ],
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_call_that_cannot_be_read_is_skipped_and_never_talk(name):
    t = read({"messages": [ASK, *UNREADABLE[name]], "tools": [TOOL]})
    assert t.skip == {3: "unparseable_call"}


def test_a_user_who_speaks_after_a_call_is_not_its_result():
    t = read({"messages": [ASK, said(HERMES), {"role": "user", "content": "Never mind."}, said("Fine.")]})
    assert [m["role"] for m in t.messages] == ["user", "assistant", "user", "assistant"]


@pytest.mark.parametrize("form", FORMS)
def test_no_random_call_becomes_talk(form):
    dialect, write, several, _ = FORMS[form]
    rng = random.Random(form)
    for _ in range(CASES):
        calls = random_calls(rng, several)
        if dialect in TAGGED and len({c.name for c in calls}) < len(calls):
            continue
        tools = [{"name": n, "parameters": s} for n, s in schemas_for(calls).items()]
        text = write(calls)
        broken = rng.random() < 0.3
        if broken:  # cut anywhere, as a token limit does
            text = text[: rng.randrange(len(text) // 2, len(text))]
        messages = [ASK, said(text), {"role": "tool", "content": "ok"}, said("Done.")]
        t = read({"messages": messages, "tools": tools})
        first = t.messages[1]
        if not broken:
            assert t.dialect == dialect and 1 not in t.skip, text
            assert [c.name for c in message_to_action(first).calls] == [c.name for c in calls], text
        elif any(d in text for d in ("<tool_call>", "<function=", "[TOOL_CALLS]", "<invoke name=")):
            assert first.get("tool_calls") or t.skip.get(1), text


# ---- forms of rows

NATIVE = said(
    "",
    tool_calls=[
        {
            "id": "a",
            "type": "function",
            "function": {"name": "find_flight", "arguments": '{"city": "Rome", "day": 3}'},
        }
    ],
)
RESULT = {"role": "tool", "tool_call_id": "a", "content": "7"}
CALL_JSON = '{"name": "find_flight", "arguments": {"city": "Rome", "day": 3}}'

ROWS = {
    "OpenAI": {"messages": [ASK, NATIVE, RESULT, said("Booked.")], "tools": [TOOL]},
    "legacy functions": {
        "messages": [
            ASK,
            said(None, function_call={"name": "find_flight", "arguments": '{"city": "Rome", "day": 3}'}),
            {"role": "function", "name": "find_flight", "content": "7"},
            said("Booked."),
        ],
        "functions": [TOOL],
    },
    "ShareGPT": {
        "conversations": [
            {"from": "human", "value": ASK["content"]},
            {"from": "function_call", "value": CALL_JSON},
            {"from": "observation", "value": "7"},
            {"from": "gpt", "value": "Booked."},
        ],
        "tools": json.dumps([TOOL]),
    },
    "ms-swift": {
        "messages": [
            ASK,
            {"role": "tool_call", "content": CALL_JSON},
            {"role": "tool_response", "content": "7"},
            said("Booked."),
        ],
        "tools": json.dumps([TOOL]),
    },
    "TRL": {"prompt": [ASK, NATIVE, RESULT], "completion": [said("Booked.")], "tools": [TOOL]},
    "a log": {
        "messages": [ASK, NATIVE, RESULT],
        "response": {"choices": [{"message": said("Booked.")}]},
        "tools": [TOOL],
    },
    "a wrapped log": {
        "request": {"messages": [ASK, NATIVE, RESULT], "tools": [TOOL]},
        "response": {"choices": [{"message": said("Booked.")}]},
    },
    "a trajectory column": {"trajectory": [ASK, NATIVE, RESULT, said("Booked.")], "tools": [TOOL]},
    "messages as text": {"messages": json.dumps([ASK, NATIVE, RESULT, said("Booked.")]), "tools": [TOOL]},
}


@pytest.mark.parametrize("name", ROWS)
def test_every_form_of_row_is_the_same_trajectory(name):
    t = read(ROWS[name])
    assert [m["role"] for m in t.messages] == ["user", "assistant", "tool", "assistant"]
    assert calls_of(t) == [(FLIGHT,), ()] and t.messages[-1]["content"] == "Booked."
    assert t.tools == [TOOL] and t.skip == {} and t.unused == ()


def test_xlam_rows_are_one_call_turn():
    tools = [{"name": "find_flight", "parameters": {"city": {"type": "str", "description": "c"}}}]
    t = read({"id": 3, "query": "Fly", "answers": f"[{CALL_JSON}]", "tools": json.dumps(tools)})
    assert (t.id, calls_of(t)) == ("3", [(FLIGHT,)])
    assert t.tools[0]["parameters"] == {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "c"}},
        "required": ["city"],
    }


def test_values_that_sources_wrap_are_unwrapped():
    text = {"messages": [{**ASK, "role": "User"}, said("", tool_calls=json.dumps(NATIVE["tool_calls"]))]}
    assert calls_of(read(text)) == [(FLIGHT,)]
    one = {"messages": [ASK, said("", tool_calls=NATIVE["tool_calls"][0])], "id": 1.5, "success": "true"}
    t = read(one)
    assert calls_of(t) == [(FLIGHT,)] and t.reward == 1.0 and t.id == "rows:1"
    answer = json.dumps({"choices": [{"message": NATIVE}]})
    assert calls_of(read({"messages": [ASK], "response": answer})) == [(FLIGHT,)]
    thought = f"<think>fly</think>\n{CALL_JSON}"
    t = read(
        {"conversations": [{"from": "human", "value": "x"}, {"from": "function_call", "value": thought}]}
    )
    assert calls_of(t) == [(FLIGHT,)] and t.messages[1]["reasoning_content"] == "fly"


def test_a_harmony_message_to_a_function_is_a_call():
    arguments = '{"city": "Rome", "day": 3}'
    thought = said("fly", channel="analysis")
    t = read(
        {"messages": [ASK, thought, said(arguments, channel="commentary", recipient="functions.find_flight")]}
    )
    assert calls_of(t) == [(FLIGHT,)] and t.messages[1]["reasoning_content"] == "fly"


def test_two_texts_of_the_assistant_stay_two_turns():
    t = read({"messages": [ASK, said("a", tool_calls=[]), said("b", tool_calls=[])]})
    assert [m["content"] for m in t.messages] == [ASK["content"], "a", "b"]
    t = read({"messages": [ASK, said("a"), said("", tool_calls=True)]})
    assert t.skip == {2: "unparseable_call"}


def test_parts_of_one_response_are_one_turn():
    parts = [said("I look."), NATIVE, said("", tool_calls=[{**NATIVE["tool_calls"][0], "id": "b"}])]
    t = read({"messages": [ASK, *parts, RESULT, {**RESULT, "tool_call_id": "b"}, said("Booked.")]})
    assert calls_of(t) == [(FLIGHT, FLIGHT), ()] and t.messages[1]["content"] == "I look."


def test_a_system_text_beside_the_turns_is_the_system_message():
    row = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Salut."}]}
    t = read({**row, "system": "Answer in French."})
    assert t.messages[0] == {"role": "system", "content": "Answer in French."}


# ---- nothing falls silently


def test_scenarios_and_ids_have_many_names():
    t = read({"instance_id": "x__y.1", "traj_id": "t1", "resolved": True, "messages": [ASK, said("a")]})
    assert (t.id, t.scenario, t.reward) == ("t1", "x__y.1", 1.0)
    assert read({"task_id": 7, "messages": [ASK, said("a")]}).scenario == "7"


@pytest.mark.parametrize("mark", [{"weight": 0}, {"loss": False}, {"train": False}, {"loss_scale": 0.0}])
def test_a_turn_without_weight_is_context(mark):
    t = read({"messages": [ASK, said("a", **mark), ASK, said("b")]})
    assert t.skip == {1: "context"}


def test_fields_that_are_not_used_are_named():
    row = {
        "messages": [ASK, {**said("a"), "grade": 5}],
        "notes": "x",
        "empty": [],
        "tools": [TOOL, {"type": "web_search"}],
    }
    assert read(row).unused == ("notes", "messages.grade", "tools.web_search")


def test_images_leave_out_the_turns_from_there_on():
    part = [{"type": "text", "text": "ok"}, {"type": "image_url", "image_url": {"url": "data:"}}]
    shot = {"role": "tool", "tool_call_id": "a", "content": part}
    assert read({"messages": [ASK, NATIVE, shot, said("Done.")]}).skip == {3: "not_text"}
    column = {"messages": [ASK, said("a"), {"role": "user", "content": "<image>Who?"}, said("b")]}
    assert read({**column, "images": ["a.jpg"]}).skip == {3: "not_text"}
    with pytest.raises(InputError, match="not text"):
        read({"messages": [{"role": "user", "content": part}, said("Done.")]})


# ---- one odd call costs one turn


def test_one_bad_call_costs_its_turn():
    bad = said("", tool_calls=[{"id": "b", "function": {"name": "find_flight", "arguments": '{"city": "Ro'}}])
    answer = {"role": "tool", "tool_call_id": "b", "content": "Error: bad JSON"}
    t = read({"messages": [ASK, NATIVE, RESULT, bad, answer, said("Booked.")]})
    assert t.skip == {3: "unparseable_call"}


def test_an_odd_message_costs_the_turns_after_it():
    t = read({"messages": [ASK, said("a"), {"role": "robot", "content": "?"}, said("b")]})
    assert t.skip == {3: "unreadable_message"}


# ---- nulls of tables


def test_nulls_that_no_property_declares_are_no_arguments(tmp_path):
    properties = {
        "city": {"type": "string"},
        "seat": {"type": ["string", "null"]},
        "day": {"type": "integer"},
    }
    tool = {"name": "find_flight", "parameters": {"properties": properties, "required": ["city"]}}
    arguments = {"city": "Rome", "seat": None, "day": None, "path": None}
    call = {"id": "a", "function": {"name": "find_flight", "arguments": arguments}}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"messages": [ASK, said("", tool_calls=[call])], "tools": [tool]}))
    ((t,), _) = reading.read(path)
    assert calls_of(t) == [(Call("find_flight", {"city": "Rome", "seat": None}),)]
