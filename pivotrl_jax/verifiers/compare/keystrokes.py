r"""Do two texts typed into a terminal do the same? They do if their normal forms are equal.

    grep  -rn "foo"   src/ |wc -l   ==   grep -n -r foo src/ | wc -l

The normal form does not depend on runs of spaces between words, spaces around operators and at the end of a
line, the quoting of a word that is not expanded, comments, continued lines, the delimiter of a
here-document, and, for commands whose short flags are known to take no value, the order and bundling of
these flags. Everything else counts: the number of lines, indentation, quoted text, here-documents, what is
expanded and where.

Nothing is executed. A text that the reader cannot follow (control characters such as Tab, which completes;
nested substitutions; open quotes) has no normal form and equals only itself.
"""

import re
from collections import Counter
from typing import NamedTuple

from pivotrl_jax.verifiers.compare.shell import CONTROL, DOUBLE, SINGLE

MAX_CHARS = 200_000  # a longer text has no normal form; this one takes half a second


# command -> its short flags without a value, and groups of them of which the last one given decides
_FLAGS = {
    "ls": ("aAbBcCdDfFgGhHiklLmnNopqQrRsStuUvxXZ1", ("aA", "1Cglmnox", "tSUXvcuf")),
    "rm": ("dfiIrRv", ("fiI",)),
    "cp": ("abdfHiLlnPpRrsTuvx", ("fin", "HLP")),
    "mv": ("bfinTuv", ("fin",)),
    "mkdir": ("pv", ()),
    "rmdir": ("pv", ()),
    "cat": ("AbeEnstTuv", ("bn",)),
    "grep": ("EFGPivwxcnHhrRlLoqsabUzZITy", ("EFGP", "Hh", "lLcqo", "rR")),
    "wc": ("clLmw", ()),
    "du": ("abcDhHkLlmPsSx0", ("as", "bhkm", "DHLP")),
    "df": ("ahHiklPT", ("hHk",)),
    "sort": ("bdfghiMnRrVcCmsuz", ("ghMnRV", "cC")),
    "uniq": ("cdiuzD", ("dDu",)),
    "ln": ("bdfFinrsTvLP", ("fi", "LP")),
}

_FLAGS["egrep"] = _FLAGS["fgrep"] = _FLAGS["grep"]

_PIECE = re.compile(
    rf"""(?P<join>\\\n)
    |(?P<space>\ +)
    |(?P<line>\n)
    |(?P<op>(?:<<<|<<-?|>>|<&|>&|<>|>\||&>>|&>|[<>](?!\())|{CONTROL})
    |(?P<escaped>\\[^\n])
    |(?P<single>{SINGLE})
    |(?P<double>{DOUBLE})
    |(?P<active>\$'(?:[^'\\]|\\.)*'|\$\{{\w+\}}|\$\(\([^()'"\\`#\n]*\)\)|\$\([^()'"\\`#\n]*\)|\$\w+|\$[?$!#@*-])
    |(?P<plain>[^\s'"\\<>;&|()$`]+|\$(?![\w('"{{]))
    """,
    re.DOTALL | re.VERBOSE,
)

_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")
_INDENT = re.compile(r" +(?=[^ \n])")
_SPECIAL = re.compile(r"[^\w@%+=:,./-]")
_REDIRECT = re.compile(r"\d*(?:<<<|<<-?|>>|<&|>&|<>|>\||&>>|&>|[<>])")


# tmux reads a command that is the name of a key as that key
KEY = re.compile(
    r"(?:[CMS]-)+(?:.|\w+)|\^.|(?:Enter|Escape|B?Tab|B?Space|Up|Down|Left|Right|Home|End|PageUp|PgUp|PPage"
    r"|PageDown|PgDn|NPage|DC|IC|Delete|Insert|KPEnter|F\d{1,2})",
    re.IGNORECASE,
)

ENTER = ("enter", "kpenter", "c-m", "c-j")


class TypedCommand(NamedTuple):
    """A simple command: flags without a value as a set, other words, and redirections in order."""

    flags: frozenset[str]
    words: tuple[str, ...]
    redirects: tuple[str, ...]


Form = tuple[TypedCommand | str, ...]  # commands, and the operators and line ends between them


def _quoted(text: str) -> str:
    """Literal text, with the characters escaped that the shell would expand or split at."""
    return _SPECIAL.sub(lambda m: "\\" + m[0], text)


def _double(text: str) -> str | None:
    """The text inside double quotes; None if it has a substitution, which may hold quotes itself."""
    if "$(" in text or "`" in text:
        return None
    if "$" in text or "!" in text:
        return f'"{text}"'
    return _quoted(re.sub(r'\\([\\"\n])', lambda m: m[1].strip("\n"), text))


class _Reader:
    """One pass over a text into tokens: words, operators, redirections and line ends."""

    def __init__(self, text: str):
        self.text, self.at = text, 0
        self.tokens: list[tuple[str, str]] = []  # (kind, normal form)
        self.word: list[str] | None = None  # pieces of the word being read
        self.source: list[str] = []  # the same pieces as written
        self.bare = True  # whether the whole word is unquoted
        self.pattern = False  # whether an unquoted piece of it is matched or expanded: *, ?, [a-z], {a,b}
        self.announced: list[tuple[int, str]] = []  # here-documents to come: (index of the token, delimiter)

    def end_word(self) -> None:
        if self.word is not None:
            word = "".join(self.word)
            if self.tokens and self.tokens[-1][0] == "heredoc":  # this word is the delimiter
                op = self.tokens.pop()[1]
                self.tokens += [("redirect", op if self.bare else op + "literal"), ("word", "")]
                self.announced.append((len(self.tokens) - 1, re.sub(r"\\(.)", r"\1", word)))
            elif self.pattern and not self.bare:  # quotes inside a pattern decide what it matches
                self.tokens.append(("word", "quoted " + "".join(self.source)))
            else:
                self.tokens.append(("word", word or "''"))
        self.word, self.bare, self.pattern = None, True, False

    def add(self, piece: str, source: str, bare: bool) -> None:
        if self.word is None:
            self.word, self.source = [], []
        self.source.append(source)
        self.word.append(piece)
        self.bare = self.bare and bare
        self.pattern = self.pattern or (bare and any(c in piece for c in "*?[{"))

    def operator(self, op: str) -> None:
        number = ""
        if self.word is not None and self.bare and op[0] in "<>" and "".join(self.word).isdigit():
            number, self.word = "".join(self.word), None
        self.end_word()
        kind = "heredoc" if op in ("<<", "<<-") else "redirect" if _REDIRECT.fullmatch(op) else "op"
        self.tokens.append((kind, number + op))

    def line_end(self) -> None:
        """The end of a line, and the here-documents that it announced, each up to its delimiter."""
        self.end_word()
        for index, delimiter in self.announced:
            lines, closed = [], False
            while self.at < len(self.text) and not closed:
                end = self.text.find("\n", self.at)
                end = len(self.text) if end < 0 else end
                line, self.at = self.text[self.at : end], end + 1
                closed = line == delimiter
                lines.append(line)
            self.at = min(self.at, len(self.text))
            # without its delimiter the document is still open
            body = "\n".join(lines[:-1]) if closed else "\n".join(lines) + "..."
            self.tokens[index] = ("word", "\n" + body)
        entered = not self.announced or self.text.endswith("\n") or self.at < len(self.text)
        self.announced = []
        self.tokens.append(("op", "\n" if entered else "(no Enter)"))
        self.line_start()

    def line_start(self) -> None:
        indent = _INDENT.match(self.text, self.at)
        if indent:
            # this matters to Python, if not to a shell
            self.tokens.append(("op", f"(indented by {len(indent[0])})"))

    def read(self) -> list[tuple[str, str]] | None:
        self.line_start()
        while self.at < len(self.text):
            if self.word is None and self.text[self.at] == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
                continue
            match = _PIECE.match(self.text, self.at)
            if match is None:
                return None
            self.at = match.end()
            if not self.take(match.lastgroup, match[match.lastgroup], match[0]):
                return None
        self.end_word()
        return None if self.announced or (self.tokens and self.tokens[-1][0] == "heredoc") else self.tokens

    def take(self, kind: str, text: str, source: str) -> bool:
        """Take one piece; False if the reader cannot follow."""
        if kind == "space":
            self.end_word()
        elif kind == "line":
            self.line_end()
        elif kind == "op":
            self.operator(text)
        elif kind == "double":
            inner = _double(text[1:-1])
            self.add(inner or "", source, False)
            return inner is not None
        elif kind in ("single", "escaped"):
            self.add(_quoted(text[1:-1] if kind == "single" else text[1:]), source, False)
        elif kind != "join":
            self.add(text, source, True)
        return True


def _in_order(redirects: list[str]) -> tuple[str, ...]:
    """Redirections in order of their file descriptors, if these differ. With a copy (2>&1) order matters."""
    pairs = list(zip(redirects[::2], redirects[1::2]))
    files = [re.match(r"\d*", op)[0] or ("0" if "<" in op else "1") for op, _ in pairs]
    if len(redirects) % 2 or len(set(files)) < len(files) or any("&" in op for op, _ in pairs):
        return tuple(redirects)
    return tuple(part for _, pair in sorted(zip(files, pairs)) for part in pair)


def _command(words: list[str], redirected: list[str]) -> TypedCommand:
    redirects = _in_order(redirected)
    prefixed = (i for i, word in enumerate(words) if word != "sudo" and not re.match(r"\w+=", word))
    head = next(prefixed, len(words))
    known = _FLAGS.get(words[head]) if head < len(words) else None
    if known is None:
        return TypedCommand(frozenset(), tuple(words), redirects)
    letters, exclusive = known
    flags, rest, value, over = [], words[: head + 1], False, False
    for word in words[head + 1 :]:
        over = over or word == "--"
        if over or value or not re.fullmatch(r"-\w+", word) or not set(word[1:]) <= set(letters):
            # a flag that is not in the table may take the next word as its value
            value = not over and not value and word.startswith("-") and "=" not in word
            rest.append(word)
        else:
            flags += word[1:]
    if any(len(set(flags) & set(group)) > 1 for group in exclusive):
        return TypedCommand(frozenset(), tuple(words), redirects)
    return TypedCommand(frozenset("-" + letter for letter in flags), tuple(rest), redirects)


def normal_form(text: str) -> Form | None:
    """The normal form of a text, or None. Takes linear time and never raises."""
    if len(text) > MAX_CHARS or _CONTROL.search(text):
        return None
    tokens = _Reader(text).read()
    if tokens is None:
        return None
    form: list[TypedCommand | str] = []
    words: list[str] = []
    redirects: list[str] = []
    expects = False  # whether a redirection's target comes next
    for kind, token in [*tokens, ("op", "")]:
        if kind == "op":
            if words or redirects:
                form.append(_command(words, redirects))
            words, redirects = [], []
            form += [token] if token else []
            expects = False
        elif kind == "redirect":
            redirects.append(token)
            expects = True
        else:
            (redirects if expects else words).append(token)
            expects = False
    return tuple(form)


def same(gold: str, actual: str) -> bool:
    """Whether the two texts do the same when typed."""
    if gold == actual:
        return True
    form = normal_form(gold)
    return form is not None and form == normal_form(actual)


def _words(form: Form) -> Counter[str]:
    words: Counter[str] = Counter()
    for item in form:
        if isinstance(item, TypedCommand):
            words.update([*item.flags, *item.words, *item.redirects])
    return words


def _is_decisive(word: str) -> bool:
    """Whether a change of this word changes the effect: numbers, flags, quoted text, here-documents."""
    return bool(re.search(r"\d|^[-+<>&\n]|\\|\n|[\"']", word))


def contradiction(gold: str, actual: str) -> str:
    """Why two texts with different normal forms cannot do the same; "" if they may.

    They may with another tool for the same end, or another way to write a path. With the same commands in the
    same order, another number, flag, quoted text, here-document or file name is another action.
    """
    forms = normal_form(gold), normal_form(actual)
    if None in forms:
        numbers = [sorted(re.findall(r"\d+", text)) for text in (gold, actual)]
        return "other numbers" if numbers[0] != numbers[1] else ""
    heads = [[item.words[:1] if isinstance(item, TypedCommand) else item for item in form] for form in forms]
    if heads[0] != heads[1]:
        return ""
    want, got = _words(forms[0]), _words(forms[1])
    missing, surplus = want - got, got - want
    decisive = sorted(word for word in missing + surplus if _is_decisive(word))
    if decisive:
        return f"differs in {decisive[0]!r}"
    names = [{word.rstrip("/").rpartition("/")[2] for word in words} for words in (missing, surplus)]
    return "" if names[0] == names[1] else f"differs in {min(names[0] ^ names[1])!r}"


# ---- Terminus: what a list of commands types


def typed(strokes: list[str]) -> list[str]:
    """Texts (even indices) and the special keys between them (odd indices): "a", "C-c", "b\\n".

    The terminal cannot tell where one command of the list ends and the next begins, so they are joined.
    """
    stream: list[str] = []
    pieces: list[str] = []
    for stroke in strokes:
        if len(stroke) < 20 and KEY.fullmatch(stroke) and stroke.lower() not in ENTER:
            stream += ["".join(pieces), stroke]
            pieces = []
        else:
            pieces.append("\n" if len(stroke) < 20 and stroke.lower() in ENTER else stroke)
    return [*stream, "".join(pieces)]
