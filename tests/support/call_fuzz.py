"""Random tools and calls, with changes that keep a call's meaning and changes that do not.

`fields(rng)` gives the arguments of a random tool; a field knows what else means the same (`alike`) and what
does not (`apart`). Everything depends on the generator's state alone.
"""

import dataclasses
import random
from collections.abc import Callable, Iterator
from typing import Any

WORDS = "please bring seven chairs for our guests before lunch because Ann asked about them again".split()
CODE = [
    "ls -R src",
    "tar -C out -xf a.tar",
    "SELECT Name FROM t WHERE id <= 30 AND city = 'Oslo'",
    "if a <= b and users[0] == 'Bob': return 1 + 2",
    "/data/My Files/Report 7.txt",
    "^Foo [A-Z]+ (bar|baz) 3$",
    "Blue Horse 7",
    "https://a.example/Some Page?q=1&r=2",
    '{"Key": [1, 2], "b": "x y"}',
    "Tue, 5 May 2026 10:30",
    "echo 'Hello World' > out.txt && cat out.txt",
    "*.PY src/**/Test 1.md",
    "div.Card > a[href='X']",
    "0 5 * * MON",
]
# (name, facets): the places where code stands, each as a name or a schema says it
CODE_PLACES = [
    *((name, {}) for name in "command cmd sql code pattern path password file_name url expression".split()),
    *((name, {}) for name in "x value note_id titlePath message_json commandDescription sqlQuery".split()),
    ("message", {"format": "uri"}),
    ("title", {"pattern": "^.+$"}),
    ("note", {"description": "The shell command to run"}),
    ("query", {"description": "A SQL query"}),
    ("input", {}),
    ("q", {"description": "a regular expression"}),
    ("subject", {"examples": ["a && b"]}),
]
PROSE_PLACES = [
    *((name, {}) for name in "message note title subject reason comment greeting guest_city".split()),
    ("q", {"description": "the question in natural language"}),
]


@dataclasses.dataclass(frozen=True)
class Field:
    """An argument: its schema, its value, and functions from a generator to another value."""

    name: str
    schema: dict
    value: Any
    alike: Callable[[random.Random], Any]
    apart: Callable[[random.Random], Any]


def _swapped(text: str, i: int, new: str) -> str:
    return text[:i] + new + text[i + 1 :]


def changed_code(text: str, rng: random.Random) -> str:
    """One character of `text` changed: its case, a digit, an operator, a quote or a space."""
    ways = []
    for i, c in enumerate(text):
        if c.isalpha():
            ways.append((i, c.swapcase()))
        elif c.isdigit():
            ways.append((i, str((int(c) + rng.randint(1, 9)) % 10)))
        elif c in "<>=+-*&|":
            ways.append((i, rng.choice([o for o in "<>=+-*&|" if o != c])))
        elif c in "'\"":
            ways.append((i, "'" if c == '"' else '"'))
        elif c == " ":
            ways.append((i, rng.choice(["  ", "", "\t"])))
    return _swapped(text, *rng.choice(ways))


def reworded(text: str, rng: random.Random) -> str:
    """The same prose: other case of words, spaces, typographic quotes, a full stop, a line break."""
    words = [rng.choice([str.lower, str.capitalize, str])(w) if w.isalpha() else w for w in text.split()]
    text = "".join(w + " " * rng.randint(1, 3) for w in words).strip()
    if rng.random() < 0.3:
        text = text.replace("'", "’")
    return text + rng.choice(["", ".", "\n", "!"])


def changed_prose(text: str, rng: random.Random) -> str:
    """Other prose: a number, a negation, a word more, less, or another, or two words exchanged."""
    words = text.split()
    i = rng.randrange(len(words) - 1)
    return {
        "number": lambda: text.replace("30", str(rng.choice([3, 31, 300, 20]))),
        "negation": lambda: " ".join([*words[:i], "not", *words[i:]]),
        "less": lambda: " ".join(words[:i] + words[i + 1 :]),
        "other": lambda: " ".join([*words[:i], "tables", *words[i + 1 :]]),
        "order": lambda: " ".join([*words[:i], words[-1], *words[i + 1 : -1], words[i]]),
        "question": lambda: text + "?",
        "capitals": lambda: " ".join([*words[:-1], words[-1].upper()]),
        "secret": lambda: f"{text} code",
    }[rng.choice("number negation less other order question capitals secret".split())]()


def prose_text(rng: random.Random) -> str:
    words = rng.sample(WORDS, rng.randint(2, 7))
    return " ".join([words[0].capitalize(), *words[1:-1], "30", "don't", words[-1]])


def _field(rng: random.Random) -> Field:
    kind = rng.choice(["code", "code", "code", "prose", "prose", "number", "flag", "word", "list", "object"])
    if kind == "code":
        (name, facets), text = rng.choice(CODE_PLACES), rng.choice(CODE)
        schema = {"type": "string", **facets}
        return Field(name, schema, text, lambda _: text, lambda r: changed_code(text, r))
    if kind == "prose":
        (name, facets), text = rng.choice(PROSE_PLACES), prose_text(rng)
        schema = {"type": "string", **facets}
        return Field(name, schema, text, lambda r: reworded(text, r), lambda r: changed_prose(text, r))
    if kind == "number":
        n = rng.randint(-50, 50)
        apart = [n + 1, n + 0.5, str(n), True, None, [n], n + 10]
        return Field("count", {"type": "integer"}, n, lambda _: float(n), lambda r: r.choice(apart))
    if kind == "flag":
        flag = rng.random() < 0.5
        apart = [not flag, int(flag), str(flag), None]
        return Field("quiet", {"type": "boolean"}, flag, lambda _: flag, lambda r: r.choice(apart))
    if kind == "word":
        word = rng.choice(["B12", "NVDA", "yusuf_rossi_9620", "#W123", "Oslo", "2024-05-01"])
        apart = [word.swapcase() if word != word.swapcase() else "", word + " ", word + "1", [word], None]
        return Field("room", {"type": "string"}, word, lambda _: word, lambda r: r.choice(apart))
    inner = _field(rng)
    if kind == "list":
        schema = {"type": "array", "items": inner.schema}
        value = [inner.value, inner.value]
        longer, shorter = [*value, inner.value], value[1:]
        return Field(
            inner.name,
            schema,
            value,
            lambda r: [inner.alike(r), inner.alike(r)],
            lambda r: r.choice([[inner.apart(r), inner.value], longer, shorter]),
        )
    schema = {"type": "object", "properties": {inner.name: inner.schema}, "required": [inner.name]}
    return Field(
        "details",
        schema,
        {inner.name: inner.value},
        lambda r: {inner.name: inner.alike(r), **r.choice([{}, {"arrow": None}])},
        lambda r: r.choice([{inner.name: inner.apart(r)}, {}, {inner.name: inner.value, "more": 1}]),
    )


def fields(rng: random.Random) -> list[Field]:
    """One to four fields of different names."""
    found = {field.name: field for field in (_field(rng) for _ in range(rng.randint(1, 4)))}
    return list(found.values())


def tool(name: str, of: list[Field]) -> dict:
    """The doc of a tool that requires the fields; two more arguments are optional, one with a default."""
    properties = {field.name: field.schema for field in of}
    properties |= {"limit": {"type": "integer", "default": 5}, "tone": {"type": "string"}}
    return {
        "name": name,
        "parameters": {"type": "object", "properties": properties, "required": [f.name for f in of]},
    }


def given(of: list[Field]) -> dict:
    return {field.name: field.value for field in of}


def alike(of: list[Field], rng: random.Random) -> dict:
    """Arguments that mean the same, in another order."""
    arguments = {f.name: f.alike(rng) if rng.random() < 0.7 else f.value for f in of}
    arguments |= rng.choice(
        [{}, {"limit": 5}, {"limit": None}, {"tone": None}, {"path_of_another_tool": None}]
    )
    return dict(rng.sample(list(arguments.items()), len(arguments)))


def apart(of: list[Field], rng: random.Random) -> dict:
    """Arguments with one change that means something."""
    arguments, field = given(of), rng.choice(of)
    how = rng.random()
    if how < 0.8:
        other = field.apart(rng)
        return {**arguments, field.name: other}
    if how < 0.9:
        del arguments[field.name]
        return arguments
    return {**arguments, **rng.choice([{"limit": 6}, {"tone": "dry"}, {"unknown": 0}, {"unknown": ""}])}


def generators(seed: int, count: int) -> Iterator[random.Random]:
    for i in range(count):
        yield random.Random(f"{seed}:{i}")
