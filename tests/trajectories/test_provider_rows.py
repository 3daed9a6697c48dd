"""Rows of Gemini's and Bedrock's APIs: results, thinking, function docs, what is not text, what was cut."""

import pytest
from support.reader_samples import only

from pivotrl_jax.trajectories import filters
from pivotrl_jax.trajectories.readers import openai_chat

SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
CAPITALS = {"type": "OBJECT", "properties": {"path": {"type": "STRING"}}, "required": ["path"]}


def read(row):
    return openai_chat.trajectory(row, "rows.jsonl:1")


def gemini(*answers, **more):
    contents = [{"role": "user", "parts": [{"text": "list"}]}, *answers]
    return {"contents": contents, "systemInstruction": {"parts": [{"text": "Be brief."}]}, **more}


def model(*parts):
    return {"role": "model", "parts": list(parts)}


LOOK = model(
    {"text": "hm", "thought": True},
    {"functionCall": {"name": "ls", "args": {"path": "."}}, "thoughtSignature": "x"},
)
GEMINI = gemini(
    LOOK,
    {"role": "user", "parts": [{"functionResponse": {"name": "ls", "response": {"files": ["a"]}}}]},
    model({"text": "It is "}, {"text": "a."}),
    tools=[{"functionDeclarations": [{"name": "ls", "description": "d", "parameters": CAPITALS}]}],
)


def converse(*messages, **more):
    asked = {"role": "user", "content": [{"text": "list"}]}
    return {"system": [{"text": "Be brief."}], "messages": [asked, *messages], **more}


def block(role, *blocks):
    return {"role": role, "content": list(blocks)}


def result(*content, **more):
    return block("user", {"toolResult": {"toolUseId": "t1", "content": list(content), **more}})


USE = block(
    "assistant",
    {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "x"}}},
    {"toolUse": {"toolUseId": "t1", "name": "ls", "input": {"path": "."}}},
)
CONVERSE = converse(
    USE,
    result({"json": {"files": ["a"]}}),
    block("assistant", {"text": "It is a."}, {"cachePoint": {"type": "default"}}),
    toolConfig={"tools": [{"toolSpec": {"name": "ls", "description": "d", "inputSchema": {"json": SCHEMA}}}]},
)


@pytest.mark.parametrize("row", [GEMINI, CONVERSE])
def test_a_whole_conversation(tmp_path, row):
    t = only(tmp_path, row, name="x.json")
    (call,) = t.messages[2]["tool_calls"]
    assert (t.source, t.skip, t.unused) == ("openai", {}, ())
    assert call["function"] == {"name": "ls", "arguments": {"path": "."}}
    assert t.messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "list"},
        {"role": "assistant", "content": "", "tool_calls": [call], "reasoning_content": "hm"},
        {"role": "tool", "content": '{"files": ["a"]}', "tool_call_id": call["id"], "name": "ls"},
        {"role": "assistant", "content": "It is a."},
    ]
    assert t.tools == [{"name": "ls", "description": "d", "parameters": SCHEMA}]


def test_a_result_that_is_an_error():
    t = read(converse(USE, result({"text": "No such"}, {"text": "folder"}, status="error"), USE))
    assert t.messages[3]["content"] == "No such\nfolder" and t.messages[3]["error"] is True
    assert filters.skip_errors([t])[0].skip == {2: "call_error"}


@pytest.mark.parametrize(
    "row",
    [
        gemini(
            LOOK, {"role": "user", "parts": [{"inlineData": {"mimeType": "image/png"}}]}, model({"text": "a"})
        ),
        gemini(LOOK, model({"text": 3})),
        gemini(LOOK, model({"executableCode": {"code": "1"}}, {"text": "a"})),
        converse(USE, result({"image": {"format": "png"}}), block("assistant", {"text": "a"})),
        converse(USE, block("user", {"document": {"name": "d"}}), block("assistant", {"text": "a"})),
    ],
)
def test_what_is_not_text_leaves_out_the_turns_from_there_on(row):
    t = read(row)
    assert t.skip == {len(t.messages) - 1: "not_text"}


@pytest.mark.parametrize(
    "row",
    [
        {**gemini(), "candidates": [{"content": model({"text": "It"}), "finishReason": "MAX_TOKENS"}]},
        {**converse(), "output": {"message": block("assistant", {"text": "It"})}, "stopReason": "max_tokens"},
    ],
)
def test_an_answer_that_was_cut(row):
    assert read(row).skip == {2: "cut"}


@pytest.mark.parametrize("call", [None, "ls", {"args": {}}, {"name": "ls", "args": "x"}])
def test_a_call_that_cannot_be_read_costs_its_turn(call):
    t = read(gemini(LOOK, {"parts": [{"text": "?"}]}, model({"functionCall": call})))
    assert t.skip == {4: "unparseable_call"}


def test_a_content_without_parts_leaves_out_the_turns_after_it():
    assert read(gemini(LOOK, {"role": "user"}, model({"text": "a"}))).skip == {4: "unreadable_message"}
