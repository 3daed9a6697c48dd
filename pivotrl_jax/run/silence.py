"""Among several processes: one that stands still or has lost its network ends the others with a sentence.

JAX's own heartbeat would abort them with the addresses of its C++ functions. A process that is only slow is
waited for, as long as it is heard. When process 0 ends, and with it the coordinator, JAX aborts the others at
once and cannot be told not to: the sentence is then their last line.
"""

import ctypes
import itertools
import os
import signal
import socket
import sys
import threading
import time
from typing import Any

BEAT = 5.0  # seconds between two signs of life
SILENT = 120.0  # seconds of silence that end the run
JAX_TIMEOUT = 600  # seconds; JAX's heart beats twice in that time, so it aborts after 300 at the earliest
KEY = "alive/"  # of a process's latest sign of life, at the coordinator

_over = threading.Event()
_handlers: list[Any] = []  # C calls them, so they must live


def watch(client: Any, address: str, process: int, count: int) -> None:
    """Start to send and to expect signs of life. client: JAX's client of the coordinator at `address`;
    process: this one, of `count`."""
    if process:
        _explain_abort(address)
    heard = dict.fromkeys(range(count), time.monotonic())  # process -> when its sign last changed
    threading.Thread(target=_exchange, args=(client, process, heard), daemon=True).start()
    # a thread of its own, since a call waits for a coordinator that stands still
    threading.Thread(target=_expect, args=(process, heard), daemon=True).start()


def end() -> None:
    """From here on processes may leave."""
    _over.set()


def _explain_abort(address: str) -> None:
    """Have this process say why it ends when JAX aborts it because the coordinator has ended; aborts for
    other reasons stay as they are."""
    host, _, port = address.rpartition(":")

    def last_words(_: int) -> None:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
        except OSError:
            print(
                "error: process 0 has ended, and with it the coordinator of all processes; see what it said, "
                "and start the same command in all processes again, which goes on from what was finished",
                file=sys.stderr,
                flush=True,
            )
            os._exit(1)

    # Python's own handlers run in the main thread, which an abort does not let run again
    _handlers.append(ctypes.CFUNCTYPE(None, ctypes.c_int)(last_words))
    ctypes.CDLL(None).signal(signal.SIGABRT, _handlers[-1])


def _exchange(client: Any, process: int, heard: dict[int, float]) -> None:
    signs: dict[int, str] = {}
    for number in itertools.count():
        try:
            client.key_value_set(f"{KEY}{process}", str(number), allow_overwrite=True)
            for key, sign in client.key_value_dir_get(KEY):
                other = int(key.rpartition("/")[2])
                if signs.get(other) != sign:
                    signs[other], heard[other] = sign, time.monotonic()
        except RuntimeError:  # the coordinator has ended, or did not answer in time
            pass
        if _over.wait(BEAT):
            return


def _expect(process: int, heard: dict[int, float]) -> None:
    before = time.monotonic()
    while not _over.wait(BEAT):
        now = time.monotonic()
        if now - before > SILENT / 2:  # this process itself stood still, and so has heard nobody
            heard.update(dict.fromkeys(heard, now))
        before = now
        silent = [other for other, at in heard.items() if other != process and now - at > SILENT]
        if silent:
            print(
                f"error: process {', '.join(map(str, silent))} has not been heard for {SILENT:.0f} s; see "
                "what it said and whether its machine stands still, and start the same command in all "
                "processes again, which goes on from what was finished",
                file=sys.stderr,
                flush=True,
            )
            os._exit(1)
