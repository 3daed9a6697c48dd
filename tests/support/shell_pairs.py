"""Pairs of commands that agents write: those of shell_pairs_same.txt do the same, the others do not.

A line is a pair, parted by `|||`; a line without it goes on the command before it.
"""

from pathlib import Path


def pairs(kind: str) -> list[tuple[str, str]]:
    """The pairs of a kind: "same" or "different"."""
    found: list[list[str]] = []
    for line in Path(__file__).with_name(f"shell_pairs_{kind}.txt").read_text("utf-8").splitlines():
        if " ||| " in line:
            found.append(line.split(" ||| "))
        else:
            found[-1][1] += "\n" + line
    return [(gold, actual) for gold, actual in found]
