"""A shell text as steps: simple commands with what joins them, in the form in which bash.py compares them.

    cd /w && PAGER= timeout 60 python3 -m pytest -q; ls   ->   cd /w | && pytest -q | ; ls

Left out is what changes nothing that matters: a time limit, variables that only concern the display, `env`
and `bash -c` around a command, empty lines, and Python's buffering. `python3` and `pip3` are `python` and
`pip`, and `python -m pytest` is `pytest`; another version or another directory's `python` is another
program.
"""

import re
from typing import NamedTuple

from pivotrl_jax.verifiers.compare import shell
from pivotrl_jax.verifiers.compare.shell import Redirect, Word

MAX_SCRIPTS = 3  # levels of bash -c inside bash -c

_ASSIGNMENT = re.compile(r"([A-Za-z_]\w{0,99})\+?=", re.ASCII)
_DISPLAY = {"PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PAGER", "GIT_PAGER", "MANPAGER", "NO_COLOR"}
_DISPLAY |= {"PY_COLORS", "FORCE_COLOR", "CLICOLOR", "PIP_DISABLE_PIP_VERSION_CHECK"}
_BIN = re.compile(r"/(?:usr/(?:local/)?)?bin/([\w.+-]+)")
_SAME = {"python3": "python", "pip3": "pip", "py.test": "pytest", "nodejs": "node"}
_GREPS = {"egrep": Word("-E", "-E", True), "fgrep": Word("-F", "-F", True)}
_MODULES = {"pytest", "pip"}
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


class Script(NamedTuple):
    """A whole text."""

    steps: tuple[Step, ...]
    end: str  # what follows the last command: "" or "&", ")"

    @property
    def is_list(self) -> bool:
        """Whether it is a mere list of pipelines, so that one sees where each output goes. Without loops,
        conditions, functions, sub-shells and `exec`."""
        return not any("(" in s.joined or ")" in s.joined or s.name in _BLOCKS for s in self.steps)


def program(word: Word) -> str:
    """The program that a word names, without the directories in which programs usually are."""
    if not word.literal:
        return word.form
    match = _BIN.fullmatch(word.text)
    name = match[1] if match else word.text
    return _SAME.get(name, name)


def _unwrapped(words: list[Word]) -> tuple[list[str], list[Word]]:
    """(NAME=value before the command, the words from its name on), without `env` and `timeout`."""
    env: list[str] = []
    at = 0
    while at < len(words):
        form, following = words[at].form, len(words) - at - 1
        assigned = _ASSIGNMENT.match(form)
        if assigned:
            env += [] if assigned[1] in _DISPLAY and words[at].literal else [form]
        elif form == "env" and following and _ASSIGNMENT.match(words[at + 1].form):
            pass
        elif form == "timeout" and following > 1 and _TIME_LIMIT.fullmatch(words[at + 1].form):
            at += 1
        else:
            break
        at += 1
    return env, words[at:]


def _step(joined: str, words: list[Word], redirects: tuple[Redirect, ...]) -> Step:
    env, rest = _unwrapped(words)
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
    if name == "pip":
        quiet = ("-q", "--quiet", "--disable-pip-version-check")
        arguments = [word for word in arguments if word.form not in quiet]
    return Step(joined, name, tuple(arguments), tuple(env), shell.in_order(redirects))


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
            steps.append(_step(" ".join(joins), words, item.redirects))
            joins = []
    end = "" if steps and joins == [";"] else " ".join(joins)
    if len(steps) == 1 and not steps[0].joined and not end and depth < MAX_SCRIPTS:
        step = steps[0]
        inner = _script(step) if not step.env and not step.redirects else None
        found = script(inner, depth + 1) if inner is not None else None
        if found is not None and not any(s.name in _STAYS or (not s.name and s.env) for s in found.steps):
            return found
    return Script(tuple(steps), end)
