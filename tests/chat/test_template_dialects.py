"""The form in which a checkpoint's template writes calls is found, and completions are read in it."""

import dataclasses

import pytest
from support import templates
from support.qwen3_chat import QWEN3, save_tokenizer

from pivotrl_jax.chat.actions import action_to_message, message_to_action
from pivotrl_jax.chat.template import Unwritable, load_chat
from pivotrl_jax.pivots.candidates import self_check
from pivotrl_jax.records import Action, Call, Candidate, InputError

USER = {"role": "user", "content": "go"}
TOOLS = [
    {
        "name": "write",
        "parameters": {"properties": {"text": {"type": "string"}, "lines": {"type": "integer"}}},
    }
]
CALL = Call("write", {"text": "x.split('</think>')[-1]\n", "lines": 3})


@pytest.fixture(scope="module")
def chats(tmp_path_factory):
    return {
        name: templates.chat(tmp_path_factory.mktemp(name), body)
        for name, body in {**templates.FORMS, "none": "", "unknown": templates.UNKNOWN}.items()
    }


def candidate(*calls: Call, content: str = "", thought: str = "") -> Candidate:
    message = action_to_message(Action(content, thought, calls))
    return Candidate("c@1", "c", 0, [USER], TOOLS, message, "tool_call", {}, "s")


@pytest.mark.parametrize("dialect", templates.FORMS)
def test_a_call_goes_from_message_to_tokens_and_back(chats, dialect):
    chat, state = chats[dialect], candidate(CALL)
    assert chat.dialect == dialect
    text = chat.decode(chat.completion_ids([USER], TOOLS, state.demonstration))
    action = chat.parse(text, TOOLS)
    assert action.calls == message_to_action(state.demonstration).calls and not action.malformed
    assert not self_check([state, candidate(content="Hello.")], chat).left_out


def test_a_template_whose_calls_nobody_reads_is_refused_by_what_it_writes(chats):
    with pytest.raises(InputError, match="form that is not known: '<<CALL probe_tool"):
        chats["unknown"].check_dialect()


def test_a_template_without_calls_serves_talk_turns_only(chats):
    assert chats["none"].dialect == ""
    check = self_check([candidate(CALL), candidate(content="Hello.")], chats["none"])
    assert check.left_out == {
        "c@1": "the chat template writes no tool calls; name one that does with "
        "--config.model.chat_template, e.g. smollm2_hermes"
    }
    assert len(check.kept) == 1 and check.tools == {"write": (0, 1)}


def test_words_after_a_call_that_the_template_left_out_are_left_out_too(chats):
    history = [USER, candidate(CALL).demonstration, {"role": "tool", "name": "write", "content": "done"}]
    after = dataclasses.replace(candidate(content="It is done."), messages=[*history, USER])
    assert "writes no tool calls" in self_check([after], chats["none"]).left_out["c@1"]
    assert not self_check([after], chats["hermes"]).left_out


def test_a_call_that_is_not_written_is_no_completion(tmp_path):
    """Some templates write calls only of a turn without words."""
    body = templates.FORMS["hermes"]
    chat = templates.chat(tmp_path, "{%- if not message.content %}" + body + "{%- endif %}")
    said = candidate(CALL, content="I write.")
    with pytest.raises(Unwritable, match="does not write this turn's call of write"):
        chat.completion_ids([USER], TOOLS, said.demonstration)
    assert "call of write" in self_check([candidate(CALL), said], chat).left_out["c@1"]


def test_a_template_for_tools_writes_the_calls_whatever_turn_comes_first(tmp_path):
    chat = templates.chat_of_two(tmp_path, templates.framed(""), templates.framed(templates.FORMS["hermes"]))
    turns = [candidate(content="Which file?"), candidate(CALL)]
    assert chat.dialect == "hermes"
    assert self_check(turns, chat).left_out == self_check(turns[::-1], chat).left_out == {}


def test_what_does_not_survive_the_template_is_named(tmp_path):
    lossy = templates.chat(tmp_path, templates.FORMS["hermes"].replace("f.arguments | tojson", "{} | tojson"))
    object.__setattr__(lossy, "dialect", "hermes")  # the probe would find it out first
    check = self_check([candidate(CALL)], lossy)
    assert "rejects the demonstration as the policy must write it (arguments" in check.left_out["c@1"]


def test_a_closing_think_tag_in_an_argument_does_not_break_a_turn(tmp_path):
    chat = load_chat(save_tokenizer(tmp_path, QWEN3), False)
    turns = [
        candidate(CALL, thought="strip it"),
        candidate(CALL, content="I cut at `</think>`."),
        candidate(content="It ends in '</think>'.", thought="so"),
    ]
    assert self_check(turns, chat).left_out == {}


def test_template_arguments_reach_the_template(tmp_path):
    body = "{{- 'quiet' if quiet else 'loud' }}"
    chat = templates.chat(tmp_path, body, quiet=True)
    message = candidate(CALL).demonstration
    assert "quiet" in chat.render([USER, message], [], False)
