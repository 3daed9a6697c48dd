"""A chat reply is an action without a detour through text; what is wrong with it costs that sample only."""

import dataclasses
import json

import pytest
from support import tiny_run

from pivotrl_jax import verifiers
from pivotrl_jax.chat import replies as chat_replies
from pivotrl_jax.chat.messages import UNPARSEABLE, read_messages
from pivotrl_jax.endpoints import Failure
from pivotrl_jax.records import Call, Candidate, Rollout, read_records, to_json
from pivotrl_jax.rollouts import journal, replies
from pivotrl_jax.rollouts.actor import Completion
from pivotrl_jax.rollouts.rollout import verdict_of


def call(name="f", arguments='{"a": 1}', **fields):
    return {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}, **fields}


TOOLS = [{"name": "f", "description": "", "parameters": {"type": "object", "properties": {"a": {}}}}]


@pytest.mark.parametrize(
    ("message", "content", "reasoning", "calls", "malformed"),
    [
        ({"content": " hello "}, "hello", "", (), ""),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "ab", "", (), ""),
        ({"refusal": "I will not."}, "I will not.", "", (), ""),
        ({"tool_calls": [call()]}, "", "", (Call("f", {"a": 1}),), ""),
        (
            {"content": "so:", "tool_calls": [call(), call("g", "")]},
            "so:",
            "",
            (Call("f", {"a": 1}), Call("g", {})),
            "",
        ),
        ({"content": "x", "reasoning_content": "hm"}, "x", "hm", (), ""),
        ({"content": "x", "reasoning": "hm"}, "x", "hm", (), ""),
        ({"content": "<think>\nhm\n</think>\n\nx"}, "x", "hm", (), ""),
        ({"content": "<think>\nhm"}, "<think>\nhm", "", (), "never closed"),
        ({"tool_calls": [call(arguments='{"a": ')]}, "", "", (), "not valid JSON"),
        ({"tool_calls": [call(arguments="[1]")]}, "", "", (), "want an object"),
        ({"tool_calls": [call(arguments='{"a": NaN}')]}, "", "", (), "not valid JSON"),
        ({"tool_calls": [call(), call(arguments="{")]}, "", "", (Call("f", {"a": 1}),), "tool_calls[1] (f)"),
        ({"tool_calls": [{"id": "x"}]}, "", "", (), "no name of a function"),
        ({"tool_calls": "f(1)"}, "", "", (), "no name of a function"),
        ({"fault": "cut by the filter"}, "", "", (), "cut by the filter"),
        (
            {"content": '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'},
            '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>',
            "",
            (),
            "hermes, that the server did not parse",
        ),
        ({"content": "<tool_call>\n{"}, "<tool_call>\n{", "", (), "that the server did not parse"),
        (  # one of two calls
            {"content": '<tool_call>\n{"name": "f", "arg', "tool_calls": [call()]},
            '<tool_call>\n{"name": "f", "arg',
            "",
            (Call("f", {"a": 1}),),
            "that the server did not parse",
        ),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                    {"type": "text", "text": "x"},
                ],
                "tool_calls": [call()],
            },
            "x",
            "hm",
            (Call("f", {"a": 1}),),
            "",
        ),
    ],
)
def test_what_a_reply_stands_for(message, content, reasoning, calls, malformed):
    action = chat_replies.action_of(message, TOOLS)
    assert (action.content, action.reasoning, action.calls) == (content, reasoning, calls)
    assert malformed in action.malformed and bool(malformed) == bool(action.malformed)
    assert action.text == chat_replies.text_of(message)


def test_a_reply_is_shown_as_text():
    message = {"content": "so:", "reasoning_content": "hm", "tool_calls": [call(arguments='{"a": ')]}
    assert chat_replies.text_of(message) == (
        '<think>\nhm\n</think>\n\nso:\n<tool_call>\n{"name": "f", "arguments": {"a": }\n</tool_call>'
    )


def test_messages_and_tools_go_out_as_the_api_wants_them():
    history = [
        {"role": "user", "content": "lone \ud800 half"},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "hm",
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": {"a": "é"}}}
            ],
        },
        {"role": "tool", "content": "1", "tool_call_id": "c", "name": "f"},
    ]
    c = tiny_run.candidate("t")
    state = Candidate(
        **{**vars(c), "messages": history, "tools": [TOOLS[0], {"type": "function", "function": TOOLS[0]}]}
    )
    body = replies.chat_body(state, True, {"enable_thinking": False})
    assert body["messages"][0]["content"] == "lone \ufffd half"
    assert body["messages"][1]["tool_calls"][0]["function"]["arguments"] == '{"a": "é"}'
    assert body["messages"][1]["reasoning_content"] == "hm" and body["messages"][2] == history[2]
    assert body["tools"] == [{"type": "function", "function": TOOLS[0]}] * 2
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    bare = replies.chat_body(c, False, {})
    assert set(bare) == {"messages"}
    assert "reasoning_content" not in replies.chat_body(state, False, {})["messages"][1]
    assert history[1]["tool_calls"][0]["function"]["arguments"] == {"a": "é"}, "the history is not changed"


def reply(**fields):
    return {"choices": [{"message": {"content": "x"}, "finish_reason": "stop", **fields}]}


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({}, "no completion"),
        ({"choices": []}, "it has none"),
        ({"choices": [3]}, "no object"),
        (reply(message=None), "no message"),
        (reply(finish_reason=None), "finish_reason None"),
        (reply(finish_reason="abort"), "finish_reason 'abort'"),
    ],
)
def test_half_a_chat_reply_is_a_failure(value, why):
    found = replies.read_reply(value, replies.CHAT, 1, 8)
    assert isinstance(found, Failure) and why in found.why


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"token_ids": []}, "no token_ids"),
        ({"token_ids": [1, -2]}, "no token_ids"),
        ({"token_ids": [1, True]}, "no token_ids"),
        ({"token_ids": [1, 2.0]}, "no token_ids"),
        ({"logprobs": {"token_logprobs": [-1.0]}}, "without a log-prob"),
        ({"logprobs": {"token_logprobs": [-1.0, None]}}, "without a log-prob"),
        ({"logprobs": {"token_logprobs": [-1.0, float("nan")]}}, "without a log-prob"),
        ({"finish_reason": "abort"}, "finish_reason 'abort'"),
    ],
)
def test_half_a_completion_is_a_failure(fields, why):
    whole = {"token_ids": [1, 2], "logprobs": {"token_logprobs": [-1.0, -2]}, "finish_reason": "stop"}
    assert replies.read_reply({"choices": [whole]}, replies.COMPLETIONS, 1, 8)[0].token_ids == [1, 2]
    found = replies.read_reply({"choices": [{**whole, **fields}]}, replies.COMPLETIONS, 1, 8)
    assert isinstance(found, Failure) and why in found.why


@pytest.mark.parametrize(
    ("fields", "more", "finished"),
    [
        ({"finish_reason": "tool_calls"}, {"usage": {"completion_tokens": 7}}, True),
        ({"finish_reason": "tool_calls"}, {"usage": {"completion_tokens": 8}}, False),
        ({"finish_reason": "function_call"}, {"usage": {"completion_tokens": 8}}, False),
        ({"finish_reason": "tool_calls", "token_ids": [1] * 8}, {}, False),
        ({"finish_reason": "tool_calls", "token_ids": [1] * 7}, {"usage": {"completion_tokens": 8}}, True),
        ({"finish_reason": "stop"}, {"usage": {"completion_tokens": 8}}, True),
        ({"finish_reason": "tool_calls"}, {"usage": None}, True),
    ],
)
def test_a_call_in_a_reply_that_the_limit_cut_does_not_finish_it(fields, more, finished):
    """vLLM says "tool_calls" where it would say "length"."""
    value = {**reply(tool_calls=[call()], **fields), **more}
    (found,) = replies.read_reply(value, replies.CHAT, 1, 8)
    assert found.finished == finished


def test_the_usage_of_several_choices_says_nothing_about_one():
    value = {**reply(finish_reason="tool_calls"), "usage": {"completion_tokens": 12}}
    value["choices"] *= 2
    assert all(one.finished for one in replies.read_reply(value, replies.CHAT, 2, 8))
    body = replies.chat_body(tiny_run.candidate("t"), True, {}, samples=2)
    assert body["return_token_ids"] and replies.optional(body) == ["return_token_ids"]


def test_a_broken_call_of_the_history_goes_out_as_it_was_written():
    (message,) = read_messages([{"role": "assistant", "content": "", "tool_calls": [call()]}])
    message["tool_calls"][0]["function"]["arguments"] = {UNPARSEABLE: "{bad json"}
    state = dataclasses.replace(tiny_run.candidate("t"), messages=[message])
    (sent,) = replies.chat_body(state, True, {})["messages"]
    assert sent["tool_calls"][0]["function"]["arguments"] == "{bad json"


def test_more_choices_than_asked_for_are_left_out_and_names_are_short():
    value = {**reply(), "model": "m" * 10_000, "system_fingerprint": 3}
    value["choices"] *= 5
    found = replies.read_reply(value, replies.CHAT, 2, 8)
    assert len(found) == 2 and len(found[0].served["model"]) == replies.NAME_LENGTH
    assert found[0].served["fingerprint"] == ""


def test_a_deep_reply_and_a_filtered_one_are_malformed():
    deep = json.loads('{"a":' * 200 + "1" + "}" * 200)
    for value, why in (
        (reply(message={"content": "", "tool_calls": [deep]}), "nested deeper"),
        (reply(finish_reason="content_filter"), "content filter"),
    ):
        (found,) = replies.read_reply(value, replies.CHAT, 1, 8)
        assert why in chat_replies.action_of(found.served["message"]).malformed


# ---- on disk


def test_rollouts_of_the_own_sampler_are_written_as_ever_and_old_ones_are_read(tmp_path):
    own = Rollout("c", 0, [1], [-1.0], [-1.0], True, "x", 1.0, "ok")
    line = to_json(own)
    assert "served" not in line
    theirs = Rollout("c", 1, [], [], [], True, "x", 1.0, "ok", served={"mode": "chat", "model": "m"})
    (tmp_path / "r.jsonl").write_text(f"{line}\n{to_json(theirs)}\n", "utf-8")
    assert read_records(tmp_path / "r.jsonl", Rollout) == [own, theirs]


def test_a_journal_drops_what_a_kill_or_a_full_disk_spoilt(tmp_path):
    file = tmp_path / "0.partial"
    first = Completion([1, 2], [-1.0, -2.0], [-1.0, -2.0], True, served={"mode": "completions"})
    second = Completion([], [], [], True, served={"message": {"content": "\ud800"}})
    writer = journal.Journal(file)
    writer.add(("a", 0), first)
    writer.add(("\ud800", 1), second)
    writer.close(delete=False)
    with file.open("ab") as f:
        f.write(b'\0\0\0\n[1]\n{"name": "b"}\n{"name": "c", "sample": 0, "tok')
    found = journal.Journal(file).read()
    assert found == {("a", 0): first, ("\ud800", 1): second}
    assert file.read_bytes().endswith(b'{"name": "b"}\n'), (
        "the torn line is cut off, so that the next is whole"
    )
    journal.Journal(file).close(delete=True)
    assert not file.exists()


def test_a_malformed_reply_is_scored_0_and_an_unfinished_one_too():
    c = Candidate(**{**vars(tiny_run.candidate("t")), "demonstration": {"role": "assistant", "content": "1"}})
    served = {"mode": "chat", "message": {"content": "1"}}

    def verdict(finished=True, **message):
        drawn = Completion([], [], [], finished, served={**served, "message": message})
        return verdict_of(tiny_run.Numbers(), verifiers.get("exact"), c, drawn, "not read")

    assert verdict(content="1").reward == 1
    cut = verdict(finished=False, content="1")
    assert (cut.reward, cut.reason) == (0.0, "unfinished")
    assert verdict(content="1", tool_calls=[call(arguments="{")]).reward == 0
