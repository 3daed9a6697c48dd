"""Prompts of a conversation that share the tokenizer's work have the ids of prompts encoded one by one."""

import random

import numpy as np
import pytest
from support.fuzzing import cases
from support.qwen3_chat import QWEN3, save_tokenizer
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from pivotrl_jax.chat import prefixes
from pivotrl_jax.chat.prefixes import Conversation, prompt_ids
from pivotrl_jax.chat.template import Chat, load_chat, read_template
from pivotrl_jax.checkpoints.locate import EMBEDDED
from pivotrl_jax.records import InputError

CASES = cases(30)  # conversations per template and tokenizer

# What earlier turns look like depends on what follows: their number from the end, the length of the whole,
# results that are hidden once they are old.
RESTLESS = """{{ messages|length }} messages<|im_end|>
{%- for m in messages %}
{%- if m.role == 'tool' and loop.revindex > 3 %}{{ '<|im_start|>tool (old)<|im_end|>' }}
{%- else %}{{ '<|im_start|>' + m.role + loop.revindex|string + '\\n' + m.content + '<|im_end|>' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant' }}{%- endif %}"""

# refuses a conversation whose last message is a user's third
STRICT = RESTLESS.replace(
    "{%- for m in messages %}",
    "{%- if messages|selectattr('role', 'equalto', 'user')|list|length > 2 %}"
    "{{ raise_exception('too many') }}{% endif %}{%- for m in messages %}",
    1,
)

WORDS = (
    "a", "the", "Ünï", "日本", "e\u0301", "\ud800", " ", "\n", "\n\n", "\t", "12", "3456", "'s", "{", "</",
    "<", "<|im_start|>", "<|im_end|>", "<|im_end|>\n", "<|im_", "<think>", "</think>", "<tool_call>", "|>",
    "<|endoftext|>", "x" * 40, "\ufeff", "▁", "",
)  # fmt: skip


def words(rng: random.Random, most: int) -> str:
    return rng.choice(["", " "]).join(rng.choices(WORDS, k=rng.randint(0, most)))


def conversation(rng: random.Random) -> Conversation:
    """Turns of every kind, in an order that may occur."""
    messages = [{"role": "system", "content": words(rng, 8)}] * rng.randint(0, 1)
    messages.append({"role": "user", "content": words(rng, 8)})
    for i in range(rng.randint(1, 9)):
        turn = {"role": "assistant", "content": words(rng, 6)}
        if rng.random() < 0.5:
            turn["reasoning_content"] = words(rng, 6)
        if rng.random() < 0.6:
            function = {"name": "f", "arguments": {"a": words(rng, 4)}}
            turn["tool_calls"] = [{"id": f"c{i}", "type": "function", "function": function}]
        messages.append(turn)
        result = {"role": "tool", "tool_call_id": f"c{i}", "name": "f", "content": words(rng, 9)}
        user = {"role": "user", "content": words(rng, 5)}
        messages.append(result if "tool_calls" in turn else user)
    ends = [i for i, m in enumerate(messages) if m["role"] == "assistant" and rng.random() < 0.9]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}] * rng.randint(0, 2)
    return Conversation(messages, ends, tools)


def one_by_one(chat: Chat, c: Conversation) -> list:
    """The reference: every prompt rendered and encoded by itself."""
    found = []
    for end in c.ends:
        try:
            found.append(chat.prompt_ids(list(c.messages[:end]), c.tools))
        except InputError as e:
            found.append(str(e))
    return found


def as_lists(ids: list) -> list:
    assert all(isinstance(x, InputError) or (x.dtype == np.int32 and x.ndim == 1) for x in ids)
    return [str(x) if isinstance(x, InputError) else x.tolist() for x in ids]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {"embedded": EMBEDDED}
    hermes = read_template("smollm2_hermes")
    for name, template in {"qwen3": QWEN3, "hermes": hermes, "restless": RESTLESS, "strict": STRICT}.items():
        made[name] = save_tokenizer(tmp_path_factory.mktemp(name), template)
    return made


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("name", ["embedded", "qwen3", "hermes", "restless", "strict"])
def test_ids_equal_those_of_prompts_encoded_one_by_one(folders, name, keep, monkeypatch):
    monkeypatch.setattr(prefixes, "BATCH", 2000)
    monkeypatch.setattr(prefixes, "MEMORY", 4000)  # forgets often
    chat = load_chat(folders[name], keep)
    assert prefixes._cuts_of(chat.tokenizer)
    conversations = [conversation(random.Random(f"{name} {keep} {n}")) for n in range(CASES)]
    refused = 0
    for c, ids in zip(conversations, prompt_ids(chat, iter(conversations)), strict=True):
        want = one_by_one(chat, c)
        assert as_lists(ids) == want
        refused += sum(isinstance(w, str) for w in want)
    assert (refused > 0) == (name == "strict")


def test_a_text_is_tokenised_once(folders, monkeypatch):
    chat, sent = load_chat(folders["qwen3"], False), []
    tokenise = prefixes._tokenise
    monkeypatch.setattr(prefixes, "_tokenise", lambda c, new: [sent.extend(new), tokenise(c, new)][1])
    messages = [{"role": "user", "content": "go"}]
    for n in range(20):
        messages.append({"role": "assistant", "content": f"answer {n} " * 20})
        messages.append({"role": "tool", "name": "f", "content": f"result {n} " * 20})
    c = Conversation(messages, range(1, 41, 2), [])
    (ids,) = prompt_ids(chat, [c])
    texts = [chat.render(messages[:end], []) for end in c.ends]
    assert sum(map(len, sent)) < 1.2 * len(texts[-1]) < sum(map(len, texts)) / 8
    # prompts are views of the longest
    assert all(np.shares_memory(x, ids[-1]) for x in ids) and as_lists(ids) == one_by_one(chat, c)


# ---- tokenizers


def tokenizer(normalizer=None, pre_tokenizer=None, special=(), added=(), **model) -> PreTrainedTokenizerFast:
    """A BPE tokenizer with merges across blanks and words, so that a cut in a wrong place shows."""
    byte_level = pre_tokenizer is None
    alphabet = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "▁"]
    merges = [("a", "b"), ("ab", "a"), ("Ġ", "a"), ("▁", "a"), ("Ċ", "Ċ"), ("Ċ", "a"), ("1", "2")]
    vocabulary = dict.fromkeys([*alphabet, *("".join(pair) for pair in merges), "<unk>"])
    vocabulary = {token: i for i, token in enumerate(vocabulary)}
    made = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, **model))
    if normalizer:
        made.normalizer = normalizer
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False) if byte_level else pre_tokenizer
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token) if isinstance(token, str) else token for token in special])
    made.add_tokens(list(added))
    fast = PreTrainedTokenizerFast(tokenizer_object=made)
    fast.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    return fast


SPECIAL = ("<|a|>", "<|b|>", "<|a|>b")
LOOSE = [AddedToken("<R>", rstrip=True, normalized=False), AddedToken("<L>", lstrip=True, normalized=False)]
LOOSE += [AddedToken("\n\n\n", normalized=False), AddedToken("<|a", normalized=False), AddedToken("ab a")]
LLAMA = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
GPT4 = pre_tokenizers.Sequence(
    [
        pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+"), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
)
METASPACE = {s: pre_tokenizers.Metaspace(prepend_scheme=s) for s in ("first", "always", "never")}
TOKENIZERS = {
    "plain": lambda: tokenizer(special=SPECIAL),
    "gpt4": lambda: tokenizer(pre_tokenizer=GPT4, special=SPECIAL, added=LOOSE),
    "nfc": lambda: tokenizer(normalizers.NFC(), special=SPECIAL, added=LOOSE),
    "prefix space": lambda: tokenizer(pre_tokenizer=pre_tokenizers.ByteLevel(), special=SPECIAL),
    "llama": lambda: tokenizer(LLAMA, METASPACE["never"], SPECIAL, LOOSE),
    **{f"metaspace {s}": lambda m=m: tokenizer(None, m, SPECIAL, LOOSE) for s, m in METASPACE.items()},
    "special that strips": lambda: tokenizer(
        special=[*SPECIAL, AddedToken("<|b|>", rstrip=True), AddedToken("<|c|>", lstrip=True)]
    ),
}
PIECES = (
    *SPECIAL,
    "<R>",
    "<L>",
    "<|c|>",
    "<|a",
    "a",
    "b",
    " ",
    "ab",
    "\n",
    "\n\n\n",
    "12",
    "é",
    "e\u0301",
    "|>",
    "日",
)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_texts_cut_at_special_tokens_have_the_ids_of_the_whole(name):
    chat = Chat(TOKENIZERS[name](), False, (0,))
    assert prefixes._cuts_of(chat.tokenizer)
    rng = random.Random(name)
    conversations = []
    for _ in range(10 * CASES):
        text = [{"role": "user", "content": "".join(rng.choices(PIECES, k=3))} for _ in range(9)]
        conversations.append(Conversation(text, sorted(rng.sample(range(1, 10), 4)), []))
    for c, ids in zip(conversations, prompt_ids(chat, conversations), strict=True):
        assert as_lists(ids) == one_by_one(chat, c), [m["content"] for m in c.messages]


@pytest.mark.parametrize(
    "made",
    [
        tokenizer(),  # no special token
        tokenizer(normalizers.Strip(), special=SPECIAL),
        tokenizer(normalizers.Sequence([normalizers.NFC(), normalizers.Strip()]), special=SPECIAL),
        tokenizer(pre_tokenizer=pre_tokenizers.UnicodeScripts(), special=SPECIAL),
        tokenizer(special=SPECIAL, dropout=0.5),
        tokenizer(special=SPECIAL, added=[AddedToken("word", single_word=True)]),
        tokenizer(special=[AddedToken("<|a|>", rstrip=True)]),
        tokenizer(special=[AddedToken("<|a|>", normalized=True)]),
        object(),
    ],
)
def test_where_a_cut_is_not_certain_texts_are_tokenised_whole(made, monkeypatch):
    assert prefixes._cuts_of(made) is None
    if hasattr(made, "encode") and not made.backend_tokenizer.model.dropout:
        monkeypatch.setattr(prefixes, "_tokenise", None)
        c = Conversation([{"role": "user", "content": " <|a|> ab a "}] * 3, [1, 2, 3], [])
        chat = Chat(made, False, (0,))
        assert [as_lists(ids) for ids in prompt_ids(chat, [c])] == [one_by_one(chat, c)]


def test_a_tokenizer_with_an_encoder_of_its_own_is_left_to_it():
    class Own(PreTrainedTokenizerFast):
        def encode(self, text, **more):
            return super().encode(text.upper(), **more)

    assert prefixes._cuts_of(Own(tokenizer_object=tokenizer(special=SPECIAL).backend_tokenizer)) is None
