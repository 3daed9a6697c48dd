"""The tiny tokenizer, its chat template, and the pretraining corpus."""

import json
import random
import re
import sys

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.paths import ROOT
from transformers import AutoTokenizer

sys.path.append(str(ROOT / "experiments/tiny_checkpoint"))

import corpus
import generic
import tokenizer as builder

ASSETS = ROOT / "pivotrl_jax/assets/tiny"
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(ASSETS)


def call(name, **arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


DOC = {
    "name": "add_event",
    "description": "put an event into the calendar",
    "parameters": {
        "type": "dict",
        "properties": {
            "title": {"type": "string"},
            "hour": {"type": "integer", "default": 9},
            "mode": {"type": "string", "enum": ["on", "off"]},
        },
        "required": ["title"],
    },
}
PING = {"name": "ping", "parameters": {"type": "dict", "properties": {}, "required": []}}


def render(tokenizer, messages, tools=None, prompt=False):
    return tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=prompt)


def test_shipped_files_are_what_the_builder_writes(tmp_path):
    builder.write(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / name).read_text() == (ASSETS / name).read_text(), f"{name}: run tokenizer.py again"


def test_size_and_stop_tokens(tokenizer):
    assert len(tokenizer) % 128 == 0 and len(tokenizer) >= 1536
    stops = json.loads((ASSETS / "generation_config.json").read_text())["eos_token_id"]
    assert tokenizer.convert_ids_to_tokens(stops) == ["<|im_end|>", "<|endoftext|>"]
    assert tokenizer.eos_token == "<|im_end|>"


def test_every_word_is_the_same_single_token_everywhere(tokenizer):
    for word in corpus.all_words():
        ids = tokenizer.encode(word)
        assert len(ids) == 1, (word, tokenizer.tokenize(word))
        for text in (
            f"a {word} b",
            f'{{"name": "{word}"}}',
            f"x_{word}_y",
            f"\n{word}(a: b)",
            f"{word}7",
            f'["{word}", 3]',
        ):
            assert ids[0] in tokenizer.encode(text), text


def test_common_json_pieces_are_single_tokens(tokenizer):
    text = '{"name": "add_event", "arguments": {"title": "lunch", "hour": 12}}'
    pieces = [tokenizer.decode([i]) for i in tokenizer.encode(text)]
    name = ['{"', "name", '": "', "add", "_", "event", '", "']
    title = ["arguments", '": {"', "title", '": "', "lunch", '", "']
    assert pieces == [*name, *title, "hour", '": ', "1", "2", "}}"]


@given(TEXT)
@example('{"name": "add_event"}  \n\t <|im_end|><tool_call> é🙂 \x00')
@example(" . \" , ' n't  ,  ?")
def test_any_text_round_trips(text):
    tokenizer = AutoTokenizer.from_pretrained(ASSETS) if not _cache else _cache[0]
    _cache[:] = [tokenizer]
    assert tokenizer.decode(tokenizer.encode(text)) == text


_cache: list = []


def test_terse_tools_raw_and_wrapped_render_alike(tokenizer):
    user = [{"role": "user", "content": "hello"}]
    want = (
        "<|im_start|>system\n<tools>\n"
        "add_event(title: string, hour: integer = 9, mode?: on|off) # put an event into the calendar\n"
        "ping()\n</tools><|im_end|>\n<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    )
    assert render(tokenizer, user, [DOC, PING], prompt=True) == want
    wrapped = [{"type": "function", "function": d} for d in (DOC, PING)]
    assert render(tokenizer, user, wrapped, prompt=True) == want
    system = [{"role": "system", "content": "be kind"}, *user]
    assert render(tokenizer, system, [PING]).startswith(
        "<|im_start|>system\nbe kind\n\n<tools>\nping()\n</tools><|im_end|>"
    )


def test_calls_and_results_follow_qwen3(tokenizer):
    messages = [
        {"role": "user", "content": "go"},
        {
            "role": "assistant",
            "content": "on it",
            "tool_calls": [call("ping"), call("add_event", title="tea", hour=8)],
        },
        {"role": "tool", "content": "{}"},
        {"role": "tool", "content": '{"event": 4}'},
        {"role": "assistant", "content": "done"},
    ]
    assert render(tokenizer, messages) == (
        "<|im_start|>user\ngo<|im_end|>\n<|im_start|>assistant\non it\n"
        '<tool_call>\n{"name": "ping", "arguments": {}}\n</tool_call>\n'
        '<tool_call>\n{"name": "add_event", "arguments": {"title": "tea", "hour": 8}}\n</tool_call>'
        "<|im_end|>\n"
        "<|im_start|>user\n<tool_response>\n{}\n</tool_response>\n"
        '<tool_response>\n{"event": 4}\n</tool_response><|im_end|>\n'
        "<|im_start|>assistant\ndone<|im_end|>\n"
    )


def test_thinking_stays_in_the_current_user_turn_only(tokenizer):
    def thought(reasoning, content, **more):
        return {"role": "assistant", "content": content, "reasoning_content": reasoning, **more}

    messages = [
        {"role": "user", "content": "a"},
        thought("old", "b"),
        {"role": "user", "content": "c"},
        thought("new", "", tool_calls=[call("ping")]),
        {"role": "tool", "content": "{}"},
        {"role": "assistant", "content": "<think>\nlast\n</think>\n\nd"},
    ]
    text = render(tokenizer, messages)
    assert "old" not in text and "<|im_start|>assistant\nb<|im_end|>" in text
    assert "<|im_start|>assistant\n<think>\nnew\n</think>\n\n<tool_call>\n" in text
    assert "<|im_start|>assistant\n<think>\nlast\n</think>\n\nd<|im_end|>" in text


def samples():
    rng = random.Random(5)
    pool = corpus.value_pool()
    made = [generic.episode(rng, pool) for _ in range(60)] + [
        generic.single_call(rng, pool) for _ in range(60)
    ]
    made += [corpus.induction(rng, pool) for _ in range(20)]
    toolbox = corpus.Toolbox(0)
    return made + [toolbox() for _ in range(20)]


def test_the_fast_renderer_equals_the_template(tokenizer):
    for messages, tools in [*samples(), ([{"role": "user", "content": "go"}], [DOC, PING])]:
        assert corpus.render(messages, tools) == render(tokenizer, messages, tools)


def test_prompts_are_token_prefixes_of_their_trajectory_and_completions_are_trained(tokenizer):
    marks = [tokenizer.convert_tokens_to_ids(t) for t in ("<|im_start|>", "assistant", "<|im_end|>")]
    for messages, tools in samples():
        whole = tokenizer.encode(render(tokenizer, messages, tools))
        want = np.zeros(len(whole), bool)
        for i, message in enumerate(messages):
            if message["role"] == "assistant":
                prompt = tokenizer.encode(render(tokenizer, messages[:i], tools, prompt=True))
                upto = tokenizer.encode(render(tokenizer, messages[: i + 1], tools))
                assert whole[: len(prompt)] == prompt and whole[: len(upto)] == upto
                want[len(prompt) : len(upto) - 1] = True  # all but the newline after the stop token
        assert (corpus.trained_mask(np.array(whole), *marks) == want).all()


@pytest.mark.parametrize("phase", corpus.PHASES)
def test_corpus_is_deterministic_and_written_as_documented(phase, tmp_path):
    report = corpus.write(phase, 20_000, 3, tmp_path / "a.npz")
    corpus.write(phase, 20_000, 3, tmp_path / "b.npz")
    a, b = np.load(tmp_path / "a.npz"), np.load(tmp_path / "b.npz")
    assert all((a[k] == b[k]).all() for k in ("ids", "mask", "offsets"))
    first = next(corpus.examples(phase, 3))
    assert (a["ids"].dtype, a["mask"].dtype, a["offsets"].dtype) == (np.uint16, np.bool_, np.int64)
    assert (
        a["ids"][: a["offsets"][1]].tolist() == first[0] and a["mask"][: a["offsets"][1]].tolist() == first[1]
    )
    assert a["offsets"][-1] == len(a["ids"]) == len(a["mask"]) >= 20_000
    assert max(kind["longest"] for kind in report.values()) <= 1000
    assert next(corpus.examples(phase, 4)) != first


def test_generic_episodes_use_no_value_of_the_toolbox_train_or_test_rows():
    held = corpus.held_values()
    assert len(held) > 100 and len(corpus.value_pool()) > 250
    rng = random.Random(1)
    shared = corpus.language.all_words() - set(corpus.language.VALUES)
    for _ in range(200):
        words = set(re.findall("[a-z]+", corpus.render(*generic.episode(rng, corpus.value_pool()))))
        assert not words & (held - shared)


def test_every_call_of_an_episode_is_offered_and_copies_its_values_from_the_conversation():
    rng = random.Random(2)
    pool = corpus.value_pool()
    calls = 0
    for _ in range(200):
        messages, docs = generic.episode(rng, pool)
        offered = {d["name"]: d["parameters"] for d in docs}
        assert len(offered) == len(docs) and 6 <= len(docs) <= 12
        for i, message in enumerate(messages):
            said = " ".join(m["content"] for m in messages[:i])
            for made in message.get("tool_calls", []):
                calls += 1
                parameters = offered[made["function"]["name"]]
                arguments = made["function"]["arguments"]
                assert set(parameters["required"]) <= set(arguments) <= set(parameters["properties"])
                for value in arguments.values():
                    values = value if isinstance(value, list) else [] if isinstance(value, bool) else [value]
                    assert all(str(v) in said for v in values), (made, said)
    assert calls > 600
