"""A main job that is killed at one of its writes; run.py starts it.

$SURVIVAL_LOG names a file that gets a line per write below $SURVIVAL_WORKDIR: "STAGE PATH". $SURVIVAL_KILL is
"STAGE:N:SIGNAL", and the signal is sent before the Nth write of that stage. A coin takes the place of the
verifier, so that a random policy has pivots.
"""

import os
import re
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

STAGES = {  # in the order of the main job; the first pattern that a path begins with says its stage
    "candidates": r"candidates|skipped",
    "profiling": r"rollouts",
    "selection": r"profiles|pivots",
    "evaluation before": r"evaluations/before",
    "training step": r"metrics|tensorboard|trained_rewards",
    "re-profiling": r"reprofiled",
    "checkpoint": r"checkpoints",
    "export": r"hf|\.hf",
    "evaluation after": r"evaluations",
    "pivots again": r"resampled",
    "report": r"evaluation\.json|report",
}
WRITES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")


def stage_of(path: str) -> str | None:
    """The stage that writes a path, which is relative to the work directory; None for run.json and the lock,
    which all stages write."""
    return next((stage for stage, begins in STAGES.items() if re.match(begins, path)), None)


class Writes:
    """An audit hook that sees every write of this process, and sends the signal when it is time."""

    def __init__(self, workdir: str, log: str, kill: str):
        self._workdir, self._log = workdir + os.sep, log
        self._stage, number, name = kill.split(":") if kill else ("", "0", "SIGKILL")
        self._left, self._signal = int(number), getattr(signal, name)

    def __call__(self, event: str, args: tuple) -> None:
        if event == "open":
            writes = isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        else:
            writes = event in WRITES
        if not writes or not isinstance(args[0], (str, bytes, os.PathLike)):
            return
        path = os.fsdecode(args[0])
        stage = path.startswith(self._workdir) and stage_of(path[len(self._workdir) :])
        if not stage:
            return
        kills = False
        if stage == self._stage:
            self._left -= 1
            kills = self._left == 0
        note = f"{stage}\t{path[len(self._workdir) :]}\t{'killed' if kills else ''}\n"
        descriptor = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, note.encode())
        os.close(descriptor)
        if kills:
            os.kill(os.getpid(), self._signal)


def main() -> None:
    from support import tiny_run

    from pivotrl_jax import train
    from pivotrl_jax.run import cli

    tiny_run.flip_coins()
    environment = (os.environ[f"SURVIVAL_{name}"] for name in ("WORKDIR", "LOG", "KILL"))
    sys.addaudithook(Writes(*environment))
    cli.start(train.main)


if __name__ == "__main__":
    main()
