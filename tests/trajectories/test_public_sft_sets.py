"""Rows in the forms of public sets for supervised fine-tuning: what was called is a call, or its turn is
skipped by name; what was said, thought and weighed is kept."""

import json

import pytest

from pivotrl_jax.chat.actions import message_to_action
from pivotrl_jax.records import Call, InputError
from pivotrl_jax.trajectories import reading
from pivotrl_jax.trajectories.readers import openai_chat

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
DOC = {"name": "get_weather", "parameters": PARAMETERS}
TOOL = {"type": "function", "function": DOC}
OSLO, ROME = Call("get_weather", {"city": "Oslo"}), Call("get_weather", {"city": "Rome"})
CALL = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
ASK = {"role": "user", "content": "weather?"}
DONE = {"role": "assistant", "content": "3C."}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def read(row):
    return openai_chat.trajectory(row, "rows.jsonl:1")


def said(*answers, **row):
    return read({"messages": [ASK, *answers], **row})


def calls_of(trajectory):
    return [message_to_action(m).calls for m in trajectory.messages if m["role"] == "assistant"]


def roles(trajectory):
    return [m["role"] for m in trajectory.messages]


def from_file(tmp_path, *rows):
    """(trajectories, what was left out) of rows in a file whose format is recognised."""
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return reading.read([path])


# ---- actions that look like talk


@pytest.mark.parametrize(
    "text",
    [
        "actions:\nCLICK <point>[[101, 872]]</point>",
        "thoughts:\nI open it.\nactions:\nOPEN_APP [Gmail]",
        "ASSISTANT Thought: I look.\nASSISTANT Action: getHolidays\nASSISTANT Action Input: {}",
        "Plan: look it up\n#E1 = Wikipedia[Oslo]",
        "R1 = KnowledgeQuery(Oslo); R2 = ParagraphRetrieve(R1, Query: how cold?)",
        "Action 1-1: R1 = KnowledgeQuery(Oslo)",
        "Action: Click the menu.\npyautogui.click(x=0.1, y=0.2)",
        "search[red shoes]",
        "click[Buy Now]",
        "I compute. <python>\nprint(1)\n</python> <result>1</result>".replace(" <python>", "\n<python>"),
        "<access> https://a.com </access>",
        "<search>\n<query>Oslo</query>\n</search>",
        "<bash>\nls\n</bash>",
        '{"thoughts": {"text": "t"}, "command": {"args": {"query": "x"}, "name": "google"}}',
        '{"current_state": {"memory": "m"}, "action": [{"click_element": {"index": 3}}]}',
        '{"action_type": "click", "x": 10, "y": 20}',
        'I tap it.\n{"action": "tap", "coordinate": [10, 20]}',
        '{"type": "tool_use", "name": "f", "input": {"city": "Oslo"}}',
        '{"id": "t1", "type": "tool_use", "name": "f", "input": {}}',
        '{"tool": "f", "input": {"city": "Oslo"}}',
        '{"api": "f", "parameters": {"city": "Oslo"}}',
        "<|tool▁call▁begin|>function<|tool▁sep|>f\n```json\n{}\n```<|tool▁call▁end|>",
        "<longcat_tool_call>f\n<longcat_arg_key>a</longcat_arg_key>\n</longcat_tool_call>",
        '<|tool_call>call:f{city:<|"|>Oslo<|"|>}<tool_call|>',
        "<|from|>assistant\n<|recipient|>f\n<|content|>{}",
        '<tool name="f">{"city": "Oslo"}</tool>',
        "<tool_name>f</tool_name>\n<parameters>\n<city>Oslo</city>\n</parameters>",
        '<api_call>f(city="Oslo")</api_call>',
        "Function Call: f(city='Oslo')",
        'Tool: f\nInput: {"city": "Oslo"}',
    ],
)
def test_an_action_in_a_sets_own_form_is_no_talk(text):
    assert said(assistant("Well."), ASK, assistant(text), ASK, DONE).skip == {3: "unparseable_call"}


@pytest.mark.parametrize("text", ['get_weather\n{"city": "Oslo"}', '[{"get_weather": {"city": "Oslo"}}]'])
def test_a_documented_name_before_its_arguments_is_no_talk(text):
    assert said(assistant(text), tools=[TOOL]).skip == {1: "unparseable_call"}
    assert said(assistant(text)).skip == {}


@pytest.mark.parametrize(
    "text",
    [
        "Actions: click the button, then type your name.",
        "The R1 = 5 ohm resistor and R2 = 7.",
        "A list[int] holds numbers; see search[0].",
        'A log line: {"event": "menu", "action": "click"}.',
        'The config is {"name": "x", "inputs": 3, "type": "tool"}.',
        "Use a <search> box and <python> blocks.",
        "```python\npyautogui.click(1, 2)\n```",
        "Tool: a hammer\nInput: a nail",
        'Set it so: {"command": {"name": "x"}}.',
        "```html\n<search>\n<input>\n</search>\n```",
    ],
)
def test_talk_about_actions_stays_talk(text):
    assert said(assistant(text), tools=[TOOL]).skip == {}


# ---- parts of SDKs

RESULT = {"toolCallId": "c1", "toolName": "get_weather"}
V4 = [
    {"type": "text", "text": "I look."},
    {**RESULT, "type": "tool-call", "args": {"city": "Oslo"}},
]
V5 = [
    {"type": "reasoning", "text": "hm"},
    {"type": "text", "text": "I look."},
    {**RESULT, "type": "tool-call", "input": {"city": "Oslo"}},
]
OTEL = [
    {"type": "reasoning", "content": "hm"},
    {"type": "text", "content": "I look."},
    {"type": "tool_call", "id": "c1", "name": "get_weather", "arguments": {"city": "Oslo"}},
]
JSON_OUTPUT = {"type": "json", "value": {"t": 3}}
PARTS = {
    "AI SDK 4": (
        assistant(V4),
        {"role": "tool", "content": [{**RESULT, "type": "tool-result", "result": {"t": 3}}]},
        assistant([{"type": "text", "text": "3C."}]),
    ),
    "AI SDK 5": (
        assistant(V5),
        {"role": "tool", "content": [{**RESULT, "type": "tool-result", "output": JSON_OUTPUT}]},
        DONE,
    ),
    "AI SDK 5, UI": (
        {
            "role": "assistant",
            "parts": [
                {"type": "step-start"},
                *V5[:2],
                {
                    "type": "tool-get_weather",
                    "toolCallId": "c1",
                    "state": "output-available",
                    "input": {"city": "Oslo"},
                    "output": {"t": 3},
                },
                {"type": "step-start"},
                {"type": "text", "text": "3C."},
            ],
        },
    ),
    "AI SDK 4, UI": (
        {
            "role": "assistant",
            "content": "I look.3C.",
            "parts": [
                {"type": "text", "text": "I look."},
                {
                    "type": "tool-invocation",
                    "toolInvocation": {
                        **RESULT,
                        "state": "result",
                        "args": {"city": "Oslo"},
                        "result": {"t": 3},
                    },
                },
                {"type": "text", "text": "3C."},
            ],
        },
    ),
    "OpenTelemetry": (
        {"role": "assistant", "parts": OTEL, "finish_reason": "tool_call"},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": {"t": 3}}]},
        {"role": "assistant", "parts": [{"type": "text", "content": "3C."}]},
    ),
    "Cohere": (
        {"role": "assistant", "tool_plan": "hm", "content": "I look.", "tool_calls": [CALL]},
        {
            "role": "tool",
            "tool_call_id": "c1",
            "content": [{"type": "document", "document": {"data": '{"t": 3}'}}],
        },
        DONE,
    ),
}


@pytest.mark.parametrize("name", PARTS)
def test_calls_and_results_among_typed_parts(name, tmp_path):
    trajectories, left_out = from_file(tmp_path, {"messages": [ASK, *PARTS[name]]})
    (t,) = trajectories
    assert not left_out and (t.skip, t.unused) == ({}, ())
    assert roles(t) == ["user", "assistant", "tool", "assistant"] and calls_of(t) == [(OSLO,), ()]
    assert [m["content"] for m in t.messages[1:]] == ["I look.", '{"t": 3}', "3C."]
    thought = None if "4" in name else "hm"
    assert t.messages[1].get("reasoning_content") == thought and "reasoning_content" not in t.messages[3]


def test_a_span_of_opentelemetry():
    attributes = {
        "gen_ai.system_instructions": [{"type": "text", "content": "Be kind."}],
        "gen_ai.input.messages": json.dumps(
            [{"role": "user", "parts": [{"type": "text", "content": "weather?"}]}]
        ),
        "gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": OTEL}]),
        "gen_ai.tool.definitions": json.dumps([{"type": "function", **DOC}]),
    }
    for row in ({"name": "chat", "attributes": attributes}, attributes):
        t = read(row)
        assert roles(t) == ["system", "user", "assistant"] and calls_of(t) == [(OSLO,)]
        assert [tool["name"] for tool in t.tools] == ["get_weather"]


@pytest.mark.parametrize(
    "result",
    [
        {"type": "tool-result", "output": {"type": "error-text", "value": "no"}},
        {"type": "tool-result", "result": "no", "isError": True},
        {"type": "tool-error", "error": "no"},
    ],
)
def test_a_failed_result_of_an_sdk_is_an_error(result):
    t = said(assistant(V4), {"role": "tool", "content": [{**RESULT, **result}]}, DONE)
    assert t.messages[2]["error"] is True and t.messages[2]["content"] == "no"


def test_parts_that_are_not_text_leave_out_the_turns_after_them():
    file = {"type": "file", "mediaType": "image/png", "url": "data:"}
    user = {"role": "user", "parts": [{"type": "text", "text": "this?"}, file]}
    assert said(DONE, user, DONE).skip == {3: "not_text"}
    document = {"role": "user", "content": [{"type": "document", "source": {"type": "text", "data": "x"}}]}
    assert said(DONE, document, DONE).skip == {3: "not_text"}


def test_several_calls_of_a_ui_message_and_one_without_a_result():
    call = {
        "type": "dynamic-tool",
        "toolName": "get_weather",
        "state": "input-available",
        "input": {"city": "Rome"},
    }
    parts = PARTS["AI SDK 5, UI"][0]["parts"][:4]
    t = said({"role": "assistant", "parts": [*parts, {"type": "step-start"}, {**call, "toolCallId": "c2"}]})
    assert calls_of(t) == [(OSLO,), (ROME,)] and t.skip == {}


# ---- what stands beside the messages


@pytest.mark.parametrize(
    "image", ["docker.io/acme/repo:tag-1", "ghcr.io/acme/repo", "acme/repo.eval.x86_64.a__b-1:latest", "a:1"]
)
def test_the_image_of_a_container_is_no_picture(image):
    assert said(DONE, image=image).skip == {}


@pytest.mark.parametrize(
    "image", ["a.png", "train/0001", "docker.io/a.jpg", "https://a.com/b", "iVBORw0KGgo="]
)
def test_any_other_image_is_one(image):
    assert said(DONE, image=image).skip == {1: "not_text"}


def test_a_picture_that_a_text_shows_is_one_whatever_its_name():
    assert said(assistant("<image>"), image="docker.io/a/b:1").skip == {1: "not_text"}


def test_instructions_of_a_chat_template_are_the_system_message():
    kwargs = {"custom_instructions": "Be kind.", "enable_thinking": False, "xml_tools": [json.dumps(DOC)]}
    t = said(DONE, chat_template_kwargs={**kwargs, "python_tools": ["def f(): ..."]})
    assert t.messages[0] == {"role": "system", "content": "Be kind."}
    assert [tool["name"] for tool in t.tools] == ["get_weather"]
    assert t.unused == ("chat_template_kwargs.python_tools",)
    assert said(DONE, chat_template_kwargs={**kwargs, "custom_instructions": ""}).messages[0] == ASK


def test_function_docs_in_the_metadata():
    assert said(DONE, metadata=json.dumps({"tools": [TOOL]})).tools == [TOOL]
    assert said(DONE, metadata={"tools": [TOOL]}, tools=[{"name": "f"}]).tools == [{"name": "f"}]
    assert said(DONE, metadata={"tools": ["search"]}).tools == []


def test_a_chosen_response_answers_the_messages():
    t = read({"messages": [ASK], "chosen_response": DONE, "rejected_response": assistant("No.")})
    assert t.messages == [ASK, DONE] and t.unused == ("rejected_response",)


@pytest.mark.parametrize("content", [{"content": None}, {}])
def test_an_example_whose_outputs_hold_one_message(tmp_path, content):
    message = {"role": "assistant", "tool_calls": [CALL], **content}
    row = {"inputs": {"messages": [ASK]}, "outputs": {"message": message}}
    (t,), left_out = from_file(tmp_path, row)
    assert calls_of(t) == [(OSLO,)] and not left_out


@pytest.mark.parametrize("name", ["is_correct", "correct", "is_success", "is_successful", "task_success"])
def test_outcomes_under_more_names(name):
    t = said(DONE, **{name: False})
    assert (t.reward, t.unused) == (0.0, ())
    assert said(DONE, correct="B").reward is None


# ---- calls in `tool_calls`


@pytest.mark.parametrize(
    "call",
    [
        json.dumps(CALL),
        {"tool_name": "get_weather", "tool_args": {"city": "Oslo"}},
        {"type": "tool_call", "tool": "get_weather", "input": {"city": "Oslo"}},
        {"toolCallId": "c1", "toolName": "get_weather", "args": {"city": "Oslo"}},
    ],
)
def test_calls_as_text_or_with_other_names(call):
    t = said(assistant("", tool_calls=[call]), {"role": "tool", "content": "3"}, DONE)
    assert calls_of(t) == [(OSLO,), ()] and t.skip == {}


def test_a_call_that_cannot_be_read_still_costs_its_turn():
    assert said(assistant("", tool_calls=["look"]), ASK, DONE).skip == {1: "unparseable_call"}


# ---- masks


@pytest.mark.parametrize(
    "field",
    [
        {"masked": True},
        {"ignore": 1},
        {"no_loss": "true"},
        {"learn": False},
        {"do_train": 0},
        {"label": False},
    ],
)
def test_a_turn_that_says_it_is_not_learned_is_context(field):
    t = said(assistant("a", **field), ASK, DONE)
    assert (t.skip, t.unused) == ({1: "context"}, ())
    (name,) = field
    assert (
        said(assistant("a", **{name: not field[name] or field[name] in (1, "true")}), ASK, DONE).unused == ()
    )


@pytest.mark.parametrize("of_users", [0, 1])
def test_what_a_mask_means_is_told_by_the_users_messages(of_users):
    user = {**ASK, "mask": of_users}
    t = read({"messages": [user, assistant("a", mask=of_users), user, assistant("b", mask=1 - of_users)]})
    assert (t.skip, t.unused) == ({1: "context"}, ())


@pytest.mark.parametrize("masks", [(None, 1, 0), (1, 1, 1)])
def test_a_mask_whose_meaning_cannot_be_told_is_named(masks):
    users, first, second = masks
    user = ASK if users is None else {**ASK, "mask": users}
    t = read({"messages": [user, assistant("a", mask=first), user, assistant("b", mask=second)]})
    assert (t.skip, t.unused) == ({}, ("messages.mask",))


# ---- logs of requests

USED = {"type": "message", "role": "assistant", "stop_reason": "tool_use"}
USED["content"] = [{"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Oslo"}}]
MESSAGES_API = {"system": "Be kind.", "messages": [ASK], "max_tokens": 9}
MESSAGES_API["tools"] = [{"name": "get_weather", "input_schema": PARAMETERS}]
CONVERSE = {
    "system": [{"text": "Be kind."}],
    "messages": [{"role": "user", "content": [{"text": "weather?"}]}],
}
SPEC = {"name": "get_weather", "inputSchema": {"json": PARAMETERS}}
CONVERSE["toolConfig"] = {"tools": [{"toolSpec": SPEC}]}
TOOL_USE = {"toolUse": {"toolUseId": "t", "name": "get_weather", "input": {"city": "Oslo"}}}
CONVERSED = {
    "output": {"message": {"role": "assistant", "content": [TOOL_USE]}},
    "stopReason": "tool_use",
}
SYSTEM = {"role": "system", "content": "Be kind."}
CHOICES = [{"index": 0, "message": assistant(None, tool_calls=[CALL]), "finish_reason": "tool_calls"}]
ASKED = {"messages": [SYSTEM, ASK], "tools": [TOOL]}
LOGS = {
    "an Anthropic batch, joined": {
        "custom_id": "a",
        "params": MESSAGES_API,
        "result": {"type": "succeeded", "message": USED},
    },
    "a Bedrock log": {
        "requestId": "a",
        "schemaType": "ModelInvocationLog",
        "input": {"inputBodyJson": MESSAGES_API},
        "output": {"outputBodyJson": USED},
    },
    "a Bedrock batch": {"recordId": "a", "modelInput": MESSAGES_API, "modelOutput": USED},
    "a Bedrock log of Converse": {
        "input": {"inputBodyJson": CONVERSE},
        "output": {"outputBodyJson": CONVERSED},
    },
    "Weave": {"inputs": ASKED, "output": {"choices": CHOICES}},
    "OpenPipe": {"reqPayload": ASKED, "respPayload": {"choices": CHOICES}},
    "Braintrust": {"input": [SYSTEM, ASK], "output": CHOICES, "metadata": {"tools": [TOOL]}},
}


@pytest.mark.parametrize("name", LOGS)
def test_a_log_of_one_request_is_its_messages_and_its_answer(name, tmp_path):
    (t,), left_out = from_file(tmp_path, LOGS[name])
    assert not left_out and roles(t) == ["system", "user", "assistant"] and calls_of(t) == [(OSLO,)]
    assert t.messages[:2] == [SYSTEM, ASK] and t.skip == {}
    assert [tool.get("function", tool)["name"] for tool in t.tools] == ["get_weather"]


def test_an_anthropic_batchs_answer_without_its_request_is_left_out_in_a_sentence():
    with pytest.raises(InputError, match="without its request; join the two files"):
        read({"custom_id": "a", "result": {"type": "succeeded", "message": USED}})


# ---- rows in one text, and last turns beside the messages

CHATML = (
    "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nweather?<|im_end|>\n<|im_start|>assistant\n"
)
LLAMA = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nweather?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)
THOUGHT = "<think>\nhm\n</think>\n\n"
WRITTEN = THOUGHT + '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'


@pytest.mark.parametrize(
    "row",
    [
        {"text": f"{CHATML}{WRITTEN}<|im_end|>\n<|endoftext|>"},
        {"prompt": CHATML, "completion": f"{WRITTEN}<|im_end|>"},
        {"prompt": f"{CHATML}<think>\n", "response": WRITTEN.removeprefix("<think>\n")},
        {"prompt": LLAMA, "chosen": f"{WRITTEN}<|eot_id|>", "rejected": "No."},
        {"text": f"{LLAMA}{WRITTEN}<|eot_id|>"},
    ],
)
def test_a_conversation_that_a_template_rendered_is_its_messages(row, tmp_path):
    (t,), left_out = from_file(tmp_path, row)
    assert not left_out and t.messages[:2] == [SYSTEM, ASK] and calls_of(t) == [(OSLO,)]
    assert len(t.messages) == 3 and t.messages[2]["reasoning_content"] == "hm"


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "<s>[INST] weather? [/INST]", "completion": "3C."},
        {"text": "<start_of_turn>user\nweather?<end_of_turn>\n<start_of_turn>model\n3C.<end_of_turn>"},
        {"text": f"{CHATML}3C.<|im_end|> and more"},
        {"input": "system\nBe kind.\nuser\nweather?\nassistant\n", "output": "3C.", "score": 1.0, "step": 1},
    ],
)
def test_one_that_cannot_be_taken_apart_is_left_out_in_a_sentence(row, tmp_path):
    with pytest.raises(InputError, match="a chat template rendered it into one text"):
        from_file(tmp_path, row)


def test_words_about_marks_in_a_question_stay():
    question = "What does <|im_start|> mean?"
    assert read({"prompt": question, "completion": "It opens."}).messages[0]["content"] == question


def test_an_answer_that_is_the_assistants_message_was_said():
    answer = assistant("", tool_calls=[CALL])
    t = read({"messages": [ASK, assistant("Where?"), ASK], "answer": answer, "tools": [TOOL]})
    assert calls_of(t) == [(), (OSLO,)] and t.unused == ()
    assert read({"messages": [ASK, DONE], "answer": answer}).unused == ("answer",)


# ---- forms of single sets


def test_chatglms_call_and_result_are_one_message():
    one = {"role": "tool", "name": "get_weather", "parameters": {"city": "Oslo"}, "observation": "3"}
    t = said(assistant("I look."), one, {**one, "parameters": {"city": "Rome"}}, DONE, tools=[TOOL])
    assert [m["content"] for m in t.messages[1:]] == ["I look.", "3", "", "3", "3C."]
    assert calls_of(t) == [(OSLO,), (ROME,), ()] and (t.skip, t.unused) == ({}, ())
    nulls = {"role": "tool", "content": "3", "parameters": None, "observation": None}
    assert roles(said(assistant("", tool_calls=[CALL]), nulls, DONE)) == [
        "user",
        "assistant",
        "tool",
        "assistant",
    ]


def test_a_block_with_a_call_per_line():
    lines = "\n".join(
        json.dumps({"name": "get_weather", "parameters": {"city": city}}) for city in ("Oslo", "Rome")
    )
    t = said(assistant(f"<tool_call>\n{lines}\n</tool_call>"))
    assert (calls_of(t), t.dialect, t.skip) == ([(OSLO, ROME)], "hermes", {})
    assert said(assistant(f"<tool_call>\n{lines}\nsee\n</tool_call>")).skip == {1: "unparseable_call"}


def test_json_with_its_name_last_is_no_talk():
    text = 'I look.\n{"arguments": {"city": "Oslo"}, "name": "get_weather"}'
    assert said(assistant(text)).skip == {1: "unparseable_call"}


def test_a_row_whose_trajectory_is_openhands_events(tmp_path):
    events = [
        {"id": 0, "source": "user", "action": "message", "args": {"content": "list"}},
        {"id": 1, "source": "agent", "action": "ls", "args": {}},
    ]
    (t,), _ = from_file(tmp_path, {"trajectory": events, "polarity": "positive"})
    assert (t.source, t.unused) == ("openhands", ("polarity",)) and calls_of(t) == [(Call("ls", {}),)]


# ---- whole episodes in one answer

STEP = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
NEXT = STEP.replace("Oslo", "Rome")


def test_results_in_an_answer_are_the_environments():
    text = f"<think>a</think>\nI look.\n{STEP}\n<tool_response>\n3\n</tool_response>\n<think>b</think>{NEXT}"
    t = read({"prompt": "weather?", "completion": f"{text}\n<tool_response>20</tool_response>\nDone."})
    assert roles(t) == ["user", "assistant", "tool", "assistant", "tool", "assistant"]
    assert calls_of(t) == [(OSLO,), (ROME,), ()] and t.skip == {}
    assert [m["content"] for m in t.messages[1:]] == ["I look.", "3", "", "20", "Done."]
    assert [m.get("reasoning_content") for m in t.messages[1::2]] == ["a", "b", None]


def test_results_of_parallel_calls_in_an_answer():
    results = "<tool_response>3</tool_response>\n<tool_response>20</tool_response>"
    t = said(assistant(f"{STEP}\n{NEXT}\n{results}\nDone."))
    assert calls_of(t) == [(OSLO, ROME), ()] and [m["content"] for m in t.messages[2:4]] == ["3", "20"]


@pytest.mark.parametrize(
    "text",
    [
        "<search>Oslo</search><information>cold</information><answer>3</answer>",
        "<search> Oslo </search><result>\ncold\n</result>\n<answer>3</answer>",
        "<code>\n```python\nprint(3)\n```\n</code>\n<interpreter>\n3\n</interpreter>\n<answer>3</answer>",
    ],
)
def test_a_search_or_code_with_its_result_is_skipped_and_the_answer_has_its_history(text):
    t = said(assistant(text))
    assert roles(t) == ["user", "assistant", "user", "assistant"]
    assert t.skip == {1: "unparseable_call"} and t.messages[3]["content"] == "<answer>3</answer>"


@pytest.mark.parametrize(
    "text",
    [
        "```python\nprint(3)\n```\n```output\n3\n```\nIt is 3.",
        '<functioncall> {"name": "f", "arguments": \'{}\'}\nFUNCTION RESPONSE: 3',
        '[TOOL_CALLS] [{"name": "f", "arguments": {}}][TOOL_RESULTS] 3[/TOOL_RESULTS] It is 3.',
        f"{STEP}\n<tool_response>3",
    ],
)
def test_results_that_are_not_taken_apart_cost_their_turn(text):
    assert said(assistant(text)).skip == {1: "unparseable_call"}


def test_words_about_results_stay():
    text = "A <tool_response>3</tool_response> follows each call."
    assert said(assistant(text)).messages[1]["content"] == text


def test_what_is_skipped_stays_skipped_where_turns_before_it_are_taken_apart(tmp_path):
    blocks = [{"type": "text", "text": f"{STEP}\n<tool_response>3</tool_response>\nDone."}]
    image = [{"type": "image", "source": {}}, {"type": "text", "text": "this?"}]
    messages = [ASK, assistant(blocks), {"role": "user", "content": image}, DONE]
    row = {"messages": messages, "response": {**USED, "content": [{"type": "text", "text": "Bye."}]}}
    (t,), _ = from_file(tmp_path, row)
    assert t.source == "anthropic" and roles(t)[1:4] == ["assistant", "tool", "assistant"]
    assert t.skip == {5: "not_text", 6: "not_text"}


# ---- Harbor's rows, MCP's docs, images by a mark


def test_a_row_that_harbor_exports_has_its_trials_outcome_and_task(tmp_path):
    trial = {"trial_name": "sort__x1", "task": "sort", "agent": "a"}
    t = read({"conversations": [ASK, DONE], "result": "0.0", **trial})
    assert (t.reward, t.scenario, t.unused) == (0.0, "sort", ("agent",))
    t = read({"conversations": [ASK, DONE], "result": "AgentTimeoutError", **trial})
    assert (t.reward, t.unused) == (None, ("result", "agent"))
    assert said(DONE, result="1.0").reward is None
    typed = json.dumps({"analysis": "a", "plan": "p", "commands": [{"keystrokes": "ls\n", "duration": 1}]})
    (t,), _ = from_file(tmp_path, {"conversations": [ASK, assistant(typed)], "result": "1.0", **trial})
    assert (t.source, t.reward, t.scenario) == ("terminus", 1.0, "sort")


def test_a_schema_under_mcps_name():
    doc = {"name": "get_weather", "inputSchema": PARAMETERS}
    assert said(DONE, tools=[doc]).tools == [DOC]
    assert said(DONE, tools=[{"type": "function", "function": doc}]).tools == [TOOL]


@pytest.mark.parametrize("field", ["image_path", "img_filename", "screenshot"])
def test_a_path_beside_a_mark_is_an_image(field):
    shown = {"role": "user", "content": "<image>\nthis?"}
    assert said(DONE, shown, DONE, **{field: "a.png"}).skip == {3: "not_text"}
    assert said(DONE, **{field: "a.png"}).skip == {}


def test_a_templates_token_is_an_image():
    shown = {"role": "user", "content": "<|vision_start|><|image_pad|><|vision_end|>this?"}
    assert said(DONE, shown, DONE).skip == {3: "not_text"}


# ---- agents' steps


@pytest.mark.parametrize(
    "action",
    [
        {"tool": "get_weather", "tool_input": {"city": "Oslo"}, "log": "I look.\nAction: get_weather"},
        {
            "lc": 1,
            "kwargs": {"tool": "get_weather", "tool_input": '{"city": "Oslo"}', "log": "I look.\nAction: x"},
        },
        ["get_weather", '{"city": "Oslo"}', "Thought: I look.\nAction: get_weather"],
    ],
)
def test_what_an_agent_executor_did_comes_before_its_answer(action):
    t = read({"input": "weather?", "intermediate_steps": [[action, {"t": 3}]], "output": "3C."})
    assert t.messages[0] == ASK and calls_of(t) == [(OSLO,), ()] and (t.skip, t.unused) == ({}, ())
    assert [m["content"] for m in t.messages[1:]] == ["I look.", '{"t": 3}', "3C."]


def test_an_agents_input_that_is_a_text_or_broken():
    steps = [[["search", "Oslo", ""], "cold"], [["f", '{"a": ', ""], "bad"]]
    t = read({"input": "weather?", "intermediate_steps": steps, "output": "3C."})
    assert calls_of(t)[0] == (Call("search", {"input": "Oslo"}),) and t.skip == {3: "unparseable_call"}


def test_the_instances_of_toolalpacas_apis(tmp_path):
    steps = [[["get_weather", '{"city": "Oslo"}', "log"], "Status Code: 200"]]
    done = {"input": "weather?", "output": "3C.", "intermediate_steps": steps, "Final Thought": "t"}
    api = {"Name": "Weather", "Function_Description": {"get_weather": "of a city", "components": ""}}
    path = tmp_path / "train_data.json"
    path.write_text(json.dumps([{**api, "Instances": [done, {"input": "x", "error": "e"}]}] * 2))
    trajectories, left_out = reading.read([path])
    assert [calls_of(t) for t in trajectories] == [[(OSLO,), ()]] * 2 and len(left_out) == 2
    assert trajectories[0].tools == [{"name": "get_weather", "description": "of a city"}]
    assert trajectories[0].unused == ("Final Thought",)


def test_dspys_next_tool_is_no_talk():
    text = '[[ ## next_tool_name ## ]]\nsearch\n\n[[ ## next_tool_args ## ]]\n{"q": "x"}'
    assert said(assistant(text)).skip == {1: "unparseable_call"}


@pytest.mark.parametrize("field", ["kwargs", "optional_params", "modelParameters"])
def test_tools_of_a_log_beside_its_messages(field):
    assert said(DONE, **{field: {"tools": [TOOL], "temperature": 0}}).tools == [TOOL]


# ---- results, thinking and roles under other names


@pytest.mark.parametrize(
    "message",
    [
        {"tool_calls": [{**CALL, "result": {"t": 3}}]},
        {"tool_calls": [{"function": {**CALL["function"], "output": '{"t": 3}'}}]},
        {"tool_calls": [CALL], "tool_results": [{"id": "c1", "content": '{"t": 3}'}]},
        {"toolCalls": [{"toolName": "get_weather", "args": {"city": "Oslo"}, "result": {"t": 3}}]},
    ],
)
def test_a_result_in_or_beside_its_call_is_the_tools_message(message):
    t = said(assistant("", **message), DONE)
    assert roles(t) == ["user", "assistant", "tool", "assistant"] and calls_of(t) == [(OSLO,), ()]
    assert (t.messages[2]["content"], t.skip, t.unused) == ('{"t": 3}', {}, ())


def test_a_result_that_follows_as_a_message_is_told_once():
    call = assistant("", tool_calls=[{**CALL, "result": "3"}])
    assert roles(said(call, {"role": "tool", "tool_call_id": "c1", "content": "3"}, DONE)) == [
        *("user", "assistant", "tool", "assistant")
    ]


@pytest.mark.parametrize("name", ["thought", "thoughts", "think", "think_content", "reasoning_text"])
def test_thinking_under_more_names(name):
    t = said(assistant("3C.", **{name: "hm"}))
    assert (t.messages[1]["reasoning_content"], t.unused) == ("hm", ())
    t = said(assistant("I look. ls", **{name: "I look."}))
    assert "reasoning_content" not in t.messages[1] and t.unused == ()


@pytest.mark.parametrize("role", ["tool_output", "tool_results", "function_result", "env", "api"])
def test_more_names_of_the_tools_role(role):
    t = said(assistant("", tool_calls=[CALL]), {"role": role, "content": "3"}, DONE)
    assert roles(t)[2] == "tool" and t.skip == {}


def test_xtuners_turns():
    turns = [
        {"system": "Be kind.", "input": "weather?", "output": "Where?", "output_with_loss": False},
        {"input": "Oslo", "output": STEP},
    ]
    t = read({"conversation": turns})
    assert t.messages[:2] == [SYSTEM, ASK] and calls_of(t) == [(), (OSLO,)] and t.skip == {2: "context"}


def test_code_whose_execution_result_is_told_is_no_talk():
    code = assistant("```python\nprint(3)\n```")
    assert said(code, {"role": "user", "content": "Execution result: 3"}, DONE).skip == {
        1: "unparseable_call"
    }


# ---- fields beside messages, and thinking beside an answer


@pytest.mark.parametrize("name", ["prompt", "query", "instruction", "input"])
def test_what_is_asked_beside_the_messages_is_named_unless_they_hold_it(name):
    assert said(DONE, **{name: "Answer in French."}).unused == (name,)
    assert said(DONE, **{name: "weather?"}).unused == ()
    parts = {"role": "user", "content": [{"type": "text", "text": "time?"}]}
    assert said(DONE, parts, DONE, **{name: "time?"}).unused == ()
    assert said(DONE, **{name: "weather?", "answers": ["5C."]}).unused == ("answers",)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking", "thought"])
def test_thinking_beside_a_question_and_its_answer_is_kept(name):
    t = read({"question": "weather?", "answer": "3C.", name: "It is winter."})
    assert t.messages == [ASK, {**DONE, "reasoning_content": "It is winter."}] and t.unused == ()
    assert read({"question": "weather?", "answer": "3C.", name: "on"}).unused == (name,)


def test_another_conversation_beside_the_messages_is_named():
    other = [{"from": "human", "value": "time?"}, {"from": "gpt", "value": "Noon."}]
    assert said(DONE, conversations=other).unused == ("conversations",)
    same = [{"from": "human", "value": "weather?"}, {"from": "gpt", "value": "3C."}]
    assert said(DONE, conversations=same).unused == ()
    assert said(DONE, trajectory="run-7").unused == ("trajectory",)
    t = read({"messages": [], "conversations": same})
    assert (t.messages, t.unused) == ([ASK, DONE], ())


# ---- calls in a column, and what was done in between


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "weather?", "response": "I look.", "tool_calls": [CALL]},
        {"question": "weather?", "answer": "I look.", "tool_calls": json.dumps([CALL])},
        {"instruction": "weather?", "output": "I look.", "function_call": CALL["function"]},
    ],
)
def test_calls_in_a_column_of_their_own_are_the_answers(row):
    t = read(row)
    assert t.messages[0] == ASK and t.messages[1]["content"] == "I look."
    assert (calls_of(t), t.unused) == ([(OSLO,)], ())


def test_calls_without_a_text_and_an_instruction_with_its_input():
    assert calls_of(read({"prompt": "weather?", "tool_calls": [CALL]})) == [(OSLO,)]
    t = read({"instruction": "Look.", "input": "weather?", "output": "", "tool_calls": [CALL]})
    assert t.messages[0]["content"] == "Look.\nweather?" and calls_of(t) == [(OSLO,)]
    assert read({"prompt": "weather?", "input": "Oslo", "output": "3C."}).unused == ("input",)


@pytest.mark.parametrize(
    "between",
    [
        {"observations": [{"type": "TOOL", "traceId": "t"}]},
        {"steps": [{"tool": "search", "observation": "cold"}]},
        {"child_runs": [{"run_type": "tool"}]},
    ],
)
def test_an_answer_after_steps_that_are_not_read_is_left_out(between):
    with pytest.raises(InputError, match="holds what was done before the answer"):
        read({"input": "weather?", "output": "3C.", **between})
    (name,) = between
    assert read({"input": "weather?", "output": "3C.", name: ["cold air"]}).unused == (name,)


@pytest.mark.parametrize(
    "tools",
    [
        {"get_weather": {"parameters": PARAMETERS}},
        {"get_weather": {"inputSchema": PARAMETERS}},
        {"tools": [{"name": "get_weather", "inputSchema": PARAMETERS}]},
        DOC,
        json.dumps(DOC),
    ],
)
def test_docs_that_are_an_object(tools):
    (tool,) = said(DONE, tools=tools).tools
    assert (tool["name"], tool["parameters"]) == ("get_weather", PARAMETERS)


def test_docs_that_are_one_object_after_another():
    text = f"{json.dumps(DOC, indent=4)}\n\n{json.dumps({'name': 'f'})}\n"
    assert [tool["name"] for tool in said(DONE, tools=text).tools] == ["get_weather", "f"]
    for broken in ("f(city): the weather", f"{json.dumps(DOC)} and more", {"a": 1}):
        with pytest.raises(InputError, match='"tools"'):
            said(DONE, tools=broken)


def test_thinking_that_never_ends_is_no_answer():
    assert said(assistant("<think>It may be"), ASK, DONE).skip == {1: "cut"}
    assert said(assistant(f"<think>It may be\n{STEP}"), ASK, DONE).skip == {1: "unparseable_call"}
    assert said(assistant("<think>a</think>\n3C."), assistant("The tag <think> opens.")).skip == {}


# ---- Harmony's messages (OpenResearcher), Synatra


def harmony(role, text, **more):
    return {
        "role": role,
        "content": [{"type": "text", "text": text, "tools": None}],
        "recipient": None,
        **more,
    }


def test_harmonys_calls_of_other_tools_and_its_system_message():
    space = {"name": "browser", "tools": [{"name": "search", "parameters": PARAMETERS}]}
    system = {
        "type": "system_content",
        "text": None,
        "model_identity": "You are G.",
        "tools": {"browser": space},
    }
    call = harmony("assistant", '{"city": "Oslo"}', channel="analysis", recipient="browser.search")
    messages = [
        {"role": "system", "content": [{**system, "reasoning_effort": "High"}]},
        harmony("user", "weather?"),
        harmony("assistant", "hm", channel="analysis"),
        call,
        harmony("tool", "3", name="browser.search", recipient="assistant", channel="analysis"),
        call,
        harmony("tool", "3", name="browser.search", recipient="assistant", channel="analysis"),
        harmony("assistant", "3C.", channel="final", recipient="all"),
    ]
    t = read({"messages": messages})
    found = Call("browser.search", {"city": "Oslo"})
    assert calls_of(t) == [(found,), (found,), ()] and (t.skip, t.unused) == ({}, ())
    assert roles(t) == ["system", "user", "assistant", "tool", "assistant", "tool", "assistant"]
    assert t.messages[0]["content"] == "You are G.\n\nReasoning: high"
    assert t.messages[2]["reasoning_content"] == "hm" and t.messages[-1] == DONE
    assert [(tool["name"], tool["parameters"]) for tool in t.tools] == [("browser.search", PARAMETERS)]


def test_a_step_of_synatra_is_no_talk():
    text = '# step 3: Look at the price.\nclick(element_id="2921")\n# step summary: Click the price.'
    assert said(assistant(text)).skip == {1: "unparseable_call"}
    assert said(assistant("# step 3: Look at the price.\nThen click(it).")).skip == {}


@pytest.mark.parametrize(
    "row",
    [
        {"chat_messages": {"messages": [ASK, assistant("", tool_calls=[CALL])], "tools": [TOOL]}},
        {"chat_messages": [ASK, assistant("", tool_calls=[CALL])], "tools": [TOOL]},
        {"stitched": json.dumps([ASK, assistant("", tool_calls=[CALL])]), "tools": [TOOL]},
    ],
)
def test_messages_in_columns_of_single_sets(row, tmp_path):
    (t,), left_out = from_file(tmp_path, {"instance_id": "i", **row})
    assert not left_out and calls_of(t) == [(OSLO,)] and (t.tools, t.scenario) == ([TOOL], "i")
    assert (t.skip, t.unused) == ({}, ())


def test_docs_with_arguments_in_place_of_parameters():
    doc = {"name": "f", "arguments": {"n": {"type": "int", "default": "1"}, "city": {"type": "str"}}}
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "default": "1"}, "city": {"type": "string"}},
        "required": ["city"],
    }
    assert said(DONE, tools=[doc]).tools == [{"name": "f", "parameters": schema}]
    (tool,) = said(DONE, tools=[{"type": "function", "function": doc}]).tools
    assert tool == {"type": "function", "function": {"name": "f", "parameters": schema}}
