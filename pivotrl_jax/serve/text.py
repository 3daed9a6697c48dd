"""From sampled tokens to what a client reads: text as it grows, stop strings, thinking, content and calls."""

import dataclasses
import json
import secrets
from collections.abc import Callable, Sequence

from pivotrl_jax.chat import dialects
from pivotrl_jax.chat.actions import END_THINK, THINK
from pivotrl_jax.chat.reasoning import split_thinking
from pivotrl_jax.chat.responses import argument_text
from pivotrl_jax.chat.template import Chat
from pivotrl_jax.serve.engine import Piece
from pivotrl_jax.serve.requests import Ask

Decode = Callable[[list[int]], str]


class Choice:
    """One completion as it grows: its tokens, and its text up to a stop token or stop string."""

    def __init__(self, decode: Decode, stop: Sequence[str], stop_ids: frozenset[int]):
        self.tokens: list[int] = []
        self.log_probs: list[float] = []  # under the model
        self.top: list[list[tuple[int, float]]] = []
        self.text, self.finish = "", None  # the text is whole at the finish; `safe` is for before
        self._decode, self._stop, self._stop_ids = decode, stop, stop_ids
        self._shown: list[int] = []  # the tokens that are part of the text
        self._begin = self._end = 0  # tokens [_begin, _end) are the last ones whose text is known

    def feed(self, piece: Piece) -> None:
        """The next tokens. What comes after the end is dropped."""
        if self.finish:
            return
        one_by_one = bool(self._stop or self._stop_ids)
        tokens, last = piece.tokens, len(piece.tokens) - 1
        for i, token in enumerate(tokens):
            self.tokens.append(token)
            self.log_probs.append(piece.model_log_probs[i])
            self.top += piece.top[i : i + 1]
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
    action = chat.parse(choice.text, ask.tools)
    if ask.tools and action.calls and not action.malformed:
        calls = action.calls[:1] if ask.one_call else action.calls
        sent = [
            {
                "id": secrets.token_hex(5)[:9],  # some templates take no other length
                "type": "function",
                "function": {"name": call.name, "arguments": argument_text(call.arguments)},
            }
            for call in calls
        ]
        finish = "tool_calls" if choice.finish == "stop" else choice.finish
        return Reply(action.content, action.reasoning, sent, finish)
    if action.malformed and action.reasoning and END_THINK not in choice.text:  # cut while thinking
        return Reply(action.content, action.reasoning, [], choice.finish)
    opened = THINK + choice.text if chat.opens_thinking and THINK not in choice.text else choice.text
    reasoning, content = split_thinking(opened)
    return Reply(content.strip(), reasoning, [], choice.finish)


class Stream:
    """What of a growing chat completion can be sent already: thinking, and content up to a call."""

    def __init__(self, chat: Chat, ask: Ask):
        self.reasoning, self.content = "", ""  # sent so far
        dialect = dialects.DIALECTS[chat.dialect or dialects.HERMES]
        self._opens, self._marks = chat.opens_thinking, dialect.marks if ask.tools else ()
        self._wait = bool(ask.tools) and not dialect.sure  # any text may turn out to be a call

    def more(self, text: str) -> tuple[str, str]:
        """(thinking, content) to send next, given the text so far."""
        return self._send(self._visible(text), last=False)

    def rest(self, reply: Reply) -> tuple[str, str]:
        """(thinking, content) to send at the end, so that what was sent is the whole reply."""
        return self._send((reply.reasoning, reply.content), last=True)

    def _send(self, now: tuple[str, str], last: bool) -> tuple[str, str]:
        sent, more = (self.reasoning, self.content), []
        for before, text in zip(sent, now):
            # a later `</think>` made thinking of content that was sent: send it twice rather than lose it
            more.append(text[len(before) :] if text.startswith(before) else text if last else "")
        self.reasoning, self.content = (before + new for before, new in zip(sent, more))
        return more[0], more[1]

    def _visible(self, text: str) -> tuple[str, str]:
        begun = text.lstrip()
        if THINK.startswith(begun):  # nothing yet, or a tag that may be opening
            return "", ""
        reasoning, rest = "", text
        if begun.startswith(THINK) or self._opens:
            thought, closed, rest = begun.removeprefix(THINK).partition(END_THINK)
            if not closed:
                return _held(thought, (END_THINK,)).strip("\n"), ""
            reasoning = thought.strip("\n")
        if self._wait:
            return reasoning, ""
        ends = [at for mark in self._marks if (at := rest.find(mark)) >= 0]
        rest = rest[: min(ends)] if ends else _held(rest, (*self._marks, END_THINK))
        return reasoning, rest.strip()


def _held(text: str, marks: Sequence[str]) -> str:
    """The text without an end with which one of `marks` may begin."""
    for size in range(min(len(text), max(map(len, marks)) - 1), 0, -1):
        if any(mark.startswith(text[-size:]) for mark in marks):
            return text[:-size]
    return text


# ---- log-probs


def chat_log_probs(choice: Choice, decode: Decode, top: int, first: int = 0) -> dict:
    """`logprobs` of a choice of a chat completion, for its tokens from `first` on."""

    def entry(token: int, log_prob: float) -> dict:
        text = decode([token])
        whole = "\ufffd" not in text  # part of a character has no text
        return {"token": text, "logprob": log_prob, "bytes": list(text.encode()) if whole else None}

    content = []
    for i in range(first, len(choice.tokens)):
        best = choice.top[i][:top] if top else []
        one = entry(choice.tokens[i], choice.log_probs[i])
        content.append({**one, "top_logprobs": [entry(*pair) for pair in best]})
    return {"content": content, "refusal": None}


def completion_log_probs(choice: Choice, decode: Decode, top: int, first: int = 0) -> dict:
    """`logprobs` of a choice of a completion, for its tokens from `first` on."""
    texts = [decode([token]) for token in choice.tokens[first:]]
    offsets, at = [], len(decode(choice.tokens[:first]))
    for text in texts:
        offsets.append(at)
        at += len(text)
    best = [{decode([t]): p for t, p in row[:top]} for row in choice.top[first:]] if top else None
    return {
        "tokens": texts,
        "token_logprobs": choice.log_probs[first:],
        "top_logprobs": best,
        "text_offset": offsets,
    }


def encode(value: dict) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
