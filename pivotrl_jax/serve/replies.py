"""OpenAI's replies, whole and as events, with vLLM's `token_ids` and `prompt_token_ids` where asked for."""

import abc
import secrets
import time
from collections.abc import AsyncIterator, Sequence

from pivotrl_jax.chat.template import Chat
from pivotrl_jax.serve.engine import Sample
from pivotrl_jax.serve.log_probs import chat_log_probs, completion_log_probs
from pivotrl_jax.serve.requests import Ask
from pivotrl_jax.serve.text import Choice, Decode, Stream, encode, reply_of


def error_object(message: str, param: str | None, kind: str, code: str | None = None) -> dict:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _event(page: dict) -> bytes:
    return b"data: " + encode(page) + b"\n\n"


class _Replies(abc.ABC):
    """What both kinds of replies share. Choice i belongs to prompt i // n."""

    prefix = kind = chunk = ""

    def __init__(
        self,
        model: str,
        fingerprint: str,
        chat: Chat,
        ask: Ask,
        decode: Decode,
        samples: Sequence[Sample],
        choices: Sequence[Choice],
    ):
        self.chat, self.ask, self.decode, self.samples, self.choices = chat, ask, decode, samples, choices
        self._head = {"id": f"{self.prefix}-{secrets.token_hex(12)}", "object": self.kind}
        self._head |= {"created": int(time.time()), "model": model, "system_fingerprint": fingerprint}
        self._told = [0] * len(choices)  # tokens of each choice that events have told of

    def prompt(self, i: int) -> list[int]:
        return list(self.samples[i].prompt)

    def usage(self) -> dict:
        first = self.samples[:: self.ask.n]  # one per prompt
        prompt, completion = sum(len(s.prompt) for s in first), sum(len(c.tokens) for c in self.choices)
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }
        return {**usage, "prompt_tokens_details": {"cached_tokens": sum(s.cached for s in first)}}

    def page(self, choices: list[dict], **more) -> dict:
        return {**self._head, "choices": choices, **more}

    def events_page(self, choices: list[dict], **more) -> bytes:
        usage = {"usage": None} if self.ask.include_usage else {}
        return _event({**self.page(choices, **usage, **more), "object": self.chunk})

    def news(self, i: int) -> dict:
        """Log-probs and token ids of a choice's tokens that no event has told of yet."""
        first, told = self._told[i], {"logprobs": None}
        if first < len(self.choices[i].tokens):
            if self.ask.log_probs:
                told["logprobs"] = self.log_probs(i, first)
            if self.ask.return_token_ids:
                told["token_ids"] = self.choices[i].tokens[first:]
        self._told[i] = len(self.choices[i].tokens)
        return told

    @abc.abstractmethod
    def log_probs(self, i: int, first: int = 0) -> dict:
        """The log-probs of a choice's tokens from `first` on, in the form of this kind of reply."""

    def last_events(self) -> list[bytes]:
        usage = [self.page([], usage=self.usage()) | {"object": self.chunk}] if self.ask.include_usage else []
        return [*map(_event, usage), b"data: [DONE]\n\n"]


class ChatReplies(_Replies):
    """Replies of /v1/chat/completions."""

    prefix, kind, chunk = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def whole(self) -> dict:
        choices = []
        for i, choice in enumerate(self.choices):
            reply = reply_of(self.chat, self.ask, choice)
            one = {"index": i, "message": reply.message(), "finish_reason": reply.finish, "logprobs": None}
            if self.ask.log_probs:
                one["logprobs"] = self.log_probs(i)
            if self.ask.return_token_ids:
                one["token_ids"] = choice.tokens
            choices.append(one)
        prompt = {"prompt_token_ids": self.prompt(0)} if self.ask.return_token_ids else {}
        return self.page(choices, usage=self.usage(), **prompt)

    def log_probs(self, i: int, first: int = 0) -> dict:
        return chat_log_probs(self.choices[i], self.chat.tokenizer, self.decode, self.ask.top, first)

    async def events(self, grown: AsyncIterator[int]) -> AsyncIterator[bytes]:
        prompt = {"prompt_token_ids": self.prompt(0)} if self.ask.return_token_ids else {}
        for i in range(len(self.choices)):
            yield self._delta(i, {"role": "assistant", "content": ""}, {}, **prompt)
            prompt = {}
        streams = [Stream(self.chat, self.ask) for _ in self.choices]
        async for i in grown:
            choice = self.choices[i]
            if choice.finish:
                for event in self._end(i, streams[i]):
                    yield event
                continue
            delta, news = _delta(*streams[i].more(choice.safe())), self.news(i)
            if delta or len(news) > 1 or news["logprobs"]:
                yield self._delta(i, delta, news)
        for event in self.last_events():
            yield event

    def _end(self, i: int, stream: Stream) -> list[bytes]:
        reply = reply_of(self.chat, self.ask, self.choices[i])
        delta = _delta(*stream.rest(reply))
        if reply.calls:
            delta["tool_calls"] = [{"index": n, **call} for n, call in enumerate(reply.calls)]
        return [self._delta(i, delta, self.news(i)), self._delta(i, {}, {}, reply.finish)]

    def _delta(self, i: int, delta: dict, news: dict, finish: str | None = None, **more) -> bytes:
        choice = {"index": i, "delta": delta, "logprobs": None, "finish_reason": finish, **news}
        return self.events_page([choice], **more)


def _delta(reasoning: str, content: str) -> dict:
    delta = {"reasoning_content": reasoning, "content": content}
    return {name: text for name, text in delta.items() if text}


class CompletionReplies(_Replies):
    """Replies of /v1/completions."""

    prefix, kind, chunk = "cmpl", "text_completion", "text_completion"

    def whole(self) -> dict:
        choices = []
        for i, choice in enumerate(self.choices):
            one = {"index": i, "text": choice.text, "finish_reason": choice.finish, "logprobs": None}
            if self.ask.log_probs:
                one["logprobs"] = self.log_probs(i)
            if self.ask.return_token_ids:
                one |= {"token_ids": choice.tokens, "prompt_token_ids": self.prompt(i)}
            choices.append(one)
        return self.page(choices, usage=self.usage())

    def log_probs(self, i: int, first: int = 0) -> dict:
        return completion_log_probs(self.choices[i], self.chat.tokenizer, self.decode, self.ask.top, first)

    async def events(self, grown: AsyncIterator[int]) -> AsyncIterator[bytes]:
        sent = [0] * len(self.choices)
        async for i in grown:
            choice, first = self.choices[i], not self._told[i]
            text = choice.safe()[sent[i] :]
            sent[i] += len(text)
            news = self.news(i)
            if first and self.ask.return_token_ids:
                news["prompt_token_ids"] = self.prompt(i)
            if text or choice.finish or len(news) > 1 or news["logprobs"]:
                yield self.events_page([{"index": i, "text": text, "finish_reason": choice.finish, **news}])
        for event in self.last_events():
            yield event
