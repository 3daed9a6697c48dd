r"""Do two texts typed into a terminal do the same? They do if their normal forms are equal.

    grep  -rn "foo"   src/ |wc -l   ==   grep -n -r foo src/ | wc -l

The normal form does not depend on runs of spaces between words, spaces around operators and at the end of a
line, the quoting of a word that is not expanded, comments, continued lines, the delimiter of a
here-document, and, for commands whose flags are known (flags.py), their order and bundling. Everything else
counts: the number of lines, indentation, quoted text, here-documents, what is expanded and where.

Nothing is executed. Text is read by shell.py; what it cannot follow (an open quote), and text with control
characters such as Tab, which completes, has no normal form and equals only itself.
"""

import re
from collections import Counter
from typing import NamedTuple

from pivotrl_jax.verifiers.compare.flags import sort_flags
from pivotrl_jax.verifiers.compare.shell import Command, in_order, read

_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


# tmux reads a command that is the name of a key as that key
KEY = re.compile(
    r"(?:[CMS]-)+(?:.|\w+)|\^.|(?:Enter|Escape|B?Tab|B?Space|Up|Down|Left|Right|Home|End|PageUp|PgUp|PPage"
    r"|PageDown|PgDn|NPage|DC|IC|Delete|Insert|KPEnter|F\d{1,2})",
    re.IGNORECASE,
)

_MODIFIED = re.compile(r"((?:[CMS]-)*)(.+)", re.IGNORECASE | re.DOTALL)
_ALIASES = {"pgup": "pageup", "ppage": "pageup", "pgdn": "pagedown", "npage": "pagedown"}
_ALIASES |= {"ic": "insert", "dc": "delete"}
ENTER = ("enter", "kpenter", "c-m", "c-j")


class TypedCommand(NamedTuple):
    """A simple command: known flags in alphabetical order, the other words, and redirections in order."""

    flags: tuple[str, ...]
    words: tuple[str, ...]
    redirects: tuple[str, ...]


Form = tuple[TypedCommand | str, ...]  # commands, and the operators and line ends between them


def _command(command: Command) -> TypedCommand:
    redirects = tuple(part for r in in_order(command.redirects) for part in (r.operator, r.target.form))
    words = [word.form for word in command.words]
    prefixed = (i for i, word in enumerate(words) if word != "sudo" and not re.match(r"\w+=", word))
    head = next(prefixed, len(words))
    found = sort_flags(words[head], words[head + 1 :]) if head < len(words) else None
    if found is None:
        return TypedCommand((), tuple(words), redirects)
    flags = tuple(f"-{flag} {value}".rstrip(" ") for flag, value in found.flags)
    # an operand that looks like a flag stands behind `--`, without which it would be one
    marked = ("--",) if any(word.startswith("-") and word != "-" for word in found.operands) else ()
    return TypedCommand(flags, (*words[: head + 1], *marked, *found.operands), redirects)


def normal_form(text: str) -> Form | None:
    """The normal form of a text, or None. Takes linear time and never raises."""
    items = None if _CONTROL.search(text) else read(text)
    if items is None:
        return None
    return tuple(_command(item) if isinstance(item, Command) else item for item in items)


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


def _other_numbers(gold: str, actual: str) -> str:
    numbers = [sorted(re.findall(r"\d+", text)) for text in (gold, actual)]
    return "other numbers" if numbers[0] != numbers[1] else ""


def contradiction(gold: str, actual: str) -> str:
    """Why two texts with different normal forms cannot do the same; "" if they may.

    They may with another tool for the same end, or another way to write a path. With the same commands in the
    same order, another number, flag, quoted text, here-document or file name is another action.
    """
    forms = normal_form(gold), normal_form(actual)
    if None in forms:
        return _other_numbers(gold, actual)
    heads = [[item.words[:1] if isinstance(item, TypedCommand) else item for item in form] for form in forms]
    if heads[0] != heads[1]:
        return ""
    want, got = _words(forms[0]), _words(forms[1])
    missing, surplus = want - got, got - want
    if any("$(" in word or "`" in word for word in missing + surplus):
        return _other_numbers(gold, actual)  # of what is inside, spaces and quotes may differ
    decisive = sorted(word for word in missing + surplus if _is_decisive(word))
    if decisive:
        return f"differs in {decisive[0]!r}"
    names = [{word.rstrip("/").rpartition("/")[2] for word in words} for words in (missing, surplus)]
    return "" if names[0] == names[1] else f"differs in {min(names[0] ^ names[1])!r}"


def _key(stroke: str) -> str:
    """tmux's name of a key in one spelling: ^C and c-c are C-c, PPage is PageUp."""
    if stroke[0] == "^":
        stroke = f"C-{stroke[1:].lower()}"
    modifiers, name = _MODIFIED.fullmatch(stroke).groups()
    name = name if len(name) == 1 else _ALIASES.get(name.lower(), name.lower())
    return modifiers.upper() + name


# ---- Terminus: what a list of commands types


def typed(strokes: list[str]) -> list[str]:
    """Texts (even indices) and the special keys between them (odd indices): "a", "C-c", "b\\n".

    The terminal cannot tell where one command of the list ends and the next begins, so they are joined.
    """
    stream: list[str] = []
    pieces: list[str] = []
    for stroke in strokes:
        if len(stroke) < 20 and KEY.fullmatch(stroke) and stroke.lower() not in ENTER:
            stream += ["".join(pieces), _key(stroke)]
            pieces = []
        else:
            pieces.append("\n" if len(stroke) < 20 and stroke.lower() in ENTER else stroke)
    return [*stream, "".join(pieces)]
