"""Do two simple commands of the same program have the same arguments? See bash.py for the rules."""

import ast
import re
import warnings
from typing import NamedTuple

from pivotrl_jax.records import Verdict
from pivotrl_jax.verifiers.common import show
from pivotrl_jax.verifiers.compare.flags import Sorted, changes_looks, sort_find, sort_flags, tells_less
from pivotrl_jax.verifiers.compare.paths import at, normal_path, same_path
from pivotrl_jax.verifiers.compare.shell import Redirect
from pivotrl_jax.verifiers.compare.steps import Step

# commands that only read, and others -> the index of the first operand that names a file
READS = {
    **dict.fromkeys("ls cat head tail nl wc du df sort uniq cut tree diff file stat find".split(), 0),
    **dict.fromkeys("grep rg sed".split(), 1),
}
_RUNS = {"pytest", "python", "cd", "bash", "sh", "."}  # files that these name are found as those of READS
_FILES = {
    **READS,
    **dict.fromkeys("cd rm cp mv mkdir rmdir touch ln pytest".split(), 0),
    **dict.fromkeys(("git add", "git diff", "git rm", "git blame", "git restore"), 0),
    **dict.fromkeys("chmod chown".split(), 1),
}
# these show the names by which they were given files
_NAMES = {"ls", "find", "du", "grep", "rg", "wc", "stat", "file", "tree", "diff"}
_OF_FILES = set("cat head tail nl sort uniq cut sed wc python bash sh .".split())  # these read no directory
_HERE = {"ls", "du", "tree"}  # these read "." by default
_ANY_ORDER = {"rm", "touch", "git add", "git rm"}  # these do the same to each of their files
SUBCOMMANDS = set("git pip docker npm yarn cargo go conda apt apt-get kubectl poetry uv svn hg brew".split())
MAX_PROGRAM = 20_000  # characters of a Python program that is parsed
_ACTING = re.compile(r"-(?:delete|exec|execdir|ok|okdir|fprint\w*|fls)")  # of find
_SED_ACTS = re.compile(r"[we]")  # letters of a sed script that may write or run something
_BACK = re.compile(r"[^/.][^/]*/+\.\.(?:/|$)")  # a/.., which is elsewhere if `a` is a link
_HIDDEN = re.compile(r"[\"`$]|^quoted ")  # in the form of a word whose value is not known


def no(reason: str, said: str) -> Verdict:
    """The verdict that rejects."""
    return Verdict(0.0, reason, said)


class Directories(NamedTuple):
    """Where the two commands run."""

    common: str | None = None  # the directory of both, where it is known
    apart: tuple[str | None, str | None] | None = None  # those of gold and actual, where they may differ
    moves: bool = False  # a command changes the directory on its way
    exact: bool = False  # the spelling of a file shows in what is passed on


def name_of(step: Step) -> str:
    """A command's name; for git and its like with the sub-command."""
    if step.name not in SUBCOMMANDS:
        return step.name
    forms = [word.form for word in step.words]
    options = {"-C", "-c"} if step.name == "git" else set()
    words = [w for before, w in zip(["", *forms], forms) if w[:1] != "-" and before not in options]
    return f"{step.name} {words[0][:40]}" if words else step.name


def discards(redirect: Redirect) -> bool:
    """Whether this is `2>/dev/null`."""
    return redirect.operator == "2>" and redirect.target.form == "/dev/null"


def only_reads(step: Step) -> bool:
    """Whether a command changes nothing and starts nothing."""
    if step.name not in READS or any(">" in r.operator and not discards(r) for r in step.redirects):
        return False
    forms = [word.form for word in step.words]
    if step.name == "sed":
        found = sort_flags("sed", forms)
        scripts = [*found.operands[:1], *(value for _, value in found.flags)] if found else []
        return bool(scripts) and ("i", "") not in found.flags and not any(map(_SED_ACTS.search, scripts))
    if step.name == "sort":
        return not any(form.startswith(("-o", "--o")) for form in forms)
    if step.name == "uniq":
        return len(forms) < 2
    return step.name != "find" or not any(map(_ACTING.fullmatch, forms))


# ---- files


def ends_alike(gold: str, actual: str) -> bool:
    """Whether both or neither can only name a directory: `cat a/` fails where `cat a` does not."""
    return all(gold.endswith(end) == actual.endswith(end) for end in ("/", "/."))


def same_file(gold: str, actual: str, where: Directories, reads: bool) -> bool:
    """Whether two operands (forms of words) name the same file, for a command that reads it or another."""
    if "-" in (gold, actual):
        return gold == actual  # what is typed or piped in
    if where.apart is not None:
        if any(map(_HIDDEN.search, (gold, actual))):
            return False
        if where.exact:
            return False
        resolved = [at(form, there) for form, there in zip((gold, actual), where.apart)]
        # relative paths start at the same place unless one side went elsewhere from the root
        anchored = any(there is not None and there.startswith(("/", "~")) for there in where.apart)
        return resolved[0] == resolved[1] and (not anchored or resolved[0].startswith("/"))
    if gold == actual or where.exact:
        return gold == actual
    tests = [form.partition("::")[1:] for form in (gold, actual)]
    if tests[0] != tests[1]:
        return False  # a test's parameters may look like a path
    if any(map(_HIDDEN.search, (gold, actual))) or (not reads and any(map(_BACK.search, (gold, actual)))):
        return False
    if not reads and not ends_alike(gold, actual):
        return False  # cp a b/ is not cp a b, nor is cp a/. b
    if where.moves or where.common is not None or not reads:
        return at(gold, where.common) == at(actual, where.common)
    return same_path(gold, actual)


def _first_file(name: str, flags: set[str]) -> int | None:
    """The index of the first operand that names a file; no pattern comes first beside -e and -f."""
    return 0 if name in READS and flags & {"e", "f"} and _FILES[name] else _FILES.get(name)


# ---- arguments


def _sorted(step: Step, is_shown: bool) -> Sorted | None:
    """The arguments without flags that change only the look, and with the directory read by default."""
    forms = [word.form for word in step.words]
    found = sort_find(forms) if step.name == "find" else sort_flags(step.name, forms)
    if found is None:
        return None
    flags, operands = found
    letters = {flag for flag, _ in flags}
    recursive = step.name == "grep" and letters & {"r", "R"}
    if len(operands) == (_first_file("grep", letters) if recursive else 0 if step.name in _HERE else None):
        operands = (*operands, ".")
    if is_shown:
        flags = tuple((flag, value) for flag, value in flags if not changes_looks(name_of(step), flag))
    return Sorted(flags, operands)


def _letters(step: Step) -> str:
    return " ".join(word.form for word in step.words if word.form.startswith("-"))


def _compare_operands(
    gold: tuple[str, ...], actual: tuple[str, ...], files: range, where: Directories, step: Step
) -> Verdict | None:
    """Compare words one by one; those whose index is in `files` name files. `step` is the gold's."""
    name, reads = name_of(step), only_reads(step) or step.name in _RUNS
    if name == "ln":
        # a link holds the text of its target, whether or not that is there
        files = files[-1:] if len(gold) > 1 else range(0)
    if where.apart is not None and not (files and only_reads(step) and files.start < len(gold)):
        return no("head", f"{name} runs in {show(where.apart[1])}, want {show(where.apart[0])}")
    if len(gold) != len(actual):
        return no("operands", f"{name} of {show(actual)}, want {show(gold)}")
    if name in _ANY_ORDER and "v" not in _letters(step):  # with -v the order shows
        gold, actual = (
            (*words[: files.start], *sorted(words[files.start :], key=normal_path))
            for words in (gold, actual)
        )
    files_only = name in _OF_FILES or (name == "grep" and not re.search(r"-\w*[rR]|--rec", _letters(step)))
    for i, (want, got) in enumerate(zip(gold, actual)):
        if files_only and i in files and not ends_alike(want, got):
            return no("operands", f"{name}: {show(got)} can only be a directory, or {show(want)}")
        if not (same_file(want, got, where, reads) if i in files else want == got):
            return no("operands", f"{name}: {show(got)}, want {show(want)}")
    return None


def compare_arguments(gold: Step, actual: Step, where: Directories, is_shown: bool) -> Verdict | None:
    """Compare the arguments of two commands of one name. None if they are the same."""
    if gold.name == "python":
        return _compare_python(gold, actual, where)
    both = [_sorted(step, is_shown) for step in (gold, actual)]
    given = [sort_flags(step.name, [word.form for word in step.words]) for step in (gold, actual)]
    if None not in given and tells_less(gold.name, given[0].flags, given[1].flags):
        return no("flags", f"{name_of(gold)} {show(given[1].flags)} shows less, want {show(given[0].flags)}")
    if None not in both:
        want, got = both
        names = gold.name in _NAMES or (gold.name in ("head", "tail") and len(want.operands) > 1)
        where = where if is_shown or not names else where._replace(exact=True)
        if gold.name == "find" and any(
            p in flag for p in ("path", "wholename", "regex") for flag, _ in want.flags
        ):
            where = where._replace(exact=True)  # these match the name with the directory that was given
        if want.flags != got.flags:
            return no("flags", f"{name_of(gold)} {show(got.flags)}, want {show(want.flags)}")
        first = _first_file(gold.name, {flag for flag, _ in want.flags})
        if name_of(gold) in ("git add", "git rm"):
            first = 1  # after the sub-command
        files = range(0) if first is None else range(first, len(want.operands))
        return _compare_operands(want.operands, got.operands, files, where, gold)
    forms = [tuple(word.form for word in step.words) for step in (gold, actual)]
    files = range(0)
    if any(form[:1] == "-" for form in forms[0]):
        pass  # a word may be a flag's value
    elif gold.name in ("bash", "sh", ".") and forms[0]:
        # `. a` without a slash looks for it elsewhere
        files = range(int(gold.name != "." or all("/" in "".join(words[:1]) for words in forms)))
    elif gold.name in ("file", "stat", "cd") or name_of(gold) in _FILES:
        files = range(_FILES.get(name_of(gold), 0), len(forms[0]))
    return _compare_operands(*forms, files, where, gold)


# ---- Python


def _tree(program: str) -> str | None:
    """The syntax tree of a Python program in words; None where there is none."""
    if len(program) > MAX_PROGRAM:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of doubtful escapes in strings
            return ast.dump(ast.parse(program))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def same_program(gold: str, actual: str) -> bool:
    """Whether two Python programs differ at most in spaces, comments and the kind of quotes."""
    if gold.strip("\n") == actual.strip("\n"):
        return True
    tree = _tree(gold)
    return tree is not None and tree == _tree(actual)


def _compare_python(gold: Step, actual: Step, where: Directories) -> Verdict | None:
    codes = [len(step.words) > 1 and step.words[0].form == "-c" for step in (gold, actual)]
    words = [step.words for step in (gold, actual)]
    if all(codes) and all(step.words[1].literal for step in (gold, actual)):
        if not same_program(*(step.words[1].text for step in (gold, actual))):
            return no("operands", f"runs {show(actual.words[1].text)}, want {show(gold.words[1].text)}")
        words = [step.words[2:] for step in (gold, actual)]
    forms = [tuple(word.form for word in rest) for rest in words]
    if all(any(r.operator == "<<" for r in step.redirects) for step in (gold, actual)):
        forms = [() if rest == ("-",) else rest for rest in forms]  # reads its program there by default
    script = not any(codes) and len(forms[0]) > 0 and forms[0][0][:1] != "-"
    return _compare_operands(*forms, range(int(script)), where, gold)
