"""The routes: /v1/models, /v1/chat/completions, /v1/completions and /health, in OpenAI's forms.

The event loop reads requests and writes replies, one thread renders and tokenises prompts, and the engine's
thread decodes. A request that is refused, and one that fails, gets OpenAI's error object.
"""

import asyncio
import contextlib
import copy
import dataclasses
import functools
import hmac
import math
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from pivotrl_jax.chat.template import Chat, well_formed
from pivotrl_jax.records import InputError
from pivotrl_jax.serve import requests
from pivotrl_jax.serve.engine import Engine, Failed, Full, Piece, Sample
from pivotrl_jax.serve.replies import ChatReplies, CompletionReplies, error_object
from pivotrl_jax.serve.requests import Ask, BadRequest, Limits
from pivotrl_jax.serve.text import Choice, encode

BODY_SECONDS = 30  # for a whole body


@dataclasses.dataclass(frozen=True)
class Options:
    """What the operator decides about HTTP."""

    api_key: str = ""  # "": none is asked for
    max_body_bytes: int = 1_000_000


class Gone(Exception):
    """The client has left."""


class Service:
    """What the routes share. `app` is the ASGI application; `open` is called first, in its event loop."""

    def __init__(self, engine_of, chat: Chat, limits: Limits, options: Options, fingerprint: str = ""):
        """`engine_of(deliver)` makes the engine."""
        self.limits, self.options, self.fingerprint = limits, options, fingerprint
        self.engine: Engine = engine_of(self._deliver)
        self.created = int(time.time())
        self._queues: dict[Sample, asyncio.Queue] = {}
        self._reading = 0
        self._worker = ThreadPoolExecutor(1, "prompts")
        # fast tokenizers may not encode in one thread and decode in another
        self._chats = {None: chat, True: _thinking(chat, True), False: _thinking(chat, False)}
        self._reader = {key: _with_own_tokenizer(chat) for key, chat in self._chats.items()}
        for one in (*self._chats.values(), *self._reader.values()):
            one.check_dialect()
            _ = one.opens_thinking
        routes = [
            Route("/health", self._health, methods=["GET"]),
            Route("/v1/models", self._allowed(self._models), methods=["GET"]),
            Route("/v1/models/{name:path}", self._allowed(self._model), methods=["GET"]),
            Route("/v1/chat/completions", self._allowed(self._chat), methods=["POST"]),
            Route("/v1/completions", self._allowed(self._completions), methods=["POST"]),
        ]
        handlers = {
            ClientDisconnect: _left_early,
            BadRequest: _refused,
            HTTPException: _no_route,
            Full: _full,
            Failed: _failed,
        }
        self.app = Starlette(routes=routes, exception_handlers={**handlers, Exception: _failed})

    def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.engine.start()

    def close(self) -> None:
        self.engine.stop()
        self._worker.shutdown(cancel_futures=True)

    # ---- routes

    async def _health(self, request: Request) -> Response:
        engine = self.engine
        status = {"running": engine.running(), "waiting": engine.waiting(), **vars(engine.counts)}
        page = {"status": "failed" if engine.failed else "ok", "model": self.limits.model, **status}
        return _json(page, 503 if engine.failed else 200)

    async def _models(self, request: Request) -> Response:
        return _json({"object": "list", "data": [self._card()]})

    async def _model(self, request: Request) -> Response:
        if request.path_params["name"] != self.limits.model:
            sentence = f'no such model; this server has "{self.limits.model}"'
            raise BadRequest(sentence, "model", 404, "model_not_found")
        return _json(self._card())

    def _card(self) -> dict:
        card = {"id": self.limits.model, "object": "model", "created": self.created}
        more = {"max_model_len": self.limits.context, "system_fingerprint": self.fingerprint}
        return {**card, "owned_by": "pivotrl_jax", **more}

    async def _chat(self, request: Request) -> Response:
        return await self._answer(request, requests.read_chat, ChatReplies)

    async def _completions(self, request: Request) -> Response:
        return await self._answer(request, requests.read_completion, CompletionReplies)

    def _allowed(self, endpoint):
        """The endpoint for requests with the API key."""
        wanted = b"Bearer " + self.options.api_key.encode()

        @functools.wraps(endpoint)
        async def checked(request: Request) -> Response:
            given = request.headers.get("authorization", "").encode("latin-1")
            if self.options.api_key and not hmac.compare_digest(given, wanted):
                sentence = "the API key is missing or wrong; send it as Authorization: Bearer KEY"
                raise BadRequest(sentence, None, 401, "invalid_api_key")
            return await endpoint(request)

        return checked

    # ---- a request

    async def _answer(self, request: Request, read, replies) -> Response:
        self.engine.check_room(self._reading + 1)
        self._reading += 1
        try:
            raw = await _body(request, self.options.max_body_bytes)
            ask, prompts = await self._loop.run_in_executor(self._worker, self._read, raw, read)
        finally:
            self._reading -= 1
        settings = [requests.settings_for(ask, prompt, self.limits) for prompt in prompts]
        samples = [
            Sample(prompt, one, index) for prompt, one in zip(prompts, settings) for index in range(ask.n)
        ]
        chat, options = self._chats[ask.thinking], {"skip_special_tokens": ask.skip_special}
        decode = functools.partial(chat.tokenizer.decode, **options, clean_up_tokenization_spaces=False)
        choices = [Choice(decode, ask.stop, ask.stop_ids, ask.log_probs) for _ in samples]
        answer = replies(self.limits.model, self.fingerprint, chat, ask, decode, samples, choices)
        queue: asyncio.Queue = asyncio.Queue()
        self.engine.submit(samples)
        self._queues |= dict.fromkeys(samples, queue)
        grown = self._grown(request.receive, queue, samples, choices)
        if ask.stream:
            return Events(answer.events(grown))
        async with contextlib.aclosing(grown):
            try:
                async for _ in grown:
                    pass
            except Gone:
                return Response(status_code=LEFT)
        return _json(answer.whole())

    def _read(self, raw: bytes, read) -> tuple[Ask, list[list[int]]]:
        """(the request, its prompts' token ids), in the worker's thread."""
        ask = read(requests.read_body(raw), self.limits)
        chat = self._reader[ask.thinking]
        if ask.messages:
            try:
                return ask, [chat.prompt_ids(ask.messages, ask.tools)]
            except InputError as e:
                raise BadRequest(str(e), "messages") from None
        encode_text = functools.partial(
            chat.tokenizer.encode, add_special_tokens=ask.add_special, verbose=False
        )
        return ask, [list(encode_text(well_formed(p))) if isinstance(p, str) else p for p in ask.prompts]

    async def _grown(
        self, receive, queue: asyncio.Queue, samples: Sequence[Sample], choices: Sequence[Choice]
    ) -> AsyncIterator[int]:
        """The number of the choice that has grown, again and again, until all have ended. Samples that are
        not needed any more are cancelled. Raises Gone when the client has left."""
        number = {sample: i for i, sample in enumerate(samples)}
        watcher = asyncio.create_task(_left(receive, queue))
        try:
            while any(choice.finish is None for choice in choices):
                item = await queue.get()
                if item is None:
                    raise Gone
                sample, piece = item
                i = number[sample]
                if choices[i].finish:
                    continue
                if piece.finish == "error":
                    raise Failed
                choices[i].feed(piece)
                if choices[i].finish and not piece.finish:  # a stop string
                    self.engine.cancel([sample])
                yield i
        finally:
            watcher.cancel()
            for sample in samples:
                self._queues.pop(sample, None)
            self.engine.cancel([s for s, choice in zip(samples, choices) if choice.finish is None])

    def _deliver(self, pieces: list[tuple[Sample, Piece]]) -> None:
        """Called in the engine's thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._spread, pieces)

    def _spread(self, pieces: list[tuple[Sample, Piece]]) -> None:
        for sample, piece in pieces:
            if queue := self._queues.get(sample):
                queue.put_nowait((sample, piece))


class Events(Response):
    """Server-sent events, each sent as soon as it is there."""

    def __init__(self, events: AsyncIterator[bytes]):
        self._events = events
        super().__init__(media_type="text/event-stream", headers={"cache-control": "no-cache"})

    async def __call__(self, scope, receive, send) -> None:
        headers = [(k, v) for k, v in self.raw_headers if k != b"content-length"]
        async with contextlib.aclosing(self._events) as events:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            try:
                async for event in events:
                    await send({"type": "http.response.body", "body": event, "more_body": True})
            except Gone:
                return
            except Failed:
                error = encode(error_object(FAILED, None, "server_error"))
                body = b"data: " + error + b"\n\ndata: [DONE]\n\n"
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _left(receive, queue: asyncio.Queue) -> None:
    """Put None into the queue when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
    queue.put_nowait(None)


async def _body(request: Request, limit: int) -> bytes:
    """The body of a request. Raises BadRequest when it is too big or too slow."""
    too_big = BadRequest(f"the body has more than {limit} bytes; send less", None, 413, "body_too_large")
    parts, size = [], 0
    given = request.headers.get("content-length", "0")
    if given.isdecimal() and int(given[:20]) > limit:
        raise too_big
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise too_big
                parts.append(part)
    except TimeoutError:
        sentence = f"the body took more than {BODY_SECONDS} s; send it faster"
        raise BadRequest(sentence, None, 408, "timeout") from None
    return b"".join(parts)


def _thinking(chat: Chat, thinking: bool) -> Chat:
    arguments = {**chat.template_arguments, "enable_thinking": thinking}
    return dataclasses.replace(chat, template_arguments=arguments)


def _with_own_tokenizer(chat: Chat) -> Chat:
    return dataclasses.replace(chat, tokenizer=copy.deepcopy(chat.tokenizer))


# ---- errors

LEFT = 499  # for a client that has left; nobody reads it
FAILED = "the server cannot decode any more; see its log"


def _json(page: dict, status: int = 200, headers: dict | None = None) -> Response:
    return Response(encode(page), status, headers, "application/json")


async def _refused(request: Request, e: BadRequest) -> Response:
    kind = "invalid_request_error"
    if e.status == 401:
        kind = "authentication_error"
    return _json(error_object(str(e), e.param, kind, e.code), e.status)


async def _left_early(request: Request, e: ClientDisconnect) -> Response:
    return Response(status_code=LEFT)


async def _no_route(request: Request, e: HTTPException) -> Response:
    sentence = "no such route" if e.status_code == 404 else str(e.detail)
    return _json(error_object(sentence, None, "invalid_request_error"), e.status_code, e.headers)


async def _full(request: Request, e: Full) -> Response:
    page = error_object(str(e), None, "rate_limit_error", "rate_limit_exceeded")
    return _json(page, 429, {"retry-after": str(math.ceil(e.seconds))})


async def _failed(request: Request, e: Exception) -> Response:
    sentence = FAILED if isinstance(e, Failed) else "the server made a mistake; see its log"
    return _json(error_object(sentence, None, "server_error"), 500)
