"""Rendering, training masks, and parsing of completions."""

import json
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.paths import ROOT, SHARED

from pivotrl_jax.chat.actions import action_to_message, message_to_action, parse_action
from pivotrl_jax.chat.json_text import MAX_NESTING, strict_json
from pivotrl_jax.chat.template import load_chat
from pivotrl_jax.records import Action, Call, InputError

CONFORMANCE = SHARED / "conformance/bfcl/qwen_fc_parse.jsonl"
LS = Call("ls", {})
CD = Call("cd", {"folder": "a"})

# Qwen3's own logic for assistant turns and tool results, with the tools on one line each.
QWEN3 = """
{%- if tools %}{{- '<|im_start|>system\\n<tools>' }}
{%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}{{- '\\n</tools><|im_end|>\\n' }}{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == "user" or message.role == "system" %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or reasoning_content) %}
            {{- '<|im_start|>assistant\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>assistant\\n' + content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls or [] %}
            {%- if (loop.first and content) or (not loop.first) %}{{- '\\n' }}{%- endif %}
            {%- set tool_call = tool_call.function %}
            {{- '<tool_call>\\n{"name": "' + tool_call.name + '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}{{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or messages[loop.index0 - 1].role != "tool" %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' + content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != "tool" %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- else %}{{- raise_exception('Unexpected message role') }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""  # noqa: E501


def save_tokenizer(folder: Path, template: str) -> Path:
    """A byte-level tokenizer with Qwen3's special tokens, in Hugging Face layout."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    for special in ("<|endoftext|>", "<|im_start|>", "<|im_end|>"):
        tokenizer.add_special_tokens([AddedToken(special, special=True)])
    tokenizer.add_tokens(["<think>", "</think>", "<tool_call>", "</tool_call>"])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.chat_template = template
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tokenizer(tmp_path_factory.mktemp("qwen3"), QWEN3)


@pytest.fixture(scope="module")
def strip(folder):
    return load_chat(folder, keep_thinking=False)


@pytest.fixture(scope="module")
def keep(folder):
    return load_chat(folder, keep_thinking=True)


def assistant(content="", thought="", *calls):
    return action_to_message(Action(content, thought, calls))


RESULT = {"role": "tool", "tool_call_id": "call_0", "name": "ls", "content": '["a"]'}
TRAJECTORY = [
    {"role": "user", "content": "what is here?"},
    assistant("", "look first", LS),
    RESULT,
    assistant("Only a."),
    {"role": "user", "content": "go there"},
    assistant("", "then move", CD, LS),
    RESULT,
    {**RESULT, "tool_call_id": "call_1"},
    assistant("Done.", "all is well"),
]
TOOLS = [{"name": "ls", "parameters": {"type": "dict", "properties": {}, "required": []}}]


def trained_text(chat, segments):
    """What each segment trains on, a dot per token where the mask is off, a pilcrow for the stop token."""
    shown = {i: "¶" for i in chat.stop_ids}
    return [
        "".join(shown.get(i, chat.tokenizer.decode([i])) if t else "·" for i, t in zip(ids, mask))
        for ids, mask in segments
    ]


# ---- rendering


def test_arguments_are_rendered_as_json_objects(strip):
    text = strip.render(TRAJECTORY[:2], TOOLS, add_generation_prompt=False)
    assert '<tool_call>\n{"name": "ls", "arguments": {}}\n</tool_call><|im_end|>\n' in text
    assert '{"name": "ls", "parameters"' in text


def test_strip_is_the_templates_own_behaviour(strip):
    text = strip.render(TRAJECTORY, [])
    assert "look first" not in text and "then move" in text


def test_keep_shows_every_turn_as_it_was_when_it_was_last(keep):
    whole = keep.render(TRAJECTORY, TOOLS)
    for i, message in enumerate(TRAJECTORY):
        if message["role"] == "assistant":
            then = keep.render(TRAJECTORY[: i + 1], TOOLS, add_generation_prompt=False)
            assert whole.startswith(then)
    assert "<think>\nlook first\n</think>\n\n<tool_call>" in whole
    assert (
        "<think>\n\n</think>\n\nOnly a.<|im_end|>" in whole
    )  # the template's own block for a turn without thinking
    assert "kept thinking" not in whole


def test_content_that_imitates_nothing_is_untouched_by_keep(keep, strip):
    messages = [{"role": "user", "content": "a"}, assistant("b\n\nc", "", LS), RESULT]
    assert "b\n\nc\n<tool_call>" in keep.render(messages, [])
    assert "b\n\nc\n<tool_call>" in strip.render(messages, [])


def test_encode_and_decode_are_inverse_and_the_stop_token_is_left_off(strip):
    text = 'naïve 日本 <tool_call>\n{"a": 1}\n</tool_call>'
    ids = strip.encode(text)
    assert strip.decode(ids) == text
    assert strip.decode([*ids, strip.stop_ids[0]]) == text
    assert strip.decode([]) == ""
    assert strip.decode([10**6]) == ""  # a padded vocabulary has ids that no token has


def test_lone_surrogates_are_encoded(strip):
    assert strip.decode(strip.encode("a\ud800b")) == "a\ufffdb"


def test_a_role_the_template_refuses_is_the_users_mistake(strip):
    with pytest.raises(InputError, match="chat template refuses"):
        strip.render([{"role": "critic", "content": ""}], [])


# ---- training segments


def test_keep_trains_the_trajectory_in_one_segment(keep):
    segments = keep.training_segments(TRAJECTORY, TOOLS)
    assert len(segments) == 1
    ids, _ = segments[0]
    assert keep.tokenizer.decode(ids) + "\n" == keep.render(TRAJECTORY, TOOLS, add_generation_prompt=False)
    assert [p for p in trained_text(keep, segments)[0].split("·") if p] == [
        '<think>\nlook first\n</think>\n\n<tool_call>\n{"name": "ls", "arguments": {}}\n</tool_call>¶',
        "<think>\n\n</think>\n\nOnly a.¶",
        "<think>\nthen move\n</think>\n\n"
        '<tool_call>\n{"name": "cd", "arguments": {"folder": "a"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "ls", "arguments": {}}\n</tool_call>¶',
        "<think>\nall is well\n</think>\n\nDone.¶",
    ]


def test_every_completion_is_trained_once_with_its_stop_token_and_no_prompt(strip):
    segments = strip.training_segments(TRAJECTORY, TOOLS)
    assert len(segments) > 1  # the template rewrites history
    trained = [[i for i, t in zip(ids, mask) if t] for ids, mask in segments]
    turns = [i for i, m in enumerate(TRAJECTORY) if m["role"] == "assistant"]
    completions = [strip.completion_ids(TRAJECTORY[:i], TOOLS, TRAJECTORY[i]) for i in turns]
    assert list(chain(*trained)) == list(chain(*completions))
    assert all(c[-1] in strip.stop_ids and c.count(c[-1]) == 1 for c in completions)


def test_each_completion_stands_behind_its_own_prompt(strip):
    segments = strip.training_segments(TRAJECTORY, TOOLS)
    for i, message in enumerate(TRAJECTORY):
        if message["role"] == "assistant":
            state = strip.prompt_ids(TRAJECTORY[:i], TOOLS)
            whole = state + strip.completion_ids(TRAJECTORY[:i], TOOLS, message)
            assert any(
                ids[: len(whole)] == whole and all(mask[len(state) : len(whole)]) and not mask[len(state) - 1]
                for ids, mask in segments
            )


def test_a_parsed_completion_is_the_demonstration(strip):
    for i, message in enumerate(TRAJECTORY):
        if message["role"] == "assistant":
            ids = strip.completion_ids(TRAJECTORY[:i], TOOLS, message)
            action = strip.parse(strip.decode(ids))
            assert not action.malformed
            assert action_to_message(action) == message


def test_an_opening_greeting_is_context(strip):
    greeting = [assistant("Hello."), {"role": "user", "content": "hi"}, assistant("Yes?")]
    (text,) = trained_text(strip, strip.training_segments(greeting, []))
    assert "Yes?" in text and "Hello." not in text


# ---- loading


def test_a_folder_without_tokenizer_is_named(tmp_path):
    with pytest.raises(InputError, match=str(tmp_path)):
        load_chat(tmp_path, keep_thinking=False)


def test_stop_tokens_come_from_the_generation_config_first(tmp_path):
    save_tokenizer(tmp_path, QWEN3)
    chat = load_chat(tmp_path, False)
    end, other = chat.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert chat.stop_ids == (end,)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [other]}))
    assert load_chat(tmp_path, False).stop_ids == (other, end)


def test_a_template_that_writes_no_stop_token_is_refused(tmp_path):
    plain = "{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}"
    chat = load_chat(
        save_tokenizer(tmp_path, plain + "{% if add_generation_prompt %}assistant: {% endif %}"), False
    )
    with pytest.raises(InputError, match="stop tokens"):
        chat.training_segments([{"role": "user", "content": "a"}, assistant("b")], [])


def test_a_prompt_that_opens_thinking_is_known(tmp_path, strip):
    template = QWEN3.replace(
        "'<|im_start|>assistant\\n' }}{%- endif %}\n", "'<|im_start|>assistant\\n<think>\\n' }}{%- endif %}\n"
    )
    chat = load_chat(save_tokenizer(tmp_path, template), False)
    assert chat.opens_thinking and not strip.opens_thinking
    assert chat.parse('<tool_call>\n{"name": "ls", "arguments": {}}\n</tool_call>').malformed
    assert chat.parse('hm</think><tool_call>\n{"name": "ls", "arguments": {}}\n</tool_call>').calls == (LS,)
    assert message_to_action(TRAJECTORY[1]) == Action("", "look first", (LS,), "", "")


def test_nothing_here_needs_torch():
    code = "import sys, pivotrl_jax.chat; sys.exit('transformers' in sys.modules or 'jax' in sys.modules)"
    root = str(ROOT)
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


# ---- parsing


def block(body):
    return f"<tool_call>\n{body}\n</tool_call>"


LS_BLOCK = block('{"name": "ls", "arguments": {}}')

READABLE = {
    "plain text": ("Hello there.", Action("Hello there.")),
    "one call": (LS_BLOCK, Action(calls=(LS,))),
    "two calls": (LS_BLOCK + "\n" + LS_BLOCK, Action(calls=(LS, LS))),
    "text around": ("Sure.\n" + LS_BLOCK + "\nDone.", Action("Sure.\n\nDone.", calls=(LS,))),
    "thought": ("<think>\nhm\n</think>\n\n" + LS_BLOCK, Action("", "hm", (LS,))),
    "empty thought": ("<think>\n\n</think>\n\nHi", Action("Hi")),
    "call in thought": (f"<think>{LS_BLOCK}</think>Hi", Action("Hi", LS_BLOCK)),
    "only the last thought counts": (f"a</think>{LS_BLOCK}</think>b", Action("b", f"a</think>{LS_BLOCK}")),
    "no newlines": ('<tool_call>{"name": "ls", "arguments": {}}</tool_call>', Action(calls=(LS,))),
    "many newlines": (block('\n\n{"arguments":\n{},\n"name": "ls"}\n \n'), Action(calls=(LS,))),
    "end tag inside a string": (
        block('{"name": "cd", "arguments": {"folder": "</tool_call>"}}'),
        Action(calls=(Call("cd", {"folder": "</tool_call>"}),)),
    ),
    "thought inside a string": (
        block('{"name": "cd", "arguments": {"folder": "<think>"}}'),
        Action(calls=(Call("cd", {"folder": "<think>"}),)),
    ),
    "lone surrogate": (
        block('{"name": "cd", "arguments": {"folder": "\\ud800"}}'),
        Action(calls=(Call("cd", {"folder": "\ud800"}),)),
    ),
}


@pytest.mark.parametrize("name", READABLE)
def test_readable(name):
    text, want = READABLE[name]
    action = parse_action(text)
    assert (action.content, action.reasoning, action.calls, action.malformed) == (
        want.content,
        want.reasoning,
        want.calls,
        "",
    )
    assert action.text == text


MALFORMED = {
    "unclosed thought": "<think>" + LS_BLOCK,
    "thought after a call": LS_BLOCK + "<think>" + LS_BLOCK,
    "thought reopened": "<think>a</think>b<think>" + LS_BLOCK,
    "unclosed call": '<tool_call>\n{"name": "ls", "arguments": {}}',
    "unclosed call, then another": '<tool_call>\n{"name": "ls", "argu' + LS_BLOCK,
    "end without start": '{"name": "ls", "arguments": {}}\n</tool_call>',
    "empty": block(""),
    "two objects": block('{"name": "ls", "arguments": {}} {"name": "ls", "arguments": {}}'),
    "list": block('[{"name": "ls", "arguments": {}}]'),
    "string": block('"ls"'),
    "no name": block('{"arguments": {}}'),
    "name is a number": block('{"name": 1, "arguments": {}}'),
    "no arguments": block('{"name": "ls"}'),
    "null arguments": block('{"name": "ls", "arguments": null}'),
    "arguments as a string": block('{"name": "ls", "arguments": "{}"}'),
    "arguments as a list": block('{"name": "ls", "arguments": []}'),
    "NaN": block('{"name": "ls", "arguments": {"a": NaN}}'),
    "infinite": block('{"name": "ls", "arguments": {"a": 1e999}}'),
    "huge integer": block('{"name": "ls", "arguments": {"a": ' + "9" * 5000 + "}}"),
    "deep": block(
        '{"name": "ls", "arguments": {"a": ' + "[" * (MAX_NESTING + 1) + "]" * (MAX_NESTING + 1) + "}}"
    ),
    "bottomless": block("[" * 200_000),
    "Python": block("{'name': 'ls', 'arguments': {}}"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(name):
    action = parse_action(MALFORMED[name])
    assert action.malformed and "\n" not in action.malformed
    assert len(action.calls) <= 1


def test_one_bad_block_spoils_the_action_but_the_good_one_is_read():
    action = parse_action(block("{") + LS_BLOCK)
    assert action.calls == (LS,) and "no valid JSON" in action.malformed
    assert "tool_calls" not in action_to_message(action)  # nothing of it was executed


def test_a_malformed_action_stays_in_the_history_as_its_text():
    message = action_to_message(parse_action("<think>a</think>\n" + block("{")))
    assert message == {"role": "assistant", "content": block("{"), "reasoning_content": "a"}


# Where we read differently from BFCL's Qwen3 handler, and why.
DIFFERENCES = {
    "no_newlines": "newlines around the JSON are optional: the call is unmistakable",
    "unclosed": "BFCL takes a cut-off call for text; it is malformed, and no verifier accepts it",
    "bad_json_only": "BFCL takes a broken call for text; it is malformed, and no verifier accepts it",
}


@pytest.mark.skipif(not CONFORMANCE.is_file(), reason="the conformance data is not here")
def test_bfcls_handler_reads_the_same_save_for_the_deliberate_differences():
    different = set()
    for case in map(json.loads, CONFORMANCE.read_text().splitlines()):
        action = parse_action(case["completion"])
        theirs = case["decode_ast"]
        if isinstance(theirs, dict):  # decode error: BFCL ends the turn
            same = bool(action.malformed) and not action.calls
        else:
            same = not action.malformed and [{c.name: c.arguments} for c in action.calls] == theirs
        if same:
            assert action.reasoning == case["history_message"]["reasoning_content"]
        else:
            different.add(case["id"])
    assert different == set(DIFFERENCES)


def test_bfcl_drops_a_broken_block_beside_a_good_one_and_we_do_not():
    assert parse_action(LS_BLOCK + block("{")).malformed  # BFCL would execute ls


PIECES = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "\n",
        '{"name": ',
        '"ls"',
        ', "arguments": ',
        "{",
        "}",
    ]
    + [
        "[",
        "]",
        '"',
        "NaN",
        "1e999",
        "9" * 5000,
        "[" * 2000,
        "null",
        "\\ud800",
        "\ud800",
        "\x00",
        "\\",
        LS_BLOCK,
    ]
)
TEXTS = st.one_of(st.text(), st.lists(st.one_of(PIECES, st.text(max_size=5)), max_size=25).map("".join))


def never_raises(text):
    for thinking_open in (False, True):
        action = parse_action(text, thinking_open)
        assert action.text == text
        assert all(isinstance(c.name, str) and isinstance(c.arguments, dict) for c in action.calls)
        action_to_message(action)


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_no_text_makes_the_parser_raise(text):
    never_raises(text)


@pytest.mark.slow
@settings(max_examples=20_000, deadline=None)
@given(TEXTS)
def test_no_text_makes_the_parser_raise_slow(text):
    never_raises(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(st.text(min_size=1), st.dictionaries(st.text(), JSON))
def test_every_call_survives_writing_and_reading(name, arguments):
    text = block(json.dumps({"name": name, "arguments": arguments}))
    assume("</think>" not in text)  # nothing before it is spoken
    action = parse_action(text)
    assert action.calls == (Call(name, arguments),) and not action.malformed


def test_strict_json_says_where_the_value_ends():
    assert strict_json(' {"a": 1} x') == ({"a": 1}, 9)
    with pytest.raises(ValueError, match="NaN is not JSON"):
        strict_json("[NaN]")
