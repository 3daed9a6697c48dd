"""One reading of a completion: what is streamed is the whole reply, wherever the text is cut."""

import dataclasses
import random

import pytest
from support.written_calls import FORMS

from pivotrl_jax.chat.actions import parse_action
from pivotrl_jax.chat.dialects.base import schemas_of
from pivotrl_jax.records import Call
from pivotrl_jax.serve.log_probs import bytes_of
from pivotrl_jax.serve.text import Choice, Reply, Stream, encode, reply_of
from pivotrl_jax.serve.thinking import split

TOOL = {
    "type": "function",
    "function": {
        "name": "search",
        "parameters": {"type": "object", "properties": {"text": {"type": "string"}}},
    },
}
WORDS = (
    "<think>", "<think>\n", "</think>", "\n</think>\n\n", '"</think>"', "<thought>plan</thought>", "Hi", " ",
    "\n", "    x = 1\n", "a < b", "<", "</th", "'", "ü\ufffd", "<tool_call>", "[", "<|", " to=f",
    "<function_calls>",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Chat:
    """What replies need of a chat template."""

    dialect: str = "hermes"
    opens_thinking: bool = False

    def parse(self, text, tools):
        return parse_action(text, self.opens_thinking, self.dialect, schemas_of(tools))


@dataclasses.dataclass(frozen=True)
class Ask:
    tools: tuple = ()
    one_call: bool = False


def choice_of(text: str) -> Choice:
    choice = Choice(lambda ids: "", (), frozenset())
    choice.text, choice.finish = text, "stop"
    return choice


def whole_and_streamed(chat: Chat, ask: Ask, text: str, cuts) -> tuple[Reply, tuple[str, str]]:
    reply, stream = reply_of(chat, ask, choice_of(text)), Stream(chat, ask)
    pieces = [*(stream.more(text[:cut]) for cut in cuts), stream.rest(reply)]
    return reply, tuple("".join(parts) for parts in zip(*pieces))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("opens", [False, True])
def test_what_is_streamed_is_the_whole_reply(form, opens):
    dialect, write, _, _ = FORMS[form]
    calls = [write([Call("search", {"text": text})]) for text in ("Oslo", "x </think> y")]
    rng, called = random.Random(form + str(opens)), 0
    for _ in range(300):
        text = "".join(rng.choices([*WORDS, *calls], [1] * len(WORDS) + [8, 4], k=rng.randrange(1, 9)))
        cuts = sorted(rng.choices(range(len(text) + 1), k=rng.randrange(12)))
        for tools in ((), (TOOL,)):
            reply, streamed = whole_and_streamed(Chat(dialect, opens), Ask(tools), text, cuts)
            assert streamed == (reply.reasoning, reply.content), (text, cuts)
            called += bool(reply.calls)
    assert called


# text -> (thinking, content), of a template that does not open thinking, and of one that does
SPLITS = {
    "Hi": (("", "Hi"), ("Hi", "")),
    "a\n</think>\n\nHi": (("", "a\n</think>\n\nHi"), ("a", "Hi")),
    "The closing tag is </think>. Use it.": (
        ("", "The closing tag is </think>. Use it."),
        ("The closing tag is ", ". Use it."),
    ),
    "<think>\na\n</think>\n<think>b</think>Hi": (("a\nb", "Hi"), ("a\nb", "Hi")),
    "<think>a</think><think>b": (("a\nb", ""), ("a\nb", "")),
    '<think>say "</think>" last</think>Hi': (('say "</think>" last', "Hi"), ('say "</think>" last', "Hi")),
    "<thought>plan</thought>\n\nHi": (
        ("", "<thought>plan</thought>\n\nHi"),
        ("<thought>plan</thought>\n\nHi", ""),
    ),
    "Hm. <think>a</think> Hi": (("", "Hm. <think>a</think> Hi"), ("Hm. <think>a", " Hi")),
    "\n\n    def f():\n        pass\n": (
        ("", "    def f():\n        pass\n"),
        ("    def f():\n        pass", ""),
    ),
    "<think></think>\n\n  Hi ": (("", "  Hi "), ("", "  Hi ")),
}


@pytest.mark.parametrize("text", SPLITS)
def test_thinking_is_what_the_template_writes(text):
    assert (split(text, False), split(text, True)) == SPLITS[text]


@pytest.mark.parametrize("form", [form for form, (_, _, _, before) in FORMS.items() if before])
def test_words_before_a_call_are_sent_before_it_and_not_its_marks(form):
    dialect, write, _, _ = FORMS[form]
    text = "  I look." + "\n" + write([Call("search", {"text": "Oslo"})])
    reply, streamed = whole_and_streamed(Chat(dialect), Ask((TOOL,)), text, range(len(text)))
    assert len(reply.calls) == 1 and reply.content == "  I look." and streamed == ("", "  I look.")
    stream = Stream(Chat(dialect), Ask((TOOL,)))
    early = "".join(stream.more(text[:cut])[1] for cut in range(len(text)))
    assert early == ("" if dialect == "json_fence" else "  I look.")


def test_half_a_surrogate_pair_is_sent_as_the_replacement_character():
    assert encode({"city": "\ud83d!"}) == '{"city":"\ufffd!"}'.encode()


def test_bytes_of_parts_of_characters(chat):
    word = "naïve ☀ \U0001f600\ufffd"
    for tokenizer, ids in ((chat.tokenizer, chat.encode(word)), (_Pieces(), range(3))):
        texts = [tokenizer.decode([i]) for i in ids]
        assert "\ufffd" in texts
        raw = b"".join(bytes_of(tokenizer, i, text) for i, text in zip(ids, texts))
        assert raw == (word if tokenizer is chat.tokenizer else "é\ufffd").encode()


class _Pieces:
    """A vocabulary in SentencePiece's form."""

    def convert_ids_to_tokens(self, i):
        return ["<0xC3>", "<0xA9>", "\ufffd"][i]

    def decode(self, ids):
        return "\ufffd"
