"""Random shell commands: a command is made as data, so that it can be spelled in several ways or changed."""

import dataclasses
import random
import string

LITERALS = [
    "a",
    "src/a.py",
    "x y",
    "don't",
    '"',
    "$HOME",
    "a*b",
    "#1",
    "a;b",
    "back\\slash",
    "",
    "1",
    "-",
    "ü",
    "`",
]
LITERALS += ["{a,b}", "[x]", "~", "!a", "key=value", "if", "two\nlines", "\ttab", "a$", "|", "&&", "^", "%d"]
EXPANSIONS = [
    '"$x"',
    "$x",
    "'$'\"$x\"",
    '"$(ls "$x" | wc -l)"',
    "$(date)",
    "`pwd`",
    '"${x:-b}"',
    "*.py",
    "$((1+2))",
]
NAMES = ["make", "cat", "rm", "echo", "cp", "mytool", "node", "git", "docker"]
JOINS = [" && ", " || ", "; ", " | ", " & "]
REDIRECTS = [">", ">>", "<", "2>", "2>&"]


@dataclasses.dataclass(frozen=True)
class Part:
    """A simple command: literal words as they reach the program, expansions as they are written."""

    join: str
    name: str
    words: tuple[tuple[str, bool], ...]  # (text, whether it is literal)
    redirect: tuple[str, str] | None = None
    document: tuple[str, bool] | None = None  # (here-document, whether it is expanded)


def a_part(rng: random.Random, join: str) -> Part:
    words = []
    for _ in range(rng.randrange(4)):
        literal = rng.random() < 0.8
        words.append((rng.choice(LITERALS) if literal else rng.choice(EXPANSIONS), literal))
    name = rng.choice(NAMES)
    redirect = (rng.choice(REDIRECTS), "out") if rng.random() < 0.2 else None
    if redirect and redirect[0] == "2>&":
        redirect = ("2>&", "3")
    document = (rng.choice(["x = 1", "", "a\n  b", "$x `y`", "'"]), rng.random() < 0.5)
    return Part(join, name, tuple(words), redirect, document if rng.random() < 0.15 else None)


def a_command(rng: random.Random) -> list[Part]:
    return [a_part(rng, "" if i == 0 else rng.choice(JOINS)) for i in range(rng.choice([1, 1, 2, 3]))]


def quoted(rng: random.Random, text: str) -> str:
    """One of the spellings of a literal word."""
    safe = set(string.ascii_letters + string.digits + "/._%,:-")
    ways = []
    if text and set(text) <= safe and text not in ("if",):
        ways.append(text)
    if "'" not in text:
        ways.append(f"'{text}'")
    if not set("!`") & set(text):
        ways.append('"' + "".join("\\" + c if c in '\\"$`' else c for c in text) + '"')
    if text and "\n" not in text:
        ways.append("".join(c if c in safe else "\\" + c for c in text))
    if "'" not in text and len(text) > 1 and "!" not in text:
        half = len(text) // 2
        ways.append(quoted(rng, text[:half]) + f"'{text[half:]}'")
    return rng.choice(ways)


def spelled(rng: random.Random, parts: list[Part]) -> str:
    """A text of the command; each call may quote and space it otherwise."""
    line, documents = "", ""
    for i, part in enumerate(parts):
        space = rng.choice([" ", "  ", " \\\n "])
        words = [quoted(rng, text) if literal else text for text, literal in part.words]
        pieces = [part.name, *words]
        if part.redirect:
            pieces.append(part.redirect[0] + part.redirect[1])
        if part.document:
            body, expanded = part.document
            delimiter = rng.choice(["EOF", "END"]) + str(i)
            pieces.append(f"<<{delimiter}" if expanded else f"<<'{delimiter}'")
            documents += f"\n{body}\n{delimiter}"
        line += part.join.replace(" ", rng.choice([" ", "  "])) + space.join(pieces)
    if rng.random() < 0.1 and "\n" not in documents:
        line += " # a remark"
    return line + documents


def changed(rng: random.Random, parts: list[Part]) -> list[Part]:
    """The command with one change that means something."""
    parts = list(parts)
    i = rng.randrange(len(parts))
    part = parts[i]
    ways = ["name", "more"]
    ways += ["join"] if i else []
    ways += ["word", "fewer", "kind"] if part.words else []
    ways += ["redirect"] if part.redirect else []
    ways += ["document"] if part.document else []
    way = rng.choice(ways)
    at = rng.randrange(len(part.words)) if part.words else 0
    words = list(part.words)
    if way == "name":
        part = dataclasses.replace(part, name=rng.choice([n for n in NAMES if n != part.name]))
    elif way == "join":
        part = dataclasses.replace(part, join=rng.choice([j for j in JOINS if j != part.join]))
    elif way == "redirect":
        other = rng.choice([r for r in REDIRECTS[:4] if r != part.redirect[0]])
        part = dataclasses.replace(part, redirect=(other, part.redirect[1]))
    elif way == "document":
        part = dataclasses.replace(part, document=(part.document[0] + "7", part.document[1]))
    else:
        if way == "word":
            words[at] = (words[at][0] + "7", True) if words[at][1] else (words[at][0] + "7", False)
        elif way == "fewer":
            del words[at]
        elif way == "more":
            words.insert(at, ("more", True))
        else:  # an expansion as text, or text where something is expanded
            words[at] = (words[at][0], True) if not words[at][1] else ("$y", False)
        part = dataclasses.replace(part, words=tuple(words))
    parts[i] = part
    return parts


HOSTILE = {
    "substitutions": "$(",
    "substitutions of echo": "echo $(",
    "quoted substitutions": '"$(',
    "backticks": "`a ",
    "parentheses": "(",
    "braces": "{ ",
    "open quotes": '"a ',
    "here-documents": "cat <<A\n",
    "here-documents of one line": "cat <<A <<B <<C\n",
    "quoted here-documents": "cat <<'EOF'\nfoo\nEOF\n",
    "cases": "case a in b) ",
    "conditions": "if a; then ",
    "arithmetic": "$((1+",
    "arrays": "a=(",
    "parameters": "${a:-",
    "processes": "<(",
    "loops": "for f in a; do ",
    "pipes": "a | ",
    "lists": "ls -la src | grep foo && cat a.py; ",
    "functions": "f() { ",
    "tests": "[[ a && ",
    "redirections": "> ",
    "backslashes": "\\",
    "delimiters": "<<",
    "dollars": "$",
    "exclamation marks": '"!a',
    "numbers": "1>2",
    "newlines": "\n",
    "flags": "ls -a ",
    "assignments": "A=1 ",
    "limits": "timeout 1 ",
    "control": "\x00\x1b\r",
    "surrogates": "\ud800",
    "messages": "git commit -m a\\ \\ \\ \\ \\ \\ \\ b ",
    "spaces": "\\ ",
    "variables": "env A=1 ",
    "patches": "apply_patch <<'E'\n@@\n+a\nE\n",
}
