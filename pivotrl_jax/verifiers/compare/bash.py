"""Do two shell commands of a coding agent do the same? They are compared by the simple commands that they
run.

The same commands must run in the same order, joined the same way and with the same operands. Paths are
compared by `paths.same_path`, code (`python -c`, here-documents, echoed text) by similarity, and other
words exactly.

Not compared are preparations (NAME=value and `export` before a command, `source`, sudo, timeout, a `cd` on
one side only to the directory where the agent is), `2>&1`, and a final `| head` or `| tail`. Flags of
commands that only read may differ a little, except those that change the meaning (`grep -v`); their line
ranges (`sed -n 10,50p`, `head -50`) are compared like those of a view.
"""

import re
from collections import Counter

from pivotrl_jax.records import Message, Verdict
from pivotrl_jax.verifiers.common import show
from pivotrl_jax.verifiers.compare.edits import (
    compare_files,
    compare_lines,
    compare_patch,
    compare_text,
    similarity,
)
from pivotrl_jax.verifiers.compare.paths import Lines, is_workplace, same_lines, same_path
from pivotrl_jax.verifiers.compare.shell import Command, commands

# commands that only read -> the flags that change their meaning
READERS = {
    **dict.fromkeys("ls tree".split(), "Rdo"),
    "sort": "o",
    **dict.fromkeys("grep rg ag".split(), "vcLlo"),
    **dict.fromkeys("cat nl head tail less more wc file stat which type pwd du df diff uniq cut".split(), ""),
    **dict.fromkeys(("pytest", "git status", "git log", "git show", "git blame", "sed", "awk", "find"), ""),
    "git diff": "R",
    "git grep": "vcLl",
}


# flags with which a command that reads writes, runs or stops running something
_ACTS = re.compile(
    r"-(?:delete|exec|execdir|ok|okdir|fprint\w*|fls)|--(?:in-place|output|collect-only|co)(?:=.*)?"
)

_IN_PLACE = re.compile(r"-[nErsuz]{0,5}i.*|--in-place.*", re.DOTALL)  # of sed
SUBCOMMANDS = set("git pip docker npm yarn cargo go conda apt apt-get kubectl poetry uv svn hg brew".split())
CODE = {"python", "node", "ruby", "perl", "echo", "printf", "awk", "git commit"}
BUNDLED = set("rm cp mv mkdir ls grep tar chmod ln cat sort wc head tail du".split())  # -rf means -r -f
MIN_CODE = 40  # characters; shorter code must be equal but for white space


# flags that change how a result looks, but not its content
LOOKS = {
    "ls": re.compile(r"-[^Rdo]|--color.*"),
    "cat": re.compile(r"-.*"),
    "grep": re.compile(r"-[nHsI]|--color.*|--line-number"),
    "pytest": re.compile(
        r"-[qvxsl]{1,4}|-r\w{1,9}|--tb=\w+|--no-header|--color=\w+|--disable-warnings|--verbose"
    ),
    "python": re.compile(r"-[uB]"),
    "git": re.compile(r"--no-pager|--no-color"),
    "pip": re.compile(r"-q|--quiet|--disable-pip-version-check"),
}

_SILENT = {("2>&", "1"), ("2>", "/dev/null"), ("2>>", "/dev/null"), (">&", "2"), ("1>&", "2")}
_PRINTED = re.compile(r"(\d{1,7}),(\d{1,7}|\$)p")
_COUNT = re.compile(r"-(?:n)?(\d{1,7})|--lines=(\d{1,7})")
_EDIT = re.compile(r"edit (\d{1,7}:\d{1,7})\n")
SETUP = {"cd", "export", "set", "source", ".", "conda activate", ""}


def _no(reason: str, said: str) -> Verdict:
    return Verdict(0.0, reason, said)


# ---- commands without the parts that are not compared


def _name(command: Command) -> str:
    """A command's name; for git and its like with the sub-command."""
    if command.head in SUBCOMMANDS:
        value = ("", *command.words)  # of git's -C and -c
        words = [w for before, w in zip(value, command.words) if w[:1] != "-" and before not in ("-C", "-c")]
        return f"{command.head} {words[0][:40]}" if words else command.head
    return command.head


def _limits_output(command: Command, before: Command) -> bool:
    """Whether a command at the end of a pipe only cuts what `before` prints."""
    cuts = command.head in ("head", "tail", "cat") and all(
        word.startswith("-") or word.isdigit() for word in command.words
    )
    return cuts and command.operator == "|" and before.head not in ("cat", "nl") and not command.redirects


def _kept(text: str, workdir: str | None) -> list[Command]:
    found = [c._replace(redirects=tuple(r for r in c.redirects if r not in _SILENT)) for c in commands(text)]
    found = [c for c in found if c != Command("", ())]
    while len(found) > 1 and _limits_output(found[-1], found[-2]):
        found.pop()
    if len(found) > 1 and found[-1].operator == "||" and found[-1].head in ("true", ":"):
        found.pop()
    if workdir is not None and not (found and found[0].head == "cd"):
        found = [Command("cd", (workdir,)), *found]
    return found


def _split(found: list[Command]) -> tuple[list[Command], list[Command]]:
    """(the preparations, the commands after them)."""
    at = 0
    while at + 1 < len(found) and _name(found[at]) in SETUP and found[at + 1].operator in ("&&", ";", ""):
        at += 1
    return found[:at], found[at:]


def _aligned(
    gold: list[Command], actual: list[Command], messages: list[Message]
) -> tuple[list[Command], list[Command]]:
    """Both without preparations. Changes of directory stay if both sides have one, or if one may lead to
    another place than the shell is in."""
    (gold_setup, wanted), (actual_setup, found) = _split(gold), _split(actual)
    moves = [[c for c in setup if c.head == "cd"] for setup in (gold_setup, actual_setup)]
    named = [word for command in (*wanted, *found) for word in command.words]
    if not all(moves) and all(
        is_workplace(" ".join(c.words), named, messages) for c in (*moves[0], *moves[1])
    ):
        return wanted, found
    return [*moves[0], *wanted], [*moves[1], *found]


def _operators(found: list[Command]) -> list[str]:
    return [{"&&": ";", "": ";"}.get(command.operator, command.operator) for command in found[1:]]


# ---- the words of one command


def _reads(command: Command) -> bool:
    written = any(">" in op and target != "/dev/null" for op, target in command.redirects)
    if _name(command) not in READERS or written:
        return False
    acts = _IN_PLACE if command.head == "sed" else _ACTS
    return not any(acts.fullmatch(word) for word in command.words)


def _flags(command: Command) -> Counter:
    flags: Counter = Counter()
    for word in command.words:
        if word.startswith("-") and len(word) > 1:
            bundle = command.head in BUNDLED and re.fullmatch(r"-[A-Za-z]{2,9}", word)
            flags.update([f"-{letter}" for letter in word[1:]] if bundle else [word])
    return flags


def _operands(command: Command) -> list[str]:
    """Words that are not flags. For a command that reads, also without numbers, which are values of flags,
    and without the working directory, which it reads by default."""
    words = [word for word in command.words if not word.startswith("-") or len(word) == 1]
    if _reads(command):
        words = [word for word in words if not word.isdigit() and word not in (".", "./")]
    return words


def _lines(command: Command) -> tuple[Lines | None, Command]:
    """The lines that a command shows (from the end for `tail`), and the command without that range."""
    if command.head not in ("sed", "head", "tail") or not _reads(command):
        return None, command
    words = " ".join(command.words) if len(command.words) < 9 else ""
    words = re.sub(r"(^| )(-n|--lines) (\d+)(?= |$)", r"\1-\3", words).split(" ")
    for word in words:
        printed = _PRINTED.fullmatch(word) if command.head == "sed" else None
        count = _COUNT.fullmatch(word) if command.head != "sed" else None
        if printed or count:
            rest = command._replace(words=tuple(w for w in words if w != word))
            if count:
                return Lines(1, int(count[1] or count[2])), rest
            return Lines(int(printed[1]), None if printed[2] == "$" else int(printed[2])), rest
    return None, command


def _same_word(name: str, gold: str, actual: str, threshold: float) -> bool:
    if gold == actual or (not re.search(r"\s", gold + actual) and same_path(gold, actual)):
        return True
    if (
        name not in CODE
        or not re.search(r"\s", gold)
        or any("$(" in text or "`" in text for text in (gold, actual))
    ):
        return False
    if len(gold) < MIN_CODE:
        return gold.split() == actual.split()
    return similarity(gold, actual) >= threshold


def _compare_words(gold: Command, actual: Command, threshold: float) -> Verdict | None:
    name = _name(gold)
    if _reads(gold) and not _reads(actual):  # then `_operands` would treat the two differently
        return _no("flags", f"{name} of {show(actual.words)} acts, want {show(gold.words)}")
    wanted, found = _operands(gold), _operands(actual)
    if len(wanted) != len(found):
        return _no("operands", f"{name} of {show(found)}, want {show(wanted)}")
    for want, got in zip(wanted, found):
        if not _same_word(name, want, got, threshold):
            return _no("operands", f"{name}: {show(got)}, want {show(want)}")
    looks = LOOKS.get(gold.head)
    want, got = (
        {f: n for f, n in _flags(c).items() if not (looks and looks.fullmatch(f))} for c in (gold, actual)
    )
    if want == got:
        return None
    if not (_reads(gold) and _reads(actual)):
        return _no("flags", f"{name} {show(sorted(got))}, want {show(sorted(want))}")
    decisive = {f"-{letter}" for letter in READERS[name]}
    texts = [" ".join([name, *sorted(flags), *wanted]) for flags in (want, got)]
    if decisive & want.keys() != decisive & got.keys() or similarity(*texts) < threshold:
        return _no("flags", f"{name} {show(sorted(got))}, want {show(sorted(want))}")
    return None


def _compare_command(gold: Command, actual: Command, threshold: float) -> Verdict | None:
    if gold.head == actual.head == "apply_patch":
        patches = [c.heredoc or " ".join(c.words) for c in (gold, actual)]
        return compare_files(*patches) or compare_patch(*patches, threshold)
    if not gold.head and gold.env != actual.env:
        return _no("variables", f"sets {show(actual.env)}, want {show(gold.env)}")
    if len(gold.redirects) != len(actual.redirects) or not all(
        want[0] == got[0] and same_path(want[1], got[1])
        for want, got in zip(gold.redirects, actual.redirects)
    ):
        return _no("redirect", f"redirects {show(actual.redirects)}, want {show(gold.redirects)}")
    if gold.heredoc != actual.heredoc:
        verdict = compare_text(gold.heredoc, actual.heredoc, threshold, "heredoc")
        if verdict is not None:
            return verdict
    return _compare_words(gold, actual, threshold)


# ---- whole texts


def _compare_edit(gold: str, actual: str, threshold: float) -> Verdict | None:
    """SWE-agent's `edit 10:12`, typed into the shell."""
    lines = [_EDIT.match(text) for text in (gold, actual)]
    if lines[1] is None or lines[0][1] != lines[1][1]:
        return _no("range", "edits other lines, or none")
    texts = (
        text[line.end() :].rstrip().removesuffix("end_of_edit") for line, text in zip(lines, (gold, actual))
    )
    return compare_lines(*texts, threshold)


def _compare_heads(gold: list[Command], actual: list[Command], texts: tuple[str, str]) -> Verdict | None:
    names = [[_name(command) for command in found] for found in (gold, actual)]
    if names[0] != names[1]:
        return _no("head", f"runs {show(names[1])}, want {show(names[0])}")
    ends = [text.rstrip().endswith("&") for text in texts]  # left to run in the background
    if _operators(gold) != _operators(actual) or ends[0] != ends[1]:
        return _no("operators", f"joined by {show(_operators(actual))}, want {show(_operators(gold))}")
    return None


def compare(
    gold: tuple[str, str | None],
    actual: tuple[str, str | None],
    messages: list[Message],
    arguments: bool,
    threshold: float,
) -> Verdict | None:
    """Compare the (command, working directory) of two calls that follow `messages`; None if they do the same.

    Without `arguments`, only the names of commands, their directory and the lines that they show are
    compared.
    """
    if gold[0].strip() == actual[0].strip() and gold[1] == actual[1]:
        return None
    if _EDIT.match(gold[0]):
        return _compare_edit(gold[0], actual[0], threshold)
    wanted, found = _aligned(_kept(*gold), _kept(*actual), messages)
    if not found:
        return _no("incomplete", "no command")
    verdict = _compare_heads(wanted, found, (gold[0], actual[0]))
    if verdict is not None:
        return verdict
    for want, got in zip(wanted, found):
        (want_lines, want), (got_lines, got) = _lines(want), _lines(got)
        if (want_lines is None) != (got_lines is None) or (
            want_lines and not same_lines(want_lines, got_lines)
        ):
            return _no("range", f"shows {show(got_lines)}, want {show(want_lines)}")
        verdict = _compare_command(want, got, threshold) if arguments or want.head == "cd" else None
        if verdict is not None:
            return verdict
    return None
