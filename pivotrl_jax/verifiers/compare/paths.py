"""Do two names of a file, or two ranges of lines, mean the same?"""

import json
import posixpath
import re
from typing import Any, NamedTuple

from pivotrl_jax.records import Message

SYSTEM = {"/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/opt", "/proc", "/root", "/sbin", "/sys"}


SYSTEM |= {"/tmp", "/usr", "/var", "~"}


# where no agent works at any depth
_MACHINE = re.compile(
    r"/(?:etc|proc|sys|dev|boot|bin|sbin|lib(?:32|64)?|run|usr/(?:s?bin|lib(?:32|64|exec)?|share|include)|"
    r"usr/local/(?:s?bin|lib|include|share|etc)|var/(?:log|lib|cache|run|spool))(?:/|$)|.*/(?:site|dist)-packages/?"
)


MARGIN = 10  # surplus lines that may be viewed before a range without an end


def normal_path(path: str) -> str:
    """The path without `./`, `//`, `a/..` and a final slash."""
    return posixpath.normpath(path) if path else ""


def at(path: str, directory: str | None) -> str:
    """The path as seen from where `directory` is seen."""
    path = normal_path(path)
    return path if path.startswith(("/", "~")) or directory is None else normal_path(f"{directory}/{path}")


def same_path(gold: str, actual: str) -> bool:
    """Whether both can name one file: equal, or one is absolute and ends in the other.

    /w/proj/foo.py is foo.py and proj/foo.py, and neither /w/vendor/proj/foo.py nor Foo.py. Two relative
    paths are relative to the same directory, which is none of the system's: passwd is not /etc/passwd.
    """
    paths = normal_path(gold), normal_path(actual)
    if paths[0] == paths[1]:
        return True
    absolute = [path for path in paths if path.startswith(("/", "~"))]
    relative = [path for path in paths if not path.startswith(("/", "~"))]
    if not (len(absolute) == len(relative) == 1 and relative[0] and absolute[0].endswith("/" + relative[0])):
        return False
    directory = absolute[0][: -len(relative[0]) - 1] or "/"
    return directory not in SYSTEM and not _MACHINE.match(directory)


_SAYS_DIRECTORY = re.compile(r"[Cc]urrent (?:working )?directory(?: is)?:? *[`'\"]?(/[\w./+@-]*)")
_CHANGES = re.compile(r"\s*cd +([^\s;&|<>\"'$`(){}*?\\]+) *(?:&&|;|\n|$)")


_PATH = re.compile(r"(?<![\w.~/:<])/[\w+@-][\w.+@-]*(?:/[\w.+@-]+)*(?<!\.)")


def _texts(messages: list[Message], roles: tuple[str, ...]) -> list[str]:
    return [str(m.get("content")) for m in messages if m.get("role") in roles and m.get("content")]


def _changed(messages: list[Message]) -> set[str]:
    """The directories to which the agent's commands changed first."""
    changed = set()
    for message in messages:
        for call in message.get("tool_calls") or []:
            arguments = call["function"]["arguments"]
            given = arguments.get("command", arguments.get("cmd")) if isinstance(arguments, dict) else None
            match = _CHANGES.match(given) if isinstance(given, str) else None
            if match:
                changed.add(normal_path(match[1]))
    return changed


def _named(messages: list[Message]) -> set[str]:
    """The paths that the system and the user name, without those of the machine itself."""
    paths = (path for text in _texts(messages, ("system", "user")) for path in _PATH.findall(text))
    return {normal_path(path) for path in paths if "/" + path.split("/")[1] not in SYSTEM}


def _holds_all(directory: str, paths: set[str]) -> bool:
    return all(f"{path}/".startswith(f"{directory}/") for path in paths)


def known_directory(messages: list[Message]) -> str | None:
    """The directory in which the agent's next command runs, if the history tells: as its environment last
    said ("Current directory: /w"), or else the only one to which its commands changed, if everything that
    the system and the user name lies there.
    """
    for text in reversed(_texts(messages, ("tool", "user"))):
        said = _SAYS_DIRECTORY.findall(text)
        if said:
            return normal_path(said[-1].rstrip("."))
    changed = _changed(messages)
    one = next(iter(changed)) if len(changed) == 1 else ""
    return one if one.startswith("/") and _holds_all(one, _named(messages)) else None


def is_workplace(directory: str, messages: list[Message]) -> bool:
    """Whether the history says that the agent works in `directory`: see `known_directory`; or, where no
    command changed the directory, whether the system or the user names it and nothing outside it.
    """
    path = normal_path(directory)
    if path == "." or not path.startswith("/"):
        return path == "."
    known = known_directory(messages)
    if known is not None or path in SYSTEM or _changed(messages):
        return known == path
    named = _named(messages)
    return path in named and _holds_all(path, named)


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
    if first is None or last is None or first < 1 or (last != -1 and last < first):
        return None
    return Lines(first, None if last == -1 else last)


def same_lines(gold: Lines, actual: Lines) -> bool:
    """Whether `actual` shows all that `gold` shows, and at most as many lines again."""
    if actual.first > gold.first:
        return False
    if gold.last is None or actual.last is None:
        return gold.last == actual.last and gold.first - actual.first <= MARGIN
    wanted, found = (lines.last - lines.first + 1 for lines in (gold, actual))
    return actual.last >= gold.last and found <= 2 * wanted
