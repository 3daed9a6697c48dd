"""Rendering with a chat template, token ids of prompts and completions, loading a tokenizer."""

import dataclasses
import itertools
import json
import subprocess
import sys

import pytest
from support import templates
from support.paths import ROOT
from support.qwen3_chat import QWEN3, save_tokenizer
from support.sentencepiece_chat import save_sentencepiece

from pivotrl_jax.chat.actions import action_to_message
from pivotrl_jax.chat.template import HoldsStop, load_chat
from pivotrl_jax.records import Action, Call, InputError

LS = Call("ls", {})
CD = Call("cd", {"folder": "a"})


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


def test_a_conversation_without_messages_is_the_users_mistake(strip):
    with pytest.raises(InputError, match="no messages"):
        strip.render([], TOOLS)
    first, second = strip.render_all([[], TRAJECTORY[:1]], TOOLS)
    assert isinstance(first, InputError) and second == strip.render(TRAJECTORY[:1], TOOLS)


# ---- completions


def completions(chat):
    """(prompt ids, completion ids) of every assistant turn of TRAJECTORY."""
    turns = [i for i, m in enumerate(TRAJECTORY) if m["role"] == "assistant"]
    return [
        (
            chat.prompt_ids(TRAJECTORY[:i], TOOLS),
            chat.completion_ids(TRAJECTORY[:i], TOOLS, TRAJECTORY[i]),
        )
        for i in turns
    ]


def test_keep_only_appends_so_a_trajectory_is_one_sequence(keep):
    pairs = completions(keep)
    for (prompt, completion), (later, _) in itertools.pairwise(pairs):
        assert later[: len(prompt) + len(completion)] == prompt + completion
    assert [keep.tokenizer.decode(completion) for _, completion in pairs] == [
        "<think>\nlook first\n</think>\n\n"
        '<tool_call>\n{"name": "ls", "arguments": {}}\n</tool_call><|im_end|>',
        "<think>\n\n</think>\n\nOnly a.<|im_end|>",
        "<think>\nthen move\n</think>\n\n"
        '<tool_call>\n{"name": "cd", "arguments": {"folder": "a"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "ls", "arguments": {}}\n</tool_call><|im_end|>',
        "<think>\nall is well\n</think>\n\nDone.<|im_end|>",
    ]


def test_strip_rewrites_history(strip):
    pairs = completions(strip)
    assert any(
        later[: len(prompt) + len(completion)] != prompt + completion
        for (prompt, completion), (later, _) in itertools.pairwise(pairs)
    )


def test_a_completion_continues_its_prompt_and_ends_in_its_only_stop_token(strip):
    turns = [i for i, m in enumerate(TRAJECTORY) if m["role"] == "assistant"]
    for i, (prompt, completion) in zip(turns, completions(strip)):
        rendered = strip.render(TRAJECTORY[: i + 1], TOOLS, add_generation_prompt=False)
        assert strip.tokenizer.decode(prompt + completion) + "\n" == rendered
        assert [token in strip.stop_ids for token in completion].index(True) == len(completion) - 1


def test_a_parsed_completion_is_the_demonstration(strip):
    for i, message in enumerate(TRAJECTORY):
        if message["role"] == "assistant":
            ids = strip.completion_ids(TRAJECTORY[:i], TOOLS, message)
            action = strip.parse(strip.decode(ids))
            assert not action.malformed
            assert action_to_message(action) == message


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
        chat.completion_ids([{"role": "user", "content": "a"}], [], assistant("b"))


def test_a_template_whose_turns_no_stop_token_ends_is_refused_at_the_start(tmp_path, strip):
    """Base checkpoints have the chat template and end texts with <|endoftext|>; calls may end otherwise."""
    strip.check_turn_ends()
    chat = load_chat(save_tokenizer(tmp_path, QWEN3), False)
    end, other = chat.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    base = dataclasses.replace(chat, stop_ids=(other,))
    with pytest.raises(InputError, match=r"ends an assistant turn with .*b<.im_end.>.n', .*<.endoftext.>"):
        base.check_turn_ends()
    dataclasses.replace(chat, stop_ids=(other, end)).check_turn_ends()
    calls = QWEN3.replace("</tool_call>", "</tool_call><|endoftext|>").replace("<|im_end|>", "")
    with pytest.raises(InputError, match="so no completion would finish"):
        load_chat(save_tokenizer(tmp_path, calls), False).check_turn_ends()
    only = "{% for m in messages %}{{ raise_exception('no') if m.tool_calls else m.content + '<|im_end|>' }}"
    load_chat(save_tokenizer(tmp_path, only + "{% endfor %}"), False).check_turn_ends()  # without calls


def test_a_call_turn_that_ends_in_another_token_needs_that_one_too(tmp_path):
    """Llama 3.1: <|eom_id|> after a call, <|eot_id|> after words."""
    call = "'<tool_call>' + (m.tool_calls | tojson) + '<|endoftext|>'"
    turn = "{{ " + call + " if m.tool_calls else m.content + '<|im_end|>' }}"
    chat = load_chat(save_tokenizer(tmp_path, "{% for m in messages %}" + turn + "{% endfor %}"), False)
    end, other = chat.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    with pytest.raises(InputError, match=r"<.endoftext.>', which has none of the stop tokens"):
        dataclasses.replace(chat, stop_ids=(end,)).check_turn_ends()
    dataclasses.replace(chat, stop_ids=(end, other)).check_turn_ends()


def test_ids_that_belong_to_no_token_are_found(strip):
    known = sorted(strip.tokenizer.get_vocab().values())
    assert strip.unknown_ids(known) == [] == strip.unknown_ids([])
    assert strip.unknown_ids([known[-1] + 1, known[0], 9999]) == [known[-1] + 1, 9999]
    assert strip.decode([9999]) == ""  # which is why: the text does not show them
    assert dataclasses.replace(strip, stop_ids=(9999,)).unknown_ids([9999]) == []


def test_a_prompt_that_opens_thinking_is_known(tmp_path, strip):
    template = QWEN3.replace(
        "'<|im_start|>assistant\\n' }}{%- endif %}\n", "'<|im_start|>assistant\\n<think>\\n' }}{%- endif %}\n"
    )
    chat = load_chat(save_tokenizer(tmp_path, template), False)
    assert chat.opens_thinking and not strip.opens_thinking
    assert chat.parse('<tool_call>\n{"name": "ls", "arguments": {}}\n</tool_call>').malformed
    assert chat.parse('hm</think><tool_call>\n{"name": "ls", "arguments": {}}\n</tool_call>').calls == (LS,)


def test_nothing_here_needs_torch():
    code = "import sys, pivotrl_jax.chat; sys.exit('transformers' in sys.modules or 'jax' in sys.modules)"
    root = str(ROOT)
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


def test_a_demonstration_that_holds_a_stop_token_is_none_that_can_be_sampled(strip):
    ask = [{"role": "user", "content": "List."}]
    whole = strip.completion_ids(ask, [], assistant("Done."))
    assert whole[-1] in strip.stop_ids and sum(i in strip.stop_ids for i in whole) == 1
    for answer in (
        assistant("I end <|im_end|> here."),
        assistant("", "", Call("say", {"text": "a<|im_end|>b"})),
    ):
        with pytest.raises(HoldsStop, match=r"holds '<\|im_end\|>', a stop token"):
            strip.completion_ids(ask, [], answer)


def test_a_turn_ends_at_its_own_stop_token(tmp_path):
    """Phi-3's template closes the conversation with another one."""
    chat = load_chat(save_tokenizer(tmp_path, QWEN3), False)
    other = chat.tokenizer.convert_tokens_to_ids("<|endoftext|>")
    chat.tokenizer.chat_template += "{%- if not add_generation_prompt %}{{- '<|endoftext|>' }}{%- endif %}"
    both = dataclasses.replace(chat, stop_ids=(other, *chat.stop_ids))
    ids = both.completion_ids([{"role": "user", "content": "a"}], [], assistant("b"))
    assert both.tokenizer.decode(ids) == "<think>\n\n</think>\n\nb<|im_end|>"
    with pytest.raises(HoldsStop):
        both.completion_ids([{"role": "user", "content": "a"}], [], assistant("b<|endoftext|>c"))


@pytest.mark.parametrize("eos", [-1, 100_000, 258.0, True, [[258]], "<|nope|>", {}])
def test_a_stop_token_that_is_none_is_named(tmp_path, eos):
    save_tokenizer(tmp_path, QWEN3)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": eos}))
    with pytest.raises(InputError, match=r"generation_config.json: eos_token_id .* is no token"):
        load_chat(tmp_path, False)


def test_a_stop_token_may_be_given_as_text(tmp_path):
    save_tokenizer(tmp_path, QWEN3)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": ["<|endoftext|>", null]}')
    assert load_chat(tmp_path, False).tokenizer.convert_ids_to_tokens(
        load_chat(tmp_path, False).stop_ids
    ) == [
        *("<|endoftext|>", "<|im_end|>"),
    ]


@pytest.mark.parametrize("text", ['{"eos_token_id": [258', "[]", "", "\x00"])
def test_a_generation_config_that_is_none_is_named(tmp_path, text):
    save_tokenizer(tmp_path, QWEN3)
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(InputError, match=r"generation_config.json: .*; download it again"):
        load_chat(tmp_path, False)


def test_no_code_of_a_checkpoint_is_run(tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # whoever is asked, and says yes
    settings = save_tokenizer(tmp_path, QWEN3) / "tokenizer_config.json"
    own = {"auto_map": {"AutoTokenizer": ["mine.X", "mine.X"]}, "tokenizer_class": "X"}
    settings.write_text(json.dumps(json.loads(settings.read_text()) | own))
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'made')!r}, 'w')\nclass X: pass\n")
    with pytest.raises(InputError, match="custom code"):
        load_chat(tmp_path, False)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("legacy", [True, False])
def test_a_completion_has_no_space_that_its_text_lacks(tmp_path, legacy):
    """Sentencepiece's tokenizers put a space before a text, and take it off when they decode."""
    chat = load_chat(save_sentencepiece(tmp_path, legacy), False)
    ask = [{"role": "user", "content": "hi"}]
    for said in ("hi hi", " hi", "\nhi", "", "é hi"):
        ids = chat.completion_ids(ask, [], assistant(said))
        assert chat.decode(ids) == said
        prompt, whole = chat.prompt_ids(ask, []), chat.render([*ask, assistant(said)], [], False)
        assert chat.encode(whole)[: len(prompt) + len(ids)] == prompt + ids, said
    hi = chat.tokenizer.convert_tokens_to_ids("▁hi")
    assert chat.decode([hi, hi]) == " hi hi" and chat.decode([]) == ""


def test_two_templates_are_told_the_same_date(tmp_path):
    clock = "{{- strftime_now('%-d/%-m %e %F %D %T|') }}"
    chat = templates.chat_of_two(tmp_path, clock + QWEN3, clock + QWEN3)
    for tools in ([], TOOLS):
        assert chat.render(TRAJECTORY[:1], tools).startswith("26/7 26 2024-07-26 07/26/24 00:00:00|")


def test_a_date_that_is_not_known_is_refused(tmp_path):
    chat = load_chat(save_tokenizer(tmp_path, "{{- strftime_now('%c') }}" + QWEN3), False)
    with pytest.raises(InputError, match=r"strftime_now\(%c\) has a code other than %d %-d"):
        chat.render(TRAJECTORY[:1], [])


def test_a_template_is_told_one_date_for_ever(tmp_path):
    clock = "{%- if strftime_now is defined %}{{- 'Today: ' + strftime_now('%d %b %Y') + '\\n' }}{%- endif %}"
    chat = load_chat(save_tokenizer(tmp_path, clock + QWEN3), keep_thinking=False)
    assert chat.render([{"role": "user", "content": "x"}], []).startswith(
        "Today: 26 Jul 2024\n<|im_start|>user"
    )
