"""Do two edits of a file do the same? Texts are compared exactly: one character can turn a fix into a bug.

Not compared are spaces at the ends of lines, and empty lines at the end of a whole file (except where they
mean something: in Markdown, beside strings of several lines, and where any quote may hold several). An edit
may also show more of the unchanged text around the same change; with less, the tool might find several
places.
"""

import re
from typing import NamedTuple

from pivotrl_jax.records import Verdict
from pivotrl_jax.verifiers.common import show
from pivotrl_jax.verifiers.compare.paths import at, same_path

MIN_SHARED = 8  # characters of old text that both edits name, which locate the change
_MEANS_SPACES = re.compile(r"(?i).*\.(?:md|markdown|mdx|diff|patch|csv|tsv|snap|golden)")
# where any quote may hold several lines
_QUOTES_LINES = re.compile(r"(?i).*\.(?:sh|bash|zsh|rs|sql|php|rb|pl|lua|html?|xml|ya?ml|env)")


_HOLDS_LINES = re.compile(r"\"\"\"|'''|`|<<")  # what may begin a string of several lines


def plain(text: str, path: str = "") -> str:
    """Without spaces at the end of lines, where no string of several lines can hold them."""
    holds = _HOLDS_LINES.search(text) or _QUOTES_LINES.fullmatch(path[-20:])
    return text if holds else "\n".join(map(_stripped, text.split("\n")))


def _stripped(line: str) -> str:
    short = line.rstrip(" \t")
    return line if short.endswith("\\") else short  # a backslash continues a line only at its end


def _difference(gold: str, actual: str) -> str:
    """The first lines that differ, in words."""
    lines = [text.split("\n") for text in (gold, actual)]
    at = next((i for i, (want, got) in enumerate(zip(*lines)) if want != got), min(map(len, lines)))
    want, got = (show(text[at], 50) if at < len(text) else "nothing" for text in lines)
    return f"line {at + 1} is {got}, want {want}"


def compare_text(gold: str, actual: str, path: str = "", what: str = "content") -> Verdict | None:
    """Compare two contents of the file `path`. None if they are the same."""
    if gold == actual:
        return None
    if not _MEANS_SPACES.fullmatch(path[-20:]):
        gold, actual = (plain(text, path).rstrip("\n") for text in (gold, actual))
    return None if gold == actual else Verdict(0.0, what, _difference(gold, actual))


def _same_text(gold: str, actual: str, path: str) -> bool:
    return gold == actual or (
        not _MEANS_SPACES.fullmatch(path[-20:]) and plain(gold, path) == plain(actual, path)
    )


def compare_inserted(gold: str, actual: str, path: str = "") -> Verdict | None:
    """Compare two texts that are inserted into the file `path`, where empty lines count."""
    same = _same_text(gold, actual, path)
    return None if same else Verdict(0.0, "content", _difference(gold, actual))


def compare_lines(gold: str, actual: str, path: str = "") -> Verdict | None:
    """Compare two texts for the same lines of the file `path`, whose indentation must agree. The tools end
    the last line if the text does not.
    """
    verdict = compare_inserted(gold.removesuffix("\n"), actual.removesuffix("\n"), path)
    if verdict is not None:
        stripped = [[line.strip() for line in text.strip().split("\n")] for text in (gold, actual)]
        if stripped[0] == stripped[1]:
            return Verdict(0.0, "indentation", "the same lines with another indentation")
    return verdict


# between a word and its end, or the digits of a number: there the file holds another text
_INSIDE = re.compile(r"\w\0\w|\d\0\.\d|\d\.\0\d")


def _shows_more(less: tuple[str, str], more: tuple[str, str]) -> bool:
    """Whether `more` is the replacement `less` with more of the unchanged text around it."""
    old, new = less
    if len(old.strip()) < MIN_SHARED or more[0].count(old) != 1:
        return False
    before, _, after = more[0].partition(old)
    if _INSIDE.search(before[-2:] + "\0" + old[:2]) or _INSIDE.search(old[-2:] + "\0" + after[:2]):
        return False
    return more[1] == before + new + after


def compare_replacement(gold: tuple[str, str], actual: tuple[str, str], path: str = "") -> Verdict | None:
    """Compare the (old, new) of two edits of the file `path`. None if they do the same, else the verdict that
    rejects."""
    if gold[0] == actual[0] and _same_text(gold[1], actual[1], path):
        return None
    if actual[0] == actual[1]:
        return Verdict(0.0, "no_op", "the edit changes nothing")
    if _shows_more(gold, actual):
        return None
    if gold[0] != actual[0]:
        return Verdict(0.0, "old_text", _difference(gold[0], actual[0]))
    return Verdict(0.0, "new_text", _difference(gold[1], actual[1]))


# ---- patches: unified diffs, and Codex's `*** Update File: ...`

_FILE = re.compile(
    r"(?:\*\*\* (?:(?P<kind>Add|Update|Delete) File|Move to): |\+\+\+ (?:b/)?|--- (?:a/)?)(?P<path>\S.*)"
)


class Hunk(NamedTuple):
    """One place that a patch changes."""

    file: str  # the kind of change and the file's number in the patch
    anchor: str  # what `@@ def f` says
    line: int | None  # the first changed line of the old file, where the patch says
    old: str
    new: str
    surplus: tuple[int, int] | None  # lines that the header counts of old and new beyond those that are there


_ANCHOR = re.compile(
    r"@@(?: -(?P<line>\d{1,8})(?:,(?P<olds>\d{1,8}))? \+\d{1,8}(?:,(?P<news>\d{1,8}))? @@)?(?P<text>.*)"
)
_HEADERS = ("diff ", "index ", "Index: ", "===", "similarity index", "dissimilarity index", "*** ")
_MODES = ("new file mode", "deleted file mode", "old mode", "new mode", "rename ", "copy ")


def _hunk(file: str, header: str, old: list[str], new: list[str]) -> Hunk:
    anchor = _ANCHOR.match(header)
    same = next((i for i, (a, b) in enumerate(zip(old, new)) if a != b), min(len(old), len(new)))
    line = int(anchor["line"]) + same if anchor and anchor["line"] else None
    texts = ("\n".join(lines) for lines in (old, new))
    counted = [int(anchor[name] or 1) for name in ("olds", "news")] if line is not None else None
    surplus = (counted[0] - len(old), counted[1] - len(new)) if counted else None
    return Hunk(file, anchor["text"].strip() if anchor else "", line, *texts, surplus)


def _narrows(line: str, before: tuple[str, str, list[str], list[str]]) -> bool:
    """Whether `@@ def f` follows directly on `@@ class A`: one place, f of A."""
    anchors = [_ANCHOR.match(text) for text in (before[1], line)]
    return not (before[2] or before[3]) and all(
        a and a["line"] is None and a["text"].strip() for a in anchors
    )


def _hunks(patch: str) -> tuple[list[str], list[str], list[Hunk]]:
    """(files of a patch, lines about modes and names and others that change no line, hunks)."""
    files: list[str] = []
    modes: list[str] = []
    hunks: list[tuple[str, str, list[str], list[str]]] = []
    kind, fresh = "", True  # whether the next line begins a hunk
    blank = 0  # lines without even a sign: of the hunk only if it goes on after them
    for line in patch.strip("\n").split("\n"):
        match = _FILE.fullmatch(line)
        if match:
            path = match["path"].split("\t")[0].strip()
            kind, fresh = match["kind"] or line[:3], True
            files += [path] if path != "/dev/null" and path not in files else []
        elif line.startswith(_MODES):
            modes.append(line)
        elif line.startswith("@@") or (fresh and line[:1] in ("-", "+", " ")):
            header = line if line.startswith("@@") else ""
            if not fresh and _narrows(line, hunks[-1]):
                header = f"{hunks.pop()[1]} {line}"
            hunks.append((f"{kind} {len(files)}", header, [], []))
            fresh = False
        if match or line.startswith(("@@", *_MODES, *_HEADERS)):
            blank = 0
            continue
        if line[:1] not in ("", " ", "-", "+"):
            modes.append(
                line
            )  # no line of a patch, or one on the newline at a file's end: it counts as it is
        if fresh or line[:1] not in ("", " ", "-", "+"):
            continue
        if not line:
            blank += 1
            continue
        for side, sign in ((2, "+"), (3, "-")):
            hunks[-1][side].extend([""] * blank + ([line[1:]] if line[:1] != sign else []))
        blank = 0
    return files, modes, [_hunk(*hunk) for hunk in hunks]


_MAKES = re.compile(
    r"(?m)^(?:\*\*\* (?:Add|Delete) File: |\*\*\* Move to: |--- /dev/null|\+\+\+ /dev/null|rename |copy )"
)


def compare_files(gold: str, actual: str, directory: str | None = None) -> Verdict | None:
    """Compare the files of two patches that are applied in `directory`, if that is known. None if they are
    the same. A file that is changed must be there; one that is made or deleted must be named for certain.
    """
    wanted, found = _hunks(gold)[0], _hunks(actual)[0]
    pairs = list(zip(wanted, found))
    same = [at(want, directory) == at(got, directory) for want, got in pairs]
    if not (directory or _MAKES.search(gold) or _MAKES.search(actual)):
        same = [same_path(want, got) for want, got in pairs]
    if len(wanted) == len(found) and all(same):
        return None
    return Verdict(0.0, "file", f"patches {show(found)}, want {show(wanted)}")


def _same_place(gold: Hunk, actual: Hunk) -> bool:
    """Whether two hunks can change the same lines: one names no place, or both the same. A tool that wants
    numbers of lines refuses a hunk without, and the other way round."""
    if (gold.line is None) != (actual.line is None):
        return False
    for want, got in ((gold.anchor, actual.anchor), (gold.line, actual.line)):
        if want != got and want and got:
            return False
    # without old text, only the place says where the new text goes
    return bool(gold.old.strip()) or gold[:3] == actual[:3]


def compare_patch(gold: str, actual: str) -> Verdict | None:
    """Compare two patches of the same files. None if they do the same."""
    if plain(gold).strip() == plain(actual).strip():
        return None
    if not all(mark in actual for mark in ("*** Begin Patch", "*** End Patch") if mark in gold):
        return Verdict(0.0, "patch", "the patch has no *** Begin Patch or no *** End Patch")
    if "<<<<<<<" in gold or "<<<<<<<" in actual:  # search and replace blocks, which are no diff
        return Verdict(0.0, "patch", _difference(gold, actual))
    (_, gold_modes, want), (_, actual_modes, got) = _hunks(gold), _hunks(actual)
    # a hunk that changes nothing must still be found in the file
    idle = [{(h.file, h.old) for h in hunks if h.old == h.new} for hunks in (want, got)]
    want, got = ([h for h in hunks if h.old != h.new] for hunks in (want, got))
    if not want or gold_modes != actual_modes:  # `_hunks` cannot read it, or files are only moved
        return Verdict(0.0, "patch", _difference(gold, actual))
    if not got:
        return Verdict(0.0, "no_op", "the patch changes nothing")
    if idle[1] - idle[0]:
        return Verdict(0.0, "patch", "a hunk without a change may not be in the file")
    if len(want) != len(got):
        return Verdict(0.0, "patch", f"changes {len(got)} places, want {len(want)}")
    for one, other in zip(want, got):
        if one.file != other.file or not _same_place(one, other):
            return Verdict(0.0, "patch", f"changes {show(other[:3])}, want {show(one[:3])}")
        if one.surplus and other.surplus and one.surplus != other.surplus:
            return Verdict(0.0, "patch", "the head of a hunk counts other lines than it has")
        verdict = compare_replacement(one[3:5], other[3:5])
        if verdict is not None:
            return verdict
    return None
