"""Shell text -> simple commands, so that two texts can be compared by what they run. Nothing is executed.

    cd /w && FOO=1 sudo python3 -m pytest -q | tail -3   ->   cd /w; pytest -q; tail -3

`bashlex` parses what it can. Where it gives up (`case`, `[[`, arithmetic), and for loops, whose word lists
its commands do not hold, a tokenizer splits the text at operators. Both are bounded in size, and neither
raises.

keystrokes.py reads shell text for another question, whether two texts type the same: layout counts there,
and what cannot be followed equals only itself, whereas here layout is ignored and every text must be read
somehow. The quotes and operators that both know are defined here.
"""

import functools
import itertools
import re
from typing import NamedTuple

import bashlex

MAX_PARSED = 2000  # characters; bashlex takes about 0.1 s for them
MAX_CHARS = 100_000  # a longer text is read as one command, named by its first word
MAX_HEREDOCS = 20
MAX_SCRIPTS = 3  # levels of bash -c inside bash -c


# what bashlex raises, on an empty text, `case`, arithmetic or deep nesting
_BASHLEX = (
    bashlex.errors.ParsingError,  # and its tokenizer's MatchedPairError
    NotImplementedError,
    AssertionError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    RuntimeError,  # and with it RecursionError
    SyntaxError,
    StopIteration,
)


class Command(NamedTuple):
    """A simple command."""

    head: str  # its name, without directory and version: "python"; "" where only variables are set
    words: tuple[str, ...]  # its arguments without quotes
    env: tuple[str, ...] = ()  # NAME=value in front
    redirects: tuple[tuple[str, str], ...] = ()  # (operator, target)
    heredoc: str = ""  # the text of its here-documents
    operator: str = ""  # in front of it: "&&", "||", "|", ";", "&"


# ---- here-documents: bashlex cannot read those with a quoted delimiter

_HEREDOC = re.compile(r"(?<!<)<<-?[ \t]*(?:'([\w.-]+)'|\"([\w.-]+)\"|\\?([\w.-]+))")
_MARK = "@heredoc"


def _cut_heredocs(text: str) -> tuple[str, list[str]]:
    """The text with its here-documents replaced by `<@heredoc0`, and their contents."""
    if "<<" not in text:
        return text, []
    lines, rest, bodies = text.split("\n"), [], []
    at = tried = 0
    while at < len(lines):
        line, at = lines[at], at + 1
        for match in itertools.islice(_HEREDOC.finditer(line), MAX_HEREDOCS - tried):
            tried += 1
            delimiter = next(group for group in match.groups() if group)
            end = next((i for i in range(at, len(lines)) if lines[i].strip("\t") == delimiter), None)
            if end is None:  # perhaps not a here-document: 1 << 2
                break
            line = line.replace(match[0], f"<{_MARK}{len(bodies)}", 1)
            bodies.append("\n".join(lines[at:end]))
            at = end + 1
        rest.append(line)
    return "\n".join(rest), bodies


# ---- bashlex, or else a tokenizer: text -> [(operator, words, redirects)]

Raw = tuple[str, list[str], list[tuple[str, str]]]


def _walk(node, operator: str, out: list[Raw]) -> None:
    """The simple commands of a bashlex tree, in order. Raises ValueError for loops and the like."""
    if node.kind == "command":
        words, redirects = [], []
        for part in node.parts:
            if part.kind == "redirect":
                source = "" if part.input is None else part.input  # the 2 of 2>
                redirects.append((f"{source}{part.type}", getattr(part.output, "word", part.output)))
            else:
                words.append(part.word)
        out.append((operator, words, [(op, str(target)) for op, target in redirects]))
        return
    parts = getattr(node, "list" if node.kind == "compound" else "parts", [])
    if node.kind not in ("list", "pipeline", "compound") or any(getattr(p, "word", "") == "!" for p in parts):
        raise ValueError(f"{node.kind}: not a list of simple commands")
    for part in parts:
        if part.kind == "operator":
            operator = part.op
        elif part.kind == "pipe":
            operator = "|"
        elif part.kind != "reservedword":
            _walk(part, operator, out)
            operator = ";"


def _parse(text: str) -> list[Raw] | None:
    """The commands by bashlex; None where it gives up."""
    out: list[Raw] = []
    try:
        for tree in bashlex.parse(text):
            _walk(tree, ";" if out else "", out)
    except _BASHLEX:
        return None
    return out


CONTROL = r"&&|\|\||\|&|;;|[;&|()]"  # operators between commands
SINGLE = r"'[^']*'"
DOUBLE = r'"(?:\\.|[^"\\])*"'  # for re.DOTALL

_TOKEN = re.compile(
    rf"""(?P<space>(?:[ \t\r]|\\\n)+)
    |(?P<comment>(?<!\S)\#[^\n]*)
    |(?P<redirect>&>>?|(?:(?<!\S)\d+)?[<>](?!\()[<>&|]*)
    |(?P<op>\n|{CONTROL})
    |(?P<quoted>{SINGLE}|{DOUBLE})
    |(?P<active>\$\(\([^()]*\)\)|\$\([^()'"\\`]*\)|`[^`]*`)
    |(?P<escaped>\\.)
    |(?P<plain>[^\s'"\\;&|()<>`$]+|.)
    """,
    re.DOTALL | re.VERBOSE,
)

_RESERVED = {"do", "then", "{", "time"}  # a command follows
_CONDITIONS = {"if", "elif", "else", "while", "until", "!"}  # likewise, and these are listed as commands too
_ENDS = {"done", "fi", "esac", "}"}


def _unquoted(kind: str, text: str) -> str:
    if kind == "quoted":
        return text[1:-1] if text[0] == "'" else re.sub(r'\\([\\"$`\n])', r"\1", text[1:-1])
    return text[1:] if kind == "escaped" else text


def _tokenize(text: str) -> list[Raw]:
    """The commands as operators, spaces and quotes divide them."""
    out: list[Raw] = []
    operator, words, redirects = "", [], []
    word: list[str] | None = None
    pending = ""  # a redirection whose target comes next
    for match in [*_TOKEN.finditer(text), None]:
        kind = match.lastgroup if match else "op"
        if kind in ("quoted", "active", "escaped", "plain"):
            word = [*(word or [])] if word is None else word
            word.append(_unquoted(kind, match[0]))
            continue
        if word is not None:
            joined, word = "".join(word), None
            if pending:
                redirects.append((pending, joined))
                pending = ""
            elif not words and joined in _CONDITIONS:
                out.append((operator, [joined], []))
                operator = ""
            elif words or joined not in _RESERVED:
                words.append(joined)
        if kind == "redirect":
            pending = match[0]
        elif kind == "op":
            if (words and words != ["done"] and words[0] not in _ENDS) or redirects:
                out.append((operator, words, redirects))
            found = match[0] if match else ""
            operator = ";" if found in ("\n", "(", ")", ";;") else found
            words, redirects, pending = [], [], ""
    if out:
        out[0] = ("", *out[0][1:])
    return out


# ---- names of commands

_ASSIGNMENT = re.compile(r"[A-Za-z_]\w{0,99}\+?=", re.ASCII)


# wrapper -> its options that take a value, and the number of words before the wrapped command
_WRAPPERS = {
    "sudo": (("-u", "-g", "-C", "-h", "-p", "-U"), 0),
    "env": (("-u", "-C", "-S"), 0),
    "timeout": (("-s", "-k"), 1),
    "nice": (("-n",), 0),
    "stdbuf": (("-i", "-o", "-e"), 0),
    "time": (("-f", "-o"), 0),
    "nohup": ((), 0),
    "command": ((), 0),
    "exec": ((), 0),
    "builtin": ((), 0),
}

_VERSION = re.compile(r"(python|pip|node|ruby|perl)[\d.]{1,9}")
_SAME = {"py.test": "pytest", "nodejs": "node", "egrep": "grep", "fgrep": "grep"}
_MODULES = {"pytest", "pip", "unittest"}
SHELLS = {"bash", "sh", "zsh", "dash"}


def program(word: str) -> str:
    """The program that a word names, without directory and version."""
    name = word.rstrip("/").rsplit("/", 1)[-1]
    version = _VERSION.fullmatch(name)
    return version[1] if version else _SAME.get(name, name)


def _unwrapped(words: list[str]) -> tuple[list[str], list[str]]:
    """(NAME=value before the command, the words from its name on), without wrappers such as sudo."""
    env, at, options, skip = [], 0, None, 0
    while at < len(words):
        word = words[at]
        if _ASSIGNMENT.match(word):
            env.append(word)
        elif options is not None and word.startswith("-"):
            at += word in options
        elif skip:
            skip -= 1
        elif word in _WRAPPERS and at + 1 < len(words):
            options, skip = _WRAPPERS[word]
        else:
            break
        at += 1
    return env, words[at:]


def _read(text: str, depth: int) -> tuple[Command, ...]:
    if len(text) > MAX_CHARS:
        first = text[:MAX_PARSED].split(maxsplit=1)
        return (Command(program(first[0]) if first else "", (text,)),)
    cut, bodies = _cut_heredocs(text)
    raw = _parse(cut) if len(cut) <= MAX_PARSED else None
    found: list[Command] = []
    for operator, words, redirects in _tokenize(cut) if raw is None else raw:
        env, rest = _unwrapped(words)
        head = program(rest[0]) if rest else ""
        arguments = rest[1:]
        if head == "python" and arguments[:1] == ["-m"] and set(arguments[1:2]) & _MODULES:
            head, arguments = arguments[1], arguments[2:]
        script = _script(head, arguments)
        if script is not None and depth < MAX_SCRIPTS:
            inner = list(_read(script, depth + 1))
            found += [c._replace(operator=operator) if i == 0 else c for i, c in enumerate(inner)]
            continue
        marks = [target for _, target in redirects if target.startswith(_MARK)]
        numbers = [int(n) for m in marks if (n := m[len(_MARK) :]).isdigit() and len(n) < 3]
        heredoc = "\n".join(bodies[n] for n in numbers if n < len(bodies))
        files = tuple((op, target) for op, target in redirects if not target.startswith(_MARK))
        found.append(Command(head, tuple(arguments), tuple(env), files, heredoc, operator))
    return tuple(found)


def _script(head: str, arguments: list[str]) -> str | None:
    """The script of `bash -c script`."""
    short = len(arguments) == 2 and arguments[0] in ("-c", "-lc", "-ic", "-lic")
    return arguments[1] if head in SHELLS and short else None


_read_cached = functools.lru_cache(maxsize=256)(_read)  # the gold's command is read again for every rollout


def commands(text: str) -> tuple[Command, ...]:
    """The simple commands of a shell text, in order. Never raises."""
    return _read_cached(text, 0) if len(text) <= MAX_PARSED else _read(text, 0)


def heads(text: str) -> tuple[str, ...]:
    """The names of the commands, without a `cd` before another command."""
    found = commands(text)
    names = [c.head for i, c in enumerate(found) if c.head and (c.head != "cd" or i == len(found) - 1)]
    return tuple(names)
