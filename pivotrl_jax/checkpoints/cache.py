"""Checkpoints that were converted from something else, in the user's cache under a hash of the content."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path


def cached(kind: str, source: Path, digest: str, write: Callable[[Path], None]) -> Path:
    """The folder of a checkpoint made from `source`; `write(folder)` makes it the first time.

    It is $PIVOTRL_CACHE/kind/source-digest, or in the user's cache. It appears whole or not at all. Processes
    that convert the same at the same time do not disturb each other.
    """
    folder = root() / kind / f"{source.stem}-{digest[:16]}"
    if folder.is_dir():
        return folder
    print(f"reading {source.name} into {folder}", file=sys.stderr)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        write(temporary)
        temporary.chmod(0o755)  # mkdtemp makes private directories
        os.rename(temporary, folder)
    except OSError:
        if not folder.is_dir():  # else another process was first, with the same content
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def root() -> Path:
    """$PIVOTRL_CACHE, or pivotrl_jax in the user's cache."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pivotrl_jax"
    return Path(os.environ.get("PIVOTRL_CACHE", default))
