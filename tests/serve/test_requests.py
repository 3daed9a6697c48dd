"""Bad requests are refused in OpenAI's form, with the field named, and nothing is left out silently."""

import json

import pytest

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
USER = {"role": "user", "content": "Hi"}
CALLED = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
DEEP = json.loads("[" * 200 + "]" * 200)

# (route, fields of the body, the field that the error names, a part of its sentence)
REFUSED = [
    (CHAT, {"model": None}, "model", "missing"),
    (CHAT, {"messages": None}, "messages", "missing or empty"),
    (CHAT, {"messages": []}, "messages", "missing or empty"),
    (CHAT, {"messages": "hi"}, "messages", "list"),
    (CHAT, {"messages": [USER] * 5000}, "messages", "at most 4096"),
    (CHAT, {"messages": [{"role": "wizard", "content": "x"}]}, "messages", "unknown role 'wizard'"),
    (CHAT, {"messages": [USER, {"role": "tool", "content": "x"}]}, "messages", "messages[1]"),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages", "only text"),
    (
        CHAT,
        {"messages": [USER, CALLED]},
        "messages",
        'messages[1]: function_call is not supported; use "tool_calls"',
    ),
    (CHAT, {"messages": [{"role": "assistant", "audio": {"id": "a"}}]}, "messages", "audio is not supported"),
    (CHAT, {"messages": [{"role": "assistant", "content": "a", "refusal": "b"}]}, "messages", "refusal"),
    (CHAT, {"tools": [{"type": "web_search"}]}, "tools", "only tools of type"),
    (CHAT, {"tools": {"a": 1}}, "tools", "list"),
    (CHAT, {"tools": [{"type": "function", "function": {}}]}, "tools", "tools[0]"),
    (CHAT, {"tools": [TOOL] * 600}, "tools", "at most 512"),
    (CHAT, {"tools": [TOOL], "tool_choice": "required"}, "tool_choice", "constrained"),
    (CHAT, {"tools": [TOOL], "tool_choice": {"type": "function"}}, "tool_choice", "constrained"),
    (CHAT, {"tools": [TOOL], "tool_choice": "sometimes"}, "tool_choice", "'sometimes'"),
    (CHAT, {"temperature": -1}, "temperature", "from 0"),
    (CHAT, {"temperature": 1e-30}, "temperature", "1e-05"),
    (CHAT, {"temperature": True}, "temperature", "number"),
    (CHAT, {"top_p": 1.5}, "top_p", "from 0 to 1"),
    (CHAT, {"top_k": 1.5}, "top_k", "whole number"),
    (CHAT, {"n": 0}, "n", "from 1 to 8"),
    (CHAT, {"n": 9}, "n", "from 1 to 8"),
    (CHAT, {"seed": 2**70}, "seed", "whole number"),
    (CHAT, {"max_tokens": 0}, "max_tokens", "from 1 to 2048"),
    (CHAT, {"max_completion_tokens": 5000}, "max_completion_tokens", "from 1 to 2048"),
    (CHAT, {"top_logprobs": 3}, "top_logprobs", "needs logprobs"),
    (CHAT, {"logprobs": 1}, "logprobs", "true or false"),
    (CHAT, {"logprobs": True, "top_logprobs": 21}, "top_logprobs", "from 0 to 20"),
    (CHAT, {"stream": "yes"}, "stream", "true or false"),
    (CHAT, {"stream_options": {"chunk": 1}}, "stream_options", "include_usage"),
    (CHAT, {"stream_options": {"include_usage": "no"}}, "stream_options", "true or false"),
    (CHAT, {"stop": ["a"] * 17}, "stop", "at most 16"),
    (CHAT, {"stop": "x" * 300}, "stop", "256"),
    (CHAT, {"stop": [""]}, "stop", "empty"),
    (CHAT, {"stop": [7]}, "stop", "texts"),
    (CHAT, {"stop_token_ids": ["a"]}, "stop_token_ids", "token id"),
    (CHAT, {"response_format": {"type": "json_object"}}, "response_format", "not supported"),
    (CHAT, {"frequency_penalty": 0.5}, "frequency_penalty", "not supported"),
    (CHAT, {"logit_bias": {"5": 1}}, "logit_bias", "not supported"),
    (CHAT, {"reasoning_effort": "high"}, "reasoning_effort", "not supported"),
    (CHAT, {"chat_template": "{{ x }}"}, "chat_template", "not supported"),
    (CHAT, {"chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs", "enable_thinking"),
    (CHAT, {"messages": [{"role": "user", "content": "word " * 9000}]}, None, "at most 4000"),
    (TEXT, {"prompt": None}, "prompt", "missing or empty"),
    (TEXT, {"prompt": ""}, None, "no tokens"),
    (TEXT, {"prompt": [1, "a"]}, "prompt", "token id"),
    (TEXT, {"prompt": [1, 1664]}, "prompt", "below 1664"),
    (TEXT, {"prompt": [[1], [-1]]}, "prompt", "below 1664"),
    (TEXT, {"prompt": ["a"] * 9}, "prompt", "8 choices"),
    (TEXT, {"prompt": [1] * 4001}, None, "at most 4000"),
    (TEXT, {"prompt": [1] * 3000, "max_tokens": 2000}, "max_tokens", "and 2000 to generate"),
    (TEXT, {"echo": True}, "echo", "not supported"),
    (TEXT, {"suffix": "x"}, "suffix", "not supported"),
    (TEXT, {"best_of": 3}, "best_of", "not supported"),
    (TEXT, {"logprobs": 21}, "logprobs", "from 0 to 20"),
]


@pytest.mark.parametrize("path, fields, param, part", REFUSED)
def test_it_is_refused_with_the_field_and_a_reason(scripted, path, fields, param, part):
    good = {"messages": [USER]} if path == CHAT else {"prompt": "x"}
    status, _, page = scripted.post(path, {"model": "written", **good, **fields})
    error = page["error"]
    assert status == 400 and error["type"] == "invalid_request_error", page
    assert error["param"] == param and part in error["message"]
    assert not scripted.engine.samples


def test_another_model_is_not_found(scripted):
    status, _, page = scripted.post(CHAT, {"model": "gpt-9", "messages": [USER]})
    assert (
        status == 404 and page["error"]["code"] == "model_not_found" and "written" in page["error"]["message"]
    )


NOT_READ = {
    b"": "not valid JSON",
    b"{": "not valid JSON",
    b"[1]": "want an object",
    b"\xff\xfe{}": "not text in UTF-8 (byte 1 is 0xff)",
    b'{"model": "\xc3("}': "not text in UTF-8 (byte 12 is 0xc3)",
    b'{"model": "\\ud800"}': "surrogate",
    b'{"a": ' + b"[" * 50000 + b"]" * 50000 + b"}": "not valid JSON",
    b'{"a": ' + b"9" * 5000 + b"}": "not valid JSON",
    json.dumps({"a": DEEP}).encode(): "nested deeper",
}


@pytest.mark.parametrize("body", NOT_READ)
def test_a_body_that_cannot_be_read_is_one_sentence(scripted, body):
    status, _, page = scripted.post(CHAT, body)
    assert status == 400 and NOT_READ[body] in page["error"]["message"]


def test_what_asks_nothing_is_accepted(scripted, chat):
    scripted.engine.says(chat, "Yes.")
    neutral = {
        "user": "me", "metadata": {"a": "b"}, "store": False, "frequency_penalty": 0, "presence_penalty": 0.0,
        "logit_bias": {}, "response_format": {"type": "text"}, "top_p": 1, "stop": None, "seed": None,
        "functions": [], "tools": [], "tool_choice": "none",
        "chat_template_kwargs": {"enable_thinking": False},
    }  # fmt: skip
    assert scripted.post(CHAT, {"model": "written", "messages": [USER], **neutral})[0] == 200
    assert scripted.post(TEXT, {"model": "written", "prompt": "x", "echo": False, "best_of": 1})[0] == 200


def test_routes_and_methods(scripted):
    assert scripted.get("/v1/nothing")[0] == 404
    status, headers, page = scripted.get(CHAT)
    assert status == 405 and headers["allow"] == "POST" and page["error"]["type"] == "invalid_request_error"
