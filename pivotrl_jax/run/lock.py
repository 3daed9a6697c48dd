"""One run at a time writes into a work directory: the lock `run.lock`, with host, process and heartbeat.

The lock is a file whose modification time its holder renews every ten seconds. It is no `flock`: on disks
that hosts share (NFS, Lustre, mounted buckets) that may hold on one host only, or nowhere, and it names
nobody. On the holder's own machine its process id says at once whether it lives; elsewhere its heartbeat
does.
"""

import atexit
import contextlib
import json
import os
import platform
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from pivotrl_jax.records import InputError

NAME = "run.lock"
BEAT = 10.0  # seconds between two heartbeats
SILENCE = 60.0  # seconds without a heartbeat after which a process of another machine counts as dead
PROC = Path("/proc")

_held: dict[Path, "_Lock"] = {}  # the locks of this process


def acquire(workdir: Path) -> None:
    """Take the lock of `workdir`, an existing directory, until `release` or the end of this process. A lock
    that this process holds already is kept. A dead holder's lock is taken over, which is said on stderr.

    Waits for at most SILENCE seconds, if the holder is on another machine and may be alive. Raises InputError
    that names a living holder.
    """
    path = workdir.resolve() / NAME
    if path in _held:
        return
    mine = {
        "host": platform.node(),
        "machine": _machine(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "token": uuid.uuid4().hex,
    }
    while not _create(path, mine):
        holder = _read(path)
        if holder is None:  # released just now
            continue
        if _lives(path, holder):
            raise InputError(
                f"{workdir}: process {holder['pid']} on {holder['host']} has been working there "
                f"since {holder['since']}; wait until it is done, or name another directory"
            )
        if _remove(path, holder):
            print(
                f"{workdir}: taken over from process {holder['pid']} on {holder['host']}, which began "
                f"{holder['since']} and is gone",
                file=sys.stderr,
            )
    _held[path] = _Lock(path, mine)


def release() -> None:
    """Give back every lock of this process."""
    while _held:
        _held.popitem()[1].close()


atexit.register(release)


@contextlib.contextmanager
def released() -> Iterator[None]:
    """A block, or as a decorator a function, whose locks are given back at its end: a notebook goes on."""
    try:
        yield
    finally:
        release()


class _Lock:
    """A lock that this process holds, and the thread that renews it."""

    def __init__(self, path: Path, mine: dict):
        self._path, self._mine, self._ended = path, mine, threading.Event()
        threading.Thread(target=self._beat, name="run.lock", daemon=True).start()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            # a disk that fails, or is gone, is noticed by whoever writes the results
            with contextlib.suppress(OSError, InputError):
                self._renew()

    def _renew(self) -> None:
        there = _read(self._path)
        if there is None:  # deleted by hand
            _create(self._path, self._mine)
        elif there["token"] == self._mine["token"]:
            os.utime(self._path)
        elif not self._ended.is_set():  # this process was suspended, and two must not write
            print(
                f"error: {self._path.parent}: process {there['pid']} on {there['host']} took the work over; "
                "this one ends",
                file=sys.stderr,
                flush=True,
            )
            os._exit(1)

    def close(self) -> None:
        self._ended.set()
        if os.getpid() != self._mine["pid"]:  # a fork of the holder
            return
        with contextlib.suppress(OSError):
            if (_read(self._path) or {}).get("token") == self._mine["token"]:
                self._path.unlink()


def _create(path: Path, mine: dict) -> bool:
    """Write the lock, unless there is one. Raises InputError where nothing can be written."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    except OSError as e:
        raise InputError(f"config.workdir {path.parent}: {e.strerror}; name another directory") from None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as f:
            json.dump(mine, f)
    except OSError as e:
        path.unlink()
        raise InputError(f"{path}: {e.strerror}; free space there, or name another directory") from None
    return True


def _read(path: Path) -> dict | None:
    """Who holds the lock; None if nobody does. A lock that is being written, or whose writer was killed, has
    an unknown holder."""
    try:
        text = path.read_text("utf-8", "replace")
    except FileNotFoundError:
        return None
    unknown = dict.fromkeys(("host", "machine", "pid", "started", "since", "token"), "?")
    try:
        return unknown | json.loads(text)
    except (ValueError, TypeError):
        return unknown


def _lives(path: Path, holder: dict) -> bool:
    if holder["machine"] == _machine():
        return _running(holder["pid"], holder["started"])
    beat, seen_token = _age(path), holder["token"]
    if beat is None or beat[1] > SILENCE:
        return False
    print(
        f"{path.parent}: waiting up to {SILENCE:.0f} s for a sign of life of process {holder['pid']} on "
        f"{holder['host']}",
        file=sys.stderr,
    )
    until, first = time.monotonic() + SILENCE, beat[0]
    while time.monotonic() < until:
        time.sleep(min(1.0, SILENCE / 10))
        there, beat = _read(path), _age(path)
        if there is None or beat is None:
            return False
        if there["token"] != seen_token or beat[0] != first:
            return True
    return False


def _age(path: Path) -> tuple[float, float] | None:
    """(time of the last heartbeat, seconds since then by the clock of the disk); None without a lock."""
    with contextlib.suppress(FileNotFoundError), path.open() as f:  # opening asks an NFS server anew
        beat = os.fstat(f.fileno()).st_mtime
        with tempfile.NamedTemporaryFile(prefix=f"{NAME}.", dir=path.parent) as now:
            return beat, os.fstat(now.fileno()).st_mtime - beat
    return None


def _remove(path: Path, holder: dict) -> bool:
    """Remove a dead holder's lock. False if another process did so first."""
    aside = path.with_name(f"{NAME}.{os.getpid()}")
    try:
        os.rename(path, aside)  # succeeds in one process only
    except FileNotFoundError:
        return False
    taken = _read(aside)
    if taken and taken["token"] != holder["token"]:  # a new holder was faster
        with contextlib.suppress(OSError):
            os.link(aside, path)
        aside.unlink()
        return False
    aside.unlink()
    return True


def _running(pid: int, started: str | None) -> bool:
    """Whether a process of this machine is alive, and no other has got its number."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, TypeError, OverflowError):
        return False
    except PermissionError:
        pass  # of another user
    there = _started(pid)
    return there is None or started in (None, there)


def _started(pid: int) -> str | None:
    """When a process began, in ticks since boot; None where the system does not say. "" for one that has
    ended, though nobody has asked for its exit status."""
    try:
        state, *rest = (PROC / str(pid) / "stat").read_text("utf-8").rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return "" if state in "ZX" else rest[18]


def _machine() -> str:
    """Machine and process namespace: where two processes have the same, they see each other's numbers."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text("utf-8").strip()
        return f"{boot} {os.stat(PROC / 'self/ns/pid').st_ino}"
    except OSError:
        return f"{platform.node()} {uuid.getnode()}"
