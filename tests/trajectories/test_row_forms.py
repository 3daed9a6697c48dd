"""Rows that keep a conversation in another shape than a list of messages, and what is left around texts."""

import json
import random

import pytest
from support.damage import damaged
from support.fuzzing import cases

from pivotrl_jax.chat.actions import message_to_action
from pivotrl_jax.chat.reasoning import split_thinking
from pivotrl_jax.records import Call, InputError
from pivotrl_jax.trajectories import reading
from pivotrl_jax.trajectories.readers import langchain, openai_chat
from pivotrl_jax.trajectories.readers.special_tokens import without_special_tokens

CASES = cases(150)  # damaged rows per shape

ASK = {"role": "user", "content": "What is in /srv?"}
LIST = Call("ls", {"path": "/srv"})
HERMES = '<tool_call>\n{"name": "ls", "arguments": {"path": "/srv"}}\n</tool_call>'
CALL = {"id": "c1", "type": "function", "function": {"name": "ls", "arguments": '{"path": "/srv"}'}}
ANSWER = {"role": "assistant", "content": None, "tool_calls": [CALL]}
ITEM = {"type": "function_call", "call_id": "c1", "name": "ls", "arguments": '{"path": "/srv"}'}
DOC = {"name": "ls", "parameters": {"type": "object", "properties": {"path": {"type": "string"}}}}


def read(row):
    return openai_chat.trajectory(row, "rows.jsonl:1")


def calls_of(trajectory):
    return [message_to_action(m).calls for m in trajectory.messages if m["role"] == "assistant"]


def roles(trajectory):
    return [m["role"] for m in trajectory.messages]


# ---- whole rows

ONE_CALL = {
    "Responses": {"input": [ASK], "output": [ITEM]},
    "Responses, a text as input": {"input": "What is in /srv?", "output": [ITEM]},
    "Responses, a log": {"request": {"input": [ASK]}, "response": {"object": "response", "output": [ITEM]}},
    "Responses, items only": {"input": [ASK, ITEM]},
    "batch": {
        "custom_id": "r1",
        "body": {"messages": [ASK]},
        "response": {"status_code": 200, "body": {"choices": [{"message": ANSWER}]}},
    },
    "batch, as JSON text": {
        "request_body": json.dumps({"messages": [ASK]}),
        "response_body": json.dumps({"choices": [{"message": ANSWER}]}),
    },
    "choices beside messages": {"messages": [ASK], "choices": [{"message": ANSWER}]},
    "a proxy's input and output": {"input": {"messages": [ASK]}, "output": ANSWER},
    "a proxy's list and output": {"input": [ASK], "output": ANSWER},
    "a pair of texts": {"prompt": ASK["content"], "response": HERMES},
    "a pair of another name": {"question": ASK["content"], "answer": HERMES},
    "messages and a text": {"input": [ASK], "output": HERMES},
    "what was chosen": {"prompt": [ASK], "chosen": [{"role": "assistant", "content": HERMES}]},
    "a whole chosen conversation": {"chosen": [ASK, ANSWER], "rejected": [ASK]},
    "OpenAI's preferences": {"input": {"messages": [ASK]}, "preferred_output": [ANSWER]},
    "LLaMA-Factory's preferences": {
        "conversations": [{"from": "human", "value": ASK["content"]}],
        "chosen": {"from": "gpt", "value": HERMES},
    },
    "items among messages": {"messages": [ASK, ITEM]},
    "Gemini": {
        "contents": [
            {"role": "user", "parts": [{"text": ASK["content"]}]},
            {"role": "model", "parts": [{"functionCall": {"name": "ls", "args": {"path": "/srv"}}}]},
        ]
    },
    "Gemini, a log": {
        "request": {"contents": [{"parts": [{"text": ASK["content"]}]}]},
        "response": {
            "candidates": [
                {"content": {"parts": [{"function_call": {"name": "ls", "args": {"path": "/srv"}}}]}}
            ]
        },
    },
    "Converse, a log": {
        "messages": [{"role": "user", "content": [{"text": ASK["content"]}]}],
        "output": {
            "message": {
                "role": "assistant",
                "content": [{"toolUse": {"toolUseId": "t", "name": "ls", "input": {"path": "/srv"}}}],
            }
        },
        "stopReason": "tool_use",
    },
    "columns": {"messages": {"role": ["user", "assistant"], "content": [ASK["content"], HERMES]}},
    "exchanges": {"conversation": [{"user": ASK["content"], "assistant": HERMES}]},
}


@pytest.mark.parametrize("name", ONE_CALL)
def test_a_question_and_a_call_in_any_shape(name, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ONE_CALL[name]) + "\n", encoding="utf-8")
    assert reading.recognise(path) == "openai_chat"
    (t,), left_out = reading.read(path)
    assert (left_out, t.skip, calls_of(t), roles(t)) == ({}, {}, [(LIST,)], ["user", "assistant"])
    assert t.messages[0]["content"] == ASK["content"]


def test_what_was_rejected_is_named_and_not_demonstrated():
    t = read({"prompt": [ASK], "chosen": [ANSWER], "rejected": [{"role": "assistant", "content": "No."}]})
    assert t.unused == ("rejected",) and calls_of(t) == [(LIST,)]


@pytest.mark.parametrize("name", ["label", "kto_tag"])
def test_an_answer_that_is_labelled_undesirable_is_context(name):
    rows = [ASK, {"role": "assistant", "content": "Ask me."}, ASK, {"role": "assistant", "content": "No."}]
    assert read({"messages": rows, name: False}).skip == {3: "context"}
    assert read({"messages": rows, name: True}).skip == {}


@pytest.mark.parametrize(
    "several",
    [
        lambda choices: {"choices": choices},
        lambda choices: {"response": {"choices": choices}},
        lambda choices: {"response": json.dumps({"choices": choices})},
        lambda choices: {"completion": {"choices": choices}},
    ],
)
def test_choices_after_the_first_are_named(several):
    first, second = {"message": ANSWER}, {"message": {"role": "assistant", "content": "No."}}
    t = read({"messages": [ASK], **several([first, second])})
    assert t.unused == ("choices after the first",) and calls_of(t) == [(LIST,)]
    t = read({"messages": [ASK], **several([first])})
    assert t.unused == () and calls_of(t) == [(LIST,)]


def test_an_instruction_keeps_its_input():
    t = read({"instruction": "List.", "input": "/srv", "response": HERMES})
    assert t.messages[0]["content"] == "List.\n/srv" and t.unused == ()


def test_a_response_with_thinking_results_and_instructions():
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "I look."}]}
    result = {"type": "function_call_output", "call_id": "c1", "output": "a.py"}
    done = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a.py"}]}
    row = {"instructions": "Be brief.", "input": [ASK, thought, ITEM, result], "output": [done]}
    t = read({**row, "tools": [{"type": "function", **DOC}]})
    assert roles(t) == ["system", "user", "assistant", "tool", "assistant"]
    assert t.messages[2]["reasoning_content"] == "I look." and t.skip == {}
    assert [d["name"] for d in t.tools] == ["ls"]


def test_a_custom_tools_text_is_its_one_argument():
    call = {"type": "custom_tool_call", "call_id": "c", "name": "apply", "input": "*** Begin"}
    t = read({"input": [ASK], "output": [call]})
    assert calls_of(t) == [(Call("apply", {"input": "*** Begin"}),)]


@pytest.mark.parametrize(
    "odd, slug",
    [
        ({"type": "web_search_call", "id": "w"}, "unreadable_message"),
        ({"role": "user", "content": [{"type": "input_image", "image_url": "u"}]}, "not_text"),
    ],
)
def test_an_odd_item_of_a_response_costs_the_turns_after_it(odd, slug):
    result = {"type": "function_call_output", "call_id": "c1", "output": "a.py"}
    t = read({"input": [ASK, ITEM, result, odd], "output": [{**ITEM, "call_id": "c2"}]})
    assert list(t.skip.values()) == [slug] and calls_of(t) == [(LIST,), (LIST,)]


@pytest.mark.parametrize(
    "row, words",
    [
        ({"custom_id": "r", "response": {"body": {"choices": [{"message": ANSWER}]}}}, "custom_id"),
        ({"input": [ASK], "output": [ITEM], "previous_response_id": "r0"}, "previous_response_id"),
    ],
)
def test_a_row_without_its_history_is_left_out_in_a_sentence(row, words):
    assert openai_chat.recognise(row, None)
    with pytest.raises(InputError, match=words):
        read(row)


def test_glaives_chat():
    chat = (
        'USER: What is in /srv?\n\n\nASSISTANT: <functioncall> {"name": "ls", "arguments": '
        '\'{"path": "/srv"}\'} <|endoftext|>\n\n\nFUNCTION RESPONSE: ["a.py"]\n\n\n'
        "ASSISTANT: One file: a.py. USER: is a word here. <|endoftext|>\n"
    )
    t = read({"system": "SYSTEM: You have functions.", "chat": chat})
    assert roles(t) == ["system", "user", "assistant", "tool", "assistant"] and t.skip == {}
    assert t.messages[0]["content"] == "You have functions." and t.messages[3]["content"] == '["a.py"]'
    assert calls_of(t) == [(LIST,), ()]
    assert t.messages[4]["content"] == "One file: a.py. USER: is a word here."


def test_the_agent_data_protocol():
    steps = [
        {"class_": "text_observation", "content": "What is in /srv?", "source": "user"},
        {"class_": "api_action", "function": "ls", "kwargs": {"path": "/srv"}, "description": "I look."},
        {"class_": "text_observation", "content": "a.py", "source": "environment"},
        {"class_": "code_action", "language": "bash", "content": "cat a.py", "description": None},
        {"class_": "text_observation", "content": "x", "source": "environment"},
        {"class_": "code_action", "language": "python", "content": "1+1", "description": None},
        {"class_": "web_observation", "html": "<p>", "image_observation": None},
        {"class_": "message_action", "content": "It is x.", "description": "So."},
    ]
    t = read({"id": "e", "content": steps})
    shell, code = Call("bash", {"command": "cat a.py"}), Call("python", {"code": "1+1"})
    assert calls_of(t) == [(LIST,), (shell,), (code,), ()] and t.messages[2]["content"] == "a.py"
    assert t.messages[1]["content"] == "I look." and t.messages[-1]["reasoning_content"] == "So."
    assert t.skip == {7: "not_text"}
    t = read({"content": [*steps[:3], {"class_": "api_action"}, {"class_": "dream"}, steps[-1]]})
    assert t.skip == {3: "unparseable_call", 5: "unreadable_message"}


def test_r2e_gyms_steps():
    action = "<function=ls>\n<parameter=path>/srv</parameter>\n</function>"
    steps = [
        {"thought": "I look.", "action": action, "observation": "Execution output of [ls]:\na.py"},
        {"thought": "Again.", "action": action, "observation": ""},
    ]
    t = read({"problem_statement": "List.", "trajectory_steps": steps, "instance_id": "i", "reward": 1})
    assert (calls_of(t), t.reward, t.scenario) == ([(LIST,), (LIST,)], 1.0, "i")
    assert roles(t) == ["user", "assistant", "tool", "assistant"] and t.messages[1]["content"] == "I look."


def test_a_langsmith_run_that_holds_only_outputs():
    messages = [
        {"type": "human", "content": "List."},
        {"type": "ai", "content": "", "tool_calls": [{"name": "ls", "args": {"path": "/srv"}, "id": "c"}]},
    ]
    assert calls_of(langchain.trajectory({"outputs": {"messages": messages}}, "r.json")) == [(LIST,)]
    run = {"inputs": {"messages": [ASK]}, "outputs": ANSWER}
    assert langchain.recognise(run, None) and calls_of(langchain.trajectory(run, "r.json")) == [(LIST,)]


@pytest.mark.parametrize("name", ONE_CALL)
def test_damage_is_named_and_no_call_becomes_talk(name):
    for seed in range(CASES):
        row = damaged(random.Random(f"{name} {seed}"), ONE_CALL[name])
        try:
            t = read(row) if openai_chat.recognise(row, None) else None
        except InputError:
            continue
        for i, message in enumerate(t.messages if t else ()):
            if message["role"] == "assistant" and not message.get("tool_calls") and i not in t.skip:
                assert "/srv" not in message["content"], (seed, row)


# ---- several steps in one message

STEPS = (
    'Thought: look\nAction: ls\nAction Input: {"path": "/srv"}\nObservation: a.py\n'
    'Thought: again\nAction: ls\nAction Input: {"path": "/srv"}\nObservation: a.py\nb.py\n'
    "Thought: I know\nFinal Answer: two"
)


def test_steps_of_react_in_one_message_are_turns():
    t = read({"messages": [ASK, {"role": "assistant", "content": STEPS, "reasoning": "Hm."}]})
    assert roles(t) == ["user", "assistant", "tool", "assistant", "tool", "assistant"]
    assert calls_of(t) == [(LIST,), (LIST,), ()] and t.skip == {} and t.dialect == "react"
    assert t.messages[4]["content"] == "Observation: a.py\nb.py"
    assert [m.get("reasoning_content") for m in t.messages[1::2]] == ["Hm.", None, None]


def test_a_weight_of_steps_in_one_message_holds_for_all_of_them():
    t = read(
        {
            "messages": [
                ASK,
                {"role": "assistant", "content": STEPS, "weight": 0},
                ASK,
                ANSWER | {"tool_calls": None, "content": "Yes."},
            ]
        }
    )
    assert t.skip == {1: "context", 3: "context", 5: "context"}


def test_steps_that_cannot_all_be_read_are_skipped_as_one_turn():
    text = STEPS.replace(
        '{"path": "/srv"}\nObservation: a.py\nb', '{"path": \nObservation: a.py\nAction: b', 1
    )
    broken = STEPS.replace("Action Input", "Input", 1)
    for bad in (broken, text.replace("Action: ls", "Action:", 1)):
        t = read(
            {
                "messages": [
                    ASK,
                    {"role": "assistant", "content": "Hi."},
                    ASK,
                    {"role": "assistant", "content": bad},
                ]
            }
        )
        assert t.skip == {3: "unparseable_call"}, bad


def test_a_last_step_that_cannot_be_read_costs_its_turn():
    text = STEPS.partition("Thought: I know")[0] + "Thought: c\nAction: ls\nAction Input: {} or"
    t = read({"messages": [ASK, {"role": "assistant", "content": text}]})
    assert t.skip == {5: "unparseable_call"} and calls_of(t)[:2] == [(LIST,), (LIST,)]


def test_an_explanation_of_react_is_not_taken_apart():
    text = f"ReAct looks like this:\n{STEPS}"
    t = read(
        {
            "messages": [
                ASK,
                {"role": "assistant", "content": "Hi."},
                ASK,
                {"role": "assistant", "content": text},
            ]
        }
    )
    assert len(t.messages) == 4 and t.skip == {3: "unparseable_call"}


# ---- what is left around texts


@pytest.mark.parametrize(
    "text",
    [
        "Done.<|im_end|>",
        "<|im_start|>assistant\nDone.<|im_end|>\n",
        "<|start_header_id|>assistant<|end_header_id|>\n\nDone.<|eot_id|>",
        "Done.</s>",
        "Done. <|endoftext|>",
        "Done.<|eom_id|><|end_of_text|>",
        "<start_of_turn>model\nDone.<end_of_turn>\n",
    ],
)
def test_tokens_of_a_template_are_no_text(text):
    assert without_special_tokens(text) == "Done."


@pytest.mark.parametrize(
    "text", ["The token `</s>` ends a text.", "  Done.\n", "<|python_tag|>ls()", "x<|call|>"]
)
def test_other_texts_stay_as_they_are(text):
    assert without_special_tokens(text) == text


def test_an_end_token_after_a_call_does_not_hide_it():
    text = '{"name": "ls", "parameters": {"path": "/srv"}}<|eom_id|>'
    rows = [ASK, {"role": "assistant", "content": text}, {"role": "ipython", "content": "a.py"}]
    t = read({"messages": rows, "tools": [DOC]})
    assert calls_of(t) == [(LIST,)] and roles(t)[2] == "tool"


@pytest.mark.parametrize(
    "text",
    [
        "◁think▷hm◁/think▷Done.",
        "<seed:think>hm</seed:think>Done.",
        "<Thinking>hm</Thinking>\nDone.",
        "[THINK]hm[/THINK]Done.",
        "[|think|]hm[|/think|]Done.",
        "<|inner_prefix|>hm<|inner_suffix|>Done.",
        "<|begin_of_thought|>\n\nhm\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\nDone.\n\n<|end_of_solution|>",
        "<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>Done.<|END_RESPONSE|>",
    ],
)
def test_thinking_between_the_marks_of_any_model(text):
    assert split_thinking(text) == ("hm", "Done.")


@pytest.mark.parametrize(
    "text", ["I write ◁think▷ and ◁/think▷.", "[THINK] is never closed", "◁/think▷ alone"]
)
def test_marks_that_are_no_block_at_the_start_stay(text):
    assert split_thinking(text) == ("", text)


@pytest.mark.parametrize("name", ["system", "system_prompt", "system_message", "instructions"])
@pytest.mark.parametrize("value", ["Be brief.", ["Be", "brief."], [{"type": "text", "text": "Be brief."}]])
def test_a_system_message_beside_the_turns(name, value):
    t = read({name: value, "messages": [ASK, ANSWER]})
    assert roles(t) == ["system", "user", "assistant"] and t.unused == ()
    assert t.messages[0]["content"].split() == ["Be", "brief."]


def test_calls_and_results_of_smolagents_memory():
    function = {"name": "ls", "arguments": {"path": "/srv"}}
    calling = f"Calling tools:\n{[{'id': 'c', 'type': 'function', 'function': function}]}"
    rows = [
        ASK,
        {"role": "assistant", "content": [{"type": "text", "text": "I look."}]},
        {"role": "tool-call", "content": [{"type": "text", "text": calling}]},
        {"role": "tool-response", "content": [{"type": "text", "text": "Observation:\na.py"}]},
    ]
    t = read({"messages": rows})
    assert calls_of(t) == [(LIST,)] and t.messages[1]["content"] == "I look." and roles(t)[2] == "tool"


def test_nulls_that_arrow_adds_inside_declared_arguments_are_none():
    inner = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": ["string", "null"]}}}
    inner["properties"] |= {"c": {"type": "string"}, "d": {"type": "string"}}
    doc = {"name": "set", "parameters": {"type": "object", "properties": {"o": {**inner, "required": ["d"]}}}}
    call = {"name": "set", "arguments": {"o": {"a": 1, "b": None, "c": None, "d": None, "e": None}}}
    t = read({"messages": [ASK, {"role": "assistant", "tool_calls": [{"function": call}]}], "tools": [doc]})
    assert calls_of(t) == [(Call("set", {"o": {"a": 1, "b": None, "d": None}}),)]


def test_a_here_document_that_a_fence_of_its_own_cuts_is_skipped():
    prompt = {"role": "user", "content": "Answer with one ```bash code block."}
    cut = "```bash\ncat <<'EOF' > R.md\n```python\nx\n```\nend\nEOF\n```"
    whole = "```bash\ncat <<'EOF' > R.md\nend\nEOF\n```"
    seen = {"role": "user", "content": "<returncode>0</returncode>"}
    rows = [prompt, {"role": "assistant", "content": whole}, seen, {"role": "assistant", "content": cut}]
    t = read({"messages": [*rows, seen]})
    assert t.skip == {3: "unparseable_call"}
    assert calls_of(t)[0] == (Call("bash", {"command": "cat <<'EOF' > R.md\nend\nEOF"}),)
