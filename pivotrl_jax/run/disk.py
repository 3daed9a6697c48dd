"""Disks that are full, read-only or gone: one sentence instead of a traceback, and space checked in time."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pivotrl_jax.records import InputError

# what to do about an error of the disk
ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free space there"),
    errno.EFBIG: "raise the limit of the size of a file (ulimit -f)",
    errno.EROFS: "make it writable, or name another directory",
    **dict.fromkeys((errno.EACCES, errno.EPERM), "make it writable, or name another directory"),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENOTCONN), "check the disk and its mount"),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR), "it was removed while the run worked there"),
}
_ONLY_INSIDE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM)  # elsewhere: an error of this project
WHOLE = "what was finished before is whole, and the same command goes on from there"


def sentence(e: OSError, workdir: Path) -> str | None:
    """What an error of the disk means for a run in `workdir`; None for any other error."""
    name = e.filename2 or e.filename  # of a copy, what was to be written
    file = Path(os.fsdecode(name)) if isinstance(name, (str, bytes, os.PathLike)) else None
    inside = file is not None and file.absolute().is_relative_to(workdir.absolute())
    if e.errno not in ADVICE or (e.errno in _ONLY_INSIDE and not inside):
        return None
    if e.errno in (errno.ENOENT, errno.ENOTDIR) and not workdir.is_dir():
        return f"{workdir}: the work directory is gone; put it back, or start anew in another one"
    return f"{file or workdir}: {e.strerror}; {ADVICE[e.errno]}; {WHOLE}"


@contextlib.contextmanager
def explained(directory: Path) -> Iterator[None]:
    """A block that writes into `directory`. Raises InputError with a `sentence` for an error of the disk."""
    try:
        yield
    except OSError as e:
        if (text := sentence(e, directory)) is None:
            raise
        raise InputError(text) from e


def require_space(directory: Path, size: int, what: str) -> None:
    """Raises InputError when a disk has fewer than `size` bytes left for `what`."""
    free = shutil.disk_usage(directory).free
    if free < size:
        raise InputError(
            f"{directory}: {free / 1e6:.1f} MB are free, and {what} takes {size / 1e6:.1f}; free space "
            f"there; {WHOLE}"
        )
