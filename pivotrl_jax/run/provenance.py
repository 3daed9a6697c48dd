"""Where a run comes from: when, where, by which command and from which code it was started."""

import datetime
import functools
import platform
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pivotrl_jax


def now() -> str:
    """The time here, with its zone: '2026-01-31 09:30:00+01:00'."""
    return datetime.datetime.now().astimezone().isoformat(" ", "seconds")


@functools.cache
def of_process() -> dict[str, str]:
    """What run.json says about the process that wrote it. A commit is there only where the package lies in a
    git checkout of its own."""
    found = {
        "started": now(),
        "command": shlex.join(_command()),
        "directory": str(Path.cwd()),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "commit": commit_of(Path(pivotrl_jax.__file__).parents[1]),
    }
    return {name: value for name, value in found.items() if value}


def _command() -> list[str]:
    """The words that started this process, with `python -m` as it was typed."""
    return ["python", *sys.orig_argv[1:]] if sys.orig_argv[1:] else list(sys.argv)


def commit_of(checkout: Path) -> str:
    """The commit of a git checkout, with "+ changes" if files differ from it; "" where there is none."""
    if not (checkout / ".git").exists():
        return ""
    commit = _git(checkout, "rev-parse", "--short=12", "HEAD")
    changed = _git(checkout, "status", "--porcelain", "--untracked-files=no") if commit else ""
    return f"{commit} + changes" if changed else commit


def _git(checkout: Path, *words: str) -> str:
    command = ["git", "-C", str(checkout), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
