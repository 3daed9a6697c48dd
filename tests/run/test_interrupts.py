"""Where a signal may end a program, and what a second one does."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from pivotrl_jax.run import interrupts


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


def test_it_waits_for_the_end_of_a_deferred_block(capfd):
    done = []
    with pytest.raises(interrupts.Interrupted, match="SIGTERM"), interrupts.handled():
        with interrupts.deferred():
            send()
            done.append("the block")
        done.append("not this")
    assert done == ["the block"]
    assert "SIGTERM: ends after this step" in capfd.readouterr().err


def test_or_for_the_next_block_that_allows_it():
    done = []
    with pytest.raises(interrupts.Interrupted), interrupts.handled(), interrupts.deferred():
        with interrupts.allowed():
            done.append("nothing came")
        send()
        done.append("deferred")
        with interrupts.allowed():
            done.append("not this")
    assert done == ["nothing came", "deferred"]


def test_an_allowed_block_is_broken_off():
    with pytest.raises(interrupts.Interrupted), interrupts.handled(), interrupts.deferred():
        with interrupts.allowed():
            send()
            pytest.fail("not reached")


def test_an_error_in_a_deferred_block_comes_first():
    with pytest.raises(ZeroDivisionError), interrupts.handled(), interrupts.deferred():
        send()
        _ = 1 / 0


def test_a_second_sigterm_changes_nothing():
    """Schedulers send several."""
    with pytest.raises(interrupts.Interrupted), interrupts.handled(), interrupts.deferred():
        send()
        send()
    with interrupts.handled(), interrupts.deferred():
        pass  # and nothing of it is left


def test_handlers_are_given_back_and_other_threads_have_none():
    before = signal.getsignal(signal.SIGTERM)
    with interrupts.handled():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
    seen = []

    def work():
        with interrupts.handled():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


STUBBORN = """
import time
from pivotrl_jax.run import interrupts
with interrupts.handled(), interrupts.deferred():
    print("ready", flush=True)
    while True:
        time.sleep(0.01)
"""


def test_a_second_sigint_ends_at_once():
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", STUBBORN], **pipes)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    while "SIGINT: ends after this step; once more" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "a second SIGINT: ends at once" in err
