"""Servers in this process, on a free port of the loopback, and an engine whose completions a test writes."""

import asyncio
import contextlib
import json
import socket
import threading

import openai

from pivotrl_jax.serve import server
from pivotrl_jax.serve import start as program
from pivotrl_jax.serve.app import Service
from pivotrl_jax.serve.engine import Counts, Failed, Full, Piece

KEY = "sk-the-key-of-this-test"


class Served:
    """A server that is running, and ways to ask it."""

    def __init__(self, service: Service, port: int):
        self.service, self.port, self.engine = service, port, service.engine

    def client(self, key: str = KEY) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key=key, max_retries=0)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def raw(self, request: bytes) -> bytes:
        """Everything that comes back for some bytes, until the server closes."""
        with self.connect() as connection:
            connection.sendall(request)
            parts = []
            with contextlib.suppress(ConnectionError):
                while part := connection.recv(65536):
                    parts.append(part)
        return b"".join(parts)

    def post(self, path: str, body) -> tuple[int, dict, dict]:
        """(status, headers, the JSON of the reply)."""
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {KEY}\r\n"
        return parsed(self.raw(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body))

    def get(self, path: str, headers: str = "") -> tuple[int, dict, dict]:
        head = f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n"
        return parsed(self.raw(head.encode()))

    def events(self, path: str, body: dict) -> list[dict]:
        """The events of a streamed reply, but for the last, which says that it is done."""
        body = json.dumps({**body, "stream": True}).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {KEY}\r\n"
        reply = self.raw(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
        lines = [line[6:] for line in reply.split(b"\n") if line.startswith(b"data: ")]
        assert lines[-1].strip() == b"[DONE]", reply[-500:]
        return [json.loads(line) for line in lines[:-1]]


def parsed(reply: bytes) -> tuple[int, dict, dict]:
    head, _, body = reply.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
    try:
        return int(first.split()[1]), headers, json.loads(body)
    except ValueError:
        return int(first.split()[1]), headers, {}


@contextlib.contextmanager
def serving(service: Service, grace: float = 5):
    """The service behind HTTP, in a thread."""
    listening = server.listen("127.0.0.1", 0)
    http = server.make_server(service.app, grace)
    started = threading.Event()

    async def run():
        service.open()
        started.set()
        await http.serve([listening])

    thread = threading.Thread(target=asyncio.run, args=(run(),), daemon=True)
    thread.start()
    assert started.wait(60)
    try:
        yield Served(service, listening.getsockname()[1])
    finally:
        http.should_exit = True
        thread.join(60)
        service.close()
        assert not thread.is_alive()


def make_service(*flags: str) -> Service:
    sizes = ("--context=256", "--completion_tokens=48", "--rows=2", "--slots=4", "--queue=64")
    return program.make_service(program.options().parse_args(["--checkpoint=embedded", *sizes, *flags]))


class Script:
    """An engine whose completions a test writes: `script(sample)` gives the pieces of each, as token ids and
    why it ends."""

    def __init__(self, deliver):
        self.deliver, self.failed, self.counts = deliver, "", Counts()
        self.samples, self.cancelled, self.full = [], [], 0.0
        self.script = lambda sample: []
        self.changed = threading.Condition()

    def start(self):
        pass

    stop = start

    def running(self):
        return 0

    waiting = running

    def check_room(self, samples):
        if self.failed:
            raise Failed
        if self.full:
            raise Full(self.full)

    def submit(self, samples):
        self.samples += samples
        for sample in samples:
            pieces = [
                (
                    sample,
                    Piece(
                        ids, [-0.1] * len(ids), [-0.5] * len(ids), [[(i, -0.5), (9, -2.0)] for i in ids], end
                    ),
                )
                for ids, end in self.script(sample)
            ]
            threading.Thread(target=lambda p=pieces: [self.deliver([one]) for one in p]).start()

    def cancel(self, samples):
        with self.changed:
            self.cancelled += samples
            self.changed.notify_all()

    def says(self, chat, text: str, size: int = 3, end: str = "stop"):
        """Let every completion be this text, `size` tokens at a time."""
        ids = chat.encode(text) + ([chat.stop_ids[0]] if end == "stop" else [])
        parts = [ids[i : i + size] for i in range(0, len(ids), size)]
        self.script = lambda sample: [
            (part, end if i == len(parts) - 1 else None) for i, part in enumerate(parts)
        ]
