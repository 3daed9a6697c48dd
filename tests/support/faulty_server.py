"""An OpenAI-compatible server on the loopback that fails as it is told, and whose answers depend on the
request alone: what a client ends up with must not depend on the faults."""

import asyncio
import collections
import contextlib
import hashlib
import json
import random
import socket
import threading
import time

# kind of fault -> share of requests, for a day on which everything goes wrong
BAD_DAY = {
    "drop": 0.03,  # the connection is reset without an answer
    "429": 0.03,
    "503": 0.03,
    "half": 0.03,  # less than the content-length promises
    "json": 0.03,
    "error": 0.02,  # an error in a 200
    "none": 0.02,  # a reply without choices
    "odd": 0.02,  # choices without what they must hold
    "abort": 0.02,  # finish_reason "abort", as of a server that shuts down
    "slow": 0.005,  # drips until the client has had enough
    "late": 0.05,  # answers after a while
    "storm": 0.001,  # all requests get 429 for a while
}
STORM = 0.3  # seconds


def number_of(*parts) -> int:
    """A number that depends on JSON values alone."""
    return int.from_bytes(hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()[:6])


def token_choice(body: dict, n: int) -> dict:
    """A completion of token ids: a function of prompt, seed and number."""
    rng = random.Random(number_of(body["prompt"], body.get("seed"), n))
    length, cut = rng.randint(1, body["max_tokens"]), rng.random() < 0.1
    ids = [rng.randrange(1, 60) for _ in range(body["max_tokens"] if cut else length)]
    stops = body["stop_token_ids"]
    ids = [i + 1 if i in stops else i for i in ids]
    if not cut:
        ids[-1] = stops[rng.randrange(len(stops))]
    return {
        "index": n,
        "text": " ".join(map(str, ids)),
        "token_ids": ids,
        "prompt_token_ids": body["prompt"],
        "logprobs": {"token_logprobs": [-rng.random() for _ in ids]},
        "finish_reason": "length" if cut else "stop",
    }


def chat_choice(body: dict, n: int) -> dict:
    """A chat completion of numbers: a function of messages, seed and number."""
    rng = random.Random(number_of(body["messages"], body.get("seed"), n))
    message = {"role": "assistant", "content": " ".join(str(rng.randrange(60)) for _ in range(3))}
    return {"index": n, "message": message, "finish_reason": "length" if rng.random() < 0.1 else "stop"}


class FaultyServer:
    """Answers in a thread of its own. `token_choice(body, n)` and `chat_choice(body, n)` make the choices;
    None of one of them is a server without that route. `faults` is as BAD_DAY; after every `restart_every`
    requests the server breaks all connections and is away for `away` seconds. `refuse(path, body)` may give
    an answer (status, value) of its own."""

    def __init__(
        self,
        faults=None,
        *,
        restart_every=0,
        away=0.2,
        tokens=token_choice,
        chat=chat_choice,
        refuse=lambda path, body: None,
        seed=0,
    ):
        self.faults, self.restart_every, self.away = dict(faults or {}), restart_every, away
        self.choices = {"/v1/completions": tokens, "/v1/chat/completions": chat}
        self.refuse, self.rng = refuse, random.Random(seed)
        self.requests: list[tuple[str, dict]] = []
        self.headers: list[str] = []
        self.did: collections.Counter[str] = collections.Counter()  # faults
        self.count = self.open = self.most_open = 0
        self.storm = 0.0  # when it ends
        self.keep = True  # the requests, for tests that look at them
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"

    # ---- life

    def __enter__(self):
        ready = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._live(ready)), daemon=True)
        self.thread.start()
        ready.wait()
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.stopped.set)
        self.thread.join()

    async def _live(self, ready):
        self.loop, self.stopped, self.again = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        self.writers: set[asyncio.StreamWriter] = set()
        while not self.stopped.is_set():
            self.again.clear()
            server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=1024)
            ready.set()
            ends = [asyncio.ensure_future(event.wait()) for event in (self.stopped, self.again)]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                end.cancel()
            server.close()
            for writer in list(self.writers):
                writer.transport.abort()
            if not self.stopped.is_set():
                self.did["restart"] += 1
                await asyncio.sleep(self.away)

    async def _serve(self, reader, writer):
        self.writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                path = head.split(" ", 2)[1]
                lines = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
                self.headers.append(lines.get("authorization", ""))
                body = json.loads(await reader.readexactly(int(lines["content-length"])) or b"{}")
                self.open += 1
                self.most_open = max(self.most_open, self.open)
                try:
                    if not await self._answer(path, body, writer):
                        return
                finally:
                    self.open -= 1
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client, or this server, has gone
        finally:
            self.writers.discard(writer)
            writer.transport.abort()

    # ---- answers

    def _fault(self) -> str:
        if time.monotonic() < self.storm:
            return "429"
        at = self.rng.random()
        for kind, share in self.faults.items():
            at -= share
            if at < 0:
                return kind
        return ""

    async def _answer(self, path, body, writer) -> bool:
        """Answer one request. Returns whether the connection stays."""
        self.count += 1
        if self.keep:
            self.requests.append((path, body))
        if self.restart_every and self.count % self.restart_every == 0:
            self.again.set()
            return False
        own = self.refuse(path, body)
        if own is not None:
            return await self._send(writer, own[0], json.dumps(own[1]).encode())
        choice = self.choices.get(path)
        if choice is None:
            return await self._send(writer, 404, b'{"error": {"message": "no such route"}}')
        fault = self._fault()
        self.did[fault] += bool(fault)
        choices = [choice(body, n) for n in range(body.get("n", 1))]
        value = {
            "model": "served-model",
            "system_fingerprint": "fp_1",
            "choices": choices,
            "usage": {"prompt_tokens": 7, "completion_tokens": 3 * len(choices)},
        }
        if fault == "drop":
            return False
        if fault == "storm":
            self.storm, fault = time.monotonic() + STORM, "429"
        if fault in ("429", "503"):
            return await self._send(
                writer, int(fault), b'{"error": {"message": "busy"}}', "retry-after: 0.02\r\n"
            )
        if fault == "none":
            value["choices"] = []
        if fault == "error":
            value = {"error": {"message": "overloaded"}}
        if fault == "odd":
            value["choices"] = [{"index": 0, "finish_reason": "stop", "text": "odd"}, 7][: len(choices)]
        if fault == "abort":
            value["choices"] = [{**one, "finish_reason": "abort"} for one in choices]
        if fault == "short":
            value["choices"] = choices[:-1]
        raw = json.dumps(value).encode()
        if fault == "late":
            await asyncio.sleep(self.rng.random() * 0.02)
        if fault == "json":
            raw = raw[: self.rng.randrange(len(raw))] + b"}}"
        if fault == "half":
            await self._send(writer, 200, raw[: len(raw) // 2], "", length=len(raw))
            return False
        if fault == "slow":
            return await self._drip(writer, raw)
        return await self._send(writer, 200, raw)

    async def _send(self, writer, status, raw, headers="", length=None) -> bool:
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{headers}"
        writer.write(f"{head}content-length: {length or len(raw)}\r\n\r\n".encode() + raw)
        await writer.drain()
        return True

    async def _drip(self, writer, raw) -> bool:
        writer.write(f"HTTP/1.1 200 X\r\ncontent-length: {len(raw)}\r\n\r\n".encode())
        with contextlib.suppress(ConnectionError):
            for i in range(len(raw) - 1):
                if writer.is_closing():
                    break
                writer.write(raw[i : i + 1])
                await writer.drain()
                await asyncio.sleep(0.05)
        return False
