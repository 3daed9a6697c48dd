"""A shell text as steps: simple commands with what joins them, in the form in which bash.py compares them.

    cd /w && PAGER= python3 -m pytest -q; ls   ->   cd /w | && pytest -q | ; ls

Left out is what changes nothing that matters: variables that only concern the display, `env` and `bash -c`
around a command, empty lines, and Python's buffering; a time limit is kept apart. `python3` and `pip3` are
`python` and `pip`, and `python -m pytest` is `pytest`; another version or another directory's `python` is
another program.
"""

import re
from typing import NamedTuple

from pivotrl_jax.verifiers.compare import shell
from pivotrl_jax.verifiers.compare.shell import Redirect, Word

MAX_SCRIPTS = 3  # levels of bash -c inside bash -c

_ASSIGNMENT = re.compile(r"([A-Za-z_]\w{0,99})\+?=", re.ASCII)
# variables that only concern the display -> the values with which they do; None: any value
_DISPLAY: dict[str, set[str] | None] = {
    **dict.fromkeys(
        "PYTHONUNBUFFERED PYTHONDONTWRITEBYTECODE NO_COLOR PIP_DISABLE_PIP_VERSION_CHECK".split()
    ),
    **{
        name: {"", "cat"} for name in ("PAGER", "GIT_PAGER", "MANPAGER")
    },  # another one is a program that runs
    **{name: {"0"} for name in ("PY_COLORS", "FORCE_COLOR", "CLICOLOR")},
}
_BUILTINS = set(
    "cd pushd popd export unset source . set alias exit exec eval declare local readonly read shift trap "
    "ulimit umask wait jobs fg bg builtin command type let return break continue".split()
)
_BIN = re.compile(r"/(?:usr/(?:local/)?)?bin/([\w.+-]+)")
_SAME = {"python3": "python", "pip3": "pip", "py.test": "pytest", "nodejs": "node", "source": "."}
# an environment has its own of these, so that /usr/bin/python is another one
_OWN = re.compile(r"(?:python|pip|pytest|py\.test|node|npm|ruby|perl)[\d.]*")
_GREPS = {"egrep": Word("-E", "-E", True), "fgrep": Word("-F", "-F", True)}
_MODULES = {"pytest", "pip"}
_NPM = {form: Word(name, name, True) for form, name in (("i", "install"), ("t", "test"))}
_PIP = {
    form: Word(flag, flag, True)
    for form, flag in (("--requirement", "-r"), ("--upgrade", "-U"), ("--editable", "-e"))
}
_EXTRAS = re.compile(r"[\w./-]+\[\w[\w,.-]*\]")
_TIME_LIMIT = re.compile(r"\d{1,6}(?:\.\d{1,3})?[smh]?")
_JOINS = {*"&& || | |& ( ; & ;;".split(), *shell.LEADING} - {"!"}  # a line end after these is none
_BLOCKS = {*shell.CLOSING, "exec", "case"}


class Step(NamedTuple):
    """A simple command. `joined` is what stands before it: "", "&&", "|", "; do", ..."""

    joined: str
    name: str  # of the program; "" where only variables are set
    words: tuple[Word, ...]  # its arguments
    env: tuple[str, ...] = ()  # NAME=value in front
    redirects: tuple[Redirect, ...] = ()
    limit: float | None = None  # of its time, in seconds


class Script(NamedTuple):
    """A whole text."""

    steps: tuple[Step, ...]
    end: str  # what follows the last command: "" or "&", ")"
    wrapped: bool = False  # whether it was the script of `bash -c`

    @property
    def is_list(self) -> bool:
        """Whether it is a mere list of pipelines, so that one sees where each output goes. Without loops,
        conditions, functions, sub-shells and `exec`."""
        return not any("(" in s.joined or ")" in s.joined or s.name in _BLOCKS for s in self.steps)


def program(word: Word) -> str:
    """The program that a word names, without the directories in which programs usually are."""
    if not word.literal or word.form.startswith("quoted "):
        return word.form  # what is expanded, or a quoted `fi`, which ends nothing
    match = _BIN.fullmatch(word.text)
    name = match[1] if match and not _OWN.fullmatch(match[1]) else word.text
    return _SAME.get(name, name)


def _sets(word: Word) -> bool:
    """Whether a word after `env` sets a variable, as it would in front of the command."""
    assigned = _ASSIGNMENT.match(word.form)
    return word.literal and assigned is not None and not assigned[0].endswith("+=")


def _shows(word: Word) -> bool:
    """Whether an assignment only concerns what is displayed."""
    name, _, value = word.form.partition("=")
    return word.literal and name in _DISPLAY and (_DISPLAY[name] is None or value in _DISPLAY[name])


def _seconds(form: str) -> float:
    return float(form.rstrip("smh")) * {"m": 60, "h": 3600}.get(form[-1], 1)


class _Unwrapped(NamedTuple):
    """A command without what stands around it."""

    env: tuple[str, ...]  # NAME=value
    limit: float | None  # seconds
    words: list[Word]  # from its name on


def _unwrapped(words: list[Word]) -> _Unwrapped:
    """The command without `env NAME=value` and `timeout N`, and its variables in alphabetical order.

    A shell's own commands (cd, export) have no program that `env` and `timeout` could start.
    """
    at = next((i for i, word in enumerate(words) if not _ASSIGNMENT.match(word.form)), len(words))
    given, limit = words[:at], None
    own, outer = list(given), at
    while at < len(words) - 1:
        following = words[at + 1]
        if words[at].form == "timeout" and limit is None and _TIME_LIMIT.fullmatch(following.form):
            limit, at = _seconds(following.form), at + 2
        elif words[at].form == "env" and at < len(words) - 2 and _sets(following):
            at += 1
            while at < len(words) - 1 and _sets(words[at]):
                given.append(words[at])
                at += 1
        else:
            break
    if at > outer and (at == len(words) or words[at].form in _BUILTINS or _ASSIGNMENT.match(words[at].form)):
        given, limit, at = own, None, outer
    if at == len(words):
        return _Unwrapped(tuple(word.form for word in given), None, [])
    kept = [word for word in given if not _shows(word)]
    names = {word.form.partition("=")[0] for word in kept}
    in_order = len(names) < len(kept) or not all(word.literal for word in kept)
    forms = [word.form for word in kept]
    return _Unwrapped(tuple(forms if in_order else sorted(forms)), limit or None, words[at:])


def _extras(word: Word) -> Word:
    """A requirement whose extras, as in `.[dev]`, may stand in quotes."""
    bare = _EXTRAS.fullmatch(word.form.replace("\\[", "[").replace("\\]", "]"))
    return Word(bare[0], bare[0], True) if bare else word


def _step(joined: str, words: list[Word], redirects: tuple[Redirect, ...]) -> Step:
    env, limit, rest = _unwrapped(words)
    name, arguments = (program(rest[0]), rest[1:]) if rest else ("", [])
    if name == "python":
        while arguments and arguments[0].form in ("-u", "-B"):
            arguments = arguments[1:]
        if len(arguments) > 1 and arguments[0].form == "-m" and arguments[1].form in _MODULES:
            name, arguments = arguments[1].form, arguments[2:]
    if name in _GREPS and arguments:
        name, arguments = "grep", [_GREPS[name], *arguments]
    if name == "git":
        while arguments and arguments[0].form in ("--no-pager", "--no-color"):
            arguments = arguments[1:]
    if name == "[" and arguments and arguments[-1].form == "]":
        name, arguments = "test", arguments[:-1]
    if name == "npm":
        arguments = _npm(arguments)
    if name == "pip":
        arguments = [_PIP.get(word.form, word) for word in arguments]
        quiet = ("-q", "--quiet", "--disable-pip-version-check")
        # no file is called as .[dev] would match, so that it is the same with and without quotes
        arguments = [_extras(word) for word in arguments if word.form not in quiet]
    return Step(joined, name, tuple(arguments), env, _discarding(shell.in_order(redirects)), limit)


def _npm(arguments: list[Word]) -> list[Word]:
    """The arguments of npm with one name for each sub-command: `run test` and `t` are `test`."""
    forms = [word.form for word in arguments[:2]]
    if forms[:1] in (["run"], ["run-script"]) and forms[1:] in (["test"], ["start"]):
        return arguments[1:]
    return [_NPM.get(word.form, word) for word in arguments[:1]] + arguments[1:]


def _discarding(redirects: tuple[Redirect, ...]) -> tuple[Redirect, ...]:
    """`> /dev/null 2>&1` as `> /dev/null 2> /dev/null`; others as they are."""
    said = [(r.operator, r.target.form) for r in redirects]
    if said == [(">", "/dev/null"), ("2>&", "1")]:
        return redirects[0], Redirect("2>", redirects[0].target)
    return redirects


def _script(step: Step) -> str | None:
    """The script of `bash -c script`."""
    flagged = step.name == "bash" and len(step.words) == 2 and step.words[0].form in ("-c", "-lc")
    return step.words[1].text if flagged and step.words[1].literal else None


# what these change ends with `bash -c`, but not with a command that is typed
_STAYS = ("cd", "pushd", "popd", "export", "unset", "source", ".", "set", "alias", "exit", "exec")


def script(text: str, depth: int = 0) -> Script | None:
    """The steps of a shell text; None if it cannot be followed. Never raises."""
    items = shell.read(text)
    if items is None:
        return None
    steps: list[Step] = []
    joins: list[str] = []
    for item in items:
        if isinstance(item, str):
            ends_line = item in (shell.NEWLINE, shell.NO_ENTER)
            said = joins[-1] in _JOINS if joins else not steps
            if not item.startswith(shell.INDENTED) and not (ends_line and said):
                joins.append(";" if ends_line else item)
            continue
        words = list(item.words)
        while words and words[0].form in shell.LEADING:
            joins.append(words.pop(0).form)
        if words or item.redirects:
            if joins == ["|&"] and steps:
                joins, both = ["|"], Redirect("2>&", Word("1", "1", True))
                steps[-1] = steps[-1]._replace(redirects=(*steps[-1].redirects, both))
            steps.append(_step(" ".join(joins), words, item.redirects))
            joins = []
    end = "" if steps and joins == [";"] else " ".join(joins)
    if len(steps) == 1 and not steps[0].joined and not end and depth < MAX_SCRIPTS:
        step = steps[0]
        inner = _script(step) if not step.env and not step.redirects else None
        found = script(inner, depth + 1) if inner is not None else None
        if found is not None:
            return found._replace(wrapped=True)
    return Script(tuple(steps), end)


def needs_own_shell(found: Script) -> bool:
    """Whether a script may do something else inside `bash -c` than typed: it changes the shell itself, or
    reads variables, which `bash -c` has only if they are exported.
    """
    for step in found.steps:
        if step.name in _STAYS or not step.name or any("$" in form or "`" in form for form in step.env):
            return True
        words = [*step.words, *(r.target for r in step.redirects)]
        if any(not word.literal and ("$" in word.form or "`" in word.form) for word in words):
            return True
    return False
