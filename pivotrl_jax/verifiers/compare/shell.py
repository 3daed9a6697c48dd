r"""Shell text -> simple commands, so that two texts can be compared by what they run. Nothing is executed.

    cat 'a b' "$x" >out && ls   ->   Command(cat, a\ b, "${x}"; > out), "&&", Command(ls)

Both shell comparisons read with it: bash.py (commands of coding agents) and keystrokes.py (text typed into a
terminal). A word has a normal form: words of equal form mean the same to a shell, however they are quoted.
What is expanded, and whether inside quotes, stays visible in the form.

The reader is strict: it reads every character or answers None ("cannot be followed"), and then a text
equals only itself. That happens for open quotes, `((`, arrays, nested `${...}`, and anything whose end is in
doubt. It takes linear time and never raises.

Why not a grammar for editors, such as tree-sitter-bash: such grammars are made to forgive. They read
`a\<newline>b` as two words and drop spaces inside quotes, which here would be wrong rewards.
"""

import functools
import re
from typing import NamedTuple

MAX_CHARS = 200_000  # a longer text is not read; this one takes half a second
MAX_DEPTH = 16  # levels of $( ) in each other
NEWLINE = "\n"
NO_ENTER = "(no Enter)"  # the text ends with a here-document's delimiter, without a newline
INDENTED = "(indented by "


class Word(NamedTuple):
    """A word of a command."""

    form: str  # equal forms mean the same
    text: str  # what a program receives, if the word is literal; else the form
    literal: bool  # nothing in it is expanded or matched against files


class Redirect(NamedTuple):
    """A redirection. Of a here-document the target is its content."""

    operator: str  # with its file descriptor: "2>"
    target: Word


class Command(NamedTuple):
    """A simple command."""

    words: tuple[Word, ...]
    redirects: tuple[Redirect, ...] = ()


Item = Command | str  # a command, or what stands between commands: operators, NEWLINE, NO_ENTER, INDENTED

_PIECE = re.compile(
    r"""(?P<join>\\\n)
    |(?P<space>[ \t]+)
    |(?P<line>\n)
    |(?P<redirect><<<|<<-?|>>|<&|>&|<>|>\||&>>|&>|[<>](?!\())
    |(?P<op>&&|\|\||\|&|;;&|;;|;&|[;&|()])
    |(?P<escaped>\\[^\n])
    |(?P<single>'[^']*')
    |(?P<double>")
    |(?P<active>[$`]|[<>]\()
    |(?P<plain>[^ \t\n'"\\<>;&|()$`]+)
    """,
    re.DOTALL | re.VERBOSE,
)

_PARAMETER = re.compile(r"\$(?:([A-Za-z_]\w*|\d)|\{(\w+)\}|[?$!#@*-]|\{[^'\"\\`{}$()\n]*\})", re.ASCII)
_BACKTICKS = re.compile(r"`(?:[^`\\]|\\.)*`", re.DOTALL)
_ANSI = re.compile(r"\$'(?:[^'\\]|\\.)*'", re.DOTALL)
_ARITHMETIC = re.compile(r"[^()'\"\\`\n]+|[()]")
_INSIDE = re.compile(r"[^\"\\$`!]+|\\.|.", re.DOTALL)  # of double quotes
_HISTORY = re.compile(r"!(?![ \t\n=(\"]|$)")  # what an interactive shell replaces, also in double quotes
_SPECIAL = re.compile(r"[^\w@%+=:,./-]")
_PLAIN = re.compile(r"[^\w@%+=:,./*?\[\]{}~!-]")  # unquoted characters that mean themselves
_NAME = re.compile(r"[A-Za-z_]\w*\+?=", re.ASCII)
_INDENT = re.compile(r" +(?=[^ \n])")
_BODY_EXPANDS = re.compile(r"[$`\\]")

LEADING = {"do", "then", "else", "elif", "if", "while", "until", "!", "{"}  # a command may follow
CLOSING = {"done", "fi", "esac", "}"}
RESERVED = LEADING | CLOSING | {"case", "for", "in", "function", "select", "time", "[[", "]]"}
LISTING = {"case", "for", "select"}  # `in` follows their first word

DOLLAR = "\\$"  # the form of a $ that expands nothing
NOTHING = "''"  # the form of empty quotes beside an expansion


class _Unreadable(Exception):
    """The text cannot be followed."""


def _quoted(text: str) -> str:
    """The form of literal text: what the shell would expand or split at is escaped."""
    return _SPECIAL.sub(lambda m: "\\" + m[0], text)


def _is_case(item: Item) -> bool:
    names = [word.form for word in item.words] if isinstance(item, Command) else []
    return next((name for name in names if name not in LEADING), "") == "case"


class _Reader:
    """One pass over a text, or over a substitution in it, up to its `)`."""

    def __init__(self, text: str, at: int = 0, depth: int = 0):
        if depth > MAX_DEPTH:
            raise _Unreadable
        self.text, self.at, self.depth = text, at, depth
        self.items: list[Item] = []
        self.words: list[Word] = []
        self.redirects: list[Redirect] = []
        self.named = False  # whether the command's name was read
        self.pending = ""  # a redirection whose target comes next
        # here-documents of this command and of this line: (index in redirects, operator, delimiter, quoted)
        self.announced: list[tuple[int, str, str, bool]] = []
        self.documents: list[tuple[int, tuple[int, str, str, bool]]] = []  # with the command's index in items
        self.open = 0  # parentheses
        self.start_word()

    # ---- words

    def start_word(self) -> None:
        self.began = -1  # where the word being read begins in the text; -1 outside a word
        self.forms: list[str] = []
        self.texts: list[str] = []
        self.bare = self.literal = True
        self.globs = self.brackets = self.tilde = False  # an unquoted *, ?; [, {; ~ at the beginning

    def add(self, start: int, form: str, text: str, bare: bool = False, literal: bool = True) -> None:
        if self.began < 0:
            self.began, self.tilde = start, bare and form.startswith("~")
        elif bare and form.startswith("~") and not {*self.forms} - {"", NOTHING}:
            form = "\\" + form  # ""~ is no home directory
        self.forms.append(form)
        self.texts.append(text)
        self.bare, self.literal = self.bare and bare, self.literal and literal
        if bare:
            self.globs = self.globs or "*" in form or "?" in form
            self.brackets = self.brackets or "[" in form or "{" in form or self.tilde

    def end_word(self, end: int) -> None:
        if self.began < 0:
            return
        # quotes around nothing make a word of $x, also where x is empty
        form = "".join(f for f in self.forms if f != NOTHING or not self.literal)
        source = self.text[self.began : end]
        # quotes in [a'-'z] or {a','b} decide what is meant, and a quoted NAME= or `if` is no longer one
        name = _NAME.match(form)
        disguised = form in RESERVED or (name and not source.startswith(name[0]))
        begins = not self.named or (form == "in" and any(w.form in LISTING for w in self.words))
        hidden = not self.bare and (self.brackets or (disguised and begins))
        pattern = bool(self.words) and self.words[0].form == "[[" and not self.bare
        if hidden or pattern:
            form = "quoted " + source
        literal = self.literal and not (self.globs or self.brackets)
        word = Word(form or "''", "".join(self.texts) if literal else form, literal)
        bare = self.bare
        self.start_word()
        if self.pending in ("<<", "<<-"):
            if not literal:
                raise _Unreadable
            self.announced.append((len(self.redirects), self.pending, word.text, not bare))
            self.redirects.append(Redirect("<<", word))  # its content follows at the end of the line
        elif self.pending:
            self.redirects.append(Redirect(self.pending, word))
        else:
            self.words.append(word)
            self.named = self.named or not (_NAME.match(form) or form in LEADING)
        self.pending = ""

    # ---- commands

    def end_command(self) -> None:
        if self.pending:
            raise _Unreadable
        if self.words or self.redirects:
            self.documents += [(len(self.items), document) for document in self.announced]
            self.items.append(Command(tuple(self.words), tuple(self.redirects)))
        self.words, self.redirects, self.announced, self.named = [], [], [], False

    def redirect(self, start: int, operator: str) -> None:
        number = ""
        before = "".join(self.texts)
        if self.bare and before.isdecimal() and before.isascii() and operator[0] in "<>":
            number = before
            self.start_word()
        self.end_word(start)
        if self.pending or (number and operator in ("<<", "<<-")):
            raise _Unreadable
        self.pending = ("" if number == ("0" if operator[0] == "<" else "1") else number) + operator

    def line_end(self, start: int) -> None:
        """The end of a line, and the here-documents that it announced, each up to its delimiter."""
        self.end_word(start)
        self.end_command()
        documents, self.documents = self.documents, []
        for index, (number, operator, delimiter, quoted) in documents:
            body, closed = self.document(delimiter, operator == "<<-")
            literal = quoted or not _BODY_EXPANDS.search(body)
            mark = ("=" if literal else "$") if closed else "..."  # without its delimiter it is still open
            command = self.items[index]
            redirects = list(command.redirects)
            redirects[number] = Redirect("<<", Word(f"\n{mark}{body}", body, literal))
            self.items[index] = command._replace(redirects=tuple(redirects))
        entered = not documents or self.at < len(self.text) or self.text.endswith("\n")
        self.items.append(NEWLINE if entered else NO_ENTER)
        self.line_start()

    def document(self, delimiter: str, tabs: bool) -> tuple[str, bool]:
        """(the here-document that begins here, whether its delimiter was found)."""
        lines = []
        while self.at < len(self.text):
            end = self.text.find("\n", self.at)
            end = len(self.text) if end < 0 else end
            line, self.at = self.text[self.at : end], min(end + 1, len(self.text))
            line = line.lstrip("\t") if tabs else line
            if line == delimiter:
                return "\n".join(lines), True
            lines.append(line)
        return "\n".join(lines), False

    def line_start(self) -> None:
        indent = _INDENT.match(self.text, self.at)
        if indent:
            # this matters to Python, if not to a shell
            self.items.append(f"{INDENTED}{len(indent[0])})")

    # ---- the text

    def read(self) -> list[Item]:
        """All items; of a substitution up to its `)`, where `at` then is. Raises _Unreadable."""
        if not self.depth:
            self.line_start()
        while self.at < len(self.text):
            if self.began < 0 and self.text[self.at] == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
                continue
            match = _PIECE.match(self.text, self.at)
            if match is None:
                raise _Unreadable
            if match[0] == ")" and self.depth and not self.open:
                break
            self.at = match.end()
            self.take(match.lastgroup, match[0], match.start())
        else:
            if self.depth:
                raise _Unreadable
        self.end_word(self.at)
        self.end_command()
        if self.documents:
            raise _Unreadable
        return self.items

    def take(self, kind: str, text: str, start: int) -> None:
        if kind == "space":
            self.end_word(start)
        elif kind == "line":
            self.line_end(start)
        elif kind == "redirect":
            self.redirect(start, text)
        elif kind == "op":
            self.operator(start, text)
        elif kind == "double":
            self.double(start)
        elif kind == "active":
            form = self.expansion(start, quoted=False)
            self.add(start, form, "$", literal=form == DOLLAR)
        elif kind == "plain":
            self.add(start, _PLAIN.sub(lambda m: "\\" + m[0], text), text, bare=True)
        elif kind != "join":
            inner = text[1:-1] if kind == "single" else text[1:]
            self.add(start, _quoted(inner) or NOTHING, inner)

    def operator(self, start: int, operator: str) -> None:
        if operator == "(":
            doubled = self.text[start + 1 : start + 2] == "("
            function = self.text[start + 1 : start + 2] == ")" and not self.words
            if (self.began >= 0 and not function) or doubled:
                raise _Unreadable  # an array, an extended pattern, arithmetic
            self.open += 1
        self.end_word(start)
        if operator == ")":
            self.open -= self.open > 0
        self.end_command()
        self.items.append(operator)

    def double(self, start: int) -> None:
        """The inside of double quotes, from after the first one."""
        self.add(start, "", "")  # "" is a word, too
        inside = len(self.forms)
        while True:
            match = _INSIDE.match(self.text, self.at)
            if match is None:
                raise _Unreadable
            piece, at = match[0], self.at
            self.at = match.end()
            if piece == '"':
                if len(self.forms) == inside:
                    self.forms[-1] = NOTHING
                return
            if piece[0] == "\\" and len(piece) == 2:
                kept = piece[1:] if piece[1] in '\\"$`' else "" if piece[1] == "\n" else piece
                self.add(at, _quoted(kept), kept)
            elif piece in ("$", "`"):
                form = self.expansion(at, quoted=True)
                self.add(at, form if form == DOLLAR else f'"{form}"', "$", literal=form == DOLLAR)
            elif piece == "!" and _HISTORY.match(self.text, at):
                self.add(at, '"!"', "!", literal=False)
            else:
                self.add(at, _quoted(piece), piece)

    def expansion(self, start: int, quoted: bool) -> str:
        """The form of what begins with $, `, <( or >( at `start`: DOLLAR for a mere $."""
        text = self.text
        if text.startswith("$((", start):
            self.at = self.arithmetic(start + 1)
            return text[start : self.at]
        if text.startswith(("$(", "<(", ">("), start):
            inner = _Reader(text, start + 2, self.depth + 1)
            if any(_is_case(item) for item in inner.read()):
                raise _Unreadable  # its patterns end in `)`, too
            self.at = inner.at + 1
            return text[start : self.at]
        kinds = (_PARAMETER, _BACKTICKS) if quoted else (_PARAMETER, _BACKTICKS, _ANSI)
        match = next((m for kind in kinds if (m := kind.match(text, start))), None)
        if match is None:
            if text[start] == "`" or text.startswith(("${", "$["), start):
                raise _Unreadable
            if not quoted and text.startswith('$"', start):
                raise _Unreadable
            self.at = start + 1
            return DOLLAR
        self.at = match.end()
        name = match.re is _PARAMETER and (match[1] or match[2])
        return f"${{{name}}}" if name else match[0]

    def arithmetic(self, at: int) -> int:
        """Where $(( )) ends, whose parentheses begin at `at`."""
        depth = 0
        while match := _ARITHMETIC.match(self.text, at):
            at = match.end()
            depth += (match[0] == "(") - (match[0] == ")")
            if not depth:
                return at
        raise _Unreadable


def _read(text: str) -> tuple[Item, ...] | None:
    if len(text) > MAX_CHARS:
        return None
    try:
        return tuple(_Reader(text).read())
    except _Unreadable:
        return None


_read_cached = functools.lru_cache(maxsize=256)(_read)  # the gold's command is read again for every rollout


def read(text: str) -> tuple[Item, ...] | None:
    """The commands of a shell text and what stands between them; None if it cannot be followed."""
    return _read_cached(text) if len(text) <= 20_000 else _read(text)


def in_order(redirects: tuple[Redirect, ...]) -> tuple[Redirect, ...]:
    """Redirections in order of their file descriptors, if these differ. With a copy (2>&1) order matters.
    `&> a` is `> a 2>&1`.
    """
    given: list[Redirect] = []
    for r in redirects:
        both = r.operator in ("&>", "&>>") or (
            r.operator == ">&" and not re.match(r"[\d$\"-]", r.target.form)
        )
        copy = Redirect("2>&", Word("1", "1", True))
        given += [Redirect(">>" if r.operator == "&>>" else ">", r.target), copy] if both else [r]
    files = [re.match(r"\d*", r.operator)[0] or ("0" if "<" in r.operator else "1") for r in given]
    if len(set(files)) < len(files) or any("&" in r.operator for r in given):
        return tuple(given)
    return tuple(r for _, r in sorted(zip(files, given)))
