"""Token ids of the prompts of many turns of one conversation, each text tokenised once.

    for ids in prompt_ids(chat, [Conversation(messages, [2, 4, 6], tools), ...]):
        ...                                  # int32 arrays: the prompts before messages 2, 4 and 6

Every prompt is rendered by itself, since a template may render a turn differently once others follow it. What
is shared is the tokenizer's work: a text is cut before its special tokens, and a piece that occurred before
is not tokenised again. The ids are those of the whole text, because a tokenizer cuts there first: special
tokens are found in the text before anything else, and what lies between two of them is tokenised on its own.
Where that is not certain (`_cuts_of`), every text is tokenised whole. A thread tokenises while this one
renders.
"""

import bisect
import dataclasses
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from pivotrl_jax.chat.template import Chat, well_formed
from pivotrl_jax.records import InputError, Message

BATCH = 1 << 18  # characters that are handed to the tokenizer at a time, about
MEMORY = 1 << 23  # characters of pieces that are remembered at most, about

# Parts of a tokenizer that treat every piece of text between two special tokens by itself, wherever it is
NORMALIZERS = {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Replace", "Prepend", "Sequence"}
PRE_TOKENIZERS = {"ByteLevel", "Split", "Digits", "Punctuation", "Metaspace", "Sequence"}
MODELS = {"BPE", "Unigram", "WordPiece", "WordLevel"}


@dataclasses.dataclass(frozen=True)
class Conversation:
    """Messages, and before which of them prompts end."""

    messages: Sequence[Message]
    ends: Sequence[int]  # the prompt of end 3 is messages[:3]
    tools: list[dict]


Ids = np.ndarray | InputError  # int32 [T]; the error where the template refuses the messages


def prompt_ids(chat: Chat, conversations: Iterable[Conversation]) -> Iterator[list[Ids]]:
    """For every conversation, in order, the ids of its prompts: equal to `chat.prompt_ids(messages[:end],
    tools)`, and an InputError where that raises one. Arrays of a conversation share memory: do not write."""
    cuts = _cuts_of(chat.tokenizer)
    if cuts is None:
        for conversation in conversations:
            yield _shared([_encoded(chat, text) for text in _texts(chat, conversation)])
        return
    memory = _Memory()
    with ThreadPoolExecutor(1) as pool:
        pending: _Batch | None = None
        for texts in _batches(chat, conversations):
            split = [cuts.split_all(several) for several in texts]
            if memory.size > MEMORY:
                memory = _Memory()  # the pending batch holds on to the old one
            new = memory.add(piece for several in split for pieces in several for piece in pieces)
            batch = _Batch(texts, split, memory, new, pool.submit(_tokenise, chat, new))
            if pending:
                yield from pending.ids()
            pending = batch
        if pending:
            yield from pending.ids()


def _texts(chat: Chat, conversation: Conversation) -> list[str | InputError]:
    messages = list(conversation.messages)
    return chat.render_all([messages[:end] for end in conversation.ends], conversation.tools)


def _encoded(chat: Chat, text: str | InputError) -> Ids:
    return text if isinstance(text, InputError) else np.array(chat.encode(text), np.int32)


def _batches(chat: Chat, conversations: Iterable[Conversation]) -> Iterator[list[list[str | InputError]]]:
    """The texts of several conversations at a time. The longest text of each counts, as the others are about
    its prefixes."""
    batch, size = [], 0
    for conversation in conversations:
        batch.append(_texts(chat, conversation))
        size += max((len(text) for text in batch[-1] if isinstance(text, str)), default=0)
        if size > BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _tokenise(chat: Chat, pieces: Sequence[str]) -> list[np.ndarray]:
    encodings = chat.tokenizer.backend_tokenizer.encode_batch_fast(
        [well_formed(piece) for piece in pieces], add_special_tokens=False
    )
    return [np.array(encoding.ids, np.int32) for encoding in encodings]


def _shared(prompts: list[Ids]) -> list[Ids]:
    """The same ids, where a prompt that is a prefix of the longest one is a view of it."""
    longest = max((ids for ids in prompts if isinstance(ids, np.ndarray)), key=len, default=None)
    return [
        longest[: len(ids)]
        if isinstance(ids, np.ndarray) and np.array_equal(longest[: len(ids)], ids)
        else ids
        for ids in prompts
    ]


class _Memory:
    """Pieces of text and their ids; None while they are being tokenised."""

    def __init__(self):
        self.ids: dict[str, np.ndarray | None] = {}
        self.size = 0

    def add(self, pieces: Iterable[str]) -> list[str]:
        """The pieces that are new."""
        new = []
        for piece in pieces:
            if piece not in self.ids:
                self.ids[piece] = None
                self.size += len(piece)
                new.append(piece)
        return new


@dataclasses.dataclass
class _Batch:
    """Conversations on their way through the tokenizer."""

    texts: list[list[str | InputError]]
    split: list[list[list[str]]]  # the pieces of every text
    memory: _Memory
    new: list[str]
    tokenised: Future

    def ids(self) -> Iterator[list[Ids]]:
        known = self.memory.ids
        known.update(zip(self.new, self.tokenised.result()))
        for texts, split in zip(self.texts, self.split):
            yield _shared(
                [
                    text if isinstance(text, InputError) else np.concatenate([known[p] for p in pieces])
                    for text, pieces in zip(texts, split)
                ]
            )


# ---- where a text may be cut


class _Cuts:
    """Cuts texts before special tokens. `tokens` are all that the tokenizer looks for in the text as it is,
    `at` those before which it may be cut."""

    def __init__(self, tokens: Iterable[str], at: Iterable[str]):
        # at each place the longest token wins, as in the tokenizer's own search
        self._tokens = re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))))
        self._at = frozenset(at)
        self._longest = max(map(len, tokens))

    def split_all(self, texts: Sequence[str | InputError]) -> list[list[str]]:
        """The pieces of every text; they join to the text. What a text shares with the one before is not
        searched again."""
        before, starts, found = "", [0], []
        for text in texts:
            if isinstance(text, InputError):
                found.append([])
                continue
            starts = self._starts(text, before, starts)
            found.append([text[a:b] for a, b in itertools.pairwise([*starts, len(text)])])
            before = text
        return found

    def _starts(self, text: str, before: str, starts: list[int]) -> list[int]:
        """Where the pieces of `text` begin: 0 and all cuts. `starts` are those of the text `before`."""

        def differs(start: int) -> bool:  # a token that begins there could be another one
            end = start + self._longest
            return end > len(before) or not text.startswith(before[:end])

        kept = starts[
            : max(bisect.bisect_left(starts, True, key=differs), 1)
        ]  # texts always share their start
        matches = self._tokens.finditer(text, kept[-1])
        return kept + [m.start() for m in matches if m.start() > kept[-1] and m[0] in self._at]


def _cuts_of(tokenizer: Any) -> _Cuts | None:
    """Where the tokenizer's texts can be cut without changing their ids; None if that is not certain.

    A cut is before a special token that is found in the text as it is (not normalised) and takes no blanks
    from its neighbours.
    """
    from transformers import PreTrainedTokenizerFast

    methods = ("encode", "_encode_plus")
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or any(
        getattr(type(tokenizer), name) is not getattr(PreTrainedTokenizerFast, name) for name in methods
    ):
        return None
    tokenizer.encode(
        "", add_special_tokens=False
    )  # turns off the truncation and padding that a file may ask for
    backend = tokenizer.backend_tokenizer
    parts = (backend.normalizer, NORMALIZERS), (backend.pre_tokenizer, PRE_TOKENIZERS)
    if any(part is not None and not _types(part) <= known for part, known in parts):
        return None
    if type(backend.model).__name__ not in MODELS or getattr(backend.model, "dropout", None):
        return None
    if backend.encode_special_tokens or backend.truncation or backend.padding:
        return None
    tokens = backend.get_added_tokens_decoder().values()
    found = [token for token in tokens if not token.normalized]
    cuts = [
        t.content for t in found if t.special and not (t.lstrip or t.rstrip) and not t.content[:1].isspace()
    ]
    if any(token.single_word for token in tokens) or not cuts:
        return None
    return _Cuts([token.content for token in found], cuts)


def _types(part: Any) -> set[str]:
    """The types of a tokenizer's part and of the parts in it."""

    def walk(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            if "type" in value:
                yield value["type"]
            for inner in value.values():
                yield from walk(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from walk(inner)

    return set(walk(json.loads(part.__getstate__())))
