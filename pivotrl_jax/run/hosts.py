"""Several processes that act as one: how they join, and which of them writes files.

Every process runs the whole program with the same seeds and draws the same numbers; only arrays on the mesh
are split. Process 0 writes the user's work directory and the terminal. Each other process works in a
temporary copy, so that all of them resume from the same files and make the same decisions. All processes
write checkpoints into the shared directory.
"""

import atexit
import itertools
import json
import os
import re
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from jax._src import distributed  # the barrier has no public name that takes a timeout
from jax.experimental import multihost_utils

from pivotrl_jax.checkpoints.identity import as_json, differences
from pivotrl_jax.records import InputError
from pivotrl_jax.run import silence

COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of process 0, in every process ($JAX_COORDINATOR_ADDRESS)."
)

PROCESSES = flags.DEFINE_integer("processes", None, "Number of processes ($JAX_NUM_PROCESSES).", 1)
PROCESS_ID = flags.DEFINE_integer("process_id", None, "This process, from 0 ($JAX_PROCESS_ID).", 0)

DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Join the processes that the cluster started: TPU pod, Slurm, Open MPI, Kubernetes."
)


def refuse() -> None:
    """Raises InputError when flags ask for several processes; for programs that run in one."""
    flags_of_several = (COORDINATOR, PROCESSES, PROCESS_ID, DISTRIBUTED)
    if names := [f"--{flag.name}" for flag in flags_of_several if flag.value not in (None, False)]:
        raise InputError(f"this program runs in one process; leave out {', '.join(names)}")


def join() -> bool:
    """Join the other processes, if flags or the environment name any. Call it before using a device. Returns
    whether they do.

    Raises InputError when the settings are incomplete or the other processes do not answer.
    """
    settings = {
        "coordinator": COORDINATOR.value or os.environ.get("JAX_COORDINATOR_ADDRESS"),
        "processes": _number(PROCESSES.value, "JAX_NUM_PROCESSES"),
        "process_id": _number(PROCESS_ID.value, "JAX_PROCESS_ID"),
    }
    missing = [name for name, value in settings.items() if value is None]
    if len(missing) == len(settings) and not DISTRIBUTED.value:
        return False
    if missing and not DISTRIBUTED.value:
        raise InputError(
            f"several processes: --{', --'.join(missing)} not given; give --coordinator, --processes and "
            "--process_id (or the JAX_* variables), or --distributed where the cluster sets them"
        )
    if jax.config.jax_cpu_collectives_implementation in (None, "none"):
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            settings["coordinator"],
            settings["processes"],
            settings["process_id"],
            heartbeat_timeout_seconds=silence.JAX_TIMEOUT,
        )
    except (ValueError, TypeError, RuntimeError) as e:
        reason = (str(e).strip().splitlines() or [type(e).__name__])[0][:200]
        text = ", ".join(f"{name} {value}" for name, value in settings.items())
        raise InputError(
            f"several processes ({text}): cannot join them ({reason}); check all three"
        ) from None
    if jax.process_index():
        sys.stdout = open(os.devnull, "w")
    state = distributed.global_state
    silence.watch(state.client, state.coordinator_address, jax.process_index(), jax.process_count())
    return True


def _number(flag: int | None, variable: str) -> int | None:
    text = os.environ.get(variable)
    if flag is not None or text is None:
        return flag
    if not text.isdecimal():
        raise InputError(f"${variable} is {text!r}; want a whole number")
    return int(text)


TOKEN = ".shared"
# what a run resumes from
RESUMED = "run.json rollouts reprofiled resampled evaluations metrics.jsonl trained_rewards.jsonl".split()


def own_directory(workdir: Path) -> Path:
    """The directory in which this process works: `workdir` itself for process 0; for the others a temporary
    copy of the files that a run resumes from, with links to the shards of rollouts. All processes must call
    it, and it blocks until every one has copied its files. Raises InputError where they see different
    files."""
    if jax.process_count() == 1:
        return workdir
    found = [workdir / name for name in RESUMED]
    files = sorted(p for top in found for p in (top.rglob("*") if top.is_dir() else [top]) if p.is_file())
    names = [str(p.relative_to(workdir)) for p in files]
    # the first process writes a token and the others look for it: two disks may hold the same files
    token = int(multihost_utils.broadcast_one_to_all(np.int32(time.time_ns() & 0x7FFFFFFF)))
    if not jax.process_index():
        (workdir / TOKEN).write_text(str(token), "utf-8")
    multihost_utils.sync_global_devices("token written")
    found = (workdir / TOKEN).read_text("utf-8") if (workdir / TOKEN).is_file() else ""
    digest = zlib.crc32("\n".join([found, *names]).encode()) & 0x7FFFFFFF
    there = np.ravel(multihost_utils.process_allgather(np.int32(digest)))
    if different := np.flatnonzero(there != there[0]).tolist():  # the same list in all, so all stop
        raise InputError(
            f"config.workdir {workdir}: processes {different} see other files there than process 0; name a "
            "directory that all hosts share"
        )
    directory = workdir
    if not jax.process_index():
        (workdir / TOKEN).unlink()
    else:
        directory = Path(tempfile.mkdtemp(prefix="pivotrl_jax_"))
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
        for name in names:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            # shards of rollouts are large, and a whole one is only read
            shard = Path(name).parent.name == "rollouts" and name.endswith((".jsonl", ".npz"))
            place = os.symlink if shard else shutil.copyfile
            place((workdir / name).absolute(), directory / name)
    multihost_utils.sync_global_devices("work directory copied")
    return directory


_CALLS = itertools.count()  # equal in all processes, because all make the same calls
_LONG = 7 * 24 * 3600 * 1000  # milliseconds; a process that ends frees the others earlier


def on_first_process(compute: Callable[[], Any]) -> Any:
    """Run `compute` in process 0 and return its value, which must be JSON, in every process.

    Results from outside, such as a judge's, may differ between calls, and processes with different results
    would diverge. An InputError is raised in every process. The call may take hours, so the others wait at a
    barrier; a collective would give up after half a minute.
    """
    if jax.process_count() == 1:
        return compute()
    reply = {}
    if not jax.process_index():
        try:
            reply = {"value": compute()}
        except InputError as e:
            reply = {"error": str(e)}
    distributed.global_state.client.wait_at_barrier(f"once {next(_CALLS)}", _LONG)
    text = json.dumps(reply).encode()
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    here = np.frombuffer(text.ljust(size, b" ")[:size], np.uint8)
    reply = json.loads(np.asarray(multihost_utils.broadcast_one_to_all(here)).astype(np.uint8).tobytes())
    if "error" in reply:
        raise InputError(reply["error"])
    return reply["value"]


def require_same(page: dict) -> None:
    """Raises InputError in all processes when `page`, which must be JSON, is not the same in all: such as the
    config and the version. A process that differs from the first names the fields."""
    if jax.process_count() == 1:
        return
    page = as_json(page)
    clauses = differences(on_first_process(lambda: page), page)
    differ = np.ravel(multihost_utils.process_allgather(np.int32(bool(clauses))))
    if not differ.any():
        return
    which = f"process {', '.join(map(str, np.flatnonzero(differ)))}"
    why = f": {'; '.join(clauses)}" if clauses else ""
    raise InputError(
        f"{which} was not started with the config and version that process 0 has{why}; start the same "
        "command, of the same version, in all processes"
    )


_LOST = re.compile(r"gloo|by peer|socket closed|heartbeat|coordination|barrier|nccl", re.IGNORECASE)


def lost(e: BaseException) -> str | None:
    """A sentence, if an error means that another process has ended or does not answer; else None."""
    if not jax.distributed.is_initialized() or not _LOST.search(str(e)):
        return None
    reason = str(e).strip().splitlines()[0][:200]
    return (
        f"another process has ended or does not answer ({reason}); see what it said, and start the same "
        "command in all processes again, which goes on from what was finished"
    )


def give_up(code: int) -> None:
    """End this process at once if there are others, which might wait for it in a collective for minutes."""
    if jax.distributed.is_initialized():
        sys.stderr.flush()
        os._exit(code)


def leave() -> None:
    """Wait until every process is done."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("done")
        silence.end()
