"""The lines of a file that a pipeline shows: `sed -n '1,20p' f` and `cat f | head -20` show the same."""

import re

from pivotrl_jax.verifiers.compare.flags import sort_flags
from pivotrl_jax.verifiers.compare.paths import WHOLE, Lines
from pivotrl_jax.verifiers.compare.shell import Word

_PRINTED = re.compile(r"([0-9]{1,8})(?:,([0-9]{1,8}|\\\$))?p")  # the form of a sed script


def _stage(name: str, words: tuple[Word, ...]) -> tuple[Lines, list[str]] | None:
    """(the lines that one command passes on, the files that it names); None if it does something else."""
    if name == "nl" and [word.form for word in words[:1]] == ["-ba"]:
        words = words[1:]
    found = sort_flags(name, [word.form for word in words])
    if found is None:
        return None
    flags, operands = found.flags, list(found.operands)
    if name == "nl" or (name == "cat" and set(flags) <= {("n", "")}):
        return (WHOLE, operands) if name == "cat" or not flags else None
    if name == "head" and {flag for flag, _ in flags} <= {"n"}:
        count = dict(flags).get("n", "10")
        shows = count.isascii() and count.isdecimal() and 0 < int(count[:9]) and len(count) < 9
        return (Lines(1, int(count)), operands) if shows else None
    if name == "tail" and len(flags) == 1 and flags[0][0] == "n":
        start = re.fullmatch(r"\+([0-9]{1,8})", flags[0][1])
        return (Lines(max(int(start[1]), 1), None), operands) if start else None
    if name == "sed" and flags == (("n", ""),) and operands:
        printed = _PRINTED.fullmatch(operands[0])
        if printed is None or int(printed[1]) == 0:
            return None
        first, last = int(printed[1]), printed[2] or printed[1]
        last = None if not last.isdecimal() else int(last)
        return (Lines(first, last), operands[1:]) if last is None or last >= first else None
    return None


def _within(lines: Lines, part: Lines) -> Lines | None:
    """The lines `part` of the lines `lines`."""
    first = lines.first + part.first - 1
    ends = [end for end in (lines.last, part.last and lines.first + part.last - 1) if end is not None]
    last = min(ends, default=None)
    return None if last is not None and last < first else Lines(first, last)


def shown(pipeline: list[tuple[str, tuple[Word, ...]]]) -> tuple[str, Lines] | None:
    """(the file, its lines) that a pipeline of (name, arguments) shows; None if it does something else."""
    lines, file = WHOLE, None
    for i, (name, words) in enumerate(pipeline):
        stage = _stage(name, words)
        if stage is None or len(stage[1]) != (i == 0) or not all(word.literal for word in words):
            return None  # a pattern may name several files
        file = stage[1][0] if i == 0 else file
        found = _within(lines, stage[0])
        if found is None:
            return None
        lines = found
    return (file, lines) if file is not None else None
