"""Do two edits of a file do the same? Texts are compared by similarity, and the changes in them separately.

Two texts are similar if `rapidfuzz`'s ratio (of inserted and deleted characters) over the whole texts
reaches a threshold. That alone would accept an edit that repeats the old text without its small fix, so the
change itself (between the common beginning and the common end) must be similar too.
"""

import re
from collections import Counter

from rapidfuzz.distance import Indel

from pivotrl_jax.records import Verdict
from pivotrl_jax.verifiers.common import show
from pivotrl_jax.verifiers.compare.paths import same_path

MAX_CHARS = 20_000  # longer texts are compared by lines: rapidfuzz takes time in the product of the lengths
CHANGE = 0.5  # least similarity of the changes
MIN_CHANGE = 8  # characters of old text that are enough to locate a change
_WORDS = re.compile(r"\w+|\s+|[^\w\s]+")


def _plain(text: str) -> str:
    """Without carriage returns and spaces at the end of lines."""
    return "\n".join(line.rstrip() for line in text.split("\n"))


def similarity(a: str, b: str) -> float:
    """Similarity in [0, 1]; 1 for texts that differ at most in the ends of lines. Linear for long texts."""
    a, b = _plain(a), _plain(b)
    if a == b:
        return 1.0
    if max(len(a), len(b)) <= MAX_CHARS:
        return Indel.normalized_similarity(a, b)
    counts = Counter(a.split("\n")), Counter(b.split("\n"))
    size = sum((len(line) + 1) * n for count in counts for line, n in count.items())
    shared = sum((len(line) + 1) * n for line, n in (counts[0] & counts[1]).items())
    return 2 * shared / size


def _core(a: list[str], b: list[str]) -> tuple[list[str], list[str]]:
    """Both lists without their common beginning and end."""
    start = end = 0
    while start < min(len(a), len(b)) and a[start] == b[start]:
        start += 1
    while end < min(len(a), len(b)) - start and a[-1 - end] == b[-1 - end]:
        end += 1
    return a[start : len(a) - end], b[start : len(b) - end]


def _change(old: str, new: str) -> tuple[str, str]:
    """The part of `old` that becomes another in `new`, and that: "1" and "2" for "x = 1" and "x = 2"."""
    a, b = _core(_WORDS.findall(old), _WORDS.findall(new))
    return "".join(a), "".join(b)


def _changed_lines(old: str, new: str) -> tuple[list[str], list[str]]:
    """The changed lines before and after, without the indentation of the first."""
    before, after = _core(old.split("\n"), new.split("\n"))
    indent = before[0][: len(before[0]) - len(before[0].lstrip())] if before else ""
    return [line.removeprefix(indent) for line in before], [line.removeprefix(indent) for line in after]


def compare_replacement(gold: tuple[str, str], actual: tuple[str, str], threshold: float) -> Verdict | None:
    """Compare the (old, new) of two edits. None if they do the same, else the verdict that rejects."""
    gold, actual = tuple(map(_plain, gold)), tuple(map(_plain, actual))
    if gold == actual:
        return None
    if actual[0] == actual[1]:
        return Verdict(0.0, "no_op", "the edit changes nothing")
    if max(map(len, (*gold, *actual))) <= MAX_CHARS:
        changes = _changed_lines(*gold), _changed_lines(*actual)
        # the same lines changed, with more or fewer lines of context
        if changes[0] == changes[1] and len("".join(changes[0][0])) >= MIN_CHANGE:
            return None
    for what, want, got in zip(("old", "new"), gold, actual):
        found = similarity(want, got)
        if found < threshold:
            return Verdict(0.0, f"{what}_text", f"the {what} text's similarity is {found:.3f} < {threshold}")
    changes = _change(*gold), _change(*actual)
    if min(map(similarity, *changes)) < CHANGE:
        details = (
            f"changes {show(changes[1][0], 50)} to {show(changes[1][1], 50)}, want {show(changes[0][1], 50)}"
        )
        return Verdict(0.0, "change", details)
    return None


def compare_text(gold: str, actual: str, threshold: float, what: str = "content") -> Verdict | None:
    """Compare two contents of a file. None if they are similar enough."""
    found = similarity(gold, actual)
    return Verdict(0.0, what, f"similarity {found:.3f} < {threshold}") if found < threshold else None


def compare_lines(gold: str, actual: str, threshold: float) -> Verdict | None:
    """Compare two texts for the same lines of a file, whose indentation must agree."""
    stripped = [[line.strip() for line in text.strip().split("\n")] for text in (gold, actual)]
    if stripped[0] == stripped[1] and _plain(gold).strip("\n") != _plain(actual).strip("\n"):
        return Verdict(0.0, "indentation", "the same lines with another indentation")
    return compare_text(gold, actual, threshold)


# ---- patches: unified diffs, and Codex's `*** Update File: ...`

_FILE = re.compile(
    r"(?:\*\*\* (?:Add|Update|Delete) File: |\*\*\* Move to: |\+\+\+ (?:b/)?|--- (?:a/)?)(\S.*)"
)


def patched(patch: str) -> tuple[list[str], str, str]:
    """(the files of a patch, the removed lines, the added lines)."""
    files, removed, added = [], [], []
    for line in patch.split("\n"):
        match = _FILE.match(line)
        if match:
            path = match[1].split("\t")[0].strip()
            if path != "/dev/null" and path not in files:
                files.append(path)
        elif line.startswith("-"):
            removed.append(line[1:])
        elif line.startswith("+"):
            added.append(line[1:])
    return files, "\n".join(removed), "\n".join(added)


def compare_files(gold: str, actual: str) -> Verdict | None:
    """Compare the files of two patches. None if they are the same."""
    wanted, found = patched(gold)[0], patched(actual)[0]
    if len(wanted) == len(found) and all(map(same_path, sorted(wanted), sorted(found))):
        return None
    if len(wanted) == len(found) == 1 and same_path(*wanted, *found):
        return None
    return Verdict(0.0, "file", f"patches {show(found)}, want {show(wanted)}")


def compare_patch(gold: str, actual: str, threshold: float) -> Verdict | None:
    """Compare two patches of the same files. None if they do the same."""
    if _plain(gold).strip() == _plain(actual).strip():
        return None
    (_, *want), (_, *got) = patched(gold), patched(actual)
    if not any(want):  # a format that `patched` cannot read
        return compare_text(gold, actual, threshold, "patch")
    if not any(got):
        return Verdict(0.0, "no_op", "the patch changes nothing")
    return compare_replacement(tuple(want), tuple(got), threshold)
