"""An actor whose completions are drawn by a served model, behind an OpenAI-compatible endpoint.

It takes the place of the own sampler (actor.py): the same requests, the same completions. Requests are open
at the same time, up to a limit; what fails in passing is sent again; every completion is written to a journal
as it arrives. A sample's seed is derived from the stream, the request's name and the sample's index, so that
a server that honours seeds draws the same completion again.
"""

import asyncio
import collections
import contextlib
import dataclasses
import hashlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pivotrl_jax.chat.template import Chat
from pivotrl_jax.endpoints import Endpoint, Failure, Refused, choices_of
from pivotrl_jax.models import decoder
from pivotrl_jax.records import InputError, Prompt
from pivotrl_jax.rollouts import replies
from pivotrl_jax.rollouts.actor import Completion, Request
from pivotrl_jax.rollouts.asking import Asker
from pivotrl_jax.rollouts.journal import Journal, as_json
from pivotrl_jax.rollouts.replies import CHAT, COMPLETIONS
from pivotrl_jax.rollouts.sampling import Sampling

PROBE_TOKENS = 16  # drawn to see what the server gives
UNFIT = (400, 404, 405, 422, 501)  # statuses that say a server does not do completions of token ids


@dataclasses.dataclass(frozen=True)
class Served:
    """What an endpoint is asked with; fields as in `config.rollouts`."""

    endpoint: Endpoint
    sampling: Sampling
    chat: Chat  # of the checkpoint: its tokenizer rendered the prompts
    vocab_size: int | None = None  # of the checkpoint, if its weights are here
    history_reasoning: bool = True
    samples_per_request: int = 1
    concurrency: int = 64
    retries: int = 10
    give_up_after: int = 12


@dataclasses.dataclass(frozen=True)
class Ask:
    """Samples of a request that are asked for at once: their places among its completions."""

    request: Request
    completions: list  # of the request, filled as they arrive
    places: list[int]


def seed_of(stream: jax.Array, name: str, sample: int) -> int:
    """The 31-bit seed of a sample. `stream` is a PRNG key."""
    h = hashlib.sha256(np.asarray(jax.random.key_data(stream)).tobytes())
    h.update(f"{sample}:{name}".encode("utf-8", "surrogatepass"))
    return int.from_bytes(h.digest()[:4]) & 0x7FFFFFFF


class ServedActor:
    """Draws completions from an endpoint. `mode` is "completions" or "chat" (replies.py).

    `push` gives the server the parameters of a training step; without one, `place` leaves them alone.
    `on_first_process` is as for a judge: with several processes, only the first one asks.
    """

    def __init__(
        self,
        served: Served,
        mode: str,
        push: Callable[[decoder.Params], None] | None = None,
        on_first_process: Callable[[Callable[[], Any]], Any] = lambda compute: compute(),
    ):
        self.served, self.mode, self.sampling = served, mode, served.sampling
        self._push, self._on_first_process = push, on_first_process
        self._journal, self._saved = Journal(), ""
        self._asker = Asker(served.endpoint, served.retries, served.give_up_after)
        self.drawn, self._seconds = 0, 0.0

    @property
    def identity(self) -> dict:
        """What decides the completions, beside sampling and prompts."""
        c = self.served
        return {
            "served": c.endpoint.model,
            "mode": self.mode,
            "own_seeds": c.samples_per_request == 1,
            **({"history_reasoning": c.history_reasoning} if self.mode == CHAT else {}),
            **({"template_arguments": dict(c.chat.template_arguments)} if self.mode == CHAT else {}),
        }

    def place(self, params: decoder.Params) -> decoder.Params:
        """The parameters as they are; the server gets them first, if there is a `push`."""
        if self._push:
            self._push(params)
        return params

    @contextlib.contextmanager
    def saved_in(self, file: Path) -> Iterator[None]:
        """Keep completions in `file` until the block ends; after an error it stays, to be taken up again."""
        self._journal, self._saved = Journal(file), f"what has arrived is in {file.parent}"
        done = False
        try:
            yield
            done = True
        finally:
            self._journal.close(delete=done)
            self._journal, self._saved = Journal(), ""

    @property
    def spent(self) -> str:
        """The tokens so far, for a progress bar."""
        prompt, completion = self._asker.prompt_tokens, self._asker.completion_tokens
        return f"{prompt:,} prompt and {completion:,} completion tokens"

    def summary(self) -> str:
        """What was drawn, how fast, and what it cost in tokens."""
        rate = self.drawn / self._seconds if self._seconds else 0.0
        return (
            f"{self.served.endpoint.model} gave {self.drawn} rollouts in {self._seconds:.1f} s ({rate:.1f} "
            f"per second) for {self.spent}; {self._asker.failures} requests failed and were sent again"
        )

    def act(
        self,
        params: decoder.Params,
        requests: Sequence[Request],
        stream: jax.Array,
        on_batch: Callable[[int], None] = lambda done: None,
    ) -> list[list[Completion]]:
        """The completions of every request, in order; those in the journal are not asked for again.

        Raises InputError when the server refuses a request, or has failed too often.
        """

        def draw() -> list[list[dict]]:
            found = self._run(self._draw(requests, stream, on_batch))
            return [[as_json(completion) for completion in group] for group in found]

        return [[Completion(**value) for value in group] for group in self._on_first_process(draw)]

    def _run(self, coroutine: Any) -> Any:
        start = time.perf_counter()
        try:
            return asyncio.run(coroutine)
        except InputError as e:
            after = f"; {self._saved}, and the same command goes on from there" if self._saved else ""
            raise InputError(f"{e}{after}") from None
        finally:
            self._seconds += time.perf_counter() - start

    async def _draw(self, requests, stream, on_batch) -> list[list[Completion]]:
        known = self._journal.read()
        completions, waiting = [], collections.deque()
        for request in requests:
            keys = [(request.name, request.first + i) for i in range(request.samples)]
            completions.append([known.get(key) for key in keys])
            missing = [i for i, key in enumerate(keys) if key not in known]
            on_batch(len(keys) - len(missing))
            for start in range(0, len(missing), self.served.samples_per_request):
                places = missing[start : start + self.served.samples_per_request]
                waiting.append(Ask(request, completions[-1], places))

        async def work(client) -> None:
            while waiting:
                ask = waiting.popleft()
                found = await self._answer(client, ask, stream)
                for place, completion in zip(ask.places, found):
                    self._journal.add((ask.request.name, ask.request.first + place), completion)
                    ask.completions[place] = completion
                self.drawn += len(found)
                on_batch(len(found))
                if rest := ask.places[len(found) :]:  # a short answer
                    waiting.append(dataclasses.replace(ask, places=rest))

        if waiting:
            async with self.served.endpoint.client("AsyncOpenAI") as client:
                await _together([work(client) for _ in range(min(self.served.concurrency, len(waiting)))])
        return completions

    async def _answer(self, client, ask: Ask, stream) -> list[Completion]:
        """At least one of the completions asked for. Raises InputError when there is none after all tries."""
        name, first = ask.request.name, ask.request.first + ask.places[0]
        own = seed_of(stream, name, first) if self.served.samples_per_request == 1 else None
        body = self._body(ask.request, len(ask.places), own)

        def read(value: dict) -> list[Completion] | Failure:
            return replies.read_reply(value, self.mode, len(ask.places), self.sampling.max_tokens)

        found = await self._asker.ask(client, self.mode, body, f"sample {first} of {name}", read)
        if why := next(filter(None, map(self._odd_ids, found)), ""):
            raise InputError(f"{self.served.endpoint.name} {why}")
        return found

    def _body(self, request: Request, samples: int, seed: int | None) -> dict:
        body = replies.sampling_body(self.sampling, samples, seed)
        if self.mode == CHAT:
            arguments = dict(self.served.chat.template_arguments)
            reasoning = self.served.history_reasoning
            return body | replies.chat_body(request.candidate, reasoning, arguments, samples)
        return body | replies.completions_body(request.prompt, self.sampling.stop_ids)

    def _odd_ids(self, completion: Completion) -> str:
        """Why token ids are not what was asked of the checkpoint's model; "" if they may be."""
        ids, stops, limit = completion.token_ids, list(self.sampling.stop_ids), self.served.vocab_size
        advice = (
            "name the served model's checkpoint in config.model.checkpoint, or take config.rollouts.mode=chat"
        )
        if len(ids) > self.sampling.max_tokens:
            return f"gives {len(ids)} tokens, though max_tokens is {self.sampling.max_tokens}"
        if limit is not None and ids and max(ids) >= limit:
            return f"gives the token {max(ids)}, outside the vocabulary of {limit}: {advice}"
        if completion.finished and ids and ids[-1] not in stops:
            return f"ends a completion with the token {ids[-1]}, none of the stop tokens {stops}: {advice}"
        return ""

    def probe(self, request: Request) -> str:
        """Why the server cannot do completions of token ids; "" if it can. Draws a few tokens of a request.
        Raises InputError when it cannot be asked."""
        few = min(PROBE_TOKENS, self.sampling.max_tokens)
        body = {**self._body(request, 1, seed=0), "max_tokens": few}

        async def ask() -> str:
            async with self.served.endpoint.client("AsyncOpenAI") as client:
                try:
                    return await self._asker.ask(
                        client, COMPLETIONS, body, "a first request", lambda value: self._unfit(value, body)
                    )
                except Refused as e:
                    if e.status not in UNFIT:
                        raise
                    return f"HTTP {e.status}: {e.message}"

        return self._on_first_process(lambda: self._run(ask()))

    def _unfit(self, value: dict, body: dict) -> str | Failure:
        """What keeps a first reply from being used as token ids; "" if nothing does."""
        choices = choices_of(value)
        if isinstance(choices, Failure) or not choices:
            return Failure("a reply without choices")
        found = replies.read_reply(value, COMPLETIONS, 1, body["max_tokens"])
        if isinstance(found, Failure):
            return found.why
        choice, ids = choices[0], found[0].token_ids
        if choice.get("prompt_token_ids") not in (None, body["prompt"]):
            return "it changes the prompt's token ids"
        text, own = choice.get("text"), self.served.chat.decode(ids)
        if isinstance(text, str) and not _same_text(text, own):
            return (
                f"its text for the token ids {ids[:8]} is {text[:40]!r}, and the tokenizer of "
                f"config.model.checkpoint, which must be another model's, makes of them {own[:40]!r}"
            )
        return self._odd_ids(found[0])


def _same_text(a: str, b: str) -> bool:
    """Whether two decodings of the same tokens agree, apart from spaces, half characters, special tokens and
    where they end."""
    a, b = (re.sub(r"<[^<>\s]*>|\[[A-Z_/]+\]|\ufffd|\s", "", text) for text in (a, b))
    return a.startswith(b) or b.startswith(a)


def make_served(run: Any, prompts: Sequence[Prompt], mode: str, **process: Any) -> ServedActor:
    """The actor of a run's `config.rollouts`. `mode` is one that an earlier part of the run has found, or "".

    Prints which way the model is asked. Raises InputError when it cannot be asked that way.
    """
    c = run.config.rollouts
    endpoint = Endpoint("the server", "config.rollouts", c.base_url, c.model, c.api_key_env, c.timeout)
    sampling = Sampling(**run.config.sampling.to_dict(), stop_ids=run.chat.stop_ids)
    names = ("history_reasoning", "samples_per_request", "concurrency", "retries", "give_up_after")
    vocab_size = run.model_config.vocab_size if run.model_config else None
    served = Served(endpoint, sampling, run.chat, vocab_size, **{name: c[name] for name in names})
    actor = ServedActor(served, mode or (CHAT if c.mode == CHAT else COMPLETIONS), **process)
    why = "as config.rollouts.mode says"
    if not mode and c.mode != CHAT and prompts:
        first = prompts[0].candidate
        why = actor.probe(Request(first.id, prompts[0].ids, first.trajectory_id, 1, 0, first))
        if why and c.mode == COMPLETIONS:
            raise InputError(
                f"{endpoint.name} cannot complete token ids ({why}); take config.rollouts.mode=chat, or auto"
            )
        actor.mode = CHAT if why else COMPLETIONS
    print(f"rollouts of {c.model} come from {c.base_url}: {_WAYS[actor.mode]}{f' ({why})' if why else ''}")
    return actor


_WAYS = {
    COMPLETIONS: "completions of rendered token ids, with token ids and log-probs",
    CHAT: "chat completions with tools, without token ids",
}


async def _together(work: Sequence[Any]) -> None:
    """Run coroutines until all are done; the first error ends the others."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
