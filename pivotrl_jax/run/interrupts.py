"""SIGTERM and SIGINT: a program stops where nothing is lost, says how to go on, and exits with 143 or 130.

The first signal raises `Interrupted`: at once or, inside `deferred`, at the next `allowed` block or at the
end. All files are written whole or not at all, so what a stage had finished is there for the same command to
go on from. A second SIGINT ends the process at once; a second SIGTERM, as schedulers send it, changes
nothing.

Among several processes, SIGTERM goes to JAX's preemption service, and `point` is where they agree to stop: it
raises in all of them at the same call. SIGINT is passed on as SIGTERM.
"""

import contextlib
import itertools
import os
import signal
import threading
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal asks this program to end. `saved` says what was saved because of it."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number, self.saved = number, ""

    @property
    def status(self) -> int:
        """The exit status that says which signal it was."""
        return 128 + self.number


class _State:
    number = 0  # of the signal that came
    deferring = False
    calls = itertools.count()  # of `point`, equal in all processes


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Handle SIGINT and SIGTERM in this block, if this is the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _handle) for number in SIGNALS}
    try:
        yield
    finally:
        _State.number = 0
        for number, handler in before.items():
            signal.signal(number, handler)


def of_several() -> None:
    """Leave SIGTERM to JAX's preemption service; call it once the processes have joined."""
    signal.signal(signal.SIGINT, _pass_on)


def _handle(number: int, frame) -> None:
    if _State.number:
        if number == signal.SIGINT:
            _say("a second SIGINT: ends at once")
            os._exit(128 + number)
        return
    _State.number = number
    if _State.deferring:
        _say(f"{signal.Signals(number).name}: ends after this step; once more, with Ctrl-C, ends at once")
    else:
        raise Interrupted(number)


def _pass_on(number: int, frame) -> None:
    signal.signal(signal.SIGINT, _handle)
    _State.number = number  # so that a second one ends this process at once
    _say("SIGINT: all processes end after this step; once more ends this one at once")
    os.kill(os.getpid(), signal.SIGTERM)


def _say(text: str) -> None:
    os.write(2, f"\n{text}\n".encode())  # print is not safe in a signal handler


def point() -> None:
    """A place where a program may end. Among several processes it raises Interrupted if one of them was told
    to, in all of them at the same call; all must make the same calls."""
    _raise_if_due()  # an exception of the handler is lost in a destructor
    if jax.distributed.is_initialized() and jax.config.jax_enable_preemption_service:
        if multihost_utils.reached_preemption_sync_point(next(_State.calls)):
            raise Interrupted(signal.SIGTERM)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """A signal in this block raises Interrupted at the next `allowed` or when the block has succeeded."""
    before, _State.deferring = _State.deferring, True
    try:
        yield
    finally:
        _State.deferring = before
    _raise_if_due()


@contextlib.contextmanager
def allowed() -> Iterator[None]:
    """Inside `deferred`: a block that a signal may break off anywhere."""
    before, _State.deferring = _State.deferring, False
    try:
        point()
        yield
    finally:
        _State.deferring = before


def _raise_if_due() -> None:
    if _State.number and not _State.deferring and not jax.distributed.is_initialized():
        raise Interrupted(_State.number)
