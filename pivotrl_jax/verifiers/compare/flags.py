"""The flags of well-known commands: `ls -la src`, `ls src -a -l` and `ls -al src` are one command.

For a command in TABLE, flags are separated from operands where this is certain: every flag is in the table,
none is given twice with another value, and no two of a group exclude each other. Otherwise, and for all
other commands, the words stay as they are, in their order.

TABLE also says which flags only change how a result looks (bash.py uses this, keystrokes.py does not), and
which operands name files.
"""

import re
from collections import Counter
from typing import NamedTuple


class Flags(NamedTuple):
    """What is known of one command's flags."""

    bare: str = ""  # short flags without a value
    valued: str = ""  # short flags with a value, joined or as the next word
    exclusive: tuple[str | tuple[str, ...], ...] = ()  # groups of flags of which the last one given decides
    long: str = ""  # long flags; those that end in "=" have a value
    same: str = ""  # "longer=short" or "R=r": spellings of one flag
    looks: str = ""  # flags that change how the result looks, but not what it says; long ones by name


class Sorted(NamedTuple):
    """A command's arguments: flags in alphabetical order, and the operands in theirs."""

    flags: tuple[tuple[str, str], ...]  # (flag, value or "")
    operands: tuple[str, ...]


_GREP = Flags(
    "EFGPivwxcnHhrRlLoqsabUzZITy",
    "eABCmfdD",
    ("EFGP", "Hh", "lLcqo", "rR", "AC", "BC"),
    "line-number recursive ignore-case include= exclude= exclude-dir= color color= colour= no-messages "
    "after-context= before-context= context= max-count= regexp= files-with-matches invert-match word-regexp "
    "line-regexp count only-matching extended-regexp fixed-strings perl-regexp quiet no-filename",
    "line-number=n recursive=r ignore-case=i no-messages=s y=i after-context=A before-context=B context=C "
    "max-count=m regexp=e files-with-matches=l invert-match=v word-regexp=w line-regexp=x count=c "
    "only-matching=o extended-regexp=E fixed-strings=F perl-regexp=P quiet=q no-filename=h",
    "nHs color colour",
)

_LOG = Flags(
    "p",
    "nSG",
    (("oneline", "pretty", "format"),),
    "oneline stat graph all reverse follow decorate no-merges merges name-only name-status no-patch "
    "pretty= format= max-count= author= since= until= grep= patch",
    "max-count=n patch=p",
)

TABLE = {
    "git log": _LOG,
    "git show": _LOG,
    "git diff": Flags(
        "wbp",
        "U",
        (("name-only", "name-status", "stat"),),
        "cached staged stat name-only name-status patch unified=",
        "staged=cached patch=p unified=U",
    ),
    "git commit": Flags(
        "aqsn",
        "mF",
        (),
        "all message= file= amend no-edit no-verify allow-empty quiet signoff author= date=",
        "all=a message=m file=F no-verify=n quiet=q signoff=s",
        "q",
    ),
    "git add": Flags(
        "ANnpuvf", "", (), "all update force patch dry-run", "all=A update=u force=f patch=p dry-run=n", "v"
    ),
    "git status": Flags("sb", "", (), "short branch porcelain", "short=s branch=b"),
    "git rm": Flags("rfqn", "", (), "cached force quiet dry-run", "force=f quiet=q dry-run=n", "q"),
    "git push": Flags("fu", "", (), "force set-upstream force-with-lease tags", "force=f set-upstream=u"),
    "tar": Flags(
        "xctruzjJvkpPhO",
        "fCTX",
        ("xctru", "zjJ", "tv"),
        "extract create list gzip bzip2 xz verbose file= directory= strip-components= exclude=",
        "extract=x create=c list=t gzip=z bzip2=j xz=J verbose=v file=f directory=C",
        "v",
    ),
    "ls": Flags(
        "aAbBcCdDfFgGhHiklLmnNopqQrRsStuUvxXZ1",
        exclusive=("aA", "1Cglmnox", "tSUXvcuf"),
        long="all almost-all human-readable recursive color color=",
        same="all=a almost-all=A human-readable=h recursive=R",
        looks="aAlh1FGp color",
    ),
    "rm": Flags("dfiIrRv", "", ("fiI",), "recursive force verbose", "recursive=r force=f R=r verbose=v", "v"),
    "cp": Flags("abdfHiLlnPpRrsTuvx", "", ("fin", "HLP"), "recursive", "recursive=r R=r", "v"),
    "mv": Flags("bfinTuv", "", ("fin",), looks="v"),
    "mkdir": Flags("pv", "m", (), "parents", "parents=p", "v"),
    "rmdir": Flags("pv", looks="v"),
    "touch": Flags("acm", "dtr"),
    "ln": Flags("bdfFinrsTvLP", "", ("fi", "LP"), looks="v"),
    "cat": Flags("AbeEnstTuv", "", ("bn",), "number", "number=n", "nu"),
    "head": Flags("qvz", "nc", ("qv", "nc"), "lines= bytes=", "lines=n bytes=c"),
    "tail": Flags("fFqvz", "nc", ("qv", "nc", "fF"), "lines= bytes= follow", "lines=n bytes=c follow=f"),
    "nl": Flags("", "bw"),
    "wc": Flags("clLmw", "", (), "lines words bytes chars", "lines=l words=w bytes=c chars=m"),
    "du": Flags("abcDhHkLlmPsSx0", "d", ("as", "bhkm", "DHLP"), "max-depth=", "max-depth=d", "h"),
    "df": Flags("ahHiklPT", "", ("hHk",), looks="h"),
    "sort": Flags(
        "bdfghiMnRrVcCmsuz",
        "ktoST",
        ("ghMnRV", "cC"),
        "unique reverse numeric-sort",
        "unique=u reverse=r numeric-sort=n",
    ),
    "uniq": Flags("cdiuzD", "fsw", ("dDu",), "count", "count=c"),
    "cut": Flags("sz", "dfbc", ("fbc",), "delimiter= fields=", "delimiter=d fields=f"),
    "grep": _GREP,
    "egrep": _GREP,
    "fgrep": _GREP,
    "rg": Flags("iSswvclLoFUuNn", "egtTABCm", ("iSs", "nN", "AC", "BC"), "files", looks="n"),
    "sed": Flags("nErsuzi", "ef", (), "quiet silent in-place", "r=E quiet=n silent=n in-place=i"),
    "tree": Flags("adfCl", "LIPo", looks="C"),
    "diff": Flags("urqNbBwiasy", "U", ("uUqy",), "unified recursive brief", "unified=u recursive=r brief=q"),
    "curl": Flags(
        "sSLfkIivgNOJ",
        "oXHdFuAebTmwxcE",
        (),
        "silent show-error location fail insecure head include verbose remote-name request= header= data= "
        "output= user= user-agent= cookie= max-time= form=",
        "silent=s show-error=S location=L fail=f insecure=k head=I include=i verbose=v remote-name=O "
        "request=X header=H data=d output=o user=u user-agent=A cookie=b max-time=m form=F",
    ),
    "pytest": Flags(
        "qvxsl",
        "kmrnpcoW",
        (),
        "verbose quiet exitfirst showlocals no-header disable-warnings lf ff last-failed collect-only "
        "color= tb= maxfail= durations= deselect= ignore= timeout= rootdir= cov=",
        "verbose=v quiet=q exitfirst=x showlocals=l last-failed=lf",
        "qvslr no-header disable-warnings color tb",
    ),
}

_COUNT = re.compile(r"-(\d{1,9})")  # head -20
_PATTERNS = ("include", "exclude", "exclude-dir")  # flags of grep
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_SCRIPTED = {"sed", "grep", "rg"}  # their first operand may be given by -e
_DEGREES = {"v", "q"}  # flags that may be repeated: -vv


def _spelled(known: Flags) -> dict[str, str]:
    return dict(pair.split("=") for pair in known.same.split())


def _split_word(known: Flags, word: str, following: str | None) -> tuple[list[tuple[str, str]], int] | None:
    """(the flags of one word that begins with `-`, how many of the following words are values)."""
    if word.startswith("--"):
        name, equals, value = word[2:].partition("=")
        options = known.long.split()
        if name + equals in options:
            return [(name, value)], 0
        if name + "=" in options and not equals and following is not None:
            return [(name, following)], 1
        return None
    flags: list[tuple[str, str]] = []
    for i, letter in enumerate(word[1:], 1):
        if letter in known.valued:
            if i + 1 < len(word):
                return [*flags, (letter, word[i + 1 :])], 0
            return ([*flags, (letter, following)], 1) if following is not None else None
        if letter not in known.bare or (known is TABLE["sed"] and letter == "i" and i + 1 < len(word)):
            return None  # sed -in is -i with the suffix n
        flags.append((letter, ""))
    return flags, 0


def _old_tar(arguments: list[str]) -> list[str] | None:
    """tar's `xzf a` as `-x -z -f a`: in the old style values follow in the order of their letters."""
    if not arguments or arguments[0][:1] in ("-", ""):
        return None if arguments[:1] == ["--"] else arguments
    words, at = [], 1
    for letter in arguments[0]:
        words.append(f"-{letter}")
        if letter in TABLE["tar"].valued:
            if at == len(arguments):
                return None
            words.append(arguments[at])
            at += 1
    return [*words, *arguments[at:]]


def _without_end(form: str) -> str:
    """A word's form without (escaped) line ends and spaces at its end; one pass from the end."""
    end = len(form)
    while form[max(end - 2, 0) : end] in ("\\\n", "\\ "):
        end -= 2
    return form[:end]


def _bare(escaped: re.Match) -> str:
    """A sign of a pattern without its quotes; any other character with them."""
    return escaped[1] if escaped[1] in "*?[]" else escaped[0]


def _settled(name: str, flags: list[tuple[str, str]], operands: list[str]) -> Sorted | None:
    """Flags and operands in their order; a value that is given by default, or in another place, is moved."""
    given = Counter(flag for flag, _ in flags)
    known = TABLE[name]
    if any(count > 1 and flag not in _DEGREES for flag, count in given.items()):
        return None
    if any(len(given.keys() & {*group}) > 1 for group in known.exclusive):
        return None
    if name == "tar" and given["C"] and operands:
        return None  # it changes to the directory between the operands
    if name in ("head", "tail") and not given["n"] and not given["c"]:
        flags = [*flags, ("n", "10")]
    if name in _SCRIPTED and given["e"] and not given["f"]:
        # the only script or pattern, which may stand alone as well
        operands = [next(value for flag, value in flags if flag == "e"), *operands]
        flags = [(flag, value) for flag, value in flags if flag != "e"]
    if name in ("grep", "rg") and given["C"]:  # as many lines before as after
        flags = [(side, v) for f, v in flags for side in ("AB" if f == "C" else [f])]
    if known is _GREP:
        # no file is called --include=x.py, so that a pattern there is one with and without quotes; but {a,b}
        flags = [(f, _ESCAPED.sub(_bare, value) if f in _PATTERNS else value) for f, value in flags]
    if name == "git commit":  # which drops empty lines at the end
        flags = [(f, _without_end(value) if f == "m" else value) for f, value in flags]
    return Sorted(tuple(sorted(flags)), tuple(operands))


def _table_name(name: str, arguments: list[str]) -> str:
    """The name of the command in TABLE: of git with the sub-command."""
    return f"git {arguments[0]}" if name == "git" and arguments else name


def sort_flags(name: str, arguments: list[str]) -> Sorted | None:
    """The arguments of the command `name` (forms of words); None where their order may count. The first
    operand of git is the sub-command.
    """
    table_name = _table_name(name, arguments)
    known = TABLE.get(table_name)
    arguments = _old_tar(arguments) if name == "tar" else arguments
    if known is None or arguments is None:
        return None
    flags: list[tuple[str, str]] = []
    operands: list[str] = []
    same, at = _spelled(known), 0
    while at < len(arguments):
        word, at = arguments[at], at + 1
        if word == "--":
            # git reads files after it, and revisions before it
            operands += arguments[at - 1 if name == "git" else at :]
            break
        # `head f -2` is an error, and so is `tail -2 a b`
        first = at == 1 and (name == "head" or (name == "tail" and len(arguments) < 3))
        count = _COUNT.fullmatch(word) if first or known is _LOG else None
        if count:
            flags.append(("n", count[1]))
        elif word.startswith("-") and len(word) > 1:
            found = _split_word(known, word, arguments[at] if at < len(arguments) else None)
            if found is None:
                return None
            flags += [(same.get(flag, flag), value) for flag, value in found[0]]
            at += found[1]
        else:
            operands.append(word)
    return _settled(table_name, flags, operands)


# ---- find

# tests of find that neither act nor say how names are read: (those with a value, those without)
_TESTS = (
    set(
        "-name -iname -path -ipath -wholename -regex -iregex -type -size -mtime -mmin -atime -amin -ctime "
        "-cmin -newer -perm -user -group -maxdepth -mindepth".split()
    ),
    {"-empty", "-readable", "-writable", "-executable"},
)


def sort_find(arguments: list[str]) -> Sorted | None:
    """The tests of `find` in alphabetical order, if all of them must hold and none acts, and the directories
    that it starts from; else None.
    """
    at = next((i for i, word in enumerate(arguments) if word[:1] in ("-", "!", "\\")), len(arguments))
    starts = arguments[:at] or ["."]
    tests: list[tuple[str, str]] = []
    while at < len(arguments):
        negated = arguments[at] in ("!", "\\!", "-not")
        at += negated
        name, following = [*arguments[at : at + 2], "", ""][:2]
        if name == "-print" and at == len(arguments) - 1 and not negated:
            break  # as by default
        valued = name in _TESTS[0]
        if not (name in _TESTS[1] or (valued and at + 1 < len(arguments))):
            return None
        tests.append(("not " * negated + name, following if valued else ""))
        at += 1 + valued
    return Sorted(tuple(sorted(tests)), tuple(starts))


_TELLS_MORE = {"ls": "laA"}  # flags that show more: what the gold shows must not be lost


def tells_less(name: str, gold: list[tuple[str, str]], actual: list[tuple[str, str]]) -> bool:
    """Whether an action's flags show less than the gold's."""
    more, there = _TELLS_MORE.get(name, ""), {flag for flag, _ in actual}
    there |= {"A"} if "a" in there else set()
    return any(flag in more and flag not in there for flag, _ in gold)


def changes_looks(name: str, flag: str) -> bool:
    """Whether this flag of the command `name` changes only how the result looks."""
    known = TABLE.get(name)
    letters, *names = (known.looks if known else "").split(" ") or [""]
    return flag in names or (len(flag) == 1 and flag in letters)
