"""The chat templates that ship with the project: what they write is read back, and exports carry them."""

import dataclasses
import json

import pytest
from support.qwen3_chat import save_tokenizer

from pivotrl_jax.chat.actions import action_to_message, message_to_action
from pivotrl_jax.chat.template import SHIPPED, load_chat, read_template
from pivotrl_jax.pivots.candidates import self_check
from pivotrl_jax.records import Action, Call, Candidate, InputError

# what SmolLM2 has: ChatML without tools
PLAIN = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
)
USER = {"role": "user", "content": "go"}
TOOL = {
    "name": "write",
    "description": "Add a line.",
    "parameters": {"properties": {"n": {"type": "integer"}}},
}
CALL = Call("write", {"text": 'a "b" </think>\n', "n": 3, "deep": [{"x": None}]})
RESULT = {"role": "tool", "tool_call_id": "call_0", "name": "write", "content": "done"}


@pytest.fixture(scope="module", params=sorted(file.stem for file in SHIPPED.glob("*.jinja")))
def chat(request, tmp_path_factory):
    folder = save_tokenizer(tmp_path_factory.mktemp("plain"), PLAIN)
    assert load_chat(folder, False).dialect == ""
    return load_chat(folder, False, chat_template=request.param)


def candidate(history: list, *calls: Call, content: str = "", thought: str = "") -> Candidate:
    message = action_to_message(Action(content, thought, calls))
    return Candidate("c@1", "c", 0, history, [TOOL], message, "tool_call", {}, "s")


def test_turns_of_every_kind_come_back(chat):
    assert chat.dialect == "hermes"
    history = [USER, action_to_message(Action("I write.", "", (CALL, CALL))), RESULT, RESULT]
    for messages in ([USER], history, [*history, action_to_message(Action("Done.", "", ())), USER]):
        turns = [
            candidate(messages, CALL),
            candidate(messages, CALL, CALL, content="I write twice."),
            candidate(messages, CALL, thought="first think"),
            candidate(messages, content="Hello."),
        ]
        assert self_check(turns, chat).left_out == {}
        for turn in turns:
            text = chat.decode(chat.completion_ids(messages, [TOOL], turn.demonstration))
            # text: the calls as they were written
            read = dataclasses.replace(chat.parse(text, [TOOL]), text="")
            assert read == dataclasses.replace(message_to_action(turn.demonstration), text="")


def test_function_docs_are_compact_json_in_the_system_message(chat):
    wrapped = [{"type": "function", "function": TOOL}]
    text = chat.render([{"role": "system", "content": "Be brief."}, USER], [TOOL])
    assert text == chat.render([{"role": "system", "content": "Be brief."}, USER], wrapped)
    assert text.startswith("<|im_start|>system\nBe brief.\n\n") and text.count("<|im_start|>system") == 1
    assert "<tools>\n" + json.dumps(TOOL, separators=(",", ":")) + "\n</tools>" in text
    assert text.endswith("<|im_end|>\n<|im_start|>user\ngo<|im_end|>\n<|im_start|>assistant\n")


def test_without_tools_it_is_smollm2s_own_template(chat):
    asked = "<|im_start|>user\ngo<|im_end|>\n<|im_start|>assistant\n"
    own = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    assert chat.render([USER], []) == f"<|im_start|>system\n{own}<|im_end|>\n{asked}"
    system = {"role": "system", "content": "Be brief."}
    assert chat.render([system, USER], []) == f"<|im_start|>system\nBe brief.<|im_end|>\n{asked}"


def test_a_conversation_is_a_prefix_of_its_continuation(chat):
    keep = load_chat(chat.tokenizer.name_or_path, True, chat_template="smollm2_hermes")
    call = action_to_message(Action("", "think", (CALL,)))
    messages = [USER, call, RESULT, call, RESULT, action_to_message(Action("ok", "", ())), USER, call]
    whole = keep.render(messages, [TOOL], False)
    for end in range(1, len(messages)):
        assert whole.startswith(keep.render(messages[:end], [TOOL], False))
    assert whole.count("<think>\nthink\n</think>") == 3
    assert chat.render(messages, [TOOL], False).count("<think>") == 1


def test_results_in_a_row_are_one_message_of_the_user(chat):
    text = chat.render([USER, action_to_message(Action("", "", (CALL, CALL))), RESULT, RESULT], [TOOL])
    answer = "\n<tool_response>\ndone\n</tool_response>"
    assert f"<|im_start|>user{answer}{answer}<|im_end|>\n<|im_start|>assistant\n" in text


def test_a_template_may_be_a_file_and_a_wrong_name_is_answered(tmp_path, chat):
    file = tmp_path / "mine.jinja"
    file.write_text(PLAIN)
    assert read_template(str(file)) == PLAIN
    with pytest.raises(InputError, match="no such file; give a path, or one of smollm2_hermes"):
        load_chat(chat.tokenizer.name_or_path, False, chat_template="chatml")
    with pytest.raises(InputError, match=r"refuses these messages \(Unexpected message role critic"):
        chat.render([{"role": "critic", "content": ""}], [])
