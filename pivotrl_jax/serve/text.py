"""From sampled tokens to what a client reads: text as it grows, stop strings, thinking, content and calls."""

import dataclasses
import json
import secrets
from collections.abc import Callable, Sequence

from pivotrl_jax.chat import dialects
from pivotrl_jax.chat.dialects.base import Dialect, schemas_of
from pivotrl_jax.chat.responses import argument_text
from pivotrl_jax.chat.template import Chat, well_formed
from pivotrl_jax.serve import thinking
from pivotrl_jax.serve.engine import Piece
from pivotrl_jax.serve.requests import Ask

Decode = Callable[[list[int]], str]


class Choice:
    """One completion as it grows: its tokens, and its text up to a stop token or stop string."""

    def __init__(self, decode: Decode, stop: Sequence[str], stop_ids: frozenset[int], offsets: bool = False):
        self.tokens: list[int] = []
        self.log_probs: list[float] = []  # under the model
        self.top: list[list[tuple[int, float]]] = []
        self.offsets: list[int] = []  # where in the text each token begins, if asked for
        self.text, self.finish = "", None  # the text is whole at the finish; `safe` is for before
        self._decode, self._stop, self._stop_ids, self._offsets = decode, stop, stop_ids, offsets
        self._shown: list[int] = []  # the tokens that are part of the text
        self._begin = self._end = 0  # tokens [_begin, _end) are the last ones whose text is known

    def feed(self, piece: Piece) -> None:
        """The next tokens. What comes after the end is dropped."""
        if self.finish:
            return
        one_by_one = bool(self._stop or self._stop_ids or self._offsets)
        tokens, last = piece.tokens, len(piece.tokens) - 1
        for i, token in enumerate(tokens):
            self.tokens.append(token)
            self.log_probs.append(piece.model_log_probs[i])
            self.top += piece.top[i : i + 1]
            if self._offsets:
                self.offsets.append(len(self.text))
            if piece.finish == "stop" and i == last:
                break
            if token in self._stop_ids:
                self.finish = "stop"
                break
            self._shown.append(token)
            if one_by_one:
                self._grow()
                if self._cut():
                    return
        self.finish = self.finish or piece.finish
        if self.finish or self._stop:  # else nobody may ask for the text yet
            self._grow(final=self.finish is not None)
            self._cut()

    def safe(self) -> str:
        """The text that no later token can change."""
        if not self.finish:
            self._grow()
        if self.finish or not self._stop:
            return self.text
        return self.text[: max(0, len(self.text) - max(map(len, self._stop)) + 1)]

    def _grow(self, final: bool = False) -> None:
        """Add the text of new tokens. It waits while the last character is incomplete.

        Only the last tokens are decoded again: those that became text last, and the new ones, since a
        token's text may depend on the one before it.
        """
        if self._end == len(self._shown):
            return
        before = self._decode(self._shown[self._begin : self._end])
        now = self._decode(self._shown[self._begin :])
        if now.endswith("\ufffd") and not final:
            return
        self.text += now[len(before) :]
        self._begin, self._end = self._end, len(self._shown)

    def _cut(self) -> bool:
        """End at the first stop string, if the text has one."""
        found = [at for stop in self._stop if (at := self.text.find(stop)) >= 0]
        if found:
            self.text, self.finish = self.text[: min(found)], "stop"
        return bool(found)


@dataclasses.dataclass(frozen=True)
class Reply:
    """An assistant message as it is sent, and why it ended."""

    content: str
    reasoning: str
    calls: list[dict]
    finish: str

    def message(self) -> dict:
        message = {"role": "assistant", "content": self.content, "refusal": None}
        if self.calls:
            message |= {"content": self.content or None, "tool_calls": self.calls}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        return message


def reply_of(chat: Chat, ask: Ask, choice: Choice) -> Reply:
    """The message of a whole completion.

    What cannot be read as a call, and every text where no tools were given, is content as the model wrote it.
    """
    reasoning, content = thinking.split(choice.text, chat.opens_thinking)
    calls = _calls(chat, ask, choice.text)
    if not calls:
        return Reply(content, reasoning, [], choice.finish)
    said = dialects.read(content, _dialect(chat).name, schemas_of(ask.tools)).content
    indent = content[: len(content) - len(content.lstrip())] if said else ""
    finish = "tool_calls" if choice.finish == "stop" else choice.finish
    return Reply(indent + said, reasoning, calls, finish)


def _calls(chat: Chat, ask: Ask, text: str) -> list[dict]:
    """The calls of a text, as they are sent; none if one of them cannot be read."""
    action = chat.parse(text, ask.tools) if ask.tools else None
    if action is None or action.malformed:
        return []
    return [
        {
            "id": secrets.token_hex(5)[:9],  # some templates take no other length
            "type": "function",
            "function": {"name": call.name, "arguments": argument_text(call.arguments)},
        }
        for call in (action.calls[:1] if ask.one_call else action.calls)
    ]


def _dialect(chat: Chat) -> Dialect:
    return dialects.DIALECTS[chat.dialect or dialects.HERMES]


# what may stand before a mark of a dialect and is dropped with the call
_BEFORE = {
    "qwen3_coder": ("<tool_call>",),
    "invoke": ("<",),
    "deepseek": ("<｜tool▁calls▁begin｜>",),
    "kimi": ("<|tool_calls_section_",),
    "harmony": ("<|",),
}


class Stream:
    """What of a growing chat completion can be sent already: thinking, and content up to a call."""

    def __init__(self, chat: Chat, ask: Ask):
        self.reasoning, self.content = "", ""  # sent so far
        dialect, self._opened, self._tools = _dialect(chat), chat.opens_thinking, bool(ask.tools)
        self._marks = (*dialect.marks, *_BEFORE.get(dialect.name, ()))
        self._wait = self._tools and not dialect.sure  # any text may turn out to be a call

    def more(self, text: str) -> tuple[str, str]:
        """(thinking, content) to send next, given the text so far."""
        reasoning, content = thinking.split(text, self._opened, whole=False)
        return self._send(reasoning, self._before_calls(content) if self._tools else content)

    def rest(self, reply: Reply) -> tuple[str, str]:
        """(thinking, content) to send at the end, so that what was sent is the whole reply."""
        return self._send(reply.reasoning, reply.content)

    def _send(self, reasoning: str, content: str) -> tuple[str, str]:
        more = reasoning[len(self.reasoning) :], content[len(self.content) :]
        self.reasoning, self.content = reasoning, content
        return more

    def _before_calls(self, content: str) -> str:
        """The content that stays content, whatever is called after it: calls take the white space along."""
        if self._wait:
            return ""
        starts = [at for mark in self._marks if (at := content.find(mark)) >= 0]
        return (content[: min(starts)] if starts else thinking.held(content, self._marks)).rstrip()


def encode(value: dict) -> bytes:
    """JSON in UTF-8. Half a surrogate pair, which a model may write as an escape, becomes U+FFFD."""
    return well_formed(json.dumps(value, ensure_ascii=False, separators=(",", ":"))).encode()
