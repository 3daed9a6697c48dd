"""With keep_thinking every assistant turn stands in the history as it did when it was the last one."""

import dataclasses

import pytest
from support import templates
from support.qwen3_chat import QWEN3, save_tokenizer

from pivotrl_jax.chat.actions import action_to_message
from pivotrl_jax.chat.template import load_chat
from pivotrl_jax.records import Action, Call, InputError

PROMPT = "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
assert PROMPT in QWEN3
OPEN = QWEN3.replace(PROMPT, PROMPT.replace("assistant\\n", "assistant\\n<think>\\n"))
EMPTY = "('<think>\\n\\n</think>\\n\\n' if enable_thinking is false else '')"
SWITCH = QWEN3.replace(PROMPT, PROMPT.replace("' }}", f"' ~ {EMPTY} }}}}"))
# whose turns since the last user message have a block even if it is empty
BLOCKS = QWEN3.replace("(loop.last or reasoning_content)", "true")
TEMPLATES = {"Qwen3": QWEN3, "Thinking-2507": OPEN, "no thinking": SWITCH, "always a block": BLOCKS}

USER = {"role": "user", "content": "go"}
CALL = Call("ls", {})
TURNS = {
    "thought": Action("Hi", "R"),
    "words": Action("Hi"),
    "blank lines": Action("\n\nHi", "R"),
    "call": Action("", "", (CALL,)),
    "thought and call": Action("", "R", (CALL,)),
    "all of it": Action("\n\nI look.", "R", (CALL, CALL)),
    "blank lines and call": Action("\n\n", "", (CALL,)),
    "nothing": Action(),
}


@pytest.fixture(scope="module", params=TEMPLATES)
def chat(request, tmp_path_factory):
    off = {"enable_thinking": False} if request.param == "no thinking" else {}
    folder = save_tokenizer(tmp_path_factory.mktemp("chat"), TEMPLATES[request.param])
    return load_chat(folder, True, off)


@pytest.mark.parametrize("name", TURNS)
def test_a_turn_stays_as_it_was_sampled(chat, name):
    thought = "" if chat.template_arguments else TURNS[name].reasoning  # {"enable_thinking": False}
    turn = action_to_message(dataclasses.replace(TURNS[name], reasoning=thought))
    results = [{"role": "tool", "tool_call_id": c["id"], "content": "a"} for c in turn.get("tool_calls", ())]
    ids = chat.completion_ids([USER], [], turn)
    was = chat.render([USER], []) + chat.tokenizer.decode(ids)
    for later in (results or [turn], [*results, USER], [*results, turn, *results, USER]):
        assert chat.render([USER, turn, *later], []).startswith(was), later


def test_a_template_that_writes_no_thinking_shows_none_of_it(tmp_path):
    save_tokenizer(tmp_path, templates.framed(templates.FORMS["hermes"]))
    plain, kept = (load_chat(tmp_path, keep) for keep in (False, True))
    turns = [action_to_message(action) for action in TURNS.values()]
    messages = [message for turn in turns for message in (USER, turn)] + turns
    assert kept.render(messages, []) == plain.render(messages, [])


def test_a_template_in_which_turns_cannot_be_kept_is_refused(tmp_path):
    hidden = "{%- if message.role == 'assistant' and not loop.last %}{%- set content = 'old' %}{%- endif %}"
    template = QWEN3.replace(
        "{%- set content = message.content %}", "{%- set content = message.content %}" + hidden
    )
    chat = load_chat(save_tokenizer(tmp_path, template), True)
    with pytest.raises(InputError, match=r"set config\.model\.keep_thinking=False"):
        chat.render([USER, action_to_message(TURNS["thought"]), USER], [])
