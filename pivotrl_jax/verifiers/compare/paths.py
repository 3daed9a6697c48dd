"""Do two names of a file, or two ranges of lines, mean the same?"""

import json
import posixpath
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from pivotrl_jax.records import Message

COVERED = 0.8  # share of the demonstrated lines that must be viewed
SYSTEM = {"/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/opt", "/proc", "/root", "/sbin", "/sys"}


SYSTEM |= {"/tmp", "/usr", "/var"}


MARGIN = 50  # surplus lines that may be viewed, or as many as were demonstrated if those are more


def normal_path(path: str) -> str:
    """The path without `./`, `//`, `a/..` and a final slash."""
    return posixpath.normpath(path.strip()) if path.strip() else ""


def same_path(gold: str, actual: str) -> bool:
    """Whether both can name one file: equal, or one is absolute and ends in the other.

    /w/proj/foo.py is foo.py and proj/foo.py, and neither /w/vendor/proj/foo.py nor Foo.py. Two relative
    paths are relative to the same directory.
    """
    paths = normal_path(gold), normal_path(actual)
    if paths[0] == paths[1]:
        return True
    absolute = [path for path in paths if path.startswith(("/", "~"))]
    relative = [path for path in paths if not path.startswith(("/", "~"))]
    return (
        len(absolute) == len(relative) == 1 and relative[0] != "" and absolute[0].endswith("/" + relative[0])
    )


def is_workplace(directory: str, named: Iterable[str], messages: list[Message]) -> bool:
    """Whether `directory` is most likely where the agent works: it holds one of the `named` paths, or
    occurs in the history. Without a history, any directory that is not the system's counts.
    """
    path = normal_path(directory)
    if path == "." or not path.startswith("/"):
        return path == "."
    if path in SYSTEM or len(path) > 4096:  # longer than systems allow
        return False
    if any(word.startswith(path + "/") for word in named):
        return True
    texts = (
        part
        for message in messages
        for part in (
            message.get("content"),
            *(call["function"]["arguments"] for call in message.get("tool_calls") or []),
        )
    )
    whole = re.compile(re.escape(path) + r"(?![\w-]|\.\w)")
    return not messages or any(whole.search(str(text)) for text in texts)


class Lines(NamedTuple):
    """Lines `first` to `last` of a file, counted from 1, both included; last None: to the end."""

    first: int
    last: int | None


WHOLE = Lines(1, None)


def as_int(value: Any) -> int | None:
    """A line number, which may also be written as a string or as 5.0; None for anything else."""
    if isinstance(value, str) and len(value.strip()) < 10:
        try:
            value = int(value)
        except ValueError:
            return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    right = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**9
    return int(value) if right else None


def as_lines(value: Any) -> Lines | None:
    """A `view_range`: [first, last], -1 for the end, possibly as a string. None if it cannot be read."""
    if isinstance(value, str) and len(value) < 100:
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if not isinstance(value, list) or len(value) != 2:
        return None
    first, last = as_int(value[0]), as_int(value[1])
    if first is None or last is None or (last != -1 and last < first):
        return None
    return Lines(max(first, 1), None if last == -1 else last)


def same_lines(gold: Lines, actual: Lines) -> bool:
    """Whether `actual` shows nearly all that `gold` shows, and not much else."""
    if gold.last is None or actual.last is None:
        return gold.last == actual.last and abs(gold.first - actual.first) <= MARGIN // 5
    wanted, found = (lines.last - lines.first + 1 for lines in (gold, actual))
    both = min(gold.last, actual.last) - max(gold.first, actual.first) + 1
    return both >= COVERED * wanted and found - both <= max(MARGIN, wanted)
