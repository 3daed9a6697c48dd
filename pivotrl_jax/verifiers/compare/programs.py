"""Is what is typed into a terminal read by a shell, or by a program that runs there?

In an editor, in an interpreter or after `cat > file`, spaces, quotes and `#` are text like any other, so that
nothing of the shell's rules may be forgiven. The screen before the step tells whether a program runs, and so
does a line that starts one. In doubt a shell reads: what it does not know as a program is a command.
"""

import re

from pivotrl_jax.records import Message

MAX_LINE = 1000  # characters of a line that are read

_TAKE_THE_SCREEN = set(
    "vim vi nvim view nano pico emacs ed ex less more man top htop gdb lldb ipython bpython telnet ftp sftp "
    "visudo passwd ghci jshell".split()
)
_WITHOUT_A_FILE = set(  # programs that read what is typed unless they are given a file or a text
    "python python2 python3 node irb R julia lua bc dc ocaml scala php mongo mongosh redis-cli cat".split()
)
_SERVED = {"psql", "mysql", "mariadb"}  # these name a data base first
_ALL = "|".join(sorted({*_TAKE_THE_SCREEN, *_WITHOUT_A_FILE, *_SERVED}))
_NAMED = re.compile(rf"(?<![\w-])(?:{_ALL}|sqlite3|tee|git|crontab|python[23]\.\d+)(?![\w-])")
_RUNS_A_TEXT = re.compile(
    r"-(?:[a-zA-Z]*[cefmpVhvl]|-(?:command|execute|eval|file|version|help|list))(?:=.*)?"
)
_EDITS = re.compile(r"(?:rebase\b.* (?:-i|--interactive)|add\b.* (?:-[pie]|--patch|--interactive)|commit\b)")
_WRITTEN = re.compile(r" (?:-[a-zA-Z]*[mFC]|--(?:message|file|no-edit|reuse-message))\b")
_REDIRECTED = re.compile(r"\d?>>?[ \t]*[^\s>]+")

# the last line of a screen: what a program waits with, and lines that it may go on
_PROMPT = re.compile(
    r"(?:>>>|In ?\[\d+\]:|\((?:gdb|lldb|Pdb\+*)\)|\w+[=(-][#>]|irb\([^\n]*>|(?:mysql|sqlite|ftp|sftp|ipdb)>"
    r"|MariaDB \[[^\]\n]*\]>)(?: .*)?|\.\.\.:?|[A-Za-z]*>|:|\(END\)|--More--.*|(?:\[sudo\] p|P|p)assword.*:"
)
# the last lines of an editor
_EDITOR = re.compile(
    r"-- (?:INSERT|REPLACE|VISUAL[A-Z ]*) --|\^X Exit|\d+,\d+(?:-\d+)? +(?:All|Top|Bot|\d+%)$", re.MULTILINE
)


def runs_there(messages: list[Message]) -> bool:
    """Whether the screen that the last message shows is that of a program."""
    said = next((m.get("content") for m in reversed(messages) if m.get("role") in ("user", "tool")), None)
    lines = [line.rstrip() for line in said[-4000:].split("\n")] if isinstance(said, str) else []
    last = [line for line in lines if line][-3:]
    return bool(last) and bool(_PROMPT.fullmatch(last[-1][:MAX_LINE]) or _EDITOR.search("\n".join(last)))


def _starts(line: str) -> bool:
    """Whether the last command of a line is a program that reads what is typed next."""
    command = _REDIRECTED.sub(" ", re.split(r"&&|\|\||;", line[:MAX_LINE])[-1])
    words = command.split()
    while words and (words[0] in ("sudo", "time", "exec", "command") or re.match(r"\w+=", words[0])):
        words.pop(0)
    if not words or re.search(r"[|<&()`]", command):
        return False
    name, flags = words[0].rpartition("/")[2], [word for word in words[1:] if word[0] == "-" and word != "-"]
    given = [word for word in words[1:] if word not in flags and word != "-"]
    name = re.sub(r"(?<=python)[23](?:\.\d+)?$", "", name)
    if name in _TAKE_THE_SCREEN or (name == "tee" and given) or command.split() == ["crontab", "-e"]:
        return "--version" not in flags and "--help" not in flags
    if name == "git":
        asks = _EDITS.match(" ".join(words[1:]))
        return bool(asks) and not (words[1] == "commit" and _WRITTEN.search(command))
    if name == "python" and "-i" in flags:
        return True
    if name == "cat":
        return not given
    quiet = not any(map(_RUNS_A_TEXT.fullmatch, flags if name != "bc" else []))
    if name in _WITHOUT_A_FILE:
        return quiet and not given
    return quiet and (name in _SERVED or (name == "sqlite3" and len(given) < 2))


def program_from(text: str) -> int | None:
    """The index from which on a program reads what is typed; None if a shell reads all of it."""
    end = 0
    while (named := _NAMED.search(text, end)) and (end := text.find("\n", named.end())) >= 0:
        if _starts(text[text.rfind("\n", 0, named.start()) + 1 : end]):
            return end + 1
    return None
