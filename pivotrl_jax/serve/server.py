"""HTTP around the app: uvicorn, with time limits for clients that send or read too slowly, and a clean
end."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from pivotrl_jax.records import InputError

HEAD_BYTES = 16 * 1024  # of a request line and headers
HEAD_SECONDS = 30  # for a request line and headers, and between requests
READ_SECONDS = 30  # for a client to take what was sent, once buffers are full


class Guarded(H11Protocol):
    """A connection that is closed when its client neither sends a whole head nor reads what it asked for."""

    _head: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport) -> None:
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._head = _stopped(self._head)
        elif self._head is None:
            self._expect_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle is None or self.cycle.response_complete:  # no pipelined request has begun
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head, self._unread = _stopped(self._head), _stopped(self._unread)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread = _stopped(self._unread)

    def _expect_head(self) -> None:
        _stopped(self._head)
        self._head = self.loop.call_later(HEAD_SECONDS, self.transport.abort)


def _stopped(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


class Server(uvicorn.Server):
    """A server that ends on SIGINT or SIGTERM without passing the signal on, so that the exit status is 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop, signals = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)
        added = []
        for number in signals:
            with contextlib.suppress(RuntimeError, ValueError, NotImplementedError):  # not in the main thread
                loop.add_signal_handler(number, self.handle_exit, number, None)
                added.append(number)
        try:
            yield
        finally:
            for number in added:
                loop.remove_signal_handler(number)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any that is free. Raises InputError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as e:
        raise InputError(f"cannot listen on {host}:{port} ({e}); choose another --host or --port") from None


def make_server(app: Callable, grace: float) -> Server:
    """A server of the app. `grace`: seconds for open requests to finish once it is told to end."""
    config = uvicorn.Config(
        app,
        http=Guarded,
        ws="none",
        lifespan="off",
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=HEAD_BYTES,
        timeout_keep_alive=HEAD_SECONDS,
        timeout_graceful_shutdown=grace,
    )
    return Server(config)
