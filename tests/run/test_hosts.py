"""Several processes are one: they train together, and one of them alone goes on from their checkpoint."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
from support import xla
from support.hosts import free_port
from support.paths import ROOT, SUPPORT


def start(command: list[str], devices: int, **environment: str) -> subprocess.Popen:
    environment = {
        **os.environ,
        "XLA_FLAGS": xla.flags(devices),
        "PYTHONPATH": f"{SUPPORT.parent}{os.pathsep}{ROOT}",
        **environment,
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        [sys.executable, *command], env=environment, text=True, cwd=SUPPORT.parent, **pipes
    )


def ended(process: subprocess.Popen) -> str:
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err[-3000:]
    return out


def steps(directory: Path, last: int, processes: int = 1, devices: int = 1) -> list[float]:
    """Losses of tests/support/hosts_step.py, `devices` for each process."""
    command = [str(SUPPORT / "hosts_step.py"), f"--directory={directory}", f"--last={last}"]
    if processes == 1:
        return json.loads(ended(start(command, devices)))["losses"]
    address = f"127.0.0.1:{free_port()}"
    shared = [f"--coordinator={address}", f"--processes={processes}"]
    flags = [[*shared, f"--process_id={i}"] for i in range(processes)]
    first, *others = [ended(p) for p in [start([*command, *more], devices) for more in flags]]
    assert not any("losses" in out for out in others)  # the first process speaks (gloo talks in all of them)
    said = json.loads(first.splitlines()[-1])
    assert said["devices"] == processes * devices
    return said["losses"]


def test_two_processes_train_and_one_goes_on(tmp_path):
    alone = steps(tmp_path / "alone", 5)
    together = steps(tmp_path / "together", 3, processes=2, devices=2)
    after = steps(tmp_path / "together", 5)
    assert len(alone) == 5 and len(together) == 3 and len(after) == 2
    np.testing.assert_allclose(together + after, alone, rtol=1e-5)
    assert alone[-1] < 0.9 * alone[0]


APART = """
import sys
from pathlib import Path
from absl import flags
from pivotrl_jax import records
from pivotrl_jax.run import hosts
directory = Path(sys.argv.pop())
flags.FLAGS(sys.argv)
hosts.join()
try:
    hosts.own_directory(directory)
except records.InputError as e:
    print(e, file=sys.stderr)
    hosts.give_up(3)
"""


def test_work_directories_that_are_not_shared_stop_all_processes(tmp_path):
    shared, processes = f"--coordinator=127.0.0.1:{free_port()}", []
    for i in (0, 1):
        (tmp_path / str(i)).mkdir()
        flags = [shared, "--processes=2", f"--process_id={i}", str(tmp_path / str(i))]
        processes.append(start(["-c", APART, *flags], 1))
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 3 and "Traceback" not in err
        assert "processes [1] see other files there than process 0; name a directory that all" in err


COPIED = """
import json
own = hosts.own_directory(directory)
files = [p for p in own.rglob("*") if p.is_file()]
found = {str(p.relative_to(own)): [p.is_symlink(), p.read_text()] for p in files}
print(json.dumps(found), file=sys.stderr)
hosts.leave()
"""


def test_rollouts_are_not_copied_to_every_process(tmp_path):
    workdir = tmp_path / "run"
    again = ("resampled/rollouts/00000.jsonl", "resampled/rollouts/settings.json")
    for name in ("run.json", "rollouts/00000.jsonl", "rollouts/00000.npz", "rollouts/settings.json", *again):
        (workdir / name).parent.mkdir(parents=True, exist_ok=True)
        (workdir / name).write_text(f"this is {name}")
    program = APART[: APART.index("try:")] + COPIED
    shared = [f"--coordinator=127.0.0.1:{free_port()}", "--processes=2"]
    processes = [start(["-c", program, *shared, f"--process_id={i}", str(workdir)], 1) for i in (0, 1)]
    said = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    first, second = (json.loads(next(x for x in err.splitlines() if x[:1] == "{")) for _, err in said)
    assert {name: text for name, (_, text) in first.items()} == {
        name: text for name, (_, text) in second.items()
    }
    assert not any(linked for linked, _ in first.values()) and set(again) < set(second)
    linked = {name for name, (linked, _) in second.items() if linked}
    assert linked == {"rollouts/00000.jsonl", "rollouts/00000.npz", "resampled/rollouts/00000.jsonl"}


DIFFERENT = """
import sys
from absl import flags
from pivotrl_jax import records
from pivotrl_jax.run import hosts
seed = int(sys.argv.pop())
flags.FLAGS(sys.argv)
hosts.join()
try:
    hosts.require_same({"config": {"seed": seed, "steps": (1, 2)}})
    print("the same")
    hosts.leave()
except records.InputError as e:
    print(e, file=sys.stderr)
    hosts.leave()
    hosts.give_up(3)
"""


def pair(code: str, *last: str) -> list[tuple[int, str, str]]:
    """(status, stdout, stderr) of two processes that run a program; `last` is an argument of each."""
    shared = [f"--coordinator=127.0.0.1:{free_port()}", "--processes=2"]
    started = [start(["-c", code, *shared, f"--process_id={i}", last[i]], 1) for i in (0, 1)]
    found = [process.communicate(timeout=300) for process in started]
    return [(process.returncode, *texts) for process, texts in zip(started, found)]


def test_another_config_or_version_in_one_process_stops_all():
    first, second = pair(DIFFERENT, "0", "1")
    assert (first[0], second[0]) == (3, 3)
    assert "process 1 was not started with the config and version that process 0 has; start the" in first[2]
    assert "process 0 has: config.seed is 0 there and 1 here; start the same command" in second[2]


def test_the_same_config_goes_on():
    assert [status for status, *_ in pair(DIFFERENT, "5", "5")] == [0, 0]


ENDED = """
import os, signal, sys, time
import jax, numpy as np
from absl import flags
from jax.experimental import multihost_utils
from types import SimpleNamespace
from pivotrl_jax.run import cli, hosts
last = sys.argv.pop()
flags.FLAGS(sys.argv)

def main():
    multihost_utils.sync_global_devices("both are there")
    if last == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if last == "aborts":
        os.abort()
    if last == "computes":
        time.sleep(60)
    multihost_utils.process_allgather(np.int32(1))

cli._run(main, SimpleNamespace(workdir="."))
"""


def test_a_process_that_is_killed_stops_the_other_with_a_sentence():
    (status, _, err), (killed, *_) = pair(ENDED, "waits", "dies")
    assert killed == -signal.SIGKILL and status == 1
    assert "Traceback" not in err and "error: another process has ended or does not answer (" in err


@pytest.mark.parametrize("other", ["waits", "computes"])
def test_when_the_first_process_is_killed_the_other_says_so(other):
    """JAX aborts it, unless an exchange fails before."""
    (killed, *_), (status, _, err) = pair(ENDED, "dies", other)
    assert killed == -signal.SIGKILL and status == 1 and "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith("error: process 0 has ended, and with it the coordinator") or (
        other == "waits" and last.startswith("error: another process has ended or does not answer (")
    )


def test_an_abort_for_another_reason_is_not_explained_by_the_coordinator():
    (status, *_), (aborted, _, err) = pair(ENDED, "waits", "aborts")
    assert status == 1 and aborted == -signal.SIGABRT and "process 0 has ended" not in err


STILL = """
import os, signal, sys
from types import SimpleNamespace
from absl import flags
from jax.experimental import multihost_utils
from pivotrl_jax.run import cli, silence
silence.BEAT, silence.SILENT = 0.2, float(sys.argv.pop())
flags.FLAGS(sys.argv)

def main():
    for i in range(2):
        multihost_utils.sync_global_devices(str(i))
        if "--process_id=1" in sys.argv and i == 0:
            print("stands still", flush=True, file=sys.stderr)
            os.kill(os.getpid(), signal.SIGSTOP)

cli._run(main, SimpleNamespace(workdir="."))
"""


def still(seconds: float, *silent: str) -> tuple[int, str, int]:
    """A process of two stands still for some seconds, or (0) until the other has ended. Returns the status
    and stderr of the other, and its own status."""
    shared = [f"--coordinator=127.0.0.1:{free_port()}", "--processes=2"]
    first, second = (start(["-c", STILL, *shared, f"--process_id={i}", *silent], 1) for i in (0, 1))
    try:
        while "stands still" not in second.stderr.readline():
            assert second.poll() is None
        if seconds:
            time.sleep(seconds)
        else:
            first.wait(timeout=60)
    finally:
        second.send_signal(signal.SIGCONT)
    _, err = first.communicate(timeout=60)
    second.communicate(timeout=60)
    return first.returncode, err, second.returncode


def test_a_process_that_stands_still_ends_the_other_with_a_sentence():
    status, err, its_own = still(0, "10")
    assert status == 1 and its_own not in (0, None)
    assert "error: process 1 has not been heard for 10 s; see what it said and whether its machine" in err
    assert "Traceback" not in err and "Aborted" not in err


def test_a_process_that_stands_still_for_less_is_waited_for():
    assert still(2, "60")[::2] == (0, 0)


PREEMPTED = """
import os, signal, sys, time
from absl import flags
from types import SimpleNamespace
from pivotrl_jax.run import cli, interrupts
last = sys.argv.pop()
flags.FLAGS(sys.argv)

def main():
    for step in range(10**9):
        if step == 3 and last == "is told":
            os.kill(os.getpid(), signal.SIGTERM)
        try:
            interrupts.point()
        except interrupts.Interrupted:
            print("stopped before step", step, file=sys.stderr)
            raise
        time.sleep(0.01)

cli._run(main, SimpleNamespace(workdir="."))
"""


@pytest.mark.parametrize("told", [0, 1])
def test_when_one_process_is_told_to_end_all_end_at_the_same_step(told):
    found = pair(PREEMPTED, *("is told" if i == told else "is not" for i in (0, 1)))
    assert [status for status, *_ in found] == [143, 143], found
    steps = [re.search(r"stopped before step (\d+)", err)[1] for *_, err in found]
    assert steps[0] == steps[1]
    assert all("stopped by SIGTERM; what was finished is in ." in err for *_, err in found)


@pytest.mark.parametrize(
    ("more", "variables", "sentence"),
    [
        (["--processes=2"], {}, "--coordinator, --process_id not given"),
        ([], {"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES is 'two'; want a whole number"),
        (
            ["--coordinator=127.0.0.1:1", "--processes=2", "--process_id=2"],
            {},
            r"several processes \(coordinator 127.0.0.1:1, processes 2, process_id 2\): cannot join them",
        ),
    ],
)
def test_what_does_not_join_is_said_in_a_sentence(monkeypatch, more, variables, sentence):
    from absl import flags

    from pivotrl_jax.records import InputError
    from pivotrl_jax.run import hosts

    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    values = dict(flag.removeprefix("--").split("=") for flag in more)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["test"])
    for name in ("coordinator", "processes", "process_id"):
        value = values.get(name)
        value = int(value) if value and value.isdecimal() else value
        monkeypatch.setattr(hosts, name.upper(), types.SimpleNamespace(value=value))
    with pytest.raises(InputError, match=sentence):
        hosts.join()
