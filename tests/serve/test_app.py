"""What clients get: OpenAI's forms, whole and streamed, for completions that the tests write."""

import json

import openai
import pytest
from support.served import KEY

from pivotrl_jax.serve.engine import Piece

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Köln"}}\n</tool_call>'
ASK = {"model": "written", "messages": [{"role": "user", "content": "Hello."}]}

# text of the model -> (content, thinking, calls) with the tool given
TEXTS = {
    "plain": ("It is sunny, ☀ and 21 °C.", ("It is sunny, ☀ and 21 °C.", "", 0)),
    "call": (CALL, (None, "", 1)),
    "words and two calls": (f"I look.\n{CALL}\n{CALL}", ("I look.", "", 2)),
    "thinking": ("<think>\nHm, a < b.\n</think>\n\nYes.", ("Yes.", "Hm, a < b.", 0)),
    "thinking and a call": (f"<think>\nHm.\n</think>\n\n{CALL}", (None, "Hm.", 1)),
    "two thoughts and a call": (f"<think>a</think>\n<think>b</think>\n{CALL}", (None, "a\nb", 1)),
    "thinking under another name": ("<thought>a</thought>\n\nHi", ("<thought>a</thought>\n\nHi", "", 0)),
    "a word about tags": ("It is </think>. Use it.", ("It is </think>. Use it.", "", 0)),
    "code": ("\n\n    def f():\n        pass\n", ("    def f():\n        pass\n", "", 0)),
    "broken call": (CALL[:40], (CALL[:40], "", 0)),
    "no JSON": ("Well <tool_call>f()</tool_call>", ("Well <tool_call>f()</tool_call>", "", 0)),
    "thinking without end": ("<think>\nOn and on", ("", "On and on", 0)),
    "almost a mark": ("a <tool and a <b> c", ("a <tool and a <b> c", "", 0)),
    "nothing": ("", ("", "", 0)),
}  # fmt: skip


def joined(events: list[dict], index: int = 0) -> dict:
    """The message and the rest of a choice, put together from events."""
    message, out = {"content": "", "reasoning_content": "", "tool_calls": []}, {"token_ids": []}
    for event in events:
        for choice in event["choices"]:
            if choice["index"] != index:
                continue
            delta = choice["delta"]
            for name in ("content", "reasoning_content"):
                message[name] += delta.get(name) or ""
            message["tool_calls"] += delta.get("tool_calls", [])
            out["token_ids"] += choice.get("token_ids", [])
            out["finish"] = choice["finish_reason"]
    return message | out


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_text_becomes_a_message_whole_and_streamed(scripted, chat, name, size):
    text, (content, reasoning, calls) = TEXTS[name]
    scripted.engine.says(chat, text, size)
    request = {**ASK, "tools": [WEATHER]}
    choice = scripted.client().chat.completions.create(**request).choices[0]
    assert (choice.message.content, getattr(choice.message, "reasoning_content", "")) == (content, reasoning)
    made = choice.message.tool_calls or []
    assert len(made) == calls and choice.finish_reason == ("tool_calls" if calls else "stop")
    assert all(json.loads(call.function.arguments) == {"city": "Köln"} for call in made)
    assert len({call.id for call in made}) == calls
    events = joined(scripted.events("/v1/chat/completions", request))
    assert events["content"] == (content or "") and events["reasoning_content"] == reasoning
    assert events["finish"] == choice.finish_reason
    assert [c["function"] for c in events["tool_calls"]] == [c.function.model_dump() for c in made]
    assert [c["index"] for c in events["tool_calls"]] == list(range(calls))


def test_content_is_streamed_as_it_comes_up_to_a_call(scripted, chat):
    scripted.engine.says(chat, f"I look at the weather.\n{CALL}", 2)
    events = scripted.events("/v1/chat/completions", {**ASK, "tools": [WEATHER]})
    contents = [e["choices"][0]["delta"].get("content") for e in events]
    assert len([c for c in contents if c]) > 3
    assert not any("<" in (c or "") for c in contents)


def test_without_tools_nothing_is_a_call(scripted, chat):
    scripted.engine.says(chat, CALL)
    for request in (ASK, {**ASK, "tools": [WEATHER], "tool_choice": "none"}):
        choice = scripted.client().chat.completions.create(**request).choices[0]
        assert (choice.message.content, choice.message.tool_calls, choice.finish_reason) == (
            CALL,
            None,
            "stop",
        )
        assert joined(scripted.events("/v1/chat/completions", request))["content"] == CALL
    with_tools, without = (scripted.engine.samples[-1].prompt for _ in range(2))
    assert with_tools == without
    scripted.client().chat.completions.create(**ASK, tools=[WEATHER])
    assert "get_weather" in chat.decode(scripted.engine.samples[-1].prompt)


def test_half_a_surrogate_pair_of_the_model_does_not_break_the_reply(scripted, chat):
    scripted.engine.says(chat, CALL.replace("Köln", "\\ud83d!"))
    request = {**ASK, "tools": [WEATHER]}
    (call,) = scripted.client().chat.completions.create(**request).choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "\ufffd!"}
    (streamed,) = joined(scripted.events("/v1/chat/completions", request))["tool_calls"]
    assert streamed["function"] == call.function.model_dump()


def test_every_prompt_without_a_seed_gets_its_own(scripted, chat):
    scripted.engine.says(chat, "Yes.")
    for fields, seeds in (({}, 3), ({"seed": 7}, 1)):
        scripted.engine.samples.clear()
        scripted.client().completions.create(model="written", prompt=["a", "a", "b"], n=2, **fields)
        drawn = [(s.settings.seed, s.index) for s in scripted.engine.samples]
        assert len({seed for seed, _ in drawn}) == seeds and [i for _, i in drawn] == [0, 1] * 3
        assert all(one[0] == two[0] for one, two in zip(drawn[::2], drawn[1::2]))


def test_one_call_at_a_time_if_asked_for(scripted, chat):
    scripted.engine.says(chat, f"{CALL}\n{CALL}")
    request = {**ASK, "tools": [WEATHER], "parallel_tool_calls": False}
    assert len(scripted.client().chat.completions.create(**request).choices[0].message.tool_calls) == 1
    assert len(joined(scripted.events("/v1/chat/completions", request))["tool_calls"]) == 1


def test_the_history_is_rendered_as_the_template_does(scripted, chat):
    scripted.engine.says(chat, "Sunny.")
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Köln"}'},
    }
    messages = [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "21 °C"},
    ]
    scripted.client().chat.completions.create(model="written", messages=messages, tools=[WEATHER])
    prompt = chat.decode(scripted.engine.samples[-1].prompt)
    for part in ("Be short.", "Weather?", '{"name": "get_weather", "arguments": {"city": "Köln"}}', "21 °C"):
        assert part in prompt


@pytest.mark.parametrize(
    "message, part",
    [
        ({"content": None, "refusal": "I cannot do it."}, "I cannot do it."),
        ({"content": "<analysis>secret plan</analysis>\nDone."}, "<analysis>secret plan</analysis>\nDone."),
        ({"content": "[THINK]a[/THINK]b", "refusal": None, "function_call": None}, "[THINK]a[/THINK]b"),
    ],
)
def test_nothing_of_the_history_is_lost(scripted, chat, message, part):
    scripted.engine.says(chat, "Yes.")
    messages = [*ASK["messages"], {"role": "assistant", **message}, *ASK["messages"]]
    assert scripted.post("/v1/chat/completions", {**ASK, "messages": messages})[0] == 200
    assert part in chat.decode(scripted.engine.samples[-1].prompt)


def test_settings_reach_the_engine(scripted, chat):
    scripted.engine.says(chat, "Yes.")
    settings = {"temperature": 0.5, "top_p": 0.9, "seed": 7, "max_completion_tokens": 12, "n": 2}
    extra = {"top_k": 5, "min_p": 0.1, "ignore_eos": True}
    scripted.client().chat.completions.create(**ASK, **settings, extra_body=extra)
    one, two = scripted.engine.samples
    assert one.settings == two.settings and (one.index, two.index) == (0, 1)
    s = one.settings
    assert (s.temperature, s.top_p, s.top_k, s.min_p, s.seed) == (0.5, 0.9, 5, 0.1, 7)
    assert s.max_tokens == 12 and s.ignore_stop and not s.soon and not s.top
    scripted.client().chat.completions.create(**ASK)
    third = scripted.engine.samples[-1].settings
    assert third.max_tokens == 2048 and third.temperature == 1 and third.seed != 7 and not third.restricted


@pytest.mark.parametrize("size", [1, 2, 50])
def test_a_stop_string_ends_the_text_and_the_sample(scripted, chat, size):
    text = "one two three four five"
    ids = chat.encode(text)
    scripted.engine.script = lambda sample: [(ids[i : i + size], None) for i in range(0, len(ids), size)]
    request = {"model": "written", "prompt": "x", "stop": ["e t", "r f", "hree"], "max_tokens": 100}
    reply = scripted.client().completions.create(**request, extra_body={"return_token_ids": True})
    assert reply.choices[0].text == "on" and reply.choices[0].finish_reason == "stop"
    assert ids[: len(reply.choices[0].token_ids)] == reply.choices[0].token_ids
    assert reply.usage.completion_tokens == len(reply.choices[0].token_ids) <= 6
    assert scripted.engine.cancelled == scripted.engine.samples
    events = scripted.events("/v1/completions", request)
    assert "".join(e["choices"][0]["text"] for e in events) == "on"
    assert events[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "stop, want",
    [("YY", ("a", "b ")), ("k>\n\n", ("a\n</thin", "")), ("z", ("a", "b YY c")), ("b", ("a", ""))],
)
def test_a_stop_string_and_thinking_for_every_choice(scripted, chat, stop, want):
    scripted.engine.says(chat, "<think>\na\n</think>\n\nb YY c", 1)
    request = {**ASK, "stop": stop, "n": 2}
    choices = scripted.client().chat.completions.create(**request).choices
    events = scripted.events("/v1/chat/completions", request)
    for i, choice in enumerate(choices):
        assert (choice.message.reasoning_content, choice.message.content) == want
        streamed = joined(events, i)
        assert (streamed["reasoning_content"], streamed["content"]) == want
        assert streamed["finish"] == choice.finish_reason == "stop"


def test_stop_tokens_of_a_request_end_it(scripted, chat):
    ids = chat.encode("one two three")
    scripted.engine.script = lambda sample: [(ids, None)]
    extra = {"stop_token_ids": [ids[2]], "return_token_ids": True}
    choice = scripted.client().completions.create(model="written", prompt="x", extra_body=extra).choices[0]
    assert choice.token_ids == ids[:3] and choice.text == chat.decode(ids[:2])


def test_log_probs_and_token_ids(scripted, chat):
    scripted.engine.says(chat, "Grüße!")
    extra = {"return_token_ids": True}
    talk = scripted.client().chat.completions.create(**ASK, logprobs=True, top_logprobs=2, extra_body=extra)
    ids = [*chat.encode("Grüße!"), chat.stop_ids[0]]
    assert talk.choices[0].token_ids == ids and talk.prompt_token_ids == list(
        scripted.engine.samples[0].prompt
    )
    told = talk.choices[0].logprobs.content
    assert len(told) == len(ids) and {t.logprob for t in told} == {-0.5}
    assert told[0].bytes == list(told[0].token.encode())
    assert [len(t.top_logprobs) for t in told] == [2] * len(ids)
    text = scripted.client().completions.create(model="written", prompt=[5, 6], logprobs=1, extra_body=extra)
    choice = text.choices[0]
    assert choice.prompt_token_ids == [5, 6] and choice.token_ids == ids and choice.text == "Grüße!"
    assert choice.logprobs.token_logprobs == [-0.5] * len(ids) and len(choice.logprobs.top_logprobs) == len(
        ids
    )
    assert choice.logprobs.text_offset[0] == 0 and len(choice.logprobs.tokens) == len(ids)
    events = scripted.events("/v1/chat/completions", {**ASK, "logprobs": True, **extra})
    assert joined(events)["token_ids"] == ids and events[0]["prompt_token_ids"] == talk.prompt_token_ids
    assert not any("prompt_token_ids" in e for e in events[1:])
    streamed = [e["choices"][0]["logprobs"] for e in events]
    assert sum(len(s["content"]) for s in streamed if s) == len(ids)
    plain = scripted.client().chat.completions.create(**ASK).choices[0]
    assert plain.logprobs is None and not hasattr(plain, "token_ids")


def test_log_probs_of_parts_of_characters(scripted, chat):
    """Each has its bytes, and its place in the text is where the character begins."""
    scripted.engine.says(chat, "aü☀b", 1)
    told = scripted.client().chat.completions.create(**ASK, logprobs=True).choices[0].logprobs.content
    assert bytes(b for t in told[:-1] for b in t.bytes) == "aü☀b".encode()
    request = {"model": "written", "prompt": "x", "logprobs": 1}
    got = scripted.client().completions.create(**request).choices[0].logprobs
    names = ["a", *(f"bytes:\\x{byte:02x}" for byte in "ü☀".encode()), "b"]
    assert got.tokens[:-1] == names and got.text_offset == [0, 1, 1, 2, 2, 2, 3, 4]
    streamed = [e["choices"][0]["logprobs"] for e in scripted.events("/v1/completions", request)]
    assert [at for one in streamed if one for at in one["text_offset"]] == got.text_offset


def test_the_sampled_token_is_among_the_most_likely(scripted, chat, monkeypatch):
    ids = chat.encode("one two")
    piece = Piece(ids, [-0.1] * len(ids), [-3.0] * len(ids), [[(9, -0.5), (8, -2.0)]] * len(ids), "length")
    engine = scripted.engine
    monkeypatch.setattr(engine, "submit", lambda samples: engine.deliver([(s, piece) for s in samples]))
    got = scripted.client().completions.create(model="written", prompt="x", logprobs=1).choices[0].logprobs
    assert got.top_logprobs == [{chat.decode([9]): -0.5, chat.decode([i]): -3.0} for i in ids]


def test_usage(scripted, chat):
    scripted.engine.says(chat, "Yes.")
    length = len(chat.encode("Yes.")) + 1
    usage = scripted.client().completions.create(model="written", prompt=["a", "bc"], n=2).usage
    assert usage.prompt_tokens == len(chat.encode("a")) + len(chat.encode("bc"))
    assert usage.completion_tokens == 4 * length and usage.total_tokens == usage.prompt_tokens + 4 * length
    events = scripted.events("/v1/chat/completions", {**ASK, "stream_options": {"include_usage": True}})
    assert events[-1]["usage"]["completion_tokens"] == length and events[-1]["choices"] == []
    assert all(e["usage"] is None for e in events[:-1])
    assert not any("usage" in e for e in scripted.events("/v1/chat/completions", ASK))


def test_prompts_of_all_forms(scripted, chat):
    scripted.engine.says(chat, "Yes.")
    for prompt, want in {
        "a b": [chat.encode("a b")],
        ("a", "b"): [chat.encode("a"), chat.encode("b")],
        (3, 4): [[3, 4]],
        ((3, 4), (5,)): [[3, 4], [5]],
    }.items():
        prompt = json.loads(json.dumps(prompt))
        scripted.engine.samples.clear()
        reply = scripted.client().completions.create(model="written", prompt=prompt)
        assert [list(s.prompt) for s in scripted.engine.samples] == want
        assert [c.index for c in reply.choices] == list(range(len(want)))


def test_the_model_is_listed(scripted):
    model = scripted.client().models.list().data[0]
    assert (model.id, model.object, model.max_model_len) == ("written", "model", 4096)
    assert scripted.client().models.retrieve("written").id == "written"
    with pytest.raises(openai.NotFoundError):
        scripted.client().models.retrieve("other")


def test_a_full_queue_is_429_and_says_when_to_come_back(scripted):
    scripted.engine.full = 2.3
    status, headers, page = scripted.post("/v1/chat/completions", ASK)
    assert status == 429 and headers["retry-after"] == "3" and page["error"]["type"] == "rate_limit_error"
    with pytest.raises(openai.RateLimitError):
        scripted.client().chat.completions.create(**ASK)


def test_a_failed_engine_is_told(scripted, chat):
    scripted.engine.script = lambda sample: [([], "error")]
    with pytest.raises(openai.InternalServerError):
        scripted.client().chat.completions.create(**ASK)
    assert "error" in scripted.events("/v1/chat/completions", ASK)[-1]
    scripted.engine.failed = "it broke"
    assert scripted.get("/health")[0] == 503
    with pytest.raises(openai.InternalServerError):
        scripted.client().chat.completions.create(**ASK)


def test_a_client_that_leaves_frees_its_samples(scripted, chat):
    ids = chat.encode("and so on")
    scripted.engine.script = lambda sample: [(ids, None)]
    body = json.dumps({**ASK, "n": 2, "stream": True}).encode()
    with scripted.connect() as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n"
            b"authorization: Bearer %s\r\n\r\n" % (len(body), KEY.encode()) + body
        )
        got = b""
        while b"and so on" not in got:
            got += connection.recv(65536)
    engine = scripted.engine
    with engine.changed:
        assert engine.changed.wait_for(lambda: set(engine.cancelled) == set(engine.samples), 30)
    assert len(engine.samples) == 2 and not scripted.service._queues


def test_the_key_is_asked_for(scripted, chat):
    scripted.engine.says(chat, "Yes.")
    with pytest.raises(openai.AuthenticationError):
        scripted.client("wrong").models.list()
    assert scripted.get("/v1/models")[0] == 401
    assert scripted.get("/v1/models", "authorization: Bearer caf\xe9\r\n")[0] == 401
    assert scripted.get("/health")[0] == 200
