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
    ],
)
def test_talk_about_actions_stays_talk(text):
    assert said(assistant(text), tools=[TOOL]).skip == {}
