"""One run at a time in a work directory: living holders are named, dead ones are followed."""

import json
import os
import subprocess
import sys

import pytest

from pivotrl_jax.records import InputError
from pivotrl_jax.run import lock


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A heartbeat every 50 ms, missed after two seconds; no lock outlives its test."""
    monkeypatch.setattr(lock, "BEAT", 0.05)
    monkeypatch.setattr(lock, "SILENCE", 2.0)
    yield
    lock.release()


def held_by(directory, age=0.0, **holder):
    """A lock as another process may have left it."""
    mine = {"host": "node7", "machine": lock._machine(), "pid": os.getppid(), "token": "theirs"}
    mine |= {"started": lock._started(os.getppid()), "since": "2026-01-01 10:00:00 +0000"} | holder
    file = directory / lock.NAME
    file.write_text(json.dumps(mine))
    beat = file.stat().st_mtime - age
    os.utime(file, (beat, beat))
    return mine


def test_it_is_taken_kept_and_given_back(tmp_path):
    lock.acquire(tmp_path)
    lock.acquire(tmp_path)  # again in the same process: a notebook
    there = json.loads((tmp_path / lock.NAME).read_text())
    assert there["pid"] == os.getpid() and there["host"]
    lock.release()
    assert not list(tmp_path.iterdir())
    with pytest.raises(ZeroDivisionError), lock.released():
        lock.acquire(tmp_path)
        _ = 1 / 0
    assert not list(tmp_path.iterdir())


def test_a_second_process_is_refused_by_host_process_and_time(tmp_path):
    lock.acquire(tmp_path)
    mine = json.loads((tmp_path / lock.NAME).read_text())
    code = (
        f"from pathlib import Path; from pivotrl_jax.run import lock; lock.acquire(Path({str(tmp_path)!r}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    said = found.stderr.splitlines()[-1]
    assert (
        f"process {os.getpid()} on {mine['host']} has been working there since {mine['since']}; wait" in said
    )
    assert json.loads((tmp_path / lock.NAME).read_text()) == mine


def test_a_dead_process_is_followed_at_once_and_it_is_said(tmp_path, capfd):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    held_by(tmp_path, pid=ended.pid, started="1")
    lock.acquire(tmp_path)
    assert f"taken over from process {ended.pid} on node7, which began 2026-01-01" in capfd.readouterr().err
    assert json.loads((tmp_path / lock.NAME).read_text())["pid"] == os.getpid()
    assert [path.name for path in tmp_path.iterdir()] == [lock.NAME]


def test_a_process_that_ended_unasked_counts_as_dead(tmp_path):
    """A zombie still has its number."""
    ended = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    ended.stdout.read()
    while lock._started(ended.pid) not in ("", None):
        pass
    held_by(tmp_path, pid=ended.pid, started="1")
    lock.acquire(tmp_path)
    assert json.loads((tmp_path / lock.NAME).read_text())["pid"] == os.getpid()
    ended.wait()


def test_a_number_given_to_another_process_is_no_sign_of_life(tmp_path):
    held_by(tmp_path, started="1")
    lock.acquire(tmp_path)
    assert json.loads((tmp_path / lock.NAME).read_text())["pid"] == os.getpid()


def test_a_living_process_of_another_user_is_refused(tmp_path, monkeypatch):
    def kill(pid, number):
        raise PermissionError

    held_by(tmp_path)
    monkeypatch.setattr(os, "kill", kill)
    with pytest.raises(InputError, match=f"process {os.getppid()} on node7"):
        lock.acquire(tmp_path)


def test_a_heartbeat_of_another_machine_is_awaited(tmp_path, monkeypatch):
    held_by(tmp_path, machine="elsewhere", pid=1)
    file, sleep = tmp_path / lock.NAME, []

    def beat(seconds):
        sleep.append(seconds)
        if len(sleep) == 3:
            os.utime(file, (1.0, 1.0))  # another time than before is a sign of life, whatever its clock says

    monkeypatch.setattr(lock.time, "sleep", beat)
    with pytest.raises(InputError, match="process 1 on node7 has been working there since 2026-01-01"):
        lock.acquire(tmp_path)
    assert len(sleep) == 3


def test_a_machine_that_has_long_been_silent_is_followed_without_waiting(tmp_path, monkeypatch):
    monkeypatch.setattr(lock.time, "sleep", None)
    held_by(tmp_path, age=3.0, machine="elsewhere")
    lock.acquire(tmp_path)
    assert json.loads((tmp_path / lock.NAME).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("text", ["", "[]", "{", '"x"'])
def test_a_lock_whose_writer_was_killed_is_followed(tmp_path, text, monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(lock.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: None)
    (tmp_path / lock.NAME).write_text(text)
    lock.acquire(tmp_path)
    assert json.loads((tmp_path / lock.NAME).read_text())["pid"] == os.getpid()


def test_of_two_that_follow_only_one_does(tmp_path, monkeypatch):
    """The second sees the first one's lock where it expected the dead one's."""
    dead = held_by(tmp_path, started="1")
    read = lock._read
    held_by(tmp_path)  # meanwhile another process has followed
    monkeypatch.setattr(
        lock, "_read", lambda path: dead | {"token": "dead"} if path.name == lock.NAME else read(path)
    )
    assert not lock._remove(tmp_path / lock.NAME, dead | {"token": "dead"})
    assert json.loads((tmp_path / lock.NAME).read_text())["token"] == "theirs"


WAITS = """
import os, sys, time
from pathlib import Path
from pivotrl_jax.run import lock
lock.BEAT = 0.05
lock.acquire(Path(sys.argv[1]))
print("taken", flush=True)
time.sleep(60)
"""


def test_a_holder_whose_lock_was_taken_ends_itself(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", WAITS, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "taken\n"
    temporary = tmp_path / "new"
    temporary.mkdir()
    held_by(temporary)
    os.replace(temporary / lock.NAME, tmp_path / lock.NAME)
    _, err = holder.communicate(timeout=30)
    assert holder.returncode == 1 and f"process {os.getppid()} on node7 took the work over" in err
    assert json.loads((tmp_path / lock.NAME).read_text())["token"] == "theirs"


def test_a_directory_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lock.os, "open", full)
    with pytest.raises(InputError, match="No space left on device; name another directory"):
        lock.acquire(tmp_path)
