"""Rows in forms of their own: the right call is read, or the turn is skipped by name; no call becomes talk,
and nothing said or called is lost."""

import json

import pytest

from pivotrl_jax.chat.actions import message_to_action
from pivotrl_jax.chat.dialects import read as read_text
from pivotrl_jax.chat.dialects.plain import outer_fences
from pivotrl_jax.chat.reasoning import split_thinking
from pivotrl_jax.records import Call, InputError
from pivotrl_jax.trajectories import reading
from pivotrl_jax.trajectories.readers import openai_chat, openhands, swe_agent

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}
OSLO, ROME = Call("get_weather", {"city": "Oslo"}), Call("get_weather", {"city": "Rome"})
ASK = {"role": "user", "content": "weather?"}
JSON = '{"name": "get_weather", "arguments": {"city": "Oslo"}}'


def read(row):
    return openai_chat.trajectory(row, "rows.jsonl:1")


def said(*answers, **row):
    return read({"messages": [ASK, *answers], **row})


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def actions(trajectory):
    return [message_to_action(m) for m in trajectory.messages if m["role"] == "assistant"]


@pytest.mark.parametrize(
    "text, want",
    [
        ('[search(query="NASA (US), ESA (EU)")]', {"query": "NASA (US), ESA (EU)"}),
        ("[search(query='x) , y(1)', n=2)]", {"query": "x) , y(1)", "n": 2}),
        (r'[search(query="a \"b\") , c (d)")]', {"query": 'a "b") , c (d)'}),
        ('[Market Trends API(query="it\'s (so), y (z)")]', {"query": "it's (so), y (z)"}),
    ],
)
def test_texts_in_pythonic_calls_stay_as_they_are(text, want):
    assert [c.arguments for c in read_text(text, "pythonic", {}).calls] == [want]


def test_a_quote_that_is_never_closed_costs_no_time():
    text = "[f(a=" + '"\\' * 40_000 + ")]"
    assert read_text(text, "pythonic", {}).fault


NESTED = "I write.\n```\ncreate a.md\n# T\n```python\nprint(1)\n```\nend\n```"


def test_the_command_is_the_outermost_fence():
    command = "create a.md\n# T\n```python\nprint(1)\n```\nend"
    assert [f.body for f in outer_fences(NESTED)] == [command]
    assert [f.body for f in outer_fences("```bash\nls\n```\nthen\n```\npwd\n```")] == ["ls", "pwd"]
    assert outer_fences("```python\nprint(1)") == []
    found = read_text(NESTED, "last_fence", {})
    assert found.calls == (Call("bash", {"command": command}),) and found.content == "I write."
    history = [{"role": "user", "content": "go", "agent": "a"}]
    history += [{"role": "assistant", "content": NESTED, "agent": "a"}, {"role": "user", "content": "ok"}]
    t = swe_agent.trajectory({"history": history}, "a.traj")
    assert actions(t)[0].calls == (Call("bash", {"command": command}),)


@pytest.mark.parametrize(
    "given",
    [
        "{'city': 'Oslo'}",
        '{"city": "Oslo",}',
        '```json\n{"city": "Oslo"}\n```',
        '{"city": "Oslo"}\nObservation',
        "Oslo\nObservation",
    ],
)
def test_an_action_input_is_an_object_in_any_of_its_spellings(given):
    t = said(
        assistant(f"Thought: look\nAction: get_weather\nAction Input: {given}"),
        {"role": "user", "content": "Observation: 5C"},
        tools=[TOOL],
    )
    assert actions(t)[0].calls == (OSLO,) and t.dialect == "react" and t.skip == {}


def test_a_policy_gets_no_repair_of_its_action_input():
    found = read_text("Action: get_weather\nAction Input: {'city': 'Oslo'}", "react", {})
    assert not found.calls and found.fault == "an Action Input that is no JSON object"


@pytest.mark.parametrize(
    "text",
    [
        f"Let me check.\n{JSON}",
        f"{JSON}; {JSON}",
        '{"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Oslo"}}}',
        '{"tool": "get_weather", "args": {"city": "Oslo"}}',
        '{"tool_name": "get_weather", "tool_args": {"city": "Oslo"}}',
        '{"function": "get_weather", "arguments": {"city": "Oslo"}}',
        '{"function_name": "get_weather", "args": {"city": "Oslo"}}',
        '{"function_call": {"name": "get_weather", "arguments": {"city": "Oslo"}}}',
        f"functools[{JSON}]",
        '<function_calls>\nget_weather(city="Oslo")\n</function_calls>',
        'get_weather(city="Oslo")',
        "<code>\nx = get_weather(city='Oslo')\nprint(x)\n</code>",
        "Thought: look\nCode:\n```py\nx = get_weather(city='Oslo')\n```",
        "I'll read it.\n\n<read_file>\n<path>a.py</path>\n</read_file>",
        "<list_files>\n<path>.</path>\n</list_files>",
        "<attempt_completion>\n<result>done</result>\n</attempt_completion>",
        "<search>weather in Oslo</search>",
        "To count I will query.\n\nAction: Operation\n```sql\nSELECT 1;\n```",
        "It is five.\nAction: Answer\nFinal Answer: 5",
        "<tool>get_weather</tool><tool_input>Oslo</tool_input>",
        '<call>get_weather(city="Oslo")</call>',
        '<response><analysis>a</analysis><commands><keystrokes duration="0.1">ls\n</keystrokes></commands>',
        "<response>\n<analysis>done</analysis>\n<commands></commands>\n</response>",
        "In summary, the next action I will perform is ```stop```",
        "I press it.\n```click [1234]```",
        "```\nclick [12]\n```",
        "<action>\nclick('12')\n</action>",
        "<action>go to desk 1</action>",
        "I press it.\n```click('12')```",
        "I fill it in.\n```\nfill('a13', 'x')\n```",
        "click('A')",
        "## Action:\nPress it.\n\n## Code:\n```python\npyautogui.click(x=0.1, y=0.2)\n```",
        '# Element: the menu\ndo(action="Click", element="12")',
        'exit(message="5C")',
        "Action: click(start_box='(10,20)')",
        "Action: wait()",
        "Answer: C.\nAction: TYPE\nValue: New York",
        "I look.\n<web_search>weather in Oslo</web_search>",
        "<plan>look</plan><wiki_search>Oslo",
        "<crawl_page>https://a.com</crawl_page>",
        "<codemode>\nconst r = await f({a: 1});\n</codemode>",
        "I need <|begin_search_query|>weather in Oslo<|end_search_query|>",
        "I need <|begin_of_query|> weather in Oslo",
        'Tool: weather\nTool Input: {"city": "Oslo"}',
        'Function: weather\nArguments: {"city": "Oslo"}',
        "API-Request: [weather(city='Oslo')]",
        '<|tools_prefix|>[{"weather": {"city": "Oslo"}}]<|tools_suffix|>',
        "weather\n```python\ntool_call(city='Oslo')\n```",
    ],
)
@pytest.mark.parametrize("tools", [[], [TOOL]])
def test_a_call_in_a_form_that_is_not_read_is_no_talk(text, tools):
    t = said(assistant(text), tools=tools)
    calls = actions(t)[0].calls
    assert t.skip.get(1) == "unparseable_call" or (calls and all(call == OSLO for call in calls))


@pytest.mark.parametrize(
    "text",
    [
        "Call me (again) tomorrow.",
        "Use <b>bold</b> and <code>ls</code> in the text.",
        'The file holds {"name": "pip", "version": "1.0"}.',
        "Run f(x) to see; see also <search> in the manual.",
        "Use <web_search> to look things up, and <action> for the rest.",
        "**Action:** click [here](https://a.com).",
        "## Code:\n```python\nimport pyautogui\npyautogui.click(1, 2)\n```",
        "Press it:\n```python\npyautogui.click(100, 200)\n```",
        "To go up:\n```\nscroll(0, 0)\n```",
        "Use ```stop()``` to end it.",
        "```js\nclick('12')\nfill(a, 0)\n```",
        "```xml\n<rules>\n  <action>allow</action>\n</rules>\n```",
        "```xml\n<response>\n  <status>ok</status>\n</response>\n```",
        "Tool: a hammer\nUse: nails",
        "Function: area\nArguments: width and height",
        "The next action I will perform is a refund.",
    ],
)
def test_talk_stays_talk(text):
    t = said(assistant(text), tools=[TOOL])
    assert t.skip == {} and not actions(t)[0].calls and actions(t)[0].text == text


def test_after_an_action_in_words_a_bare_one_is_none_of_the_talk():
    thought = assistant("THOUGHT: I should look.\nACTION: look")
    t = said(assistant("Hello."), ASK, assistant("ACTION: think"), ASK, thought, ASK, assistant("Bye."))
    assert t.skip == {3: "unparseable_call", 5: "unparseable_call"}
    for text in (
        "Action: refund",
        "Action: see [the docs](https://a.com).",
        "Action: type [your name] there.",
    ):
        assert said(assistant(text)).skip == {}


def test_a_namespace_before_invoke_is_read():
    text = '<x:invoke name="get_weather">\n<x:parameter name="city">Oslo</x:parameter>\n</x:invoke>'
    t = said(assistant(f"<x:function_calls>\n{text}\n</x:function_calls>"))
    assert actions(t)[0].calls == (OSLO,) and t.dialect == "invoke"


def test_calls_that_a_message_holds_as_text():
    call = json.dumps({"name": "get_weather", "arguments": json.dumps({"city": "Oslo"})})
    assert actions(said(assistant("Checking.", function_call=call)))[0].calls == (OSLO,)
    broken = said(assistant("Checking.", function_call='{"name": "get_weather", "argum'))
    assert broken.skip == {1: "unparseable_call"}
    olmo = {
        "messages": [
            {"role": "system", "content": "s", "functions": json.dumps([TOOL])},
            ASK,
            assistant("", function_calls='get_weather(city="Oslo")\nget_weather(city="Rome")'),
            {"role": "environment", "content": "5"},
            assistant("Five.", function_calls='get_weather(city="Ro'),
        ]
    }
    t = read(olmo)
    assert actions(t)[0].calls == (OSLO, ROME) and t.tools == [TOOL]
    assert t.skip == {4: "unparseable_call"} and t.unused == ()


@pytest.mark.parametrize(
    "text, want",
    [
        ("Okay, a man.</think>A facilitator.", ("Okay, a man.", "A facilitator.")),
        ("I see. </think> A facilitator.", ("I see. ", "A facilitator.")),
        ("</think>Hello there", ("", "Hello there")),
        ("<think>a</think>\n\n<think>b</think>Answer", ("a\nb", "Answer")),
        ("<think>" + "</think><think>" * 5000, None),  # bounded
        ("Close it with the </think> tag.", ("", "Close it with the </think> tag.")),
        ('It writes "</think>" there.', ("", 'It writes "</think>" there.')),
    ],
)
def test_thinking_ends_at_its_tag_and_not_at_a_word_about_it(text, want):
    assert want is None or split_thinking(text) == want
    assert len(split_thinking(text)[1]) <= len(text)


def test_marks_of_channels_and_recipients_are_not_talk():
    harmony = (
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>5C.<|return|>"
    )
    call = "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"
    t = said(
        assistant(f'<|start|>assistant{call}{{"city": "Oslo"}}<|call|>'),
        {"role": "tool", "content": "5"},
        assistant(harmony),
    )
    assert [a.calls for a in actions(t)] == [(OSLO,), ()]
    assert [m["content"] for m in t.messages if m["role"] == "assistant"] == ["", "5C."]
    alone = said(assistant(harmony))
    assert alone.messages[1]["content"] == "5C." and alone.messages[1]["reasoning_content"] == "hm"
    t = said(
        assistant('>>>all\nLet me see.\n>>>get_weather\n{"city": "Oslo"}'),
        {"role": "tool", "content": "5C"},
        assistant(">>>all\nIt is 5C."),
        tools=[TOOL],
    )
    assert t.messages[-1]["content"] == "It is 5C."


def test_nulls_that_arrow_adds_to_function_docs():
    properties = {**PARAMETERS["properties"], "limit": None}
    tool = {
        "type": "function",
        "function": {**TOOL["function"], "parameters": {**PARAMETERS, "properties": properties}},
    }
    call = {"id": "1", "function": {"name": "get_weather", "arguments": {"city": "Oslo", "limit": None}}}
    t = said(assistant("", tool_calls=[call]), tools=[tool])
    assert actions(t)[0].calls == (OSLO,) and t.tools == [TOOL]


ANSWERS = [
    ("completion", "five"),
    ("output", [{"role": "assistant", "content": "five"}]),
    ("output", {"role": "assistant", "content": "five"}),
    ("response", [{"role": "assistant", "content": "five"}]),
    ("response", {"text": "five"}),
    ("response", {"choices": [{"text": "five"}]}),
    ("response", {"choices": [{"delta": {"content": "five"}}]}),
    (
        "response",
        {
            "output": [
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "five"}]}
            ]
        },
    ),
    ("response", json.dumps([{"role": "assistant", "content": "five"}])),
]


@pytest.mark.parametrize("key, value", ANSWERS)
def test_the_answer_beside_the_messages_is_the_last_turn(key, value):
    t = said(assistant("which?"), {"role": "user", "content": "Oslo"}, **{key: value})
    assert [a.text for a in actions(t)] == ["which?", "five"] and t.unused == ()


def test_an_answer_that_is_not_read_is_named():
    told = [assistant("which?"), {"role": "user", "content": "Oslo"}]
    assert said(*told, response={"candidates": [1]}).unused == ("response",)
    assert said(*told, answer="five").unused == ("answer",)
    assert said(assistant("five"), completion="5").unused == ("completion",)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": json.dumps([ASK]), "completion": json.dumps([assistant("five")])},
        {"input": json.dumps([ASK]), "output": json.dumps(assistant("five"))},
        {"prompt": "weather?", "chosen": json.dumps([ASK, assistant("five")])},
        {"instruction": "weather?", "output": "five", "history": json.dumps([["a", "b"]])},
        {"instruction": "weather?", "output": "five", "history": [ASK, assistant("b")]},
    ],
)
def test_columns_of_json_text_are_messages(row, tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (t,), _ = reading.read([tmp_path / "rows.jsonl"])
    assert [a.text for a in actions(t)] == (["b", "five"] if "history" in row else ["five"])
    assert [m["content"] for m in t.messages if m["role"] == "user"][-1] == "weather?"


def test_a_history_that_cannot_be_read_is_refused():
    with pytest.raises(InputError, match='"history" holds something else'):
        read({"instruction": "a", "output": "b", "history": ["x"]})


@pytest.mark.parametrize(
    "value, reward, unused",
    [("0.0", 0, ()), ("no", 0, ()), ("1", 1, ()), ([0], None, ("reward",)), ("?", None, ("reward",))],
)
def test_outcomes_as_text(value, reward, unused):
    t = said(assistant("five"), reward=value)
    assert t.reward == reward and t.unused == unused


def test_weights_as_text_and_a_text_beside_an_empty_content():
    t = said(assistant("a", weight="0"), ASK, assistant("b", loss="false"), ASK, assistant("", value="c"))
    assert t.skip == {1: "context", 3: "context"} and t.messages[-1]["content"] == "c"


def test_parts_of_one_response_are_one_turn():
    t = said(assistant("", reasoning_content="hm"), assistant("five"))
    assert [m["role"] for m in t.messages] == ["user", "assistant"]
    assert t.messages[1]["content"] == "five" and t.messages[1]["reasoning_content"] == "hm"
    hermes = f"<tool_call>\n{JSON}\n</tool_call>"
    t = said(assistant("Let me check."), assistant(hermes), {"role": "tool", "content": "5"})
    assert [m["role"] for m in t.messages] == ["user", "assistant", "tool"]
    assert t.messages[1]["content"] == "Let me check." and actions(t)[0].calls == (OSLO,)
    native = assistant(hermes, tool_calls=[{"id": "1", "function": json.loads(JSON)}])
    t = said(native, {"role": "tool", "tool_call_id": "1", "content": "5"})
    assert actions(t)[0].calls == (OSLO,) and t.messages[1]["content"] == ""


def test_results_out_of_order_belong_to_the_calls_they_name():
    calls = (
        f'<tool_call>\n{JSON}\n</tool_call>\n<tool_call>\n{{"name": "g", "arguments": {{}}}}\n</tool_call>'
    )
    results = [{"role": "tool", "name": n, "content": f"of {n}"} for n in ("g", "get_weather")]
    t = said(assistant(calls), *results)
    ids = [c["id"] for c in t.messages[1]["tool_calls"]]
    assert [m["tool_call_id"] for m in t.messages[2:]] == ids[::-1]
    native = [{"function": {"name": n, "arguments": {}}} for n in ("f", "g")]
    t = said(assistant("", tool_calls=native), {"role": "tool", "tool_name": "g", "content": "of g"})
    assert t.messages[2]["tool_call_id"] == t.messages[1]["tool_calls"][1]["id"] and t.unused == ()


def test_one_fence_of_advice_is_no_command_although_a_shell_is_documented():
    shell = {"name": "sh", "parameters": {"type": "object", "properties": {"command": {"type": "string"}}}}
    t = said(assistant("Use this:\n\n```bash\nls -la\n```\n\nIt shows all."), tools=[shell])
    assert t.skip == {1: "unparseable_call"}
    t = said(
        assistant("I look.\n```bash\nls\n```"),
        {"role": "tool", "content": "a"},
        assistant("Now again.\n```bash\npwd\n```"),
        tools=[shell],
    )
    assert [a.calls[0].arguments for a in actions(t)] == [{"command": "ls"}, {"command": "pwd"}]


def test_every_row_of_a_file_goes_to_the_first_reader_that_knows_it(tmp_path):
    plain = {"messages": [ASK, assistant("hello")]}
    blocks = [{"type": "tool_use", "id": "t", "name": "ls", "input": {"path": "/"}}]
    result = [{"type": "tool_result", "tool_use_id": "t", "content": "a.py"}]
    anthropic = {"messages": [ASK, assistant(blocks), {"role": "user", "content": result}, assistant("done")]}
    types = assistant(
        '{"analysis": "a", "plan": "p", "commands": [{"keystrokes": "ls\\n", "duration": 0.1}]}'
    )
    terminus = {"conversations": [ASK, types], "task": "t"}
    lines = "".join(json.dumps(row) + "\n" for row in (plain, terminus, anthropic, plain))
    (tmp_path / "rows.jsonl").write_text(lines)
    found, left_out = reading.read([tmp_path / "rows.jsonl"])
    assert [t.source for t in found] == ["openai", "terminus", "anthropic", "openai"] and not left_out


def test_lines_without_an_id_of_their_message_are_turns_of_their_own(tmp_path):
    def line(n, kind, content):
        message = {"role": kind, "content": content}
        return {
            "type": kind,
            "uuid": str(n),
            "parentUuid": str(n - 1) if n else None,
            "sessionId": "s",
            "message": message,
        }

    def call(n, command):
        return [{"type": "tool_use", "id": f"t{n}", "name": "Bash", "input": {"command": command}}]

    def result(n):
        return [{"type": "tool_result", "tool_use_id": f"t{n}", "content": "ok"}]

    said = [("user", "do"), ("assistant", call(1, "ls")), ("user", result(1)), ("assistant", call(2, "rm a"))]
    said += [("user", result(2)), ("assistant", [{"type": "text", "text": "done"}])]
    lines = [line(n, *one) for n, one in enumerate(said)]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    (t,), _ = reading.read([tmp_path / "s.jsonl"], "claude_code")
    assert [[c.arguments["command"] for c in a.calls] for a in actions(t)] == [["ls"], ["rm a"], []]


def test_what_openhands_itself_adds_is_no_argument():
    added = {"blocking": False, "keep_prompt": True, "is_static": False, "thought": "look"}
    events = [
        {"source": "user", "action": "message", "args": {"content": "go"}, "id": 0},
        {"source": "agent", "action": "run", "args": {"command": "ls", **added}, "id": 1},
        {"source": "environment", "observation": "run", "content": "a", "cause": 1, "id": 2},
    ]
    t = openhands.trajectory(events, "a.json")
    assert actions(t)[0].calls == (Call("run", {"command": "ls"}),)
